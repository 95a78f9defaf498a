import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { initialiseLink } from '../../replicators/mysql/initialise.js';
import type { LinkConfig } from '../../replicators/mysql/link-config.js';
import { verifyTable } from '../../replicators/mysql/verify/verifier.js';
import type { TableProgress } from '../../replicators/core/verification.js';
import type { InterlockError } from '../../src/errors.js';
import { initialRules } from '../../src/topology/derive.js';
import { UNTOUCHED } from '../../workflows/verification-contract.js';
import {
  createOnBoth,
  linkConfig,
  rows,
  runLink,
  settled,
  startPair,
  unlogged,
  until,
} from '../support/replication.js';
import type { Pair, RunningLink } from '../support/replication.js';
import { exampleTopology } from '../support/topology.js';

const UNROUTED = { unrouted: true } as const;

describe.each(['mysql', 'mariadb'] as const)('what a link carries, on %s', (flavour) => {
  let pair: Pair;
  const running: RunningLink[] = [];
  beforeAll(async () => {
    pair = await startPair(flavour);
  });
  afterEach(async () => {
    await Promise.all(running.splice(0).map((link) => link.stop()));
  });
  afterAll(async () => {
    await pair?.stop();
  });

  const start = async (config: LinkConfig, from: string | null = 'now'): Promise<RunningLink> => {
    const link = await runLink(config, from);
    running.push(link);
    return link;
  };
  const copied = async (config: LinkConfig): Promise<RunningLink> => {
    await initialiseLink(config, { copy: true });
    const link = await start(config, null);
    await until(
      () => link.status().state === 'streaming',
      'copied',
      30_000,
      () => JSON.stringify(link.status()),
    );
    return link;
  };
  const refusal = async (config: LinkConfig): Promise<string> =>
    initialiseLink(config, { from: 'now' }).then(
      () => 'none',
      (error: InterlockError) => `${error.code} ${error.message}`,
    );
  const verify = async (table: string, links: RunningLink[]): Promise<TableProgress> =>
    verifyTable(
      {
        table,
        links: links.map(({ config }) => config),
        rules: async () => initialRules(exampleTopology()),
        linkStatus: async (id) => links.find(({ config }) => config.link === id)?.status(),
        repairs: false,
        keep: 10,
        keepLength: 10_000,
        onProgress: () => undefined,
        signal: new AbortController().signal,
      },
      UNTOUCHED,
      60_000,
    );

  it('rows: those of the filter, in the copy, in the stream, and when they come into it or leave it', async () => {
    const { a, b } = pair;
    await createOnBoth(pair, [
      'CREATE DATABASE f_rows',
      'CREATE TABLE f_rows.item (id INT PRIMARY KEY, kind VARCHAR(10), n INT)',
    ]);
    await a.pool.query(
      `INSERT INTO f_rows.item VALUES (1,'red',1),(2,'blue',1),(3,NULL,1),(4,'Red',1),(5,'it''s',1)`,
    );
    // Owned by dc-a: a resync also removes what the source does not have.
    const tables = { 'f_rows.item': { central: 'coupons' } };
    for (const [side, state] of [
      [a, 'open'],
      [b, 'remote'],
    ] as const)
      await unlogged(side, [
        `INSERT INTO interlock.unit_state VALUES ('central:coupons','${state}','dc-a',1,1,'',NULL,NULL)`,
      ]);
    const config = linkConfig(pair, 'a', 'f_rows', tables, {
      rows: { 'f_rows.item': { column: 'kind', in: ['red', "it's"] } },
    });
    const link = await copied(config);
    const there = (): Promise<object[]> => rows(b, 'SELECT id, kind, n FROM f_rows.item ORDER BY id');
    expect(await there()).toEqual([
      { id: 1, kind: 'red', n: 1 },
      { id: 5, kind: "it's", n: 1 },
    ]);
    await a.pool.query(`INSERT INTO f_rows.item VALUES (6,'red',1),(7,'blue',1),(8,'red',1)`);
    await a.pool.query(`UPDATE f_rows.item SET n = 2`);
    await a.pool.query(`UPDATE f_rows.item SET kind = 'red' WHERE id = 2`);
    await a.pool.query(`UPDATE f_rows.item SET kind = NULL WHERE id = 1`);
    await a.pool.query(`UPDATE f_rows.item SET id = 9, kind = 'blue' WHERE id = 5`);
    await a.pool.query(`UPDATE f_rows.item SET id = 10, kind = 'red' WHERE id = 3`);
    await a.pool.query(`DELETE FROM f_rows.item WHERE id IN (7, 8)`);
    await settled(link, a);
    expect(await there()).toEqual([
      { id: 2, kind: 'red', n: 2 },
      { id: 6, kind: 'red', n: 2 },
      { id: 10, kind: 'red', n: 2 },
    ]);
    const equal = await verify('f_rows.item', [link]);
    expect(equal).toMatchObject({ rows: 3, differing: 0, notComparable: null });
    await unlogged(b, [`UPDATE f_rows.item SET n = 3 WHERE id = 6`, `DELETE FROM f_rows.item WHERE id = 10`]);
    await unlogged(b, [`INSERT INTO f_rows.item VALUES (100, 'blue', 1), (101, 'red', 1)`]);
    const different = await verify('f_rows.item', [link]);
    expect(different.differences.map(({ key }) => key['id']).sort()).toEqual(['10', '101', '6']);
    // A resync mends what is of the filter, and leaves the target's own rows outside of it.
    await link.stop();
    await initialiseLink(config, { resync: { tables: ['f_rows.item'] } });
    const again = await start(config, null);
    await until(() => again.status().state === 'streaming', 'copied again');
    expect((await there()).map((row) => (row as { id: number }).id)).toEqual([2, 6, 10, 100]);
  });

  it('columns: those that are left out have what the target gives them', async () => {
    const { a, b } = pair;
    await unlogged(a, [
      'CREATE DATABASE f_columns',
      `CREATE TABLE f_columns.item (id INT PRIMARY KEY, secret VARCHAR(20) NOT NULL, name VARCHAR(20), only_a INT NOT NULL)`,
    ]);
    await unlogged(b, [
      'CREATE DATABASE f_columns',
      `CREATE TABLE f_columns.item (id INT PRIMARY KEY, name VARCHAR(20), secret VARCHAR(20) NOT NULL DEFAULT 'hidden', only_b INT NOT NULL DEFAULT 5)`,
    ]);
    await a.pool.query(`INSERT INTO f_columns.item VALUES (1, 'x', 'one', 7), (2, 'y', 'two', 7)`);
    const config = linkConfig(
      pair,
      'a',
      'f_columns',
      { 'f_columns.item': UNROUTED },
      {
        columns: { 'f_columns.item': { without: ['secret', 'only_a', 'only_b'] } },
      },
    );
    const link = await copied(config);
    const there = (): Promise<object[]> =>
      rows(b, 'SELECT id, name, secret, only_b AS n FROM f_columns.item ORDER BY id');
    expect(await there()).toEqual([
      { id: 1, name: 'one', secret: 'hidden', n: 5 },
      { id: 2, name: 'two', secret: 'hidden', n: 5 },
    ]);
    await unlogged(b, [`UPDATE f_columns.item SET secret = 'own', only_b = 6 WHERE id = 1`]);
    await a.pool.query(`UPDATE f_columns.item SET name = 'eins', secret = 'z' WHERE id = 1`);
    await a.pool.query(`UPDATE f_columns.item SET secret = 'only this' WHERE id = 2`);
    await a.pool.query(`INSERT INTO f_columns.item VALUES (3, 'q', 'three', 7)`);
    await a.pool.query(`DELETE FROM f_columns.item WHERE id = 2`);
    await settled(link, a);
    expect(await there()).toEqual([
      { id: 1, name: 'eins', secret: 'own', n: 6 },
      { id: 3, name: 'three', secret: 'hidden', n: 5 },
    ]);
    expect(await verify('f_columns.item', [link])).toMatchObject({
      rows: 2,
      differing: 0,
      notComparable: null,
    });
    await unlogged(b, [`UPDATE f_columns.item SET name = 'other' WHERE id = 3`]);
    expect((await verify('f_columns.item', [link])).differences.map(({ key }) => key['id'])).toEqual(['3']);
  });

  it('columns and rows that cannot be filtered are refused before anything starts, by name', async () => {
    await createOnBoth(pair, [
      'CREATE DATABASE f_refused',
      `CREATE TABLE f_refused.item (id INT PRIMARY KEY, code INT, need INT NOT NULL, at DATETIME, UNIQUE KEY by_code (code))`,
    ]);
    const message = await refusal(
      linkConfig(
        pair,
        'a',
        'f_refused',
        { 'f_refused.item': UNROUTED },
        {
          columns: { 'f_refused.item': { without: ['id', 'code', 'need', 'nothing'] } },
          rows: { 'f_refused.item': { column: 'at', in: ['2026-01-01'] } },
        },
      ),
    );
    expect(message).toMatch(/^BadInput /);
    expect(message).toContain('columns.f_refused.item.without: id: it is of the primary key');
    expect(message).toContain('columns.f_refused.item.without: code: it is of a unique key on the target');
    expect(message).toContain('columns.f_refused.item.without: need: it has no default on the target');
    expect(message).toContain('columns.f_refused.item.without: nothing: neither side has such a column');
    expect(message).toContain('rows.f_refused.item.column: at: rows are filtered by integers or utf8 text');
  });

  it('rename: both ways, in the copy and in the stream, and at statements', async () => {
    const { a, b } = pair;
    await unlogged(a, ['CREATE DATABASE f_here', 'CREATE TABLE f_here.item (id INT PRIMARY KEY, n INT)']);
    await unlogged(b, ['CREATE DATABASE f_there', 'CREATE TABLE f_there.thing (id INT PRIMARY KEY, n INT)']);
    const tables = { 'f_here.item': UNROUTED, 'f_there.thing': UNROUTED };
    await a.pool.query('INSERT INTO f_here.item VALUES (1, 1), (3, 1)');
    const ab = await copied(
      linkConfig(pair, 'a', 'f_here', tables, { rename: { 'f_here.item': 'f_there.thing' } }),
    );
    const ba = await start(
      linkConfig(pair, 'b', 'f_there', tables, { rename: { 'f_there.thing': 'f_here.item' } }),
    );
    await a.pool.query('UPDATE f_here.item SET n = 2 WHERE id = 1');
    await b.pool.query('INSERT INTO f_there.thing VALUES (2, 9)');
    await b.pool.query('UPDATE f_there.thing SET n = 8 WHERE id = 3');
    await settled(ab, a);
    await settled(ba, b);
    const expected = [
      { id: 1, n: 2 },
      { id: 2, n: 9 },
      { id: 3, n: 8 },
    ];
    expect(await rows(a, 'SELECT * FROM f_here.item ORDER BY id')).toEqual(expected);
    expect(await rows(b, 'SELECT * FROM f_there.thing ORDER BY id')).toEqual(expected);
    expect((await verify('f_there.thing', [ab])).notComparable).toContain('links.rename');
    // A statement that is on both sides, each by its own name, is passed; one that is not stops the link and names the table there.
    await unlogged(b, ['ALTER TABLE f_there.thing ADD COLUMN more INT']);
    await a.pool.query('ALTER TABLE f_here.item ADD COLUMN more INT');
    await a.pool.query('UPDATE f_here.item SET more = 5 WHERE id = 1');
    await settled(ab, a);
    expect(await rows(b, 'SELECT more FROM f_there.thing WHERE id = 1')).toEqual([{ more: 5 }]);
    await a.pool.query('TRUNCATE f_here.item');
    const error = await ab.ended;
    expect(String((error as Error).message)).toContain(
      'f_there.thing: emptied at the source, has rows on the target',
    );
  });

  it('throttle: a link applies no more rows than it may', async () => {
    const { a, b } = pair;
    await createOnBoth(pair, ['CREATE DATABASE f_pace', 'CREATE TABLE f_pace.item (id INT PRIMARY KEY)']);
    const link = await start(
      linkConfig(pair, 'a', 'f_pace', { 'f_pace.item': UNROUTED }, { throttle: { maxRowsPerSecond: 20 } }),
    );
    const began = performance.now();
    for (let id = 1; id <= 60; id++) await a.pool.query(`INSERT INTO f_pace.item VALUES (${id})`);
    const written = performance.now() - began;
    await settled(link, a);
    // At least the second's worth before the last one was waited for; how much longer is the machine's.
    expect(performance.now() - began).toBeGreaterThan(1900);
    expect(written).toBeLessThan(performance.now() - began);
    expect(await rows(b, 'SELECT MAX(id) AS most FROM f_pace.item')).toEqual([{ most: 60 }]);
  });

  it('throttle: what may not be applied yet waits at the source, not in memory', async () => {
    const { a, b } = pair;
    await createOnBoth(pair, [
      'CREATE DATABASE f_bytes',
      'CREATE TABLE f_bytes.item (id INT PRIMARY KEY, body LONGBLOB)',
    ]);
    // The server ends a connection that takes nothing for a minute; here for a second.
    const [timeout] = await rows(a, 'SELECT @@GLOBAL.net_write_timeout AS s');
    await a.pool.query('SET GLOBAL net_write_timeout = 1');
    const link = await start(
      linkConfig(
        pair,
        'a',
        'f_bytes',
        { 'f_bytes.item': UNROUTED },
        {
          throttle: { maxBytesPerSecond: 5 * 1024 * 1024 },
        },
      ),
    );
    const { generation } = link.status();
    const mebibytes = 64;
    for (let id = 0; id < mebibytes; id += 2)
      await a.pool.query(`INSERT INTO f_bytes.item VALUES (${id}, REPEAT('x', 2 * 1024 * 1024))`);
    let most = 0;
    const watch = setInterval(() => {
      const { transactionsRead, transactions } = link.status();
      most = Math.max(most, transactionsRead - transactions);
    }, 20);
    try {
      await settled(link, a);
    } finally {
      clearInterval(watch);
      await a.pool.query(`SET GLOBAL net_write_timeout = ${String(timeout!['s'])}`);
    }
    expect(link.status().generation).toBe(generation);
    expect(await rows(b, 'SELECT CAST(COUNT(*) AS CHAR) AS n FROM f_bytes.item')).toEqual([
      { n: String(mebibytes / 2) },
    ]);
    // 32 MiB may wait, and what was under way when that was reached.
    expect(most).toBeGreaterThan(0);
    expect(most).toBeLessThanOrEqual(20);
  });
});
