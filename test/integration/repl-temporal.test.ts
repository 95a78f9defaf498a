import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Client, Connection } from '@temporalio/client';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { temporalComponent } from '../../infra/components/temporal.js';
import { freePort } from '../support/mysql.js';
import { interlock, startCommand, startProgram } from '../support/programs.js';
import type { Program } from '../support/programs.js';
import { createOnBoth, dump, rows, startPair, unlogged, until } from '../support/replication.js';
import type { Pair } from '../support/replication.js';
import { exampleDocument } from '../support/topology.js';

const AB = 'mysql/main:dc-a>dc-b';
const BA = 'mysql/main:dc-b>dc-a';

/** Links as people run them: topology file, Temporal, a worker process per DC, the command line. */
describe('links on Temporal', () => {
  let pair: Pair;
  let temporal: Program;
  let directory: string;
  let topology: string;
  const env: Record<string, string> = { RULE_CENTER_TOKEN: 't', GATEWAY_TOKEN: 't', MYSQL_PASSWORD: 'test' };
  const workers: Program[] = [];
  let metrics: string;

  const startWorker = async (dc: string, more: string[] = []): Promise<Program> => {
    const worker = startProgram(
      'src/cli/main.js',
      ['worker', '--dc', dc, '--topology', topology, ...more],
      env,
    );
    workers.push(worker);
    await worker.prints(`worker of ${dc}: polls`, 90_000);
    return worker;
  };
  const replicate = async (...args: string[]): Promise<{ code: number | null; json: { links: Link[] } }> => {
    const result = await interlock(['replicate', ...args, '--json', '--topology', topology], env);
    try {
      return { code: result.code, json: JSON.parse(result.stdout) as { links: Link[] } };
    } catch {
      throw new Error(`replicate ${args.join(' ')}: exit ${result.code}\n${result.stdout}\n${result.stderr}`);
    }
  };
  interface Link {
    link: string;
    workflow: string;
    status: { state: string; lagMs: number; generation: number; conflicts: number } | null;
    error: { code: string; message: string } | null;
    alerts: { alert: string; summary: string }[];
  }

  beforeAll(async () => {
    directory = await mkdtemp(path.join(tmpdir(), 'interlock-repl-'));
    topology = path.join(directory, 'topology.yaml');
    pair = await startPair('mysql');
    const found = await temporalComponent.find();
    const port = await freePort();
    temporal = startCommand(found!.binary, [
      'server',
      'start-dev',
      '--headless',
      '--ip',
      '127.0.0.1',
      '--port',
      String(port),
      '--log-level',
      'error',
      '--dynamic-config-value',
      'history.transferProcessorMaxPollRPS=10000',
    ]);
    const document = exampleDocument();
    document['temporal'] = { address: `127.0.0.1:${port}` };
    document['tables'] = {
      'shop.wallet': { userId: 'user_id', region: 'region' },
      'shop.country': { unrouted: true },
    };
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
    await createOnBoth(pair, [
      'CREATE DATABASE shop',
      'CREATE TABLE shop.wallet (user_id VARCHAR(64), region VARCHAR(63), amount BIGINT, PRIMARY KEY (user_id))',
      'CREATE TABLE shop.country (id INT PRIMARY KEY, name VARCHAR(40))',
    ]);
    const init = await interlock(['rules', 'init', '--topology', topology], env);
    expect(init.stderr + init.stdout).toContain('epoch 1');
    await until(
      () =>
        Connection.connect({ address: `127.0.0.1:${port}` }).then(
          (c) => c.close().then(() => true),
          () => false,
        ),
      'Temporal answers',
    );
    metrics = `127.0.0.1:${await freePort()}`;
    await Promise.all([startWorker('dc-a'), startWorker('dc-b', ['--metrics', metrics])]);
  });

  afterAll(async () => {
    await Promise.all(workers.map((worker) => worker.kill('SIGKILL')));
    await temporal?.kill('SIGKILL');
    await pair?.stop();
    await rm(directory, { recursive: true, force: true });
  });

  const bothEqual = async (table: string, count: number): Promise<void> => {
    await until(async () => (await dump(pair.a, table)).length === count, `${table}: ${count} rows in dc-a`);
    await until(async () => (await dump(pair.b, table)).length === count, `${table}: ${count} rows in dc-b`);
    expect(await dump(pair.a, table)).toEqual(await dump(pair.b, table));
  };

  const series = async (): Promise<string[]> =>
    (await (await fetch(`http://${metrics}/metrics`)).text())
      .split('\n')
      .filter((line) => /^interlock_(link|verification)_/.test(line))
      .map((line) => line.replace(/(,service_name="[^"]*"|service_name="[^"]*",)/, ''));
  const stoppedAlert = (value: number): string =>
    `interlock_link_alert{alert="stopped",dc="dc-b",link="${AB}"} ${value}`;

  it('raises the alert for a link that was never started', async () => {
    await until(async () => (await series()).includes(stoppedAlert(1)), 'the alert fires', 40_000);
  });

  it('refuses to begin on tables with rows, starts with --from now, and carries both ways', async () => {
    await pair.a.pool.query(`INSERT INTO shop.country VALUES (1, 'cn')`);
    const refused = await interlock(['replicate', 'start', AB, '--topology', topology], env);
    expect(refused.code).toBe(1);
    expect(refused.stderr).toContain('has no checkpoint, and shop.country has rows in dc-a');
    await pair.b.pool.query(`INSERT INTO shop.country VALUES (1, 'cn')`);
    const { code, json } = await replicate('start', '--all', '--from', 'now');
    expect(code).toBe(0);
    expect(json.links.map(({ link, status }) => [link, status?.state])).toEqual([
      [AB, 'streaming'],
      [BA, 'streaming'],
    ]);
    await pair.a.pool.query(`INSERT INTO shop.country VALUES (3, 'de')`);
    await pair.b.pool.query(`INSERT INTO shop.country VALUES (4, 'fr')`);
    await pair.a.pool.query(`INSERT INTO shop.wallet VALUES ('u1', 'cn-east', 10)`);
    await bothEqual('shop.country', 3);
    await bothEqual('shop.wallet', 1);
  });

  it('shows its links to Prometheus, and only those of its data center', async () => {
    await until(
      async () =>
        (await series()).includes(
          `interlock_link_table_rows_total{dc="dc-b",link="${AB}",table="shop.wallet"} 1`,
        ),
      'rows are counted',
    );
    const all = await series();
    expect(all).toContain(`interlock_link_state{dc="dc-b",link="${AB}",state="streaming"} 1`);
    expect(all).toContain(`interlock_link_state{dc="dc-b",link="${AB}",state="copying"} 0`);
    expect(all.find((line) => line.startsWith('interlock_link_lag_ms'))).toMatch(/ \d+$/);
    expect(all).toContain(`interlock_link_alert{alert="stopped",dc="dc-b",link="${AB}"} 0`);
    expect(all.find((line) => line.startsWith('interlock_link_lag_bytes'))).toMatch(/ \d+$/);
    expect(all.find((line) => line.startsWith('interlock_link_rows_read_total'))).toMatch(/ [1-9]\d*$/);
    expect(all.filter((line) => line.includes(BA))).toEqual([]);
    await replicate('pause', AB);
    const { json } = await replicate('status', AB);
    expect(json.links[0]!.alerts.map(({ alert: name }) => name)).toEqual(['stopped']);
    // Kept while it stands: its source's files are needed from there on.
    expect(json.links[0]!.status).toMatchObject({ state: 'stopped', binlog: { purged: false } });
    const { stdout } = await interlock(['replicate', 'status', '--topology', topology], env);
    expect(stdout).toContain('ALERT stopped: it is paused: nothing is carried');
    expect(stdout).toMatch(/streaming +\d+ ms, \d+ bytes/);
    expect(stdout).toMatch(/checkpoint written \d+ s ago/);
    await until(async () => (await series()).includes(stoppedAlert(1)), 'the alert fires', 40_000);
    await pair.b.pool.query(
      `INSERT INTO interlock.verification VALUES ('run-of-test', ?, UTC_TIMESTAMP(6))`,
      [JSON.stringify({ outcome: 'different', rows: 7, differing: 3, repaired: 1, undecided: 0 })],
    );
    await replicate('resume', AB);
    await until(
      async () => (await series()).includes('interlock_verification_differing_rows{dc="dc-b"} 2'),
      'the last verification is shown',
      40_000,
    );
    expect(await series()).toContain('interlock_verification_outcome{dc="dc-b",outcome="different"} 1');
    await pair.b.pool.query(`DELETE FROM interlock.verification WHERE run_id = 'run-of-test'`);
    await until(async () => (await series()).includes(stoppedAlert(0)), 'the alert ends', 40_000);
    expect((await replicate('status', AB)).json.links[0]!.alerts).toEqual([]);
  });

  it('tells the run that is named in a marker, once the marker is committed', async () => {
    const connection = await Connection.connect({ address: await topologyAddress() });
    const client = new Client({ connection });
    const handle = await client.workflow.start('nobody', {
      workflowId: 'switchover/listener',
      taskQueue: 'nobody',
    });
    await pair.a.pool.query(
      `INSERT INTO interlock.marker VALUES ('marker-1', 'switchover/listener', ?, 1, UTC_TIMESTAMP(6))`,
      [handle.firstExecutionRunId],
    );
    await until(async () => {
      const history = await handle.fetchHistory();
      return (
        history.events?.some(
          (e) => e.workflowExecutionSignaledEventAttributes?.signalName === 'baselineReached',
        ) === true
      );
    }, 'the signal baselineReached');
    const [checkpoint] = await rows(
      pair.b,
      `SELECT marker FROM interlock.link_checkpoint WHERE link = '${AB}'`,
    );
    expect(checkpoint).toEqual({ marker: 'marker-1' });
    await handle.terminate();
    await connection.close();
  });

  const topologyAddress = async (): Promise<string> => {
    const { readFile } = await import('node:fs/promises');
    return (JSON.parse(await readFile(topology, 'utf8')) as { temporal: { address: string } }).temporal
      .address;
  };

  it('pauses, resumes, and says what it does', async () => {
    expect((await replicate('pause', AB)).json.links[0]!.workflow).toBe('paused');
    await pair.a.pool.query(`INSERT INTO shop.country VALUES (5, 'it')`);
    await pair.b.pool.query(`INSERT INTO shop.country VALUES (6, 'es')`);
    await until(async () => (await dump(pair.a, 'shop.country')).length === 5, 'the other link goes on');
    expect(await dump(pair.b, 'shop.country')).toHaveLength(4);
    expect((await replicate('status', AB)).json.links[0]!.workflow).toBe('paused');
    expect((await replicate('resume', AB)).json.links[0]!.status?.state).toBe('streaming');
    await bothEqual('shop.country', 5);
  });

  it('goes on in another process when its worker is killed', async () => {
    const before = (await replicate('status', AB)).json.links[0]!.status!.generation;
    await workers[1]!.kill('SIGKILL');
    await pair.a.pool.query(`INSERT INTO shop.country VALUES (7, 'pt')`);
    const startedAt = Date.now();
    await startWorker('dc-b');
    await bothEqual('shop.country', 6);
    console.log(`link resumed ${Date.now() - startedAt} ms after the new worker was started`);
    const after = (await replicate('status', AB)).json.links[0]!.status!;
    expect(after.generation).toBeGreaterThan(before);
  });

  it('copies a table again, also when its worker is killed meanwhile', async () => {
    const values = Array.from({ length: 3_000 }, (_, i) => `(${1_000 + i}, 'c${i}')`);
    await pair.a.pool.query(`INSERT INTO shop.country VALUES ${values.join(',')}`);
    await bothEqual('shop.country', 3_006);
    await unlogged(pair.b, ['DELETE FROM shop.country WHERE id % 2 = 0']);
    const started = await replicate(
      'resync',
      AB,
      ...['--tables', 'shop.country', '--max-rows-per-second', '600', '--detach'],
    );
    expect(started.json.links[0]!.status?.state).toBe('copying');
    await workers.at(-1)!.kill('SIGKILL');
    await startWorker('dc-b');
    await until(
      async () => (await replicate('status', AB)).json.links[0]!.status?.state === 'streaming',
      'the copy is done',
      60_000,
    );
    await bothEqual('shop.country', 3_006);
    const text = await interlock(['replicate', 'status', AB, '--topology', topology], env);
    expect(text.stdout).toMatch(/copied 1 tables: 3006 rows looked at, 15\d\d rows written/);
    const unknown = await interlock(
      ['replicate', 'resync', AB, '--tables', 'shop.no', '--topology', topology],
      env,
    );
    expect([unknown.code, unknown.stderr]).toEqual([
      2,
      expect.stringContaining('it carries shop.country, shop.wallet'),
    ]);
  });

  /** A command over records, as JSON. */
  const told = async (...args: string[]): Promise<{ code: number | null; json: Record<string, unknown> }> => {
    const result = await interlock([...args, '--json', '--topology', topology], env);
    return { code: result.code, json: JSON.parse(result.stdout) as Record<string, unknown> };
  };
  const said = (...args: string[]) => interlock([...args, '--topology', topology], env);

  it('leaves out a write past the fence, shows it, and lets a person decide', async () => {
    // u9 is of dc-a; a write in dc-b is past the fence.
    await pair.b.pool.query(`INSERT INTO shop.wallet VALUES ('u9', 'cn-east', 10), ('u10', 'cn-east', 20)`);
    await until(async () => (await told('conflicts', 'list', BA)).code === 3, 'two open conflicts', 40_000);
    const { json } = await told('conflicts', 'list', BA);
    const [first, second] = json['conflicts'] as { id: number }[];
    expect([first, second]).toMatchObject([
      { table: 'shop.wallet', key: "'u9'", kind: 'not-owned', kept: 'target', state: 'open' },
      { key: "'u10'" },
    ]);
    expect((await replicate('status', BA)).json.links[0]).toMatchObject({
      workflow: 'running',
      status: { state: 'streaming', conflicts: 2 },
    });
    const shown = await said('conflicts', 'show', BA, String(first!.id));
    expect(shown.stdout).toMatch(/past the fence.*policy owner-wins kept the target's row/);
    expect(shown.stdout).toMatch(/amount +– +10 +–/);
    expect(shown.stdout).toContain('interlock conflicts resolve');
    expect((await said('conflicts', 'resolve', BA, String(first!.id))).code).toBe(2);
    expect((await said('conflicts', 'show', BA, '999999')).stderr).toContain('has no conflicts 999999');
    expect((await said('conflicts', 'show', BA, 'x')).code).toBe(2);
    expect(await told('conflicts', 'resolve', BA, String(first!.id), '--keep', 'target')).toMatchObject({
      code: 0,
      json: { state: 'resolved', kept: 'target' },
    });
    const again = await said('conflicts', 'resolve', BA, String(first!.id), '--keep', 'source');
    expect([again.code, again.stderr]).toEqual([1, expect.stringContaining('is resolved, not open')]);
    expect(await told('conflicts', 'resolve', BA, String(second!.id), '--keep', 'source')).toMatchObject({
      code: 0,
      json: { state: 'resolved', kept: 'source' },
    });
    expect(await rows(pair.a, `SELECT user_id FROM shop.wallet WHERE user_id IN ('u9','u10')`)).toEqual([
      { user_id: 'u10' },
    ]);
    expect((await said('conflicts', 'list')).stdout).toContain('No open conflicts.');
    await unlogged(pair.a, [`DELETE FROM shop.wallet WHERE user_id = 'u10'`]);
    await unlogged(pair.b, [`DELETE FROM shop.wallet WHERE user_id IN ('u9', 'u10')`]);
  });

  it('keeps aside what it cannot apply, and lets a person decide', async () => {
    await unlogged(pair.b, [
      `INSERT INTO shop.country VALUES (8001, 'there')`,
      `INSERT INTO shop.country VALUES (8002, 'there')`,
    ]);
    await pair.a.pool.query(`INSERT INTO shop.country VALUES (8001, 'mine')`);
    await until(async () => (await told('quarantine', 'list', AB)).code === 3, 'it is kept aside', 40_000);
    const record = ((await told('quarantine', 'list')).json['quarantine'] as { id: number }[])[0]!;
    expect(record).toMatchObject({ link: AB, state: 'open', passed: false });
    const shown = await said('quarantine', 'show', AB, String(record.id));
    expect(shown.stdout).toMatch(/insert of shop\.country[\s\S]*name +– +'mine'/);
    expect(shown.stdout).toContain('is on the target already (policy quarantine)');
    await until(async () => (await replicate('status', AB)).json.links[0]!.workflow === 'failed', 'it stops');
    expect((await told('quarantine', 'retry', AB, String(record.id))).code).toBe(3);
    await unlogged(pair.b, [`DELETE FROM shop.country WHERE id = 8001`]);
    expect(await told('quarantine', 'retry', AB, String(record.id))).toMatchObject({
      code: 0,
      json: { state: 'applied' },
    });
    await pair.a.pool.query(`INSERT INTO shop.country VALUES (8002, 'mine')`);
    await until(async () => (await told('quarantine', 'list', AB)).code === 3, 'the next one', 40_000);
    const next = ((await told('quarantine', 'list', AB)).json['quarantine'] as { id: number }[])[0]!;
    const careless = await said('quarantine', 'discard', AB, String(next.id));
    expect([careless.code, careless.stderr]).toEqual([2, expect.stringContaining('--yes')]);
    expect(await told('quarantine', 'discard', AB, String(next.id), '--yes')).toMatchObject({
      code: 0,
      json: { state: 'discarded' },
    });
    await until(
      async () => (await replicate('status', AB)).json.links[0]!.workflow === 'failed',
      'it stands',
    );
    await replicate('resume', AB);
    expect(await rows(pair.b, 'SELECT name FROM shop.country WHERE id IN (8001, 8002) ORDER BY id')).toEqual([
      { name: 'mine' },
      { name: 'there' },
    ]);
    expect((await said('quarantine', 'list')).stdout).toContain('Nothing is kept aside.');
    const stopped = await replicate('stop', BA);
    expect(['stopped', 'not-started']).toContain(stopped.json.links[0]!.workflow);
  });

  it('refuses what makes no sense, and says what there is', async () => {
    const unknown = await interlock(
      ['replicate', 'start', 'mysql/other:dc-a>dc-b', '--topology', topology],
      env,
    );
    expect(unknown.code).toBe(2);
    expect(unknown.stderr).toContain(`links are ${AB}, ${BA}`);
    const neither = await interlock(['replicate', 'pause', '--topology', topology], env);
    expect(neither.code).toBe(2);
    const bad = await interlock(
      ['replicate', 'start', BA, '--from', 'nonsense', '--topology', topology],
      env,
    );
    expect(bad.code).toBe(2);
    expect(bad.stderr).toContain('GTID set');
    const running = await interlock(['replicate', 'start', AB, '--from', 'now', '--topology', topology], env);
    expect(running.code).toBe(1);
    expect(running.stderr).toContain('stop it before');
    for (const [args, said] of [
      [['start', '--all', '--copy'], 'copy one link at a time'],
      [['start', AB, '--copy', '--from', 'now'], 'leave --from out'],
      [['start', AB, '--detach'], '--detach goes with --copy'],
      [['start', AB, '--copy', '--max-rows-per-second', '0'], 'expected a number of rows'],
      [['resync'], 'name one link'],
      [['resync', AB, '--tables', 'wallet'], 'expected schema.table'],
    ] as const) {
      const refused = await interlock(['replicate', ...args, '--topology', topology], env);
      expect([refused.code, refused.stderr]).toEqual([2, expect.stringContaining(said)]);
    }
  });
});
