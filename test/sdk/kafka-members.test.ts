import { afterEach, expect, it } from 'vitest';
import type { HandOver } from '../../src/kafka/hand-over.js';
import { createInterlock, FixedRules } from '../../src/sdk/index.js';
import type { ConsumedRecord, FencedConsumer } from '../../src/sdk/index.js';
import { until } from '../support/replication.js';
import { FakeKafka } from './fake-kafka.js';
import type { FakeMember } from './fake-kafka.js';
import { testRules, userIn } from './support.js';

const USER = userIn(1);
const UNIT = 'cn-east/1';

interface Handled {
  by: string;
  at: string;
  redelivered: boolean;
}

const consumers: FencedConsumer[] = [];
afterEach(() => Promise.all(consumers.splice(0).map((consumer) => consumer.stop())));

/** Members of one group at dc-a, with the partitions that the test gives them. */
class Group {
  readonly broker = new FakeKafka();
  readonly handled: Handled[] = [];
  /** Of a record that is not to end before that. */
  held: (by: string, record: ConsumedRecord) => Promise<void> | undefined = () => undefined;

  async member(name: string, partitions: number[]): Promise<FakeMember> {
    const rules = new FixedRules(testRules(1));
    const interlock = createInterlock({ dc: 'dc-a', application: 'shop', instance: name, rules });
    const consumer = interlock.kafka(this.broker.kafka).consumer({
      ...{ groupId: 'g', topics: ['orders'], peer: 'dc-b' },
      routingKey: ({ key }) => ({ userId: key!.toString(), region: 'cn-east' }),
      handler: async (record) => {
        await this.held(name, record);
        const { partition, offset, redelivered } = record;
        this.handled.push({ by: name, at: `${partition}/${offset}`, redelivered });
      },
    });
    consumers.push(consumer);
    await consumer.start();
    const member = this.broker.members.at(-1)!;
    member.assign({ orders: partitions });
    await this.reads(member, partitions);
    return member;
  }

  reads(member: FakeMember, partitions: number[]): Promise<void> {
    return until(
      () => partitions.every((one) => member.reading.has(`orders-${one}`)),
      `it reads ${partitions.join(', ')}`,
    );
  }
}

function latch(): { opened: Promise<void>; open: () => void } {
  let open = (): void => undefined;
  const opened = new Promise<void>((resolve) => (open = resolve));
  return { opened, open };
}

it('commits what it handled before a rebalance hands its partition over: the next member has nothing in doubt', async () => {
  const group = new Group();
  const one = await group.member('one', [0]);
  await one.give('orders', 0, 0, Array(5).fill(USER) as string[]);
  expect(group.broker.state('orders', 0)).toMatchObject({ position: 0, attempt: [0, 5] });
  one.rebalance();
  await until(() => group.broker.state('orders', 0)?.attempt === null, 'what was handled is committed');
  const two = await group.member('two', [0]);
  expect(two.seeks.at(-1)).toBe(5);
  await two.give('orders', 0, 5, [USER]);
  expect(group.handled.map(({ at }) => at)).toEqual(['0/0', '0/1', '0/2', '0/3', '0/4', '0/5']);
  expect(group.handled.filter(({ redelivered }) => redelivered)).toEqual([]);
});

it('so does one that hears of it in the middle of a batch, and ends the batch there', async () => {
  const group = new Group();
  const under = latch();
  group.held = (_by, { offset }) => (offset === 2 ? under.opened : undefined);
  const one = await group.member('one', [0]);
  const rebalancing = new Error('REBALANCE_IN_PROGRESS');
  let beats = 0;
  const reading = one.give('orders', 0, 0, Array(5).fill(USER) as string[], () => {
    beats += 1;
    return Promise.reject(rebalancing);
  });
  reading.catch(() => undefined);
  await until(() => beats > 0, 'a heartbeat is refused');
  under.open();
  await expect(reading).rejects.toBe(rebalancing);
  expect(group.handled.map(({ at }) => at)).toEqual(['0/0', '0/1', '0/2']);
  expect(group.broker.state('orders', 0)).toMatchObject({ position: 3, attempt: null, doubtful: null });
});

