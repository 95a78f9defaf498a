import { InterlockError } from '../../src/errors.js';
import type { KafkaLinkStatus } from '../core/contract.js';
import type { StopAt } from '../core/stop-points.js';
import { Catalog } from './catalog.js';
import type { CarriedTopic } from './catalog.js';
import type { Checkpoint, PartitionPosition } from './checkpoint.js';
import type { Cluster } from './client/cluster.js';
import { byLeader, listOffsets } from './client/data-api.js';
import type { TopicMetadata } from './client/metadata-api.js';
import { check } from './client/protocol-errors.js';
import { FetchRefused, Fetcher } from './fetcher.js';
import { beginAtEarliest } from './fresh-partitions.js';
import type { FreshPartition } from './fresh-partitions.js';
import { copyGone, diverged, gap, requireSameHistory, requireSameTopic } from './lineage.js';
import type { KafkaLinkConfig } from './link-config.js';
import { MARKERS } from './markers.js';
import { SourcePartition } from './source-partition.js';
import type { QueuedBatch } from './source-partition.js';
import { TopicFilter } from './topic-filter.js';

/** Of what was read and is not sent yet, on the wire. */
const QUEUE_BYTES = 16 * 2 ** 20;
/** What is made at a stretch: the thread has other things to do. */
const STRETCH_BYTES = 2 ** 20;
/** A source transaction of one partition that is larger keeps ours open, instead of waiting for its end in memory. */
const HELD_BYTES = 4 * 2 ** 20;
const OUT_OF_RANGE = 1;
/** That many are kept. */
const GAPS = 20;

export interface ReaderHooks {
  onArrival: () => void;
  onFailure: (error: InterlockError) => void;
  stopAt: StopAt;
}

/** What is taken off the queues at a time. */
export interface Stretch {
  partition: SourcePartition;
  batches: QueuedBatch[];
}

/** What a look at both clusters has found. */
export interface SourceTopics {
  carried: CarriedTopic[];
  markers: TopicMetadata | undefined;
}

/** The source's topics, and what was read of them and is not applied. */
export class SourceReader {
  readonly partitions = new Map<string, SourcePartition>();
  readonly deleted: string[] = [];
  /** The last ones; kept with the checkpoint. */
  readonly gaps: KafkaLinkStatus['gaps'];
  readonly late: KafkaLinkStatus['late'] = [];
  /** So many partitions were found that have neither a position nor a leader. */
  leaderless = 0;
  private readonly ready = new Set<SourcePartition>();
  private readonly fetchers = new Map<number, { fetcher: Fetcher; abort: AbortController }>();
  /** `topic-partition` of a copy → node id. */
  private readonly leaders = new Map<string, number>();
  private readonly positions: Map<string, PartitionPosition>;
  private readonly filter: TopicFilter;
  private readonly catalog: Catalog;
  private queuedBytes = 0;
  private roomMade: (() => void)[] = [];

  constructor(
    private readonly config: KafkaLinkConfig,
    private readonly source: Cluster,
    target: Cluster,
    { positions, gaps = [] }: Checkpoint,
    private readonly hooks: ReaderHooks,
  ) {
    this.filter = new TopicFilter(config);
    this.gaps = gaps;
    this.catalog = new Catalog(source, target, this.filter, (topic, copy) => {
      if (this.hasCopied(topic)) throw copyGone(config, topic, copy);
    });
    this.positions = new Map(positions.map((p) => [`${p.topic}-${p.partition}`, p]));
  }

  close(): void {
    for (const { abort } of this.fetchers.values()) abort.abort();
    for (const made of this.roomMade.splice(0)) made();
  }

  /** Without the markers' own. */
  carried(): SourcePartition[] {
    return [...this.partitions.values()].filter(({ topic }) => topic !== MARKERS);
  }

  private hasCopied(topic: string): boolean {
    const known = [...this.positions.values()].filter((at) => at.topic === topic);
    const followed = [...this.partitions.values()].filter((partition) => partition.topic === topic);
    return known.some(({ offset, begun = 0 }) => offset > begun) || followed.some(({ hasMoved }) => hasMoved);
  }

  leaderOfCopy({ copy, partition }: SourcePartition): number {
    return this.leaders.get(`${copy}-${partition}`) ?? -1;
  }

  /** Looks for new topics and partitions, and for what leads them; copies are made, and nothing here is changed. */
  async look(): Promise<SourceTopics> {
    const carried = await this.catalog.follow();
    return { carried, markers: (await this.source.metadata([MARKERS])).topics[0] };
  }

