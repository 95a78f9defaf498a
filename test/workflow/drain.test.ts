import { afterAll, beforeAll, expect, test } from 'vitest';
import { Bench } from './harness.js';
import type { Links } from './model.js';

const HOUR_MS = 3_600_000;

let bench: Bench;
beforeAll(async () => {
  bench = await Bench.create();
});
afterAll(() => bench?.close());

test.each(['prompt', 'early', 'doubled', 'signal-lost'] satisfies Links[])(
  'marker signal %s: done',
  async (links) => {
    const world = bench.world();
    world.links = links;
    const run = await bench.start(world);
    await run.settle();
    await run.update('finish');
    const report = await run.end();
    expect(world.violations).toEqual([]);
    expect(report.outcome).toBe('done');
    expect(world.owner()).toBe('dc-b');
    expect(report.flows[0]!.baselines.map((b) => b.drainMs)).not.toContain(null);
  },
);

test('links that do not arrive: the policy abort opens the source again and names them', async () => {
  const world = bench.world();
  world.links = 'stuck';
  const run = await bench.start(world);
  const report = await run.end();
  expect(world.violations).toEqual([]);
  expect(report.outcome).toBe('compensated');
  expect(report.error?.message).toContain(
    'mysql/main:dc-a>dc-b, mysql/orders:dc-a>dc-b did not reach the baseline',
  );
  expect(world.owner()).toBe('dc-a');
});

test('links that do not arrive: the policy extend waits for an operator, again and again, and goes on when they arrive', async () => {
  const world = bench.world();
  world.links = 'stuck';
  const run = await bench.start(world, { policies: { drainTimeout: 'extend', drainTimeoutMs: 5_000 } });
  for (let i = 0; i < 2; i++) {
    const waiting = await run.drive((s) => s.awaiting === 'extend-or-abort');
    expect(waiting.needs).toContain('interlock switch extend');
    expect(await run.update('extend')).toMatch(/Extended/);
    expect((await run.status()).awaiting).toBe('drain');
    expect((await run.status()).needs).toBeNull();
  }
  await run.drive((s) => s.awaiting === 'extend-or-abort');
  await world.unstick();
  const soaking = await run.settle();
  expect(soaking.needs).toBeNull();
  expect(world.violations).toEqual([]);
  expect(world.owner()).toBe('dc-b');
  await run.update('finish');
  expect((await run.end()).outcome).toBe('done');
});

test('links that do not arrive: the checkpoints are read ever more seldom, and at once on extend', async () => {
  const world = bench.world();
  world.links = 'stuck';
  const run = await bench.start(world, { policies: { drainTimeout: 'extend', drainTimeoutMs: 5_000 } });
  await run.drive((s) => s.awaiting === 'extend-or-abort');
  await bench.env.sleep(3 * HOUR_MS);
  // Temporal ends a run whose history is too long, and the units would stay fenced.
  expect(world.calls.filter((name) => name === 'readBaselines').length).toBeLessThan(60);
  await world.mendQuarantine();
  const extendedAt = await bench.env.currentTimeMs();
  await run.update('extend');
  const soaking = await run.settle();
  const drain = soaking.steps.find((s) => s.step === 'drain')!;
  expect(Date.parse(drain.endedAt!) - extendedAt).toBeLessThan(1_000);
  expect(world.violations).toEqual([]);
  expect(world.owner()).toBe('dc-b');
});

test('links that do not arrive: extend before the time is up gives more of it', async () => {
  const world = bench.world();
  world.links = 'stuck';
  const run = await bench.start(world, { policies: { drainTimeoutMs: 20_000 } });
  await run.drive((s) => s.awaiting === 'drain');
  expect(await run.update('extend')).toMatch(/Extended/);
  const report = await run.end();
  expect(report.outcome).toBe('compensated');
  const drain = report.steps.find((s) => s.step === 'drain')!;
  expect(Date.parse(drain.endedAt!) - Date.parse(drain.startedAt)).toBeGreaterThanOrEqual(40_000);
  expect(world.owner()).toBe('dc-a');
});

test('links that do not arrive: an operator who waited may abort', async () => {
  const world = bench.world();
  world.links = 'stuck';
  const run = await bench.start(world, { policies: { drainTimeout: 'extend', drainTimeoutMs: 5_000 } });
  await run.drive((s) => s.awaiting === 'extend-or-abort');
  await run.update('abort');
  const report = await run.end();
  expect(world.violations).toEqual([]);
  expect(report.outcome).toBe('aborted');
  expect(report.needs).toBeNull();
  expect(world.owner()).toBe('dc-a');
});

test('a marker with a quarantine count is not drained: abort', async () => {
  const world = bench.world();
  world.links = 'quarantined';
  const run = await bench.start(world);
  const report = await run.end();
  expect(world.violations).toEqual([]);
  expect(report.outcome).toBe('compensated');
  expect(report.error?.code).toBe('LinkStopped');
  expect(report.error?.message).toContain('1 quarantined');
  expect(world.calls).not.toContain('switchTarget');
});

test('a marker with a quarantine count is not drained: extend waits until it is mended', async () => {
  const world = bench.world();
  world.links = 'quarantined';
  const run = await bench.start(world, { policies: { drainTimeout: 'extend', drainTimeoutMs: 5_000 } });
  const waiting = await run.drive((s) => s.awaiting === 'extend-or-abort');
  expect(waiting.needs).toContain('1 quarantined');
  await world.mendQuarantine();
  await run.settle();
  expect(world.violations).toEqual([]);
  expect(world.owner()).toBe('dc-b');
});

test('signals of strangers drain nothing', async () => {
  const world = bench.world();
  world.links = 'stuck';
  const run = await bench.start(world);
  await run.drive((s) => s.awaiting === 'drain');
  const clean = { conflicts: 0, quarantined: 0, position: 'p' };
  const [main] = world.markerIds();
  await world.signal({ ...clean, markerId: 'unknown', link: 'mysql/main:dc-a>dc-b' });
  await world.signal({ ...clean, markerId: main!, link: 'mysql/orders:dc-a>dc-b' });
  for (const nonsense of [undefined, null, 7, {}, { markerId: main, link: 'mysql/main:dc-a>dc-b' }]) {
    await run.handle.signal('baselineReached', nonsense);
  }
  expect((await run.status()).links.map((l) => l.reached)).toEqual([false, false]);
  const report = await run.end();
  expect(world.violations).toEqual([]);
  expect(report.outcome).toBe('compensated');
  expect(world.owner()).toBe('dc-a');
});
