import { InterlockError } from '../../src/errors.js';
import { CONSUMERS, partitionOfSubscription, subscriptionOfId } from '../../src/kafka/consumer-records.js';
import type { Member, RecordKey, StoredState } from '../../src/kafka/consumer-records.js';
import type { DcId } from '../../src/routing/units.js';
import type { Cluster } from './client/cluster.js';
import { unavailable } from './client/connection.js';
import { describeGroup } from './client/groups-api.js';
import { TransactionalProducer } from './client/producer.js';
import type { Outgoing } from './client/producer.js';
import { BatchBuilder } from './client/record-batch.js';
import { ConsumersTail } from './consumers-tail.js';
import { fenceAll } from './fence-producers.js';
import { HAND_OVER_PREFIX } from './hand-over-consumers.js';

const TRANSACTION_MS = 15_000;
const UNDECIDED_MS = 30_000;
const WITHOUT_MEMBERS = new Set(['Empty', 'Dead']);

/** What a DC keeps of a group in one topic. */
export interface ForgottenGroup {
  group: string;
  topic: string;
  /** How far it was. */
  states: { origin: DcId; partition: number; position: number | null; holder: Member | null }[];
  /** Epochs of what was handed over to it. */
  handOvers: number[];
}

export interface Forgetting {
  dc: DcId;
  group: string;
  /** Default: all that it has. */
  topic?: string;
}

/** The groups of the SDK's consumers that a cluster keeps something of, and what it keeps of one of them. */
export async function keptOf(
  cluster: Cluster,
  { dc, group, topic }: Forgetting,
): Promise<{ groups: string[]; kept: ForgottenGroup[] }> {
  const tail = new ConsumersTail(cluster);
  const isWhole = await tail.read(0);
  const kept = byTopic(tail.recordsOf(group, topic));
  if (kept.length === 0 && !isWhole)
    throw unavailable(`${CONSUMERS} of ${dc}: a transaction is open, and hides what lies behind it`);
  return { groups: tail.groupNames, kept };
}

/**
 * Removes all that a DC keeps of a group that will not run there again: nothing of it is handed over any more, and should it run, it begins anew.
 * All of it, or nothing.
 *
 * Hazard: a member that was paused, or that joins now, writes what is forgotten anew, or goes by it. Guard: the ids are taken first, so that it has
 * to take its own again; that is looked for when the tombstones are written, but not committed. Who takes one later writes a mark behind them, in
 * the same partition, and goes on when it has read that: by then it knows that there is nothing.
 * @throws InterlockError Refused: it has members
 */
export async function forgetGroup(cluster: Cluster, of: Forgetting): Promise<ForgottenGroup[]> {
  const { dc, group, topic } = of;
  const isOfGroup = (id: string): boolean => {
    const subscription = subscriptionOfId(id);
    return subscription?.group === group && (topic === undefined || subscription.topic === topic);
  };
  await requireNoMembers(cluster, of);
  await fenceAll(cluster, isOfGroup);
  const tail = new ConsumersTail(cluster);
  if (!(await tail.read(UNDECIDED_MS)))
    throw unavailable(`${CONSUMERS} of ${dc}: a transaction is open, and hides positions of consumers`);
  const records = tail.recordsOf(group, topic);
  if (records.length === 0) return [];
  const id = `${HAND_OVER_PREFIX}forget`;
  const producer = await TransactionalProducer.take(cluster, id, TRANSACTION_MS);
  try {
    await producer.send(
      await tombstones(
        cluster,
        dc,
        records.map(([key]) => key),
      ),
    );
    await producer.flush();
    await requireNoMembers(cluster, of);
    const awake = await fenceAll(cluster, isOfGroup);
    if (awake.length > 0) throw refused(of, 'a member that was paused has come back');
    await producer.commit();
  } catch (error) {
    // Undoes what is written; while the broker does not answer, its time-out does.
    await TransactionalProducer.take(cluster, id, TRANSACTION_MS).catch(() => undefined);
    throw error;
  }
  return byTopic(records);
}

async function requireNoMembers(cluster: Cluster, of: Forgetting): Promise<void> {
  const coordinator = await cluster.coordinator('group', of.group);
  const { state, members } = await cluster.call(coordinator, describeGroup(of.group));
  if (!WITHOUT_MEMBERS.has(state)) throw refused(of, `it has members (${members.join(', ') || state})`);
}

function refused({ dc, group }: Forgetting, why: string): InterlockError {
  return new InterlockError(
    'Refused',
    `group ${group} lives in ${dc}: ${why}. Nothing is forgotten. Stop its instances there; one that was killed counts for 10 s more`,
    { details: { dc, group } },
  );
}

async function tombstones(cluster: Cluster, dc: DcId, keys: readonly RecordKey[]): Promise<Outgoing[]> {
  const topic = (await cluster.metadata([CONSUMERS])).topics[0];
  const builders = new Map<number, BatchBuilder>();
  for (const key of keys) {
    const partition = partitionOfSubscription({ group: key[1], topic: key[2] });
    const builder = builders.get(partition) ?? new BatchBuilder(4096);
    builders.set(partition, builder);
    builder.add(Date.now(), Buffer.from(JSON.stringify(key)), null);
  }
  return [...builders].map(([partition, builder]) => {
    const leader = topic?.partitions.find((one) => one.partition === partition)?.leader ?? -1;
    if (leader < 0) throw unavailable(`${CONSUMERS}-${partition} of ${dc} has no leader`);
    return { topic: CONSUMERS, partition, leader, builder };
  });
}

function byTopic(records: readonly [key: RecordKey, value: unknown][]): ForgottenGroup[] {
  const found = new Map<string, ForgottenGroup>();
  for (const [key, value] of records) {
    const [, group, topic] = key;
    const one = found.get(topic) ?? { group, topic, states: [], handOvers: [] };
    found.set(topic, one);
    if (key[0] === 'hand-over') one.handOvers.push(key[3]);
    if (key[0] !== 'state') continue;
    const { position, holder = null } = value as StoredState;
    one.states.push({ origin: key[3], partition: key[4], position, holder });
  }
  const orderOf = ({ origin, partition }: ForgottenGroup['states'][number]): string =>
    `${origin} ${String(partition).padStart(8, '0')}`;
  for (const { states, handOvers } of found.values()) {
    states.sort((a, b) => (orderOf(a) < orderOf(b) ? -1 : 1));
    handOvers.sort((a, b) => a - b);
  }
  return [...found.values()].sort((a, b) => (a.topic < b.topic ? -1 : 1));
}
