import { randomInt } from 'node:crypto';
import { expect, test } from 'vitest';
import { runSoak } from '../soak/mysql/soak.js';

/** The short form of `npm run soak -- mysql`. INTERLOCK_SOAK_SEED repeats one. */
test('random kills on both sides: every row is equal, every transaction counts once', async () => {
  const seed = Number(process.env['INTERLOCK_SOAK_SEED'] ?? randomInt(1, 2 ** 31));
  const flavour = seed % 2 === 0 ? 'mysql' : 'mariadb';
  console.log(`INTERLOCK_SOAK_SEED=${seed} (${flavour})`);
  const report = await runSoak({ flavour, seed, minutes: 0.5, kills: 5, say: () => undefined });
  console.log(JSON.stringify(report));
  expect(report.findings).toEqual([]);
  expect(report.comparedRows).toBeGreaterThan(0);
  expect(report.transactions.acknowledged).toBeGreaterThan(0);
}, 480_000);
