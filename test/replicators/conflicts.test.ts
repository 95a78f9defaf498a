import { expect, it } from 'vitest';
import { ConflictResolver } from '../../replicators/mysql/conflicts.js';
import type { ConflictOptions } from '../../replicators/mysql/conflicts.js';
import { ChangeRefused, ToQuarantine } from '../../replicators/mysql/target-errors.js';
import { newTransaction } from '../../replicators/mysql/transaction.js';

/** A target that refuses a transaction so often. */
function resolver(refusals: number): { settle: () => Promise<number>; tries: () => number } {
  let tries = 0;
  const apply = (): Promise<void> => {
    tries += 1;
    return tries <= refusals ? Promise.reject(new ChangeRefused('no', 'shop.item')) : Promise.resolve();
  };
  const options = { applier: { apply }, changedSince: () => Promise.resolve(false) };
  const one = new ConflictResolver(options as unknown as ConflictOptions);
  return {
    settle: () => one.settle({ transaction: newTransaction('t:1', 0), position: 't:1' }),
    tries: () => tries,
  };
}

it('tries a transaction that is refused three times before it is kept aside', async () => {
  const twice = resolver(2);
  expect(await twice.settle()).toBe(0);
  expect(twice.tries()).toBe(3);
  const always = resolver(Infinity);
  await expect(always.settle()).rejects.toThrow(ToQuarantine);
  expect(always.tries()).toBe(3);
});
