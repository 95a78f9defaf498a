import { expect, test } from 'vitest';
import { Leases } from '../../src/rule-center/leases.js';

test('a lease that is not renewed drops out; one that is renewed stays', () => {
  let now = 0;
  const leases = new Leases(10_000, () => now);
  leases.renew({ instance: 'i-1', application: 'shop', epoch: 1 });
  leases.renew({ instance: 'i-2', application: 'shop', epoch: 1 });
  now = 6_000;
  leases.renew({ instance: 'i-2', application: 'shop', epoch: 2 });
  now = 9_999;
  expect(leases.list().map((i) => [i.instance, i.epoch, i.expiresInMs])).toEqual([
    ['i-1', 1, 1],
    ['i-2', 2, 6_001],
  ]);
  now = 10_000;
  expect(leases.list().map((i) => i.instance)).toEqual(['i-2']);
});

test('applications have their own instances', () => {
  const leases = new Leases();
  leases.renew({ instance: 'i', application: 'b', epoch: 1 });
  leases.renew({ instance: 'i', application: 'a', epoch: 2 });
  leases.renew({ instance: '","i', application: 'a', epoch: 3 });
  expect(leases.list().map((i) => [i.application, i.instance])).toEqual([
    ['a', '","i'],
    ['a', 'i'],
    ['b', 'i'],
  ]);
});

test('the memory for leases has a bound; those that have one can renew it', () => {
  let now = 0;
  const leases = new Leases(10_000, () => now);
  for (let i = 0; i < 10_000; i++) leases.renew({ instance: `i-${i}`, application: 'shop', epoch: 1 });
  expect(() => leases.renew({ instance: 'one more', application: 'shop', epoch: 1 })).toThrow(/10000 leases/);
  leases.renew({ instance: 'i-0', application: 'shop', epoch: 2 });
  now = 10_000;
  leases.renew({ instance: 'one more', application: 'shop', epoch: 1 });
  expect(leases.list()).toHaveLength(1);
});
