import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Bench } from './harness.js';
import type { ActivityName, Fault, World } from './model.js';
import type { Moment } from './moments.js';

/** The target sees by itself that the links have reached the baseline, and switches before the workflow hears of it. */
let bench: Bench;
beforeAll(async () => {
  bench = await Bench.create();
});
afterAll(() => bench?.close());

function quick(): World {
  const world = bench.world();
  world.quick = true;
  return world;
}

/** Every unit is open in the data center that the outcome names. */
function consistent(world: World, outcome: string): void {
  expect(world.violations).toEqual([]);
  expect(world.owner()).toBe(outcome === 'done' ? 'dc-b' : 'dc-a');
}

test.each(['prompt', 'early', 'doubled', 'signal-lost'] as const)(
  'marker signal %s: the workflow asks for no switch, there and back',
  async (links) => {
    const world = quick();
    world.links = links;
    const run = await bench.start(world);
    await run.settle();
    consistent(world, 'done');
    await run.update('rollback');
    const report = await run.end();
    expect(report.outcome).toBe('rolled-back');
    consistent(world, 'rolled-back');
    expect(world.calls).not.toContain('switchTarget');
    for (const flow of report.flows) {
      expect(flow.baselines.map((b) => b.drainMs)).not.toContain(null);
      expect(flow.fencedMs).toBe(20);
    }
    // As the data centers saw them; the workflow hears of all three at once.
    const took = report.steps
      .filter(({ step }) => ['write-disable', 'drain', 'switch'].includes(step))
      .map(({ startedAt, endedAt }) => [Date.parse(startedAt), Date.parse(endedAt!)]);
    const seen = [
      [1_000, 1_005],
      [1_005, 1_009],
      [1_009, 1_012],
    ];
    expect(took).toEqual([...seen, ...seen]);
    const drained = report.steps.filter(({ step }) => step === 'drain' || step === 'switch');
    expect(drained.map(({ step, ok }) => [step, ok])).toEqual([
      ['drain', true],
      ['switch', true],
      ['drain', true],
      ['switch', true],
    ]);
  },
);

test('a marker with a quarantine count is not drained', async () => {
  const world = quick();
  world.links = 'quarantined';
  const report = await (await bench.start(world)).end();
  expect(report.error?.code).toBe('LinkStopped');
  consistent(world, report.outcome);
});

describe('a switch that goes wrong is asked for again by the workflow', () => {
  test.each<Fault>(['fails', 'refuses', 'answer-lost', 'half', 'silent', 'late'])(
    '%s: done',
    async (fault) => {
      const world = quick();
      world.fault('switchWhenDrained', fault);
      const run = await bench.start(world);
      await run.settle();
      world.arrive();
      consistent(world, 'done');
      expect(world.calls).toContain('switchTarget');
      await run.update('rollback');
      expect((await run.end()).outcome).toBe('rolled-back');
      consistent(world, 'rolled-back');
    },
  );

  const POINTS: Moment[] = [
    ['before', 'switchTarget'],
    ['after', 'switchTarget'],
    ['before', 'handOverSource'],
    ['after', 'handOverSource'],
    ['before', 'raiseTarget'],
    ['after', 'raiseTarget'],
    ['before', 'reopenSource'],
    ['after', 'reopenSource'],
  ];
  test.each(POINTS.flatMap(([when, at]) => [false, true].map((refused) => ({ when, at, refused }))))(
    'and arrives $when $at (the other one refused: $refused)',
    async ({ when, at, refused }) => {
      const world = quick();
      world.fault('switchWhenDrained', 'late');
      if (refused) world.fault('switchTarget', 'refuses');
      world.on(when, at, () => world.arrive());
      const run = await bench.start(world);
      await run.settle();
      world.arrive();
      consistent(world, (await run.end()).outcome);
    },
  );
});

describe('a fence whose answer is lost', () => {
  test.each([1, 1_000])('%s times: what the target has switched stays', async (times) => {
    const world = quick();
    world.fault('writeDisable', 'answer-lost', times);
    const run = await bench.start(world);
    await run.settle();
    world.heal();
    const report = await run.end();
    expect(report.outcome).toBe('done');
    consistent(world, 'done');
  });
});

describe('abort', () => {
  const POINTS: [when: 'before' | 'after', name: ActivityName][] = [
    ['before', 'switchWhenDrained'],
    ['after', 'switchWhenDrained'],
    ['before', 'writeDisable'],
    ['after', 'writeDisable'],
  ];
  test.each(POINTS)('%s %s: the units are where the run says', async (when, name) => {
    const world = quick();
    const run = await bench.start(world);
    world.on(when, name, () => run.handle.signal('abort'));
    await run.settle();
    consistent(world, (await run.end()).outcome);
  });

  test.each<Fault>(['late', 'answer-lost', 'silent'])('while the switch is under way (%s)', async (fault) => {
    const world = quick();
    world.fault('switchWhenDrained', fault);
    world.links = 'stuck';
    const run = await bench.start(world);
    await run.drive((s) => s.awaiting === 'drain');
    world.on('before', 'raiseTarget', async () => {
      await world.unstick();
      world.arrive();
    });
    await run.handle.signal('abort');
    await run.settle();
    world.arrive();
    consistent(world, (await run.end()).outcome);
  });
});
