import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { SwitchOutcome } from '../../workflows/contract.js';
import { Bench } from './harness.js';
import type { Run } from './harness.js';
import type { ActivityName, Fault, World } from './model.js';

let bench: Bench;
beforeAll(async () => {
  bench = await Bench.create();
});
afterAll(() => bench?.close());

const HOUR_MS = 3_600_000;
const FOR_EVER = 1_000;
/** As many attempts as the window gives a call: more is for ever there. */
const WINDOW_ATTEMPTS = 5;

interface Case {
  name: ActivityName;
  fault: Fault;
  times?: number;
  outcome: SwitchOutcome;
  /** What must go wrong first, so that the step is taken at all. */
  first?: ActivityName;
  /** When late operations arrive; else at the end. */
  arriving?: ['before' | 'after', ActivityName];
  /** Only after it is healed does it end: until then the status names what is awaited, with a command. */
  needsHealing?: boolean;
}

const UNFENCED: ActivityName[] = ['findHeld', 'makePlan', 'preflight', 'catchUp', 'nextEpoch'];

const CASES: Case[] = [
  ...UNFENCED.flatMap((name): Case[] => [
    { name, fault: 'fails', outcome: 'done' },
    { name, fault: 'fails', times: FOR_EVER, outcome: 'refused' },
    { name, fault: 'refuses', outcome: 'refused' },
  ]),
  { name: 'gatewayTotals', fault: 'fails', times: FOR_EVER, outcome: 'done' },

  { name: 'writeDisable', fault: 'fails', outcome: 'done' },
  { name: 'writeDisable', fault: 'answer-lost', outcome: 'done' },
  { name: 'writeDisable', fault: 'half', outcome: 'done' },
  { name: 'writeDisable', fault: 'fails', times: FOR_EVER, outcome: 'compensated' },
  { name: 'writeDisable', fault: 'refuses', outcome: 'compensated' },
  { name: 'writeDisable', fault: 'answer-lost', times: FOR_EVER, outcome: 'compensated' },
  { name: 'writeDisable', fault: 'half', times: FOR_EVER, outcome: 'compensated' },
  { name: 'writeDisable', fault: 'silent', times: FOR_EVER, outcome: 'compensated' },
  { name: 'writeDisable', fault: 'late', times: FOR_EVER, outcome: 'compensated' },
  {
    name: 'writeDisable',
    fault: 'late',
    times: FOR_EVER,
    outcome: 'compensated',
    arriving: ['before', 'raiseTarget'],
  },
  {
    name: 'writeDisable',
    fault: 'late',
    times: FOR_EVER,
    outcome: 'compensated',
    arriving: ['before', 'reopenSource'],
  },
  {
    name: 'writeDisable',
    fault: 'late',
    times: FOR_EVER,
    outcome: 'compensated',
    arriving: ['after', 'reopenSource'],
  },

  { name: 'switchTarget', fault: 'fails', outcome: 'done' },
  { name: 'switchTarget', fault: 'answer-lost', outcome: 'done' },
  { name: 'switchTarget', fault: 'half', outcome: 'done' },
  { name: 'switchTarget', fault: 'fails', times: WINDOW_ATTEMPTS, outcome: 'compensated' },
  { name: 'switchTarget', fault: 'refuses', outcome: 'compensated' },
  { name: 'switchTarget', fault: 'answer-lost', times: WINDOW_ATTEMPTS, outcome: 'done' },
  { name: 'switchTarget', fault: 'answer-lost', times: FOR_EVER, outcome: 'done', needsHealing: true },
  { name: 'switchTarget', fault: 'half', times: WINDOW_ATTEMPTS, outcome: 'done' },
  { name: 'switchTarget', fault: 'silent', times: 2, outcome: 'compensated' },
  { name: 'switchTarget', fault: 'late', times: WINDOW_ATTEMPTS, outcome: 'compensated' },
  {
    name: 'switchTarget',
    fault: 'late',
    times: WINDOW_ATTEMPTS,
    outcome: 'done',
    arriving: ['before', 'raiseTarget'],
  },
  {
    name: 'switchTarget',
    fault: 'late',
    times: WINDOW_ATTEMPTS,
    outcome: 'compensated',
    arriving: ['after', 'raiseTarget'],
  },
  {
    name: 'switchTarget',
    fault: 'late',
    times: WINDOW_ATTEMPTS,
    outcome: 'compensated',
    arriving: ['before', 'reopenSource'],
  },
  {
    name: 'switchTarget',
    fault: 'late',
    times: WINDOW_ATTEMPTS,
    outcome: 'compensated',
    arriving: ['after', 'reopenSource'],
  },

  { name: 'handOverSource', fault: 'fails', outcome: 'done' },
  { name: 'handOverSource', fault: 'answer-lost', outcome: 'done' },
  { name: 'handOverSource', fault: 'half', outcome: 'done' },
  { name: 'handOverSource', fault: 'late', outcome: 'done' },
  { name: 'handOverSource', fault: 'refuses', times: 3, outcome: 'done' },
  { name: 'handOverSource', fault: 'fails', times: FOR_EVER, outcome: 'done', needsHealing: true },
  { name: 'handOverSource', fault: 'refuses', times: FOR_EVER, outcome: 'done', needsHealing: true },

  { name: 'raiseTarget', first: 'switchTarget', fault: 'fails', times: 3, outcome: 'compensated' },
  { name: 'raiseTarget', first: 'switchTarget', fault: 'answer-lost', outcome: 'compensated' },
  { name: 'raiseTarget', first: 'switchTarget', fault: 'half', outcome: 'compensated' },
  { name: 'raiseTarget', first: 'switchTarget', fault: 'late', outcome: 'compensated' },
  {
    name: 'raiseTarget',
    first: 'switchTarget',
    fault: 'fails',
    times: FOR_EVER,
    outcome: 'compensated',
    needsHealing: true,
  },
  {
    name: 'raiseTarget',
    first: 'switchTarget',
    fault: 'refuses',
    times: FOR_EVER,
    outcome: 'compensated',
    needsHealing: true,
  },
  {
    name: 'raiseTarget',
    first: 'writeDisable',
    fault: 'fails',
    times: FOR_EVER,
    outcome: 'compensated',
    needsHealing: true,
  },
  { name: 'reopenSource', first: 'writeDisable', fault: 'fails', times: 3, outcome: 'compensated' },
  { name: 'reopenSource', first: 'writeDisable', fault: 'half', outcome: 'compensated' },
  { name: 'reopenSource', first: 'switchTarget', fault: 'answer-lost', outcome: 'compensated' },
  { name: 'reopenSource', first: 'switchTarget', fault: 'late', outcome: 'compensated' },
  {
    name: 'reopenSource',
    first: 'switchTarget',
    fault: 'fails',
    times: FOR_EVER,
    outcome: 'compensated',
    needsHealing: true,
  },
  {
    name: 'reopenSource',
    first: 'switchTarget',
    fault: 'refuses',
    times: FOR_EVER,
    outcome: 'compensated',
    needsHealing: true,
  },

  { name: 'confirm', fault: 'fails', times: FOR_EVER, outcome: 'done' },
  { name: 'postCheck', fault: 'fails', times: FOR_EVER, outcome: 'done' },
  { name: 'recordReport', fault: 'fails', times: FOR_EVER, outcome: 'done' },
];

