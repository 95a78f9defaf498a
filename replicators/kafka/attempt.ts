import { InterlockError } from '../../src/errors.js';
import type { BaselineReached, KafkaLinkStatus, LinkStatus } from '../core/contract.js';
import { Pace } from '../core/pace.js';
import type { StatusTracker, LinkLag } from '../core/status.js';
import { pause } from '../core/pause.js';
import type { StopAt } from '../core/stop-points.js';
import { Baselines } from './baselines.js';
import type { Checkpoint } from './checkpoint.js';
import type { Cluster } from './client/cluster.js';
import type { Outgoing, TransactionalProducer } from './client/producer.js';
import { encode } from './encoder.js';
import type { EncodedBatch } from './encoder.js';
import { Follower } from './follower.js';
import { GroupTranslator } from './groups.js';
import type { KafkaLinkConfig } from './link-config.js';
import { lagOf, linkReport, summary } from './link-report.js';
import { MARKERS } from './markers.js';
import type { MarkerRecord } from './markers.js';
import type { SourcePartition } from './source-partition.js';
import { SourceReader } from './source-reader.js';
import type { Stretch } from './source-reader.js';
import { stuckPartitions } from './stuck.js';
import { TargetWriter } from './target-writer.js';

export interface LinkEvents {
  /** `tableRows`: records copied since the link was started, by topic. */
  onStatus: (status: LinkStatus, tableRows: Record<string, number>) => void;
  /** After the commit that contains all that was before the marker. */
  onMarker: (baseline: BaselineReached, to: { workflowId: string; runId: string }) => void;
}

const TRANSACTION_BYTES = 32 * 2 ** 20;
const TRANSACTION_MS = 250;
/** Ours is kept open so long; then what is there is committed, and the rest of the source transaction follows. */
const WHOLE_MS = 20_000;
const FOLLOW_MS = 3_000;
const GROUPS_MS = 1_000;

/** One attempt: a generation, a transactional producer, what is read and not applied. */
export class Attempt {
  private readonly reader: SourceReader;
  private readonly pace: Pace;
  private readonly writer: TargetWriter;
  private readonly baselines: Baselines;
  private failure: InterlockError | undefined;
  private wake: (() => void) | undefined;
  private readonly follower: Follower;
  private readonly begunAt = performance.now();
  private movedAt = performance.now();
  private readonly groups: GroupTranslator;
  private stuck: KafkaLinkStatus['stuck'] = [];
  private tornTransactions = 0;
  hasLooked = false;
  private ended = false;

  constructor(
    private readonly config: KafkaLinkConfig,
    private readonly events: LinkEvents,
    private readonly stopAt: StopAt,
    private readonly tracker: StatusTracker,
    private readonly source: Cluster,
    target: Cluster,
    producer: TransactionalProducer,
    private readonly checkpoint: Checkpoint,
    checkpointLeader: number,
  ) {
    this.writer = new TargetWriter(config.link, producer, checkpoint, checkpointLeader, stopAt);
    this.reader = new SourceReader(config, source, target, checkpoint, {
      onArrival: () => this.notify(),
      onFailure: (error) => this.fail(error),
      stopAt,
    });
    this.follower = new Follower(this.reader, this.writer, {
      onSeen: () => this.notify(),
      onFailure: (error) => this.fail(error),
    });
    this.baselines = new Baselines(source, this.reader, this.writer, {
      follow: () => this.follower.follow(),
      onReached: (marker) => {
        this.tracker.lastMarker = marker.id;
        this.tell(marker);
      },
      stopAt,
    });
    this.pace = new Pace(config.throttle ?? {});
    this.groups = new GroupTranslator(config.link, config.from, source, target, (topic, partition) => {
      const found = this.reader.partitions.get(`${topic}-${partition}`);
      if (found === undefined || topic === MARKERS) return undefined;
      return { partition: found, leader: this.reader.leaderOfCopy(found) };
    });
  }

  async run(signal: AbortSignal): Promise<void> {
    const { tracker, checkpoint } = this;
    tracker.generation = checkpoint.generation;
    tracker.lastMarker = checkpoint.marker?.id ?? null;
    await this.writer.commitGeneration();
    const onAbort = (): void => this.notify();
    signal.addEventListener('abort', onAbort, { once: true });
    const timer = setInterval(() => this.follower.lookAhead(), FOLLOW_MS);
    try {
      this.stopAt('before-read');
      await this.follower.follow();
      tracker.state = 'streaming';
      tracker.lastError = null;
      this.hasLooked = true;
      this.events.onStatus(tracker.snapshot(this.lag()), tracker.tableRows());
      this.repeatMarker();
      void this.besides(signal);
      await this.applyUntil(signal);
    } finally {
      this.ended = true;
      clearInterval(timer);
      signal.removeEventListener('abort', onAbort);
      this.reader.close();
    }
  }

  lag(): LinkLag {
    const { begunAt, movedAt, writer } = this;
    return lagOf(this.reader.partitions.values(), {
      begunAt,
      movedAt,
      checkpointAgeMs: writer.checkpointAgeMs,
    });
  }

  kafka(): KafkaLinkStatus {
    const { deleted, gaps, late } = this.reader;
    const { tornTransactions } = this;
    // Asked for now and then; that it is over shows at once.
    const stuck = this.stuck.filter(({ topic, partition }) => {
      return this.reader.partitions.get(`${topic}-${partition}`)?.stuckSince !== undefined;
    });
    return linkReport(this.reader.carried(), this.groups, { deleted, gaps, late, stuck, tornTransactions });
  }

