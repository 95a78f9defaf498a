import { setTimeout as sleep } from 'node:timers/promises';
import { isInterlockError } from '../../src/errors.js';
import {
  CONSUMERS,
  CONSUMERS_CONFIG,
  CONSUMERS_PARTITIONS,
  isConsumerId,
  partitionOfSubscription,
} from '../../src/kafka/consumer-records.js';
import type { Member, RecordKey } from '../../src/kafka/consumer-records.js';
import type { HandOver, Offsets } from '../../src/kafka/hand-over.js';
import type { DcId, UnitId } from '../../src/routing/units.js';
import type { Cluster } from './client/cluster.js';
import { unavailable } from './client/connection.js';
import { TransactionalProducer } from './client/producer.js';
import { isKafkaError } from './client/protocol-errors.js';
import { BatchBuilder } from './client/record-batch.js';
import { createTopics } from './client/topics-api.js';
import type { CheckpointTail } from './checkpoint-tail.js';
import type { ConsumersTail } from './consumers-tail.js';
import { fenceAll } from './fence-producers.js';
import { behindLastRecords } from './last-records.js';
import { ledPartitions, offsetsAt } from './read-committed.js';
import { requireCopied } from './uncopied.js';

const TRANSACTION_MS = 15_000;
const WRITE_MS = 30_000;
const TOPIC_ALREADY_EXISTS = 36;
/** A living member decides what it has begun within so many looks; then everybody is fenced. Who has not acknowledged is, after the first. */
const DECIDED_MS = 200;
const LOOKS = 5;
/** Of who writes hand-overs, or removes them; a switchover undoes what one of them leaves open. */
export const HAND_OVER_PREFIX = 'interlock-hand-over:';

export interface ConsumerHandOver {
  from: { dc: DcId; cluster: Cluster; tail: ConsumersTail };
  to: { dc: DcId; cluster: Cluster; checkpoints: CheckpointTail };
  /** From the one to the other. */
  link: string;
  /** Of the fence. */
  epoch: number;
  units: readonly UnitId[];
  /** Handles nothing of the units any more, and has committed what it handled: a living lease with the fence's epoch, or a higher one. */
  hasAcknowledged: (instance: Member) => boolean;
  /** For what is open in a topic to be decided. */
  undecidedMs: number;
  /** Told at the end of each step, in their order. */
  ended: (step: string) => void;
}

export interface HandedOver {
  groups: {
    group: string;
    topic: string;
    /** Records at most that the new owner handles before what is new. */
    left: number;
  }[];
  /** Transactional ids of members that had not acknowledged. */
  fenced: string[];
}

/**
 * Hands the consumers' positions of some units to the other DC. For a switchover: when the units are fenced, the outboxes are relayed, and the units'
 * producers have acknowledged or are fenced: no record of theirs is added to a topic any more. Before the marker of the baseline, behind which the
 * units open at the new owner. May be repeated.
 *
 * Members that have acknowledged the fence go on with their other units. The others are fenced first: what they commit later is refused, so the
 * positions that are read now are the last ones. One that lives takes its partitions again, asks the rule center, and goes on where it was.
 */
export async function handOverConsumers(input: ConsumerHandOver): Promise<HandedOver> {
  const { from, to } = input;
  const deadline = performance.now() + input.undecidedMs;
  const known = from.tail.topics;
  const [fenced, ends] = await Promise.all([
    endMembers(input, deadline),
    // Of these units nothing is added: it may be before or after the last positions.
    endsOf(input, known, deadline),
  ]);
  const found = from.tail.groups(from.dc, input.epoch);
  const others = found.map(({ topic }) => topic).filter((topic) => !known.includes(topic));
  const all = { ...ends, ...(await endsOf(input, others, deadline)) };
  input.ended('positions');
  const groups = found.map(({ group, topic, progress }) => {
    const value = progress.handOver(input.units, input.epoch, to.dc, all[topic]!);
    return { group, topic, value };
  });
  await requireCopied({ link: input.link, from, checkpoints: to.checkpoints }, groups);
  await written(input, groups);
  input.ended('handOver');
  return {
    groups: groups.map(({ group, topic, value }) => ({
      group,
      topic,
      left: Math.max(0, ...value.map(leftOf)),
    })),
    fenced,
  };
}

/** What a hand-over would leave now, while records and positions go on. Nothing is written. */
export async function leftNow(
  { dc, cluster, tail }: ConsumerHandOver['from'],
  next: DcId,
  units: readonly UnitId[],
): Promise<NewHandOver[]> {
  const { topics } = tail;
  const ends = await logEnds(cluster, topics);
  // Of no fence.
  const epoch = Number.MAX_SAFE_INTEGER;
  return tail.groups(dc, epoch).map(({ group, topic, progress }) => {
    const value = progress.handOver(units, epoch, next, { [dc]: ends[topic]!, [next]: {} });
    return { group, topic, value };
  });
}

