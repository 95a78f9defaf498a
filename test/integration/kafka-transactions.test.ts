import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { Producer } from 'kafkajs';
import {
  differences,
  kafkaLinkConfig,
  kafkaSettled,
  readPartition,
  runKafkaLink,
  startKafkaPair,
  writeTestMarker,
  initialiseTestLink,
} from '../support/kafka-replication.js';
import type { KafkaPair, RunningKafkaLink } from '../support/kafka-replication.js';
import { until } from '../support/replication.js';

let pair: KafkaPair;
const running: RunningKafkaLink[] = [];
const producers: Producer[] = [];

beforeAll(async () => {
  pair = await startKafkaPair();
});
afterEach(async () => {
  await Promise.all(running.splice(0).map((link) => link.stop()));
  await Promise.all(producers.splice(0).map((producer) => producer.disconnect()));
});
afterAll(async () => {
  await pair?.stop();
});

const run = async (...args: Parameters<typeof runKafkaLink>): Promise<RunningKafkaLink> => {
  const link = await runKafkaLink(...args);
  running.push(link);
  return link;
};
const transactional = async (transactionalId: string): Promise<Producer> => {
  const producer = pair.a.kafka.producer({
    transactionalId,
    idempotent: true,
    maxInFlightRequests: 1,
    transactionTimeout: 120_000,
  });
  producers.push(producer);
  await producer.connect();
  return producer;
};
const values = async (topic: string): Promise<(string | null)[]> =>
  (await readPartition(pair.b, topic)).map(({ value }) => value);

describe('transactions of the source', () => {
  it('are copied when they were committed, and not when they were undone', async () => {
    await pair.a.admin.createTopics({ topics: [{ topic: 't-tx', numPartitions: 2 }] });
    const link = await run(kafkaLinkConfig(pair, 'a', 't-tx'), 'earliest');
    await Promise.all(
      ['one', 'two', 'three'].map(async (name, who) => {
        const producer = await transactional(`t-tx-${name}`);
        for (let i = 0; i < 10; i++) {
          const transaction = await producer.transaction();
          for (const partition of [0, 1])
            await transaction.send({ topic: 't-tx', messages: [{ partition, value: `${name} ${i}` }] });
          if ((i + who) % 3 === 0) await transaction.abort();
          else await transaction.commit();
        }
      }),
    );
    await kafkaSettled(link);
    const { records, wrong } = await differences(pair, 'a', 't-tx', 2);
    expect(wrong).toEqual([]);
    expect(records).toBe(2 * 20);
  });

  it('are not seen half, though one that is open among their records holds the rest back; that one is named', async () => {
    await pair.a.admin.createTopics({ topics: [{ topic: 't-half', numPartitions: 1 }] });
    const link = await run(kafkaLinkConfig(pair, 'a', 't-half'), 'earliest');
    const [whole, hanging] = [await transactional('t-half-whole'), await transactional('t-half-hanging')];
    const first = await whole.transaction();
    await first.send({ topic: 't-half', messages: [{ value: 'whole 1' }] });
    const second = await hanging.transaction();
    await second.send({ topic: 't-half', messages: [{ value: 'hanging' }] });
    await first.send({ topic: 't-half', messages: [{ value: 'whole 2' }] });
    await first.commit();
    // A reader of committed records sees the half of it: what it has before the other one.
    await until(
      async () => (await readPartition(pair.a, 't-half')).length === 1,
      'the source shows the half',
    );
    const marker = await writeTestMarker(link.config);
    await until(
      () => link.status().kafka?.stuck[0]?.transactionalId === 't-half-hanging',
      'the open transaction is named',
      60_000,
      () => JSON.stringify(link.status().kafka),
    );
    expect(link.status().kafka!.stuck[0]).toMatchObject({
      topic: 't-half',
      partition: 0,
      lastStableOffset: 1,
    });
    expect(await values('dc-a.t-half')).toEqual([]);
    // What is open may be committed yet: nothing is drained.
    expect(link.markers).toEqual([]);
    await second.commit();
    await until(() => link.markers.length > 0, 'the marker is reached');
    expect(link.markers[0]!.baseline.markerId).toBe(marker);
    expect(await values('dc-a.t-half')).toEqual(['whole 1', 'hanging', 'whole 2']);
    await until(() => link.status().kafka?.stuck.length === 0, 'nothing is stuck');
    expect(link.status().kafka?.tornTransactions).toBe(0);
  });

  it('that are larger than what is held in memory are committed at once', async () => {
    await pair.a.admin.createTopics({ topics: [{ topic: 't-large', numPartitions: 1 }] });
    const config = kafkaLinkConfig(pair, 'a', 't-large');
    await initialiseTestLink(config, 'earliest');
    const producer = await transactional('t-large');
    const transaction = await producer.transaction();
    const filler = Buffer.alloc(500_000, 'large ');
    const COUNT = 100;
    for (let i = 0; i < COUNT; i++)
      await transaction.send({ topic: 't-large', messages: [{ value: filler }] });
    await transaction.commit();
    const link = await run(config, null);
    const seen = new Set<number>();
    for (let copied = 0; copied < COUNT; seen.add(copied))
      copied = (await readPartition(pair.b, 'dc-a.t-large')).length;
    expect([...seen].filter((count) => count !== 0)).toEqual([COUNT]);
    await kafkaSettled(link);
    expect(await differences(pair, 'a', 't-large', 1)).toEqual({ records: COUNT, wrong: [] });
  });

  it('that are half taken are read on though a backlog of others fills the memory', async () => {
    await pair.a.admin.createTopics({
      topics: [{ topic: 't-stall' }, { topic: 't-stall-others', numPartitions: 8 }],
    });
    // After so many records no other partition is begun: only the rest of the large one is waited for.
    const config = kafkaLinkConfig(pair, 'a', 't-stall', { throttle: { maxRowsPerSecond: 20 } });
    await initialiseTestLink(config, 'earliest');
    const filler = Buffer.alloc(500_000, 'large ');
    for (let i = 0; i < 80; i++)
      await pair.a.producer.send({
        topic: 't-stall-others',
        messages: [{ value: filler, partition: i % 8 }],
      });
    const producer = await transactional('t-stall');
    const transaction = await producer.transaction();
    for (let i = 0; i < 24; i++) await transaction.send({ topic: 't-stall', messages: [{ value: filler }] });
    await transaction.commit();
    const link = await run(config, null);
    await kafkaSettled(link, 120_000);
    expect(link.status().kafka?.tornTransactions).toBe(0);
    expect(await differences(pair, 'a', 't-stall', 1)).toEqual({ records: 24, wrong: [] });
    expect(await differences(pair, 'a', 't-stall-others', 8)).toEqual({ records: 80, wrong: [] });
  });
});
