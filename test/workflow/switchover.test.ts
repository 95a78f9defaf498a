import { afterAll, beforeAll, expect, test } from 'vitest';
import { Bench } from './harness.js';

let bench: Bench;
beforeAll(async () => {
  bench = await Bench.create();
});
afterAll(() => bench?.close());

test('a switchover moves the units, soaks and ends', async () => {
  const world = bench.world();
  const run = await bench.start(world);
  const soaking = await run.settle();
  expect(world.violations).toEqual([]);
  expect(soaking.awaiting).toBe('rollback-or-finish');
  expect(world.owner()).toBe('dc-b');
  expect(await run.update('finish')).toMatch(/Finished/);
  const report = await run.end();
  expect(report.outcome).toBe('done');
});