async function logEnds(cluster: Cluster, topics: readonly string[]): Promise<Record<string, Offsets>> {
  const found: Record<string, Record<number, number>> = Object.fromEntries(
    topics.map((topic) => [topic, {}]),
  );
  if (topics.length === 0) return found;
  const partitions = ledPartitions((await cluster.metadata(topics)).topics);
  const ends = await offsetsAt(cluster, partitions, 'latest', false);
  partitions.forEach(({ topic, partition }, i) => (found[topic]![partition] = ends[i]!));
  return found;
}

/** By topic: behind the last record of each partition at the old owner; at the new one, where what is written next begins. */
async function endsOf(
  { from, to }: ConsumerHandOver,
  topics: readonly string[],
  deadline: number,
): Promise<Record<string, Record<DcId, Offsets>>> {
  const [own, others] = await Promise.all([
    behindLastRecords(from.cluster, topics, deadline),
    logEnds(to.cluster, topics),
  ]);
  return Object.fromEntries(
    topics.map((topic) => [topic, { [from.dc]: own[topic]!, [to.dc]: others[topic]! }]),
  );
}

/**
 * When it returns, nobody commits anything of the units any more, and the tail has what was committed. Hazard: a member that is not known yet has a
 * transaction open. Guard: what stays open is undone with every id that there is.
 */
async function endMembers({ from, hasAcknowledged }: ConsumerHandOver, deadline: number): Promise<string[]> {
  const { tail, cluster } = from;
  const ended = new Set<string>();
  const fenced: string[] = [];
  for (let looks = 1; ; looks++) {
    const isDecided = await tail.read(DECIDED_MS);
    const held = tail.heldBy((holder) => holder === undefined || !hasAcknowledged(holder));
    const ids = new Set([...held].filter((id) => !ended.has(id)));
    if (isDecided && ids.size === 0) return fenced;
    if (!isDecided && looks >= LOOKS) break;
    if (ids.size > 0) fenced.push(...(await fenceAll(cluster, (id) => ids.has(id))));
    for (const id of ids) ended.add(id);
  }
  fenced.push(...(await fenceAll(cluster, (id) => isConsumerId(id) || id.startsWith(HAND_OVER_PREFIX))));
  if (!(await tail.read(deadline - performance.now())))
    throw unavailable(`${CONSUMERS} of ${from.dc}: a transaction is open, and hides positions of consumers`);
  return fenced;
}

function leftOf({ stages, from }: HandOver): number {
  return stages
    .flatMap(({ origin, to }) =>
      Object.entries(to).map(([partition, offset]) => offset - (from[origin]?.[Number(partition)] ?? 0)),
    )
    .reduce((sum, records) => sum + records, 0);
}

interface NewHandOver {
  group: string;
  topic: string;
  value: HandOver[];
}

async function written(input: ConsumerHandOver, groups: readonly NewHandOver[]): Promise<void> {
  if (groups.length === 0) return;
  const deadline = performance.now() + WRITE_MS;
  for (;;) {
    try {
      return await write(input, groups);
    } catch (error) {
      // The topic may have been created just now.
      if (!isInterlockError(error) || !error.retryable || performance.now() > deadline) throw error;
      await sleep(100);
    }
  }
}

async function write(
  { from, to: { dc, cluster }, epoch }: ConsumerHandOver,
  groups: readonly NewHandOver[],
): Promise<void> {
  const leaders = await leadersOfConsumers(cluster);
  const producer = await TransactionalProducer.take(
    cluster,
    `${HAND_OVER_PREFIX}${from.dc}>${dc}`,
    TRANSACTION_MS,
  );
  for (const { group, topic, value } of groups) {
    const key: RecordKey = ['hand-over', group, topic, epoch];
    const partition = partitionOfSubscription({ group, topic });
    const builder = new BatchBuilder(4096);
    builder.add(Date.now(), Buffer.from(JSON.stringify(key)), Buffer.from(JSON.stringify(value)));
    const leader = leaders.get(partition) ?? -1;
    if (leader < 0) throw unavailable(`${CONSUMERS}-${partition} has no leader yet`);
    await producer.send([{ topic: CONSUMERS, partition, leader, builder }]);
  }
  await producer.commit();
}

/** Of the topic's partitions, the nodes; it is created when nobody has consumed there. */
async function leadersOfConsumers(cluster: Cluster): Promise<Map<number, number>> {
  for (let created = false; ; created = true) {
    const topic = (await cluster.metadata([CONSUMERS])).topics[0];
    if (created || topic?.error === 0)
      return new Map(topic?.partitions.map(({ partition, leader }) => [partition, leader]));
    const [made] = await cluster.onController(
      createTopics([{ name: CONSUMERS, partitions: CONSUMERS_PARTITIONS, configs: CONSUMERS_CONFIG }]),
    );
    if (made?.error !== undefined && !isKafkaError(made.error, TOPIC_ALREADY_EXISTS)) throw made.error;
  }
}
