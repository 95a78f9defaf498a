import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { KafkaMember } from '../../replicators/kafka/member.js';
import { partitionOf } from '../../src/kafka/partitioner.js';
import { withAssignments } from '../../src/routing/rules.js';
import type { Assignment, Rules } from '../../src/routing/rules.js';
import { createInterlock, FixedRules } from '../../src/sdk/index.js';
import type { FencedConsumer } from '../../src/sdk/index.js';
import { testRules, userIn } from '../sdk/support.js';
import { kafkaLinkConfig, kafkaSettled, runKafkaLink, startKafkaPair } from '../support/kafka-replication.js';
import type { KafkaPair, RunningKafkaLink } from '../support/kafka-replication.js';
import { startProgram } from '../support/programs.js';
import type { Program } from '../support/programs.js';
import { until } from '../support/replication.js';

const SIDES = ['a', 'b'] as const;
type Side = (typeof SIDES)[number];
const PARTITIONS = 2;

let pair: KafkaPair;
const members = {} as Record<Side, KafkaMember>;
const consumers: FencedConsumer[] = [];
const links: RunningKafkaLink[] = [];
const programs: Program[] = [];

beforeAll(async () => {
  pair = await startKafkaPair();
  for (const side of SIDES)
    members[side] = new KafkaMember(`dc-${side}`, 'events', { brokers: [pair[side].server.address] });
});
afterEach(async () => {
  await Promise.all(programs.splice(0).map((program) => program.kill('SIGKILL')));
  await Promise.all(consumers.splice(0).map((consumer) => consumer.stop()));
  await Promise.all(links.splice(0).map((link) => link.stop()));
});
afterAll(async () => {
  for (const member of Object.values(members)) member.close();
  await pair?.stop();
});

interface Handled {
  at: Side;
  user: string;
  n: number;
  redelivered: boolean;
  partition?: number;
}

/** A topic in two data centers, copied both ways, and users in units that move. */
class Shop {
  readonly handled: Handled[] = [];
  readonly warnings: string[] = [];
  /** Transactional ids that the hand-overs have taken. */
  readonly fenced: string[] = [];
  readonly rules: Record<Side, FixedRules> = {
    a: new FixedRules(testRules(1)),
    b: new FixedRules(testRules(1)),
  };
  private readonly written = new Map<string, number>();
  private readonly owners = new Map<number, Side>();
  private epoch = 1;
  private current: Rules = testRules(1);
  private readonly link = {} as Record<Side, RunningKafkaLink>;
  /** Milliseconds of one record. */
  slowness = 0;
  /** Where its links begin. */
  from: 'now' | 'earliest' = 'earliest';
  fail: (record: Handled) => boolean = () => false;
  /** Of a record that is not to end before that. */
  held: (record: Handled) => Promise<void> | undefined = () => undefined;

  constructor(readonly topic: string) {}

  async start(): Promise<void> {
    for (const side of SIDES) {
      await pair[side].admin.createTopics({
        topics: [{ topic: this.topic, numPartitions: PARTITIONS }],
        waitForLeaders: false,
      });
    }
    for (const side of SIDES) {
      this.link[side] = await runKafkaLink(kafkaLinkConfig(pair, side, this.topic), this.from);
      links.push(this.link[side]);
    }
    for (const side of SIDES) {
      const copy = `dc-${side === 'a' ? 'b' : 'a'}.${this.topic}`;
      await until(
        async () => (await pair[side].admin.listTopics()).includes(copy),
        `${copy} is there`,
        60_000,
      );
    }
  }

  async consume(side: Side, name = 'one'): Promise<FencedConsumer> {
    const rules = this.rules[side];
    const interlock = createInterlock({ dc: `dc-${side}`, application: 'shop', instance: name, rules });
    const consumer = interlock.kafka(pair[side].kafka).consumer({
      groupId: `${this.topic}-group`,
      topics: [this.topic],
      peer: side === 'a' ? 'dc-b' : 'dc-a',
      routingKey: ({ key }) => ({ userId: key!.toString(), region: 'cn-east' }),
      handler: async ({ value, redelivered, partition }) => {
        const [user, n] = value!.toString().split(':');
        const record = { at: side, user: user!, n: Number(n), redelivered, partition };
        if (this.fail(record)) throw new Error('the handler has failed');
        await this.held(record);
        if (this.slowness > 0) await new Promise((resolve) => setTimeout(resolve, this.slowness));
        this.handled.push(record);
      },
      onWarning: (message) => this.warnings.push(message),
    });
    consumers.push(consumer);
    await consumer.start();
    return consumer;
  }

  /** A member at dc-a in a process of its own, which knows the rules of epoch 1 and no later ones. */
  startProcess(slowness: number): Program {
    const args = [pair.a.server.address, `${this.topic}-group`, this.topic, String(slowness)];
    const program = startProgram('test/support/consumer-process.js', args);
    programs.push(program);
    return program;
  }

  /** What it has handled, in its order; before what this process has. */
  take(program: Program): number {
    const lines = [...program.output().matchAll(/handled (\S+):(\d+) (true|false);/g)];
    const records = lines.map(([, user, n, redelivered]) => ({
      ...{ at: 'a' as const, user: user!, n: Number(n), redelivered: redelivered === 'true' },
    }));
    this.handled.unshift(...records);
    return records.length;
  }

  async produce(bucket: number, count = 1, other = 0): Promise<void> {
    const user = userIn(bucket, other);
    const side = this.owners.get(bucket) ?? 'a';
    const from = this.written.get(user) ?? 0;
    this.written.set(user, from + count);
    const messages = Array.from({ length: count }, (_, i) => ({
      key: user,
      value: `${user}:${from + i + 1}`,
    }));
    await pair[side].producer.send({ topic: this.topic, messages });
  }

