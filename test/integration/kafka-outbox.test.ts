import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { ResultSetHeader, RowDataPacket } from 'mysql2';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { LinkConfig } from '../../replicators/mysql/link-config.js';
import { initialiseRelay } from '../../replicators/outbox/initialise.js';
import { OutboxRelay } from '../../replicators/outbox/relay.js';
import type { RelayConfig } from '../../replicators/outbox/relay-config.js';
import { FenceStore } from '../../src/fence/fence-store.js';
import { createInterlock, FixedRules, outboxTable } from '../../src/sdk/index.js';
import type { FencedMysql, Interlock, NewEvent, Outbox } from '../../src/sdk/index.js';
import { testRules, userIn } from '../sdk/support.js';
import { readPartition } from '../support/kafka-replication.js';
import type { KafkaSide } from '../support/kafka-replication.js';
import { startTestKafka } from '../support/kafka.js';
import type { TestKafka } from '../support/kafka.js';
import { startProgram } from '../support/programs.js';
import type { Program } from '../support/programs.js';
import {
  linkConfig,
  rows,
  runLink,
  settled,
  startPair,
  unlogged,
  until,
  writeMarker,
} from '../support/replication.js';
import type { Pair, RunningLink, Side } from '../support/replication.js';
import { Kafka, logLevel } from 'kafkajs';

const PARTITIONS = 3;
const USERS = Array.from({ length: 12 }, (_, i) => userIn(100 + i));

let kafka: TestKafka;
let client: Kafka;
let directory: string;
const programs: Program[] = [];
const ending: (() => Promise<unknown>)[] = [];

beforeAll(async () => {
  directory = await mkdtemp(path.join(tmpdir(), 'interlock-outbox-'));
  kafka = await startTestKafka();
  client = new Kafka({ brokers: [kafka.address], logLevel: logLevel.NOTHING });
});
afterEach(async () => {
  await Promise.all(programs.splice(0).map((program) => program.kill('SIGKILL')));
  await Promise.all(ending.splice(0).map((end) => end()));
});
afterAll(async () => {
  await kafka?.stop();
  await rm(directory, { recursive: true, force: true });
});

async function createTopic(topic: string): Promise<void> {
  const admin = client.admin();
  await admin.connect();
  await admin.createTopics({ topics: [{ topic, numPartitions: PARTITIONS }] });
  await admin.disconnect();
}

/** What Kafka has of each key, in the order of its partition. */
async function relayed(topic: string): Promise<Record<string, string[]>> {
  const byKey: Record<string, string[]> = {};
  const partitions = new Map<string, number>();
  for (let partition = 0; partition < PARTITIONS; partition++) {
    for (const { key, value } of await readPartition({ server: kafka } as KafkaSide, topic, partition)) {
      (byKey[key!] ??= []).push(value!);
      expect(partitions.get(key!) ?? partition).toBe(partition);
      partitions.set(key!, partition);
    }
  }
  return byKey;
}

