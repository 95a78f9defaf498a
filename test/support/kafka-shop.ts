import { expect } from 'vitest';
import type { KafkaLinkConfig } from '../../replicators/kafka/link-config.js';
import { KafkaMember } from '../../replicators/kafka/member.js';
import { withAssignments } from '../../src/routing/rules.js';
import type { Assignment, Rules } from '../../src/routing/rules.js';
import { createInterlock, FixedRules } from '../../src/sdk/index.js';
import type { ConsumerGap, FencedConsumer } from '../../src/sdk/index.js';
import { testRules, userIn } from '../sdk/support.js';
import { kafkaLinkConfig, kafkaSettled, runKafkaLink, startKafkaPair } from './kafka-replication.js';
import type { KafkaPair, RunningKafkaLink } from './kafka-replication.js';
import { startProgram } from './programs.js';
import type { Program } from './programs.js';
import { until } from './replication.js';

const SIDES = ['a', 'b'] as const;
export type Side = (typeof SIDES)[number];
export const PARTITIONS = 2;

/** Two brokers, and what the tests of a file have started there. */
export class ShopWorld {
  readonly consumers: FencedConsumer[] = [];
  readonly links: RunningKafkaLink[] = [];
  readonly programs: Program[] = [];
  readonly members: Record<Side, KafkaMember>;

  private constructor(readonly pair: KafkaPair) {
    const member = (side: Side): KafkaMember =>
      new KafkaMember(`dc-${side}`, 'events', { brokers: [pair[side].server.address] });
    this.members = { a: member('a'), b: member('b') };
  }

  static async start(): Promise<ShopWorld> {
    return new ShopWorld(await startKafkaPair());
  }

  /** After each test. */
  async clear(): Promise<void> {
    await Promise.all(this.programs.splice(0).map((program) => program.kill('SIGKILL')));
    await Promise.all(this.consumers.splice(0).map((consumer) => consumer.stop()));
    await Promise.all(this.links.splice(0).map((link) => link.stop()));
  }

  async stop(): Promise<void> {
    for (const member of Object.values(this.members)) member.close();
    await this.pair.stop();
  }
}

export interface Handled {
  at: Side;
  user: string;
  n: number;
  redelivered: boolean;
  partition?: number;
}

/** A topic in two data centers, copied both ways, and users in units that move. */
export class Shop {
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
  readonly link = {} as Record<Side, RunningKafkaLink>;
  /** Milliseconds of one record. */
  slowness = 0;
  /** Where its links begin. */
  from: 'now' | 'earliest' = 'earliest';
  /** Of its links. */
  onGap: KafkaLinkConfig['onGap'] = 'stop';
  /** What the consumers were told of. */
  readonly gaps: (ConsumerGap & { at: Side })[] = [];
  /** So many times, a consumer that is told of a gap may not go on. */
  refusedGaps = 0;
  fail: (record: Handled) => boolean = () => false;
  /** Of a record that is not to end before that. */
  held: (record: Handled) => Promise<void> | undefined = () => undefined;

  constructor(
    private readonly world: ShopWorld,
    readonly topic: string,
  ) {}

  async start(): Promise<void> {
    for (const side of SIDES) {
      await this.world.pair[side].admin.createTopics({
        topics: [{ topic: this.topic, numPartitions: PARTITIONS }],
        waitForLeaders: false,
      });
    }
    for (const side of SIDES) {
      this.link[side] = await runKafkaLink(
        kafkaLinkConfig(this.world.pair, side, this.topic, { onGap: this.onGap }),
        this.from,
      );
      this.world.links.push(this.link[side]);
    }
    for (const side of SIDES) {
      const copy = `dc-${side === 'a' ? 'b' : 'a'}.${this.topic}`;
      await until(
        async () => (await this.world.pair[side].admin.listTopics()).includes(copy),
        `${copy} is there`,
        60_000,
      );
    }
  }

  async consume(side: Side, name = 'one'): Promise<FencedConsumer> {
    const rules = this.rules[side];
    const interlock = createInterlock({ dc: `dc-${side}`, application: 'shop', instance: name, rules });
    const consumer = interlock.kafka(this.world.pair[side].kafka).consumer({
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
      onGap: (gap) => {
        this.gaps.push({ ...gap, at: side });
        if (this.refusedGaps-- > 0) throw new Error('not yet');
      },
      onWarning: (message) => this.warnings.push(message),
    });
    this.world.consumers.push(consumer);
    await consumer.start();
    return consumer;
  }

  /** A member at dc-a in a process of its own, which knows the rules of epoch 1 and no later ones. */
  startProcess(slowness: number): Program {
    const args = [this.world.pair.a.server.address, `${this.topic}-group`, this.topic, String(slowness)];
    const program = startProgram('test/support/consumer-process.js', args);
    this.world.programs.push(program);
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
    await this.world.pair[side].producer.send({ topic: this.topic, messages });
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
      const { fenced } = await this.world.members[from].handOverConsumers(this.world.members[to], {
        link: kafkaLinkConfig(this.world.pair, from, this.topic).link,
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
