import { InterlockError } from '../../src/errors.js';
import type { BaselineReached, KafkaLinkStatus, LinkStatus } from '../core/contract.js';
import { Pace } from '../core/pace.js';
import type { StatusTracker, LinkLag } from '../core/status.js';
import { pause } from '../mysql/pause.js';
import type { StopPoint } from '../core/stop-points.js';
import { Catalog } from './catalog.js';
import type { CarriedTopic } from './catalog.js';
import { CHECKPOINTS, checkpointBatch, checkpointPartition } from './checkpoint.js';
import type { Checkpoint, PartitionPosition } from './checkpoint.js';
import type { Cluster } from './client/cluster.js';
import { byLeader, listOffsets } from './client/data-api.js';
import { check } from './client/protocol-errors.js';
import type { Outgoing, TransactionalProducer } from './client/producer.js';
import { encode } from './encoder.js';
import type { EncodedBatch } from './encoder.js';
import { FetchRefused, Fetcher } from './fetcher.js';
import { GroupTranslator } from './groups.js';
import type { KafkaLinkConfig } from './link-config.js';
import { linkReport, summary } from './link-report.js';
import { diverged, gap, requireSameHistory } from './lineage.js';
import { MARKERS, endOffsets, isForNobody, markersIn } from './markers.js';
import type { Baseline } from './markers.js';
import { SourcePartition } from './source-partition.js';
import { stuckPartitions } from './stuck.js';
import type { QueuedBatch } from './source-partition.js';
import { TopicFilter } from './topic-filter.js';

export interface LinkEvents {
  /** `tableRows`: records copied since the link was started, by topic. */
  onStatus: (status: LinkStatus, tableRows: Record<string, number>) => void;
  /** After the commit that contains all that was before the marker. */
  onMarker: (baseline: BaselineReached, to: { workflowId: string; runId: string }) => void;
}

/** Of what was read and is not sent yet, on the wire. */
const QUEUE_BYTES = 16 * 2 ** 20;
/** What is made at a stretch: the thread has other things to do. */
const STRETCH_BYTES = 2 ** 20;
const TRANSACTION_BYTES = 32 * 2 ** 20;
const TRANSACTION_MS = 250;
/** A source transaction of one partition that is larger keeps ours open, instead of waiting for its end in memory. */
const HELD_BYTES = 4 * 2 ** 20;
/** Ours is kept open so long; then what is there is committed, and the rest of the source transaction follows. */
const WHOLE_MS = 20_000;
const FOLLOW_MS = 3_000;
/** Positions over what was dropped are written after so long, when nothing else makes a transaction. */
const CHECKPOINT_MS = 5_000;
const GROUPS_MS = 1_000;
const OUT_OF_RANGE = 1;

interface Taken {
  next: number;
  leaderEpoch: number;
  records: number;
  closed: boolean;
}

/** One attempt: a generation, a transactional producer, what is read and not applied. */
export class Attempt {
  private readonly partitions = new Map<string, SourcePartition>();
  private readonly ready = new Set<SourcePartition>();
  private readonly fetchers = new Map<number, { fetcher: Fetcher; abort: AbortController }>();
  private readonly filter: TopicFilter;
  private readonly catalog: Catalog;
  private readonly pace: Pace;
  /** `topic-partition` of a copy → node id. */
  private readonly leaders = new Map<string, number>();
  private readonly positions: Map<string, PartitionPosition>;
  private queuedBytes = 0;
  private failure: InterlockError | undefined;
  private wake: (() => void) | undefined;
  private roomMade: (() => void)[] = [];
  private readonly baselines: Baseline[] = [];
  private followDue = false;
  private checkpointAt = performance.now();
  private movedAt = performance.now();
  private marker: Checkpoint['marker'];
  private readonly groups: GroupTranslator;
  private readonly report: Pick<KafkaLinkStatus, 'stuck' | 'deleted' | 'gaps' | 'tornTransactions'> = {
    stuck: [],
    deleted: [],
    gaps: [],
    tornTransactions: 0,
  };
  hasLooked = false;
  private ended = false;

