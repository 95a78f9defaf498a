import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Redis } from 'ioredis';
import mysql from 'mysql2/promise';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { labDown, labUp } from '../../infra/lab/lab.js';
import type { LabInfo } from '../../infra/lab/lab.js';
import { NO_WORKLOAD } from '../../infra/lab/options.js';
import type { LabShape } from '../../infra/lab/options.js';
import { loadTopology } from '../../src/topology/load.js';

const WORKLOAD = {
  ...NO_WORKLOAD,
  schemas: ['shop'],
  ddl: ['CREATE TABLE IF NOT EXISTS shop.item (id BIGINT AUTO_INCREMENT PRIMARY KEY, n INT) ENGINE=InnoDB'],
};

const SHAPES: LabShape[] = [
  { mysql: 'mysql', stores: 1, kafka: 0, redis: 1, gatewaysPerDc: 1, rttMs: 0 },
  { mysql: 'mariadb', stores: 2, kafka: 0, redis: 0, gatewaysPerDc: 2, rttMs: 20 },
];

describe.each(SHAPES)('a lab of $mysql, $stores stores, $gatewaysPerDc gateways, $rttMs ms', (shape) => {
  const directory = path.join(mkdtempSync(path.join(tmpdir(), 'interlock-lab-')), 'lab');
  let lab: LabInfo;

  beforeAll(async () => {
    lab = await labUp({ directory, shape, workload: WORKLOAD });
  });
  afterAll(async () => {
    await labDown({ directory, wipe: true });
    rmSync(path.dirname(directory), { recursive: true, force: true });
  });

  async function as(user: 'interlock' | 'app', dc = 'dc-a', store = 'main'): Promise<mysql.Connection> {
    const name = user === 'app' ? 'INTERLOCK_LAB_MYSQL_APP_PASSWORD' : 'INTERLOCK_LAB_MYSQL_PASSWORD';
    const port = lab.ports[`${dc}.mysql.${store}`]!;
    return mysql.createConnection({ host: '127.0.0.1', port, user, password: lab.env[name]! });
  }

  test('has the parts that were asked for, all with rules', async () => {
    const kinds = (kind: string): number => lab.parts.filter((part) => part.kind === kind).length;
    expect(kinds(shape.mysql)).toBe(2 * shape.stores);
    expect(kinds('redis')).toBe(2 * shape.redis);
    expect(kinds('gateway')).toBe(2 * shape.gatewaysPerDc);
    expect(kinds('wan')).toBe(shape.rttMs > 0 ? 1 : 0);
    expect(lab.parts.filter((part) => part.status !== 'running')).toEqual([]);
    for (const dc of ['dc-a', 'dc-b']) {
      const response = await fetch(`http://127.0.0.1:${lab.ports[`${dc}.rule-center`]}/v1/gateways`);
      const text = await response.text();
      expect(text.match(/"epoch":1\b/g), text).toHaveLength(shape.gatewaysPerDc);
    }
  });

  test('a DC sees the other over the wide area, itself and the operator see everything directly', async () => {
    const direct = (await loadTopology(lab.topology)).topology;
    const seen = (await loadTopology(lab.topologies['dc-b']!)).topology;
    expect(seen.datacenters['dc-b']).toEqual(direct.datacenters['dc-b']);
    const far = seen.datacenters['dc-a']!;
    const near = direct.datacenters['dc-a']!;
    const pairs: [unknown, unknown][] = [
      [seen.temporal.address, direct.temporal.address],
      [far.ruleCenter.url, near.ruleCenter.url],
      ...Object.keys(near.gateways).map((name): [unknown, unknown] => [
        far.gateways[name]!.url,
        near.gateways[name]!.url,
      ]),
      ...Object.keys(near.stores.mysql).map((name): [unknown, unknown] => [
        far.stores.mysql[name]!.port,
        near.stores.mysql[name]!.port,
      ]),
    ];
    for (const [there, here] of pairs) {
      if (shape.rttMs > 0) expect(there).not.toEqual(here);
      else expect(there).toEqual(here);
    }
    if (shape.rttMs > 0) {
      const begin = performance.now();
      await (await fetch(`${far.ruleCenter.url}/v1/health`)).text();
      expect(performance.now() - begin).toBeGreaterThanOrEqual(2 * shape.rttMs - 2);
    }
  });

  test('auto-increment keys of the two DCs cannot collide', async () => {
    const keys: number[][] = [];
    for (const dc of ['dc-a', 'dc-b']) {
      const connection = await as('app', dc);
      const own: number[] = [];
      for (let i = 0; i < 3; i += 1) {
        const [result] = await connection.query<mysql.ResultSetHeader>(
          'INSERT INTO shop.item (n) VALUES (1)',
        );
        own.push(result.insertId);
      }
      keys.push(own);
      await connection.end();
    }
    expect(keys[0]!.filter((key) => keys[1]!.includes(key))).toEqual([]);
  });

  test('an application may check the fence, and no more of Interlock’s', async () => {
    const app = await as('app');
    const lock = shape.mysql === 'mysql' ? 'FOR SHARE NOWAIT' : 'LOCK IN SHARE MODE NOWAIT';
    await app.query('START TRANSACTION');
    const [rows] = await app.query<mysql.RowDataPacket[]>(
      `SELECT state, owner FROM interlock.unit_state WHERE unit = 'cn-east/0' ${lock}`,
    );
    expect(rows).toEqual([{ state: 'open', owner: 'dc-a' }]);
    await app.query('ROLLBACK');
    for (const statement of [
      `UPDATE interlock.unit_state SET state = 'open'`,
      'SELECT * FROM interlock.rules',
      `INSERT INTO interlock.marker VALUES ('x', 'w', 'r', 1, NOW(6))`,
      'DROP TABLE shop.item',
      'SET GLOBAL read_only = 1',
      'CREATE DATABASE other',
    ]) {
      await expect(app.query(statement), statement).rejects.toMatchObject({
        errno: expect.any(Number) as number,
      });
    }
    await app.end();
  });

  test.skipIf(shape.redis === 0)(
    'Redis: Interlock does all, an application its own keys, and nobody else anything',
    async () => {
      const port = lab.ports['dc-a.redis.cache']!;
      const client = (username: string, variable: string): Redis =>
        new Redis({ port, username, password: lab.env[variable]! });
      const own = client('interlock', 'INTERLOCK_LAB_REDIS_PASSWORD');
      const app = client('app', 'INTERLOCK_LAB_REDIS_APP_PASSWORD');
      const nobody = new Redis({ port });
      nobody.on('error', () => undefined);
      try {
        await own.hset('interlock:units', 'cn-east/0', 'x');
        expect(await app.hget('interlock:units', 'cn-east/0')).toBe('x');
        expect(await app.set('app:1', 'v')).toBe('OK');
        await expect(nobody.get('app:1')).rejects.toThrow(/NOAUTH/);
        await expect(app.hset('interlock:units', 'cn-east/0', 'y')).rejects.toThrow(/NOPERM/);
        await expect(app.set('other', 'v')).rejects.toThrow(/NOPERM/);
        await expect(app.flushall()).rejects.toThrow(/NOPERM/);
        await expect(app.config('GET', 'maxmemory-policy')).rejects.toThrow(/NOPERM/);
        expect(await own.config('GET', 'maxmemory-policy')).toEqual(['maxmemory-policy', 'noeviction']);
        await own.del('interlock:units', 'app:1');
      } finally {
        for (const one of [own, app, nobody]) one.disconnect();
      }
    },
  );

  test('Interlock’s account has what a fence, a link and a preflight need', async () => {
    const own = await as('interlock');
    const app = await as('app');
    try {
      await own.query('SET GLOBAL read_only = 1');
      await expect(app.query('INSERT INTO shop.item (n) VALUES (2)')).rejects.toMatchObject({ errno: 1290 });
      await own.query('INSERT INTO shop.item (n) VALUES (3)');
      await own.query('SET GLOBAL read_only = 0');
      await own.query('XA RECOVER');
      await own.query('SHOW BINARY LOGS');
      const [blockers] = await own.query<mysql.RowDataPacket[]>(
        'SELECT trx_mysql_thread_id FROM information_schema.innodb_trx',
      );
      expect(blockers).toEqual([]);
      if (shape.mysql === 'mysql') await own.query('SELECT * FROM performance_schema.data_locks');
      const [list] = await own.query<mysql.RowDataPacket[]>('SHOW PROCESSLIST');
      const victim = list.find((process) => process['Id'] === app.threadId);
      expect(victim?.['User']).toBe('app');
      app.on('error', () => undefined);
      await own.query(`KILL CONNECTION ${app.threadId}`);
      await expect(app.query('SELECT 1')).rejects.toThrow();
    } finally {
      await own.query('SET GLOBAL read_only = 0').catch(() => undefined);
      await own.end();
      app.destroy();
    }
  });

  test('what the lab sets up is not in a binlog: links must not carry it', async () => {
    const own = await as('interlock');
    const [logs] = await own.query<mysql.RowDataPacket[]>('SHOW BINARY LOGS');
    let statements = '';
    for (const log of logs) {
      const [events] = await own.query<mysql.RowDataPacket[]>(
        `SHOW BINLOG EVENTS IN '${String(log['Log_name'])}'`,
      );
      statements += events.map((event) => String(event['Info'])).join('\n');
    }
    await own.end();
    expect(statements).toContain('unit_state');
    expect(statements).not.toMatch(/CREATE USER|GRANT|shop`?\.?`?item`? \(id|CREATE DATABASE.*shop/i);
  });
});
