import { setTimeout as wait } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import type { SwitchReport, SwitchStatus } from '../../workflows/contract.js';
import { Bench } from './harness.js';
import type { Run } from './harness.js';
import type { World } from './model.js';
import { Operator } from './operator.js';

let bench: Bench;
let operator: Operator;
beforeAll(async () => {
  vi.stubEnv('MYSQL_PASSWORD', 'secret');
  bench = await Bench.create();
  operator = await Operator.of(bench);
  await operator.work();
});
afterAll(async () => {
  vi.unstubAllEnvs();
  await bench?.close();
  await operator?.leave();
});

type Answer = SwitchStatus & { accepted?: boolean; answer?: string };

function operate(world: World, name: string, ...flags: string[]) {
  return operator.asks<Answer>(world, name, ...flags);
}

const MOVE = ['--scope', 'cn-east/0-1', '--from', 'dc-a', '--to', 'dc-b', '--reason', 'a test'];
const EXTEND = ['--drain-policy', 'extend', '--drain-timeout', '300ms'];

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

describe('start', () => {
  test('waits until the soak begins', async () => {
    const world = bench.world();
    const { exitCode, document } = await operate(world, 'start', ...MOVE);
    expect(exitCode).toBe(0);
    expect(document).toMatchObject({ outcome: 'running', awaiting: 'rollback-or-finish', needs: null });
    expect(world.owner()).toBe('dc-b');
    await operate(world, 'finish');
  });

  test('--watch tells the steps as they end', async () => {
    const world = bench.world();
    const { exitCode, stdout, stderr } = await operator.types(world, 'start', ...MOVE, '--watch');
    expect(exitCode).toBe(0);
    for (const step of ['plan', 'preflight', 'write-disable', 'drain', 'switch', 'cancel-write-disable']) {
      expect(stderr).toMatch(new RegExp(`^✓ ${step} \\(\\d+ ms\\)`, 'm'));
    }
    expect(stdout).toContain('`interlock switch rollback` moves back');
    await operate(world, 'finish');
  });

  test('--detach returns the run at once; another start meanwhile is refused and names it', async () => {
    const world = bench.world();
    let release = (): void => undefined;
    const held = new Promise<void>((resolve) => (release = resolve));
    world.on('before', 'preflight', () => held);
    const { exitCode, document } = await operate(world, 'start', ...MOVE, '--detach');
    expect(exitCode).toBe(0);
    expect(document).toEqual({ workflowId: world.workflowId, runId: expect.any(String) as unknown });
    expect(world.calls).not.toContain('writeDisable');
    const second = await operate(world, 'start', ...MOVE);
    expect(second.exitCode).toBe(1);
    expect(second.document).toMatchObject({ error: { code: 'Refused', details: { runId: document.runId } } });
    release();
    const run = bench.run(world, document.runId);
    await run.settle();
    expect(await run.update('finish')).toContain('Finished');
    const report = await run.end();
    expect(report.request).toMatchObject({ scope: 'cn-east/0-1', reason: 'a test' });
  });

  test('--plan of another world is refused: exit code 1', async () => {
    const world = bench.world();
    const { exitCode, document } = await operate(world, 'start', ...MOVE, '--plan', 'another');
    expect(exitCode).toBe(1);
    expect(document.outcome).toBe('refused');
    expect(document.summary).toContain('interlock switch plan');
  });

  test('what is compensated: exit code 1', async () => {
    const world = bench.world();
    world.fault('switchTarget', 'refuses');
    const { exitCode, document } = await operate(world, 'start', ...MOVE);
    expect(exitCode).toBe(1);
    expect(document.outcome).toBe('compensated');
    expect(world.owner()).toBe('dc-a');
  });

  test.each(['', '--watch'])('returns when the next one can be started %s', async (flag) => {
    const world = bench.world();
    world.badChecks.set('preflight', 'a link is down');
    // The outcome is known before the report is kept.
    world.on('before', 'recordReport', () => wait(700));
    expect((await operate(world, 'start', ...MOVE, ...(flag ? [flag] : []))).document.outcome).toBe(
      'refused',
    );
    world.badChecks.clear();
    expect((await operate(world, 'start', ...MOVE)).exitCode).toBe(0);
    await operate(world, 'finish');
  });
});