  constructor(
    private readonly config: KafkaLinkConfig,
    private readonly events: LinkEvents,
    private readonly stopAt: (point: StopPoint) => void,
    private readonly tracker: StatusTracker,
    private readonly source: Cluster,
    target: Cluster,
    private readonly producer: TransactionalProducer,
    private readonly checkpoint: Checkpoint,
    private readonly checkpointLeader: number,
  ) {
    this.filter = new TopicFilter(config);
    this.catalog = new Catalog(source, target, this.filter);
    this.pace = new Pace(config.throttle ?? {});
    this.positions = new Map(checkpoint.positions.map((p) => [`${p.topic}-${p.partition}`, p]));
    this.marker = checkpoint.marker;
    this.groups = new GroupTranslator(config.link, config.from, source, target, (topic, partition) => {
      const found = this.partitions.get(`${topic}-${partition}`);
      if (found === undefined || topic === MARKERS) return undefined;
      return { partition: found, leader: this.leaders.get(`${found.copy}-${partition}`) };
    });
  }

  async run(signal: AbortSignal): Promise<void> {
    const { tracker, checkpoint } = this;
    tracker.generation = checkpoint.generation;
    tracker.lastMarker = checkpoint.marker?.id ?? null;
    await this.claim();
    const onAbort = (): void => this.notify();
    signal.addEventListener('abort', onAbort, { once: true });
    const timer = setInterval(() => {
      this.followDue = true;
      this.notify();
    }, FOLLOW_MS);
    try {
      this.stopAt('before-read');
      await this.follow();
      tracker.state = 'streaming';
      tracker.lastError = null;
      this.hasLooked = true;
      this.showPositions();
      this.events.onStatus(tracker.snapshot(this.lag()), tracker.tableRows());
      this.repeatMarker();
      void this.besides(signal);
      await this.applyUntil(signal);
    } finally {
      this.ended = true;
      clearInterval(timer);
      signal.removeEventListener('abort', onAbort);
      for (const { abort } of this.fetchers.values()) abort.abort();
      for (const made of this.roomMade.splice(0)) made();
    }
  }

  lag(): LinkLag {
    const now = performance.now();
    let oldest = now;
    let records = 0;
    for (const partition of this.partitions.values()) {
      if (partition.behindSince !== undefined && partition.behindSince < oldest)
        oldest = partition.behindSince;
      records += Math.max(0, partition.highWatermark - partition.position);
    }
    const lagMs = records === 0 ? 0 : Math.max(1, Math.round(now - oldest));
    return {
      lagMs,
      // How many bytes the source has behind what was read, it does not say.
      lagBytes: records === 0 ? 0 : null,
      stalledMs: lagMs === 0 ? 0 : Math.round(now - Math.max(this.movedAt, oldest)),
      checkpointAgeMs: Math.round(now - this.checkpointAt),
      binlog: null,
    };
  }

  kafka(): KafkaLinkStatus {
    return linkReport(this.carriedPartitions(), this.groups, this.report);
  }

