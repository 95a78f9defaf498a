import { setTimeout as wait } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { SwitchOutcome } from '../../workflows/contract.js';
import { Bench, QUEUE } from './harness.js';
import type { Run } from './harness.js';
import type { ActivityName, Fault, World } from './model.js';
import { passTimeout } from './skipped-time.js';

let bench: Bench;
beforeAll(async () => {
  bench = await Bench.create();
});
// A test server that has lost count of its locks lets no time pass any more: all tests behind would wait for nothing.
afterEach(async ({ task }) => {
  if (task.result?.state !== 'fail') return;
  await bench.close();
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
    { name, fault: 'overdue', outcome: 'done', arriving: ['before', 'writeDisable'] },
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
  { name: 'handOverSource', fault: 'silent', outcome: 'done' },
  { name: 'handOverSource', fault: 'silent', times: FOR_EVER, outcome: 'done', needsHealing: true },
  { name: 'handOverSource', fault: 'fails', times: FOR_EVER, outcome: 'done', needsHealing: true },
  { name: 'handOverSource', fault: 'refuses', times: FOR_EVER, outcome: 'done', needsHealing: true },

  { name: 'raiseTarget', first: 'switchTarget', fault: 'fails', times: 3, outcome: 'compensated' },
  { name: 'raiseTarget', first: 'switchTarget', fault: 'answer-lost', outcome: 'compensated' },
  { name: 'raiseTarget', first: 'switchTarget', fault: 'half', outcome: 'compensated' },
  { name: 'raiseTarget', first: 'switchTarget', fault: 'late', outcome: 'compensated' },
  { name: 'raiseTarget', first: 'switchTarget', fault: 'silent', outcome: 'compensated' },
  { name: 'raiseTarget', first: 'writeDisable', fault: 'silent', outcome: 'compensated' },
  {
    name: 'raiseTarget',
    first: 'switchTarget',
    fault: 'silent',
    times: FOR_EVER,
    outcome: 'compensated',
    needsHealing: true,
  },
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
  { name: 'reopenSource', first: 'switchTarget', fault: 'silent', outcome: 'compensated' },
  {
    name: 'reopenSource',
    first: 'switchTarget',
    fault: 'silent',
    times: FOR_EVER,
    outcome: 'compensated',
    needsHealing: true,
  },
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
    // Time-outs are the server's, and take their time.
    if (c.fault === 'silent' || c.fault === 'overdue') return false;
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

describe('an answer to a call that an abort has given up changes nothing', () => {
  /** The next call of `name` answers when it is let; its answer is in the history when `answer` returns. */
  function hold(world: World, name: ActivityName) {
    let release = (): void => undefined;
    const released = new Promise<void>((resolve) => (release = resolve));
    const asked = new Promise<void>((resolve) => {
      world.on('before', name, () => {
        resolve();
        return released;
      });
    });
    const answered = async (run: Run): Promise<number> => {
      const { events } = await run.handle.fetchHistory();
      const scheduled = events!
        .filter((e) => e.activityTaskScheduledEventAttributes?.activityType?.name === name)
        .map((e) => String(e.eventId));
      return events!.filter((e) =>
        scheduled.includes(String(e.activityTaskCompletedEventAttributes?.scheduledEventId)),
      ).length;
    };
    return {
      asked,
      async answer(run: Run): Promise<void> {
        const before = await answered(run);
        release();
        while ((await answered(run)) === before) await wait(10);
      },
    };
  }

  test.each(UNFENCED)('%s', async (name) => {
    const world = bench.world();
    const call = hold(world, name);
    const report = hold(world, 'recordReport');
    const run = await bench.start(world);
    await call.asked;
    await run.update('abort');
    await report.asked;
    const status = await run.status();
    const calls = world.calls.length;
    await call.answer(run);
    expect(await run.status()).toEqual(status);
    await report.answer(run);
    expect((await run.end()).outcome).toBe('aborted');
    expect(world.calls).toHaveLength(calls);
    expect(world.owner()).toBe('dc-a');
  });

  test.each(UNFENCED.filter((name) => name !== 'findHeld'))('rollback: %s', async (name) => {
    const world = bench.world();
    const run = await bench.start(world);
    await run.settle();
    const call = hold(world, name);
    await run.update('rollback');
    await call.asked;
    const report = hold(world, 'recordReport');
    await run.update('abort');
    await report.asked;
    await report.answer(run);
    const soaking = await run.status();
    expect(soaking.summary).toContain('The rollback was aborted');
    const calls = world.calls.length;
    await call.answer(run);
    expect(await run.status()).toEqual(soaking);
    expect(world.calls).toHaveLength(calls);
    await run.update('rollback');
    expect((await run.end()).outcome).toBe('rolled-back');
    expect(world.violations).toEqual([]);
    expect(world.owner()).toBe('dc-a');
  });
});

describe('the signals of the links are lost, and the checkpoints', () => {
  function lost(): World {
    const world = bench.world();
    world.links = 'signal-lost';
    return world;
  }

  test.each(['fails', 'silent', 'answer-lost'] as const)('can not be read (%s) once: done', async (fault) => {
    const world = lost();
    world.fault('readBaselines', fault);
    const run = await bench.start(world);
    await run.settle();
    expect(world.violations).toEqual([]);
    expect(world.owner()).toBe('dc-b');
  });

  test('can not be read for ever: the policy abort opens the source again and says why', async () => {
    const world = lost();
    world.fault('readBaselines', 'fails', FOR_EVER);
    const report = await (await bench.start(world)).end();
    expect(world.violations).toEqual([]);
    expect(report.outcome).toBe('compensated');
    expect(report.error?.message).toContain(
      'mysql/main:dc-a>dc-b, mysql/orders:dc-a>dc-b did not reach the baseline',
    );
    expect(report.error?.message).toContain('readBaselines does not work');
    expect(world.owner()).toBe('dc-a');
  });

  test('can not be read for ever: the policy extend waits until they can', async () => {
    const world = lost();
    world.fault('readBaselines', 'fails', FOR_EVER);
    const run = await bench.start(world, { policies: { drainTimeout: 'extend', drainTimeoutMs: 5_000 } });
    const waiting = await run.drive((s) => s.awaiting === 'extend-or-abort');
    expect(waiting.needs).toContain('readBaselines does not work');
    expect(world.calls).not.toContain('switchTarget');
    world.heal();
    await run.update('extend');
    expect((await run.settle()).needs).toBeNull();
    expect(world.violations).toEqual([]);
    expect(world.owner()).toBe('dc-b');
  });

  test.each(['markerId', 'link'] as const)(
    'answer with a stranger’s %s: it drains nothing',
    async (field) => {
      const world = lost();
      world.misread = (answers) => answers.map((a) => ({ ...a, [field]: 'a stranger’s' }));
      const report = await (await bench.start(world)).end();
      expect(world.calls).toContain('readBaselines');
      expect(world.calls).not.toContain('switchTarget');
      expect(report.outcome).toBe('compensated');
      expect(report.error?.message).toContain('did not reach the baseline');
      expect(world.violations).toEqual([]);
      expect(world.owner()).toBe('dc-a');
    },
  );

  test.each(['quarantined', 'conflicts'] as const)('answer with %s changes: not drained', async (field) => {
    const world = lost();
    world.misread = (answers) => answers.map((a) => ({ ...a, [field]: 1 }));
    const report = await (await bench.start(world)).end();
    expect(world.calls).not.toContain('switchTarget');
    expect(report.outcome).toBe('compensated');
    expect(report.error?.code).toBe('LinkStopped');
    expect(report.error?.message).toContain(`1 ${field}`);
    expect(world.owner()).toBe('dc-a');
  });

  test('answer with quarantined changes: the policy extend waits until they are mended', async () => {
    const world = lost();
    world.misread = (answers) => answers.map((a) => ({ ...a, quarantined: 1 }));
    const run = await bench.start(world, { policies: { drainTimeout: 'extend', drainTimeoutMs: 5_000 } });
    const waiting = await run.drive((s) => s.awaiting === 'extend-or-abort');
    expect(waiting.needs).toContain('1 quarantined');
    world.misread = undefined;
    await run.update('extend');
    await run.settle();
    expect(world.violations).toEqual([]);
    expect(world.owner()).toBe('dc-b');
  });
});

test.each(['dc-a', 'dc-b'])(
  '%s is dead before the fence: refused, with the name of its worker',
  async (dead) => {
    const world = bench.world();
    const taskQueues = { 'dc-a': QUEUE, 'dc-b': QUEUE, [dead]: 'polled-by-nobody' };
    const startedMs = await bench.env.currentTimeMs();
    const run = await bench.start(world, { taskQueues });
    await new Promise<void>((resolve) => world.on('after', 'preflight', resolve));
    await passTimeout(bench.env, startedMs + 60_000);
    const report = await run.end();
    expect(report.outcome).toBe('refused');
    expect(report.error).toMatchObject({ code: 'Unavailable' });
    expect(report.summary).toContain(`interlock worker --dc ${dead}`);
    expect(report.steps.at(-1)).toMatchObject({ step: 'preflight', ok: false });
    expect(world.calls).not.toContain('writeDisable');
    expect(world.owner()).toBe('dc-a');
  },
);

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
