import { existsSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import mysql from 'mysql2/promise';
import type { Pool } from 'mysql2/promise';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { CONSUMERS, CONSUMERS_PARTITIONS } from '../../src/kafka/consumer-records.js';
import { createInterlock, isInterlockError, outboxTable } from '../../src/sdk/index.js';
import type { FencedConsumer, FencedMysql, Interlock, Outbox } from '../../src/sdk/index.js';
import type { SwitchStatus } from '../../workflows/contract.js';
import type { LinkReport } from '../../workers/link-report.js';
import { userIn } from '../sdk/support.js';
import { startKafkaLab } from '../support/kafka-lab.js';
import type { KafkaLab } from '../support/kafka-lab.js';
import { readPartition } from '../support/kafka-replication.js';
import type { KafkaSide } from '../support/kafka-replication.js';
import { until } from '../support/replication.js';

const DCS = ['a', 'b'] as const;
type Dc = (typeof DCS)[number];
/** The first two of them move. */
const USERS = [userIn(1), userIn(2), userIn(500)];
const MOVE = [
  '--scope',
  'cn-east/0-9',
  '--from',
  'dc-a',
  '--to',
  'dc-b',
  '--reason',
  'test',
  '--soak',
  '10m',
];
const POINT = 'before-writeDisable';

interface Application {
  interlock: Interlock;
  pool: Pool;
  store: FencedMysql;
  outbox: Outbox;
  consumer: FencedConsumer;
}
interface Handled {
  at: Dc;
  user: string;
  n: number;
  redelivered: boolean;
}

/** A switchover of a lab whose applications write events by an outbox, and handle them by the SDK's consumers. */
let rig: KafkaLab;
let stops: string;
const applications = {} as Record<Dc, Application>;
const handled: Handled[] = [];
/** Events that were written, by user: numbered from 1. */
const written = new Map<string, number>();

beforeAll(async () => {
  stops = await mkdtemp(path.join(tmpdir(), 'interlock-stops-'));
  process.env['INTERLOCK_STOP_DIR'] = stops;
  rig = await startKafkaLab(0, {
    schemas: ['shop'],
    ddl: [outboxTable('shop.outbox').replace('CREATE TABLE', 'CREATE TABLE IF NOT EXISTS')],
    tables: { 'shop.outbox': { userId: 'user_id', region: 'region' } },
    topics: { orders: 2 },
    outboxes: ['shop.outbox'],
  });
  const { code, stderr } = await rig.cli('replicate', 'start', '--all', '--from', 'now');
  expect(code, stderr).toBe(0);
  for (const dc of DCS) applications[dc] = await application(dc);
});
const loads: { end: () => Promise<void> }[] = [];
afterAll(async () => {
  await Promise.allSettled(loads.map((load) => load.end()));
  delete process.env['INTERLOCK_STOP_DIR'];
  await Promise.allSettled(
    Object.values(applications).map(async ({ consumer, interlock, pool }) => {
      await consumer.stop();
      await interlock.close();
      await pool.end();
    }),
  );
  await rig?.stop();
  await rm(stops, { recursive: true, force: true });
});

async function application(dc: Dc): Promise<Application> {
  const { lab, kafka } = rig;
  const peer = dc === 'a' ? 'dc-b' : 'dc-a';
  const interlock = createInterlock({
    ...{ dc: `dc-${dc}`, application: 'shop', instance: `shop-${dc}` },
    ruleCenter: `http://127.0.0.1:${lab.ports[`dc-${dc}.rule-center`]}`,
  });
  await interlock.ready();
  const pool = mysql.createPool({
    ...{ host: '127.0.0.1', port: lab.ports[`dc-${dc}.mysql.main`]!, user: 'app', flags: ['-FOUND_ROWS'] },
    password: lab.env['INTERLOCK_LAB_MYSQL_APP_PASSWORD']!,
  });
  const admin = kafka[dc].admin();
  await admin.connect();
  await until(async () => (await admin.listTopics()).includes(`${peer}.orders`), 'the copy is there', 60_000);
  await admin.disconnect();
  const consumer = interlock.kafka(kafka[dc]).consumer({
    ...{ groupId: 'projection', topics: ['orders'], peer },
    routingKey: ({ key }) => ({ userId: key!.toString(), region: 'cn-east' }),
    handler: async ({ key, value, redelivered }) => {
      await new Promise((resolve) => setTimeout(resolve, 2));
      handled.push({ at: dc, user: key!.toString(), n: Number(value!.toString()), redelivered });
    },
  });
  await consumer.start();
  const store = interlock.mysql(pool);
  return { interlock, pool, store, outbox: interlock.outbox({ table: 'shop.outbox' }), consumer };
}

async function write(dc: Dc, user: string, topic = 'orders'): Promise<void> {
  const { store, outbox } = applications[dc];
  const key = { userId: user, region: 'cn-east' };
  const n = (written.get(user) ?? 0) + 1;
  await store.transaction(key, (tx) => outbox.add(tx, { topic, ...key, value: String(n) }));
  if (topic === 'orders') written.set(user, n);
}

/** Writes of every user where it is owned, until it is ended. */
function writing(): { end: () => Promise<void> } {
  let ended = false;
  const loops = USERS.map(async (user) => {
    let dc: Dc = 'a';
    while (!ended) {
      try {
        await write(dc, user);
        // Fewer than what is handled.
        await new Promise((resolve) => setTimeout(resolve, 30));
      } catch (error) {
        if (!isInterlockError(error) || !['WriteDisabled', 'NotOwner'].includes(error.code)) throw error;
        dc = dc === 'a' ? 'b' : 'a';
        await new Promise((resolve) => setTimeout(resolve, 2));
      }
    }
  });
  const load = {
    end: async () => {
      ended = true;
      await Promise.all(loops);
    },
  };
  loads.push(load);
  return load;
}

/** Every event that was written is handled, in order; again only where it is marked. */
async function allHandled(): Promise<void> {
  const distinct = (): number => new Set(handled.map(({ user, n }) => `${user} ${n}`)).size;
  const total = [...written.values()].reduce((sum, n) => sum + n, 0);
  await until(() => distinct() >= total, `${total} events are handled`, 120_000);
  for (const user of USERS) {
    let last = 0;
    for (const { n, redelivered, at } of handled.filter((one) => one.user === user)) {
      const fits = n === last + 1 || (n <= last && redelivered);
      expect(fits, `${user}: ${n} at dc-${at} behind ${last}, redelivered: ${redelivered}`).toBe(true);
      last = Math.max(last, n);
    }
    expect(last).toBe(written.get(user));
  }
}

/** For a failure: what was written and handled last. */
const seen = (): string =>
  JSON.stringify(
    USERS.map((user) => {
      const last = handled.findLast((one) => one.user === user);
      return { user, written: written.get(user), handled: last?.n, at: last?.at };
    }),
  );

/** A topic that the links carry and that nobody consumes, if it is not there. */
async function createLate(): Promise<void> {
  const admin = rig.kafka.a.admin();
  await admin.connect();
  await admin.createTopics({ topics: [{ topic: 'late', numPartitions: 1 }] });
  await admin.disconnect();
}

/** Records of hand-overs to a data center. */
async function handOvers(dc: Dc): Promise<number> {
  const server = { address: `127.0.0.1:${rig.lab.ports[`dc-${dc}.kafka.events`]}` };
  const partitions = Array.from({ length: CONSUMERS_PARTITIONS }, (_, partition) =>
    readPartition({ server } as KafkaSide, CONSUMERS, partition),
  );
  return (await Promise.all(partitions)).flat().filter(({ key }) => key?.startsWith('["hand-over"')).length;
}

const handledBy = (user: string): Set<Dc> =>
  new Set(handled.filter((one) => one.user === user).map(({ at }) => at));

test('the relays are links with a status, and are checked before a switchover', async () => {
  const { json } = await rig.cli<{ links: LinkReport[] }>('replicate', 'status');
  const relays = json.links.filter(({ link }) => link.startsWith('outbox/'));
  expect(relays.map(({ link, status }) => [link, status?.state])).toEqual([
    ['outbox/main:dc-a', 'streaming'],
    ['outbox/main:dc-b', 'streaming'],
  ]);
  await rig.cli('replicate', 'pause', 'outbox/main:dc-b');
  const plan = await rig.cli<SwitchStatus>('switch', 'start', ...MOVE);
  expect([plan.code, plan.json.outcome]).toEqual([1, 'refused']);
  expect(plan.json.summary).toMatch(/outbox\/main:dc-b.*interlock replicate start/);
  const { code, stderr } = await rig.cli('replicate', 'resume', 'outbox/main:dc-b');
  expect(code, stderr).toBe(0);
});

test('a relay that does not get through opens the source again, and its events are lost to nobody', async () => {
  await writeFile(path.join(stops, POINT), '');
  const load = writing();
  const switching = rig.cli<SwitchStatus>('switch', 'start', ...MOVE);
  await until(() => existsSync(path.join(stops, `${POINT}.reached`)), 'the fence is next', 60_000);
  await write('a', USERS[2]!, 'late');
  await rm(path.join(stops, POINT));
  await rm(path.join(stops, `${POINT}.reached`));
  const { code, json } = await switching;
  expect([code, json.outcome]).toEqual([1, 'compensated']);
  expect(json.summary).toMatch(/outbox\/main:dc-a did not relay what was written before the fence/);
  await createLate();
  await until(() => handled.length > 20, 'the relay goes on', 60_000);
  await load.end();
  await allHandled();
  expect(handledBy(USERS[0]!)).toEqual(new Set(['a']));
});

test('an operator aborts between hand-over and switch: the old owner goes on with all of it', async () => {
  await createLate();
  const producer = rig.kafka.a.producer({
    ...{ transactionalId: 'legacy', maxInFlightRequests: 1, transactionTimeout: 600_000 },
  });
  await producer.connect();
  await writeFile(path.join(stops, POINT), '');
  const load = writing();
  const switching = rig.cli<SwitchStatus>('switch', 'start', ...MOVE, '--drain-timeout', '5m');
  const ended = switching.then(({ json }) => {
    throw new Error(`it ended before: ${JSON.stringify(json)}`);
  });
  const reached = until(() => existsSync(path.join(stops, `${POINT}.reached`)), 'the fence is next', 60_000);
  await Promise.race([reached, ended]);
  // A link does not pass what is not decided.
  const transaction = await producer.transaction();
  await transaction.send({ topic: 'late', messages: [{ key: USERS[2]!, value: 'open' }] });
  await rm(path.join(stops, POINT));
  await rm(path.join(stops, `${POINT}.reached`));
  const step = async (): Promise<unknown> => (await rig.cli<SwitchStatus>('switch', 'status')).json.step;
  await Promise.race([until(async () => (await step()) === 'drain', 'it drains', 120_000), ended]);
  expect(await handOvers('b')).toBeGreaterThan(0);
  ended.catch(() => undefined);
  const aborted = await rig.cli<SwitchStatus>('switch', 'abort');
  expect([aborted.code, aborted.json.outcome], aborted.stderr).toEqual([0, 'aborted']);
  expect((await switching).json.outcome).toBe('aborted');
  await transaction.abort();
  await producer.disconnect();
  const here = written.get(USERS[0]!)! + 20;
  await until(
    () => handled.some(({ user, n }) => user === USERS[0] && n > here),
    `a handles what is behind ${here} of the first user`,
    120_000,
    seen,
  );
  await load.end();
  await allHandled();
  expect(handledBy(USERS[0]!)).toEqual(new Set(['a']));
}, 400_000);

test('the new owner handles what the old one left, then what is new; the rollback goes the same way', async () => {
  const load = writing();
  const before = handled.length;
  await until(() => handled.length > before + 100, 'it is under load', 150_000, seen);
  const moved = await rig.cli<SwitchStatus>('switch', 'start', ...MOVE);
  expect([moved.code, moved.json.outcome], moved.json.summary).toEqual([0, 'running']);
  const here = written.get(USERS[0]!)! + 20;
  await until(
    () => handled.some(({ user, n, at }) => user === USERS[0] && n > here && at === 'b'),
    `b handles what is behind ${here} of the first user`,
    150_000,
    seen,
  );
  const back = await rig.cli<SwitchStatus>('switch', 'rollback');
  expect([back.code, back.json.outcome], back.json.summary).toEqual([0, 'rolled-back']);
  const again = written.get(USERS[0]!)! + 20;
  await until(
    () => handled.some(({ user, n, at }) => user === USERS[0] && n > again && at === 'a'),
    `a handles what is behind ${again} of the first user`,
    150_000,
    seen,
  );
  await load.end();
  await allHandled();
  expect(handledBy(USERS[0]!)).toEqual(new Set(['a', 'b']));
  expect(handledBy(USERS[2]!)).toEqual(new Set(['a']));
}, 600_000);
