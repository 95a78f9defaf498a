import { describe, expect, it } from 'vitest';
import { classify } from '../../src/sdk/mysql/statement.js';

const kind = (sql: string, backslash = true): string => {
  const statement = classify(sql, backslash);
  return statement.kind === 'read' && statement.opaque ? 'opaque read' : statement.kind;
};

describe('classification of statements', () => {
  it.each([
    ['select 1', 'read'],
    ['  /* c */ -- d\n # e\n SELECT 1;', 'read'],
    ['(SELECT 1) UNION (SELECT 2)', 'read'],
    ['TABLE t', 'read'],
    ['VALUES ROW(1)', 'read'],
    ['SHOW CREATE TABLE t', 'read'],
    ['EXPLAIN UPDATE t SET v = 1', 'opaque read'],
    ['EXPLAIN ANALYZE SELECT 1', 'read'],
    ['WITH a AS (SELECT 1), b (x) AS (SELECT 2) SELECT * FROM a', 'opaque read'],
    ['WITH RECURSIVE a AS (SELECT 1) SELECT * FROM a', 'read'],
    ['SELECT \'; COMMIT\', "; COMMIT", `; COMMIT` FROM t', 'read'],
    ["SELECT 'it''s', 'it\\'s' FROM t", 'read'],
    ['SELECT REPLACE(a, 1, 2), INSERT(a, 1, 2, 3) FROM t', 'read'],
    ['SELECT COUNT(*) FROM t WHERE id IN (1, 2)', 'read'],
    ['SELECT /*+ NO_MERGE(t) */ 1', 'read'],
    ['SELECT 5--1', 'read'],
    ['SELECT f(1)', 'opaque read'],
    ['SELECT app.count(1)', 'opaque read'],
    ['SELECT `count`(1)', 'opaque read'],
    ['SELECT NEXT VALUE FOR s', 'opaque read'],
    ['SELECT 1 INTO @a', 'write'],
    ["SELECT 1 INTO OUTFILE '/tmp/x'", 'write'],
    ['SELECT 1 FOR UPDATE', 'write'],
    ['SELECT 1 FROM t LOCK IN SHARE MODE', 'write'],
    ['(SELECT 1 FROM t FOR SHARE)', 'write'],
    ['INSERT INTO t VALUES (1)', 'write'],
    ['WITH a AS (SELECT 1) UPDATE t SET v = 1', 'write'],
    ['WITH a AS (SELECT 1) DELETE FROM t', 'write'],
    ['EXPLAIN ANALYZE UPDATE t SET v = 1', 'write'],
    ['EXPLAIN ANALYZE WITH a AS (SELECT 1) DELETE FROM t', 'write'],
    ['SET @a = 1, @b := (SELECT COUNT(*), 1)', 'write'],
    ['SAVEPOINT a', 'write'],
    ['ROLLBACK TO a', 'write'],
    ['RELEASE SAVEPOINT a', 'write'],
    ['', 'refused'],
    [';', 'refused'],
    ['(', 'refused'],
    ['-- only a comment', 'refused'],
    ['SELECT 1; SELECT 2', 'refused'],
    ['/*!40000 SELECT */ 1', 'refused'],
    ['SELECT 1 /*!, 2 */', 'refused'],
    ['SELECT 1 /*M!100000 , 2 */', 'refused'],
    ['SELECT 1 /* no end', 'refused'],
    ["SELECT 'no end", 'refused'],
    ['SELECT 1\0', 'refused'],
    ['SET autocommit = 0', 'refused'],
    ['SET @a = 1, SESSION autocommit = 0', 'refused'],
    ['SET @@autocommit = 0', 'refused'],
    ["SET NAMES 'utf8'", 'refused'],
    ['SET STATEMENT max_statement_time = 1 FOR COMMIT', 'refused'],
    ['ROLLBACK', 'refused'],
    ['ROLLBACK WORK', 'refused'],
    ['ROLLBACK AND CHAIN', 'refused'],
    ['RELEASE x', 'refused'],
    ['ANALYZE UPDATE t SET v = 1', 'refused'],
    ['EXECUTE IMMEDIATE "COMMIT"', 'refused'],
    ['BEGIN NOT ATOMIC COMMIT', 'refused'],
    ['constructor', 'refused'],
    ['HANDLER t OPEN', 'refused'],
  ])('%j is a %s', (sql, expected) => {
    expect(kind(sql)).toBe(expected);
  });

  it('reads backslashes as the server does', () => {
    const hidden = "SELECT '\\'; COMMIT; -- '";
    expect(kind(hidden, true)).toBe('read');
    expect(kind(hidden, false)).toBe('refused');
    // Under ANSI_QUOTES a double-quoted name ends at its quote, backslash or not: both readings must be harmless.
    expect(kind('SELECT "\\"; COMMIT; -- "', true)).toBe('refused');
  });

  it('says why', () => {
    expect(classify('alter table t add c int')).toEqual({
      kind: 'refused',
      verb: 'ALTER TABLE',
      reason: 'it commits implicitly',
    });
    expect(classify("XA PREPARE 'x'")).toMatchObject({ verb: 'XA PREPARE' });
  });

  it('keeps a bounded cache', () => {
    for (let i = 0; i < 3_000; i++) expect(kind(`SELECT ${i}`)).toBe('read');
  });
});
