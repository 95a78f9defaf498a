import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { FastifyInstance } from 'fastify';
import type { Pool, RowDataPacket } from 'mysql2/promise';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Checker } from '../../infra/demo/checker/checker.js';
import type { CheckReport } from '../../infra/demo/checker/checker.js';
import { LoadGenerator } from '../../infra/demo/load/generator.js';
import { readJournal } from '../../infra/demo/load/journal.js';
import type { TransferRecord } from '../../infra/demo/load/journal.js';
import { createShop } from '../../infra/demo/service/app.js';
import { COUPON_UNIT } from '../../infra/demo/schema.sql.js';
import type { Flavour } from '../../infra/mysql-server.js';
import { startTestMysql } from '../support/mysql.js';
import type { TestMysql } from '../support/mysql.js';
import {
  PlainShopDatabase,
  copyShop,
  prepareShopServer,
  refusals,
  startRouter,
  unitsOfRegions,
} from '../support/shop.js';

const HOMES: Record<string, string> = { 'cn-east': 'dc-a', 'cn-north': 'dc-b' };
const ownerOf = (unit: string): string => (unit === COUPON_UNIT ? 'dc-a' : HOMES[unit.split('/')[0]!]!);

describe.each<Flavour>(['mysql', 'mariadb'])('shop, load and checker on %s', (flavour) => {
  const servers: TestMysql[] = [];
  const dcs: { dc: string; server: TestMysql; pool: Pool }[] = [];
  const apps: FastifyInstance[] = [];
  let directory: string;
  let journal: string;
  let router: { url: string; close: () => Promise<void> };

  beforeAll(async () => {
    directory = await mkdtemp(path.join(tmpdir(), 'interlock-checker-'));
    journal = path.join(directory, 'journal.jsonl');
    const shops: Record<string, string> = {};
    router = await startRouter(ownerOf, () => shops);
    for (const [index, dc] of ['dc-a', 'dc-b'].entries()) {
      const server = await startTestMysql(flavour, { offset: (index + 1) as 1 | 2 });
      servers.push(server);
      const pool = server.pool({ flags: ['-FOUND_ROWS'] });
      await prepareShopServer(pool, unitsOfRegions(HOMES, 'dc-a', dc));
      dcs.push({ dc, server, pool });
      const app = await createShop({
        db: new PlainShopDatabase(pool, flavour, (unit) => ownerOf(unit) === dc),
        dc,
        gatewayUrl: router.url,
        middleware: refusals,
      });
      shops[dc] = await app.listen({ host: '127.0.0.1', port: 0 });
      apps.push(app);
    }
  });
  afterAll(async () => {
    await Promise.allSettled(apps.map((app) => app.close()));
    await router.close();
    await Promise.all(servers.map((server) => server.stop()));
    await rm(directory, { recursive: true, force: true });
  });

  const checker = (): Checker =>
    new Checker({
      datacenters: dcs.map(({ dc, server }) => ({
        dc,
        address: { host: server.host, port: server.port, user: server.user, password: server.password },
      })),
      journal,
      settleTimeoutMs: 1500,
    });
  const converge = async (): Promise<void> => {
    await copyShop(dcs[0]!, dcs[1]!);
    await copyShop(dcs[1]!, dcs[0]!);
  };
  /** Runs statements in both databases without a trace in their binlogs. */
  const tamper = async (...statements: [string, unknown[]][]): Promise<void> => {
    for (const { pool } of dcs) {
      const connection = await pool.getConnection();
      await connection.query('SET sql_log_bin = 0');
      for (const [sql, values] of statements) await connection.query(sql, values);
      await connection.query('SET sql_log_bin = 1');
      connection.release();
    }
  };
  const transferWithin = async (): Promise<TransferRecord> => {
    const [rows] = await dcs[0]!.pool.query<RowDataPacket[]>(
      `SELECT request_id FROM shop.wallet_request WHERE step = 'transfer' AND region = 'cn-east' LIMIT 1`,
    );
    const id = String(rows[0]!['request_id']);
    return (await readJournal(journal)).find((write) => write.id === id) as TransferRecord;
  };
  const row = async (sql: string, values: unknown[]): Promise<RowDataPacket> => {
    const [rows] = await dcs[0]!.pool.query<RowDataPacket[]>({ sql, values, dateStrings: true });
    return rows[0]!;
  };
  const sound = { lostWrites: 0, doubledWrites: 0, dualOwnerWrites: 0, tornTransfers: 0, converged: true };

  test('real traffic through both shops passes, and every row is audited', async () => {
    const load = new LoadGenerator({
      gateways: [
        { name: 'one', url: router.url },
        { name: 'two', url: router.url },
      ],
      regions: ['cn-east', 'cn-north'],
      journal,
      rate: 100,
      readRate: 10,
    });
    load.start();
    await new Promise((resolve) => setTimeout(resolve, 3000));
    await load.stop();
    expect(load.counts.acked).toBe(load.counts.sent);
    expect(load.counts.sent).toBeGreaterThan(200);
    expect(load.counts.failedReads).toBe(0);

    const before = await checker().check();
    expect(before.converged).toBe(false);
    await converge();
    const report = await checker().check();
    expect(report.findings).toEqual([]);
    expect(report).toMatchObject({ ok: true, ...sound, ackedWrites: load.counts.acked });
    expect(report.auditedRows).toBeGreaterThan(4 * load.counts.acked);
  });

  test('reads on from where it was', async () => {
    const one = checker();
    const first = await one.check();
    const second = await one.check();
    expect(second).toMatchObject({ ok: true, auditedRows: first.auditedRows });
  });

  test('catches a dropped write', async () => {
    const { id } = await transferWithin();
    const debit = await row(`SELECT * FROM shop.wallet_entry WHERE request_id = ? AND leg = 'debit'`, [id]);
    const credit = await row(`SELECT * FROM shop.wallet_entry WHERE request_id = ? AND leg = 'credit'`, [id]);
    await tamper(['DELETE FROM shop.wallet_entry WHERE request_id = ?', [id]]);
    const report = await checker().check();
    await tamper(
      ['INSERT INTO shop.wallet_entry SET ?', [debit]],
      ['INSERT INTO shop.wallet_entry SET ?', [credit]],
    );
    expect(report).toMatchObject({ ok: false, ...sound, lostWrites: 1 });
    expect(report.findings[0]).toContain(id);
    expect((await checker().check()).findings).toEqual([]);
  });

  test('catches a doubled write whose balances agree with it', async () => {
    const { id, amount } = await transferWithin();
    const debit = await row(`SELECT * FROM shop.wallet_entry WHERE request_id = ? AND leg = 'debit'`, [id]);
    const again = { ...debit, id: 1_000_001 };
    const where = [amount, debit['region'], debit['user_id']];
    await tamper(
      ['INSERT INTO shop.wallet_entry SET ?', [again]],
      ['UPDATE shop.wallet SET balance = balance - ? WHERE region = ? AND user_id = ?', where],
    );
    const report = await checker().check();
    await tamper(
      ['DELETE FROM shop.wallet_entry WHERE id = 1000001', []],
      ['UPDATE shop.wallet SET balance = balance + ? WHERE region = ? AND user_id = ?', where],
    );
    expect(report).toMatchObject({ ok: false, ...sound, doubledWrites: 1 });
  });

  test('catches a torn transfer whose balances agree with it', async () => {
    const { id, amount } = await transferWithin();
    const credit = await row(`SELECT * FROM shop.wallet_entry WHERE request_id = ? AND leg = 'credit'`, [id]);
    const where = [amount, credit['region'], credit['user_id']];
    await tamper(
      ['DELETE FROM shop.wallet_entry WHERE id = ?', [credit['id']]],
      ['UPDATE shop.wallet SET balance = balance - ? WHERE region = ? AND user_id = ?', where],
    );
    const report = await checker().check();
    await tamper(
      ['INSERT INTO shop.wallet_entry SET ?', [credit]],
      ['UPDATE shop.wallet SET balance = balance + ? WHERE region = ? AND user_id = ?', where],
    );
    expect(report).toMatchObject({ ok: false, ...sound, tornTransfers: 1 });
    expect(report.moneyErrors).toBe(2); // the sum of all wallets, in both databases
  });

  test('catches money from nowhere', async () => {
    const { region, userId } = await transferWithin();
    const statement = (delta: number): [string, unknown[]] => [
      'UPDATE shop.wallet SET balance = balance + ? WHERE region = ? AND user_id = ?',
      [delta, region, userId],
    ];
    await tamper(statement(5));
    const report = await checker().check();
    await tamper(statement(-5));
    expect(report).toMatchObject({ ok: false, ...sound });
    expect(report.moneyErrors).toBe(4);
  });

  test('catches one column of one row that differs between the databases', async () => {
    const { id } = await transferWithin();
    const sql =
      'UPDATE shop.wallet_request SET written_at = written_at + INTERVAL ? MICROSECOND WHERE request_id = ?';
    const connection = await dcs[1]!.pool.getConnection();
    await connection.query('SET sql_log_bin = 0');
    await connection.query(sql, [1, id]);
    const report = await checker().check();
    await connection.query(sql, [-1, id]);
    connection.destroy();
    expect(report).toMatchObject({ ok: false, ...sound, converged: false });
    expect((await checker().check()).findings).toEqual([]);
  });

  test('catches a write in the data center that does not own the unit', async () => {
    const { id } = await transferWithin();
    await dcs[1]!.pool.query(`UPDATE shop.wallet_request SET dc = 'dc-b' WHERE request_id = ?`, [id]);
    const report: CheckReport = await checker().check();
    expect(report).toMatchObject({ ok: false, dualOwnerWrites: 1, lostWrites: 0, doubledWrites: 0 });
    expect(report.findings.join('\n')).toMatch(
      /dc-b .*shop\.wallet_request.*was remote \(owner dc-a, epoch 1\)/,
    );
  });
});
