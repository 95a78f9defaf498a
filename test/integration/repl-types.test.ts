import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createOnBoth, dump, linkConfig, rows, runLink, settled, startPair } from '../support/replication.js';
import type { Pair, RunningLink } from '../support/replication.js';

/** Column type → SQL expressions of values, among them the ones that others lose. */
const COMMON: Record<string, string[]> = {
  TINYINT: ['-128', '127', '0', 'NULL'],
  'TINYINT UNSIGNED': ['255', '0'],
  SMALLINT: ['-32768', '32767'],
  MEDIUMINT: ['-8388608', '8388607', '-1'],
  'MEDIUMINT UNSIGNED': ['16777215'],
  INT: ['-2147483648', '2147483647', '-1'],
  'INT UNSIGNED': ['4294967295'],
  'INT(8) UNSIGNED ZEROFILL': ['42'],
  BIGINT: ['-9223372036854775808', '9223372036854775807', '-9007199254740993'],
  'BIGINT UNSIGNED': ['18446744073709551615', '9007199254740993'],
  'DECIMAL(65,30)': [
    '12345678901234567890123456789012345.678901234567890123456789012345',
    '-0.000000000000000000000000000001',
    '0',
  ],
  'DECIMAL(9,0)': ['-999999999', '123'],
  'DECIMAL(10,4)': ['-123456.7891', '0.0001', '-0.5'],
  'DECIMAL(4,4)': ['0.1234', '-0.9999'],
  FLOAT: ['0.1', '-3.4e38', '1.17549e-38', '16777217', '-0e0'],
  DOUBLE: ['0.1', '1.7976931348623157e308', '5e-324', '-2.2250738585072014e-308', '1e20', '-0e0', '3'],
  'BIT(1)': [`b'1'`, `b'0'`],
  'BIT(13)': [`b'1010101010101'`],
  'BIT(64)': [`b'${'1'.repeat(64)}'`, '5'],
  YEAR: ['1901', '2155', '0', '2000'],
  DATE: [`'2024-02-29'`, `'0000-00-00'`, `'2020-00-00'`, `'9999-12-31'`, `'0001-01-01'`],
  TIME: [`'-838:59:59'`, `'838:59:59'`, `'00:00:00'`, `'-00:00:01'`, `'100:00:00'`],
  'TIME(1)': [`'-00:00:00.5'`, `'12:34:56.7'`],
  'TIME(3)': [`'-01:02:03.004'`, `'-00:00:00.001'`, `'23:59:59.999'`],
  'TIME(6)': [`'-00:00:00.000001'`, `'-838:59:58.999999'`, `'01:02:03.000004'`, `'-10:00:00.000000'`],
  DATETIME: [
    `'0000-00-00 00:00:00'`,
    `'9999-12-31 23:59:59'`,
    `'2020-02-00 01:02:03'`,
    `'1000-01-01 00:00:00'`,
  ],
  'DATETIME(2)': [`'2024-01-02 03:04:05.06'`],
  'DATETIME(5)': [`'2024-01-02 03:04:05.00001'`],
  'DATETIME(6)': [`'2024-01-02 03:04:05.000006'`, `'2024-01-02 03:04:05.999999'`],
  'TIMESTAMP NULL': [`'0000-00-00 00:00:00'`, `'1970-01-01 00:00:01'`, `'2038-01-19 03:14:07'`, 'NULL'],
  'TIMESTAMP(6) NULL': [
    `'2024-03-31 01:30:00.000001'`,
    `'2038-01-19 03:14:07.999999'`,
    `'0000-00-00 00:00:00'`,
  ],
  'CHAR(10)': [`'abc'`, `''`, `'ü😀'`, `'  lead'`],
  'VARCHAR(40)': [
    `'quote '' back \\\\ slash'`,
    `'line\\n\\r\\t\\0end'`,
    `'trail  '`,
    `'\\Z'`,
    `'😀𝒳'`,
    `''`,
    'NULL',
  ],
  'VARCHAR(300)': [`REPEAT('ü', 300)`],
  'CHAR(5) CHARACTER SET latin1': [`_latin1 x'80818D8F9D'`, `_latin1 x'E9'`],
  'VARCHAR(20) CHARACTER SET latin1': [`_latin1 x'00FF5C27809F'`],
  'VARCHAR(20) CHARACTER SET gbk': [`_gbk x'C4E3BAC35C'`],
  'VARCHAR(20) CHARACTER SET utf16': [`_utf16 x'D83DDE000041'`],
  'VARCHAR(20) CHARACTER SET ascii': [`'plain'`],
  'VARCHAR(20) CHARACTER SET utf8mb3': [`'ü€'`],
  'TEXT CHARACTER SET latin1': [`_latin1 x'80819D'`],
  'BINARY(4)': [`x'61'`, `x'00000000'`, `x'61006200'`, `x'FFFFFFFF'`],
  'BINARY(255)': [`x'0102'`],
  'VARBINARY(20)': [`x'00'`, `x'610000'`, `''`, `x'275C00FF'`],
  TINYBLOB: [`x'00FF'`],
  BLOB: [`REPEAT(x'00FF275C', 1000)`, `''`],
  MEDIUMBLOB: [`REPEAT(x'80', 70000)`],
  LONGBLOB: [`x'01'`],
  TINYTEXT: [`'t'`],
  TEXT: [`REPEAT('ü', 1000)`],
  MEDIUMTEXT: [`REPEAT('x', 70000)`],
  LONGTEXT: [`'l'`],
  [`ENUM('a','it''s','ü,x')`]: [`'a'`, `'it''s'`, `'ü,x'`, 'NULL'],
  [`SET('a','b','c','d','e','f','g','h','i')`]: [`'a,i'`, `''`, `'b,c,d'`],
  [`SET(${Array.from({ length: 64 }, (_x, i) => `'m${i}'`).join(',')})`]: [`'m0,m31,m32,m63'`, `'m63'`],
};

