import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { CheckpointTail } from '../../replicators/kafka/checkpoint-tail.js';
import { consumerGaps } from '../../replicators/kafka/group-report.js';
import { worstUncopied } from '../../replicators/kafka/uncopied.js';
import { CONSUMERS, partitionOfSubscription } from '../../src/kafka/consumer-records.js';
import type { StoredState } from '../../src/kafka/consumer-records.js';
import type { HandOver } from '../../src/kafka/hand-over.js';
import { partitionOf } from '../../src/kafka/partitioner.js';
import { userIn } from '../sdk/support.js';
import {
  kafkaLinkConfig,
  kafkaSettled,
  readPartition,
  runKafkaLink,
  withCluster,
} from '../support/kafka-replication.js';
import { PARTITIONS, Shop, ShopWorld } from '../support/kafka-shop.js';
import type { Side } from '../support/kafka-shop.js';
import { until } from '../support/replication.js';

const USER = userIn(1);
const PARTITION = partitionOf(Buffer.from(USER), PARTITIONS);

let world: ShopWorld;

beforeAll(async () => {
  world = await ShopWorld.start();
});
afterEach(() => world.clear());
afterAll(() => world?.stop());

/** What retention does, at once. @param before -1: all */
async function remove(side: Side, topic: string, before: number): Promise<void> {
  const { admin } = world.pair[side];
  const removed = { topic, partitions: [{ partition: PARTITION, offset: String(before) }] };
  await until(
    async () => {
      // kafkajs removes nothing of a topic that it does not know yet.
      await admin.fetchTopicOffsets(topic);
      return admin.deleteTopicRecords(removed).then(
        () => true,
        () => false,
      );
    },
    `${topic} is removed`,
    60_000,
  );
}

/** Up to where a group has committed the partition at dc-a. */
async function position(topic: string): Promise<number | null | undefined> {
  const subscription = { group: `${topic}-group`, topic };
  const key = JSON.stringify(['state', subscription.group, topic, 'dc-a', PARTITION]);
  const records = await readPartition(world.pair.a, CONSUMERS, partitionOfSubscription(subscription));
  const value = records.findLast((record) => record.key === key)?.value;
  return value === undefined || value === null ? undefined : (JSON.parse(value) as StoredState).position;
}

const handledAt = (shop: Shop, side: Side): number[] =>
  shop.handled.filter(({ at }) => at === side).map(({ n }) => n);

/** A group that has handled nothing of 20 records at dc-a, and whose unit has moved to dc-b, where nobody consumes yet. */
async function movedUnhandled(topic: string): Promise<Shop> {
  const shop = new Shop(world, topic);
  await shop.start();
  await shop.produce(1, 20);
  shop.fail = ({ at }) => at === 'a';
  await shop.consume('a');
  await until(() => shop.warnings.length > 0, 'its handler fails', 60_000);
  await shop.switch('a', [1]);
  return shop;
}

async function handlesNew(shop: Shop): Promise<void> {
  await shop.consume('b');
  await shop.produce(1, 5);
  await until(
    () => handledAt(shop, 'b').includes(25),
    'what is new at dc-b is handled',
    60_000,
    () => `${handledAt(shop, 'b').join(',')}; ${JSON.stringify(shop.gaps)}; ${shop.warnings.join('; ')}`,
  );
}