describe.each(['mysql', 'mariadb'] as const)('the outbox on %s', (flavour) => {
  let pair: Pair;
  let a: { interlock: Interlock; store: FencedMysql; outbox: Outbox };
  let b: typeof a;

  beforeAll(async () => {
    pair = await startPair(flavour);
    const side = async (dc: 'dc-a' | 'dc-b', { pool, server }: Side): Promise<typeof a> => {
      const fence = new FenceStore({
        ...{ dc, store: 'main', flavour },
        pool: server.pool({ multipleStatements: true, timezone: 'Z' }),
      });
      await fence.ensureSchema();
      await fence.addMissing(testRules());
      const interlock = createInterlock({ dc, application: 'shop', rules: new FixedRules(testRules()) });
      const outbox = interlock.outbox({ table: 'shop.outbox' });
      return { interlock, store: interlock.mysql(pool), outbox };
    };
    for (const one of [pair.a, pair.b]) {
      await unlogged(one, [
        'CREATE DATABASE shop',
        'CREATE TABLE shop.account (user_id VARCHAR(64) PRIMARY KEY, n INT NOT NULL)',
        outboxTable('shop.outbox'),
        'CREATE TABLE shop.other (id INT AUTO_INCREMENT PRIMARY KEY)',
        `INSERT INTO shop.account VALUES ${USERS.map((user) => `('${user}', 0)`).join(',')}`,
      ]);
    }
    [a, b] = await Promise.all([side('dc-a', pair.a), side('dc-b', pair.b)]);
  });
  afterAll(async () => {
    await pair?.stop();
  });

  const relayConfig = (name: string, dc: 'dc-a' | 'dc-b' = 'dc-a'): RelayConfig => {
    const { server } = dc === 'dc-a' ? pair.a : pair.b;
    const { host, port, user, password } = server;
    return {
      link: `outbox/${name}-${flavour}:${dc}`,
      dc,
      source: { host, port, user, password, flavour },
      target: { brokers: [kafka.address] },
      tables: ['shop.outbox'],
    };
  };
  const runRelay = async (config: RelayConfig): Promise<{ relay: OutboxRelay; markers: string[] }> => {
    const markers: string[] = [];
    const abort = new AbortController();
    const events = {
      onStatus: () => undefined,
      onMarker: ({ markerId }: { markerId: string }) => void markers.push(markerId),
    };
    const relay = new OutboxRelay(config, events, () => undefined);
    const ended = relay.run(abort.signal).catch((error: unknown) => error);
    ending.push(() => (abort.abort(), ended));
    await until(
      () => relay.status().state === 'streaming',
      'the relay streams',
      60_000,
      () => JSON.stringify(relay.status()),
    );
    return { relay, markers };
  };
  const emit = (event: Partial<NewEvent> & { userId: string }, side = a, region = 'cn-east'): Promise<void> =>
    side.store.transaction({ userId: event.userId, region }, (tx) =>
      side.outbox.add(tx, { topic: 't', value: 'v', region, ...event }),
    );
  /** Each user's transactions count up, and some are rolled back. Answers how many of each user committed. */
  const work = async (topic: string, transactions: number): Promise<void> => {
    const worker = async (n: number): Promise<void> => {
      for (let i = n; i < transactions; i += 6) {
        const userId = USERS[(i * 7 + n) % USERS.length]!;
        const undone = i % 9 === 4;
        const done = a.store.transaction({ userId, region: 'cn-east' }, async (tx) => {
          await tx.query<ResultSetHeader>('UPDATE shop.account SET n = n + 1 WHERE user_id = ?', [userId]);
          const [[row]] = await tx.query<RowDataPacket[]>('SELECT n FROM shop.account WHERE user_id = ?', [
            userId,
          ]);
          await a.outbox.add(tx, { topic, value: String(row!['n']), userId, region: 'cn-east' });
          if (undone) throw new Error('undone');
        });
        await done.catch((error: unknown) => {
          if (!undone) throw error;
        });
      }
    };
    await Promise.all(Array.from({ length: 6 }, (_, n) => worker(n)));
  };
  const accounts = async (): Promise<Record<string, string[]>> => {
    const found = await rows(pair.a, 'SELECT user_id, n FROM shop.account WHERE n > 0');
    return Object.fromEntries(
      found.map(({ user_id, n }) => [
        String(user_id),
        Array.from({ length: Number(n) }, (_, i) => String(i + 1)),
      ]),
    );
  };
  const fresh = (): Promise<void> =>
    unlogged(pair.a, ['UPDATE shop.account SET n = 0', 'DELETE FROM shop.outbox']);

  it('relays what committed, in its order, and says when it meets a marker', async () => {
    await fresh();
    const topic = `order-${flavour}`;
    await createTopic(topic);
    const config = relayConfig('order');
    await initialiseRelay(config, { from: 'now' });
    await work(topic, 60);
    const { relay, markers } = await runRelay(config);
    await work(topic, 240);
    const marker = await writeMarker(pair.a);
    await until(
      () => markers.includes(marker),
      'the marker is met',
      60_000,
      () => JSON.stringify(relay.status()),
    );
    expect(await relayed(topic)).toEqual(await accounts());
    expect(relay.status()).toMatchObject({ state: 'streaming', lastMarker: marker });
    await expect(initialiseRelay(config, { from: 'now' })).rejects.toMatchObject({ code: 'Refused' });
  });

  it('carries keys, headers, bytes and tombstones as they were given', async () => {
    await fresh();
    const topic = `bytes-${flavour}`;
    await createTopic(topic);
    const config = relayConfig('bytes');
    await initialiseRelay(config, { from: 'now' });
    const { markers } = await runRelay(config);
    const bytes = Buffer.from(Array.from({ length: 512 }, (_, i) => i % 256));
    const large = Buffer.alloc(900_000, 7);
    const userId = USERS[0]!;
    await emit({ topic, userId, key: bytes, value: bytes, headers: { kind: 'a', raw: bytes } });
    await emit({ topic, userId, key: bytes, value: null });
    await emit({ topic, userId, key: bytes, value: "it's \\ \0 ü" });
    // Larger together than a batch of Kafka, in one transaction.
    await a.store.transaction({ userId, region: 'cn-east' }, async (tx) => {
      for (let i = 0; i < 8; i++) await a.outbox.add(tx, { topic, userId, key: bytes, value: large });
    });
    const marker = await writeMarker(pair.a);
    await until(() => markers.includes(marker), 'the marker is met', 60_000);
    const seen: { key: Buffer; value: Buffer | null; headers: Record<string, Buffer> }[] = [];
    const consumer = client.consumer({ groupId: topic });
    ending.push(() => consumer.disconnect());
    await consumer.subscribe({ topic, fromBeginning: true });
    await consumer.run({
      eachMessage: async ({ message: { key, value, headers } }) =>
        void seen.push({ key: key!, value, headers: headers as Record<string, Buffer> }),
    });
    await until(
      () => seen.length >= 11,
      'all events are there',
      60_000,
      () => String(seen.length),
    );
    expect(seen[0]).toEqual({ key: bytes, value: bytes, headers: { kind: Buffer.from('a'), raw: bytes } });
    expect(seen.slice(1, 3).map(({ value }) => value)).toEqual([null, Buffer.from("it's \\ \0 ü")]);
    expect(seen.slice(3).every(({ value }) => value!.equals(large))).toBe(true);
    expect(seen).toHaveLength(11);
  });

  it('takes a large event behind others, also when its bytes are in its headers', async () => {
    await fresh();
    const topic = `wide-${flavour}`;
    await createTopic(topic);
    const config = relayConfig('wide');
    await initialiseRelay(config, { from: 'now' });
    const { relay, markers } = await runRelay(config);
    const userId = USERS[0]!;
    await a.store.transaction({ userId, region: 'cn-east' }, async (tx) => {
      await a.outbox.add(tx, { topic, userId, value: 'a'.repeat(500_000) });
      const headers = { raw: Buffer.alloc(700_000, 7) };
      await a.outbox.add(tx, { topic, userId, value: 'b', headers });
      await a.outbox.add(tx, { topic, userId, value: 'c' });
    });
    const marker = await writeMarker(pair.a);
    await until(
      () => markers.includes(marker) || relay.status().state === 'failed',
      'the marker is met',
      60_000,
      () => JSON.stringify(relay.status()),
    );
    expect(relay.status()).toMatchObject({ state: 'streaming', lastError: null });
    expect((await relayed(topic))[userId]?.map((value) => value[0])).toEqual(['a', 'b', 'c']);
  });

  it('drops what the other data center wrote: its own relay has it', async () => {
    await fresh();
    const topic = `both-${flavour}`;
    await createTopic(topic);
    const tables: LinkConfig['tables'] = {
      'shop.outbox': { userId: 'user_id', region: 'region' },
      'shop.account': { unrouted: true },
      'shop.other': { unrouted: true },
    };
    const mapping = { defaultRegion: 'cn-east', regions: ['cn-east', 'cn-west'], segments: {} };
    const links: RunningLink[] = [];
    for (const from of ['a', 'b'] as const) {
      const config = linkConfig(pair, from, 'shop', tables, { mapping });
      links.push(await runLink(config));
    }
    ending.push(() => Promise.all(links.map((link) => link.stop())));
    const configs = [relayConfig('both'), relayConfig('both', 'dc-b')];
    const markers: string[][] = [];
    for (const config of configs) {
      await initialiseRelay(config, { from: 'now' });
      markers.push((await runRelay(config)).markers);
    }
    const users = Array.from({ length: 6 }, (_, i) => userIn(i));
    for (const userId of users) {
      await emit({ topic, userId, key: `${userId}-a`, value: 'a' });
      await emit({ topic, userId, key: `${userId}-b`, value: 'b' }, b, 'cn-west');
    }
    await settled(links[0]!, pair.a);
    await settled(links[1]!, pair.b);
    expect(await rows(pair.a, 'SELECT COUNT(*) AS n FROM shop.outbox')).toEqual([{ n: '12' }]);
    expect(await rows(pair.b, 'SELECT COUNT(*) AS n FROM shop.outbox')).toEqual([{ n: '12' }]);
    const marked = [await writeMarker(pair.a), await writeMarker(pair.b)];
    await until(
      () => marked.every((id, i) => markers[i]!.includes(id)),
      'both relays meet their markers',
      60_000,
    );
    const expected = users.flatMap((user) => [
      [`${user}-a`, ['a']],
      [`${user}-b`, ['b']],
    ]);
    expect(await relayed(topic)).toEqual(Object.fromEntries(expected));
    // Deletions are not relayed, and each data center deletes its own.
    expect(await a.outbox.clean(a.store, { olderThanMs: 0, limit: 4 })).toBe(4);
    expect(await a.outbox.clean(a.store, { olderThanMs: 0 })).toBe(2);
    expect(await b.outbox.clean(b.store, { olderThanMs: 3_600_000 })).toBe(0);
    await settled(links[0]!, pair.a);
    const left = 'SELECT DISTINCT region FROM shop.outbox';
    expect(await rows(pair.a, left)).toEqual([{ region: 'cn-west' }]);
    expect(await rows(pair.b, left)).toEqual([{ region: 'cn-west' }]);
    expect(await relayed(topic)).toEqual(Object.fromEntries(expected));
  });

  it('refuses what would stop the relay or pass a fence, before anything is sent', async () => {
    await fresh();
    const userId = USERS[0]!;
    const refused = { code: 'BadInput' };
    const other = userIn(500);
    await expect(
      a.store.transaction({ userId, region: 'cn-east' }, (tx) =>
        a.outbox.add(tx, { topic: 't', value: 'v', userId: other, region: 'cn-east' }),
      ),
    ).rejects.toMatchObject({ ...refused, details: { field: 'userId' } });
    await expect(emit({ userId, value: Buffer.alloc(1_000_000) })).rejects.toMatchObject(refused);
    await expect(emit({ userId, topic: 'no topic' })).rejects.toMatchObject(refused);
    await expect(emit({ userId, key: 'k'.repeat(1025) })).rejects.toMatchObject(refused);
    expect(() => a.interlock.outbox({ table: 'outbox' })).toThrow('expected schema.table');
    expect(await rows(pair.a, 'SELECT COUNT(*) AS n FROM shop.outbox')).toEqual([{ n: '0' }]);
  });

  describe.runIf(flavour === 'mysql')('each event once, over', () => {
    const start = async (config: RelayConfig, stopAt = ''): Promise<Program> => {
      const file = path.join(directory, `${config.link.replaceAll(/\W/g, '-')}.json`);
      await writeFile(file, JSON.stringify(config));
      const program = startProgram('test/support/outbox-process.js', [file], {
        INTERLOCK_LINK_STOP_AT: stopAt,
      });
      programs.push(program);
      return program;
    };

    it.each([
      'before-read:1',
      'after-read:1',
      'before-target-commit:2',
      'after-target-commit:2',
      'before-acknowledge:1',
    ])('kill -9 at %s', async (point) => {
      await fresh();
      const topic = `kill-${point.replace(':', '-')}`;
      await createTopic(topic);
      const config = relayConfig(topic);
      await initialiseRelay(config, { from: 'now' });
      await work(topic, 30);
      const early = await writeMarker(pair.a);
      const first = await start(config, point);
      await first.prints(`stopped at ${point.split(':')[0]}`);
      await work(topic, 30);
      await first.kill('SIGKILL');
      const second = await start(config);
      // Said again, when nobody can know whether it was heard.
      await second.prints(`marker ${early}`);
      await work(topic, 30);
      const marker = await writeMarker(pair.a);
      await second.prints(`marker ${marker}`);
      expect(await relayed(topic)).toEqual(await accounts());
    });

    it('a second relay that takes over, and the first one that wakes up', async () => {
      await fresh();
      const topic = 'zombie';
      await createTopic(topic);
      const config = relayConfig(topic);
      await initialiseRelay(config, { from: 'now' });
      const goOn = path.join(directory, 'zombie.go');
      const first = await start(config, `before-target-commit:2:${goOn}`);
      await first.prints('state streaming');
      await work(topic, 30);
      await first.prints('stopped at before-target-commit');
      const second = await start(config);
      await second.prints('state streaming');
      await work(topic, 30);
      await writeFile(goOn, '');
      // It takes nothing back: the two would end each other for ever.
      await first.prints('ended HeldByOther final');
      const marker = await writeMarker(pair.a);
      await second.prints(`marker ${marker}`);
      expect(await relayed(topic)).toEqual(await accounts());
    });

    it('kill -9 of the broker and of the store', async () => {
      await fresh();
      const topic = 'servers';
      await createTopic(topic);
      const config = relayConfig(topic);
      await initialiseRelay(config, { from: 'now' });
      const { markers } = await runRelay(config);
      await work(topic, 30);
      await kafka.kill('SIGKILL');
      await work(topic, 30);
      await kafka.restart();
      await work(topic, 30);
      await pair.a.server.kill('SIGKILL');
      await pair.a.server.restart();
      await work(topic, 30);
      const marker = await writeMarker(pair.a);
      await until(() => markers.includes(marker), 'the marker is met', 120_000);
      expect(await relayed(topic)).toEqual(await accounts());
    });
  });
});
