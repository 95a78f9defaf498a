import { describe, expect, test } from 'vitest';
import { KeyPatterns, patternProblem } from '../../src/routing/redis-keys.js';
import type { KeyOwner, KeyRouting } from '../../src/routing/redis-keys.js';

const user = (userId: string, region?: string): KeyOwner => ({
  kind: 'user',
  key: region === undefined ? { userId } : { userId, region },
});

test('the first pattern that matches counts; a placeholder ends where the next character of the pattern is', () => {
  const routings: KeyRouting[] = [
    { pattern: 'user:{userId}:*' },
    { pattern: 'cart:{region}:{userId}' },
    { pattern: 'c{{userId}}.x' },
    { pattern: 'coupon:*', central: 'coupons' },
    { pattern: 'coupon:?', unrouted: true },
    { pattern: 'geo*', unrouted: true },
  ];
  const patterns = new KeyPatterns(routings);
  const cases: [string, KeyOwner][] = [
    ['user:7:a:b', user('7')],
    ['user:7:', user('7')],
    ['user::a', { kind: 'unmapped' }],
    ['user:7', { kind: 'unmapped' }],
    ['USER:7:a', { kind: 'unmapped' }],
    ['xuser:7:a', { kind: 'unmapped' }],
    ['user:a\nb:c', user('a\nb')],
    ['cart:cn-east:用户:1', user('用户:1', 'cn-east')],
    ['c{9}.x', user('9')],
    ['c{9}}.x', { kind: 'unmapped' }],
    ['coupon:1', { kind: 'unit', unit: 'central:coupons' }],
    ['geo', { kind: 'unrouted' }],
    ['', { kind: 'unmapped' }],
  ];
  for (const [key, owner] of cases) expect([key, patterns.ownerOf(key)]).toEqual([key, owner]);
});

describe('patterns that would say two things are refused', () => {
  const cases: [KeyRouting, RegExp | undefined][] = [
    [{ pattern: 'a:{userId}' }, undefined],
    [{ pattern: '{userId}:{region}' }, undefined],
    [{ pattern: 'a:*' }, /exactly one \{userId\}/],
    [{ pattern: '{userId}:{userId}' }, /exactly one \{userId\}/],
    [{ pattern: '{userId}:{region}:{region}' }, /at most one \{region\}/],
    [{ pattern: '{userId}*' }, /a character between/],
    [{ pattern: '*{userId}' }, /a character between/],
    [{ pattern: '{region}{userId}' }, /a character between/],
    [{ pattern: 'a:{userId}', central: 'x' }, /no user/],
    [{ pattern: 'a:*', unrouted: true }, undefined],
  ];
  for (const [routing, problem] of cases) {
    test(JSON.stringify(routing), () => {
      if (problem === undefined) expect(patternProblem(routing)).toBeUndefined();
      else expect(patternProblem(routing)).toMatch(problem);
    });
  }
});
