import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { WorkflowUpdateFailedError } from '@temporalio/client';
import { Bench } from './harness.js';
import { BEFORE_THE_SWITCH, FROM_THE_SWITCH, IN_COMPENSATION } from './moments.js';

let bench: Bench;
beforeAll(async () => {
  bench = await Bench.create();
});
afterAll(() => bench?.close());

const HOUR_MS = 3_600_000;

describe.each(['signal', 'cancel'] as const)('abort by %s', (by) => {
  test.each(BEFORE_THE_SWITCH)('%s %s: aborted', async (when, name) => {
    const world = bench.world();
    const run = await bench.start(world, { policies: { soakMs: 60_000 } });
    world.on(
      when,
      name,
      async () => void (await (by === 'signal' ? run.handle.signal('abort') : run.handle.cancel())),
    );
    const report = await run.end();
    expect(world.violations).toEqual([]);
    expect(report.outcome).toBe('aborted');
    expect(world.owner()).toBe('dc-a');
  });

  test.each(FROM_THE_SWITCH)(
    '%s %s: the switch goes on, and the soak is not cut short',
    async (when, name) => {
      const world = bench.world();
      const run = await bench.start(world);
      world.on(
        when,
        name,
        async () => void (await (by === 'signal' ? run.handle.signal('abort') : run.handle.cancel())),
      );
      const soaking = await run.settle();
      expect(soaking.awaiting).toBe('rollback-or-finish');
      expect(world.violations).toEqual([]);
      expect(world.owner()).toBe('dc-b');
      await run.handle.signal('rollback');
      expect((await run.end()).outcome).toBe('rolled-back');
      expect(world.owner()).toBe('dc-a');
    },
  );

  test.each(IN_COMPENSATION)('%s %s: the compensation goes on', async (when, name) => {
    const world = bench.world();
    world.fault('switchTarget', 'refuses');
    const run = await bench.start(world);
    world.on(
      when,
      name,
      async () => void (await (by === 'signal' ? run.handle.signal('abort') : run.handle.cancel())),
    );
    const report = await run.end();
    expect(world.violations).toEqual([]);
    expect(report.outcome).toBe('compensated');
    expect(world.owner()).toBe('dc-a');
  });

  test('of a rollback, before its switch: the units stay moved and the soak begins again', async () => {
    const world = bench.world();
    const run = await bench.start(world);
    await run.settle();
    world.on(
      'after',
      'writeDisable',
      async () => void (await (by === 'signal' ? run.handle.signal('abort') : run.handle.cancel())),
    );
    await run.handle.signal('rollback');
    const soaking = await run.drive(
      (s) => s.awaiting === 'rollback-or-finish' && s.steps.filter((x) => x.step === 'soak').length === 2,
    );
    expect(soaking.summary).toContain('The rollback was aborted');
    expect(world.violations).toEqual([]);
    expect(world.owner()).toBe('dc-b');
    await run.handle.signal('finish');
    expect((await run.end()).outcome).toBe('done');
  });
});

test('an abort that comes before an accepted rollback has begun aborts it', async () => {
  const world = bench.world();
  const run = await bench.start(world);
  // The soak begins with the report being kept: the rollback is accepted, and waits for that.
  world.on('before', 'recordReport', async () => {
    await run.update('rollback');
    await run.update('abort');
  });
  const soaking = await run.drive(
    (s) => s.outcome !== 'running' || s.steps.filter((x) => x.step === 'soak').length === 2,
  );
  expect(soaking.summary).toContain('The rollback was aborted');
  expect(world.owner()).toBe('dc-b');
  await run.update('rollback');
  expect((await run.end()).outcome).toBe('rolled-back');
  expect(world.violations).toEqual([]);
});

