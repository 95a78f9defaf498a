import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { interlock } from '../cli/command-line.js';
import type { Ran } from '../cli/command-line.js';
import { startRedis } from '../support/redis.js';
import type { TestRedis } from '../support/redis.js';
import { startPair } from '../support/replication.js';
import type { Pair } from '../support/replication.js';
import { exampleDocument } from '../support/topology.js';

let control: Pair;
let redis: Record<'a' | 'b', TestRedis>;
let directory: string;
let topology: string;

beforeAll(async () => {
  vi.stubEnv('MYSQL_PASSWORD', 'test');
  vi.stubEnv('RULE_CENTER_TOKEN', 't');
  control = await startPair('mysql');
  const config = { appendonly: 'yes', appendfsync: 'always' };
  redis = { a: await startRedis({ config }), b: await startRedis({ config }) };
  directory = await mkdtemp(path.join(tmpdir(), 'interlock-fence-status-'));
  topology = path.join(directory, 'topology.yaml');
  const document = exampleDocument();
  for (const name of ['a', 'b'] as const) {
    const { stores } = document.datacenters[`dc-${name}`] as unknown as {
      stores: { mysql: { main: Record<string, unknown> }; redis: unknown };
    };
    const { server } = control[name];
    stores.mysql.main = { ...stores.mysql.main, port: server.port, user: server.user };
    stores.redis = { cache: { host: '127.0.0.1', port: redis[name].port } };
  }
  await writeFile(topology, JSON.stringify(document));
});
afterAll(async () => {
  vi.unstubAllEnvs();
  await Promise.all([control?.stop(), redis?.a.stop(), redis?.b.stop()]);
  await rm(directory, { recursive: true, force: true });
});

const run = (...argv: string[]): Promise<Ran> => interlock(...argv, '--topology', topology);

test('fence status: states of a server that was restarted or replaced need an operator, on either kind of store', async () => {
  const init = await run('rules', 'init');
  expect(init.exitCode, init.stderr).toBe(0);
  expect(await run('fence', 'status')).toMatchObject({ exitCode: 0 });

  await redis.b.kill('SIGKILL');
  await redis.b.restart();
  const unbound = await run('fence', 'status');
  expect(unbound.exitCode).toBe(3);
  expect(unbound.stdout).toMatch(
    /dc-b redis\/cache: \d+ units have no state, or one of before.*take no writes/,
  );
  expect(unbound.stdout).not.toContain('Nothing is write-disabled');
  const { exitCode, stdout } = await run('fence', 'status', '--json');
  expect(exitCode).toBe(3);
  expect(JSON.parse(stdout)).toMatchObject({
    findings: [],
    problems: [expect.stringContaining('`interlock rules reassert --dc dc-b`')],
  });
  const reasserted = await run('rules', 'reassert', '--dc', 'dc-b');
  expect(reasserted.exitCode, reasserted.stderr).toBe(0);
  expect(await run('fence', 'status')).toMatchObject({ exitCode: 0 });

  await control.a.pool.query("UPDATE interlock.unit_state SET server = 'another'");
  const foreign = await run('fence', 'status');
  expect(foreign.exitCode).toBe(3);
  expect(foreign.stdout).toMatch(/dc-a mysql\/main: \d+ units were asserted on another server/);
});
