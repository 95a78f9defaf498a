import type { Consumer, IHeaders, Kafka, KafkaMessage } from 'kafkajs';
import { InterlockError } from '../../errors.js';
import { copyName, DEFAULT_NAMING } from '../../kafka/copy-naming.js';
import type { Member, RecordKey } from '../../kafka/consumer-records.js';
import { GroupProgress } from '../../kafka/hand-over.js';
import type { HandOver } from '../../kafka/hand-over.js';
import type { PartitionState } from '../../kafka/partition-progress.js';
import type { DcId, UnitId } from '../../routing/units.js';
import type { RulesSource } from '../rules-source.js';
import { unitsOfTargets } from '../target.js';
import type { Target } from '../target.js';
import { ConsumerPartition } from './consumer-partition.js';
import { ConsumerStates } from './consumer-states.js';
import { Pauses } from './pauses.js';

export interface ConsumedRecord {
  /** As it is called where it was written. */
  topic: string;
  /** The DC that wrote it; partition and offset are those of its own topic. */
  origin: DcId;
  partition: number;
  offset: number;
  key: Buffer | null;
  value: Buffer | null;
  headers: IHeaders;
  /** ms since the epoch. */
  timestamp: number;
  /** It may have been handled already, by a handler whose end nobody could note. */
  redelivered: boolean;
}

/** Records that the group has not handled, and that are not there any more. */
export interface ConsumerGap {
  /** As it is called where it was written. */
  topic: string;
  origin: DcId;
  partition: number;
  /** Offsets of the origin: from the first one up to, and without, the last. */
  from: number;
  to: number;
}

export interface ConsumerOptions {
  groupId: string;
  topics: readonly string[];
  /** The other DC, whose topics are copied here. */
  peer: DcId;
  /** What the copies are called: `naming` of the Kafka link. Default: `{from}.{topic}`. */
  naming?: string;
  /** Whose a record is. Hazard: one for which it throws keeps its partition waiting. */
  routingKey: (record: ConsumedRecord) => Target;
  /** Called for the records of a unit one after the other. When it throws, the record comes again, `redelivered`. */
  handler: (record: ConsumedRecord) => Promise<void>;
  /**
   * Told before a range is passed whose records are removed (retention) and were not handled; maybe again after a crash. When it throws, the partition
   * waits, and it is told again. Default: `onWarning` is told. Some of the range, or all, may have been no records, or of other units.
   */
  onGap?: (gap: ConsumerGap) => void | Promise<void>;
  /** Told of what is mended by itself. Default: silent. */
  onWarning?: (message: string, error?: unknown) => void;
}

export interface FencedConsumerParts {
  kafka: Kafka;
  dc: DcId;
  /** This instance. */
  holder: Member;
  rules: RulesSource;
  options: ConsumerOptions;
}

/** A fetch of an idle partition waits so long; a seek is heard no sooner. */
const MAX_WAIT_MS = 200;
const HEARTBEAT_MS = 1_000;
/** A member that is gone gives its partitions to the others after so long. */
const SESSION_MS = 10_000;
const AT_ONCE = 64;

/**
 * Handles the records of the units that this DC owns: those of its own topics, and of the copies what the old owner left. A fence stops the units'
 * records; the instance acknowledges it when none of them is under way and what was handled is committed.
 */
export class FencedConsumer {
  private readonly groups = new Map<string, GroupProgress>();
  /** What is read → the topic as its origin calls it, and whether it is this DC's own. */
  private readonly read = new Map<string, { topic: string; isLocal: boolean }>();
  private readonly partitions = new Map<string, ConsumerPartition>();
  private readonly states: ConsumerStates;
  private readonly consumer: Consumer;
  private readonly pauses = new Pauses();
  private forget: () => void = () => undefined;

