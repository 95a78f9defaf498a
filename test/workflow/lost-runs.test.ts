import { setTimeout as wait } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Bench } from './harness.js';
import type { Run } from './harness.js';
import type { ActivityName, World } from './model.js';
import { BEFORE_THE_SWITCH, FROM_THE_SWITCH, IN_COMPENSATION } from './moments.js';
import type { Moment } from './moments.js';

/**
 * Workers that are lost, and runs that are reset, on the real dev server in real time: the time-skipping server has no resets, and
 * hands tasks to the polls of a worker that is gone.
 */
let bench: Bench;
beforeAll(async () => {
  bench = await Bench.create('real');
});
afterAll(() => bench?.close());

const MOMENTS: Moment[] = [...BEFORE_THE_SWITCH, ...FROM_THE_SWITCH, ['after', 'recordReport']];

/** The switch that is asked for with the fence. */
const QUICK: Moment[] = [
  ['before', 'switchWhenDrained'],
  ['after', 'switchWhenDrained'],
  ['after', 'writeDisable'],
  ['before', 'handOverSource'],
];

async function passed(world: World, ...moment: Moment): Promise<void> {
  await new Promise<void>((resolve) => world.on(...moment, resolve));
}

describe('a worker is lost', () => {
  const points: ActivityName[] = [
    'findHeld',
    'makePlan',
    'preflight',
    'catchUp',
    'nextEpoch',
    'gatewayTotals',
    'writeDisable',
    'switchWhenDrained',
    'switchTarget',
    'handOverSource',
    'confirm',
    'postCheck',
    'recordReport',
  ];
  test.each(points)('behind %s: another one goes on', async (name) => {
    const world = bench.world();
    world.quick = name === 'switchWhenDrained';
    const there = passed(world, 'after', name);
    const run = await bench.start(world);
    await there;
    await bench.replaceWorker();
    await run.settle();
    expect(world.violations).toEqual([]);
    expect(world.owner()).toBe('dc-b');
  });

  test('while draining: another one goes on', async () => {
    const world = bench.world();
    world.links = 'stuck';
    const run = await bench.start(world);
    await run.drive((s) => s.awaiting === 'drain');
    await bench.replaceWorker(() => world.unstick());
    await run.settle();
    expect(world.violations).toEqual([]);
    expect(world.owner()).toBe('dc-b');
  });

  test.each(['raiseTarget', 'reopenSource'] as const)(
    'while compensating, behind %s: another one goes on',
    async (name) => {
      const world = bench.world();
      world.fault('switchTarget', 'refuses');
      const there = passed(world, 'after', name);
      const run = await bench.start(world);
      await there;
      await bench.replaceWorker();
      expect((await run.end()).outcome).toBe('compensated');
      expect(world.violations).toEqual([]);
      expect(world.owner()).toBe('dc-a');
    },
  );

  test('of the target, before it took the switch: the source opens without it', async () => {
    const world = bench.world();
    world.links = 'stuck';
    const stop = await bench.work('target');
    world.on('before', 'nextEpoch', stop);
    const taskQueues = { 'dc-a': bench.queue, 'dc-b': 'target' };
    const run = await bench.start(world, { taskQueues, policies: { drainTimeoutMs: 6_000 } });
    await run.drive(
      (s) => s.steps.some(({ step }) => step === 'compensate') && world.calls.includes('reopenSource'),
    );
    expect(world.row('dc-a', 'main', 'cn-east/0').state).toBe('open');
    expect(world.calls).not.toContain('switchWhenDrained');
    await bench.work('target');
    expect((await run.end()).outcome).toBe('compensated');
    expect(world.violations).toEqual([]);
    expect(world.owner()).toBe('dc-a');
  });

  test('in the soak: cancel and the end of its time in one workflow task finish it', async () => {
    const world = bench.world();
    const run = await bench.start(world, { policies: { soakMs: 4_000 } });
    await run.settle();
    await bench.replaceWorker(async () => {
      await wait(4_500);
      await run.handle.cancel();
    });
    expect((await run.end()).outcome).toBe('done');
    expect(world.owner()).toBe('dc-b');
  });
});

