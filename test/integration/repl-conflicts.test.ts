import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { BaselineReached } from '../../replicators/core/contract.js';
import type { LinkConfig } from '../../replicators/mysql/link-config.js';
import {
  changed,
  conflictUpdate,
  quarantineUpdate,
  readConflicts,
  readQuarantine,
} from '../../replicators/mysql/records.js';
import type { ConflictRecord, QuarantineRecord } from '../../replicators/mysql/records.js';
import { bucketOf, bucketUnit } from '../../src/routing/units.js';
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
import { initialiseLink } from '../../replicators/mysql/initialise.js';
import { tombstoneTable } from '../../replicators/mysql/tombstones.js';
import type { Pair, RunningLink, Side } from '../support/replication.js';

describe.each(['mysql', 'mariadb'] as const)('conflicts on %s', (flavour) => {
  let pair: Pair;
  const running: RunningLink[] = [];

  beforeAll(async () => {
    pair = await startPair(flavour);
    for (const side of [pair.a, pair.b]) {
      await side.pool.query(
        `INSERT INTO interlock.unit_state (unit, state, owner, epoch, mapping_version, server) VALUES
          (?, ?, 'dc-a', 1, 1, 's'), (?, ?, 'dc-b', 1, 1, 's')`,
        [
          unitOf('ann'),
          side === pair.a ? 'open' : 'remote',
          unitOf('bob'),
          side === pair.b ? 'open' : 'remote',
        ],
      );
    }
  });
  afterEach(async () => {
    await Promise.all(running.splice(0).map((link) => link.stop()));
  });
  afterAll(() => pair.stop());

  const unitOf = (user: string): string => bucketUnit('cn-east', bucketOf(user));
  const schemaWith = async (name: string, columns = 'n INT', rest = ''): Promise<string> => {
    await createOnBoth(pair, [
      `CREATE DATABASE ${name}`,
      `CREATE TABLE ${name}.item (id INT PRIMARY KEY, user_id VARCHAR(20), ${columns}${rest})`,
    ]);
    return `${name}.item`;
  };
  const start = async (
    from: 'a' | 'b',
    table: string,
    routing: LinkConfig['tables'][string],
    overrides: Partial<LinkConfig> = {},
    at: string | null = 'now',
  ): Promise<RunningLink> => {
    const config = linkConfig(pair, from, table.split('.')[0]!, { [table]: routing }, overrides);
    const link = await runLink(config, at);
    running.push(link);
    return link;
  };
  const OWNED = { userId: 'user_id' };
  const FREE = { unrouted: true } as const;
  const records = async (link: RunningLink, side = pair.b): Promise<ConflictRecord[]> => {
    const connection = await side.pool.getConnection();
    try {
      return await readConflicts(connection, { link: link.config.link });
    } finally {
      connection.release();
    }
  };
  const kept = async (link: RunningLink): Promise<QuarantineRecord[]> => {
    const connection = await pair.b.pool.getConnection();
    try {
      return await readQuarantine(connection, { link: link.config.link });
    } finally {
      connection.release();
    }
  };
  const decide = async (update: string): Promise<void> => {
    const connection = await pair.b.pool.getConnection();
    expect(await changed(connection, update)).toBe(true);
    connection.release();
  };
  const all = (side: Side, table: string): Promise<unknown[]> =>
    rows(side, `SELECT * FROM ${table} ORDER BY id`);
  const same = async (table: string): Promise<void> =>
    expect(await dump(pair.b, table)).toEqual(await dump(pair.a, table));

  it('owner-wins: the owner puts its row through, among many transactions, and both images are kept', async () => {
    const table = await schemaWith('c_owner', 'n INT, t VARCHAR(20), UNIQUE KEY (t)');
    const ab = await start('a', table, OWNED);
    await pair.a.pool.query(
      `INSERT INTO ${table} VALUES ${Array.from({ length: 200 }, (_, i) => `(${i}, 'ann', ${i}, 't${i}')`).join()}`,
    );
    await settled(ab, pair.a);
    await ab.stop();
    await unlogged(pair.b, [
      `UPDATE ${table} SET n = -1 WHERE id = 50`,
      `DELETE FROM ${table} WHERE id IN (60, 70)`,
      `UPDATE ${table} SET t = 'other' WHERE id = 80`,
      `INSERT INTO ${table} VALUES (500, 'ann', 9, 'there')`,
    ]);
    for (let i = 0; i < 100; i++) await pair.a.pool.query(`UPDATE ${table} SET n = n + 1000 WHERE id = ${i}`);
    await pair.a.pool.query(`DELETE FROM ${table} WHERE id IN (70, 80, 90)`);
    await pair.a.pool.query(`INSERT INTO ${table} VALUES (500, 'ann', 1, 'new')`);
    const again = await start('a', table, OWNED, {}, null);
    await settled(again, pair.a);
    await same(table);
    const found = await records(again);
    expect(found.map(({ key, kind, state, kept: side }) => [key, kind, side, state])).toEqual([
      ['50', 'differs', 'source', 'resolved'],
      ['60', 'missing', 'source', 'resolved'],
      ['70', 'missing', 'source', 'resolved'],
      ['80', 'differs', 'source', 'resolved'],
      ['500', 'exists', 'source', 'resolved'],
    ]);
    expect(found[0]).toMatchObject({
      unit: unitOf('ann'),
      policy: 'owner-wins',
      images: {
        columns: ['id', 'user_id', 'n', 't'],
        before: ['50', "'ann'", '50', "'t50'"],
        after: ['50', "'ann'", '1050', "'t50'"],
        current: ['50', "'ann'", '-1', "'t50'"],
      },
    });
    expect(again.status()).toMatchObject({ conflicts: 0, quarantined: 0, conflictsRecorded: 5 });
  });

  it('no false alarm: values that are written in another way are the same', async () => {
    const json = flavour === 'mysql' ? 'JSON' : 'LONGTEXT';
    const table = await schemaWith(
      'c_same',
      `j ${json}, d DECIMAL(20,5), f FLOAT, g DOUBLE, ts TIMESTAMP(3), t TIME(2), b BINARY(5), s SET('a','b'), e ENUM('x','y'), v VARCHAR(9) CHARACTER SET latin1`,
    );
    const ab = await start('a', table, OWNED);
    await pair.a.pool.query(
      `INSERT INTO ${table} VALUES (1, 'ann', '{"b": 1.5, "a": [1.0, 1e30, "x"], "d": 2.50}', 1.5, 0.1, 1e300, '2026-01-01 00:00:00.5', '-00:00:01.5', 'x', 'a,b', 'y', 'é'),
        (2, 'ann', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)`,
    );
    await settled(ab, pair.a);
    await pair.a.pool.query(`UPDATE ${table} SET v = 'ü'`);
    if (flavour === 'mysql')
      await pair.a.pool.query(
        `UPDATE ${table} SET j = JSON_OBJECT('d', CAST('2026-01-01' AS DATE), 'n', CAST(1.50 AS DECIMAL(5,2)))`,
      );
    await settled(ab, pair.a);
    await pair.a.pool.query(`UPDATE ${table} SET v = 'o'`);
    await pair.a.pool.query(`DELETE FROM ${table} WHERE id = 1`);
    await settled(ab, pair.a);
    await same(table);
    expect(ab.status()).toMatchObject({ conflictsRecorded: 0, quarantined: 0 });
  });

  it('a write past the fence is left out, and written when a person says so', async () => {
    const table = await schemaWith('c_fence');
    await createOnBoth(pair, [`INSERT INTO ${table} VALUES (1, 'bob', 1), (2, 'bob', 2)`]);
    const ab = await start('a', table, OWNED);
    await pair.a.pool.query(`UPDATE ${table} SET n = n + 10`);
    await pair.a.pool.query(`INSERT INTO ${table} VALUES (3, 'ann', 3)`);
    await settled(ab, pair.a);
    expect(await all(pair.b, table)).toMatchObject([{ n: 1 }, { n: 2 }, { id: 3 }]);
    const [first, second] = await records(ab);
    expect(first).toMatchObject({ kind: 'not-owned', kept: 'target', state: 'open', unit: unitOf('bob') });
    expect(ab.status()).toMatchObject({ conflicts: 2 });
    await decide(conflictUpdate(first!.id, 'open', 'resolved', 'target'));
    await decide(conflictUpdate(second!.id, 'open', 'wanted'));
    await until(() => ab.status().conflicts === 0, 'both are resolved');
    expect(await all(pair.b, table)).toMatchObject([{ n: 1 }, { n: 12 }, { id: 3 }]);
  });

  it('source-wins and target-wins, of one direction each', async () => {
    const [mine, yours] = [await schemaWith('c_source'), await schemaWith('c_target')];
    for (const table of [mine, yours]) {
      await createOnBoth(pair, [`INSERT INTO ${table} VALUES (1, '', 1), (2, '', 2), (3, '', 3)`]);
      await unlogged(pair.b, [`UPDATE ${table} SET n = 7`, `DELETE FROM ${table} WHERE id = 2`]);
    }
    const left = await start('a', mine, FREE, { conflicts: { [mine]: 'source-wins' } });
    const right = await start('a', yours, FREE, { conflicts: { [yours]: 'target-wins' } });
    for (const table of [mine, yours]) {
      await pair.a.pool.query(`UPDATE ${table} SET n = n + 1`);
      await pair.a.pool.query(`DELETE FROM ${table} WHERE id = 3`);
    }
    await settled(left, pair.a);
    await settled(right, pair.a);
    expect(await all(pair.b, mine)).toMatchObject([
      { id: 1, n: 2 },
      { id: 2, n: 3 },
    ]);
    expect(await all(pair.b, yours)).toMatchObject([
      { id: 1, n: 7 },
      { id: 3, n: 7 },
    ]);
    expect(left.status()).toMatchObject({ conflicts: 0, conflictsRecorded: 3 });
    // Each of the three updates, and the deletion of a row that had been kept.
    expect(right.status()).toMatchObject({ conflicts: 0, conflictsRecorded: 4 });
  });

  it('latest: both sides end with the same rows, whoever met whose change first', async () => {
    const table = await schemaWith('c_latest', 'n INT, at DATETIME(3) NULL, note TEXT');
    const policy = { conflicts: { [table]: { latest: 'at' } } };
    const ab = await start('a', table, FREE, policy);
    const ba = await start('b', table, FREE, policy);
    await pair.a.pool.query(
      `INSERT INTO ${table} VALUES ${Array.from({ length: 30 }, (_, i) => `(${i}, '', 0, '2026-01-01 00:00:00.001', 'first')`).join()}`,
    );
    await settled(ab, pair.a);
    let seed = 11;
    const random = (below: number): number => {
      seed = (seed * 1103515245 + 12345) % 2147483648;
      return Math.floor((seed / 2147483648) * below);
    };
    for (let round = 0; round < 3; round++) {
      await Promise.all([ab.stop(), ba.stop()]);
      for (let i = 0; i < 60; i++) {
        const side = random(2) === 0 ? pair.a : pair.b;
        const id = random(30);
        const at = `'2026-01-0${2 + round} 00:00:00.${String(random(20)).padStart(3, '0')}'`;
        const what = random(10);
        // As an application does that lets the later write win: it never goes back.
        if (what < 6)
          await side.pool.query(
            `UPDATE ${table} SET n = ${i}, note = '${side === pair.a ? 'a' : 'b'}${i}', at = ${at} WHERE id = ${id} AND (at IS NULL OR at < ${at})`,
          );
        else if (what < 8) await side.pool.query(`DELETE FROM ${table} WHERE id = ${id}`);
      }
      const [next, back] = [
        await start('a', table, FREE, policy, null),
        await start('b', table, FREE, policy, null),
      ];
      await settled(next, pair.a);
      await settled(back, pair.b);
      await same(table);
      expect(next.status().conflictsRecorded + back.status().conflictsRecorded).toBeGreaterThan(3);
      await Promise.all([next.stop(), back.stop()]);
    }
  });

  it('latest: an update that is older than the deletion does not bring the row back, equal ones go by data center', async () => {
    const table = await schemaWith('c_dead', 'n INT, v BIGINT');
    const policy = { conflicts: { [table]: { latest: 'v' } } };
    const links = [await start('a', table, FREE, policy), await start('b', table, FREE, policy)];
    await pair.a.pool.query(`INSERT INTO ${table} VALUES (1, '', 1, 1), (2, '', 1, 1), (3, '', 1, 1)`);
    await settled(links[0]!, pair.a);
    await Promise.all(links.map((link) => link.stop()));
    await pair.a.pool.query(`UPDATE ${table} SET v = 5, n = 5 WHERE id IN (1, 2)`);
    await pair.a.pool.query(`DELETE FROM ${table} WHERE id IN (1, 2)`);
    await pair.b.pool.query(`UPDATE ${table} SET v = 4, n = 4 WHERE id = 1`);
    await pair.b.pool.query(`UPDATE ${table} SET v = 6, n = 6 WHERE id = 2`);
    await pair.a.pool.query(`UPDATE ${table} SET v = 9, n = 10 WHERE id = 3`);
    await pair.b.pool.query(`UPDATE ${table} SET v = 9, n = 20 WHERE id = 3`);
    // The old update of dc-b first, then the deletion that it is older than.
    const ba = await start('b', table, FREE, policy, null);
    await settled(ba, pair.b);
    const ab = await start('a', table, FREE, policy, null);
    await settled(ab, pair.a);
    await same(table);
    expect(await all(pair.a, table)).toMatchObject([
      { id: 2, n: 6 },
      { id: 3, n: 10 },
    ]);
  });

  it('latest: an insertion that is older than the deletion on the other side is a conflict', async () => {
    const table = await schemaWith('c_again', 'v BIGINT');
    const policy = { conflicts: { [table]: { latest: 'v' } } };
    const ab = await start('a', table, FREE, policy);
    await (await start('b', table, FREE, policy)).stop();
    await pair.a.pool.query(`INSERT INTO ${table} VALUES (1, '', 1), (2, '', 1)`);
    await settled(ab, pair.a);
    await pair.b.pool.query(`UPDATE ${table} SET v = 10`);
    await pair.b.pool.query(`DELETE FROM ${table}`);
    await pair.a.pool.query(`DELETE FROM ${table}`);
    await settled(ab, pair.a);
    await pair.a.pool.query(`INSERT INTO ${table} VALUES (1, '', 2)`);
    await pair.a.pool.query(`INSERT INTO ${table} VALUES (2, '', 11)`);
    await settled(ab, pair.a);
    expect(await all(pair.b, table)).toMatchObject([{ id: 2, v: '11' }]);
    expect((await records(ab)).at(-1)).toMatchObject({
      kind: 'missing',
      kept: 'target',
      state: 'open',
      key: '1',
    });
    const ba = await start('b', table, FREE, policy, null);
    await settled(ba, pair.b);
    await settled(ab, pair.a);
    await same(table);
    expect(await all(pair.a, table)).toMatchObject([{ id: 2, v: '11' }]);
  });

  it('latest: what one side deletes and inserts again flows, whatever the value', async () => {
    const table = await schemaWith('c_back', 'v BIGINT');
    const policy = { conflicts: { [table]: { latest: 'v' } } };
    const links = [await start('a', table, FREE, policy), await start('b', table, FREE, policy)];
    await pair.a.pool.query(`INSERT INTO ${table} VALUES (1, '', 10), (2, '', 10)`);
    await pair.a.pool.query(`DELETE FROM ${table}`);
    await settled(links[0]!, pair.a);
    await pair.a.pool.query(`INSERT INTO ${table} VALUES (1, '', 10), (2, '', 5)`);
    await pair.a.pool.query(`REPLACE INTO ${table} VALUES (1, '', 9)`);
    await settled(links[0]!, pair.a);
    await settled(links[1]!, pair.b);
    await same(table);
    expect(await all(pair.b, table)).toMatchObject([
      { id: 1, v: '9' },
      { id: 2, v: '5' },
    ]);
    expect(await records(links[0]!)).toEqual([]);
    // One that came from the other side: nobody takes the row away there, so a person has to look.
    await pair.b.pool.query(`DELETE FROM ${table} WHERE id = 1`);
    await settled(links[1]!, pair.b);
    await pair.a.pool.query(`INSERT INTO ${table} VALUES (1, '', 9)`);
    await settled(links[0]!, pair.a);
    expect(await records(links[0]!)).toMatchObject([{ kind: 'missing', kept: 'target', state: 'open' }]);
    expect(links[0]!.status().conflicts).toBe(1);
    await pair.b.pool.query(
      `UPDATE interlock.conflict SET state = 'wanted' WHERE link = '${links[0]!.config.link}'`,
    );
    await until(() => links[0]!.status().conflicts === 0, 'what a person wanted is written');
    expect(await all(pair.b, table)).toMatchObject([
      { id: 1, v: '9' },
      { id: 2, v: '5' },
    ]);
  });

  it('latest: what was deleted more than 30 days ago is forgotten when a link starts', async () => {
    const table = await schemaWith('c_purge', 'v BIGINT');
    const policy = { conflicts: { [table]: { latest: 'v' } } };
    const link = await start('a', table, FREE, policy);
    await pair.b.pool.query(`INSERT INTO ${table} VALUES (1, '', 1), (2, '', 1)`);
    await pair.b.pool.query(`DELETE FROM ${table}`);
    const tombstones = tombstoneTable(table, 'v');
    await pair.b.pool.query(
      `UPDATE ${tombstones} SET interlock_deleted_at = UTC_TIMESTAMP(6) - INTERVAL IF(id = 1, 31, 29) DAY`,
    );
    await link.stop();
    await start('a', table, FREE, policy, null);
    expect(await rows(pair.b, `SELECT id FROM ${tombstones}`)).toEqual([{ id: 2 }]);
  });

  it('latest: its triggers do not make an application wait behind a transaction that is open', async () => {
    const table = await schemaWith('c_open', 'v BIGINT');
    const holder = await pair.a.pool.getConnection();
    await holder.beginTransaction();
    await holder.query(`SELECT * FROM ${table}`);
    const config = linkConfig(
      pair,
      'a',
      'c_open',
      { [table]: FREE },
      { conflicts: { [table]: { latest: 'v' } } },
    );
    const starting = initialiseLink(config, { from: 'now' }).catch((error: unknown) => error);
    await until(
      async () =>
        (await rows(pair.a, `SELECT 1 FROM information_schema.processlist WHERE info LIKE 'CREATE TRIGGER%'`))
          .length > 0,
      'a trigger is being made',
    );
    // Behind the trigger, while the transaction is still open.
    await pair.a.pool.query({ sql: `SELECT * FROM ${table}`, timeout: 60_000 });
    expect(await starting).toMatchObject({
      code: 'Unavailable',
      retryable: true,
      message: expect.stringContaining(`${table} was never free for 2 s`) as string,
    });
    await holder.commit();
    holder.release();
    await initialiseLink(config, { from: 'now' });
  });

  it('latest: a row that is changed and deleted in one transaction is as late as what was deleted', async () => {
    const table = await schemaWith('c_both', 'n INT, v BIGINT, d DATE');
    await unlogged(pair.a, [`SET sql_mode = ''`, `INSERT INTO ${table} VALUES (2, '', 1, 1, '0000-00-00')`]);
    await unlogged(pair.b, [`SET sql_mode = ''`, `INSERT INTO ${table} VALUES (2, '', 1, 1, '0000-00-00')`]);
    const policy = { conflicts: { [table]: { latest: 'v' } } };
    const links = [await start('a', table, FREE, policy), await start('b', table, FREE, policy)];
    await pair.a.pool.query(`INSERT INTO ${table} VALUES (1, '', 1, 1, NULL)`);
    await settled(links[0]!, pair.a);
    await Promise.all(links.map((link) => link.stop()));
    const connection = await pair.a.pool.getConnection();
    await connection.beginTransaction();
    await connection.query(`UPDATE ${table} SET v = 5 WHERE id = 1`);
    await connection.query(`DELETE FROM ${table} WHERE id = 1`);
    await connection.commit();
    connection.release();
    await pair.b.pool.query(`UPDATE ${table} SET v = 4 WHERE id = 1`);
    // Odd dates are no reason to refuse an application's DELETE.
    await pair.b.pool.query(`DELETE FROM ${table} WHERE id = 2`);
    const [ab, ba] = [
      await start('a', table, FREE, policy, null),
      await start('b', table, FREE, policy, null),
    ];
    await settled(ab, pair.a);
    await settled(ba, pair.b);
    await same(table);
    expect(await all(pair.a, table)).toEqual([]);
  });

  it('latest: a key that changes is the deletion of the old one', async () => {
    const table = await schemaWith('c_key', 'n INT, v BIGINT');
    const policy = { conflicts: { [table]: { latest: 'v' } } };
    const links = [await start('a', table, FREE, policy), await start('b', table, FREE, policy)];
    await pair.a.pool.query(`INSERT INTO ${table} VALUES (1, '', 1, 1), (2, '', 1, 1)`);
    await settled(links[0]!, pair.a);
    await Promise.all(links.map((link) => link.stop()));
    await pair.a.pool.query(`UPDATE ${table} SET v = 5 WHERE id IN (1, 2)`);
    await pair.a.pool.query(`UPDATE ${table} SET id = id + 10, v = 7`);
    await pair.b.pool.query(`UPDATE ${table} SET v = 4, n = 4 WHERE id = 1`);
    await pair.b.pool.query(`UPDATE ${table} SET v = 6, n = 6 WHERE id = 2`);
    const ba = await start('b', table, FREE, policy, null);
    await settled(ba, pair.b);
    const ab = await start('a', table, FREE, policy, null);
    await settled(ab, pair.a);
    await same(table);
    expect(await all(pair.a, table)).toMatchObject([
      { id: 2, n: 6 },
      { id: 11, v: '7' },
      { id: 12, v: '7' },
    ]);
  });

  it('latest: a policy that is taken away leaves nothing in the way of an application', async () => {
    const table = await schemaWith('c_gone', 'n INT, v BIGINT, w BIGINT');
    const traces = async (side: Side): Promise<number> => {
      const [found] = await rows(
        side,
        `SELECT (SELECT COUNT(*) FROM information_schema.triggers WHERE event_object_schema = 'c_gone') AS n`,
      );
      return Number(found!['n']);
    };
    const tables = async (side: Side): Promise<number> =>
      (await rows(side, `SHOW TABLES FROM interlock LIKE 'tombstone%'`)).length;
    const before = await tables(pair.b);
    const first = await start('a', table, FREE, { conflicts: { [table]: { latest: 'v' } } });
    await pair.a.pool.query(`INSERT INTO ${table} VALUES (1, '', 1, 1, 1), (2, '', 1, 1, 1)`);
    await settled(first, pair.a);
    await first.stop();
    expect(await traces(pair.b)).toBe(2);
    const other = await start('a', table, FREE, { conflicts: { [table]: { latest: 'w' } } }, null);
    await settled(other, pair.a);
    await other.stop();
    expect([await traces(pair.a), await traces(pair.b), await tables(pair.b)]).toEqual([2, 2, before + 1]);
    const last = await start('a', table, FREE, {}, null);
    await settled(last, pair.a);
    expect([await traces(pair.a), await traces(pair.b), await tables(pair.b)]).toEqual([0, 0, before]);
    await createOnBoth(pair, [`ALTER TABLE ${table} DROP COLUMN v, DROP COLUMN w`]);
    await pair.a.pool.query(`DELETE FROM ${table} WHERE id = 1`);
    await settled(last, pair.a);
    await same(table);
  });

  it('what was decided long ago is removed, a few at a time, and nothing else', async () => {
    const table = await schemaWith('c_purged');
    const config = linkConfig(pair, 'a', 'c_purged', { [table]: OWNED });
    const days = (age: number): string => `UTC_TIMESTAMP(6) - INTERVAL ${age} DAY`;
    const conflicts = (of: string, rest: string): string =>
      `('${of}', 'g', '${table}', '1', 'differs', 'owner-wins', 'source', ${rest})`;
    const old = conflicts(config.link, `'resolved', '{}', ${days(40)}, ${days(31)}`);
    const quarantine = (gtid: string, rest: string): string =>
      `('${config.link}', '${gtid}', 'r', 1, ${rest}, '[]', '[]', ${days(40)}, ${days(31)})`;
    await unlogged(pair.b, [
      `INSERT INTO interlock.conflict (link,gtid,name,row_key,kind,policy,kept,state,images,created_at,resolved_at) VALUES
        ${Array.from({ length: 1500 }, () => old).join()},
        ${conflicts(config.link, `'resolved', '{}', ${days(40)}, ${days(29)}`)},
        ${conflicts(config.link, `'open', '{}', ${days(40)}, NULL`)},
        ${conflicts('mysql/other:dc-a>dc-b', `'resolved', '{}', ${days(40)}, ${days(31)}`)}`,
      `INSERT INTO interlock.quarantine (link,gtid,reason,tries,passed,state,units,changes,created_at,changed_at) VALUES
        ${quarantine('g1', `0, 'applied'`)}, ${quarantine('g2', `1, 'discarded'`)}, ${quarantine('g3', `0, 'discarded'`)}, ${quarantine('g4', `1, 'open'`)}`,
    ]);
    const ab = await start('a', table, OWNED);
    const left = async (): Promise<number> =>
      Number(
        (await rows(pair.b, `SELECT COUNT(*) AS n FROM interlock.conflict WHERE name = '${table}'`))[0]!['n'],
      );
    await until(async () => (await left()) <= 3, 'what is old is removed');
    expect(await left()).toBe(3);
    expect((await records(ab)).map(({ state }) => state)).toEqual(['resolved', 'open']);
    expect((await kept(ab)).map(({ gtid }) => gtid)).toEqual(['g3', 'g4']);
    await unlogged(pair.b, [
      `DELETE FROM interlock.conflict WHERE name = '${table}'`,
      `DELETE FROM interlock.quarantine WHERE link = '${config.link}'`,
    ]);
  });

  it('decides many rows of one transaction at once', async () => {
    const table = await schemaWith('c_many', 'n INT');
    const values = Array.from({ length: 3000 }, (_, i) => `(${i}, 'ann', 0)`).join();
    await createOnBoth(pair, [`INSERT INTO ${table} VALUES ${values}`]);
    await unlogged(pair.b, [`UPDATE ${table} SET n = -1`]);
    const ab = await start('a', table, OWNED);
    await pair.a.pool.query(`UPDATE ${table} SET n = 1`);
    await settled(ab, pair.a);
    await same(table);
    expect(ab.status()).toMatchObject({ conflicts: 0, conflictsRecorded: 3000 });
  });

  it.runIf(flavour === 'mysql')(
    'no false alarm: documents in a table that is written in order, and in large transactions',
    async () => {
      const table = await schemaWith('c_order', 'j JSON, t VARCHAR(20), p MEDIUMTEXT, UNIQUE KEY (t)');
      const document = (n: number): string =>
        `JSON_OBJECT('d', CAST(${n}.50 AS DECIMAL(5,2)), 'at', CAST('2026-01-01' AS DATE))`;
      const ab = await start('a', table, FREE);
      await pair.a.pool.query(
        `INSERT INTO ${table} (id, j, t, p) VALUES ${Array.from({ length: 800 }, (_, i) => `(${i}, ${document(i % 9)}, 't${i}', REPEAT('x', 10000))`).join()}`,
      );
      const connection = await pair.a.pool.getConnection();
      await connection.beginTransaction();
      await connection.query(`UPDATE ${table} SET j = ${document(10)}, t = 'a' WHERE id = 1`);
      await connection.query(`UPDATE ${table} SET j = ${document(11)}, t = 'b' WHERE id = 1`);
      await connection.commit();
      connection.release();
      await pair.a.pool.query(`UPDATE ${table} SET p = CONCAT(p, 'z')`);
      await settled(ab, pair.a);
      await same(table);
      expect(ab.status()).toMatchObject({ conflictsRecorded: 0, quarantined: 0 });
    },
  );

  describe('a transaction that is larger than memory', () => {
    /** Of 8 MB: the first half is in memory, the rest on the disk. */
    const most = 800;
    const values = (n: number, from = 0): string =>
      Array.from({ length: most }, (_, i) => `(${from + i}, 'ann', ${n}, ${i}, REPEAT('x', 10000))`).join();
    const tableOf = (name: string, rest = ''): Promise<string> =>
      schemaWith(name, 'n INT, at INT, p MEDIUMTEXT', rest);
    const transaction = async (statements: string[]): Promise<void> => {
      const connection = await pair.a.pool.getConnection();
      await connection.beginTransaction();
      for (const statement of statements) await connection.query(statement);
      await connection.commit();
      connection.release();
    };
    const seq = async (link: RunningLink): Promise<number> => {
      const [row] = await rows(
        pair.b,
        `SELECT seq FROM interlock.link_checkpoint WHERE link = '${link.config.link}'`,
      );
      return Number(row!['seq']);
    };

    it('is settled row by row, in memory and on the disk, in one transaction of the target', async () => {
      const table = await tableOf('c_large');
      await createOnBoth(pair, [`CREATE TABLE c_large.other LIKE ${table}`]);
      await unlogged(pair.b, [
        `INSERT INTO c_large.other VALUES (1, 'ann', -1, 0, 'there')`,
        `INSERT INTO ${table} VALUES (5, 'ann', -1, 0, 'there'), (700, 'ann', -1, 0, 'there')`,
      ]);
      const ab = await start('a', table, OWNED, { tables: { [table]: OWNED, 'c_large.other': OWNED } });
      await transaction([
        `INSERT INTO ${table} VALUES (-1, 'bob', 0, 0, 'early')`,
        `INSERT INTO ${table} VALUES ${values(0)}`,
        `INSERT INTO ${table} VALUES (9999, 'bob', 0, 0, 'late')`,
      ]);
      await settled(ab, pair.a);
      const met = (await records(ab)).map(({ key, kind, kept, state }) => [key, kind, kept, state].join(' '));
      expect(met.sort()).toEqual([
        '-1 not-owned target open',
        '5 exists source resolved',
        '700 exists source resolved',
        '9999 not-owned target open',
      ]);
      await unlogged(pair.a, [`DELETE FROM ${table} WHERE user_id = 'bob'`]);
      await same(table);
      await unlogged(pair.b, [
        `UPDATE ${table} SET n = -1 WHERE id IN (10, 650)`,
        `DELETE FROM ${table} WHERE id IN (20, 750)`,
        `UPDATE ${table} SET n = -2 WHERE id IN (30, 31)`,
      ]);
      const before = await seq(ab);
      // Some rows change in more than one piece.
      await transaction([
        `UPDATE ${table} SET n = n + 1, p = CONCAT(p, 'y')`,
        `UPDATE ${table} SET n = n + 1 WHERE id % 10 = 0`,
        `DELETE FROM ${table} WHERE id = 30`,
        `UPDATE ${table} SET id = 30 WHERE id = 31`,
        // Another table in the same piece: what was written of it before this one differs is undone.
        `INSERT INTO c_large.other VALUES (1, 'ann', 1, 1, 'here')`,
      ]);
      await settled(ab, pair.a);
      await same(table);
      await same('c_large.other');
      // One for all pieces, one for the marker.
      expect(await seq(ab)).toBe(before + 2);
      expect(ab.status()).toMatchObject({ conflictsRecorded: 11, quarantined: 0 });
    });

    it('goes by latest, too', async () => {
      const table = await tableOf('c_large_latest');
      const ab = await start('a', table, FREE, { conflicts: { [table]: { latest: 'at' } } });
      await transaction([`INSERT INTO ${table} VALUES ${values(0)}`]);
      await settled(ab, pair.a);
      await unlogged(pair.b, [
        `UPDATE ${table} SET n = -1, at = 5000 WHERE id IN (10, 650)`,
        `UPDATE ${table} SET n = -1, at = 5 WHERE id IN (11, 651)`,
        `DELETE FROM ${table} WHERE id IN (12, 652)`,
      ]);
      await transaction([`UPDATE ${table} SET n = 1, at = at + 1000, p = CONCAT(p, 'y')`]);
      await settled(ab, pair.a);
      const chosen = `SELECT id, n FROM ${table} WHERE id IN (9, 10, 11, 12, 649, 650, 651, 652) ORDER BY id`;
      expect((await rows(pair.b, chosen)).map(({ id, n }) => [id, n])).toEqual([
        ...[
          [9, 1],
          [10, -1],
          [11, 1],
          [12, 1],
        ],
        ...[
          [649, 1],
          [650, -1],
          [651, 1],
          [652, 1],
        ],
      ]);
    });

    it('is kept aside when it cannot be applied: nothing of it is there, and it is tried from the stream', async () => {
      const table = await tableOf('c_large_aside', ', t VARCHAR(20), UNIQUE KEY (t)');
      await unlogged(pair.b, [
        `INSERT INTO ${table} VALUES (5, 'ann', -1, 0, 'there', NULL), (9000, 'ann', 0, 0, '', 'taken')`,
      ]);
      const write = (from: number): Promise<void> =>
        transaction([
          `INSERT INTO ${table} (id, user_id, n, at, p) VALUES ${values(0, from)}`,
          `UPDATE ${table} SET t = 'taken' WHERE id = ${from + 790}`,
        ]);
      const ab = await start('a', table, OWNED);
      await write(0);
      expect(await ab.ended).toMatchObject({ code: 'LinkStopped', details: { kind: 'quarantined' } });
      expect(await rows(pair.b, `SELECT id FROM ${table} ORDER BY id`)).toEqual([{ id: 5 }, { id: 9000 }]);
      expect(await records(ab)).toEqual([]);
      const [record] = await kept(ab);
      expect(record).toMatchObject({ state: 'open', passed: false, units: [unitOf('ann')] });
      expect(record!.largeBytes).toBeGreaterThan(8_000_000);
      expect(record!.changes.length).toBeGreaterThan(10);
      expect(record!.changes.length).toBeLessThan(most);
      await unlogged(pair.b, [`DELETE FROM ${table} WHERE id = 9000`]);
      const mended = await start('a', table, OWNED, {}, null);
      await settled(mended, pair.a);
      await same(table);
      expect(await kept(mended)).toMatchObject([{ state: 'applied' }]);
      expect(await records(mended)).toMatchObject([{ key: '5', kind: 'exists', kept: 'source' }]);
      // The next one is left out by a person's word.
      await pair.a.pool.query(`UPDATE ${table} SET t = NULL`);
      await settled(mended, pair.a);
      await unlogged(pair.b, [`INSERT INTO ${table} VALUES (9000, 'ann', 0, 0, '', 'taken')`]);
      await write(1000);
      await mended.ended;
      const [, next] = await kept(mended);
      await decide(quarantineUpdate(next!.id, 'open', 'discarded'));
      await settled(await start('a', table, OWNED, {}, null), pair.a);
      const left = `SELECT COUNT(*) AS n FROM ${table} WHERE id BETWEEN 1000 AND 8999`;
      expect(await rows(pair.b, left)).toEqual([{ n: '0' }]);
    });

    it('go-on: the link goes on behind it, and has all of it for when it is mended, or discarded', async () => {
      const table = await tableOf('c_large_on', ', t VARCHAR(20), UNIQUE KEY (t)');
      await createOnBoth(pair, [`CREATE TABLE c_large_on.other (id INT PRIMARY KEY, big LONGBLOB)`]);
      await unlogged(pair.b, [
        `INSERT INTO ${table} VALUES (5, 'ann', -1, 0, 'there', NULL), (9000, 'ann', 0, 0, '', 'taken')`,
      ]);
      const write = (from: number): Promise<void> =>
        transaction([
          `INSERT INTO ${table} (id, user_id, n, at, p) VALUES ${values(0, from)}`,
          `INSERT INTO c_large_on.other VALUES (${from}, RANDOM_BYTES(1000)), (${from + 1}, REPEAT('z', 3000000))`,
          `UPDATE ${table} SET t = 'taken' WHERE id = ${from + 790}`,
          `INSERT INTO ${table} (id, user_id, n) VALUES (${from + 950}, 'ann', 1)`,
        ]);
      const ab = await start('a', table, OWNED, {
        onQuarantine: 'go-on',
        tables: { [table]: OWNED, 'c_large_on.other': FREE },
      });
      const before = await seq(ab);
      await write(0);
      await settled(ab, pair.a);
      expect(await seq(ab)).toBeGreaterThan(before);
      expect(ab.status()).toMatchObject({ quarantined: 1 });
      expect(await rows(pair.b, `SELECT COUNT(*) AS n FROM c_large_on.other`)).toEqual([{ n: '0' }]);
      const [record] = await kept(ab);
      expect(record).toMatchObject({ state: 'open', passed: true, units: [unitOf('ann')], largeRows: 804 });
      expect(record!.changes.length).toBeLessThan(most);
      // Still in the way; then not any more.
      await decide(quarantineUpdate(record!.id, 'open', 'retry'));
      await until(async () => (await kept(ab))[0]!.tries === 2, 'it is tried again');
      expect(await kept(ab)).toMatchObject([
        { state: 'open', reason: expect.stringContaining('taken') as string },
      ]);
      await unlogged(pair.b, [`DELETE FROM ${table} WHERE id IN (5, 9000)`]);
      await decide(quarantineUpdate(record!.id, 'open', 'retry'));
      await until(async () => (await kept(ab))[0]!.state === 'applied', 'it is applied');
      await pair.a.pool.query(`INSERT INTO ${table} (id, user_id, n) VALUES (8000, 'ann', 1)`);
      await pair.a.pool.query(`UPDATE ${table} SET n = 7 WHERE id = 1`);
      await settled(ab, pair.a);
      await same(table);
      await same('c_large_on.other');
      await pair.a.pool.query(`UPDATE ${table} SET t = NULL WHERE t IS NOT NULL`);
      await settled(ab, pair.a);
      await unlogged(pair.b, [`INSERT INTO ${table} VALUES (9000, 'ann', 0, 0, '', 'taken')`]);
      await write(1000);
      await settled(ab, pair.a);
      const [, next] = await kept(ab);
      expect(next).toMatchObject({ state: 'open', passed: true });
      await decide(quarantineUpdate(next!.id, 'open', 'discarded'));
      await until(() => ab.status().quarantined === 0, 'it is counted');
      // A link that starts removes what nobody needs.
      await ab.stop();
      const again = await runLink(ab.config, null);
      running.push(again);
      const parts = `SELECT COUNT(*) AS n FROM interlock.quarantine_part WHERE quarantine IN (${record!.id}, ${next!.id})`;
      await until(async () => Number((await rows(pair.b, parts))[0]!['n']) === 0, 'its parts are removed');
      await again.stop();
      expect((await rows(pair.b, `SELECT id FROM ${table} WHERE id BETWEEN 1000 AND 7999`)).length).toBe(0);
    });
  });

  it('an image of before is not written over a newer row', async () => {
    const table = await schemaWith('c_old');
    const ab = await start('a', table, OWNED);
    const state = (to: string, owner: string): Promise<unknown> =>
      pair.a.pool.query(
        'UPDATE interlock.unit_state SET state = ?, owner = ?, epoch = epoch + 1 WHERE unit = ?',
        [...[to, owner, unitOf('ann')]],
      );
    await pair.a.pool.query(`INSERT INTO ${table} VALUES (1, 'ann', 0)`);
    await state('write_disabled', 'dc-a');
    await pair.a.pool.query(`UPDATE ${table} SET n = 1`);
    await state('open', 'dc-a');
    await pair.a.pool.query(`UPDATE ${table} SET n = 2`);
    await settled(ab, pair.a);
    const [past] = await records(ab);
    expect(past).toMatchObject({ kind: 'not-owned', state: 'open' });
    await decide(conflictUpdate(past!.id, 'open', 'wanted'));
    await until(async () => (await records(ab))[0]!.state === 'open', 'it is refused');
    expect(ab.status().lastError?.message).toContain('is another one on the target');
    await same(table);
    await decide(conflictUpdate(past!.id, 'open', 'resolved', 'target'));
  });

  describe('quarantine', () => {
    const refusing = async (name: string): Promise<string> => {
      const table = await schemaWith(name, 'n INT, t VARCHAR(20), UNIQUE KEY (t)');
      await unlogged(pair.b, [`INSERT INTO ${table} VALUES (900, 'ann', 0, 'taken')`]);
      return table;
    };
    const write = async (table: string): Promise<void> => {
      const connection = await pair.a.pool.getConnection();
      await connection.beginTransaction();
      await connection.query(`INSERT INTO ${table} VALUES (1, 'ann', 1, 'free')`);
      await connection.query(`INSERT INTO ${table} VALUES (2, 'ann', 2, 'taken')`);
      await connection.commit();
      connection.release();
      await pair.a.pool.query(`INSERT INTO ${table} VALUES (3, 'ann', 3, 'later')`);
    };

    it('stop: the link stands before the transaction; mended, it goes on, and the record says so', async () => {
      const table = await refusing('q_stop');
      const ab = await start('a', table, OWNED);
      await write(table);
      expect(await ab.ended).toMatchObject({ code: 'LinkStopped', details: { kind: 'quarantined' } });
      expect(await dump(pair.b, table)).toHaveLength(1);
      const again = await start('a', table, OWNED, {}, null);
      await again.ended;
      const [record] = await kept(again);
      expect(record).toMatchObject({ state: 'open', passed: false, tries: 2, units: [unitOf('ann')] });
      expect(record!.changes).toHaveLength(2);
      expect(record!.reason).toContain("'taken'");
      await unlogged(pair.b, [`DELETE FROM ${table} WHERE id = 900`]);
      const mended = await start('a', table, OWNED, {}, null);
      await settled(mended, pair.a);
      await same(table);
      expect(await kept(mended)).toMatchObject([{ state: 'applied' }]);
      expect(mended.status()).toMatchObject({ quarantined: 0 });
    });

    it('stop: discarded, it is left out, whole, for good', async () => {
      const table = await refusing('q_discard');
      const ab = await start('a', table, OWNED);
      await write(table);
      await ab.ended;
      const [record] = await kept(ab);
      await decide(quarantineUpdate(record!.id, 'open', 'discarded'));
      // Even where it could be applied by now.
      await unlogged(pair.b, [`DELETE FROM ${table} WHERE id = 900`]);
      const again = await start('a', table, OWNED, {}, null);
      await settled(again, pair.a);
      expect(await all(pair.b, table)).toMatchObject([{ id: 3 }]);
      expect(again.status()).toMatchObject({ quarantined: 0 });
    });

    it('go-on: the link goes on behind it, a marker says so, and it is applied when it is mended', async () => {
      const table = await refusing('q_on');
      const ab = await start('a', table, OWNED, { onQuarantine: 'go-on' });
      await write(table);
      await pair.a.pool.query(
        `INSERT INTO interlock.marker VALUES ('q-${flavour}', 'w', 'r', 2, UTC_TIMESTAMP(6))`,
      );
      await settled(ab, pair.a);
      expect(await all(pair.b, table)).toMatchObject([{ id: 3 }, { id: 900 }]);
      const marker = (): BaselineReached | undefined =>
        ab.markers.find(({ baseline }) => baseline.markerId === `q-${flavour}`)?.baseline;
      await until(() => marker() !== undefined, 'the marker');
      expect(marker()).toMatchObject({ quarantined: 1 });
      const [record] = await kept(ab);
      expect(record).toMatchObject({ state: 'open', passed: true, tries: 1 });
      await decide(quarantineUpdate(record!.id, 'open', 'retry'));
      await until(async () => (await kept(ab))[0]!.tries === 2, 'it is tried again');
      expect(await kept(ab)).toMatchObject([{ state: 'open' }]);
      await unlogged(pair.b, [`DELETE FROM ${table} WHERE id = 900`]);
      await decide(quarantineUpdate(record!.id, 'open', 'retry'));
      await until(async () => (await kept(ab))[0]!.state === 'applied', 'it is applied');
      await same(table);
      await until(() => ab.status().quarantined === 0, 'it is counted');
    });

    it('go-on: what is tried again does not write over what came later', async () => {
      const table = await refusing('q_later');
      const ab = await start('a', table, OWNED, { onQuarantine: 'go-on' });
      await write(table);
      await pair.a.pool.query(`UPDATE ${table} SET n = 100 WHERE id = 1`);
      await settled(ab, pair.a);
      await unlogged(pair.b, [`DELETE FROM ${table} WHERE id = 900`]);
      const [record] = await kept(ab);
      await decide(quarantineUpdate(record!.id, 'open', 'retry'));
      await until(async () => (await kept(ab))[0]!.state === 'applied', 'it is applied');
      await same(table);
      // Of the later one, for which the row was not there.
      expect(await records(ab)).toMatchObject([{ key: '1', kind: 'missing', kept: 'source' }]);
    });

    it('a discard that comes while the transaction is being tried counts', async () => {
      const table = await refusing('q_race');
      const ab = await start('a', table, OWNED);
      await write(table);
      await ab.ended;
      await unlogged(pair.b, [`DELETE FROM ${table} WHERE id = 900`]);
      const [record] = await kept(ab);
      // The link waits for this row, between its look at the record and its commit.
      const blocker = await pair.b.pool.getConnection();
      let again: RunningLink;
      try {
        await blocker.beginTransaction();
        await blocker.query('SELECT id FROM interlock.quarantine WHERE id = ? FOR UPDATE', [record!.id]);
        again = await start('a', table, OWNED, {}, null);
        await until(
          async () => {
            const [waiting] = await rows(
              pair.b,
              "SELECT COUNT(*) AS n FROM information_schema.processlist WHERE info LIKE 'UPDATE interlock.quarantine%'",
            );
            return Number(waiting!['n']) > 0;
          },
          'the link waits for the record',
          60_000,
        );
        await blocker.query(quarantineUpdate(record!.id, 'open', 'discarded'));
        await blocker.commit();
      } finally {
        blocker.destroy();
      }
      await settled(again, pair.a);
      expect(await all(pair.b, table)).toMatchObject([{ id: 3 }]);
      expect(await kept(again)).toMatchObject([{ state: 'discarded' }]);
    });

    it('go-on: what is tried again when its unit has moved does not touch the new owner’s rows', async () => {
      const table = await refusing('q_moved');
      const ab = await start('a', table, OWNED, { onQuarantine: 'go-on' });
      await write(table);
      await settled(ab, pair.a);
      const [record] = await kept(ab);
      const move = (state: string, owner: string): Promise<unknown> =>
        pair.a.pool.query(
          'UPDATE interlock.unit_state SET state = ?, owner = ?, epoch = epoch + 1 WHERE unit = ?',
          [...[state, owner, unitOf('ann')]],
        );
      await move('remote', 'dc-b');
      await settled(ab, pair.a);
      await unlogged(pair.b, [`UPDATE ${table} SET t = 'mine' WHERE id = 900`]);
      await decide(quarantineUpdate(record!.id, 'open', 'retry'));
      await until(async () => (await kept(ab))[0]!.state === 'applied', 'it is tried');
      expect(await all(pair.b, table)).toMatchObject([{ id: 3 }, { id: 900 }]);
      expect(await records(ab)).toMatchObject([{ kind: 'not-owned', state: 'open' }, { kind: 'not-owned' }]);
      await move('open', 'dc-a');
      await settled(ab, pair.a);
    });
  });
});
