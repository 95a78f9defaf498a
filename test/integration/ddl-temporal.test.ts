import { existsSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Client, Connection } from '@temporalio/client';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { temporalComponent } from '../../infra/components/temporal.js';
import { switchoverWorkflowId } from '../../workflows/contract.js';
import type { DdlReport } from '../../workflows/ddl-contract.js';
import { freePort } from '../support/mysql.js';
import { interlock, startCommand, startProgram } from '../support/programs.js';
import type { Program } from '../support/programs.js';
import { createOnBoth, dump, rows, startPair, unlogged, until } from '../support/replication.js';
import type { Pair, Side } from '../support/replication.js';
import { exampleDocument } from '../support/topology.js';

/** As people run it: two stores per DC, one of each flavour; Temporal, a worker process per DC, the command line. */
describe('interlock ddl on Temporal', () => {
  let main: Pair;
  let orders: Pair;
  let temporal: Program;
  let directory: string;
  let topology: string;
  let client: Client;
  const env: Record<string, string> = { RULE_CENTER_TOKEN: 't', GATEWAY_TOKEN: 't', MYSQL_PASSWORD: 'test' };
  const workers = new Map<string, Program>();

  const startWorker = async (dc: string): Promise<void> => {
    const own = { ...env, INTERLOCK_STOP_DIR: path.join(directory, dc) };
    const worker = startProgram('src/cli/main.js', ['worker', '--dc', dc, '--topology', topology], own);
    workers.set(dc, worker);
    await worker.prints(`worker of ${dc}: polls`, 90_000);
  };
  const run = async (...args: string[]): Promise<{ code: number | null; stdout: string; stderr: string }> =>
    interlock([...args, '--topology', topology], env);
  let files = 0;
  const fileOf = async (sql: string): Promise<string> => {
    const file = path.join(directory, `change-${++files}.sql`);
    await writeFile(file, sql);
    return file;
  };
  const apply = async (
    sql: string,
    ...args: string[]
  ): Promise<{ code: number | null; report: DdlReport; stderr: string }> => {
    const result = await run('ddl', 'apply', '--file', await fileOf(sql), '--json', ...args);
    try {
      return { code: result.code, stderr: result.stderr, report: JSON.parse(result.stdout) as DdlReport };
    } catch {
      throw new Error(`ddl apply: exit ${result.code}\n${result.stdout}\n${result.stderr}`);
    }
  };
  const executions = (report: DdlReport): string[] =>
    report.steps.flatMap(({ number, store, targets }) =>
      targets.map(({ dc, state }) => `${number} ${store} ${dc} ${state}`),
    );
  const columns = async (side: Side, table: string): Promise<string> =>
    (
      await rows(
        side,
        `SELECT column_name AS c FROM information_schema.columns WHERE CONCAT(table_schema, '.', table_name) = '${table}' ORDER BY ordinal_position`,
      )
    )
      .map(({ c }) => String(c))
      .join();
  /** Statements in a binlog, as often as they were run. */
  const logged = async (side: Side, text: string): Promise<number> => {
    let count = 0;
    for (const { Log_name: log } of await rows(side, 'SHOW BINARY LOGS'))
      for (const { Info: info } of await rows(side, `SHOW BINLOG EVENTS IN '${String(log)}'`))
        if (String(info).includes(text)) count++;
    return count;
  };
  const streaming = async (): Promise<boolean> => {
    const { stdout } = await run('replicate', 'status', '--json');
    const { links } = JSON.parse(stdout) as { links: { status: { state: string; lagMs: number } | null }[] };
    return (
      links.length === 4 && links.every(({ status }) => status?.state === 'streaming' && status.lagMs === 0)
    );
  };

  beforeAll(async () => {
    directory = await mkdtemp(path.join(tmpdir(), 'interlock-ddl-'));
    topology = path.join(directory, 'topology.yaml');
    [main, orders] = await Promise.all([startPair('mysql'), startPair('mariadb')]);
    const found = await temporalComponent.find();
    const port = await freePort();
    temporal = startCommand(found!.binary, [
      ...['server', 'start-dev', '--headless', '--ip', '127.0.0.1', '--port', String(port)],
      ...['--log-level', 'error', '--dynamic-config-value', 'history.transferProcessorMaxPollRPS=10000'],
    ]);
    const document = exampleDocument();
    document['temporal'] = { address: `127.0.0.1:${port}` };
    document['links'] = [
      { store: 'mysql/main', include: ['shop.*'] },
      { store: 'mysql/orders', include: ['trade.*'] },
    ];
    document['tables'] = {
      'shop.item': { unrouted: true },
      'shop.fresh': { unrouted: true },
      'trade.item': { unrouted: true },
    };
    for (const [dc, side] of [
      ['dc-a', 'a'],
      ['dc-b', 'b'],
    ] as const) {
      const { mysql } = (
        document.datacenters[dc] as unknown as { stores: { mysql: Record<string, Record<string, unknown>> } }
      ).stores;
      const store = ({ server: { port: own, user } }: Side): Record<string, unknown> => ({ port: own, user });
      mysql['orders'] = { ...mysql['main'], control: false, flavour: 'mariadb', ...store(orders[side]) };
      Object.assign(mysql['main']!, store(main[side]));
    }
    await writeFile(topology, JSON.stringify(document));
    const item = 'item (id INT PRIMARY KEY, n INT NOT NULL, old INT NOT NULL DEFAULT 1)';
    await createOnBoth(main, ['CREATE DATABASE shop', `CREATE TABLE shop.${item}`]);
    await createOnBoth(orders, ['CREATE DATABASE trade', `CREATE TABLE trade.${item}`]);
    expect((await run('rules', 'init')).stdout).toContain('epoch 1');
    await until(
      () =>
        Connection.connect({ address: `127.0.0.1:${port}` }).then(
          (connection) => ((client = new Client({ connection })), true),
          () => false,
        ),
      'Temporal answers',
    );
    await Promise.all([startWorker('dc-a'), startWorker('dc-b')]);
    expect((await run('replicate', 'start', '--all', '--from', 'now')).code).toBe(0);
    await until(streaming, 'links stream', 30_000);
  });

  afterAll(async () => {
    await client?.connection.close();
    await Promise.all([...workers.values()].map((worker) => worker.kill('SIGKILL')));
    await temporal?.kill('SIGKILL');
    await Promise.all([main?.stop(), orders?.stop()]);
    await rm(directory, { recursive: true, force: true });
  });

  it('shows what it would do, and does nothing', async () => {
    const sql = `ALTER TABLE shop.item DROP COLUMN old; -- goes last
      ALTER TABLE trade.item ADD COLUMN x INT NOT NULL DEFAULT 3;
      CREATE TABLE shop.fresh (id INT PRIMARY KEY);`;
    const refused = await apply(sql, '--dry-run');
    expect(refused.code).toBe(2);
    expect(refused.report.summary).toContain('say in which of the stores main, orders');
    const { code, report } = await apply(sql.replace(/CREATE.*/, ''), '--dry-run');
    expect(code).toBe(0);
    expect(report.outcome).toBe('planned');
    expect(
      report.steps.map(({ number, store, phase, targets }) => [number, store, phase, targets[0]!.algorithm]),
    ).toEqual([
      [2, 'orders', 'expand', 'instant'],
      [1, 'main', 'contract', expect.any(String)],
    ]);
    expect(await columns(main.a, 'shop.item')).toBe('id,n,old');
    const unasked = await run('ddl', 'apply', '--file', await fileOf(sql));
    expect(unasked.code).toBe(2);
    expect(unasked.stderr).toContain('add --yes');
  });

  it.each([
    ['ALTER TABLE shop.item RENAME COLUMN n TO m', 'renamed'],
    ['RENAME TABLE shop.item TO shop.other', 'renamed'],
    ['TRUNCATE TABLE shop.item', 'DELETE the rows'],
    ['UPDATE shop.item SET n = 1', 'changes rows'],
    ['ALTER TABLE item ADD COLUMN x INT', 'name the table with its schema'],
    ['DROP TABLE interlock.unit_state', 'not a schema of applications'],
    ['ALTER TABLE shop.item MODIFY n SMALLINT NOT NULL', 'does not hold all that'],
    ['ALTER TABLE shop.nothing ADD COLUMN x INT', 'no store of main, orders has shop.nothing'],
    ['ALTER TABLE shop.item DROP COLUMN old; ALTER TABLE shop.item ADD COLUMN y INT', 'use two files'],
  ])('refuses %s, and does nothing', async (sql, why) => {
    const result = await run('ddl', 'apply', '--file', await fileOf(sql), '--yes');
    expect(result.code).toBe(2);
    expect(result.stderr + result.stdout).toContain(why);
    expect(await columns(main.a, 'shop.item')).toBe('id,n,old');
  });

  it('refuses while a link does not stream', async () => {
    expect((await run('replicate', 'pause', 'mysql/main:dc-a>dc-b')).code).toBe(0);
    const { code, report } = await apply('ALTER TABLE shop.item ADD COLUMN x INT', '--yes');
    expect(code).toBe(1);
    expect(report.error?.code).toBe('Refused');
    expect(report.summary).toContain('mysql/main:dc-a>dc-b');
    expect((await run('replicate', 'resume', 'mysql/main:dc-a>dc-b')).code).toBe(0);
    await until(streaming, 'links stream', 30_000);
  });

  it('refuses while a switchover is under way', async () => {
    // Nobody polls its queue: it is under way until it is terminated.
    const moving = await client.workflow.start('switchover', {
      ...{ workflowId: switchoverWorkflowId('example'), taskQueue: 'nobody', args: [] },
    });
    const { code, report } = await apply('ALTER TABLE shop.item ADD COLUMN x INT', '--yes');
    await moving.terminate();
    expect(code).toBe(1);
    expect(report.summary).toContain('a switchover is under way');
  });

  it('changes both sides of both stores under load, once each, and the links carry all of it', async () => {
    let done = false;
    const work = async (side: Side, table: string, base: number): Promise<void> => {
      for (let i = 0; !done; i++) {
        const id = base + (i % 40);
        await side.pool.query(
          `INSERT INTO ${table} (id, n) VALUES (?, 1) ON DUPLICATE KEY UPDATE n = n + 1`,
          [id],
        );
        if (i % 7 === 0) await side.pool.query(`DELETE FROM ${table} WHERE id = ?`, [id]);
      }
    };
    const load = [
      work(main.a, 'shop.item', 0),
      work(main.b, 'shop.item', 1000),
      work(orders.a, 'trade.item', 0),
      work(orders.b, 'trade.item', 1000),
    ];
    const { code, report, stderr } = await apply(
      `ALTER TABLE shop.item ADD COLUMN x VARCHAR(20) NOT NULL DEFAULT 'x' FIRST;
       ALTER TABLE trade.item ADD COLUMN x DECIMAL(8,2) NULL;
       CREATE INDEX by_n ON shop.item (n);
       ALTER TABLE shop.item MODIFY n BIGINT NOT NULL;
       ALTER TABLE shop.item DROP COLUMN old;
       ALTER TABLE trade.item DROP COLUMN old;`,
      '--yes',
    ).finally(() => (done = true));
    await Promise.all(load);
    expect(report.error, stderr).toBeNull();
    expect(code).toBe(0);
    expect(executions(report)).toEqual([
      ...['1 main dc-a executed', '1 main dc-b executed', '2 orders dc-a executed', '2 orders dc-b executed'],
      ...['3 main dc-a executed', '3 main dc-b executed', '4 main dc-a executed', '4 main dc-b executed'],
      ...['5 main dc-b executed', '5 main dc-a executed', '6 orders dc-b executed', '6 orders dc-a executed'],
    ]);
    await until(streaming, 'links stream and are not behind', 30_000);
    for (const side of [main.a, main.b]) {
      expect(await columns(side, 'shop.item')).toBe('x,id,n');
      expect(await logged(side, 'ALTER TABLE shop.item DROP COLUMN old')).toBe(1);
      expect(await rows(side, 'SELECT DISTINCT state FROM interlock.ddl_step')).toEqual([{ state: 'done' }]);
    }
    expect(await dump(main.b, 'shop.item')).toEqual(await dump(main.a, 'shop.item'));
    expect(await dump(orders.b, 'trade.item')).toEqual(await dump(orders.a, 'trade.item'));
    const again = await apply('ALTER TABLE shop.item DROP COLUMN old', '--yes');
    expect(executions(again.report)).toEqual(['1 main dc-a found', '1 main dc-b found']);
  });

  it.each([
    ['before', 'shop.item ADD COLUMN k1 INT NULL'],
    ['after', 'shop.item ADD COLUMN k2 INT NULL'],
  ])('goes on when a worker is killed %s it runs a statement', async (when, change) => {
    const point = path.join(directory, 'dc-b', `${when}-runDdl`);
    await rm(path.dirname(point), { recursive: true, force: true });
    await import('node:fs/promises').then((fs) => fs.mkdir(path.dirname(point)));
    await writeFile(point, '');
    const applying = apply(
      `ALTER TABLE ${change}; ALTER TABLE trade.item ADD COLUMN ${change.slice(-11)}`,
      '--yes',
    );
    await until(() => existsSync(`${point}.reached`), 'the worker is at the statement', 30_000);
    await workers.get('dc-b')!.kill('SIGKILL');
    await rm(path.dirname(point), { recursive: true, force: true });
    await startWorker('dc-b');
    const { code, report } = await applying;
    expect(code, report.summary).toBe(0);
    for (const side of [main.a, main.b]) expect(await logged(side, `ALTER TABLE ${change}`)).toBe(1);
    expect(report.steps[0]!.targets[1]!.state).toBe(when === 'after' ? 'found' : 'executed');
    await until(streaming, 'links stream', 40_000);
    await main.a.pool.query('INSERT INTO shop.item (id, n) VALUES (?, 1)', [when === 'after' ? 5001 : 5002]);
    await until(
      async () => (await dump(main.b, 'shop.item')).join() === (await dump(main.a, 'shop.item')).join(),
      'equal',
    );
  });

  it('makes a table, whose rows flow, and takes it away', async () => {
    const made = await apply(
      'CREATE TABLE shop.fresh (id INT PRIMARY KEY, n INT);',
      '--stores',
      'main',
      '--yes',
    );
    expect(made.code, made.report.summary).toBe(0);
    await main.a.pool.query('INSERT INTO shop.fresh VALUES (1, 1)');
    await main.b.pool.query('INSERT INTO shop.fresh VALUES (2, 2)');
    const equal = async (): Promise<boolean> =>
      (await dump(main.a, 'shop.fresh')).length === 2 && (await dump(main.b, 'shop.fresh')).length === 2;
    await until(equal, 'the rows are on both sides');
    const gone = await apply('DROP TABLE shop.fresh', '--yes');
    expect(gone.code, gone.report.summary).toBe(0);
    await until(streaming, 'links stream', 30_000);
    expect(await columns(main.a, 'shop.fresh')).toBe('');
    expect(await columns(main.b, 'shop.fresh')).toBe('');
    expect(await rows(orders.a, `SHOW TABLES FROM trade LIKE 'fresh'`)).toEqual([]);
  });

  it('is one at a time, waits for a table that is in use, and stops when it is told to', async () => {
    const holder = await main.a.pool.getConnection();
    await holder.beginTransaction();
    await holder.query('SELECT * FROM shop.item LIMIT 1');
    const sql = 'ALTER TABLE shop.item ADD COLUMN late INT NULL';
    const applying = apply(sql, '--yes');
    const waits = `SELECT 1 FROM information_schema.processlist WHERE info LIKE 'ALTER TABLE shop.item%'`;
    await until(async () => (await rows(main.a, waits)).length > 0, 'it waits for the table', 30_000);
    const second = await run('ddl', 'apply', '--file', await fileOf(sql), '--yes');
    expect(second.code).toBe(1);
    expect(second.stderr).toContain('a change of definitions is under way');
    expect((await run('ddl', 'stop')).code).toBe(0);
    const { code, report } = await applying;
    await holder.commit();
    holder.release();
    expect(code).toBe(1);
    expect(report).toMatchObject({ outcome: 'stopped', error: null });
    expect(
      await rows(main.b, `SELECT state FROM interlock.ddl_step WHERE change_id = '${report.changeId}'`),
    ).toEqual([{ state: 'failed' }]);
    expect(await columns(main.a, 'shop.item')).not.toContain('late');
    // What a run leaves that was terminated in between.
    await main.b.pool.query(
      "INSERT INTO interlock.ddl_step VALUES ('gone', 1, 'shop.item', 'ALTER', NULL, 'planned', NULL, UTC_TIMESTAMP(6))",
    );
    expect((await run('ddl', 'stop')).stdout).toContain('1 steps that it left are over now');
    const left = "SELECT state FROM interlock.ddl_step WHERE change_id = 'gone'";
    expect(await rows(main.b, left)).toEqual([{ state: 'failed' }]);
    expect((await run('ddl', 'stop')).stderr).toContain('nothing to stop');
    await until(streaming, 'links stream', 30_000);
    expect((await apply(sql, '--yes')).report.outcome).toBe('done');
  });

  it('says where it failed, lets the links go, and goes on from there', async () => {
    await unlogged(main.b, ['INSERT INTO shop.item (id, n) VALUES (7001, 7000000), (7002, 7000000)']);
    const sql = 'ALTER TABLE shop.item ADD UNIQUE KEY one (id, n), ADD UNIQUE KEY two (n)';
    await unlogged(main.a, ['DELETE FROM shop.item']);
    await unlogged(main.b, ['DELETE FROM shop.item WHERE id < 7000']);
    const { code, report } = await apply(sql, '--yes');
    expect(code).toBe(1);
    expect(report.outcome).toBe('failed');
    expect(report.steps[0]!.targets.map(({ state }) => state)).toEqual(['executed', 'failed']);
    expect(report.summary).toContain('Duplicate entry');
    await unlogged(main.b, ['DELETE FROM shop.item']);
    const { stdout } = await run('ddl', 'status', '--json');
    expect((JSON.parse(stdout) as DdlReport).changeId).toBe(report.changeId);
    // The link stops on the difference, as nobody brings the key any more, and again when it is resumed.
    const link = 'mysql/main:dc-a>dc-b';
    const stopped = async (): Promise<boolean> => {
      const { stdout: status } = await run('replicate', 'status', '--json');
      const { links } = JSON.parse(status) as { links: { link: string; workflow: string }[] };
      return links.find((one) => one.link === link)?.workflow === 'failed';
    };
    await until(stopped, `${link} stops`, 60_000);
    await run('replicate', 'resume', link);
    await until(stopped, `${link} stops again`, 60_000);
    const other = await apply('ALTER TABLE shop.fresh ADD COLUMN x INT NULL', '--yes');
    expect(other.report.summary).toContain('links have to stream');
    const again = await apply(sql, '--yes');
    expect(again.report.warnings).toContain(
      `${link} has stopped as shop.item differs; when this is done: interlock replicate resume '${link}'; then the other way, if that has stopped, too: interlock replicate resume 'mysql/main:dc-b>dc-a'`,
    );
    expect(again.code).toBe(0);
    expect((await run('replicate', 'resume', link)).code).toBe(0);
    // It may have stopped on the difference, too.
    await run('replicate', 'resume', 'mysql/main:dc-b>dc-a');
    let seen = '';
    await until(
      async () => ((seen = (await run('replicate', 'status', '--json')).stdout), streaming()),
      'links stream',
      60_000,
      () => seen,
    );
  });
});
