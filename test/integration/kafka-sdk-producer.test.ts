import { Kafka, logLevel } from 'kafkajs';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { fenceProducer, fenceProducers } from '../../replicators/kafka/fence-producers.js';
import type { Member } from '../../src/kafka/consumer-records.js';
import { producerTransactionalId } from '../../src/kafka/transactional-id.js';
import { withAssignments } from '../../src/routing/rules.js';
import type { Assignment, Rules } from '../../src/routing/rules.js';
import { createInterlock, FixedRules, isInterlockError } from '../../src/sdk/index.js';
import type { FencedProducer, Interlock } from '../../src/sdk/index.js';
import { testRules, userIn } from '../sdk/support.js';
import { readPartition, withCluster } from '../support/kafka-replication.js';
import type { KafkaSide } from '../support/kafka-replication.js';
import { startTestKafka } from '../support/kafka.js';
import type { TestKafka } from '../support/kafka.js';
import { startProgram } from '../support/programs.js';
import type { Program } from '../support/programs.js';
import { until } from '../support/replication.js';

const MINE = { userId: userIn(1), region: 'cn-east' };
const OTHER = { userId: userIn(2), region: 'cn-east' };
const UNIT = 'cn-east/1';

let kafka: TestKafka;
const programs: Program[] = [];
const interlocks: Interlock[] = [];
const producers: FencedProducer[] = [];

beforeAll(async () => {
  kafka = await startTestKafka();
});
afterEach(async () => {
  await Promise.all(programs.splice(0).map((program) => program.kill('SIGKILL')));
  await Promise.all(producers.splice(0).map((producer) => producer.disconnect()));
  await Promise.all(interlocks.splice(0).map((interlock) => interlock.close()));
});
afterAll(async () => {
  await kafka?.stop();
});

const client = (): Kafka => new Kafka({ brokers: [kafka.address], logLevel: logLevel.NOTHING });
const fenceAs = (hasAcknowledged: (instance: Member) => boolean): Promise<string[]> =>
  withCluster({ brokers: [kafka.address] }, (cluster) => fenceProducers(cluster, hasAcknowledged));
const fence = (id: string): Promise<void> =>
  withCluster({ brokers: [kafka.address] }, (cluster) => fenceProducer(cluster, id));

async function createTopic(topic: string): Promise<void> {
  const admin = client().admin();
  await admin.connect();
  await admin.createTopics({ topics: [{ topic, numPartitions: 1 }] });
  await admin.disconnect();
}

async function valuesOf(topic: string): Promise<string[]> {
  return (await readPartition({ server: kafka } as KafkaSide, topic)).map(({ value }) => value!);
}

function rulesWith(epoch: number, assignment: Assignment): Rules {
  return withAssignments(testRules(1), new Map([[UNIT, assignment]]), {
    epoch,
    reason: 'test',
    holder: null,
  });
}

function instance(name: string, rules: FixedRules): { interlock: Interlock; producer: FencedProducer } {
  const interlock = createInterlock({ dc: 'dc-a', application: 'shop', instance: name, rules });
  const producer = interlock.kafka(client()).producer();
  interlocks.push(interlock);
  producers.push(producer);
  return { interlock, producer };
}

