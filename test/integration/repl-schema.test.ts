import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { initialiseLink } from '../../replicators/mysql/initialise.js';
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
  until,
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
    await alter(
      b,
      's_target',
      `ADD COLUMN touched DATETIME(6) NOT NULL DEFAULT '2001-01-01' ON UPDATE NOW(6)`,
    );
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
    await inOne(a, [
      'UPDATE s_target.item SET n = 0 WHERE id = 1',
      'INSERT INTO s_target.item VALUES (5, 5)',
    ]);
    const error = await stopped(again);
    expect(error.details).toMatchObject({
      ...{ kind: 'schema', table: 's_target.item', column: 'must', at: 'dc-b' },
      command: 'ALTER TABLE `s_target`.`item` ALTER COLUMN `must` SET DEFAULT 0',
    });
    expect(await rows(b, 'SELECT n FROM s_target.item WHERE id IN (1, 5)')).toEqual([{ n: 11 }]);
    await b.pool.query(String(error.details['command']));
    await link('s_target', 'a', null).then((last) => settled(last, a));
    expect(await rows(b, 'SELECT id, n, must FROM s_target.item WHERE id IN (1, 5)')).toEqual([
      { id: 1, n: 0, must: 0 },
      { id: 5, n: 5, must: 0 },
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

  it('a column that the target drops first flows while its values are the default, and is not lost without a word', async () => {
    const schema = 's_dropped';
    const ab = await prepare(schema, "id INT PRIMARY KEY, old VARCHAR(10) DEFAULT 'o', n INT");
    await a.pool.query(`INSERT INTO ${schema}.item VALUES (1, 'o', 1), (2, 'kept', 2)`);
    await settled(ab, a);
    await alter(b, schema, 'DROP COLUMN old');
    await a.pool.query(`INSERT INTO ${schema}.item (id, n) VALUES (3, 3)`);
    await a.pool.query(`UPDATE ${schema}.item SET n = 10 WHERE id = 1`);
    await a.pool.query(`UPDATE ${schema}.item SET old = DEFAULT, n = 20 WHERE id = 2`);
    await settled(ab, a);
    expect(await rows(b, `SELECT * FROM ${schema}.item ORDER BY id`)).toEqual([
      { id: 1, n: 10 },
      { id: 2, n: 20 },
      { id: 3, n: 3 },
    ]);
    await a.pool.query(`UPDATE ${schema}.item SET old = 'again' WHERE id = 3`);
    expect((await stopped(ab)).details).toMatchObject({ column: 'old', value: "'again'", at: 'dc-b' });
    // Dropped, or renamed? Nobody can tell: its value is wanted, until it is said that it is not.
    await alter(a, schema, 'RENAME COLUMN old TO young');
    const waiting = await link(schema, 'a', null);
    expect((await stopped(waiting)).message).toContain('on neither side now');
    await unlogged(b, [
      `ALTER TABLE ${schema}.item ADD COLUMN old VARCHAR(10) DEFAULT 'o', ADD COLUMN young VARCHAR(10) DEFAULT 'o'`,
    ]);
    await settled(await link(schema, 'a', null), a);
    expect(await rows(b, `SELECT id, old FROM ${schema}.item WHERE id = 3`)).toEqual([
      { id: 3, old: 'again' },
    ]);
  });

  it('carries a column from when the target has it, too', async () => {
    const schema = 's_comes';
    const ab = await prepare(schema, 'id INT PRIMARY KEY, n INT');
    await a.pool.query(`INSERT INTO ${schema}.item VALUES (1, 1), (2, 2)`);
    await alter(a, schema, 'ADD COLUMN x INT NOT NULL DEFAULT 7');
    await a.pool.query(`UPDATE ${schema}.item SET n = 3`);
    await settled(ab, a);
    await alter(b, schema, 'ADD COLUMN x INT NOT NULL DEFAULT 7');
    // As the other link would have brought it: a value of the target's, which the source then sets to the default.
    for (const side of [a, b]) await unlogged(side, [`UPDATE ${schema}.item SET x = 9`]);
    await a.pool.query(`UPDATE ${schema}.item SET x = DEFAULT`);
    await settled(ab, a);
    expect(await dump(b, `${schema}.item`)).toEqual(await dump(a, `${schema}.item`));
    expect(await rows(b, `SELECT x FROM ${schema}.item WHERE id = 1`)).toEqual([{ x: 7 }]);
  });

  it('carries what the other side can hold, and stops before what it cannot', async () => {
    const schema = 's_size';
    const columns = [
      'i INT NOT NULL DEFAULT 0',
      'u INT UNSIGNED',
      'v VARCHAR(5)',
      'w VARCHAR(5) CHARACTER SET latin1',
      'c CHAR(3)',
      't TINYTEXT',
      'k VARBINARY(3)',
      'd DECIMAL(6,2)',
      'm DATETIME',
      "e ENUM('a','b')",
      "s SET('a','b')",
      'f BIT(3)',
      'z INT NOT NULL DEFAULT 1',
    ];
    const wider = [
      'i BIGINT NOT NULL DEFAULT 0',
      'u BIGINT',
      'v VARCHAR(200)',
      'w VARCHAR(300) CHARACTER SET latin1',
      'c CHAR(5)',
      't MEDIUMTEXT',
      'k VARBINARY(300)',
      'd DECIMAL(12,4)',
      'm DATETIME(6)',
      "e ENUM('a','b','c')",
      "s SET('a','b','c')",
      'f BIT(9)',
      'z INT NULL DEFAULT 1',
    ];
    const ab = await prepare(schema, `id INT PRIMARY KEY, ${columns.join(', ')}`);
    const ba = await link(schema, 'b');
    const small = "-5, 7, 'ab ', 'é', 'x', 'é', x'0000', -1234.5, '2020-01-01 10:00:00', 'b', 'a,b', 5, 3";
    await a.pool.query(`INSERT INTO ${schema}.item VALUES (1, ${small})`);
    await settled(ab, a);
    // The target first, while both links run: nothing has to stop for it.
    await b.pool.query(`ALTER TABLE ${schema}.item ${wider.map((column) => `MODIFY ${column}`).join(', ')}`);
    await a.pool.query(`INSERT INTO ${schema}.item VALUES (2, ${small})`);
    await a.pool.query(`UPDATE ${schema}.item SET n0 = 1`.replace('n0 = 1', 'i = i + 1'));
    await b.pool.query(
      `INSERT INTO ${schema}.item VALUES (3, ${small}), (4, ${small.replace("'ab '", 'NULL')})`,
    );
    await settled(ab, a);
    await settled(ba, b);
    expect(await rows(a, `SELECT * FROM ${schema}.item ORDER BY id`)).toHaveLength(4);
    const over: [string, string][] = [
      ['i', '2147483648'],
      ['u', '-1'],
      ['v', "'abcd  '"],
      ['w', "'éééééé'"],
      ['c', "'abcd'"],
      ['t', "REPEAT('é', 128)"],
      ['k', "x'00000000'"],
      ['d', '1.001'],
      ['m', "'2020-01-01 10:00:00.5'"],
      ['e', "'c'"],
      ['s', "'a,c'"],
      ['f', "b'1000'"],
      ['z', 'NULL'],
    ];
    let last = ba;
    for (const [column, value] of over) {
      await b.pool.query(`UPDATE ${schema}.item SET ${column} = ${value} WHERE id = 3`);
      const error = await stopped(last);
      expect(error.details, column).toMatchObject({
        kind: 'schema',
        column,
        at: 'dc-a',
        table: `${schema}.item`,
      });
      expect(await rows(a, `SELECT v, d FROM ${schema}.item WHERE id = 3`), column).toMatchObject([
        { v: 'ab ' },
      ]);
      // The way back is a row that fits again, in the same transaction as the link reads it.
      await a.pool.query(String(error.details['command']));
      last = await link(schema, 'b', null);
      await settled(last, b);
      const value3 = `SELECT ${column} FROM ${schema}.item WHERE id = 3`;
      expect(await rows(a, value3), column).toEqual(await rows(b, value3));
      await b.pool.query(
        `UPDATE ${schema}.item SET ${column} = (SELECT ${column} FROM (SELECT * FROM ${schema}.item) x WHERE id = 2) WHERE id = 3`,
      );
      await settled(last, b);
      await unlogged(a, [
        `ALTER TABLE ${schema}.item MODIFY ${columns.find((one) => one.startsWith(`${column} `))!}`,
      ]);
    }
  });

  it.each([
    ['DATETIME NOT NULL DEFAULT CURRENT_TIMESTAMP'],
    ['INT NOT NULL'],
    ['DATETIME(3) NULL DEFAULT CURRENT_TIMESTAMP(3)'],
  ])('stops at a new column whose value nobody knows: %s', async (type) => {
    const schema = `s_unknown_${type.length}`;
    const ab = await prepare(schema, 'id INT PRIMARY KEY, n INT');
    await alter(a, schema, `ADD COLUMN x ${type}`);
    const error = await stopped(ab);
    expect(error.details['kind']).toBe('ddl');
    expect(error.message).toContain(`${schema}.item.x`);
  });

  it.each([
    ['another type', 'MODIFY n VARCHAR(10)', 'n: int'],
    ['another character set', 'MODIFY t VARCHAR(10) CHARACTER SET latin1', 't: varchar(10) utf8mb4'],
    [
      'another collation',
      'MODIFY t VARCHAR(10) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin',
      't: varchar(10) utf8mb4',
    ],
    ['another primary key', 'DROP PRIMARY KEY, ADD PRIMARY KEY (id, n)', 'primary key (id,n) at the source'],
    ['another unique key', 'ADD UNIQUE KEY one (n)', 'unique keys one(n) at the source'],
    ['another generated column', 'DROP COLUMN g, ADD COLUMN g INT AS (n + 2) STORED', 'g: int'],
    ['a column that is generated on one side', 'DROP COLUMN g, ADD COLUMN g INT', 'g: int'],
    ['members in another order', "MODIFY e ENUM('b','a')", "e: enum('b','a')"],
    ['another engine', 'ENGINE=MyISAM', 'engine MyISAM'],
  ])('stops at %s, on either side', async (what, change, text) => {
    const schema = `s_${what.replace(/\W+/g, '_')}`;
    const columns = `id INT, n INT NOT NULL, t VARCHAR(10) CHARACTER SET utf8mb4, g INT AS (n + 1) STORED, e ENUM('a','b'), PRIMARY KEY (id)`;
    const ab = await prepare(schema, columns);
    const ba = await link(schema, 'b');
    await alter(a, schema, change);
    const error = await stopped(ab);
    expect(error.details['kind']).toBe('ddl');
    expect(error.message).toContain(`${schema}.item`);
    expect(error.message).toContain(text.split(':')[0]);
    // The other link hears nothing of it until it begins again.
    await ba.stop();
    const back = await link(schema, 'b', null).catch((refused: unknown) => refused);
    const refused = back instanceof Error ? back : await stopped(back as RunningLink);
    expect(refused.message).toContain(`${schema}.item`);
    await unlogged(b, [`ALTER TABLE ${schema}.item ${change.replace('ENGINE=MyISAM', 'COMMENT="x"')}`]);
    await unlogged(a, [`ALTER TABLE ${schema}.item ENGINE=InnoDB`]);
    const again = await link(schema, 'a', null);
    await a.pool.query(`INSERT INTO ${schema}.item (id, n, t, e) VALUES (1, 2, 'x', 'a')`);
    await settled(again, a);
    expect(await dump(b, `${schema}.item`)).toEqual(await dump(a, `${schema}.item`));
  });

  it.each([
    ['a key', 'ADD UNIQUE KEY `o``ne` (n)', 'ALTER TABLE `SCHEMA`.`item` DROP INDEX `o``ne`'],
    [
      'the primary key',
      'DROP PRIMARY KEY, ADD PRIMARY KEY (n)',
      'ALTER TABLE `SCHEMA`.`item` DROP PRIMARY KEY, ADD PRIMARY KEY (`id`)',
    ],
    ['the engine', 'ENGINE=MyISAM', 'ALTER TABLE `SCHEMA`.`item` ENGINE=InnoDB'],
    ['a trigger', null, 'DROP TRIGGER `SCHEMA`.`twice`'],
  ])('names the statement that mends %s, and it does', async (what, change, wanted) => {
    const schema = `s_mend_${what.replace(/\W+/g, '_')}`;
    const first = await prepare(schema, 'id INT PRIMARY KEY, n INT NOT NULL, t VARCHAR(20)');
    await settled(first, a);
    await unlogged(b, [
      change === null
        ? `CREATE TRIGGER ${schema}.twice BEFORE INSERT ON ${schema}.item FOR EACH ROW SET NEW.n = 3`
        : `ALTER TABLE ${schema}.item ${change}`,
      // Not seen before a row is refused.
      `ALTER TABLE ${schema}.item MODIFY t VARCHAR(3)`,
    ]);
    await a.pool.query(`INSERT INTO ${schema}.item VALUES (1, 2, 'longer')`);
    const error = await stopped(first);
    const command = wanted.replace('SCHEMA', schema);
    expect(error.details).toMatchObject({ kind: 'schema', at: 'dc-b', command });
    expect(error.message).toContain(`Run on dc-b: ${command}; then`);
    await unlogged(b, [...command.split('; '), `ALTER TABLE ${schema}.item MODIFY t VARCHAR(20)`]);
    const again = await link(schema, 'a', null);
    await settled(again, a);
    expect(await dump(b, `${schema}.item`)).toEqual(await dump(a, `${schema}.item`));
  });

  it('does not take a renamed column for two', async () => {
    const schema = 's_renamed';
    const ab = await prepare(schema, "id INT PRIMARY KEY, old VARCHAR(9) DEFAULT 'o'");
    await a.pool.query(`INSERT INTO ${schema}.item VALUES (1, 'kept')`);
    await settled(ab, a);
    await alter(b, schema, "CHANGE old young VARCHAR(9) DEFAULT 'o'");
    await a.pool.query(`UPDATE ${schema}.item SET old = DEFAULT WHERE id = 1`);
    expect((await stopped(ab)).message).toContain('renamed?');
    await alter(a, schema, "CHANGE old young VARCHAR(9) DEFAULT 'o'");
    // The row is of before the source's own change.
    const again = await link(schema, 'a', null);
    expect((await stopped(again)).details).toMatchObject({ kind: 'schema', column: 'old' });
    expect(await rows(b, `SELECT young FROM ${schema}.item`)).toEqual([{ young: 'kept' }]);
  });

  it('notices what is changed on the target while it runs', async () => {
    const schema = 's_under';
    const ab = await prepare(
      schema,
      'id INT PRIMARY KEY, n BIGINT, t VARCHAR(20) CHARACTER SET utf8mb4 NULL',
    );
    await a.pool.query(`INSERT INTO ${schema}.item VALUES (1, 1, 'one')`);
    await settled(ab, a);
    await alter(b, schema, 'MODIFY t VARCHAR(20) NOT NULL, MODIFY n INT');
    await a.pool.query(`INSERT INTO ${schema}.item VALUES (2, 2, 'two')`);
    await settled(ab, a);
    await a.pool.query(`INSERT INTO ${schema}.item VALUES (3, 3, NULL)`);
    const nothing = await stopped(ab);
    expect(nothing.details).toMatchObject({ kind: 'schema', column: 't', value: 'NULL', at: 'dc-b' });
    await b.pool.query(String(nothing.details['command']));
    const second = await link(schema, 'a', null);
    await a.pool.query(`INSERT INTO ${schema}.item VALUES (4, ${2 ** 31}, '')`);
    expect((await stopped(second)).details).toMatchObject({
      kind: 'schema',
      column: 'n',
      value: String(2 ** 31),
    });
    await alter(b, schema, 'MODIFY n BIGINT');
    const third = await link(schema, 'a', null);
    await settled(third, a);
    // What does not flow at all is told from what does: one statement makes the link look, the other stops it.
    await alter(b, schema, 'DROP COLUMN n, MODIFY t VARCHAR(20) CHARACTER SET latin1');
    await a.pool.query(`INSERT INTO ${schema}.item VALUES (5, NULL, '')`);
    expect((await stopped(third)).details).toMatchObject({
      ...{ kind: 'schema', column: 't' },
      difference: expect.stringContaining('latin1') as string,
    });
    await alter(b, schema, 'ADD COLUMN n BIGINT AFTER id, MODIFY t VARCHAR(20) CHARACTER SET utf8mb4');
    const fourth = await link(schema, 'a', null);
    await settled(fourth, a);
    await b.pool.query(`DROP TABLE ${schema}.item`);
    await a.pool.query(`INSERT INTO ${schema}.item VALUES (6, 6, '')`);
    const gone = await stopped(fourth);
    expect(gone.details).toMatchObject({ kind: 'schema', table: `${schema}.item`, column: null, at: 'dc-b' });
    expect(String(gone.details['command'])).toContain(`CREATE TABLE \`${schema}\`.\`item\` (`);
  });

  it('a table that one side does not have flows until its first row', async () => {
    const schema = 's_new';
    await createOnBoth(pair, [
      `CREATE DATABASE ${schema}`,
      `CREATE TABLE ${schema}.item (id INT PRIMARY KEY)`,
    ]);
    const tables = ['item', 'new', 'theirs'];
    await b.pool.query(`CREATE TABLE ${schema}.early (id INT PRIMARY KEY)`);
    const early = linkConfig(pair, 'a', schema, {});
    await expect(initialiseLink(early, { from: 'now' })).rejects.toThrow('early: missing at the source');
    await b.pool.query(`DROP TABLE ${schema}.early`);
    const ab = await link(schema, 'a', 'now', tables);
    await b.pool.query(`CREATE TABLE ${schema}.theirs (id INT PRIMARY KEY)`);
    await a.pool.query(`CREATE TABLE ${schema}.new (id INT PRIMARY KEY, name VARCHAR(9))`);
    await a.pool.query(`INSERT INTO ${schema}.item VALUES (1)`);
    await settled(ab, a);
    await ab.stop();
    const again = await link(schema, 'a', null, tables);
    await a.pool.query(`INSERT INTO ${schema}.item VALUES (2)`);
    await settled(again, a);
    await inOne(a, [`INSERT INTO ${schema}.item VALUES (3)`, `INSERT INTO ${schema}.new VALUES (1, 'x')`]);
    const error = await stopped(again);
    expect(error.details).toMatchObject({ kind: 'schema', table: `${schema}.new`, at: 'dc-b' });
    expect(await dump(b, `${schema}.item`)).toHaveLength(2);
    await b.pool.query(String(error.details['command']));
    const last = await link(schema, 'a', null, tables);
    await settled(last, a);
    for (const table of ['item', 'new']) {
      expect(await dump(b, `${schema}.${table}`)).toEqual(await dump(a, `${schema}.${table}`));
    }
  });

  it.each([
    ['TRUNCATE TABLE item', 'emptied at the source, has rows on the target', 'TRUNCATE TABLE item'],
    ['DROP TABLE item', 'emptied at the source, has rows on the target', 'DROP TABLE item'],
    [
      'CREATE OR REPLACE TABLE item (id INT PRIMARY KEY)',
      'emptied at the source',
      'CREATE OR REPLACE TABLE item (id INT PRIMARY KEY)',
    ],
    ['RENAME TABLE item TO other', 'has other rows now', null],
    ['ALTER TABLE item RENAME TO other', 'has other rows now', null],
    ['ALTER TABLE item RENAME COLUMN n TO m', 's_stmt.item.m', 'ALTER TABLE item RENAME COLUMN n TO m'],
    ['ALTER TABLE item CHANGE o p INT', 'renamed?', 'ALTER TABLE item CHANGE o p INT'],
    ['DROP DATABASE s_stmt', 'emptied at the source', 'DROP DATABASE s_stmt'],
    ['DROP INDEX by_n ON item', null, null],
    ['CREATE INDEX other ON item (n)', null, null],
    ['CREATE VIEW seen AS SELECT * FROM item', null, null],
    ['ANALYZE TABLE item', null, null],
  ])('%s in the stream', async (statement, problem, mends) => {
    if (flavour === 'mysql' && statement.startsWith('CREATE OR REPLACE TABLE')) return;
    const schema = 's_stmt';
    await createOnBoth(pair, [`DROP DATABASE IF EXISTS ${schema}`]);
    await unlogged(b, ["DELETE FROM interlock.link_checkpoint WHERE link LIKE 'mysql/s-stmt:%'"]);
    const ab = await prepare(schema, 'id INT PRIMARY KEY, n INT NOT NULL, o INT, KEY by_n (n)');
    await a.pool.query(`INSERT INTO ${schema}.item VALUES (1, 1, 1)`);
    await settled(ab, a);
    const run = async (side: Side, text: string): Promise<void> => {
      const connection = await side.pool.getConnection();
      await connection.query(`USE ${schema}`);
      await connection.query(text);
      connection.destroy();
    };
    await run(a, statement);
    if (problem === null) {
      await a.pool.query(`INSERT INTO ${schema}.item VALUES (2, 2, 2)`);
      await settled(ab, a);
      expect(await dump(b, `${schema}.item`)).toEqual(await dump(a, `${schema}.item`));
      return;
    }
    const error = await stopped(ab);
    expect(error.details['kind']).toBe('ddl');
    expect(error.message).toContain(problem);
    expect(await dump(b, `${schema}.item`), 'nothing of it is applied').toHaveLength(1);
    if (mends === null) {
      expect(error.message).toMatch(/--from '.+' --discard-checkpoint/);
      return;
    }
    await unlogged(b, [`USE ${schema}`, mends]);
    await settled(await link(schema, 'a', null), a);
  });

  it('a copy needs the same definition on both sides, and reads on by a new one', async () => {
    const schema = 's_copy';
    await createOnBoth(pair, [
      `CREATE DATABASE ${schema}`,
      `CREATE TABLE ${schema}.item (id INT PRIMARY KEY, n INT)`,
    ]);
    const values = Array.from({ length: 3000 }, (_x, i) => `(${i}, ${i})`).join();
    await unlogged(a, [`INSERT INTO ${schema}.item VALUES ${values}`]);
    const config = linkConfig(pair, 'a', schema, { [`${schema}.item`]: { unrouted: true } });
    await alter(b, schema, 'ADD COLUMN x INT NULL DEFAULT 7');
    await expect(initialiseLink(config, { copy: true })).rejects.toThrow(
      `${schema}.item.x: missing at the source`,
    );
    await alter(b, schema, 'DROP COLUMN x');
    await initialiseLink(config, { copy: true, maxRowsPerSecond: 700 });
    await alter(b, schema, 'ADD COLUMN x INT NULL DEFAULT 7');
    const early = await link(schema, 'a', null);
    expect((await stopped(early)).message).toContain(`still copies`);
    await alter(b, schema, 'DROP COLUMN x');
    const ab = await link(schema, 'a', null);
    await until(() => (ab.status().copy?.comparedRows ?? 0) > 0, 'the copy has begun');
    const { generation } = ab.status();
    // The target first; a chunk of before would bring its default over what the source says.
    await alter(b, schema, 'ADD COLUMN x INT NULL DEFAULT 7');
    await alter(a, schema, 'ADD COLUMN x INT NULL DEFAULT 8');
    await until(() => ab.status().state === 'streaming', 'all is copied', 30_000);
    expect(ab.status().generation).toBeGreaterThan(generation);
    const late = (side: Side): Promise<unknown> => rows(side, `SELECT x FROM ${schema}.item WHERE id = 2999`);
    expect(await late(b)).toEqual(await late(a));
  });

  it('carries a load in both directions while columns come and go on both sides', async () => {
    const schema = 's_load';
    const ab = await prepare(schema, 'id INT PRIMARY KEY, n INT NOT NULL, old INT NOT NULL DEFAULT 5');
    const ba = await link(schema, 'b');
    let done = false;
    const work = async (side: Side, base: number): Promise<number> => {
      let count = 0;
      while (!done) {
        const id = base + (count % 50);
        await side.pool.query(
          `INSERT INTO ${schema}.item (id, n) VALUES (?, 1) ON DUPLICATE KEY UPDATE n = n + 1`,
          [id],
        );
        if (count % 7 === 0) await side.pool.query(`DELETE FROM ${schema}.item WHERE id = ?`, [id]);
        count++;
      }
      return count;
    };
    const load = [work(a, 0), work(a, 1000), work(b, 2000), work(b, 3000)];
    for (const change of [
      "ADD COLUMN x1 VARCHAR(20) NOT NULL DEFAULT 'new'",
      'ADD COLUMN x2 INT NULL FIRST',
      'ADD INDEX by_x1 (x1)',
      'MODIFY n BIGINT NOT NULL',
      'DROP COLUMN old',
      'ADD COLUMN x3 DECIMAL(8,2) NOT NULL DEFAULT 1.25 AFTER id',
      'DROP COLUMN x1',
    ]) {
      await alter(b, schema, change);
      await settled(ab, a);
      await settled(ba, b);
      await alter(a, schema, change);
      await settled(ab, a);
      await settled(ba, b);
    }
    done = true;
    const counts = await Promise.all(load);
    expect(Math.min(...counts)).toBeGreaterThan(20);
    await settled(ab, a);
    await settled(ba, b);
    expect(await dump(b, `${schema}.item`)).toEqual(await dump(a, `${schema}.item`));
    expect((await dump(b, `${schema}.item`)).length).toBeGreaterThan(100);
  });
});