  /** What copying does not wait for: positions of groups, and who holds up a partition. */
  private async besides(signal: AbortSignal): Promise<void> {
    while (!signal.aborted && !this.ended) {
      await this.groups.round();
      this.report.stuck = await stuckPartitions(this.source, this.carriedPartitions()).catch(
        () => this.report.stuck,
      );
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

  /** The first transaction of the generation: nothing of an older one can be committed any more, and whoever reads the checkpoint sees it. */
  private async claim(): Promise<void> {
    await this.sendCheckpoint([]);
    await this.producer.commit();
  }

  private async sendCheckpoint(positions: Iterable<PartitionPosition>): Promise<void> {
    const { link } = this.config;
    const { generation, sourceCluster } = this.checkpoint;
    const about = { generation, sourceCluster, marker: this.marker };
    await this.producer.send([
      {
        topic: CHECKPOINTS,
        partition: checkpointPartition(link),
        leader: this.checkpointLeader,
        builder: checkpointBatch(link, about, generation, positions),
      },
    ]);
  }

  /** Looks for new topics and partitions, and for what leads them. */
  private async follow(): Promise<void> {
    const carried = await this.catalog.follow();
    const markers = (await this.source.metadata([MARKERS])).topics[0];
    const found: SourcePartition[] = [];
    const leaders = new Map<SourcePartition, { leader: number; leaderEpoch: number }>();
    const add = ({ source, copy }: CarriedTopic): void => {
      for (const { partition, leader, leaderEpoch } of source.partitions) {
        const at = this.partitionOf(source.name, partition, copy.name);
        found.push(at);
        leaders.set(at, { leader, leaderEpoch });
      }
      for (const { partition, leader } of copy.partitions)
        this.leaders.set(`${copy.name}-${partition}`, leader);
    };
    for (const topic of carried) add(topic);
    if (markers?.error === 0) add({ source: markers, copy: markers });
    const isNew = found.filter(({ name }) => !this.partitions.has(name));
    for (const partition of found) Object.assign(partition, leaders.get(partition)!);
    await requireSameHistory(this.config, this.source, isNew);
    const gone = [...this.partitions.values()].filter((partition) => !leaders.has(partition));
    for (const partition of isNew) this.partitions.set(partition.name, partition);
    for (const lost of gone) {
      const { name, topic, partition, position, positionEpoch } = lost;
      this.partitions.delete(name);
      this.ready.delete(lost);
      this.queuedBytes -= lost.queuedBytes;
      this.positions.set(name, { topic, partition, offset: position, leaderEpoch: positionEpoch });
    }
    this.noteDeleted(found);
    this.assign();
  }

  private noteDeleted(found: SourcePartition[]): void {
    const there = new Set(found.map(({ topic }) => topic));
    const known = [...this.positions.values()].map(({ topic }) => topic);
    this.report.deleted = [...new Set([...known, ...this.report.deleted])].filter(
      (topic) => !there.has(topic) && topic !== MARKERS && this.filter.carries(topic),
    );
  }

  private partitionOf(topic: string, partition: number, copy: string): SourcePartition {
    const name = `${topic}-${partition}`;
    const existing = this.partitions.get(name);
    if (existing !== undefined) return existing;
    // One that has no position was made after the link was initialised: from its beginning.
    const at = this.positions.get(name) ?? { offset: 0, leaderEpoch: -1 };
    return new SourcePartition(this.config.from, topic, partition, copy, at);
  }

  private assign(): void {
    const led = byLeader(this.partitions.values());
    led.delete(-1);
    for (const [node, { abort }] of this.fetchers) {
      if (led.has(node)) continue;
      abort.abort();
      this.fetchers.delete(node);
    }
    for (const [node, partitions] of led) {
      let running = this.fetchers.get(node);
      if (running === undefined) {
        const abort = new AbortController();
        const fetcher = new Fetcher(this.source, node, {
          onFetched: (partition, fetched) => {
            this.queuedBytes += partition.take(fetched, performance.now());
            if (partition.queue.length > 0) {
              this.ready.add(partition);
              this.stopAt('after-read');
              this.notify();
            }
          },
          room: () => this.room(),
        });
        running = { fetcher, abort };
        this.fetchers.set(node, running);
        void this.runFetcher(fetcher, abort.signal);
      }
      running.fetcher.setPartitions(partitions);
    }
  }

  private async runFetcher(fetcher: Fetcher, signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      try {
        await fetcher.run(signal);
      } catch (error) {
        if (signal.aborted) return;
        try {
          if (!(error instanceof FetchRefused) || error.number !== OUT_OF_RANGE) throw error;
          await this.outOfRange(error.partition);
        } catch (failure) {
          this.fail(asInterlockError(failure));
          return;
        }
      }
    }
  }

  /** The source does not have the record that comes next. */
  private async outOfRange(partition: SourcePartition): Promise<void> {
    const ask = async (at: 'earliest' | 'latest'): Promise<number> => {
      const [found] = await this.source.call(partition.leader, listOffsets([partition], at, false));
      check(found!.error, `the offsets of ${partition.name}`);
      return found!.offset;
    };
    const wanted = partition.fetchOffset;
    const [earliest, latest] = [await ask('earliest'), await ask('latest')];
    if (wanted > latest) throw diverged(this.config, partition.name, wanted, latest);
    if (wanted >= earliest) return;
    if (this.config.onGap === 'stop') throw gap(this.config, partition.name, wanted, earliest);
    this.report.gaps.push({
      topic: partition.topic,
      partition: partition.partition,
      from: wanted,
      to: earliest,
    });
    partition.passGap(earliest, performance.now());
    this.ready.add(partition);
    this.notify();
  }

  private async room(): Promise<void> {
    while (this.queuedBytes > QUEUE_BYTES) await new Promise<void>((resolve) => this.roomMade.push(resolve));
  }

  private async applyUntil(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      if (this.failure !== undefined) throw this.failure;
      if (this.followDue) {
        this.followDue = false;
        await this.follow();
      }
      const [records, bytes] = await this.transaction();
      await this.reachBaseline();
      if (records + bytes === 0) {
        if (this.ready.size === 0 || !this.somethingClosed())
          await new Promise<void>((resolve) => {
            this.wake = resolve;
            if (signal.aborted || this.failure !== undefined || this.followDue) this.notify();
          });
        continue;
      }
      const waitMs =
        this.config.throttle === undefined ? 0 : this.pace.waitMs(records, bytes, performance.now());
      if (waitMs > 0) await pause(waitMs, signal);
    }
  }

