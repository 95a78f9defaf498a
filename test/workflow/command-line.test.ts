import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { SwitchStatus } from '../../workflows/contract.js';
import { interlock } from '../cli/command-line.js';
import { exampleDocument } from '../support/topology.js';
import { Bench } from './harness.js';
import type { Run } from './harness.js';
import type { World } from './model.js';

let bench: Bench;
let directory: string;
beforeAll(async () => {
  bench = await Bench.create();
  directory = await mkdtemp(path.join(tmpdir(), 'interlock-cli-'));
});
afterAll(async () => {
  await bench?.close();
  await rm(directory, { recursive: true, force: true });
});

/** `interlock switch NAME --json`, as an operator of the world's topology types it. */
async function operate(
  world: World,
  name: string,
  ...flags: string[]
): Promise<{ exitCode: number; document: SwitchStatus & { accepted?: boolean } }> {
  const file = path.join(directory, `${world.topology}.yaml`);
  const document = { ...exampleDocument(), name: world.topology, temporal: { address: bench.env.address } };
  await writeFile(file, JSON.stringify(document));
  const { exitCode, stdout, stderr } = await interlock(
    'switch',
    name,
    '--topology',
    file,
    '--json',
    ...flags,
  );
  expect(stdout, stderr).not.toBe('');
  return { exitCode, document: JSON.parse(stdout) as SwitchStatus & { accepted?: boolean } };
}

async function soaking(): Promise<{ world: World; run: Run }> {
  const world = bench.world();
  const run = await bench.start(world);
  await run.settle();
  return { world, run };
}

test('rollback waits until the units are back and the run has closed', async () => {
  const { world, run } = await soaking();
  const { exitCode, document } = await operate(world, 'rollback');
  expect(document.outcome).toBe('rolled-back');
  expect(exitCode).toBe(0);
  expect(world.owner()).toBe('dc-a');
  expect((await run.handle.describe()).status.name).toBe('COMPLETED');
});

test('a rollback that is refused by its preflight ends in the soak: exit code 1', async () => {
  const { world } = await soaking();
  world.badChecks.set('preflight', 'a link is down');
  const { exitCode, document } = await operate(world, 'rollback');
  expect(document).toMatchObject({ outcome: 'running', awaiting: 'rollback-or-finish' });
  expect(document.summary).toContain('a link is down');
  expect(exitCode).toBe(1);
  expect(world.owner()).toBe('dc-b');
  world.badChecks.clear();
  expect((await operate(world, 'finish')).exitCode).toBe(0);
});

test('finish waits until the run has closed', async () => {
  const { world, run } = await soaking();
  const { exitCode, document } = await operate(world, 'finish');
  expect(document.outcome).toBe('done');
  expect(exitCode).toBe(0);
  expect((await run.handle.describe()).status.name).toBe('COMPLETED');
});

test('abort waits until the source is open again', async () => {
  const world = bench.world();
  let abort: ReturnType<typeof operate> | undefined;
  const run = await bench.start(world);
  await new Promise<void>((resolve) => {
    world.on('before', 'catchUp', async () => {
      abort = operate(world, 'abort');
      resolve();
    });
  });
  const { exitCode, document } = await abort!;
  expect(document.outcome).toBe('aborted');
  expect(exitCode).toBe(0);
  expect(world.owner()).toBe('dc-a');
  expect((await run.handle.describe()).status.name).toBe('COMPLETED');
});

test('--detach returns at acceptance', async () => {
  const { world, run } = await soaking();
  let release = (): void => undefined;
  const held = new Promise<void>((resolve) => (release = resolve));
  world.on('before', 'preflight', () => held);
  const { exitCode, document } = await operate(world, 'rollback', '--detach');
  expect(exitCode).toBe(0);
  expect(document.accepted).toBe(true);
  expect(world.owner()).toBe('dc-b');
  release();
  expect((await run.end()).outcome).toBe('rolled-back');
});

test('what is refused is refused', async () => {
  const { world, run } = await soaking();
  const { exitCode, document } = await operate(world, 'abort');
  expect(exitCode).toBe(1);
  expect(document).toMatchObject({ error: { code: 'Refused' } });
  await operate(world, 'finish');
  expect((await run.end()).outcome).toBe('done');
});