describe('a run is terminated and another one started', () => {
  test.each([
    ...MOMENTS.map((moment) => ({ moment, how: '' })),
    ...IN_COMPENSATION.map((moment) => ({ moment, how: ' (compensating)' })),
    ...QUICK.map((moment) => ({ moment, how: ' (quick switch)' })),
  ])('$moment$how: the next run mends, and moves what is left to move', async ({ moment, how }) => {
    const world = bench.world();
    if (how === ' (compensating)') world.fault('switchTarget', 'refuses');
    world.quick = how === ' (quick switch)';
    const first = await bench.start(world);
    let terminated = false;
    world.on(...moment, async () => {
      await first.handle.terminate('test');
      terminated = true;
    });
    while (!terminated || world.pending > 0) await wait(5);
    const second = await bench.start(world);
    await second.settle();
    expect(world.violations).toEqual([]);
    expect(world.owner()).toBe('dc-b');
  });

  /** The dead run's operation is still on its way when the next run has mended, or is about to. */
  test.each(
    (['writeDisable', 'switchTarget', 'handOverSource'] as const).flatMap((name) =>
      (
        [
          ['after', 'findHeld'],
          ['before', 'raiseTarget'],
          ['after', 'raiseTarget'],
          ['after', 'reopenSource'],
          ['before', 'writeDisable'],
          ['after', 'writeDisable'],
          ['before', 'switchTarget'],
          ['after', 'handOverSource'],
        ] as Moment[]
      ).map((at) => ({ name, at })),
    ),
  )('a late $name of a terminated run arrives $at', async ({ name, at }) => {
    const world = bench.world();
    const first = await bench.start(world);
    let terminated = false;
    world.on('before', name, async () => {
      await first.handle.terminate('test');
      terminated = true;
    });
    world.fault(name, 'late');
    while (!terminated || world.pending > 0) await wait(5);
    world.on(...at, () => world.arrive());
    const second = await bench.start(world);
    await second.settle();
    world.arrive();
    expect(world.violations).toEqual([]);
    // Whatever the second run came to (an operation that arrives behind its look for leftovers stops it): the next one mends.
    if (world.owner() === 'dc-b') return;
    await second.end();
    const third = await bench.start(world);
    await third.settle();
    expect(world.violations).toEqual([]);
    expect(world.owner()).toBe('dc-b');
  });

  test('units of a run that is not closed are left alone', async () => {
    const world = bench.world();
    world.links = 'stuck';
    const first = await bench.start(world);
    await first.drive((s) => s.awaiting === 'drain');
    // Another workflow id, as of a topology that was renamed: its fence is not ours.
    const foreign = await bench.startAs(world, 'switchover/renamed');
    const report = await foreign.end();
    expect(report.outcome).toBe('needs-operator');
    expect(report.needs).toContain('interlock fence release');
    await world.unstick();
    await first.settle();
    expect(world.violations).toEqual([]);
    expect(world.owner()).toBe('dc-b');
  });
});

describe('a run is reset', () => {
  /** Nothing is violated, the run says where the units are, and the next one moves what is left to move. */
  async function mends(world: World, reset: Run): Promise<void> {
    const settled = await reset.settle();
    expect(world.violations).toEqual([]);
    expect(settled.needs).toBeNull();
    expect(world.owner()).toMatch(/^dc-[ab]$/);
    if (world.owner() === 'dc-b') return;
    await reset.end();
    await (await bench.start(world)).settle();
    expect(world.violations).toEqual([]);
    expect(world.owner()).toBe('dc-b');
  }

  test.each(
    [
      ...[...MOMENTS, ...IN_COMPENSATION].map((moment) => ({ moment, quick: false })),
      ...QUICK.map((moment) => ({ moment, quick: true })),
    ].flatMap((one) => (['first', 'last'] as const).map((task) => ({ ...one, task }))),
  )('$moment, to its $task task (quick switch: $quick): nothing breaks', async ({ moment, quick, task }) => {
    const world = bench.world();
    world.quick = quick;
    if (IN_COMPENSATION.includes(moment)) world.fault('switchTarget', 'refuses');
    const first = await bench.start(world);
    const reset = await new Promise<Run>((resolve, reject) => {
      world.on(...moment, () => bench.reset(first, task).then(resolve, reject));
    });
    await mends(world, reset);
  });

  test.each([false, true])(
    'from the soak, to each of its tasks (quick switch: %s): nothing breaks',
    async (quick) => {
      for (let task = 0; ; task++) {
        const world = bench.world();
        world.quick = quick;
        const first = await bench.start(world);
        await first.settle();
        const { events } = await first.handle.fetchHistory();
        if (events!.filter((event) => event.workflowTaskCompletedEventAttributes).length <= task) break;
        await mends(world, await bench.reset(first, task));
      }
    },
  );

  test('from its end as rolled back, to its first task: it moves the units again', async () => {
    const world = bench.world();
    const first = await bench.start(world);
    await first.settle();
    await first.update('rollback');
    expect((await first.end()).outcome).toBe('rolled-back');
    await mends(world, await bench.reset(first, 'first'));
  });
});
