import { ConfigResourceTypes } from 'kafkajs';
import { afterAll, afterEach, beforeAll, expect, it, vi } from 'vitest';
import { Cluster } from '../../replicators/kafka/client/cluster.js';
import { TransactionalProducer } from '../../replicators/kafka/client/producer.js';
import { ConsumersTail } from '../../replicators/kafka/consumers-tail.js';
import { forgetGroup } from '../../replicators/kafka/forget-group.js';
import {
  CONSUMERS,
  consumerTransactionalId,
  partitionOfSubscription,
} from '../../src/kafka/consumer-records.js';
import type { RecordKey } from '../../src/kafka/consumer-records.js';
import { partitionOf } from '../../src/kafka/partitioner.js';
import { failure, interlock, silentTopology } from '../cli/command-line.js';
import { userIn } from '../sdk/support.js';
import { kafkaLinkConfig, readPartition, withCluster } from '../support/kafka-replication.js';
import { PARTITIONS, Shop, ShopWorld } from '../support/kafka-shop.js';
import { until } from '../support/replication.js';

const PARTITION = partitionOf(Buffer.from(userIn(1)), PARTITIONS);

let world: ShopWorld;
let topology: Awaited<ReturnType<typeof silentTopology>>;

beforeAll(async () => {
  world = await ShopWorld.start();
  topology = await silentTopology((document) => {
    const datacenters = document['datacenters'] as Record<string, { stores: Record<string, unknown> }>;
    for (const side of ['a', 'b'] as const)
      datacenters[`dc-${side}`]!.stores['kafka'] = {
        events: { brokers: [world.pair[side].server.address] },
      };
  });
});
afterEach(() => world.clear());
afterAll(async () => {
  await world?.stop();
  await topology?.remove();
});

/** A group at dc-a that has not handled what was there before its link began, and whose units so cannot move. */
async function behind(
  topic: string,
): Promise<{ shop: Shop; group: string; uncopied: () => Promise<unknown> }> {
  const shop = new Shop(world, topic);
  await world.pair.a.admin.createTopics({ topics: [{ topic, numPartitions: PARTITIONS }] });
  await shop.produce(1, 5);
  shop.from = 'now';
  await shop.start();
  shop.fail = () => true;
  await shop.consume('a');
  await until(() => shop.warnings.length > 1, 'its handler fails', 60_000);
  const preview = { link: kafkaLinkConfig(world.pair, 'a', topic).link, units: ['cn-east/1'] };
  return {
    ...{ shop, group: `${topic}-group` },
    uncopied: () => world.members.a.uncopied(world.members.b, preview),
  };
}

async function stop(): Promise<void> {
  await Promise.all(world.consumers.splice(0).map((consumer) => consumer.stop()));
}

const forget = (dc: string, group: string, ...more: string[]): string[] => [
  ...['kafka', 'forget-group', '--topology', topology.file, '--dc', dc, '--group', group, '--json'],
  ...more,
];

/** What is kept of a topic at dc-a, by key; a tombstone is nothing. */
async function kept(group: string, topic: string): Promise<RecordKey[]> {
  const records = await readPartition(world.pair.a, CONSUMERS, partitionOfSubscription({ group, topic }));
  const last = new Map(records.map(({ key, value }) => [key!, value]));
  return [...last]
    .filter(([, value]) => value !== null)
    .map(([key]) => JSON.parse(key) as RecordKey)
    .filter(([, of, about]) => of === group && about === topic);
}

it('a group that will never run again holds up no switchover when it is forgotten', async () => {
  const { shop, group, uncopied } = await behind('f-dead');
  expect(await uncopied()).toContain(
    'If no instance of it will ever run there again: interlock kafka forget-group --dc dc-a --group f-dead-group --topic f-dead',
  );
  const refused = await failure(...forget('dc-a', group));
  expect(refused).toMatchObject({ exitCode: 1, code: 'Refused' });
  expect(refused.message).toContain('group f-dead-group lives in dc-a: it has members (');
  expect(await uncopied()).toContain('has not handled');
  await stop();
  const ran = await interlock(...forget('dc-a', group));
  expect(ran, ran.stderr).toMatchObject({ exitCode: 0 });
  expect(JSON.parse(ran.stdout)).toMatchObject({
    ...{ dc: 'dc-a', store: 'events' },
    forgotten: [{ group, topic: 'f-dead', handOvers: [] }],
  });
  const [{ states }] = (JSON.parse(ran.stdout) as { forgotten: [{ states: object[] }] }).forgotten;
  expect(states).toContainEqual({
    ...{ origin: 'dc-a', partition: PARTITION, position: 0 },
    holder: { application: 'shop', instance: 'one' },
  });
  expect(states).toContainEqual({
    ...{ origin: 'dc-b', partition: PARTITION, position: null },
    holder: { application: 'shop', instance: 'one' },
  });
  // Of who has read it before, too.
  expect(await uncopied()).toBeUndefined();
  expect(await kept(group, 'f-dead')).toEqual([]);
  await shop.switch('a', [1]);
  const there = await readPartition(
    world.pair.b,
    CONSUMERS,
    partitionOfSubscription({ group, topic: 'f-dead' }),
  );
  expect(there.filter(({ key }) => key!.includes(group))).toEqual([]);
  // What there is not, is said.
  expect(await failure(...forget('dc-a', group))).toMatchObject({
    ...{ exitCode: 2, code: 'BadInput', details: { field: '--group' } },
    message: expect.stringContaining('dc-a keeps nothing of a group f-dead-group') as unknown,
  });
});