  /** What copying does not wait for: positions of groups, and who holds up a partition. */
  private async besides(signal: AbortSignal): Promise<void> {
    while (!signal.aborted && !this.ended) {
      this.stuck = await stuckPartitions(this.source, this.reader.carried()).catch(() => this.stuck);
      await this.groups.round();
      await pause(GROUPS_MS, signal);
    }
  }

  private fail(error: InterlockError): void {
    this.failure ??= error;
    this.notify();
  }

  private notify(): void {
    this.wake?.();
    this.wake = undefined;
  }

  private async applyUntil(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      if (this.failure !== undefined) throw this.failure;
      await this.follower.adopt();
      const [records, bytes] = await this.transaction();
      await this.baselines.reach();
      if (records + bytes === 0) {
        if (!this.reader.hasWork && !this.reader.hasMarkers)
          await new Promise<void>((resolve) => {
            this.wake = resolve;
            if (signal.aborted || this.failure !== undefined || this.follower.hasSeen) this.notify();
          });
        continue;
      }
      const waitMs =
        this.config.throttle === undefined ? 0 : this.pace.waitMs(records, bytes, performance.now());
      if (waitMs > 0) await pause(waitMs, signal);
    }
  }

  /** Copies what is there, and commits it with where the source is then. @returns records and bytes that were applied or dropped */
  private async transaction(): Promise<[number, number]> {
    const { writer, tracker, reader } = this;
    const begun = performance.now();
    const taken = new Map<SourcePartition, number>();
    const open = new Set<SourcePartition>();
    const most = this.pace.most(Number.MAX_SAFE_INTEGER, TRANSACTION_BYTES);
    let [records, bytes, foreign] = [0, 0, 0];
    let complete = false;
    while (!complete) {
      const age = performance.now() - begun;
      const full = bytes >= most.bytes || records >= most.rows || age > TRANSACTION_MS;
      // Hazard: with all room taken by others, the rest of a source transaction would not be read.
      const stretch = reader.take(open, full && !reader.isFull);
      if (stretch.length === 0 && open.size > 0 && age < WHOLE_MS) {
        // The rest of a source transaction is at the source already: it is decided.
        await this.arrival();
        if (this.failure !== undefined) throw this.failure;
        continue;
      }
      const made = this.encode(stretch, taken, open);
      records += made.records;
      foreign += made.foreign;
      for (const { batches } of stretch) for (const batch of batches) bytes += batch.bytes;
      if (made.rounds.length > 0 && writer.isEmpty) this.stopAt('before-target-write');
      complete = age > WHOLE_MS || (open.size === 0 && (full || !reader.hasWork));
      const writes = made.rounds.length > 0 || !writer.isEmpty;
      // With the last of the records: one request less to wait for.
      if (complete && (writes || writer.isCheckpointDue)) {
        const last = Math.max(made.rounds.length - 1, 0);
        writer.positions().forEach((batch, i) => (made.rounds[last + i] ??= []).push(batch));
      }
      await writer.send(made.rounds);
    }
    this.tornTransactions += open.size;
    const writes = !writer.isEmpty;
    if (writes) await writer.commit();
    if (taken.size === 0) return [0, 0];
    const now = performance.now();
    for (const [partition, count] of taken) {
      partition.applied(now);
      if (count > 0) tracker.count(partition.topic, count);
    }
    this.movedAt = now;
    tracker.rows += records;
    tracker.rowsRead += records;
    tracker.droppedForeign += foreign;
    if (writes) tracker.transactions += 1;
    tracker.transactionsRead = tracker.transactions;
    return [records, Math.max(bytes, 1)];
  }

  /** The batches of the copies; one of a partition in each round. */
  private encode(
    stretch: Stretch[],
    taken: Map<SourcePartition, number>,
    open: Set<SourcePartition>,
  ): { rounds: Outgoing[][]; records: number; foreign: number } {
    const rounds: Outgoing[][] = [];
    let [records, foreign] = [0, 0];
    for (const { partition, batches } of stretch) {
      const encoded = encode(partition, batches);
      encoded.batches.forEach((batch, round) => {
        (rounds[round] ??= []).push(this.outgoing(partition, batch));
      });
      const { next, leaderEpoch, closed } = batches[batches.length - 1]!;
      partition.reach(next, leaderEpoch);
      this.writer.reached(partition);
      if (closed) open.delete(partition);
      else open.add(partition);
      taken.set(partition, (taken.get(partition) ?? 0) + encoded.records);
      records += encoded.records;
      foreign += encoded.foreign;
    }
    return { rounds, records, foreign };
  }

  private async arrival(): Promise<void> {
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, 100);
      this.wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  private outgoing(of: SourcePartition, { builder, encoded, first, last }: EncodedBatch): Outgoing {
    const { partition, copy, index } = of;
    const leader = this.reader.leaderOfCopy(of);
    const onOffset = (base: number): void => index.add({ first, last, base, count: builder.count });
    return { topic: copy, partition, leader, builder, onOffset, ...(encoded !== undefined && { encoded }) };
  }

  private tell({ id, workflowId, runId }: MarkerRecord): void {
    const { link } = this.config;
    this.showPositions();
    const { position } = this.tracker;
    this.events.onMarker(
      { markerId: id, link, conflicts: 0, quarantined: 0, position },
      { workflowId, runId },
    );
  }

  /** Whether the last one was heard, nobody can know. */
  private repeatMarker(): void {
    if (this.writer.marker !== null) this.tell(this.writer.marker);
  }

  /** Into the status. */
  showPositions(): void {
    const partitions = this.reader.carried();
    this.tracker.position = summary(partitions.map(({ name, position }) => `${name}:${position}`));
    this.tracker.sourcePosition = summary(
      partitions.map(({ name, highWatermark, position }) => `${name}:${Math.max(highWatermark, position)}`),
    );
  }
}