describe('soak', () => {
  test('ends by itself, after its time', async () => {
    const world = bench.world();
    const run = await bench.start(world, { policies: { soakMs: 900_000 } });
    const report = await run.end();
    expect(report.outcome).toBe('done');
    const soak = report.steps.find((s) => s.step === 'soak')!;
    expect(Date.parse(soak.endedAt!) - Date.parse(soak.startedAt)).toBeGreaterThanOrEqual(900_000);
    await expect(run.update('rollback')).rejects.toThrow(/completed|not found/i);
    expect(world.owner()).toBe('dc-b');
  });

  test('cancel finishes it', async () => {
    const world = bench.world();
    const run = await bench.start(world);
    await run.settle();
    await run.handle.cancel();
    const report = await run.end();
    expect(report.outcome).toBe('done');
    const soak = report.steps.find((s) => s.step === 'soak')!;
    expect(Date.parse(soak.endedAt!) - Date.parse(soak.startedAt)).toBeLessThan(600_000);
  });

  test('what others changed in the rules meanwhile outlives the rollback', async () => {
    const world = bench.world();
    const run = await bench.start(world);
    await run.settle();
    world.changeRules();
    await run.update('rollback');
    expect((await run.end()).outcome).toBe('rolled-back');
    expect(world.owner()).toBe('dc-a');
    expect(world.ownerByRules('cn-east/999')).toBe('dc-b');
  });

  test('a rollback whose preflight fails leaves the units where they are', async () => {
    const world = bench.world();
    const run = await bench.start(world);
    await run.settle();
    world.badChecks.set('preflight', 'a link is down');
    await run.update('rollback');
    const soaking = await run.drive((s) => s.steps.filter((x) => x.step === 'soak').length === 2);
    expect(soaking.summary).toContain('a link is down');
    world.badChecks.clear();
    await run.update('rollback');
    expect((await run.end()).outcome).toBe('rolled-back');
    expect(world.violations).toEqual([]);
  });
});

test.each(['done', 'compensated'] as const)('who holds other units is not forgotten: %s', async (outcome) => {
  const world = bench.world();
  const holder = { workflowId: 'switchover/renamed', runId: 'another' };
  world.changeRules(holder);
  if (outcome === 'compensated') world.fault('switchTarget', 'refuses');
  const report = await (await bench.start(world)).end();
  expect(report.outcome).toBe(outcome);
  expect(world.violations).toEqual([]);
  expect(world.holderByRules).toEqual(holder);
});

test('what a dead run left write-disabled is opened, also when the rules do not have it any more', async () => {
  const world = bench.world();
  world.badChecks.set('preflight', 'a link is down');
  const { workflowId, runId } = await (await bench.start(world)).end();
  world.badChecks.clear();
  world.leave('segment:gone', { workflowId, runId });
  expect((await (await bench.start(world)).end()).outcome).toBe('done');
  expect(world.row('dc-a', 'main', 'segment:gone').state).toBe('open');
  expect(world.violations).toEqual([]);
});