const title = (c: Case): string =>
  [
    c.first ? `${c.first} refused, ${c.name}` : c.name,
    c.fault,
    c.times === undefined ? 'once' : c.times === FOR_EVER ? 'for ever' : `${c.times} times`,
    ...(c.arriving ? [`and arrives ${c.arriving.join(' ')}`] : []),
    `→ ${c.outcome}`,
  ].join(' ');

function arrange(world: World, c: Case): void {
  if (c.first) world.fault(c.first, 'refuses');
  world.fault(c.name, c.fault, c.times ?? 1);
  if (c.arriving) world.on(...c.arriving, () => world.arrive());
}

/** Until the run says loudly what it waits for; then whatever was wrong is mended. */
async function heal(run: Run): Promise<void> {
  const waiting = await run.drive((s) => s.needs !== null);
  expect(waiting.needs).toMatch(/interlock|tried again/);
  run.world.heal();
}

describe('a step that goes wrong', () => {
  test.each(CASES.map((c) => [title(c), c] as const))('move: %s', async (_title, c) => {
    const world = bench.world();
    arrange(world, c);
    const run = await bench.start(world);
    if (c.needsHealing) await heal(run);
    await run.settle();
    world.heal();
    world.arrive();
    const report = await run.end();
    expect(world.violations).toEqual([]);
    expect(report.outcome).toBe(c.outcome);
    expect(world.owner()).toBe(c.outcome === 'done' ? 'dc-b' : 'dc-a');
    expect(report.error === null).toBe(c.outcome === 'done');
  });

  const behindTheFence = CASES.filter((c) => {
    if (c.fault === 'silent') return false;
    const name = c.first ?? c.name;
    return ['preflight', 'nextEpoch', 'writeDisable', 'switchTarget', 'handOverSource'].includes(name);
  });
  test.each(behindTheFence.map((c) => [title(c), c] as const))('rollback: %s', async (_title, c) => {
    const world = bench.world();
    const run = await bench.start(world);
    await run.settle();
    arrange(world, c);
    await run.update('rollback');
    if (c.needsHealing) await heal(run);
    await run.settle();
    world.heal();
    world.arrive();
    if (c.outcome !== 'done') {
      // The units stay where they were moved, and the soak begins again: the rollback may be tried once more.
      expect(world.owner()).toBe('dc-b');
      await run.update('rollback');
    }
    const report = await run.end();
    expect(world.violations).toEqual([]);
    expect(report.outcome).toBe('rolled-back');
    expect(world.owner()).toBe('dc-a');
  });
});

test('a compensation that is refused again and again asks ever more seldom', async () => {
  const world = bench.world();
  world.fault('switchTarget', 'refuses');
  world.fault('reopenSource', 'refuses', FOR_EVER);
  const run = await bench.start(world);
  await run.drive((s) => s.needs !== null);
  await bench.env.sleep(6 * HOUR_MS);
  // Temporal ends a run whose history is too long, and the units would stay fenced.
  expect(world.calls.filter((name) => name === 'reopenSource').length).toBeLessThan(80);
  world.heal();
  expect((await run.end()).outcome).toBe('compensated');
  expect(world.violations).toEqual([]);
  expect(world.owner()).toBe('dc-a');
});
