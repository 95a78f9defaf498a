import { CONSUMERS, consumerTransactionalId, settledBy } from '../../src/kafka/consumer-records.js';
import type { Member, RecordKey, StoredState } from '../../src/kafka/consumer-records.js';
import { GroupProgress } from '../../src/kafka/hand-over.js';
import type { HandOver } from '../../src/kafka/hand-over.js';
import type { DcId } from '../../src/routing/units.js';
import type { Cluster } from './client/cluster.js';
import { CommittedReader, ledPartitions, offsetsAt } from './read-committed.js';
import type { LedPartition } from './read-committed.js';

/** A fetch waits so long for what is open to be decided; then the time that is left is looked at. */
const WAIT_MS = 50;

/** Compaction keeps a tombstone for a day, by Kafka's default. Hazard: who has not read on for longer would keep what it has removed. */
const FRESH_MS = 60 * 60_000;

export interface FoundGroup {
  group: string;
  topic: string;
  progress: GroupProgress;
}

/** Records that a group of the SDK's consumers has not handled, and that were not there any more. */
export interface ConsumersGap {
  group: string;
  topic: string;
  origin: DcId;
  partition: number;
  /** Offsets of the origin: from the first one up to, and without, the last. */
  from: number;
  to: number;
}

/**
 * What the consumers of a DC have committed last, read on from where the last look ended: a switchover has no time to read all of it behind its fence.
 */
export class ConsumersTail {
  /** By key, as JSON. */
  private readonly values = new Map<string, unknown>();
  private readonly offsets = new Map<number, number>();
  private topicId: string | null | undefined;
  private readAt = -Infinity;
  private turn: Promise<unknown> = Promise.resolve();

  constructor(private readonly cluster: Cluster) {}

  /**
   * Reads all that is there now, with what is not decided yet. Hazard: up to the last decided offset only, a commit would be missed that lies behind
   * another member's open transaction.
   * @returns false: something is open for longer than that
   */
  read(undecidedMs: number): Promise<boolean> {
    // One at a time: each goes on where the other ended.
    const look = this.turn.then(() => this.look(performance.now() + undecidedMs));
    this.turn = look.catch(() => undefined);
    return look;
  }

  private async look(deadline: number): Promise<boolean> {
    const topic = (await this.cluster.metadata([CONSUMERS])).topics[0];
    const id = topic?.error === 0 ? topic.id : undefined;
    const startedAt = performance.now();
    if (this.topicId !== id || startedAt - this.readAt > FRESH_MS) {
      this.readAt = startedAt;
      this.values.clear();
      this.offsets.clear();
      this.topicId = id;
    }
    // No consumer was ever started here.
    if (topic === undefined || id === undefined) return true;
    const partitions = ledPartitions([topic]);
    const { cluster, offsets } = this;
    const ends = await offsetsAt(cluster, partitions, 'latest', false);
    if (offsets.size === 0) {
      const first = await offsetsAt(cluster, partitions, 'earliest', false);
      partitions.forEach(({ partition }, i) => offsets.set(partition, first[i]!));
    }
    const read = await Promise.all(partitions.map((of, i) => this.readOne(of, ends[i]!, deadline)));
    const isWhole = read.every(Boolean);
    if (isWhole) this.readAt = startedAt;
    return isWhole;
  }

  private async readOne(of: LedPartition, end: number, deadline: number): Promise<boolean> {
    const { cluster, offsets } = this;
    const reader = new CommittedReader(cluster, of.leader, of, offsets.get(of.partition) ?? 0, WAIT_MS);
    while (reader.offset < end) {
      const before = reader.offset;
      await reader.fetch((cursor) => {
        const value = cursor.value();
        const key = cursor.key()!.toString();
        if (value === null) this.values.delete(key);
        else this.values.set(key, JSON.parse(value.toString()));
      });
      offsets.set(of.partition, reader.offset);
      if (reader.offset === before && performance.now() > deadline) return false;
    }
    return true;
  }

  /** Of the groups that are known. */
  get topics(): string[] {
    return [...new Set([...this.values.keys()].map((text) => (JSON.parse(text) as RecordKey)[2]))];
  }

  /** All that is kept of a group. */
  recordsOf(group: string, topic?: string): [key: RecordKey, value: unknown][] {
    return [...this.values]
      .map(([text, value]): [RecordKey, unknown] => [JSON.parse(text) as RecordKey, value])
      .filter(([[, of, about]]) => of === group && (topic === undefined || about === topic));
  }

  get groupNames(): string[] {
    return [...new Set([...this.values.keys()].map((text) => (JSON.parse(text) as RecordKey)[1]))].sort();
  }

  /** @param epoch of a fence: its units are in doubt where a state is of older rules */
  groups(dc: DcId, epoch: number): FoundGroup[] {
    const found = new Map<string, FoundGroup>();
    for (const [text, value] of this.values) {
      const key = JSON.parse(text) as RecordKey;
      const [kind, group, topic] = key;
      if (kind === 'mark') continue;
      const name = JSON.stringify([group, topic]);
      const one = found.get(name) ?? { group, topic, progress: new GroupProgress(dc) };
      found.set(name, one);
      if (kind === 'hand-over') one.progress.add(value as HandOver[]);
      else one.progress.at(key[3], key[4]).load(settledBy(value as StoredState, epoch));
    }
    return [...found.values()];
  }

  /** What the members have left out, by partition: it was not there any more. */
  gaps(): ConsumersGap[] {
    return [...this.values].flatMap(([text, value]) => {
      const key = JSON.parse(text) as RecordKey;
      if (key[0] !== 'state') return [];
      const [, group, topic, origin, partition] = key;
      return ((value as StoredState).gaps ?? []).map(([from, to]) => {
        return { group, topic, origin, partition, from, to };
      });
    });
  }

  /** The transactional ids of partitions whose state was committed last by somebody for whom this holds. */
  heldBy(isWanted: (holder: Member | undefined) => boolean): Set<string> {
    const ids = new Set<string>();
    for (const [text, value] of this.values) {
      const key = JSON.parse(text) as RecordKey;
      const [kind, group, topic] = key;
      if (kind === 'state' && isWanted((value as StoredState).holder))
        ids.add(consumerTransactionalId({ group, topic }, key[3], key[4]));
    }
    return ids;
  }
}