describe('refusals', () => {
  test('a request that does not fit says what does', async () => {
    const world = bench.world();
    world.links = 'stuck';
    const run = await bench.start(world);
    await run.drive((s) => s.awaiting === 'drain');
    const refusal = async (name: string) => {
      const error: unknown = await run.update(name).catch((e: unknown) => e);
      expect(error).toBeInstanceOf(WorkflowUpdateFailedError);
      return (error as WorkflowUpdateFailedError).cause!.message;
    };
    expect(await refusal('rollback')).toContain('`abort`');
    expect(await refusal('finish')).toContain('`abort`');
    await world.unstick();
    await run.settle();
    expect(await refusal('abort')).toContain('`rollback`');
    expect(await refusal('extend')).toContain('not under way');
    await run.update('finish');
    await run.end();
  });

  test('a plan with another hash, failed checks, rules that change meanwhile', async () => {
    const planned = bench.world();
    const refused = await (await bench.start(planned, { planHash: 'another' })).end();
    expect(refused).toMatchObject({ outcome: 'refused', error: { code: 'Refused' } });
    expect(refused.error?.message).toContain('interlock switch plan');

    const checked = bench.world();
    checked.badChecks.set('preflight', 'no InnoDB');
    expect((await (await bench.start(checked)).end()).error?.message).toContain('no InnoDB');

    const changing = bench.world();
    changing.on('after', 'catchUp', () => changing.changeRules());
    expect((await (await bench.start(changing)).end()).error?.message).toContain('rules changed');
    for (const world of [planned, checked, changing]) {
      expect(world.calls).not.toContain('writeDisable');
      expect(world.owner()).toBe('dc-a');
    }
  });

  test('a run or execution timeout, and bad input', async () => {
    const world = bench.world();
    for (const options of [{ workflowRunTimeout: '1h' }, { workflowExecutionTimeout: '1h' }] as const) {
      const run = await bench.start(world, {}, options);
      await expect(run.handle.result()).rejects.toMatchObject({ cause: { type: 'BadInput' } });
    }
    for (const change of [
      { to: 'dc-a' },
      { taskQueues: {} },
      { policies: { soakMs: -1 } },
      { policies: { unconfirmed: 'wait', confirmTimeoutMs: 0 } },
      { scope: '' },
      { reason: 'x'.repeat(401) },
    ] as const) {
      const run = await bench.start(world, change);
      await expect(run.handle.result()).rejects.toMatchObject({ cause: { type: 'BadInput' } });
    }
    expect(world.calls).toEqual([]);
  });

  test('a second switchover while one is under way', async () => {
    const world = bench.world();
    const run = await bench.start(world);
    await expect(bench.start(world)).rejects.toThrow(/already started/i);
    await run.settle();
  });
});

test('gateways that do not confirm: reported, or awaited', async () => {
  const reported = bench.world();
  reported.unconfirmed = true;
  const soaking = await (await bench.start(reported)).settle();
  expect(soaking.needs).toBeNull();
  expect(soaking.steps.find((s) => s.detail.includes('not confirmed'))?.detail).toContain('gw of dc-b');

  const awaited = bench.world();
  awaited.unconfirmed = true;
  const run = await bench.start(awaited, { policies: { unconfirmed: 'wait' } });
  const waiting = await run.drive((s) => s.needs !== null);
  expect(waiting.needs).toContain('not confirmed by gw of dc-b');
  // Temporal ends a run whose history is too long.
  await bench.env.sleep(3 * HOUR_MS);
  expect(awaited.calls.filter((name) => name === 'confirm').length).toBeLessThan(100);
  awaited.unconfirmed = false;
  expect((await run.settle()).needs).toBeNull();
});

test('the report tells what happened, is kept, and can be asked for after the end', async () => {
  const world = bench.world();
  const run = await bench.start(world, { reason: 'maintenance' });
  const settled = run.handle.executeUpdate('settled');
  await run.settle();
  expect(await settled).toMatchObject({ awaiting: 'rollback-or-finish' });
  await run.update('finish');
  const report = await run.end();
  expect(report).toMatchObject({
    outcome: 'done',
    unitCount: 2,
    planHash: 'hash-1',
    error: null,
    needs: null,
  });
  expect(report.request).toMatchObject({ reason: 'maintenance', startedBy: 'tester' });
  expect(report.flows[0]).toMatchObject({ fenceEpoch: 2, switchEpoch: 3, fencedMs: 20 });
  expect(report.clients).toEqual({
    heldRequests: 14,
    refusedRequests: 0,
    failedRequests: 0,
    unavailableMs: 21,
  });
  expect(report.steps.every((s) => s.ok === true && s.endedAt !== null)).toBe(true);
  expect(world.reports.at(-1)).toEqual(report);
  expect(await run.handle.query('report')).toEqual(report);
  expect(await run.status()).toMatchObject({ outcome: 'done', needs: null });
});
