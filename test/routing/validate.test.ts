import fc from 'fast-check';
import { expect, test } from 'vitest';
import { InterlockError } from '../../src/errors.js';
import { validateRules } from '../../src/routing/validate.js';
import { initialRules } from '../../src/topology/derive.js';
import { exampleTopology } from '../support/topology.js';
import { rulesArbitrary } from './arbitraries.js';

/* eslint-disable @typescript-eslint/no-explicit-any, @typescript-eslint/no-unsafe-member-access, @typescript-eslint/no-unsafe-return, @typescript-eslint/no-unsafe-call */

test('valid rules are answered as they are', () => {
  fc.assert(
    fc.property(rulesArbitrary, (rules) => {
      expect(validateRules(JSON.parse(JSON.stringify(rules)))).toEqual(rules);
    }),
    { numRuns: 50 },
  );
});

const A = { owner: 'dc-a', state: 'open' };
const B = { owner: 'dc-b', state: 'open' };
const cases: [string, (rules: any) => void, string][] = [
  ['no epoch', (r) => delete r.epoch, 'epoch'],
  ['epoch 0', (r) => (r.epoch = 0), 'epoch'],
  ['a fractional epoch', (r) => (r.epoch = 1.5), 'epoch'],
  ['an epoch beyond exact numbers', (r) => (r.epoch = 2 ** 53), 'epoch'],
  ['an epoch as text', (r) => (r.epoch = '2'), 'epoch'],
  ['another format', (r) => (r.format = 2), 'format'],
  ['an unknown key', (r) => (r.admin = true), 'admin'],
  ['a name that is none', (r) => (r.topology = "x'; --"), 'topology'],
  ['a state that is none', (r) => (r.regions['cn-east'][0].state = 'closed'), 'regions.cn-east.0.state'],
  ['no ranges', (r) => (r.regions['cn-east'] = []), 'regions.cn-east'],
  [
    'a range that ends early',
    (r) => (r.regions['cn-east'] = [{ from: 0, to: 998, ...A }]),
    'regions.cn-east',
  ],
  [
    'a range that begins late',
    (r) => (r.regions['cn-east'] = [{ from: 1, to: 999, ...A }]),
    'regions.cn-east.0.from',
  ],
  [
    'a gap',
    (r) =>
      (r.regions['cn-east'] = [
        { from: 0, to: 9, ...A },
        { from: 11, to: 999, ...B },
      ]),
    'regions.cn-east.1.from',
  ],
  [
    'an overlap',
    (r) =>
      (r.regions['cn-east'] = [
        { from: 0, to: 10, ...A },
        { from: 10, to: 999, ...B },
      ]),
    'regions.cn-east.1.from',
  ],
  [
    'ranges out of order',
    (r) =>
      (r.regions['cn-east'] = [
        { from: 500, to: 999, ...A },
        { from: 0, to: 499, ...B },
      ]),
    'regions.cn-east.0.from',
  ],
  [
    'neighbours alike',
    (r) =>
      (r.regions['cn-east'] = [
        { from: 0, to: 9, ...A },
        { from: 10, to: 999, ...A },
      ]),
    'regions.cn-east.1',
  ],
  [
    'a range backwards',
    (r) =>
      (r.regions['cn-east'] = [
        { from: 0, to: 999, ...A },
        { from: 1000, to: 0, ...B },
      ]),
    'regions.cn-east.1.from',
  ],
  ['a bucket beyond 999', (r) => (r.regions['cn-east'][0].to = 1000), 'regions.cn-east.0.to'],
  ['a default region that is none', (r) => (r.defaultRegion = 'us'), 'defaultRegion'],
  ['a default region of Object.prototype', (r) => (r.defaultRegion = 'constructor'), 'defaultRegion'],
  ['members out of order', (r) => r.segments.vip.members.reverse(), 'segments.vip.members.1'],
  ['a member twice', (r) => (r.segments.vip.members = ['a', 'a']), 'segments.vip.members.1'],
  [
    'a member of two segments',
    (r) => (r.segments.gold = { ...A, members: ['vip-1'] }),
    'segments.gold.members.0',
  ],
  [
    'a mapping version of no unit',
    (r) => (r.unitMappingVersions['cn-east/1000'] = 1),
    'unitMappingVersions.cn-east/1000',
  ],
  [
    'a mapping version of the future',
    (r) => (r.unitMappingVersions['cn-east/1'] = 2),
    'unitMappingVersions.cn-east/1',
  ],
  ['write-disabled units that nobody holds', (r) => (r.central.coupons.state = 'write_disabled'), 'holder'],
  ['a holder of nothing', (r) => (r.holder = { workflowId: 'w', runId: 'r' }), 'holder'],
  ['a holder without its run', (r) => (r.holder = { workflowId: 'w' }), 'holder.runId'],
  ['a reason as long as a book', (r) => (r.reason = 'x'.repeat(1025)), 'reason'],
];

test.each(cases)('%s is refused, with the field named', (_name, change, field) => {
  const rules: unknown = structuredClone(initialRules(exampleTopology()));
  change(rules);
  const error = refused(rules);
  expect((error.details['problems'] as { field: string }[]).map((p) => p.field)).toContain(field);
  expect(error.message).toContain(field);
});

test.each([[null], [undefined], [[]], ['rules'], [42], [{}], [JSON.parse('{"__proto__": {"format": 1}}')]])(
  '%j is refused',
  (document) => {
    refused(document);
  },
);

test('a document with a problem per entry makes no endless message', () => {
  const rules: any = structuredClone(initialRules(exampleTopology()));
  rules.segments.vip.members = Array(10_000).fill('a');
  expect(refused(rules).message.length).toBeLessThan(4_000);
});

function refused(document: unknown): InterlockError {
  try {
    validateRules(document);
  } catch (error) {
    expect(error).toBeInstanceOf(InterlockError);
    expect(error).toMatchObject({ code: 'BadInput' });
    return error as InterlockError;
  }
  throw new Error('expected BadInput, got no error');
}
