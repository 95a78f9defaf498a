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

test.each([
  { scope: 'dc:dc-a', readOnly: ['dc-a'] },
  { scope: 'region:cn-east', readOnly: [] },
])('$scope makes read_only: $readOnly; the way back none', async ({ scope, readOnly }) => {
  const world = bench.world();
  const run = await bench.start(world, { scope });
  await run.settle();
  expect(world.readOnly).toEqual(readOnly);
  await run.update('rollback');
  expect((await run.end()).outcome).toBe('rolled-back');
  expect(world.readOnly).toEqual(readOnly);
});