it('only one topic of it, and what was handed over to it', async () => {
  const subscription = { group: 'f-two', topic: 'f-one' };
  const { producer } = world.pair.a;
  await withCluster({ brokers: [world.pair.a.server.address] }, async (cluster) => {
    const tail = new ConsumersTail(cluster);
    for (const topic of ['f-one', 'f-other'])
      for (const epoch of [4, 7]) {
        const key: RecordKey = ['hand-over', 'f-two', topic, epoch];
        const partition = partitionOfSubscription({ ...subscription, topic });
        const messages = [{ key: JSON.stringify(key), value: '[]', partition }];
        await producer.send({ topic: CONSUMERS, messages });
      }
    await tail.read(30_000);
    const ran = await interlock(...forget('dc-a', 'f-two', '--topic', 'f-one'));
    expect(JSON.parse(ran.stdout)).toMatchObject({
      forgotten: [{ ...subscription, states: [], handOvers: [4, 7] }],
    });
    await tail.read(30_000);
    expect(tail.recordsOf('f-two').map(([key]) => key[2])).toEqual(['f-other', 'f-other']);
    const told = await interlock(...forget('dc-a', 'f-two').filter((word) => word !== '--json'));
    expect(told.stdout).toBe(
      'dc-a kafka/events has forgotten group f-two in f-other: no positions, and what was handed over at epoch 4, 7\n',
    );
  });
});

it('a zombie of it commits nothing any more: neither what it had begun, nor what comes later', async () => {
  const { group } = await behind('f-zombie');
  await stop();
  const [subscription, origin] = [{ group, topic: 'f-zombie' }, 'dc-a'];
  const transactionalId = consumerTransactionalId(subscription, origin, PARTITION);
  const zombie = world.pair.a.kafka.producer({
    transactionalId,
    maxInFlightRequests: 1,
    retry: { retries: 0 },
  });
  await zombie.connect();
  const begun = await zombie.transaction();
  const key: RecordKey = ['state', group, 'f-zombie', origin, PARTITION];
  const value = JSON.stringify({ adopted: 0, position: 3, apart: [], doubtful: null });
  const messages = [{ key: JSON.stringify(key), value, partition: partitionOfSubscription(subscription) }];
  await begun.send({ topic: CONSUMERS, messages });
  expect((await interlock(...forget('dc-a', group))).exitCode).toBe(0);
  await expect(begun.commit()).rejects.toThrow();
  await zombie.disconnect();
  expect(await kept(group, 'f-zombie')).toEqual([]);
});

it('one that comes back while it is forgotten keeps all of it', async () => {
  const { group, uncopied } = await behind('f-back');
  await stop();
  const id = consumerTransactionalId({ group, topic: 'f-back' }, 'dc-a', PARTITION);
  const before = await kept(group, 'f-back');
  const address = { brokers: [world.pair.a.server.address] };
  await withCluster(address, (other) =>
    withCluster(address, async (cluster) => {
      const call = cluster.call.bind(cluster);
      let looks = 0;
      vi.spyOn(cluster, 'call').mockImplementation(async (...args: Parameters<Cluster['call']>) => {
        // The tombstones are written then.
        if (args[1].name === 'DescribeGroups' && ++looks === 2)
          await TransactionalProducer.take(other, id, 15_000);
        return call(...args);
      });
      await expect(forgetGroup(cluster, { dc: 'dc-a', group })).rejects.toMatchObject({ code: 'Refused' });
      expect(looks).toBe(2);
    }),
  );
  expect(await kept(group, 'f-back')).toEqual(before);
  expect(await uncopied()).toContain('has not handled');
});

it('who has not read on for long reads anew: compaction removes tombstones, too', async () => {
  const { group } = await behind('f-late');
  await stop();
  await withCluster({ brokers: [world.pair.a.server.address] }, async (cluster) => {
    const tail = new ConsumersTail(cluster);
    expect(await tail.read(30_000)).toBe(true);
    expect(tail.recordsOf(group).length).toBeGreaterThan(0);
    // As compaction leaves it, a day after all was forgotten.
    const partition = partitionOfSubscription({ group, topic: 'f-late' });
    const { admin } = world.pair.a;
    const configEntries = [{ name: 'cleanup.policy', value: 'compact,delete' }];
    const resources = [{ type: ConfigResourceTypes.TOPIC, name: CONSUMERS, configEntries }];
    await admin.alterConfigs({ validateOnly: false, resources });
    const partitions = [{ partition, offset: '-1' }];
    await until(
      () =>
        admin.deleteTopicRecords({ topic: CONSUMERS, partitions }).then(
          () => true,
          () => false,
        ),
      'the records are removed',
      60_000,
    );
    const now = performance.now();
    const clock = vi.spyOn(performance, 'now').mockImplementation(() => now + 2 * 60 * 60_000);
    try {
      await tail.read(0);
    } finally {
      clock.mockRestore();
    }
    expect(tail.recordsOf(group)).toEqual([]);
  });
});

it.each([
  [['--dc', 'dc-z', '--group', 'g'], 'dc-z'],
  [['--dc', 'dc-a'], '--group'],
  [['--group', 'g'], '--dc'],
  [['--dc', 'dc-a', '--group', 'g', '--store', 'none'], 'dc-a has no Kafka store none; it has: events'],
])('%j is bad input', async (flags, words) => {
  const refused = await failure('kafka', 'forget-group', '--topology', topology.file, '--json', ...flags);
  expect(refused).toMatchObject({ exitCode: 2, code: 'BadInput' });
  expect(refused.message).toContain(words);
});
