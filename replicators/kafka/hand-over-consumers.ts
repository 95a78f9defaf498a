import { setTimeout as sleep } from 'node:timers/promises';
import { isInterlockError } from '../../src/errors.js';
import {
  CONSUMERS,
  CONSUMERS_CONFIG,
  CONSUMERS_PARTITIONS,
  isConsumerId,
  partitionOfSubscription,
} from '../../src/kafka/consumer-records.js';
import type { RecordKey } from '../../src/kafka/consumer-records.js';
import { GroupProgress } from '../../src/kafka/hand-over.js';
import type { HandOver } from '../../src/kafka/hand-over.js';
import type { PartitionState } from '../../src/kafka/partition-progress.js';
import type { DcId, UnitId } from '../../src/routing/units.js';
import { Cluster } from './client/cluster.js';
import { unavailable } from './client/connection.js';
import type { KafkaAddress } from './client/connection.js';
import { TransactionalProducer } from './client/producer.js';
import { isKafkaError } from './client/protocol-errors.js';
import { BatchBuilder } from './client/record-batch.js';
import { createTopics } from './client/topics-api.js';
import { fenceAll } from './fence-producers.js';
import { boundsOf, readCommitted } from './read-committed.js';

const TRANSACTION_MS = 15_000;
const WRITE_MS = 30_000;
const TOPIC_ALREADY_EXISTS = 36;

export interface ConsumerHandOver {
  from: { dc: DcId; kafka: KafkaAddress };
  to: { dc: DcId; kafka: KafkaAddress };
  /** Of the fence. */
  epoch: number;
  units: readonly UnitId[];
}

export interface HandedOver {
  group: string;
  topic: string;
  /** Records at most that the new owner handles before what is new. */
  left: number;
}

/**
 * Hands the consumers' positions of some units to the other DC. For a switchover: when the units are fenced, the outboxes are relayed, and the units'
 * producers have acknowledged or are fenced: no record of theirs is added to a topic any more. Before the marker of the baseline, behind which the
 * units open at the new owner. May be repeated.
 *
 * Every member at the old owner is fenced first: what it commits later is refused, so the positions that are read now are the last ones. One that lives
 * takes its partitions again, asks the rule center, and goes on with its other units where it was.
 */
export async function handOverConsumers(input: ConsumerHandOver): Promise<HandedOver[]> {
  await fenceAll(input.from.kafka, isConsumerId);
  const [from, to] = [new Cluster(input.from.kafka), new Cluster(input.to.kafka)];
  try {
    const groups = await readGroups(from, input.from.dc);
    const written: { key: RecordKey; value: HandOver[]; partition: number }[] = [];
    const handedOver: HandedOver[] = [];
    for (const { group, topic, progress } of groups) {
      const ends = {
        [input.from.dc]: await endsOf(from, topic),
        [input.to.dc]: await endsOf(to, topic),
      };
      const value = progress.handOver(input.units, input.epoch, input.to.dc, ends);
      const partition = partitionOfSubscription({ group, topic });
      written.push({ key: ['hand-over', group, topic, input.epoch], value, partition });
      handedOver.push({ group, topic, left: Math.max(0, ...value.map(leftOf)) });
    }
    const deadline = performance.now() + WRITE_MS;
    while (written.length > 0) {
      try {
        await write(to, input, written);
        break;
      } catch (error) {
        // The topic may have been created just now.
        if (!isInterlockError(error) || !error.retryable || performance.now() > deadline) throw error;
        await sleep(100);
      }
    }
    return handedOver;
  } finally {
    from.close();
    to.close();
  }
}

function leftOf({ stages, from }: HandOver): number {
  return stages
    .flatMap(({ origin, to }) =>
      Object.entries(to).map(([partition, offset]) => offset - (from[origin]?.[Number(partition)] ?? 0)),
    )
    .reduce((sum, records) => sum + records, 0);
}

interface FoundGroup {
  group: string;
  topic: string;
  progress: GroupProgress;
}

async function readGroups(cluster: Cluster, dc: DcId): Promise<FoundGroup[]> {
  const found = new Map<string, FoundGroup>();
  const records = new Map<string, unknown>();
  for (const { partition, leader } of await partitionsOf(cluster, CONSUMERS)) {
    const ref = { topic: CONSUMERS, partition };
    const bounds = await boundsOf(cluster, leader, ref);
    await readCommitted(cluster, ref, bounds, bounds.earliest, (cursor) => {
      const value = cursor.value();
      if (value !== null) records.set(cursor.key()!.toString(), JSON.parse(value.toString()));
    });
  }
  for (const [text, value] of records) {
    const key = JSON.parse(text) as RecordKey;
    const [kind, group, topic] = key;
    const name = JSON.stringify([group, topic]);
    const one = found.get(name) ?? { group, topic, progress: new GroupProgress(dc) };
    found.set(name, one);
    if (kind === 'hand-over') one.progress.add(value as HandOver[]);
    else if (kind === 'state') one.progress.at(key[3], key[4]).load(value as PartitionState);
  }
  return [...found.values()];
}

async function partitionsOf(
  cluster: Cluster,
  topic: string,
): Promise<{ partition: number; leader: number }[]> {
  return (await cluster.metadata([topic])).topics[0]?.partitions ?? [];
}

/** Behind the last record of each partition. Not the end of its log: a consumer never gets to a control record that is there. */
async function endsOf(cluster: Cluster, topic: string): Promise<Record<number, number>> {
  const ends: Record<number, number> = {};
  for (const { partition, leader } of await partitionsOf(cluster, topic)) {
    const ref = { topic, partition };
    const bounds = await boundsOf(cluster, leader, ref);
    ends[partition] = bounds.earliest;
    for (let back = 10; ; back *= 10) {
      const from = Math.max(bounds.earliest, bounds.end - back);
      await readCommitted(cluster, ref, bounds, from, ({ offset }) => void (ends[partition] = offset + 1));
      if (ends[partition] > bounds.earliest || from === bounds.earliest) break;
    }
  }
  return ends;
}

async function write(
  to: Cluster,
  { from, to: { dc } }: ConsumerHandOver,
  records: readonly { key: RecordKey; value: HandOver[]; partition: number }[],
): Promise<void> {
  const configs = CONSUMERS_CONFIG;
  const [created] = await to.onController(
    createTopics([{ name: CONSUMERS, partitions: CONSUMERS_PARTITIONS, configs }]),
  );
  if (created?.error !== undefined && !isKafkaError(created.error, TOPIC_ALREADY_EXISTS))
    throw created.error as Error;
  const leaders = await partitionsOf(to, CONSUMERS);
  const producer = await TransactionalProducer.take(
    to,
    `interlock-hand-over:${from.dc}>${dc}`,
    TRANSACTION_MS,
  );
  for (const { key, value, partition } of records) {
    const builder = new BatchBuilder(4096);
    builder.add(Date.now(), Buffer.from(JSON.stringify(key)), Buffer.from(JSON.stringify(value)));
    const leader = leaders.find((one) => one.partition === partition)?.leader ?? -1;
    if (leader < 0) throw unavailable(`${CONSUMERS}-${partition} has no leader yet`);
    await producer.send([{ topic: CONSUMERS, partition, leader, builder }]);
  }
  await producer.commit();
}
