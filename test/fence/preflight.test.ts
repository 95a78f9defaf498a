import { describe, expect, test } from 'vitest';
import { checkAutoIncrement, parseGrants } from '../../src/fence/preflight.js';

describe('grants', () => {
  const grants = parseGrants([
    "GRANT SELECT, INSERT, REPLICATION SLAVE ON *.* TO 'interlock'@'127.0.0.1' IDENTIFIED BY PASSWORD '*AA'",
    'GRANT CONNECTION_ADMIN,XA_RECOVER_ADMIN ON *.* TO `interlock`@`127.0.0.1`',
    'GRANT UPDATE, DELETE ON `shop\\_eu`.* TO `interlock`@`127.0.0.1`',
    'GRANT ALL PRIVILEGES ON `interlock`.* TO `interlock`@`127.0.0.1` WITH GRANT OPTION',
    'GRANT SELECT ON `shop`.`wallet` TO `interlock`@`127.0.0.1`',
    'GRANT `reader`@`%` TO `interlock`@`127.0.0.1`',
    "GRANT PROXY ON ''@'' TO 'root'@'localhost'",
  ]);
  test.each([
    ['*', 'SELECT', true],
    ['*', 'REPLICATION SLAVE', true],
    ['*', 'CONNECTION_ADMIN', true],
    ['*', 'XA_RECOVER_ADMIN', true],
    ['*', 'UPDATE', false],
    ['shop_eu', 'UPDATE', true],
    ['shop_eu', 'INSERT', true],
    ['shop', 'UPDATE', false],
    ['interlock', 'DELETE', true],
    ['interlock_old', 'DELETE', false],
    ['*', 'PROCESS', false],
  ])('%s %s: %s', (schema, right, has) => {
    expect(grants.has(schema, right)).toBe(has);
  });

  test('everything, globally', () => {
    const all = parseGrants(["GRANT ALL PRIVILEGES ON *.* TO 'root'@'127.0.0.1' WITH GRANT OPTION"]);
    expect(all.has('*', 'PROCESS') && all.has('shop', 'UPDATE')).toBe(true);
  });
});

test.each([
  [{ increment: 2, offset: 1 }, { increment: 2, offset: 2 }, true],
  [{ increment: 10, offset: 1 }, { increment: 10, offset: 6 }, true],
  [{ increment: 2, offset: 1 }, { increment: 4, offset: 4 }, true],
  [{ increment: 1, offset: 1 }, { increment: 1, offset: 1 }, false],
  [{ increment: 2, offset: 1 }, { increment: 2, offset: 1 }, false],
  [{ increment: 2, offset: 1 }, { increment: 3, offset: 2 }, false],
  [{ increment: 2, offset: 1 }, { increment: 4, offset: 3 }, false],
  [{ increment: 1, offset: 2 }, { increment: 2, offset: 1 }, false],
])('auto-increment %j and %j: %s', (a, b, fine) => {
  expect(typeof checkAutoIncrement(a, b) === 'string').toBe(fine);
  // Judged by the keys themselves, where the offsets are valid.
  if (a.offset > a.increment || b.offset > b.increment) return;
  const keys = new Set(Array.from({ length: 200 }, (_, k) => a.offset + k * a.increment));
  const met = Array.from({ length: 200 }, (_, k) => b.offset + k * b.increment).some((key) => keys.has(key));
  expect(met).toBe(!fine);
});
