import { randomInt } from 'node:crypto';
import { expect, test } from 'vitest';
import { runRedisSoak } from '../soak/redis/soak.js';

/** The short form of `npm run soak -- redis`. INTERLOCK_SOAK_SEED repeats one. */
test('random kills on both sides: every key is equal, every transaction counts once', async () => {
  const seed = Number(process.env['INTERLOCK_SOAK_SEED'] ?? randomInt(1, 2 ** 31));
  console.log(`INTERLOCK_SOAK_SEED=${seed}`);
  const report = await runRedisSoak({ seed, minutes: 0.75, kills: 10, say: () => undefined });
  console.log(JSON.stringify(report));
  expect(report.findings).toEqual([]);
  expect(report.comparisons).toBeGreaterThan(0);
  expect(report.comparedKeys).toBeGreaterThan(0);
  expect(report.transactions.acknowledged).toBeGreaterThan(0);
}, 480_000);