const MYSQL_JSON: Record<string, string[]> = {
  JSON: [
    `'{"b": 1, "a": [1.0, 1, -0.5, 1e300, true, null, "x\\\\"y"], "": {}}'`,
    `'[]'`,
    `'"text"'`,
    `'1.0'`,
    `'18446744073709551615'`,
    `'-9223372036854775808'`,
    `'null'`,
    'NULL',
    `'{"__proto__": {"constructor": 1}, "10": 1, "9": 2}'`,
    `JSON_OBJECT('d', CAST('1.50' AS DECIMAL(10,2)), 'when', CAST('2024-01-02 03:04:05.000006' AS DATETIME(6)), 'n', 1)`,
    `JSON_ARRAY(CAST('-00:00:01.5' AS TIME(6)), CAST('2024-01-02' AS DATE), x'00FF', 2.0e0)`,
    `CAST(CAST('12345678901234567890.123' AS DECIMAL(30,3)) AS JSON)`,
    `JSON_OBJECT('long', REPEAT('ü', 40000), 'i', 70000, 's', 5)`,
    `JSON_ARRAY(32768, -32769, 2147483648, 65535, -1)`,
  ],
};
const MARIADB_JSON: Record<string, string[]> = { JSON: [`'{"b":  1.0, "a": [1 ,2]}'`, 'NULL'] };

