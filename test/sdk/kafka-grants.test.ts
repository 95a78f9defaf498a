import { expect, it } from 'vitest';
import { Router, withAssignments } from '../../src/routing/rules.js';
import type { Assignment } from '../../src/routing/rules.js';
import { Grants, givesMore } from '../../src/sdk/kafka/grants.js';
import { testRules } from './support.js';

const HERE: Assignment = { owner: 'dc-a', state: 'open' };
const FENCED: Assignment = { owner: 'dc-a', state: 'write_disabled' };
const THERE: Assignment = { owner: 'dc-b', state: 'open' };
const UNIT = 'cn-east/5';

function rules(epoch: number, changes: Record<string, Assignment> = {}, more: object = {}): Router {
  const made = withAssignments(testRules(1), new Map(Object.entries(changes)), {
    ...{ epoch, reason: 'test', holder: null },
  });
  return new Router({ ...made, ...more });
}

it('a fence needs no hand-over, and what it takes away comes back only after one was read', () => {
  const grants = new Grants('dc-a');
  expect([grants.isDue, grants.allows(UNIT)]).toEqual([true, false]);
  grants.readUpTo(rules(1));
  expect([grants.isDue, grants.allows(UNIT)]).toEqual([false, true]);
  grants.learned(rules(2, { [UNIT]: FENCED }));
  expect([grants.isDue, grants.allows(UNIT), grants.allows('cn-east/6')]).toEqual([false, false, true]);
  grants.learned(rules(3));
  expect([grants.isDue, grants.allows(UNIT), grants.allows('cn-east/6')]).toEqual([true, false, true]);
  grants.readUpTo(rules(3));
  expect([grants.isDue, grants.allows(UNIT)]).toEqual([false, true]);
});

it('what was read for older rules gives nothing that newer ones have taken', () => {
  const grants = new Grants('dc-a');
  grants.readUpTo(rules(1));
  grants.learned(rules(2, { [UNIT]: THERE }));
  // A look that began before.
  grants.readUpTo(rules(1));
  grants.learned(rules(3));
  expect([grants.isDue, grants.allows(UNIT)]).toEqual([true, false]);
  grants.learned(rules(4, { [UNIT]: FENCED }));
  grants.readUpTo(rules(3));
  expect([grants.isDue, grants.allows(UNIT)]).toEqual([false, false]);
});

it('rules give more by a range, a segment, a central unit, or another mapping', () => {
  const without = rules(1, { [UNIT]: THERE });
  expect(givesMore(without, rules(2), 'dc-a')).toBe(true);
  expect(givesMore(rules(1), without, 'dc-a')).toBe(false);
  expect(givesMore(rules(1), without, 'dc-b')).toBe(true);
  expect(givesMore(rules(1), rules(2), 'dc-a')).toBe(false);
  expect(givesMore(rules(1), rules(2, {}, { mappingVersion: 2 }), 'dc-a')).toBe(true);
  const central = { central: { coupon: HERE } };
  expect(givesMore(rules(1), rules(2, {}, central), 'dc-a')).toBe(true);
  expect(givesMore(rules(1, {}, central), rules(2, {}, central), 'dc-a')).toBe(false);
  const segment = (of: Assignment): object => ({ segments: { vip: { ...of, members: ['u1'] } } });
  expect(givesMore(rules(1, {}, segment(FENCED)), rules(2, {}, segment(HERE)), 'dc-a')).toBe(true);
});