  constructor(private readonly parts: FencedConsumerParts) {
    const { kafka, dc, options } = parts;
    if (options.peer === dc || options.peer === '')
      throw new InterlockError('BadInput', 'consumer: peer: expected the name of the other data center', {
        details: { field: 'peer' },
      });
    const { naming = DEFAULT_NAMING } = options;
    // Hazard: copies among this DC's own records have other offsets, and their units other owners.
    if (!naming.includes('{from}') || !naming.includes('{topic}'))
      throw new InterlockError(
        'BadInput',
        `consumer: naming: expected {from} and {topic} in it, got ${JSON.stringify(naming)}: copies in a topic of their own`,
        { details: { field: 'naming' } },
      );
    for (const topic of options.topics) {
      this.groups.set(topic, new GroupProgress(dc));
      this.read.set(topic, { topic, isLocal: true });
      this.read.set(this.nameOf(options.peer, topic), { topic, isLocal: false });
    }
    this.states = new ConsumerStates(kafka, (key, value) => this.onRecord(key, value));
    this.consumer = kafka.consumer({
      groupId: options.groupId,
      maxWaitTimeInMs: MAX_WAIT_MS,
      sessionTimeout: SESSION_MS,
      allowAutoTopicCreation: false,
    });
  }

  /** Joins the group. Throws Unavailable or NoRules while no rules are known, and what kafkajs throws. */
  async start(): Promise<void> {
    const { rules } = this.parts;
    if (rules.current() === undefined) await rules.refresh();
    await this.states.start();
    this.pauses.watch();
    this.forget = rules.onRules(async (router) => {
      await Promise.all(this.all((partition) => partition.settle(router)));
      void Promise.all(this.all((partition) => partition.grant()));
    });
    const { consumer } = this;
    consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => this.assign(payload.memberAssignment));
    consumer.on(consumer.events.REBALANCING, () => void this.all((partition) => partition.letGo()));
    consumer.on(consumer.events.END_BATCH_PROCESS, ({ payload }) => {
      const { topic, partition, batchSize, firstOffset, lastOffset } = payload;
      if (batchSize === 0)
        this.partitions
          .get(`${topic}/${partition}`)
          ?.passedUnseen(Number(firstOffset), Number(lastOffset) + 1);
    });
    await consumer.connect();
    await consumer.subscribe({ topics: [...this.read.keys()], fromBeginning: true });
    await consumer.run({
      autoCommit: false,
      eachBatchAutoResolve: false,
      partitionsConsumedConcurrently: AT_ONCE,
      eachBatch: async (fetched) => {
        const { batch } = fetched;
        let lost: unknown;
        const beat = setInterval(
          () => void fetched.heartbeat().catch((error: unknown) => (lost = error)),
          HEARTBEAT_MS,
        );
        const last = batch.lastOffset();
        const partition = this.partitions.get(`${batch.topic}/${batch.partition}`);
        try {
          await partition?.read({
            // Not among the declared fields of kafkajs 2.2.4, but there.
            fetchedOffset: Number((batch as unknown as { fetchedOffset: string }).fetchedOffset),
            messages: batch.messages,
            next: Number(last) + 1,
            isAlive: () => lost === undefined && fetched.isRunning(),
            resolve: () => fetched.resolveOffset(last),
          });
        } finally {
          clearInterval(beat);
        }
        if (lost === undefined) return;
        // The group waits for this: who gets it next finds what was handled committed.
        await partition?.letGo();
        throw lost as Error;
      },
    });
  }

  /** Finishes the records that are under way, commits, and leaves the group. */
  async stop(): Promise<void> {
    // A fence that comes now is acknowledged when the records under way are committed.
    await Promise.all(this.all((partition) => partition.close()));
    this.forget();
    this.pauses.end();
    await this.consumer.disconnect();
    await this.states.stop();
  }

  /** What is read for a topic of a DC. */
  private nameOf(origin: DcId, topic: string): string {
    const { dc, options } = this.parts;
    return origin === dc ? topic : copyName(options.naming ?? DEFAULT_NAMING, origin, topic);
  }

  private all<R>(call: (partition: ConsumerPartition) => R): R[] {
    return [...this.partitions.values()].map(call);
  }

  private assign(assignment: Record<string, number[]>): void {
    const wanted = new Set<string>();
    for (const [topic, partitions] of Object.entries(assignment)) {
      for (const partition of partitions) {
        const name = `${topic}/${partition}`;
        wanted.add(name);
        const known = this.partitions.get(name);
        if (known !== undefined) void known.look(true);
        else {
          const made = this.make(topic, partition);
          this.partitions.set(name, made);
          void made.open();
        }
      }
    }
    for (const [name, partition] of this.partitions) {
      if (wanted.has(name)) continue;
      this.partitions.delete(name);
      void partition.close().then(() => this.reload(name));
    }
  }

  /** What another member has committed meanwhile, while this one had the partition. */
  private reload(name: string): void {
    if (this.partitions.has(name)) return;
    const at = name.lastIndexOf('/');
    const [read, partition] = [name.slice(0, at), Number(name.slice(at + 1))];
    const { topic, isLocal } = this.read.get(read)!;
    const { dc, options } = this.parts;
    const origin = isLocal ? dc : options.peer;
    const stored = this.states.valueOf(['state', options.groupId, topic, origin, partition]);
    if (stored === undefined) return;
    this.groups
      .get(topic)!
      .at(origin, partition)
      .load(stored as PartitionState);
    void Promise.all(this.all((other) => other.look()));
  }

  private make(read: string, partition: number): ConsumerPartition {
    const { kafka, dc, holder, rules, options } = this.parts;
    const { topic, isLocal } = this.read.get(read)!;
    const origin = isLocal ? dc : options.peer;
    const recordOf = (message: KafkaMessage, offset: number, redelivered: boolean): ConsumedRecord => ({
      ...{ topic, origin, partition, offset, redelivered },
      key: message.key,
      value: message.value,
      headers: message.headers ?? {},
      timestamp: Number(message.timestamp),
    });
    return new ConsumerPartition({
      ...{ kafka, dc, holder, rules, origin, partition },
      states: this.states,
      subscription: { group: options.groupId, topic },
      group: this.groups.get(topic)!,
      firstOffset: () => this.firstOffset(topic, partition),
      range: () => this.range(read, partition),
      seek: (offset) => this.consumer.seek({ topic: read, partition, offset: String(offset) }),
      setPaused: (paused) =>
        this.consumer[paused ? 'pause' : 'resume']([{ topic: read, partitions: [partition] }]),
      unitOf: (message) => this.unitOf(recordOf(message, Number(message.offset), false)),
      handle: (message, offset, redelivered) => options.handler(recordOf(message, offset, redelivered)),
      onGap: async (from, to) => {
        options.onWarning?.(
          `${options.groupId}: ${topic}-${partition} of ${origin}: ${from} up to ${to} were not handled, and are not in ${read} any more`,
        );
        await options.onGap?.({ topic, origin, partition, from, to });
      },
      wokeAt: () => this.pauses.wokeAt(),
      onCommitted: () => void Promise.all(this.all((other) => other.look())),
      onWarning: (message, error) => options.onWarning?.(message, error),
    });
  }

  private unitOf(record: ConsumedRecord): UnitId {
    const router = this.parts.rules.current()!;
    return unitsOfTargets([this.parts.options.routingKey(record)], () => router)[0]!.unit;
  }

  private onRecord(key: RecordKey, value: unknown): void {
    const [kind, group, topic] = key;
    const progress = group === this.parts.options.groupId ? this.groups.get(topic) : undefined;
    if (progress === undefined) return;
    if (kind === 'hand-over') {
      if (value === undefined) progress.withdraw(key[3]);
      else progress.add(value as HandOver[]);
    } else if (kind === 'state') {
      const [, , , origin, partition] = key;
      // What this member handles itself, it knows better.
      if (this.partitions.has(`${this.nameOf(origin, topic)}/${partition}`)) return;
      if (value === undefined) progress.forget(origin, partition);
      else progress.at(origin, partition).load(value as PartitionState);
    }
    void Promise.all(this.all((partition) => partition.look()));
  }

  private async firstOffset(topic: string, partition: number): Promise<number> {
    const admin = this.parts.kafka.admin();
    await admin.connect();
    try {
      const [found] = await admin.fetchOffsets({ groupId: this.parts.options.groupId, topics: [topic] });
      const committed = Number(found?.partitions.find((one) => one.partition === partition)?.offset ?? -1);
      // What was removed before the group was there, it has not missed.
      return committed >= 0 ? committed : (await this.range(topic, partition)).first;
    } finally {
      await admin.disconnect();
    }
  }

  private async range(topic: string, partition: number): Promise<{ first: number; end: number }> {
    const admin = this.parts.kafka.admin();
    await admin.connect();
    try {
      const found = await admin.fetchTopicOffsets(topic);
      const one = found.find((p) => p.partition === partition);
      return { first: Number(one?.low ?? 0), end: Number(one?.high ?? 0) };
    } finally {
      await admin.disconnect();
    }
  }
}
