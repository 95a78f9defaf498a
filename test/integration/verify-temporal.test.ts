import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Client, Connection } from '@temporalio/client';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { temporalComponent } from '../../infra/components/temporal.js';
import type { VerifyReport } from '../../workflows/verification-contract.js';
import { freePort } from '../support/mysql.js';
import { interlock, startCommand, startProgram } from '../support/programs.js';
import type { Program } from '../support/programs.js';
import { createOnBoth, dump, startPair, unlogged, until } from '../support/replication.js';
import type { Pair } from '../support/replication.js';
import { exampleDocument } from '../support/topology.js';

const LARGE = 400_000;

/** As people run it: topology file, Temporal, a worker process per DC, the command line. */
describe('interlock verify on Temporal', () => {
  let pair: Pair;
  let temporal: Program;
  let directory: string;
  let topology: string;
  let client: Client;
  const env: Record<string, string> = { RULE_CENTER_TOKEN: 't', GATEWAY_TOKEN: 't', MYSQL_PASSWORD: 'test' };
  const workers = new Map<string, Program>();

  const startWorker = async (dc: string): Promise<void> => {
    const worker = startProgram('src/cli/main.js', ['worker', '--dc', dc, '--topology', topology], env);
    workers.set(dc, worker);
    await worker.prints(`worker of ${dc}: polls`, 90_000);
  };
  const run = async (...args: string[]): Promise<{ code: number | null; stdout: string; stderr: string }> =>
    interlock([...args, '--topology', topology], env);
  const verify = async (...args: string[]): Promise<{ code: number | null; report: VerifyReport }> => {
    const result = await run('verify', ...args, '--json');
    try {
      return { code: result.code, report: JSON.parse(result.stdout) as VerifyReport };
    } catch {
      throw new Error(`verify ${args.join(' ')}: exit ${result.code}\n${result.stdout}\n${result.stderr}`);
    }
  };

  /** Plants a difference in the middle of the large table and keeps its row locked at the owner: the comparison stands there for seconds. */
  const standInTheMiddle = async (): Promise<() => Promise<void>> => {
    await unlogged(pair.b, ['UPDATE shop.coupon SET price = -1 WHERE id = 200000']);
    const holder = await pair.a.pool.getConnection();
    await holder.query('START TRANSACTION');
    await holder.query('SELECT id FROM shop.coupon WHERE id = 200000 FOR UPDATE');
    return async () => {
      await holder.query('ROLLBACK');
      holder.release();
    };
  };

  beforeAll(async () => {
    directory = await mkdtemp(path.join(tmpdir(), 'interlock-verify-'));
    topology = path.join(directory, 'topology.yaml');
    pair = await startPair('mysql');
    const found = await temporalComponent.find();
    const port = await freePort();
    temporal = startCommand(found!.binary, [
      ...[
        'server',
        'start-dev',
        '--headless',
        '--ip',
        '127.0.0.1',
        '--port',
        String(port),
        '--log-level',
        'error',
      ],
      ...['--dynamic-config-value', 'history.transferProcessorMaxPollRPS=10000'],
    ]);
    const document = exampleDocument();
    document['temporal'] = { address: `127.0.0.1:${port}` };
    for (const [dc, side] of [
      ['dc-a', pair.a],
      ['dc-b', pair.b],
    ] as const) {
      const { main } = (
        document.datacenters[dc] as unknown as { stores: { mysql: { main: Record<string, unknown> } } }
      ).stores.mysql;
      main['port'] = side.server.port;
      main['user'] = side.server.user;
    }
    await writeFile(topology, JSON.stringify(document));
    const digits =
      '(SELECT 0 d UNION SELECT 1 UNION SELECT 2 UNION SELECT 3 UNION SELECT 4 UNION SELECT 5 UNION SELECT 6 UNION SELECT 7 UNION SELECT 8 UNION SELECT 9)';
    await createOnBoth(pair, [
      'CREATE DATABASE shop',
      'CREATE TABLE shop.wallet (user_id VARCHAR(64), region VARCHAR(63), amount BIGINT, note VARCHAR(40), PRIMARY KEY (user_id))',
      'CREATE TABLE shop.country (id INT PRIMARY KEY, name VARCHAR(40))',
      'CREATE TABLE shop.coupon (id INT PRIMARY KEY, code VARCHAR(40), words VARCHAR(200), at DATETIME(6), price DECIMAL(12,2))',
      "INSERT INTO shop.wallet VALUES ('u1','cn-east',10,'a'),('u2','cn-west',20,NULL),('u3','cn-east',30,'c')",
      "INSERT INTO shop.country VALUES (1,'cn'),(2,'de')",
      `INSERT INTO shop.coupon SELECT n, CONCAT('code-', n), REPEAT('w', 80), '2024-01-01 00:00:00', n / 7
       FROM (SELECT a.d + 10*b.d + 100*c.d + 1000*e.d + 10000*f.d + 100000*g.d AS n FROM ${digits} a, ${digits} b, ${digits} c, ${digits} e, ${digits} f, (SELECT 0 d UNION SELECT 1 UNION SELECT 2 UNION SELECT 3) g) x`,
    ]);
    expect((await run('rules', 'init')).stdout).toContain('epoch 1');
    const address = `127.0.0.1:${port}`;
    await until(
      () =>
        Connection.connect({ address }).then(
          (connection) => ((client = new Client({ connection })), true),
          () => false,
        ),
      'Temporal answers',
    );
    await Promise.all([startWorker('dc-a'), startWorker('dc-b')]);
    expect((await run('replicate', 'start', '--all', '--from', 'now')).code).toBe(0);
  });

  afterAll(async () => {
    await client?.connection.close();
    await Promise.all([...workers.values()].map((worker) => worker.kill('SIGKILL')));
    await temporal?.kill('SIGKILL');
    await pair?.stop();
    await rm(directory, { recursive: true, force: true });
  });

  it('compares every table, and says so', async () => {
    const { code, report } = await verify('mysql', '--watch');
    expect(report).toMatchObject({ outcome: 'equal', state: 'ended', differing: 0, rows: LARGE + 5 });
    expect(code).toBe(0);
    expect(report.tables.map(({ table }) => table).sort()).toEqual([
      'shop.country',
      'shop.coupon',
      'shop.wallet',
    ]);
    console.log(`${report.rowsPerSecond} rows/s`);
    const words = await run('verify', 'report');
    expect(words.stdout).toContain('Equal: 400005 rows of 3 of 3 tables compared, none differ');
    const kept = await pair.b.pool.query('SELECT document FROM interlock.verification');
    expect(
      (kept[0] as { document: string }[]).map(({ document }) => (JSON.parse(document) as VerifyReport).runId),
    ).toEqual([report.runId]);
  });

  it('shows what differs with both images, and exits with 1; repairs what has an owner', async () => {
    await unlogged(pair.b, [
      "UPDATE shop.wallet SET note = 'a ' WHERE user_id = 'u1'",
      "UPDATE shop.wallet SET note = '' WHERE user_id = 'u2'",
      "UPDATE shop.country SET name = 'fr' WHERE id = 2",
    ]);
    const shown = await run('verify', 'mysql', '--tables', 'shop.wallet,shop.country');
    expect(shown.code).toBe(1);
    expect(shown.stdout).toContain('dc-a: note="a"\n  dc-b: note="a "');
    expect(shown.stdout).toContain('dc-a: note=NULL\n  dc-b: note=""');
    expect(shown.stdout).toMatch(/shop\.wallet user_id="u2" \(unit cn-west\/\d+, owner dc-b\)/);
    expect(shown.stdout).toContain('shop.country id="2" (unowned)');
    const scoped = await verify('mysql', '--tables', 'shop.*', '--scope', 'region:cn-west', '--keep', '0');
    expect(scoped.code).toBe(1);
    expect(scoped.report).toMatchObject({ differing: 1, outcome: 'different' });
    expect(scoped.report.tables.map(({ table }) => table)).toEqual(['shop.wallet']);
    const repaired = await verify('mysql', '--tables', 'shop.wallet', '--repair');
    expect(repaired.code).toBe(0);
    expect(repaired.report).toMatchObject({ differing: 2, repaired: 2, outcome: 'different' });
    expect(await dump(pair.a, 'shop.wallet')).toEqual(await dump(pair.b, 'shop.wallet'));
    // u2 is of dc-b: its image is the one that stays.
    expect(JSON.stringify(await dump(pair.a, 'shop.wallet'))).toContain(
      Buffer.from('u2').toString('hex').toUpperCase(),
    );
  });

  it('is one at a time, pauses, resumes, stops', async () => {
    const release = await standInTheMiddle();
    const started = await run('verify', 'mysql', '--tables', 'shop.coupon', '--detach');
    expect(started.code).toBe(0);
    const second = await run('verify', 'mysql', '--tables', 'shop.wallet');
    expect(second.code).toBe(1);
    expect(second.stderr).toMatch(
      /A verification of example is under way: run \S+ \(shop\.coupon, started by .*verify stop/,
    );
    expect((await run('verify', 'pause')).code).toBe(0);
    await until(async () => (await verify('status')).report.state === 'paused', 'it is paused');
    const { rows } = (await verify('status')).report;
    expect(rows).toBeLessThan(LARGE);
    await new Promise((resolve) => setTimeout(resolve, 1_000));
    expect((await verify('status')).report.rows).toBe(rows);
    const again = await run('verify', 'pause');
    expect(again.code, again.stderr).toBe(0);
    expect((await run('verify', 'resume')).code).toBe(0);
    await until(async () => (await verify('status')).report.state === 'running', 'it goes on');
    expect((await run('verify', 'stop')).code).toBe(0);
    await until(async () => (await verify('status')).report.state === 'ended', 'it has ended');
    await release();
    const { report } = await verify('report');
    expect(report).toMatchObject({ outcome: 'stopped', differing: 0 });
    expect(report.rows).toBeGreaterThanOrEqual(rows);
    expect(report.rows).toBeLessThan(LARGE);
    const nothing = await run('verify', 'pause');
    expect(nothing.code).toBe(1);
    expect(nothing.stderr).toContain('nothing to pause');
  });

  it('goes on at its chunk when the worker that compares is killed', async () => {
    await unlogged(pair.b, ["UPDATE shop.coupon SET code = 'other' WHERE id IN (100, 399999)"]);
    const release = await standInTheMiddle();
    await run('verify', 'mysql', '--tables', 'shop.coupon', '--detach');
    await until(async () => (await verify('status')).report.rows > 100_000, 'it has begun');
    const { raw } = await client.workflow.getHandle('verify/example').describe();
    const identity = raw.pendingActivities![0]!.lastWorkerIdentity!;
    const dc = identity.split(' ')[0]!;
    const before = (await verify('status')).report;
    await workers.get(dc)!.kill('SIGKILL');
    await release();
    await startWorker(dc);
    await until(async () => {
      const { state, rows } = (await verify('status')).report;
      expect(rows, 'what was compared is not compared again').toBeGreaterThanOrEqual(before.rows);
      return state === 'ended';
    }, 'it has ended');
    const report = (await client.workflow.getHandle('verify/example').result()) as VerifyReport;
    expect(report).toMatchObject({ outcome: 'different', rows: LARGE });
    const { notComparable, differences, undecided } = report.tables[0]!.progress;
    expect(notComparable).toBeNull();
    // The row that was locked is undecided when it stayed so for longer than a proof may take.
    const found = differences.map(({ key }) => key['id']);
    expect([found, undecided]).toEqual(
      undecided === 0 ? [['100', '200000', '399999'], 0] : [['100', '399999'], 1],
    );
    expect(report.differing).toBe(found.length);
    expect(before.rows).toBeLessThan(LARGE);
  });

  it('a table whose link is paused is not comparable', async () => {
    expect((await run('replicate', 'pause', 'mysql/main:dc-a>dc-b')).code).toBe(0);
    await pair.a.pool.query("UPDATE shop.wallet SET amount = 99 WHERE user_id = 'u1'");
    const { code, report } = await verify('mysql', '--tables', 'shop.wallet');
    expect(code).toBe(3);
    expect(report).toMatchObject({ outcome: 'failed', differing: 0 });
    expect(report.tables[0]!.progress.notComparable).toContain('mysql/main:dc-a>dc-b is not running');
    expect((await run('replicate', 'resume', 'mysql/main:dc-a>dc-b')).code).toBe(0);
    expect((await verify('mysql', '--tables', 'shop.wallet')).code).toBe(0);
  });

  it('refuses what makes no sense before anything is compared', async () => {
    const table = await run('verify', 'mysql', '--tables', 'shop.nothing');
    expect(table.code).toBe(2);
    expect(table.stderr).toContain('--tables: "shop.nothing"');
    const scope = await run('verify', 'mysql', '--scope', 'region:mars');
    expect(scope.code).toBe(2);
    expect(scope.stderr).toContain('--scope');
  });
});
