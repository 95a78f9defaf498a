import { randomInt } from 'node:crypto';
import { expect, test } from 'vitest';
import { runSoak } from '../soak/mysql/soak.js';

/** The short form of `npm run soak -- mysql`. INTERLOCK_SOAK_SEED repeats one. */
test('a minute of random kills on both sides: every row is equal, every transaction counts once', async () => {
  const seed = Number(process.env['INTERLOCK_SOAK_SEED'] ?? randomInt(1, 2 ** 31));
  console.log(`soak seed ${seed}`);
  const report = await runSoak({ flavour: 'mysql', seed, minutes: 0.6, kills: 0, say: () => undefined });
  console.log(JSON.stringify(report));
  expect(report.findings).toEqual([]);
  expect(report.kills).toBeGreaterThan(0);
  expect(report.comparedRows).toBeGreaterThan(0);
  expect(report.transactions.acknowledged).toBeGreaterThan(0);
}, 480_000);
