import { existsSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import mysql from 'mysql2/promise';
import type { Connection, RowDataPacket } from 'mysql2/promise';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { createInterlock, isInterlockError } from '../../src/sdk/index.js';
import type { FencedProducer, Interlock } from '../../src/sdk/index.js';
import type { SwitchReport, SwitchStatus } from '../../workflows/contract.js';
import { userIn } from '../sdk/support.js';
import { startKafkaLab } from '../support/kafka-lab.js';
import type { KafkaLab } from '../support/kafka-lab.js';
import { readPartition } from '../support/kafka-replication.js';
import type { KafkaSide } from '../support/kafka-replication.js';
import { startProgram } from '../support/programs.js';
import type { Program } from '../support/programs.js';
import { until } from '../support/replication.js';

const UNIT = 'cn-east/1';
const USER = userIn(1);
const routingKey = () => ({ userId: USER, region: 'cn-east' });
const MOVE = ['--scope', 'cn-east/0-9', '--from', 'dc-a', '--to', 'dc-b', '--reason', 'test'];
const POINT = 'before-writeDisable';

/** A switchover of a lab with Kafka: its links are part of the baseline, and its producers are fenced. */
let rig: KafkaLab;
let stops: string;
let target: Connection;
let asleep: Program;
const instances: { interlock: Interlock; producer: FencedProducer }[] = [];
/** Acknowledged by the producers of the SDK, by DC. */
const acknowledged: Record<'a' | 'b', string[]> = { a: [], b: [] };

beforeAll(async () => {
  stops = await mkdtemp(path.join(tmpdir(), 'interlock-stops-'));
  process.env['INTERLOCK_STOP_DIR'] = stops;
  rig = await startKafkaLab(0);
  const { lab, kafka } = rig;
  for (const dc of ['a', 'b'] as const) {
    const admin = kafka[dc].admin();
    await admin.connect();
    await admin.createTopics({ topics: ['events', 'history'].map((topic) => ({ topic, numPartitions: 1 })) });
    await admin.disconnect();
    if (dc === 'a') await sendHistory('before the links');
    const interlock = createInterlock({
      ...{ dc: `dc-${dc}`, application: 'shop', instance: `awake-${dc}` },
      ruleCenter: `http://127.0.0.1:${lab.ports[`dc-${dc}.rule-center`]}`,
    });
    await interlock.ready();
    instances.push({ interlock, producer: interlock.kafka(kafka[dc]).producer({ routingKey }) });
  }
  const { code, stderr } = await rig.cli('replicate', 'start', '--all', '--from', 'now');
  expect(code, stderr).toBe(0);
  target = await mysql.createConnection({
    ...{ host: '127.0.0.1', port: lab.ports['dc-b.mysql.main']!, user: 'interlock' },
    password: lab.env['INTERLOCK_LAB_MYSQL_PASSWORD']!,
  });
  asleep = startProgram('test/support/producer-process.js', [
    ...[`127.0.0.1:${lab.ports['dc-a.kafka.events']}`, 'asleep', 'events', USER],
  ]);
  await asleep.prints('sent 1;');
  asleep.child.kill('SIGSTOP');
});
afterAll(async () => {
  delete process.env['INTERLOCK_STOP_DIR'];
  await asleep?.kill('SIGKILL');
  await Promise.allSettled(instances.map(({ producer }) => producer.disconnect()));
  await Promise.allSettled(instances.map(({ interlock }) => interlock.close()));
  await target?.end();
  await rig?.stop();
  await rm(stops, { recursive: true, force: true });
});

/** Sends one after the other until it is refused. @returns the refusal's code */
async function sendUntilRefused(dc: 'a' | 'b'): Promise<string> {
  const { producer } = instances[dc === 'a' ? 0 : 1]!;
  for (;;) {
    const value = `${dc}${acknowledged[dc].length}`;
    try {
      await producer.send({ topic: 'events', messages: [{ key: USER, value }] });
      acknowledged[dc].push(value);
      await new Promise((resolve) => setTimeout(resolve, 5));
    } catch (error) {
      if (isInterlockError(error) && ['WriteDisabled', 'NotOwner'].includes(error.code)) return error.code;
      throw error;
    }
  }
}

const values = async (dc: 'a' | 'b', topic: string): Promise<string[]> => {
  const address = `127.0.0.1:${rig.lab.ports[`dc-${dc}.kafka.events`]}`;
  const records = await readPartition({ server: { address } } as KafkaSide, topic);
  return records.map(({ value }) => value!);
};
const stateAtTarget = async (): Promise<string> => {
  const [rows] = await target.query<RowDataPacket[]>(
    'SELECT state, owner FROM interlock.unit_state WHERE unit = ?',
    [UNIT],
  );
  return `${rows[0]!['state']} of ${rows[0]!['owner']}`;
};

async function sendHistory(value: string): Promise<void> {
  const producer = rig.kafka.a.producer();
  await producer.connect();
  await producer.send({ topic: 'history', messages: [{ key: USER, value }] });
  await producer.disconnect();
}

/** Stops the switchover before its fence, leaves a transaction of a producer that nobody fences open, and lets it go on. */
async function switchWithOpenTransaction(drainTimeout: string) {
  await writeFile(path.join(stops, POINT), '');
  const switching = rig.cli<SwitchStatus>(
    ...['switch', 'start', ...MOVE, '--soak', '10m', '--drain-timeout', drainTimeout],
  );
  await Promise.race([
    until(() => existsSync(path.join(stops, `${POINT}.reached`)), 'the fence is next', 120_000),
    switching.then(({ json }) => {
      throw new Error(`it ended before its fence: ${JSON.stringify(json)}`);
    }),
  ]);
  const producer = rig.kafka.a.producer({
    transactionalId: 'legacy',
    maxInFlightRequests: 1,
    transactionTimeout: 600_000,
  });
  await producer.connect();
  const transaction = await producer.transaction();
  await transaction.send({ topic: 'events', messages: [{ key: USER, value: 'legacy' }] });
  await rm(path.join(stops, POINT));
  await rm(path.join(stops, `${POINT}.reached`));
  return { switching, transaction, producer };
}

test('a group that has not handled what the links have no copy of is named before anything is fenced', async () => {
  const seen: string[] = [];
  const warnings: string[] = [];
  let down = true;
  const admin = rig.kafka.a.admin();
  await admin.connect();
  await until(async () => (await admin.listTopics()).includes('dc-b.history'), 'the copy is there', 60_000);
  await admin.disconnect();
  const consumer = instances[0]!.interlock.kafka(rig.kafka.a).consumer({
    ...{ groupId: 'late', topics: ['history'], peer: 'dc-b', routingKey },
    handler: async ({ value }) => {
      if (down) throw new Error('down');
      seen.push(value!.toString());
    },
    onWarning: (message) => warnings.push(message),
  });
  await consumer.start();
  try {
    await until(() => warnings.some((text) => text.endsWith('down')), 'its handler fails', 60_000);
    const { code, json } = await rig.cli<SwitchStatus>('switch', 'start', ...MOVE);
    expect([code, json.outcome], json.summary).toEqual([1, 'refused']);
    expect(json.summary).toMatch(
      /dc-a kafka\/events: what its groups have left: group late has not handled history-0 from 0 up to 1, .*Wait until/,
    );
    down = false;
    await until(() => seen.includes('before the links'), 'it is handled', 60_000);
  } finally {
    await consumer.stop();
  }
});

test('what is not decided at the source does not drain: the switchover gives up, and leaves nothing behind', async () => {
  const { switching, transaction, producer } = await switchWithOpenTransaction('1s');
  const { code, json } = await switching;
  expect(code).toBe(1);
  expect(json.outcome).toBe('compensated');
  expect(json.summary).toMatch(/kafka\/events:dc-a>dc-b.* did not reach the baseline/);
  expect(await stateAtTarget()).toBe('remote of dc-a');
  await transaction.abort();
  await producer.disconnect();
  // The producer that was fenced with the others takes its id again: its unit is open.
  const before = acknowledged.a.length;
  void sendUntilRefused('a').catch(() => undefined);
  await until(() => acknowledged.a.length > before + 5, 'the producer goes on', 120_000);
});

test('every record that was acknowledged before the fence is at the target before it opens; no producer writes behind it', async () => {
  const { switching, transaction, producer } = await switchWithOpenTransaction('5m');
  const status = async (): Promise<SwitchStatus> => (await rig.cli<SwitchStatus>('switch', 'status')).json;
  await until(async () => (await status()).step === 'drain', 'it drains', 120_000);
  expect(await stateAtTarget()).toBe('remote of dc-a');
  const before = [...acknowledged.a];
  await transaction.commit();
  await producer.disconnect();
  await until(async () => (await stateAtTarget()) === 'open of dc-b', 'the target opens', 120_000);
  const copied = await values('b', 'dc-a.events');
  expect(copied).toContain('legacy');
  expect(copied.filter((value) => value.startsWith('a'))).toEqual(
    expect.arrayContaining(acknowledged.a.slice(0, before.length)),
  );
  expect(acknowledged.a).toEqual(before);
  const { code, json } = await switching;
  expect([code, json.outcome]).toEqual([0, 'running']);
  const { json: report } = await rig.cli<SwitchReport>('switch', 'report');
  const { baselines } = report.flows[0]!;
  expect(baselines.map(({ link, drainMs }) => [link, drainMs !== null])).toEqual([
    ['mysql/main:dc-a>dc-b', true],
    ['kafka/events:dc-a>dc-b', true],
  ]);
  expect(baselines[1]!.position).toMatch(/^interlock\.markers-0:\d+$/);

  const atSource = await values('a', 'events');
  asleep.child.kill('SIGCONT');
  await asleep.prints('refused');
  await expect(sendUntilRefused('a')).resolves.toBe('NotOwner');
  expect(await values('a', 'events')).toEqual(atSource);
});

test('rolls back with the records of the new owner', async () => {
  const sending = sendUntilRefused('b');
  await until(() => acknowledged.b.length > 20, 'the new owner writes', 120_000);
  const { code, json } = await rig.cli<SwitchStatus>('switch', 'rollback');
  expect([code, json.outcome]).toEqual([0, 'rolled-back']);
  await expect(sending).resolves.toMatch(/WriteDisabled|NotOwner/);
  expect(await values('a', 'dc-b.events')).toEqual(acknowledged.b);
  expect(await stateAtTarget()).toBe('remote of dc-a');
});