  /**
   * Goes on with what a look has found. It waits for a broker only where something is new.
   * @returns the partitions that it has found for the first time
   */
  async adopt({ carried, markers }: SourceTopics): Promise<SourcePartition[]> {
    const found = new Set<SourcePartition>();
    const fresh: FreshPartition[] = [];
    const add = (topic: CarriedTopic): void => {
      const { source, copy, maxBatchBytes } = topic;
      for (const at of source.partitions) {
        const partition = this.partitionOf(source.name, at.partition, copy.name);
        if (partition === undefined) {
          fresh.push({ ...at, topic });
          continue;
        }
        requireSameTopic(this.config, partition, source.id);
        const { leader, leaderEpoch } = at;
        const topicId = source.id ?? partition.topicId;
        found.add(Object.assign(partition, { leader, leaderEpoch, topicId, maxBatchBytes }));
      }
      for (const { partition, leader } of copy.partitions)
        this.leaders.set(`${copy.name}-${partition}`, leader);
    };
    for (const topic of carried) add(topic);
    if (markers?.error === 0) add({ source: markers, copy: markers, maxBatchBytes: 0 });
    this.leaderless = fresh.filter(({ leader }) => leader < 0).length;
    const begun = await beginAtEarliest(this.config.from, this.source, fresh);
    for (const partition of begun) {
      found.add(partition);
      const { topic, partition: number, position: from } = partition;
      if (from > 0 && topic !== MARKERS) this.late.push({ topic, partition: number, from });
    }
    const isNew = [...found].filter(({ name }) => !this.partitions.has(name));
    await requireSameHistory(this.config, this.source, isNew);
    const gone = [...this.partitions.values()].filter((partition) => !found.has(partition));
    for (const partition of isNew) this.partitions.set(partition.name, partition);
    for (const lost of gone) {
      this.partitions.delete(lost.name);
      this.ready.delete(lost);
      this.queuedBytes -= lost.queuedBytes;
      this.positions.set(lost.name, lost.checkpoint());
    }
    this.noteDeleted([...found]);
    this.assign();
    return begun;
  }

  private noteDeleted(found: SourcePartition[]): void {
    const there = new Set(found.map(({ topic }) => topic));
    const known = [...this.positions.values()].map(({ topic }) => topic);
    const gone = [...new Set([...known, ...this.deleted])].filter(
      (topic) => !there.has(topic) && topic !== MARKERS && this.filter.carries(topic),
    );
    this.deleted.splice(0, Infinity, ...gone);
  }

  /** undefined: the link has no position of it. */
  private partitionOf(topic: string, partition: number, copy: string): SourcePartition | undefined {
    const name = `${topic}-${partition}`;
    const existing = this.partitions.get(name);
    if (existing !== undefined) return existing;
    const at = this.positions.get(name);
    return at && new SourcePartition(this.config.from, topic, partition, copy, at);
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
              this.hooks.stopAt('after-read');
              this.hooks.onArrival();
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
          this.hooks.onFailure(asInterlockError(failure));
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
    // Of the markers nothing is copied: those that retention has removed were of switchovers that are over.
    if (partition.topic !== MARKERS) {
      if (this.config.onGap === 'stop') throw gap(this.config, partition.name, wanted, earliest);
      this.noteGap({
        topic: partition.topic,
        partition: partition.partition,
        from: wanted,
        to: earliest,
      });
    }
    partition.passGap(earliest, performance.now());
    this.ready.add(partition);
    this.hooks.onArrival();
  }

  private noteGap(found: KafkaLinkStatus['gaps'][number]): void {
    // An attempt that ended before it was behind the gap has noted it, too.
    const same = this.gaps.findIndex(
      ({ topic, partition, from }) =>
        topic === found.topic && partition === found.partition && from === found.from,
    );
    if (same >= 0) this.gaps.splice(same, 1);
    this.gaps.push(found);
    this.gaps.splice(0, this.gaps.length - GAPS);
  }

  private async room(): Promise<void> {
    while (this.isFull) await new Promise<void>((resolve) => this.roomMade.push(resolve));
  }

  /** Whether something can be taken now. */
  get hasWork(): boolean {
    for (const partition of this.ready)
      if (partition.topic !== MARKERS && partition.takeable(this.mayHold(partition)) > 0) return true;
    return false;
  }

  get hasMarkers(): boolean {
    return (this.partitions.get(`${MARKERS}-0`)?.queue.length ?? 0) > 0;
  }

  /** Nothing more is read until something is taken. */
  get isFull(): boolean {
    return this.queuedBytes > QUEUE_BYTES;
  }

  private mayHold(partition: SourcePartition): boolean {
    return partition.queuedBytes <= HELD_BYTES && !this.isFull;
  }

  /**
   * Takes batches off the queues.
   * @param open partitions of which a source transaction is half taken: up to its end
   * @param onlyOpen nothing of the others
   */
  take(open: ReadonlySet<SourcePartition>, onlyOpen: boolean): Stretch[] {
    const stretch: Stretch[] = [];
    let left = STRETCH_BYTES;
    for (const partition of onlyOpen ? open : [...this.ready]) {
      if (left <= 0) break;
      if (partition.topic === MARKERS) continue;
      const half = open.has(partition);
      const count = half ? partition.toNextClosed() : partition.takeable(this.mayHold(partition));
      if (count === 0) continue;
      const batches = partition.shift(count, left);
      for (const { bytes } of batches) left -= bytes;
      // To the end: one that always has more must not keep the others waiting.
      this.ready.delete(partition);
      if (partition.queue.length > 0) this.ready.add(partition);
      stretch.push({ partition, batches });
    }
    this.release(STRETCH_BYTES - left);
    return stretch;
  }

  /** What was read of the markers. */
  takeMarkers(): QueuedBatch[] {
    const partition = this.partitions.get(`${MARKERS}-0`);
    if (partition === undefined || partition.queue.length === 0) return [];
    this.ready.delete(partition);
    const taken = partition.shift(partition.queue.length, Infinity);
    for (const { bytes } of taken) this.release(bytes);
    return taken;
  }

  private release(bytes: number): void {
    this.queuedBytes -= bytes;
    if (!this.isFull) for (const made of this.roomMade.splice(0)) made();
  }
}

export function asInterlockError(error: unknown): InterlockError {
  if (error instanceof InterlockError) return error;
  return new InterlockError('Internal', String(error), { cause: error });
}
