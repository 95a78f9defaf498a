import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { InterlockError } from '../../src/errors.js';
import {
  createOnBoth,
  dump,
  linkConfig,
  rows,
  runLink,
  settled,
  startPair,
  unlogged,
} from '../support/replication.js';
import type { Pair, RunningLink, Side } from '../support/replication.js';

describe.each(['mysql', 'mariadb'] as const)('definitions that differ on %s', (flavour) => {
  let pair: Pair;
  let a: Side;
  let b: Side;
  const running: RunningLink[] = [];

  beforeAll(async () => {
    pair = await startPair(flavour);
    ({ a, b } = pair);
  });
  afterEach(async () => {
    await Promise.all(running.splice(0).map((link) => link.stop()));
  });
  afterAll(async () => {
    await pair.stop();
  });

  const link = async (
    schema: string,
    from: 'a' | 'b' = 'a',
    at: string | null = 'now',
    tables: string[] = ['item'],
  ): Promise<RunningLink> => {
    const routing = Object.fromEntries(tables.map((t) => [`${schema}.${t}`, { unrouted: true as const }]));
    const started = await runLink(linkConfig(pair, from, schema, routing), at);
    running.push(started);
    return started;
  };
  const stopped = async (one: RunningLink): Promise<InterlockError> => {
    const error = await Promise.race([
      one.ended,
      new Promise((resolve) =>
        setTimeout(() => resolve(new Error(`still runs: ${JSON.stringify(one.status())}`)), 20_000),
      ),
    ]);
    expect(error).toBeInstanceOf(InterlockError);
    return error as InterlockError;
  };
  const prepare = async (schema: string, columns: string): Promise<RunningLink> => {
    await createOnBoth(pair, [`CREATE DATABASE ${schema}`, `CREATE TABLE ${schema}.item (${columns})`]);
    return link(schema);
  };
  const alter = (side: Side, schema: string, what: string): Promise<unknown> =>
    side.pool.query(`ALTER TABLE ${schema}.item ${what}`);
  const inOne = async (side: Side, statements: string[]): Promise<void> => {
    const connection = await side.pool.getConnection();
    await connection.beginTransaction();
    for (const statement of statements) await connection.query(statement);
    await connection.commit();
    connection.release();
  };

  it('a column that only the target has is left alone', async () => {
    const ab = await prepare('s_target', 'id INT PRIMARY KEY, n INT');
    const { pool } = a;
    await pool.query('INSERT INTO s_target.item VALUES (1, 1), (2, 2), (3, 3)');
    await settled(ab, a);
    // In front and in the middle, too; while the link runs, which nothing tells of it.
    await alter(b, 's_target', `ADD COLUMN first VARCHAR(10) NOT NULL DEFAULT 'f' FIRST`);
    await alter(b, 's_target', 'ADD COLUMN maybe INT NULL AFTER id');
    await alter(b, 's_target', 'ADD COLUMN twice INT AS (n * 2) STORED');
    await alter(b, 's_target', `ADD COLUMN touched DATETIME(6) NOT NULL DEFAULT '2001-01-01' ON UPDATE NOW(6)`);
    await b.pool.query(`UPDATE s_target.item SET first = 'mine', touched = '2002-02-02' WHERE id < 3`);
    await ab.stop();
    const again = await link('s_target', 'a', null);
    await pool.query('INSERT INTO s_target.item VALUES (4, 4)');
    await pool.query('UPDATE s_target.item SET n = n + 10 WHERE id = 1');
    await settled(again, a);
    // Of several rows at once: another statement.
    await pool.query('UPDATE s_target.item SET n = n + 10 WHERE id IN (2, 3)');
    await pool.query('DELETE FROM s_target.item WHERE id = 3');
    await settled(again, a);
    const line = (id: number, n: number, first: string, touched: string): unknown => ({
      ...{ first, id, maybe: null, n, twice: 2 * n, touched: `${touched} 00:00:00.000000` },
    });
    expect(await rows(b, 'SELECT * FROM s_target.item ORDER BY id')).toEqual([
      line(1, 11, 'mine', '2002-02-02'),
      line(2, 12, 'mine', '2002-02-02'),
      line(4, 4, 'f', '2001-01-01'),
    ]);
    // Without a default it cannot be left out: nothing of the transaction is there.
    await alter(b, 's_target', 'ADD COLUMN must INT NOT NULL');
    await inOne(a, ['UPDATE s_target.item SET n = 0 WHERE id = 1', 'INSERT INTO s_target.item VALUES (5, 5)']);
    const error = await stopped(again);
    expect(error.details).toMatchObject({
      ...{ kind: 'schema', table: 's_target.item', column: 'must', at: 'dc-a' },
      command: expect.stringMatching(/^ALTER TABLE `s_target`.`item` ADD COLUMN `must` int(\(11\))? NOT NULL$/) as string,
    });
    expect(await rows(b, 'SELECT n FROM s_target.item WHERE id IN (1, 5)')).toEqual([{ n: 11 }]);
    await pool.query(String(error.details['command']).replace('NOT NULL', 'NOT NULL DEFAULT 7'));
    await link('s_target', 'a', null).then((last) => settled(last, a));
    expect(await rows(b, 'SELECT id, n, must FROM s_target.item WHERE id IN (1, 5)')).toEqual([
      { id: 1, n: 0, must: 7 },
      { id: 5, n: 5, must: 7 },
    ]);
  });

  it.each([
    ['a number', 'INT NOT NULL DEFAULT 7', '8'],
    ['a negative number', "DECIMAL(8,3) UNSIGNED NULL DEFAULT '1.5'", '1.501'],
    ['text', "VARCHAR(20) CHARACTER SET utf8mb4 NOT NULL DEFAULT 'as it is'", "'as it is '"],
    ['empty text', "CHAR(5) CHARACTER SET latin1 NOT NULL DEFAULT ''", "'x'"],
    ['text in another character set', "VARCHAR(9) CHARACTER SET latin1 NOT NULL DEFAULT 'old'", "'new'"],
    ['a member', "ENUM('no','yes') NOT NULL DEFAULT 'no'", "'yes'"],
    ['a time', "DATETIME(3) NOT NULL DEFAULT '2020-01-02 03:04:05'", "'2020-01-02 03:04:05.001'"],
    ['a date', "DATE NOT NULL DEFAULT '2020-01-02'", "'2020-01-03'"],
    ['bits', "BIT(4) NOT NULL DEFAULT b'101'", "b'100'"],
    ['a fraction', 'FLOAT NOT NULL DEFAULT 0.1', '0.2'],
    ['nothing', 'JSON NULL', `'{}'`],
    ['no value', 'INT NULL DEFAULT NULL', '0'],
  ])('a column that only the source has: %s', async (_what, type, other) => {
    const schema = `s_default_${type.replace(/\W+/g, '').slice(0, 20).toLowerCase()}`;
    const ab = await prepare(schema, 'id INT PRIMARY KEY, n INT');
    await a.pool.query(`INSERT INTO ${schema}.item VALUES (1, 1)`);
    await alter(a, schema, `ADD COLUMN x ${type} FIRST`);
    await a.pool.query(`INSERT INTO ${schema}.item (id, n) VALUES (2, 2)`);
    await a.pool.query(`UPDATE ${schema}.item SET n = 3 WHERE id = 1`);
    await settled(ab, a);
    expect(await rows(b, `SELECT id, n FROM ${schema}.item ORDER BY id`)).toEqual([
      { id: 1, n: 3 },
      { id: 2, n: 2 },
    ]);
    await inOne(a, [
      `INSERT INTO ${schema}.item (id, n) VALUES (3, 3)`,
      `UPDATE ${schema}.item SET x = ${other} WHERE id = 2`,
    ]);
    const error = await stopped(ab);
    expect(error.details).toMatchObject({
      ...{ kind: 'schema', table: `${schema}.item`, column: 'x', at: 'dc-b' },
      difference: expect.stringContaining('missing on the target') as string,
    });
    expect(await dump(b, `${schema}.item`)).toHaveLength(2);
    // The command that mends it, as it was said.
    await b.pool.query(String(error.details['command']));
    await link(schema, 'a', null).then((last) => settled(last, a));
    expect(await dump(b, `${schema}.item`)).toEqual(await dump(a, `${schema}.item`));
  });

  it.each([
    ['DATETIME NOT NULL DEFAULT CURRENT_TIMESTAMP', 'INT PRIMARY KEY'],
    ['INT NOT NULL', 'INT PRIMARY KEY'],
    ['VARCHAR(40) NULL DEFAULT (UUID())', 'INT PRIMARY KEY'],
  ])('stops at a new column whose value nobody knows: %s', async (type) => {
    const schema = `s_unknown_${type.length}`;
    const ab = await prepare(schema, 'id INT PRIMARY KEY, n INT');
    await alter(a, schema, `ADD COLUMN x ${type}`);
    const error = await stopped(ab);
    expect(error.details['kind']).toBe('ddl');
    expect(error.message).toContain(`${schema}.item.x`);
  });
});
