import { expect, test } from 'vitest';
import { rulesHash } from '../../src/routing/hash.js';
import type { Rules } from '../../src/routing/rules.js';
import { RuleBook } from '../../src/rule-center/rule-book.js';
import { rules1, rules2, rules3 } from './fakes.js';

const of = (rules: Rules): { rules: Rules; hash: string } => ({ rules, hash: rulesHash(rules) });

test('documents in any order: epochs only grow, and each that comes into force is told once', () => {
  const book = new RuleBook();
  const told: number[] = [];
  const stop = book.onChange((entry) => told.push(entry.rules.epoch));
  expect(book.current).toBeUndefined();
  expect([rules2, rules1, rules2, rules3, rules1].map((rules) => book.offer(of(rules)))).toEqual([
    true,
    false,
    false,
    true,
    false,
  ]);
  expect(told).toEqual([2, 3]);
  expect(book.current?.rules).toEqual(rules3);
  expect(JSON.parse(book.current!.json)).toEqual(of(rules3));
  stop();
  book.offer(of({ ...rules3, epoch: 4 }));
  expect(told).toEqual([2, 3]);
});

test('an epoch has one content', () => {
  const book = new RuleBook();
  book.offer(of(rules2));
  expect(() => book.offer(of({ ...rules2, reason: 'other' }))).toThrow(
    expect.objectContaining({ code: 'EpochConflict' }),
  );
  expect(book.current?.rules).toEqual(rules2);
});

test('a document whose hash is not its own is refused', () => {
  const book = new RuleBook();
  expect(() => book.offer({ rules: rules2, hash: rulesHash(rules1) })).toThrow(/hash of rules epoch 2/);
  expect(book.current).toBeUndefined();
});
