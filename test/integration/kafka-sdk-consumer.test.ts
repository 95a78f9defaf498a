import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { partitionOf } from '../../src/kafka/partitioner.js';
import { userIn } from '../sdk/support.js';
import { kafkaLinkConfig } from '../support/kafka-replication.js';
import { PARTITIONS, Shop, ShopWorld } from '../support/kafka-shop.js';
import type { Handled, Side } from '../support/kafka-shop.js';
import { until } from '../support/replication.js';

let world: ShopWorld;

beforeAll(async () => {
  world = await ShopWorld.start();
});
afterEach(() => world.clear());
afterAll(() => world?.stop());

describe('the consumer of the SDK', () => {
  it('a partition of moved and unmoved units: the tail is handled there, then what is new', async () => {
    const shop = new Shop(world, 'c-mixed');
    await shop.start();
    for (const bucket of [1, 2, 3, 4]) await shop.produce(bucket, 40);
    let reached: Handled | undefined;
    let release = (): void => undefined;
    const released = new Promise<void>((resolve) => (release = resolve));
    shop.held = (record) => {
      if (record.at !== 'a' || record.user !== userIn(1) || record.n !== 21) return undefined;
      reached = record;
      return released;
    };
    await shop.consume('a');
    await shop.consume('b');
    await until(
      () => reached !== undefined,
      'the record is under way',
      60_000,
      () => shop.warnings.join('; '),
    );
    shop.slowness = 5;
    const past = shop.handled.length;
    const switching = shop.switch('a', [1, 2]);
    release();
    await shop.rules.a.acknowledged;
    // The batch was left at its next record.
    const same = shop.handled.slice(past).filter(({ partition }) => partition === reached!.partition);
    expect(same.map(({ user, n }) => [user, n])).toEqual([[userIn(1), 21]]);
    await switching;
    for (const bucket of [1, 2, 3, 4]) await shop.produce(bucket, 10);
    await shop.check();
    const where = (side: Side, bucket: number): number[] =>
      shop.handled.filter(({ at, user }) => at === side && user === userIn(bucket)).map(({ n }) => n);
    // Each has a part of the moved ones, and nothing of the others came to dc-b.
    expect([where('a', 1).length, where('b', 1).length]).toEqual([21, 29]);
    expect(where('b', 3)).toEqual([]);
    expect(where('a', 3)).toHaveLength(50);
    expect(shop.handled.filter(({ redelivered }) => redelivered)).toEqual([]);
    // Who has acknowledged goes on with the partitions.
    expect(shop.fenced).toEqual([]);
  });

  it('switches of overlapping units, aborts and rollbacks, one after the other', async () => {
    const shop = new Shop(world, 'c-many');
    await shop.start();
    await shop.consume('a');
    await shop.consume('b');
    shop.slowness = 2;
    const all = [1, 2, 3, 4];
    const load = async (): Promise<void> => {
      for (const bucket of all) for (const other of [0, 1]) await shop.produce(bucket, 12, other);
    };
    await load();
    await shop.switch('a', [1, 2]);
    await load();
    await shop.switch('a', [3], 'abort-late');
    await load();
    await shop.switch('b', [2]);
    await load();
    await shop.switch('a', [2, 3]);
    await load();
    await shop.switch('b', [1], 'abort-early');
    await load();
    await shop.switch('b', [1, 2, 3]);
    await load();
    await shop.check();
  });

  it('a member that is killed: what it could not note comes again, marked, and nothing else', async () => {
    const shop = new Shop(world, 'c-kill');
    await shop.start();
    for (const bucket of [1, 2, 3, 4]) await shop.produce(bucket, 60);
    const program = shop.startProcess(3);
    await program.prints(`handled ${userIn(1)}:20 `);
    await program.kill('SIGKILL');
    const before = shop.take(program);
    expect(before).toBeGreaterThanOrEqual(20);
    // Nobody can have handled these.
    for (const bucket of [1, 2, 3, 4]) await shop.produce(bucket, 5);
    await shop.consume('a');
    await shop.check();
    expect(shop.handled.filter(({ n, redelivered }) => n > 60 && redelivered)).toEqual([]);
    const again = shop.handled.filter(({ redelivered }) => redelivered).length;
    expect(again).toBeGreaterThan(0);
    expect(shop.handled.length).toBeLessThanOrEqual(260 + again);
  });

  it('a member that is paused over a switch handles nothing of it when it wakes up', async () => {
    const shop = new Shop(world, 'c-zombie');
    await shop.start();
    for (const bucket of [1, 2, 3, 4]) await shop.produce(bucket, 60);
    const zombie = shop.startProcess(3);
    await zombie.prints(`handled ${userIn(1)}:20 `);
    zombie.child.kill('SIGUSR2');
    await zombie.prints('cut off;');
    zombie.child.kill('SIGSTOP');
    const count = (): number => (zombie.output().match(/handled/g) ?? []).length;
    const paused = count();
    // It counts as a pause; before it ends, the time between two commits need not be over.
    await new Promise((resolve) => setTimeout(resolve, 300));
    await shop.switch('a', [1, 2]);
    expect(shop.fenced).toHaveLength(2 * PARTITIONS);
    zombie.child.kill('SIGCONT');
    await zombie.prints('warned');
    await shop.produce(1, 5);
    await shop.consume('b');
    await until(
      () => shop.handled.filter(({ at, user }) => at === 'b' && user === userIn(1)).some(({ n }) => n === 65),
      'dc-b has handled the moved ones',
      60_000,
      () => shop.warnings.slice(-5).join('; '),
    );
    // At most the one in each partition that was under way.
    expect(count() - paused).toBeLessThanOrEqual(PARTITIONS);
    await zombie.kill('SIGKILL');
    shop.take(zombie);
    await shop.consume('a');
    await shop.check();
  });

  it('a member that comes, and one that goes, in the middle of a batch: each record once', async () => {
    const shop = new Shop(world, 'c-rebalance');
    await shop.start();
    for (const bucket of [1, 2, 3, 4]) await shop.produce(bucket, 400);
    shop.slowness = 5;
    const first = await shop.consume('a', 'one');
    await until(() => shop.handled.length > 20, 'some are handled', 60_000);
    await shop.consume('a', 'two');
    const past = shop.handled.length;
    await until(() => shop.handled.length > past + 200, 'more are handled', 60_000);
    await first.stop();
    world.consumers.splice(world.consumers.indexOf(first), 1);
    await shop.check();
    expect(shop.handled.filter(({ redelivered }) => redelivered)).toEqual([]);
  });

  it('two members at each side, that come and go between switches, and a handler that fails', async () => {
    const shop = new Shop(world, 'c-members');
    await shop.start();
    const first = await shop.consume('a', 'one');
    await shop.consume('b', 'one');
    shop.slowness = 2;
    const failed = new Set<string>();
    shop.fail = ({ user, n }) => {
      const fails = n % 9 === 4 && !failed.has(`${user}:${n}`);
      if (fails) failed.add(`${user}:${n}`);
      return fails;
    };
    const load = async (): Promise<void> => {
      for (const bucket of [1, 2, 3]) await shop.produce(bucket, 15);
    };
    await load();
    await shop.consume('a', 'two');
    await load();
    await shop.switch('a', [1, 2]);
    await load();
    await first.stop();
    world.consumers.splice(world.consumers.indexOf(first), 1);
    await shop.switch('b', [1]);
    await load();
    await shop.check();
  });

  it('a record that its handler never takes rests before it is tried again, and keeps only its partition waiting', async () => {
    const shop = new Shop(world, 'c-poison');
    await shop.start();
    const partition = partitionOf(Buffer.from(userIn(1)), PARTITIONS);
    const elsewhere = [2, 3, 4, 5, 6, 7].find(
      (bucket) => partitionOf(Buffer.from(userIn(bucket)), PARTITIONS) !== partition,
    )!;
    const tried: number[] = [];
    let isPoison = true;
    shop.fail = ({ user, n }) => {
      if (!isPoison || user !== userIn(1) || n !== 3) return false;
      tried.push(performance.now());
      return true;
    };
    await shop.consume('a');
    await shop.produce(1, 5);
    const handled = (bucket: number): number[] =>
      shop.handled.filter(({ user }) => user === userIn(bucket)).map(({ n }) => n);
    // What the other partition commits meanwhile wakes nobody up.
    let written = 0;
    while (tried.length < 5) {
      await shop.produce(elsewhere);
      written += 1;
      await until(() => handled(elsewhere).length >= written, 'the other partition goes on', 60_000);
    }
    for (const [i, at] of tried.slice(1, 5).entries())
      expect(at - tried[i]!, `before try ${i + 2}`).toBeGreaterThan(50 * 2 ** (i + 1) - 5);
    expect(handled(1)).toEqual([1, 2]);
    isPoison = false;
    await shop.check();
    expect(shop.handled.filter(({ redelivered }) => redelivered).map(({ user, n }) => [user, n])).toEqual([
      [userIn(1), 3],
    ]);
  });

  it('goes on behind undone records that are more than a fetch has', async () => {
    const shop = new Shop(world, 'c-undone');
    await shop.start();
    await shop.consume('a');
    await shop.produce(1, 5);
    await shop.check();
    const producer = world.pair.a.kafka.producer({
      transactionalId: 'c-undone',
      idempotent: true,
      maxInFlightRequests: 1,
    });
    await producer.connect();
    const transaction = await producer.transaction();
    for (let i = 0; i < 6; i++)
      await transaction.send({
        topic: shop.topic,
        messages: [{ key: userIn(1), value: Buffer.alloc(600_000) }],
      });
    await transaction.abort();
    await producer.disconnect();
    await shop.produce(1, 5);
    await shop.check();
  });

  it('a partition of which retention has removed all holds up nobody at the new owner', async () => {
    const shop = new Shop(world, 'c-empty');
    const { admin, producer } = world.pair.a;
    await admin.createTopics({ topics: [{ topic: shop.topic, numPartitions: PARTITIONS }] });
    const partition = 1 - partitionOf(Buffer.from(userIn(1)), PARTITIONS);
    const messages = Array.from({ length: 5 }, () => ({ partition, key: 'x', value: 'x:1' }));
    await producer.send({ topic: shop.topic, messages });
    const removed = { topic: shop.topic, partitions: [{ partition, offset: '5' }] };
    await until(
      async () => {
        // kafkajs removes nothing of a topic that it does not know yet.
        await admin.fetchTopicOffsets(shop.topic);
        return admin.deleteTopicRecords(removed).then(
          () => true,
          () => false,
        );
      },
      'the records are removed',
      60_000,
    );
    await shop.start();
    await shop.consume('a');
    await shop.consume('b');
    await shop.produce(1, 5);
    await shop.check();
    await shop.switch('a', [1]);
    await shop.produce(1, 5);
    await shop.check();
  });

  it('is not handed over what a link has no copy of, since it began behind that', async () => {
    const shop = new Shop(world, 'c-now');
    await world.pair.a.admin.createTopics({ topics: [{ topic: shop.topic, numPartitions: PARTITIONS }] });
    await shop.produce(1, 5);
    shop.from = 'now';
    await shop.start();
    let down = true;
    shop.fail = () => down;
    await shop.consume('a');
    await until(() => shop.warnings.length > 1, 'its handler fails', 60_000);
    const partition = partitionOf(Buffer.from(userIn(1)), PARTITIONS);
    // A preflight says so.
    const preview = { link: kafkaLinkConfig(world.pair, 'a', shop.topic).link, units: ['cn-east/1'] };
    expect(await world.members.a.uncopied(world.members.b, preview)).toContain(
      `group c-now-group has not handled c-now-${partition} from 0 up to 5`,
    );
    await expect(shop.switch('a', [1])).rejects.toMatchObject({
      code: 'Refused',
      details: { group: 'c-now-group', topic: 'c-now', partition, from: 0, to: 5 },
    });
    down = false;
    await shop.switch('a', [1], 'abort-early');
    await shop.check();
    await until(
      async () => (await world.members.a.uncopied(world.members.b, preview)) === undefined,
      'a preflight finds that it is handled',
    );
    await shop.consume('b');
    await shop.switch('a', [1]);
    await shop.produce(1, 5);
    await shop.check();
  });
});
