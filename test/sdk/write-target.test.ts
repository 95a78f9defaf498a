import { describe, expect, it } from 'vitest';
import { writeTarget } from '../../src/sdk/mysql/write-target.js';

const target = (sql: string): string | undefined => {
  const found = writeTarget(sql, true);
  return found && `${found.schema ?? '-'}.${found.table}`;
};

describe('the table that a text plainly writes', () => {
  it.each([
    ['INSERT INTO t VALUES (1)', '-.t'],
    ['insert ignore into Shop.`T x` (a) values (1) ON DUPLICATE KEY UPDATE a = VALUES(a)', 'Shop.T x'],
    ['INSERT t SET a = NOW(6);', '-.t'],
    ['REPLACE LOW_PRIORITY INTO `a``b`.t VALUES (CONCAT(1, LOWER(?)))', 'a`b.t'],
    ['UPDATE t SET a = a + (1 + 2) WHERE b IN (1, 2) ORDER BY c LIMIT 1', '-.t'],
    ['UPDATE /* a comment */ s . t SET a = 1', 's.t'],
    ['DELETE FROM t', '-.t'],
    ['DELETE QUICK FROM s.t WHERE a = (b)', 's.t'],
  ])('%s', (sql, table) => {
    expect(target(sql)).toBe(table);
  });

  it.each([
    'SELECT 1',
    'WITH x AS (SELECT 1) DELETE FROM t',
    'INSERT INTO t SELECT * FROM u',
    'INSERT INTO t TABLE u',
    'INSERT INTO t VALUES ((SELECT 1))',
    'INSERT INTO t VALUES (f(1))',
    'INSERT INTO t VALUES (s.now())',
    'INSERT INTO t VALUES (`now`(1))',
    'UPDATE t, u SET t.a = 1',
    'UPDATE t AS x SET a = 1',
    'UPDATE t JOIN u SET a = 1',
    'DELETE t FROM t JOIN u',
    'DELETE FROM t USING t JOIN u',
    'DELETE FROM t, u USING t JOIN u',
    'DELETE FROM t x WHERE 1',
    'INSERT INTO "t" VALUES (1)',
    `INSERT INTO t VALUES ('a"b')`,
    'INSERT INTO',
    'UPDATE s. SET a = 1',
    'TRUNCATE t',
    'INSERT INTO a.b.c VALUES (1)',
    'INSERT INTO /*! u */ t VALUES (1)',
  ])('not: %s', (sql) => {
    expect(target(sql)).toBeUndefined();
  });
});