it('a member that hears late that it has lost a partition goes by what the next one has committed in between', async () => {
  const group = new Group();
  // What is in partition 1 comes before what is written in partition 0 now.
  const handOver: HandOver = {
    ...{ epoch: 1, units: [UNIT], doubtful: {} },
    stages: [{ origin: 'dc-a', to: { 1: 3 } }],
    from: { 'dc-a': { 0: 0, 1: 0 } },
  };
  group.broker.write(['hand-over', 'g', 'orders', 1], [handOver]);
  const one = await group.member('one', [0, 1]);
  await one.give('orders', 0, 0, [USER]);
  const two = await group.member('two', [1]);
  await two.give('orders', 1, 0, [USER, USER, USER]);
  two.rebalance();
  await until(() => group.broker.state('orders', 1)?.position === 3, 'all of partition 1 is handled');
  expect(group.handled.filter(({ by }) => by === 'one')).toEqual([]);
  const before = one.seeks.length;
  one.assign({ orders: [0] });
  await until(() => one.seeks.slice(before).includes(0), 'what waited is read again');
  await one.give('orders', 0, 0, [USER]);
  expect(group.handled).toEqual([
    { by: 'two', at: '1/0', redelivered: false },
    { by: 'two', at: '1/1', redelivered: false },
    { by: 'two', at: '1/2', redelivered: false },
    { by: 'one', at: '0/0', redelivered: false },
  ]);
});

it('a group that was forgotten begins anew, at the offsets of Kafka', async () => {
  const group = new Group();
  const state = { adopted: 0, position: 3, apart: [], doubtful: null };
  group.broker.write(['state', 'g', 'orders', 'dc-a', 0], state);
  group.broker.write(['state', 'g', 'orders', 'dc-a', 0], null);
  const one = await group.member('one', [0]);
  expect(one.seeks.at(-1)).toBe(0);
});

it('a hand-over that was forgotten holds up nothing any more, also of who had read it', async () => {
  const group = new Group();
  const handOver = (epoch: number, partition: number): HandOver => ({
    ...{ epoch, units: [UNIT], doubtful: {} },
    stages: [{ origin: 'dc-a', to: { [partition]: 3 } }],
    from: { 'dc-a': { 0: 0, 1: 0 } },
  });
  group.broker.write(['hand-over', 'g', 'orders', 1], [handOver(1, 1)]);
  const one = await group.member('one', [0]);
  await one.give('orders', 0, 0, [USER]);
  expect(group.handled).toEqual([]);
  const before = one.seeks.length;
  group.broker.write(['hand-over', 'g', 'orders', 1], null);
  await until(() => one.seeks.slice(before).includes(0), 'what waited is read again');
  await one.give('orders', 0, 0, [USER]);
  expect(group.handled.map(({ at }) => at)).toEqual(['0/0']);
});

it('the state of a partition that was forgotten is not waited for by what it said', async () => {
  const group = new Group();
  const handOver: HandOver = {
    ...{ epoch: 1, units: [UNIT], doubtful: {} },
    stages: [{ origin: 'dc-a', to: { 1: 3 } }],
    from: { 'dc-a': { 0: 0, 1: 0 } },
  };
  group.broker.write(['hand-over', 'g', 'orders', 1], [handOver]);
  const handled = { adopted: 1, position: 3, apart: [], doubtful: null };
  group.broker.write(['state', 'g', 'orders', 'dc-a', 1], handled);
  const one = await group.member('one', [0]);
  group.broker.write(['state', 'g', 'orders', 'dc-a', 1], null);
  await one.give('orders', 0, 0, [USER]);
  expect(group.handled).toEqual([]);
});