describe.each(['mysql', 'mariadb'] as const)('column types on %s', (flavour) => {
  let pair: Pair;
  let link: RunningLink;
  const types = Object.entries({ ...COMMON, ...(flavour === 'mysql' ? MYSQL_JSON : MARIADB_JSON) });

  beforeAll(async () => {
    pair = await startPair(flavour);
    await createOnBoth(pair, [
      'CREATE DATABASE t_types CHARACTER SET utf8mb4',
      ...types.map(
        ([type], i) => `CREATE TABLE t_types.t${i} (id INT PRIMARY KEY, v ${type}, n INT) CHARSET utf8mb4`,
      ),
      `CREATE TABLE t_types.generated (id INT PRIMARY KEY, a INT, kept INT AS (a + 1) STORED, virt INT AS (a * 2) VIRTUAL, \`odd \`\`name\` INT,
        touched TIMESTAMP NULL DEFAULT NULL ON UPDATE CURRENT_TIMESTAMP)`,
      'CREATE TABLE t_types.keys_text (k VARCHAR(20) CHARACTER SET latin1, b BINARY(3), d DATETIME(3), f DECIMAL(6,2), v INT, PRIMARY KEY (k, b, d, f))',
    ]);
    const names = [...types.map((_t, i) => `t${i}`), 'generated', 'keys_text'];
    link = await runLink(
      linkConfig(
        pair,
        'a',
        't_types',
        Object.fromEntries(names.map((n) => [`t_types.${n}`, { unrouted: true as const }])),
      ),
    );
  });
  afterAll(async () => {
    await link?.stop();
    await pair?.stop();
  });

  it('carries every value byte for byte, as insert, update and delete', async () => {
    const { pool } = pair.a;
    const session = await pool.getConnection();
    await session.query(`SET SESSION sql_mode = 'ALLOW_INVALID_DATES', time_zone = '+00:00'`);
    for (const [i, [, values]] of types.entries()) {
      const inserts = values.map(
        (value, n) => `(${n}, ${value}, 0), (${n + 100}, NULL, 1), (${n + 200}, ${value}, 2)`,
      );
      await session.query(`INSERT INTO t_types.t${i} VALUES ${inserts.join(',')}`);
    }
    await settled(link, pair.a);
    // Again in transactions of their own: into a value, out of it, and gone.
    for (const [i, [, values]] of types.entries()) {
      for (const [n, value] of values.entries()) {
        await session.query(`UPDATE t_types.t${i} SET v = ${value}, n = 9 WHERE id = ${n + 100}`);
      }
      await session.query(`UPDATE t_types.t${i} SET v = NULL WHERE id >= 200 AND n = 2`);
      await session.query(`DELETE FROM t_types.t${i} WHERE id = 0`);
    }
    session.release();
    await settled(link, pair.a);
    for (const [i, [type]] of types.entries()) {
      expect({ type, rows: await dump(pair.b, `t_types.t${i}`) }).toEqual({
        type,
        rows: await dump(pair.a, `t_types.t${i}`),
      });
    }
  });

  it.runIf(flavour === 'mysql')('keeps the types inside JSON', async () => {
    const at = types.findIndex(([type]) => type === 'JSON');
    const sql = `SELECT id, JSON_TYPE(v) AS t, JSON_TYPE(v->'$.d') AS d, JSON_TYPE(v->'$.when') AS w, JSON_TYPE(v->'$[0]') AS x, JSON_TYPE(v->'$.a[0]') AS f, CAST(v AS CHAR) AS text
      FROM t_types.t${at} ORDER BY id`;
    expect(await rows(pair.b, sql)).toEqual(await rows(pair.a, sql));
  });

  it('leaves generated columns to the target and keeps the time of automatic columns', async () => {
    await pair.a.pool.query(
      'INSERT INTO t_types.generated (id, a, `odd ``name`) VALUES (1, 5, 7), (2, 6, 8)',
    );
    await pair.a.pool.query(
      `UPDATE t_types.generated SET a = 50, touched = '2001-01-01 00:00:00' WHERE id = 1`,
    );
    await settled(link, pair.a);
    await pair.a.pool.query(`UPDATE t_types.generated SET a = 51, touched = touched WHERE id = 1`);
    await settled(link, pair.a);
    expect(await rows(pair.b, 'SELECT a, touched FROM t_types.generated WHERE id = 1')).toEqual([
      { a: 51, touched: '2001-01-01 00:00:00' },
    ]);
    await pair.a.pool.query('UPDATE t_types.generated SET a = a + 1');
    await settled(link, pair.a);
    expect(await dump(pair.b, 't_types.generated')).toEqual(await dump(pair.a, 't_types.generated'));
  });

  it('finds rows again by keys of text, binary, time and decimal', async () => {
    await pair.a.pool.query(
      `INSERT INTO t_types.keys_text VALUES (_latin1 x'E981', x'61', '2024-01-01 00:00:00.001', 1.50, 1), ('b', x'620000', '2024-01-01 00:00:00', -1.5, 2), ('c', x'63', '2024-01-01 00:00:00', 0, 3)`,
    );
    await settled(link, pair.a);
    await pair.a.pool.query(`UPDATE t_types.keys_text SET v = v + 10`);
    await settled(link, pair.a);
    await pair.a.pool.query(`UPDATE t_types.keys_text SET v = 7 WHERE k = 'b'`);
    await settled(link, pair.a);
    await pair.a.pool.query(`DELETE FROM t_types.keys_text WHERE k <> 'c'`);
    await settled(link, pair.a);
    expect(await dump(pair.b, 't_types.keys_text')).toEqual(await dump(pair.a, 't_types.keys_text'));
    expect(await dump(pair.b, 't_types.keys_text')).toHaveLength(1);
  });
});
