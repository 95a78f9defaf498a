import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  balanceOf,
  diffRules,
  fenceRules,
  renderBalance,
  renderDiff,
  reopenRules,
  switchRules,
} from '../../src/routing/plan.js';
import { rulesHash } from '../../src/routing/hash.js';
import { Router, unitsOf } from '../../src/routing/rules.js';
import { parseScope, unitsOfScope } from '../../src/routing/scope.js';
import { validateRules } from '../../src/routing/validate.js';
import { initialRules } from '../../src/topology/derive.js';
import { exampleTopology } from '../support/topology.js';
import { rulesArbitrary } from './arbitraries.js';

const rules = initialRules(exampleTopology());
const holder = { workflowId: 'switchover/example', runId: 'run-1' };
const units = (scope: string, of = rules, from = 'dc-a'): string[] =>
  unitsOfScope(of, parseScope(scope), from);

test('a diff reads as its operator says it', () => {
  const moved = switchRules(rules, units('cn-east:10%'), 'dc-b', 2, 'moved');
  expect(renderDiff(rules, moved)).toEqual(['cn-east buckets 0–99: dc-a → dc-b (10.0 %)']);
  expect(renderDiff(moved, rules)).toEqual(['cn-east buckets 0–99: dc-b → dc-a (10.0 %)']);
  expect(renderDiff(rules, rules)).toEqual([]);
  const all = switchRules(rules, units('dc:dc-a'), 'dc-b', 2, 'moved');
  expect(renderDiff(rules, all)).toEqual([
    'central coupons: dc-a → dc-b',
    'cn-east buckets 0–999: dc-a → dc-b (100.0 %)',
    'segment vip: dc-a → dc-b',
  ]);
  const one = switchRules(rules, ['cn-east/7', 'cn-east/3'], 'dc-b', 2, 'moved');
  expect(renderDiff(rules, one)).toEqual(['cn-east buckets 3, 7: dc-a → dc-b (0.2 %)']);
  const fenced = fenceRules(rules, ['cn-east/7'], 2, holder, 'fence');
  expect(renderDiff(rules, fenced)).toEqual(['cn-east bucket 7: dc-a write-disabled (0.1 %)']);
  expect(renderDiff(fenced, rules)).toEqual(['cn-east bucket 7: dc-a open again (0.1 %)']);
});

describe('fence, switch and re-open', () => {
  const moving = units('cn-east:10%');
  const fenced = fenceRules(rules, moving, 2, holder, 'fence');

  test('the fence keeps the owner, names the holder, and touches nothing else', () => {
    expect(fenced.regions['cn-east']).toEqual([
      { from: 0, to: 99, owner: 'dc-a', state: 'write_disabled' },
      { from: 100, to: 999, owner: 'dc-a', state: 'open' },
    ]);
    expect(fenced).toMatchObject({
      epoch: 2,
      holder,
      reason: 'fence',
      regions: { 'cn-west': rules.regions['cn-west'] },
    });
    expect(rules.epoch).toBe(1);
  });

  test('re-opening undoes the fence but for the epoch', () => {
    const reopened = reopenRules(fenced, moving, 3, rules.reason);
    expect(reopened).toEqual({ ...rules, epoch: 3 });
  });

  test('the switch opens at the target and lets the holder go', () => {
    const switched = switchRules(fenced, moving, 'dc-b', 3, 'switch');
    expect(switched.regions['cn-east']![0]).toEqual({ from: 0, to: 99, owner: 'dc-b', state: 'open' });
    expect(switched.holder).toBeNull();
  });

  test('opening some of the units keeps the holder of the rest', () => {
    expect(reopenRules(fenced, moving.slice(0, 50), 3, 'part').holder).toEqual(holder);
    expect(switchRules(fenced, moving.slice(0, 50), 'dc-b', 3, 'part').holder).toEqual(holder);
  });

  test('an epoch that is not higher is refused, and a unit that is none', () => {
    for (const epoch of [2, 1, 0, -1, 2.5, Number.NaN, 2 ** 53]) {
      expect(() => reopenRules(fenced, moving, epoch, 'late')).toThrow(
        expect.objectContaining({ code: 'StaleEpoch' }),
      );
    }
    expect(() => fenceRules(rules, ['cn-east/1000'], 2, holder, 'x')).toThrow(
      expect.objectContaining({
        code: 'BadInput',
        message: expect.stringContaining('"cn-east/1000"') as string,
      }),
    );
  });

  test('any move of any rules: what moved is what was asked, and the documents stay valid', () => {
    fc.assert(
      fc.property(rulesArbitrary, fc.infiniteStream(fc.boolean()), (any, picks) => {
        const router = new Router(any);
        const open = unitsOf(any).filter((unit) => router.assignmentOf(unit)!.owner === 'dc-a');
        const chosen = open.filter(() => picks.next().value === true);
        const fence = fenceRules(any, chosen, any.epoch + 1, holder, 'fence');
        const switched = switchRules(fence, chosen, 'dc-b', any.epoch + 2, 'switch');
        // Fencing nothing leaves a holder of nothing, which only a switch of nothing would do.
        if (chosen.length > 0) expect(validateRules(fence)).toEqual(fence);
        expect(validateRules(switched)).toEqual(switched);
        const after = new Router(switched);
        expect(diffRules(any, switched).map((d) => d.unit)).toEqual(chosen);
        for (const unit of chosen) {
          expect(after.assignmentOf(unit)).toMatchObject({ owner: 'dc-b', state: 'open' });
        }
      }),
      { numRuns: 30 },
    );
  });
});

test('the hash does not depend on the order of keys', () => {
  const reversed = Object.fromEntries(Object.entries(rules).reverse()) as unknown as typeof rules;
  expect(rulesHash(reversed)).toBe(rulesHash(rules));
  expect(rulesHash({ ...rules, epoch: 2 })).not.toBe(rulesHash(rules));
});

test('balance', () => {
  const moved = fenceRules(
    switchRules(rules, units('cn-east:10%'), 'dc-b', 2, 'moved'),
    ['cn-east/500'],
    3,
    holder,
    'fence',
  );
  const report = balanceOf(moved);
  expect(report.dcs).toEqual([
    { owner: 'dc-a', units: 902, buckets: 900, share: 0.45, writeDisabled: 1 },
    { owner: 'dc-b', units: 1100, buckets: 1100, share: 0.55, writeDisabled: 0 },
  ]);
  expect(renderBalance(report)).toEqual([
    'all buckets: dc-a 45.0 % (1 write-disabled), dc-b 55.0 %',
    'cn-east: dc-a 90.0 % (1 write-disabled), dc-b 10.0 %',
    'cn-west: dc-b 100.0 %',
    'segment vip: dc-a, 2 members',
    'central coupons: dc-a',
  ]);
});