describe('retention that removes what a group has not handled', () => {
  it('all of the tail that the old owner left: the range is told, and what is new is not held up', async () => {
    const shop = await movedUnhandled('g-all');
    await remove('b', 'dc-a.g-all', -1);
    await handlesNew(shop);
    expect(handledAt(shop, 'b')).toEqual([21, 22, 23, 24, 25]);
    const gap = { topic: 'g-all', origin: 'dc-a', partition: PARTITION, from: 0, to: 20 };
    expect(shop.gaps).toEqual([{ at: 'b', ...gap }]);
    // It is kept, for those who look later.
    expect(await consumerGaps(kafkaLinkConfig(world.pair, 'b', 'g-all'))).toEqual([
      { dc: 'dc-b', group: 'g-all-group', ...gap },
    ]);
  });

  it('its beginning only: the range is told, and the rest is handled', async () => {
    const shop = await movedUnhandled('g-part');
    const copies = await readPartition(world.pair.b, 'dc-a.g-part', PARTITION);
    await remove('b', 'dc-a.g-part', copies[8]!.offset);
    await handlesNew(shop);
    expect(handledAt(shop, 'b')).toEqual(Array.from({ length: 17 }, (_, i) => i + 9));
    expect(shop.gaps).toEqual([
      { at: 'b', topic: 'g-part', origin: 'dc-a', partition: PARTITION, from: 0, to: 8 },
    ]);
  });

  it('what is handled already is no gap, and neither is what was gone before the group was there', async () => {
    const shop = new Shop(world, 'g-none');
    await shop.start();
    // Of the new owner's own topic.
    const old = [1, 2, 3].map((n) => ({ key: USER, value: `old:${n}` }));
    await world.pair.b.producer.send({ topic: 'g-none', messages: old });
    await remove('b', 'g-none', -1);
    await shop.produce(1, 10);
    await kafkaSettled(shop.link.a);
    await remove('a', 'g-none', 5);
    const first = await shop.consume('a');
    const handled = (n: number): Promise<void> =>
      until(() => shop.handled.some((one) => one.n === n), `${n} is handled`, 60_000);
    await handled(10);
    // The end of a transaction is behind the last record.
    const producer = world.pair.a.kafka.producer({ transactionalId: 'g-none', maxInFlightRequests: 1 });
    await producer.connect();
    const transaction = await producer.transaction();
    await transaction.send({ topic: 'g-none', messages: [{ key: USER, value: `${USER}:11` }] });
    await transaction.commit();
    await handled(11);
    // And behind that, what was undone.
    const undone = await producer.transaction();
    await undone.send({ topic: 'g-none', messages: [{ key: USER, value: `${USER}:undone` }] });
    await undone.abort();
    await producer.disconnect();
    await until(async () => (await position('g-none')) === 14, 'all is passed', 60_000);
    await first.stop();
    world.consumers.splice(world.consumers.indexOf(first), 1);
    await kafkaSettled(shop.link.a);
    await remove('a', 'g-none', -1);
    await remove('b', 'dc-a.g-none', -1);
    await shop.consume('a');
    await shop.consume('b');
    await shop.switch('a', [1]);
    await world.pair.b.producer.send({ topic: 'g-none', messages: [{ key: USER, value: `${USER}:12` }] });
    await handled(12);
    expect(shop.handled.map(({ n }) => n)).toEqual([6, 7, 8, 9, 10, 11, 12]);
    expect(shop.gaps).toEqual([]);
  });

  it('of its own topic: the range is told until that is accepted, and the group goes on behind it', async () => {
    const shop = new Shop(world, 'g-own');
    await shop.start();
    await shop.produce(1, 5);
    const first = await shop.consume('a');
    await shop.check();
    await first.stop();
    world.consumers.splice(world.consumers.indexOf(first), 1);
    await shop.produce(1, 10);
    await remove('a', 'g-own', 12);
    shop.refusedGaps = 2;
    await shop.consume('a');
    await until(() => shop.gaps.length > 1, 'it is told again', 60_000);
    expect(handledAt(shop, 'a')).toEqual([1, 2, 3, 4, 5]);
    await until(() => handledAt(shop, 'a').includes(15), 'the last is handled', 60_000);
    expect(handledAt(shop, 'a')).toEqual([1, 2, 3, 4, 5, 13, 14, 15]);
    const gap = { at: 'a', topic: 'g-own', origin: 'dc-a', partition: PARTITION, from: 5, to: 12 };
    expect(shop.gaps).toEqual([gap, gap, gap]);
  });
});

