import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { Consumer } from 'kafkajs';
import { Cluster } from '../../replicators/kafka/client/cluster.js';
import { commitOffsets } from '../../replicators/kafka/client/groups-api.js';
import { groupReport } from '../../replicators/kafka/group-report.js';
import { listGroupPositions } from '../../replicators/kafka/groups.js';
import {
  kafkaLinkConfig,
  kafkaSettled,
  patiently,
  readPartition,
  runKafkaLink,
  startKafkaPair,
  initialiseTestLink,
} from '../support/kafka-replication.js';
import type { KafkaPair, KafkaSide, RunningKafkaLink } from '../support/kafka-replication.js';
import { until } from '../support/replication.js';

let pair: KafkaPair;
const running: RunningKafkaLink[] = [];
const consumers: Consumer[] = [];

beforeAll(async () => {
  pair = await startKafkaPair();
});
afterEach(async () => {
  await Promise.all(consumers.splice(0).map((consumer) => consumer.disconnect()));
  await Promise.all(running.splice(0).map((link) => link.stop()));
});
afterAll(async () => {
  await pair?.stop();
});

const run = async (...args: Parameters<typeof runKafkaLink>): Promise<RunningKafkaLink> => {
  const link = await runKafkaLink(...args);
  running.push(link);
  return link;
};
const send = (side: KafkaSide, topic: string, from: number, to: number): Promise<unknown> =>
  side.producer.send({
    topic,
    messages: Array.from({ length: to - from }, (_, i) => ({ value: String(from + i) })),
  });
/** What a group has committed. */
const committed = async (side: KafkaSide, groupId: string, topic: string): Promise<number> => {
  const [found] = await patiently(() => side.admin.fetchOffsets({ groupId, topics: [topic] }));
  return Number(found?.partitions[0]?.offset ?? -1);
};
/** As kafkajs does (`setOffsets`), but that takes 5 s. */
const setOffset = async (side: KafkaSide, group: string, topic: string, offset: number): Promise<void> => {
  const cluster = new Cluster({ brokers: [side.server.address] });
  const position = { topic, partition: 0, offset, leaderEpoch: -1, metadata: '' };
  const [answer] = await patiently(async () =>
    cluster.call(await cluster.coordinator('group', group), commitOffsets(group, [position])),
  ).finally(() => cluster.close());
  expect(answer!.error).toBe(0);
};
/** Starts a plain consumer; answers what it gets. */
const consume = async (
  side: KafkaSide,
  groupId: string,
  topic: string,
  most = Infinity,
): Promise<string[]> => {
  const got: string[] = [];
  const consumer = side.kafka.consumer({ groupId, maxWaitTimeInMs: 100 });
  consumers.push(consumer);
  await consumer.connect();
  await consumer.subscribe({ topic, fromBeginning: true });
  await consumer.run({
    autoCommit: false,
    eachMessage: async ({ partition, message }) => {
      if (got.length >= most) return;
      got.push(message.value!.toString());
      const offset = String(Number(message.offset) + 1);
      await consumer.commitOffsets([{ topic, partition, offset }]);
    },
  });
  return got;
};