describe('the producer of the SDK', () => {
  it('commits what may be written, and refuses what the rules fence, before anything is sent', async () => {
    await createTopic('t-refuse');
    const rules = new FixedRules(testRules(1));
    const { interlock, producer } = instance('refuse', rules);
    const send = (value: string, key = MINE): Promise<unknown> =>
      interlock.run(key, () => producer.send({ topic: 't-refuse', messages: [{ key: 'k', value }] }));
    await Promise.all(Array.from({ length: 50 }, (_, i) => send(String(i))));
    await expect(send('no', { userId: 'u1', region: 'cn-west' })).rejects.toMatchObject({
      code: 'NotOwner',
      details: { owner: 'dc-b', epoch: 1 },
    });
    rules.set(rulesWith(2, { owner: 'dc-a', state: 'write_disabled' }));
    await expect(send('no')).rejects.toMatchObject({
      code: 'WriteDisabled',
      details: { unit: UNIT, owner: 'dc-a', epoch: 2, reason: 'fenced' },
    });
    await send('other', OTHER);
    rules.set(rulesWith(3, { owner: 'dc-b', state: 'open' }));
    await expect(send('no')).rejects.toMatchObject({ code: 'NotOwner', details: { owner: 'dc-b' } });
    // After something of a request was sent, a refusal must not be replayed elsewhere.
    await interlock.run(OTHER, async () => {
      await producer.send({ topic: 't-refuse', messages: [{ value: 'part' }] });
      await expect(interlock.run(MINE, () => send('no'))).rejects.toMatchObject({
        code: 'PartiallyExecuted',
        details: { refusal: 'NotOwner' },
      });
    });
    await expect(producer.send({ topic: 't-refuse', messages: [{ value: 'x' }] })).rejects.toMatchObject({
      code: 'BadInput',
    });
    const expected = [...Array.from({ length: 50 }, (_, i) => String(i)), 'other', 'part'];
    expect(await valuesOf('t-refuse')).toEqual(expected);
  });

  it('takes no other message with one that Kafka refuses', async () => {
    await createTopic('t-alone');
    const { interlock, producer } = instance('alone', new FixedRules(testRules(1)));
    const send = (topic: string, value: string): Promise<unknown> =>
      interlock.run(MINE, () => producer.send({ topic, messages: [{ value }] }));
    const sent = await Promise.allSettled([
      send('t-alone', 'a'),
      send('t-alone', 'x'.repeat(2_000_000)),
      send('t-alone', 'b'),
    ]);
    expect(sent.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'fulfilled']);
    expect(sent[1]).toMatchObject({ reason: { code: 'Unavailable' } });
    expect(await valuesOf('t-alone')).toEqual(['a', 'b']);
  });

  it('acknowledges a fence when what is under way of its units is finished', async () => {
    await createTopic('t-drain');
    const rules = new FixedRules(testRules(1));
    const { interlock, producer } = instance('drain', rules);
    const send = (value: string, key = MINE): Promise<unknown> =>
      interlock.run(key, () => producer.send({ topic: 't-drain', messages: [{ value }] }));
    await send('first');
    kafka.pause();
    const events: string[] = [];
    const underWay = send('under way').then(() => events.push('sent'));
    // Behind the one that is under way: refused when its turn comes, so that the fence does not wait for it.
    await new Promise((resolve) => setTimeout(resolve, 50));
    const behind = send('behind').then(
      () => 'sent',
      (error: unknown) => isInterlockError(error) && error.code,
    );
    rules.set(rulesWith(2, { owner: 'dc-a', state: 'write_disabled' }));
    const acknowledged = rules.acknowledged.then(() => events.push('acknowledged'));
    await new Promise((resolve) => setTimeout(resolve, 300));
    expect(events).toEqual([]);
    kafka.unpause();
    await Promise.all([underWay, acknowledged]);
    expect(events).toEqual(['sent', 'acknowledged']);
    expect(await behind).toBe('WriteDisabled');
    await send('last', OTHER);
    // A commit is answered before its end is in the partition.
    await expect.poll(() => valuesOf('t-drain')).toEqual(['first', 'under way', 'last']);
  });

  it('goes on after a fence that does not concern it, and learns of one that does', async () => {
    await createTopic('t-fence');
    const rules = new FixedRules(testRules(1));
    const { interlock, producer } = instance('fence', rules);
    const send = (value: string): Promise<unknown> =>
      interlock.run(MINE, () => producer.send({ topic: 't-fence', messages: [{ value }] }));
    await send('a');
    const id = producerTransactionalId('shop', 'fence');
    expect(await fenceAs(({ instance }) => instance === 'fence')).not.toContain(id);
    expect(await fenceAs(() => false)).toContain(id);
    // It is fenced already, until it takes its id again.
    expect(await fenceAs(() => false)).not.toContain(id);
    await send('b');
    expect(await fenceAs(() => false)).toContain(id);
    // It has not heard of the new rules when it is fenced: it asks for them after it has taken its id again.
    await fence(id);
    const confirm = rules.confirm.bind(rules);
    rules.confirm = () => {
      rules.set(rulesWith(2, { owner: 'dc-b', state: 'open' }));
      return confirm();
    };
    await expect(send('c')).rejects.toMatchObject({ code: 'NotOwner', details: { owner: 'dc-b', epoch: 2 } });
    await fence(id);
    rules.confirm = () => Promise.reject(new Error('the rule center does not answer'));
    rules.set(rulesWith(3, { owner: 'dc-a', state: 'open' }));
    await expect(send('d')).rejects.toMatchObject({ code: 'Unavailable', retryable: true });
    expect(await valuesOf('t-fence')).toEqual(['a', 'b']);
  });

  it.each([1, 2, 3])(
    'a process that is paused and fenced writes nothing when it wakes up (%i)',
    async (n) => {
      const topic = `t-zombie-${n}`;
      await createTopic(topic);
      const name = `zombie-${n}`;
      const args = [kafka.address, name, topic, MINE.userId];
      const zombie = startProgram('test/support/producer-process.js', args);
      programs.push(zombie);
      await zombie.prints(`sent ${n * 5};`);
      zombie.child.kill('SIGSTOP');
      expect(await fenceAs(() => false)).toContain(producerTransactionalId('shop', name));
      const before = await valuesOf(topic);
      zombie.child.kill('SIGCONT');
      await until(() => (zombie.output().match(/refused/g) ?? []).length >= 3, 'it is refused');
      await zombie.kill('SIGKILL');
      expect(await valuesOf(topic)).toEqual(before);
      const said = [...zombie.output().matchAll(/sent (\d+);/g)].map(([, at]) => `${name} ${at}`);
      expect(before.slice(0, said.length)).toEqual(said);
      expect(zombie.output()).not.toMatch(/refused (?!Unavailable|CommitUnknown)/);
    },
  );

  it('each message once over a broker that is killed, and none of those it says were not sent', async () => {
    await createTopic('t-kill');
    const { interlock, producer } = instance('kill', new FixedRules(testRules(1)));
    const sent: string[] = [];
    const unknown: string[] = [];
    let stop = false;
    const worker = async (w: number): Promise<void> => {
      for (let i = 0; !stop; i++) {
        const value = `${w}-${i}`;
        await interlock
          .run(MINE, () => producer.send({ topic: 't-kill', messages: [{ key: String(w), value }] }))
          .then(
            () => sent.push(value),
            (error: unknown) => isInterlockError(error, 'CommitUnknown') && unknown.push(value),
          );
      }
    };
    const workers = Promise.all(Array.from({ length: 4 }, (_, w) => worker(w)));
    await until(() => sent.length > 20, 'messages are sent', 60_000);
    await kafka.kill('SIGKILL');
    await kafka.restart();
    const before = sent.length;
    await until(() => sent.length > before + 20, 'messages are sent again', 60_000);
    stop = true;
    await workers;
    const found = await valuesOf('t-kill');
    expect(new Set(found).size).toBe(found.length);
    expect(sent.filter((value) => !found.includes(value))).toEqual([]);
    expect(found.filter((value) => !sent.includes(value) && !unknown.includes(value))).toEqual([]);
  });
});