  private somethingClosed(): boolean {
    for (const partition of this.ready) if (partition.takeable(this.mayHold(partition)) > 0) return true;
    return false;
  }

  private mayHold(partition: SourcePartition): boolean {
    return partition.queuedBytes <= HELD_BYTES && this.queuedBytes <= QUEUE_BYTES;
  }

  /** Copies what is there, and commits it with where the source is then. @returns records and bytes that were applied or dropped */
  private async transaction(): Promise<[number, number]> {
    const { producer, tracker } = this;
    const begun = performance.now();
    const taken = new Map<SourcePartition, Taken>();
    const most = this.pace.most(Number.MAX_SAFE_INTEGER, TRANSACTION_BYTES);
    let [records, bytes, foreign] = [0, 0, 0];
    for (;;) {
      const open = [...taken].filter(([, { closed }]) => !closed).map(([partition]) => partition);
      const age = performance.now() - begun;
      const full = bytes >= most.bytes || records >= most.rows || age > TRANSACTION_MS;
      if (full && (open.length === 0 || age > WHOLE_MS)) {
        this.report.tornTransactions += open.length;
        break;
      }
      const stretch = this.stretch(full ? open : [...this.ready], open);
      if (stretch.length === 0) {
        if (open.length === 0) break;
        // The rest of a source transaction is at the source already: it is decided.
        await this.arrival();
        if (this.failure !== undefined) throw this.failure;
        continue;
      }
      const rounds: Outgoing[][] = [];
      for (const { partition, batches } of stretch) {
        const encoded = encode(partition, batches);
        encoded.batches.forEach((batch, round) => {
          (rounds[round] ??= []).push(this.outgoing(partition, batch));
        });
        const last = batches[batches.length - 1]!;
        const before = taken.get(partition)?.records ?? 0;
        taken.set(partition, {
          next: last.next,
          leaderEpoch: last.leaderEpoch,
          records: before + encoded.records,
          closed: last.closed,
        });
        records += encoded.records;
        foreign += encoded.foreign;
        for (const batch of batches) bytes += batch.bytes;
      }
      tracker.transactionsRead += 1;
      if (rounds.length > 0 && producer.isEmpty) this.stopAt('before-target-write');
      for (const round of rounds) await producer.send(round);
    }
    if (taken.size === 0) return [0, 0];
    const writes = !producer.isEmpty;
    for (const [partition, { next, leaderEpoch }] of taken) {
      partition.reach(next, leaderEpoch);
    }
    if (writes || performance.now() - this.checkpointAt > CHECKPOINT_MS) await this.commit();
    const now = performance.now();
    for (const [partition, { records: count }] of taken) {
      partition.applied(now);
      if (count > 0) tracker.count(partition.topic, count);
    }
    this.movedAt = now;
    tracker.rows += records;
    tracker.rowsRead += records;
    tracker.droppedForeign += foreign;
    if (writes) tracker.transactions += 1;
    this.showPositions();
    return [records, Math.max(bytes, 1)];
  }

  /** All that is to be written beside the copies, and the commit. */
  private async commit(): Promise<void> {
    const dirty = [...this.partitions.values()].filter((partition) => partition.dirty);
    await this.sendCheckpoint(
      dirty.map(({ topic, partition, reached, reachedEpoch }) => ({
        ...{ topic, partition, offset: reached, leaderEpoch: reachedEpoch },
      })),
    );
    await this.producer.flush();
    this.stopAt('before-target-commit');
    await this.producer.commit();
    this.stopAt('after-target-commit');
    for (const partition of dirty) partition.dirty = false;
    this.checkpointAt = performance.now();
  }