  private publish(buckets: readonly number[], assignment: Assignment): void {
    const changes = new Map(buckets.map((bucket) => [`cn-east/${bucket}`, assignment]));
    this.current = withAssignments(this.current, changes, {
      epoch: ++this.epoch,
      reason: 'test',
      holder: null,
    });
    for (const side of SIDES) this.rules[side].set(this.current);
  }

  /** As a switchover does it. */
  async switch(
    from: Side,
    buckets: readonly number[],
    outcome: 'done' | 'abort-early' | 'abort-late' = 'done',
  ): Promise<void> {
    const to = from === 'a' ? 'b' : 'a';
    const moved = buckets.filter((bucket) => (this.owners.get(bucket) ?? 'a') === from);
    this.publish(moved, { owner: `dc-${from}`, state: 'write_disabled' });
    await this.rules[from].acknowledged;
    const past = this.handled.length;
    if (outcome !== 'abort-early') {
      await kafkaSettled(this.link[from]);
      const { fenced } = await members[from].handOverConsumers(members[to], {
        link: kafkaLinkConfig(pair, from, this.topic).link,
        epoch: this.epoch,
        units: moved.map((bucket) => `cn-east/${bucket}`),
        hasAcknowledged: ({ instance }) => instance !== 'process',
        undecidedMs: 30_000,
        ended: () => undefined,
      });
      this.fenced.push(...fenced);
    }
    const users = new Set(moved.flatMap((bucket) => [userIn(bucket), userIn(bucket, 1)]));
    expect(this.handled.slice(past).filter(({ user }) => users.has(user))).toEqual([]);
    const owner = outcome === 'done' ? to : from;
    for (const bucket of moved) this.owners.set(bucket, owner);
    this.publish(moved, { owner: `dc-${owner}`, state: 'open' });
  }

  /** Waits until everything is handled; then looks whether it was in order, once, or marked. */
  async check(): Promise<void> {
    const total = [...this.written.values()].reduce((sum, n) => sum + n, 0);
    const distinct = (): number => new Set(this.handled.map(({ user, n }) => `${user}:${n}`)).size;
    await until(
      () => distinct() >= total,
      `${total} records are handled`,
      90_000,
      () => `${distinct()} are; ${this.missing().join(' ')}; ${this.warnings.slice(-5).join('; ')}`,
    );
    for (const [user, count] of this.written) {
      const seen: number[] = [];
      for (const { n, redelivered } of this.handled.filter((one) => one.user === user)) {
        if (seen.includes(n)) expect({ user, n, redelivered }).toEqual({ user, n, redelivered: true });
        else seen.push(n);
      }
      expect({ user, seen }).toEqual({ user, seen: Array.from({ length: count }, (_, i) => i + 1) });
    }
  }

  private missing(): string[] {
    return [...this.written].flatMap(([user, count]) => {
      const seen = new Set(this.handled.filter((one) => one.user === user).map(({ n }) => n));
      const missing = Array.from({ length: count }, (_, i) => i + 1).filter((n) => !seen.has(n));
      return missing.length === 0 ? [] : [`${user}: ${missing.slice(0, 5).join(',')}`];
    });
  }
}

describe('the consumer of the SDK', () => {
  it('a partition of moved and unmoved units: the tail is handled there, then what is new', async () => {
    const shop = new Shop('c-mixed');
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
    const shop = new Shop('c-many');
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
    const shop = new Shop('c-kill');
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
    const shop = new Shop('c-zombie');
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
    const shop = new Shop('c-rebalance');
    await shop.start();
    for (const bucket of [1, 2, 3, 4]) await shop.produce(bucket, 400);
    shop.slowness = 5;
    const first = await shop.consume('a', 'one');
    await until(() => shop.handled.length > 20, 'some are handled', 60_000);
    await shop.consume('a', 'two');
    const past = shop.handled.length;
    await until(() => shop.handled.length > past + 200, 'more are handled', 60_000);
    await first.stop();
    consumers.splice(consumers.indexOf(first), 1);
    await shop.check();
    expect(shop.handled.filter(({ redelivered }) => redelivered)).toEqual([]);
  });

  it('two members at each side, that come and go between switches, and a handler that fails', async () => {
    const shop = new Shop('c-members');
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
    consumers.splice(consumers.indexOf(first), 1);
    await shop.switch('b', [1]);
    await load();
    await shop.check();
  });

  it('goes on behind undone records that are more than a fetch has', async () => {
    const shop = new Shop('c-undone');
    await shop.start();
    await shop.consume('a');
    await shop.produce(1, 5);
    await shop.check();
    const producer = pair.a.kafka.producer({
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
    const shop = new Shop('c-empty');
    const { admin, producer } = pair.a;
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
    const shop = new Shop('c-now');
    await pair.a.admin.createTopics({ topics: [{ topic: shop.topic, numPartitions: PARTITIONS }] });
    await shop.produce(1, 5);
    shop.from = 'now';
    await shop.start();
    let down = true;
    shop.fail = () => down;
    await shop.consume('a');
    await until(() => shop.warnings.length > 1, 'its handler fails', 60_000);
    const partition = partitionOf(Buffer.from(userIn(1)), PARTITIONS);
    await expect(shop.switch('a', [1])).rejects.toMatchObject({
      code: 'Refused',
      details: { group: 'c-now-group', topic: 'c-now', partition, from: 0, to: 5 },
    });
    down = false;
    await shop.switch('a', [1], 'abort-early');
    await shop.check();
    await shop.consume('b');
    await shop.switch('a', [1]);
    await shop.produce(1, 5);
    await shop.check();
  });
});