describe.each([
  // Nobody knows any more that the last of it was no records.
  ['all', -1, [{ from: 20, to: 22 }]],
  ['all but what was undone behind them', 20, []],
])('what retention has removed at the old owner before the hand-over: %s', (_, before, told) => {
  it('is handled from the copy', async () => {
    const topic = `g-emptied${before}`;
    const shop = new Shop(world, topic);
    await shop.start();
    await shop.produce(1, 20);
    const producer = world.pair.a.kafka.producer({ transactionalId: topic, maxInFlightRequests: 1 });
    await producer.connect();
    const undone = await producer.transaction();
    await undone.send({ topic, messages: [{ key: USER, value: `${USER}:undone` }] });
    await undone.abort();
    await producer.disconnect();
    shop.fail = ({ at }) => at === 'a';
    const first = await shop.consume('a');
    await until(() => shop.warnings.length > 0, 'its handler fails', 60_000);
    await first.stop();
    world.consumers.splice(world.consumers.indexOf(first), 1);
    await kafkaSettled(shop.link.a);
    await remove('a', topic, before);
    await shop.switch('a', [1]);
    await handlesNew(shop);
    expect(handledAt(shop, 'b')).toEqual(Array.from({ length: 25 }, (_, i) => i + 1));
    expect(shop.gaps.map(({ from, to }) => ({ from, to }))).toEqual(told);
  });
});

describe('records that a link with onGap: go-on left out', () => {
  it('are gone for the group of their own data center, too; the new owner has what was copied before and behind them', async () => {
    const shop = new Shop(world, 'g-link');
    shop.onGap = 'go-on';
    await shop.start();
    await shop.produce(1, 5);
    shop.fail = ({ at }) => at === 'a';
    const first = await shop.consume('a');
    await until(() => shop.warnings.length > 0, 'its handler fails', 60_000);
    await first.stop();
    world.consumers.splice(world.consumers.indexOf(first), 1);
    await kafkaSettled(shop.link.a);
    await shop.link.a.stop();
    await shop.produce(1, 15);
    await remove('a', 'g-link', 12);
    const config = kafkaLinkConfig(world.pair, 'a', 'g-link', { onGap: 'go-on' });
    const link = await runKafkaLink(config, null);
    world.links.push(link);
    shop.link.a = link;
    await kafkaSettled(link);
    expect(link.status().kafka?.gaps).toEqual([{ topic: 'g-link', partition: PARTITION, from: 5, to: 12 }]);
    // Nobody has them.
    const there = await readPartition(world.pair.a, 'g-link', PARTITION);
    expect(there.map(({ offset }) => offset)).toEqual([12, 13, 14, 15, 16, 17, 18, 19]);
    await shop.switch('a', [1]);
    await handlesNew(shop);
    expect(handledAt(shop, 'b')).toEqual([1, 2, 3, 4, 5, ...Array.from({ length: 13 }, (_, i) => i + 13)]);
  });
});

it('what was undone before a link began is nothing that a group has still to handle', async () => {
  const topic = 'g-undone';
  const { a, b } = world.pair;
  await a.admin.createTopics({ topics: [{ topic, numPartitions: 1 }] });
  const producer = a.kafka.producer({ transactionalId: topic, maxInFlightRequests: 1 });
  await producer.connect();
  const undone = await producer.transaction();
  await undone.send({ topic, messages: [{ value: 'undone' }] });
  await undone.abort();
  await producer.disconnect();
  const config = kafkaLinkConfig(world.pair, 'a', topic);
  world.links.push(await runKafkaLink(config, 'now'));
  const handOver: HandOver = {
    ...{ epoch: 1, units: ['cn-east/1'], doubtful: {} },
    stages: [{ origin: 'dc-a', to: { 0: 3 } }],
    from: { 'dc-a': { 0: 0 } },
  };
  const worst = await withCluster({ brokers: [a.server.address] }, (cluster) =>
    withCluster({ brokers: [b.server.address] }, async (there) => {
      const from = { dc: 'dc-a', cluster };
      const question = { link: config.link, from, checkpoints: new CheckpointTail(there) };
      return worstUncopied(question, [{ group: 'g', topic, value: [handOver] }]);
    }),
  );
  expect(worst).toBeUndefined();
});
