import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { Router, unitsOf } from '../../src/routing/rules.js';
import { formatBuckets, formatScope, groupUnits, parseScope, unitsOfScope } from '../../src/routing/scope.js';
import type { Scope } from '../../src/routing/scope.js';
import { initialRules } from '../../src/topology/derive.js';
import { switchRules } from '../../src/routing/plan.js';
import { exampleTopology } from '../support/topology.js';
import { rulesArbitrary } from './arbitraries.js';

const rules = initialRules(exampleTopology());

describe('parsing', () => {
  test.each<[string, Scope]>([
    ['dc:dc-a', { kind: 'dc', dc: 'dc-a' }],
    ['region:cn-east', { kind: 'region', region: 'cn-east' }],
    ['cn-east:10%', { kind: 'share', region: 'cn-east', buckets: 100 }],
    ['cn-east:0.1%', { kind: 'share', region: 'cn-east', buckets: 1 }],
    ['cn-east:12.5%', { kind: 'share', region: 'cn-east', buckets: 125 }],
    ['cn-east:100%', { kind: 'share', region: 'cn-east', buckets: 1000 }],
    ['dc:10%', { kind: 'share', region: 'dc', buckets: 100 }],
    ['cn-east/0-99', { kind: 'range', region: 'cn-east', first: 0, last: 99 }],
    ['cn-east/42', { kind: 'range', region: 'cn-east', first: 42, last: 42 }],
    ['segment:vip', { kind: 'segment', name: 'vip' }],
    ['central:coupons', { kind: 'central', name: 'coupons' }],
  ])('%s', (text, scope) => {
    expect(parseScope(text)).toEqual(scope);
    expect(formatScope(scope)).toBe(text);
  });

  test.each([
    '',
    'cn-east',
    'dc:',
    'dc:DC-A',
    'cn-east:0%',
    'cn-east:0.0%',
    'cn-east:101%',
    'cn-east:100.1%',
    'cn-east:1000%',
    'cn-east:-1%',
    'cn-east:1.25%',
    'cn-east:10 %',
    'cn-east:1e1%',
    'cn-east/99-0',
    'cn-east/0-1000',
    'cn-east/1000',
    'cn-east/-1',
    'cn-east/0-',
    'cn-east/0x1',
    'cn-east/0–99',
    'segment:',
    'segment:vip ',
    ' segment:vip',
    'segment:vip\n',
    'users:vip',
    "cn-east/0-99; DROP TABLE rules'",
    '__proto__',
  ])('%j is bad input that shows it', (text) => {
    expect(() => parseScope(text)).toThrow(
      expect.objectContaining({
        code: 'BadInput',
        message: expect.stringContaining(JSON.stringify(text)) as string,
      }),
    );
  });
});

describe('units', () => {
  const units = (scope: string, from: string, of = rules): string[] =>
    unitsOfScope(of, parseScope(scope), from);

  test('what each scope takes', () => {
    expect(units('dc:dc-a', 'dc-a')).toHaveLength(1002);
    expect(units('dc:dc-b', 'dc-b')).toHaveLength(1000);
    expect(units('region:cn-east', 'dc-a')).toHaveLength(1000);
    expect(units('cn-east:10%', 'dc-a').at(-1)).toBe('cn-east/99');
    expect(units('cn-east/5-7', 'dc-a')).toEqual(['cn-east/5', 'cn-east/6', 'cn-east/7']);
    expect(units('segment:vip', 'dc-a')).toEqual(['segment:vip']);
    expect(units('central:coupons', 'dc-a')).toEqual(['central:coupons']);
  });

  test('a share is of the region, and taken from what the source still owns', () => {
    const moved = switchRules(rules, units('cn-east:10%', 'dc-a'), 'dc-b', 2, 'moved');
    const next = units('cn-east:10%', 'dc-a', moved);
    expect([next[0], next.at(-1), next.length]).toEqual(['cn-east/100', 'cn-east/199', 100]);
    expect(units('cn-east/0-149', 'dc-a', moved)).toHaveLength(50);
    expect(units('cn-east:90%', 'dc-a', moved)).toHaveLength(900);
    expect(() => units('cn-east:90.1%', 'dc-a', moved)).toThrow(
      /dc-a owns 900 of the 1000 buckets of cn-east/,
    );
  });

  test.each([
    ['region:cn-west', 'dc-a', /nothing to move: dc-a owns no unit/],
    ['cn-west/0-9', 'dc-a', /nothing to move/],
    ['cn-west:1%', 'dc-a', /owns 0 of the 1000/],
    ['segment:vip', 'dc-b', /nothing to move/],
    ['central:coupons', 'dc-b', /nothing to move/],
    ['region:us', 'dc-a', /no region us; they have cn-east, cn-west/],
    ['segment:gold', 'dc-a', /no segment gold; they have vip/],
    ['central:constructor', 'dc-a', /no central unit constructor; they have coupons/],
    ['dc:dc-b', 'dc-a', /the data center that the units leave/],
    ['dc:dc-x', 'dc-x', /nothing to move/],
  ])('%s from %s', (scope, from, message) => {
    expect(() => units(scope, from)).toThrow(
      expect.objectContaining({
        code: 'BadInput',
        message: expect.stringMatching(message) as string,
        details: { field: 'scope', value: scope },
      }),
    );
  });

  test('every unit of a scope is owned by the source, once', () => {
    fc.assert(
      fc.property(rulesArbitrary, fc.constantFrom('dc-a', 'dc-b'), (any, from) => {
        const router = new Router(any);
        const owned = unitsOf(any).filter((unit) => router.assignmentOf(unit)!.owner === from);
        fc.pre(owned.length > 0);
        expect(unitsOfScope(any, { kind: 'dc', dc: from }, from)).toEqual(owned);
      }),
      { numRuns: 30 },
    );
  });
});

test('runs of buckets', () => {
  expect(formatBuckets([])).toBe('');
  expect(formatBuckets([7])).toBe('7');
  expect(formatBuckets([0, 1, 2, 5, 8, 9])).toBe('0–2, 5, 8–9');
  expect(groupUnits(['segment:vip', 'b/2', 'a/10', 'a/9'])).toEqual({
    buckets: new Map([
      ['a', [9, 10]],
      ['b', [2]],
    ]),
    named: ['segment:vip'],
  });
});
