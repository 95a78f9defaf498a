import type { Admin, Producer } from 'kafkajs';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { labKill, labStart } from '../../infra/lab/lab.js';
import type { GroupReport } from '../../replicators/kafka/group-report.js';
import type { LinkStatus } from '../../replicators/core/contract.js';
import type { ComparedTopic } from '../../replicators/kafka/verify/report.js';
import { loadTopology } from '../../src/topology/load.js';
import { startKafkaLab } from '../support/kafka-lab.js';
import type { KafkaLab } from '../support/kafka-lab.js';
import { until } from '../support/replication.js';

const AB = 'kafka/events:dc-a>dc-b';
const BA = 'kafka/events:dc-b>dc-a';
interface Links {
  links: {
    link: string;
    workflow: string;
    status: LinkStatus | null;
    alerts: { alert: string; summary: string }[];
  }[];
}

/** Kafka links as people run them: the lab with a distance between its data centers, workers, the command line. */
let rig: KafkaLab;
let a: { admin: Admin; producer: Producer };
let b: { admin: Admin };

beforeAll(async () => {
  rig = await startKafkaLab(4);
  a = { admin: rig.kafka.a.admin(), producer: rig.kafka.a.producer() };
  b = { admin: rig.kafka.b.admin() };
  await Promise.all([a.admin.connect(), a.producer.connect(), b.admin.connect()]);
  await a.admin.createTopics({ topics: [{ topic: 'orders', numPartitions: 2 }] });
});
afterAll(async () => {
  await Promise.allSettled([a?.admin.disconnect(), a?.producer.disconnect(), b?.admin.disconnect()]);
  await rig?.stop();
});

const send = (count: number, topic = 'orders') =>
  a.producer.send({
    topic,
    messages: Array.from({ length: count }, (_, i) => ({ key: `u${i}`, value: `v${i}`, partition: i % 2 })),
  });
const copied = async (): Promise<number> => {
  const offsets = await b.admin.fetchTopicOffsets('dc-a.orders').catch(() => []);
  return offsets.reduce((sum, { high }) => sum + Number(high), 0);
};

test('the lab has a broker per data center, and each sees the other only over the wide area', async () => {
  expect(
    rig.lab.parts.filter(({ kind }) => kind === 'kafka').map(({ name, status }) => [name, status]),
  ).toEqual([
    ['dc-a-kafka-events', 'running'],
    ['dc-b-kafka-events', 'running'],
  ]);
  const { topology } = await loadTopology(rig.lab.topologies['dc-b']!);
  const far = topology.datacenters['dc-a']!.stores.kafka['events']!.brokers;
  expect(far).toEqual([`127.0.0.1:${rig.lab.ports['wan.dc-b.dc-a.kafka.events.remote']}`]);
  // What the broker says of itself there is not past the proxy: or its clients would not feel the distance.
  const { Cluster } = await import('../../replicators/kafka/client/cluster.js');
  const cluster = new Cluster({ brokers: far });
  const { brokers } = await cluster.metadata([]);
  cluster.close();
  expect([...brokers.values()]).toEqual(far);
});

test('links start from the command line, copy, show their lag, and go on after a broker was killed', async () => {
  const refused = await rig.cli<{ error: { message: string } }>('replicate', 'start', AB);
  expect(refused.code).toBe(1);
  expect(refused.json.error.message).toContain('has no checkpoint');
  await send(10);
  expect((await rig.cli<Links>('replicate', 'start', AB, '--from', 'earliest')).code).toBe(0);
  const { code, json } = await rig.cli<Links>('replicate', 'start', BA, '--from', 'now');
  expect([code, json.links.map(({ status }) => status?.state)]).toEqual([0, ['streaming']]);
  await until(async () => (await copied()) >= 10, 'ten records are copied', 60_000);
  await labKill('dc-b-kafka-events', { directory: rig.directory });
  await send(10);
  let last: LinkStatus | null = null;
  const behind = async (): Promise<LinkStatus | null> =>
    (last = (await rig.cli<Links>('replicate', 'status', AB)).json.links[0]!.status);
  const words = (): string => JSON.stringify(last);
  await until(
    async () => (await behind())?.state === 'starting',
    'the link says that it has lost a broker',
    120_000,
    words,
  );
  await labStart('dc-b-kafka-events', { directory: rig.directory });
  await until(
    async () => {
      const status = await behind();
      return status?.state === 'streaming' && status.kafka?.lagRecords === 0 && status.rows > 0;
    },
    'all is copied',
    120_000,
    words,
  );
  expect((await behind())!.kafka).toMatchObject({ topics: 1, partitions: 2, behind: [], stuck: [] });
});