describe('positions of groups', () => {
  it('are translated exactly, and a plain consumer goes on there', async () => {
    await pair.a.admin.createTopics({ topics: [{ topic: 't-groups' }] });
    await send(pair.a, 't-groups', 0, 10);
    // A transaction that is undone and its markers: offsets of source and copy are not the same.
    const producer = pair.a.kafka.producer({
      transactionalId: 't-groups',
      maxInFlightRequests: 1,
      idempotent: true,
    });
    await producer.connect();
    for (const commit of [false, true]) {
      const transaction = await producer.transaction();
      await transaction.send({ topic: 't-groups', messages: [{ value: commit ? '10' : 'undone' }] });
      await (commit ? transaction.commit() : transaction.abort());
    }
    await producer.disconnect();
    await send(pair.a, 't-groups', 11, 20);
    const link = await run(kafkaLinkConfig(pair, 'a', 't-groups'), 'earliest');
    await kafkaSettled(link);
    const copy = await readPartition(pair.b, 'dc-a.t-groups');
    for (const count of [5, 15]) {
      const at = await consume(pair.a, 'g-exact', 't-groups', count - (count === 15 ? 5 : 0));
      await until(() => at.length === (count === 15 ? 10 : 5), 'the group has consumed', 60_000);
      await consumers.pop()!.disconnect();
      const next = copy.find(({ value }) => value === String(count))!.offset;
      await until(
        async () => {
          const found = await committed(pair.b, 'g-exact', 'dc-a.t-groups');
          return found > next - 3 && found <= next;
        },
        `the translated position is ${next}`,
        60_000,
        () => JSON.stringify(link.status().kafka?.groupPositions),
      );
    }
    const rest = await consume(pair.b, 'g-exact', 'dc-a.t-groups');
    await until(() => rest.length >= 5, 'the rest is consumed from the copy', 60_000);
    expect(rest).toEqual(['15', '16', '17', '18', '19']);
  });

  it('are looked up in the copy when the link has forgotten, and are never ahead of what is copied', async () => {
    await pair.a.admin.createTopics({ topics: [{ topic: 't-ahead' }] });
    const config = kafkaLinkConfig(pair, 'a', 't-ahead');
    await initialiseTestLink(config, 'earliest');
    for (let i = 0; i < 10; i++) await send(pair.a, 't-ahead', i * 10, i * 10 + 10);
    const first = await run(config, null);
    await kafkaSettled(first);
    await first.stop();
    // What comes while no link runs: the group goes on without a copy.
    await send(pair.a, 't-ahead', 100, 120);
    await setOffset(pair.a, 'g-old', 't-ahead', 37);
    await setOffset(pair.a, 'g-ahead', 't-ahead', 115);
    const second = await run({ ...config, throttle: { maxRowsPerSecond: 1_000_000 } }, null);
    await kafkaSettled(second);
    const copy = await readPartition(pair.b, 'dc-a.t-ahead');
    const next = (value: number): number => copy.find((record) => record.value === String(value))!.offset;
    for (const [group, value] of [
      ['g-old', 37],
      ['g-ahead', 115],
    ] as const)
      await until(
        async () => (await committed(pair.b, group, 'dc-a.t-ahead')) === next(value),
        `${group} is at ${value}`,
        60_000,
      );
    const listed = await listGroupPositions(config);
    expect(listed.filter(({ group }) => group === 'g-old')).toEqual([
      {
        ...{ group: 'g-old', topic: 't-ahead', partition: 0, offset: 37, copy: 'dc-a.t-ahead' },
        ...{ translated: next(37), committed: next(37), state: 'translated' },
      },
    ]);
  });

  it('do not move a group that is active at the target, or that has gone further there', async () => {
    await pair.a.admin.createTopics({ topics: [{ topic: 't-active' }] });
    await send(pair.a, 't-active', 0, 30);
    const link = await run(kafkaLinkConfig(pair, 'a', 't-active'), 'earliest');
    await kafkaSettled(link);
    // What was undone before a copy's first record takes an offset, too.
    const copy = await readPartition(pair.b, 'dc-a.t-active');
    const next = (value: number): number => copy.find((record) => record.value === String(value))!.offset;
    const got = await consume(pair.b, 'g-active', 'dc-a.t-active', 3);
    await until(() => got.length === 3, 'the group consumes at the target', 60_000);
    await setOffset(pair.a, 'g-active', 't-active', 20);
    await until(() => link.status().kafka?.groupPositions.active === 1, 'it is seen as active', 60_000);
    expect(await committed(pair.b, 'g-active', 'dc-a.t-active')).toBe(next(3));
    await consumers.pop()!.disconnect();
    await until(
      async () => (await committed(pair.b, 'g-active', 'dc-a.t-active')) === next(20),
      'it is moved when it has left',
      60_000,
    );
    // Back at the source: a position that the link itself has written follows.
    await setOffset(pair.a, 'g-active', 't-active', 8);
    await until(
      async () => (await committed(pair.b, 'g-active', 'dc-a.t-active')) === next(8),
      'it follows back',
      60_000,
    );
    // Its own position at the target is its own.
    await setOffset(pair.b, 'g-active', 'dc-a.t-active', 25);
    await setOffset(pair.a, 'g-active', 't-active', 9);
    await until(() => link.status().kafka?.groupPositions.own === 1, 'it is seen as its own', 60_000);
    expect(await committed(pair.b, 'g-active', 'dc-a.t-active')).toBe(25);
  });

  it('are none where a client has committed a negative one, as kafkajs does that is out of range', async () => {
    await pair.a.admin.createTopics({ topics: [{ topic: 't-range' }] });
    await send(pair.a, 't-range', 0, 10);
    const config = kafkaLinkConfig(pair, 'a', 't-range');
    const link = await run(config, 'earliest');
    await kafkaSettled(link);
    for (const [side, group, topic] of [
      [pair.a, 'g-range', 't-range'],
      [pair.b, 'g-there', 'dc-a.t-range'],
    ] as const) {
      const consumer = side.kafka.consumer({ groupId: group, maxWaitTimeInMs: 100 });
      consumers.push(consumer);
      await consumer.connect();
      await consumer.subscribe({ topic, fromBeginning: true });
      const got: string[] = [];
      await consumer.run({
        autoCommit: false,
        eachMessage: async ({ message }) => void got.push(message.offset),
      });
      await until(() => got.length > 0, 'it consumes', 60_000);
      consumer.seek({ topic, partition: 0, offset: '1000' });
      await until(async () => (await committed(side, group, topic)) === -2, '-2 is committed', 60_000);
      await consumers.pop()!.disconnect();
    }
    const copy = await readPartition(pair.b, 'dc-a.t-range');
    const next = (value: number): number => copy.find((record) => record.value === String(value))!.offset;
    const reaches = (group: string, value: number): Promise<void> =>
      until(
        async () => (await committed(pair.b, group, 'dc-a.t-range')) === next(value),
        `${group} is at ${value}`,
        60_000,
      );
    // What the group has at the target is none, too.
    await setOffset(pair.a, 'g-there', 't-range', 5);
    await reaches('g-there', 5);
    expect(await committed(pair.b, 'g-range', 'dc-a.t-range')).toBe(-1);
    expect((await listGroupPositions(config)).map(({ group }) => group)).toEqual(['g-there']);
    const reports = await groupReport(config);
    expect(reports.map(({ group, state }) => ({ group, state }))).toEqual([
      { group: 'g-there', state: 'translated' },
    ]);
    await setOffset(pair.a, 'g-range', 't-range', 7);
    await reaches('g-range', 7);
  });
});