describe('an operator is needed', () => {
  /** A switchover whose drain has expired, as `start` leaves it. */
  async function expired() {
    const world = bench.world();
    world.links = 'stuck';
    const started = await operate(world, 'start', ...MOVE, ...EXTEND);
    return { world, started, run: bench.run(world, started.document.runId) };
  }

  test('start, status and report exit as they should, and name the commands', async () => {
    const { world, started, run } = await expired();
    expect(started.exitCode).toBe(3);
    expect(started.document.awaiting).toBe('extend-or-abort');
    expect(started.document.needs).toContain('`interlock switch extend`');
    const status = await operate(world, 'status');
    expect(status.exitCode).toBe(3);
    expect(status.document.needs).toBe(started.document.needs);
    const { exitCode, stdout } = await operator.types(world, 'status');
    expect(exitCode).toBe(3);
    expect(stdout).toContain('NEEDS AN OPERATOR: mysql/main:dc-a>dc-b, mysql/orders:dc-a>dc-b did not reach');
    expect(stdout).toContain('waiting mysql/main:dc-a>dc-b');
    expect(stdout).toContain('`interlock switch abort` gives up');
    const report = await operator.asks<SwitchReport>(world, 'report');
    expect(report.exitCode).toBe(0);
    expect(report.document).toMatchObject({ runId: run.runId, outcome: 'running' });
    expect((await operate(world, 'abort')).exitCode).toBe(0);
    expect((await operate(world, 'status')).exitCode).toBe(0);
    expect(world.owner()).toBe('dc-a');
  });

  test('extend returns when it is accepted, and the switchover goes on', async () => {
    const { world, run } = await expired();
    const { exitCode, document } = await operate(world, 'extend');
    expect(exitCode).toBe(0);
    expect(document).toEqual({ accepted: true, answer: expect.stringMatching(/^Extended/) as unknown });
    await run.drive((s) => s.awaiting === 'extend-or-abort');
    const words = await operator.types(world, 'extend', run.runId);
    expect(words.exitCode).toBe(0);
    expect(words.stdout).toMatch(/^Extended: the drain may take its time-out once more\.\n$/);
    await world.unstick();
    expect((await run.settle()).needs).toBeNull();
    const refused = await operate(world, 'extend');
    expect(refused.exitCode).toBe(1);
    expect(refused.document).toMatchObject({
      error: { code: 'Refused', message: expect.stringContaining('not under way') as unknown },
    });
    expect((await operate(world, 'finish')).exitCode).toBe(0);
    expect((await operate(world, 'extend')).document).toMatchObject({
      error: { code: 'Refused', message: expect.stringContaining('nothing to extend') as unknown },
    });
    expect(world.owner()).toBe('dc-b');
  });

  test('a rollback that waits for one: exit code 3', async () => {
    const world = bench.world();
    await operate(world, 'start', ...MOVE, ...EXTEND);
    world.links = 'stuck';
    const { exitCode, document } = await operate(world, 'rollback');
    expect(exitCode).toBe(3);
    expect(document).toMatchObject({ flow: 'rollback', awaiting: 'extend-or-abort' });
    // Aborted on the way back, the units stay, and the soak begins again: that is what was asked for.
    const aborted = await operate(world, 'abort');
    expect(aborted.exitCode).toBe(0);
    expect(aborted.document.awaiting).toBe('rollback-or-finish');
    expect(world.owner()).toBe('dc-b');
    await operate(world, 'finish');
  });

  test('a run that was terminated could not clean up: exit code 3', async () => {
    const { world, run } = await expired();
    await run.handle.terminate('test');
    const { exitCode, document } = await operate(world, 'status');
    expect(exitCode).toBe(3);
    expect(document).toMatchObject({
      error: {
        code: 'NeedsOperator',
        message: expect.stringContaining('interlock fence release') as unknown,
      },
    });
  });

  test('units of a run that is not closed: exit code 3', async () => {
    const { world, run } = await expired();
    const foreign = bench.world();
    bench.share(world, foreign);
    const { exitCode, document } = await operate(foreign, 'start', ...MOVE);
    expect(exitCode).toBe(3);
    expect(document).toMatchObject({ outcome: 'needs-operator' });
    expect(document.needs).toContain(run.runId);
    expect((await operate(world, 'abort')).exitCode).toBe(0);
  });
});

describe('a run that has ended', () => {
  test('status and report tell of it, and of the one before by its id', async () => {
    const world = bench.world();
    world.fault('switchTarget', 'refuses');
    const first = await operate(world, 'start', ...MOVE);
    await operate(world, 'start', ...MOVE);
    const finished = await operate(world, 'finish');

    const status = await operate(world, 'status');
    expect(status.exitCode).toBe(0);
    expect(status.document).toEqual(finished.document);
    expect(status.document).toMatchObject({ outcome: 'done', awaiting: 'nothing', fencedMs: 20 });
    expect((await operate(world, 'status', '--watch')).document).toEqual(status.document);
    expect((await operator.types(world, 'status')).stdout).toContain('Fenced for 20 ms.');
    const before = await operate(world, 'status', first.document.runId);
    expect(before.exitCode).toBe(0);
    expect(before.document).toMatchObject({ runId: first.document.runId, outcome: 'compensated' });

    const kept = await operator.asks<SwitchReport>(world, 'report');
    expect(kept.exitCode).toBe(0);
    expect(kept.document).toEqual(
      await bench.env.client.workflow.getHandle(world.workflowId, status.document.runId).result(),
    );
    const { stdout } = await operator.types(world, 'report', first.document.runId);
    expect(stdout).toContain(`Switchover ${first.document.runId}: compensated`);
    expect(stdout).toContain('Reason: a test');
    expect(stdout).toMatch(/✗ switch \(\d+ ms\): switchTarget is refused/);
    expect(stdout).toContain('epochs: fence 2, switch 3, re-opened 4');
    expect(stdout).toContain('Clients: writes unavailable for 21 ms; 14 requests held, 0 refused, 0 failed');
  });

  test('status and report need no worker for it', async () => {
    const { world, run } = await soaking();
    await operate(world, 'finish');
    await bench.replaceWorker(async () => {
      expect((await operate(world, 'status')).document).toMatchObject({ runId: run.runId, outcome: 'done' });
      const { document } = await operator.asks<SwitchReport>(world, 'report');
      expect(document).toMatchObject({ runId: run.runId, outcome: 'done' });
    });
  });

  test('nobody knows: exit code 1', async () => {
    const world = bench.world();
    expect(await operate(world, 'status')).toMatchObject({
      exitCode: 1,
      document: {
        error: { code: 'Refused', message: expect.stringContaining('`interlock switch list`') as unknown },
      },
    });
    expect(await operate(world, 'report')).toMatchObject({
      exitCode: 1,
      stderr: expect.stringContaining('Looking in the control stores') as unknown,
      document: {
        error: { code: 'Refused', message: expect.stringContaining('mysql/main') as unknown },
      },
    });
    expect(await operate(world, 'rollback')).toMatchObject({
      exitCode: 1,
      document: { error: { message: expect.stringContaining('nothing to rollback') as unknown } },
    });
  });
});