test('the copies are verified from the command line, and what it is not told to compare is refused', async () => {
  const { code, json, stderr } = await rig.cli<{ outcome: string; topics: ComparedTopic[] }>(
    'verify',
    'kafka',
  );
  expect([code, json.outcome], stderr).toEqual([0, 'equal']);
  const [orders] = json.topics.filter(({ topic }) => topic === 'orders');
  expect(orders!.partitions.map(({ records, copies, before }) => [records, copies, before])).toEqual([
    [10, 10, 0],
    [10, 10, 0],
  ]);
  const bad = await rig.cli<{ error: { message: string } }>('verify', 'kafka', '--topics', 'nothing*');
  expect([bad.code, bad.json.error.message]).toEqual([2, '--topics nothing*: no link carries such a topic']);
  expect((await rig.cli('kafka', 'groups', '--dc', 'dc-c')).code).toBe(2);
});

test('the positions of a group are shown with where they are in the copy', async () => {
  await a.admin.setOffsets({
    groupId: 'billing',
    topic: 'orders',
    partitions: [
      { partition: 0, offset: '3' },
      { partition: 1, offset: '10' },
    ],
  });
  const groups = async (...more: string[]): Promise<GroupReport[]> =>
    (await rig.cli<{ groups: GroupReport[] }>('kafka', 'groups', ...more)).json.groups;
  await until(
    async () => {
      const found = await groups('--dc', 'dc-a');
      return found.length === 2 && found.every(({ state }) => state === 'translated');
    },
    'the positions are translated',
    120_000,
  );
  const found = await groups();
  expect(found.map(({ dc, group, topic, offset }) => [dc, group, topic, offset])).toEqual([
    ['dc-a', 'billing', 'orders', 3],
    ['dc-a', 'billing', 'orders', 10],
  ]);
  const offsets = await b.admin.fetchOffsets({ groupId: 'billing', topics: ['dc-a.orders'] });
  const byPartition = new Map(offsets[0]!.partitions.map((one) => [one.partition, Number(one.offset)]));
  for (const { partition, translated } of found) expect(byPartition.get(partition)).toBe(translated);
  expect(await groups('--dc', 'dc-b')).toEqual([]);
});

test('a transaction that nobody ends and a gap are named, with an alert', async () => {
  const producer = rig.kafka.a.producer({ transactionalId: 'forgotten', maxInFlightRequests: 1 });
  await producer.connect();
  const transaction = await producer.transaction();
  await transaction.send({ topic: 'orders', messages: [{ key: 'x', value: 'y', partition: 0 }] });
  await send(2);
  let alerts: Links['links'][number]['alerts'] = [];
  const report = async () => {
    const link = (await rig.cli<Links>('replicate', 'status', AB)).json.links[0]!;
    ({ alerts } = link);
    return link;
  };
  const stuck = async () => (await report()).alerts.find(({ alert }) => alert === 'stuck')?.summary;
  const shown = (): string => JSON.stringify(alerts);
  await until(async () => (await stuck()) !== undefined, 'the alert fires', 120_000, shown);
  expect(alerts.find(({ alert }) => alert === 'stuck')!.summary).toMatch(
    /^orders-0: a transaction of forgotten has been open for \d+ ms and hides \d+ records$/,
  );
  // Or its coordinator was first, for its age.
  await transaction.abort().catch(() => undefined);
  await producer.disconnect();
  await until(async () => (await stuck()) === undefined, 'the alert is over', 180_000, shown);

  await rig.cli('replicate', 'pause', AB);
  await send(4);
  await a.admin.deleteTopicRecords({ topic: 'orders', partitions: [{ partition: 1, offset: '-1' }] });
  await rig.cli('replicate', 'resume', AB);
  await until(
    async () => (await report()).status?.state === 'gap',
    'the link stands before the gap',
    180_000,
    shown,
  );
  const { status } = await report();
  expect(status!.lastError!.message).toMatch(/has removed orders-1 from \d+ to \d+/);
  expect(alerts.map(({ alert }) => alert)).toContain('stopped');
});