  /** Takes batches off the queues, a stretch of work. @param open partitions of which a source transaction is half sent: theirs first */
  private stretch(
    from: SourcePartition[],
    open: SourcePartition[],
  ): { partition: SourcePartition; batches: QueuedBatch[] }[] {
    const stretch: { partition: SourcePartition; batches: QueuedBatch[] }[] = [];
    let left = STRETCH_BYTES;
    for (const partition of from) {
      if (left <= 0) break;
      if (partition.topic === MARKERS) {
        this.takeMarkers(partition);
        continue;
      }
      const half = open.includes(partition);
      const count = partition.takeable(!half && this.mayHold(partition));
      if (count === 0) continue;
      const batches = partition.shift(count, left);
      for (const { bytes } of batches) left -= bytes;
      if (partition.queue.length === 0) this.ready.delete(partition);
      else {
        // To the end: one that always has more must not keep the others waiting.
        this.ready.delete(partition);
        this.ready.add(partition);
      }
      stretch.push({ partition, batches });
    }
    this.queuedBytes -= STRETCH_BYTES - left;
    if (this.queuedBytes <= QUEUE_BYTES) for (const made of this.roomMade.splice(0)) made();
    return stretch;
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

  private outgoing(
    { partition, copy, index }: SourcePartition,
    { builder, encoded, first, last }: EncodedBatch,
  ): Outgoing {
    const leader = this.leaders.get(`${copy}-${partition}`) ?? -1;
    const onOffset = (base: number): void => index.add({ first, last, base, count: builder.count });
    return { topic: copy, partition, leader, builder, onOffset, ...(encoded !== undefined && { encoded }) };
  }

  private takeMarkers(partition: SourcePartition): void {
    for (const queued of partition.shift(partition.queue.length, Infinity)) {
      this.queuedBytes -= queued.bytes;
      this.baselines.push(...markersIn(queued));
    }
    this.ready.delete(partition);
  }

  /** Says of every marker that all before it is here, once it is. */
  private async reachBaseline(): Promise<void> {
    for (let baseline = this.baselines[0]; baseline !== undefined; baseline = this.baselines[0]) {
      if (baseline.ends === undefined) {
        // Hazard: a topic that is so new that it is not followed yet would be missing in the baseline.
        await this.follow();
        baseline.ends = await endOffsets(this.source, this.carriedPartitions());
      }
      for (const [name, end] of baseline.ends) {
        const partition = this.partitions.get(name);
        if (partition !== undefined && partition.position < end) return;
      }
      const { marker } = baseline;
      if (!isForNobody(marker)) this.marker = marker;
      const own = this.partitions.get(`${MARKERS}-0`)!;
      own.reach(baseline.next, baseline.leaderEpoch);
      await this.commit();
      own.applied(performance.now());
      this.baselines.shift();
      if (isForNobody(marker)) continue;
      this.tracker.lastMarker = marker.id;
      this.stopAt('before-acknowledge');
      this.tell(marker);
      this.stopAt('after-acknowledge');
    }
  }

  private tell({ id, workflowId, runId }: NonNullable<Checkpoint['marker']>): void {
    const { link } = this.config;
    const position = this.tracker.position;
    this.events.onMarker(
      { markerId: id, link, conflicts: 0, quarantined: 0, position },
      { workflowId, runId },
    );
  }

  /** Whether the last one was heard, nobody can know. */
  private repeatMarker(): void {
    if (this.marker !== null) this.tell(this.marker);
  }

  private carriedPartitions(): SourcePartition[] {
    return [...this.partitions.values()].filter(({ topic }) => topic !== MARKERS);
  }

  private showPositions(): void {
    const partitions = this.carriedPartitions();
    this.tracker.position = summary(partitions.map(({ name, position }) => `${name}:${position}`));
    this.tracker.sourcePosition = summary(
      partitions.map(({ name, highWatermark, position }) => `${name}:${Math.max(highWatermark, position)}`),
    );
  }
}

function asInterlockError(error: unknown): InterlockError {
  if (error instanceof InterlockError) return error;
  return new InterlockError('Internal', String(error), { cause: error });
}
