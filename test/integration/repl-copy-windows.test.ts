import type { PoolConnection } from 'mysql2/promise';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { initialiseLink } from '../../replicators/mysql/initialise.js';
import type { LinkConfig } from '../../replicators/mysql/link-config.js';
import {
  copied,
  createOnBoth,
  dump,
  linkConfig,
  rows,
  runLink,
  settled,
  startPair,
  unlogged,
  unrouted,
  until,
} from '../support/replication.js';
import type { Pair, RunningLink } from '../support/replication.js';

describe.each(['mysql', 'mariadb'] as const)('what happens while a chunk is read, on %s', (flavour) => {
  let pair: Pair;
  const running: RunningLink[] = [];
  const sessions: PoolConnection[] = [];
  beforeAll(async () => {
    pair = await startPair(flavour);
  });
  afterEach(async () => {
    for (const session of sessions.splice(0)) session.destroy();
    await Promise.all(running.splice(0).map((link) => link.stop()));
  });
  afterAll(async () => {
    await pair.stop();
  });

  const session = async (): Promise<PoolConnection> => {
    const connection = await pair.a.pool.getConnection();
    sessions.push(connection);
    return connection;
  };
  const run = async (config: LinkConfig): Promise<RunningLink> => {
    const link = await runLink(config, null);
    running.push(link);
    return link;
  };
  const schemaWith = async (schema: string): Promise<string> => {
    await createOnBoth(pair, [
      `CREATE DATABASE ${schema}`,
      `CREATE TABLE ${schema}.t (id INT PRIMARY KEY, v INT)`,
    ]);
    return `${schema}.t`;
  };
  const isRead = ({ link }: LinkConfig): Promise<void> =>
    until(
      async () =>
        (await rows(pair.a, `SELECT 1 FROM interlock.copy_watermark WHERE link = '${link}' AND edge = 'low'`))
          .length > 0,
      'the first watermark',
    );
  const same = async (table: string): Promise<void> =>
    expect(await dump(pair.b, table)).toEqual(await dump(pair.a, table));

  it('a link that ends before its first chunk is written leaves no row that is gone when it comes back', async () => {
    const table = await schemaWith('begun');
    await unlogged(pair.a, [`INSERT INTO ${table} VALUES (1, 1), (2, 1)`]);
    const config = linkConfig(pair, 'a', 'begun', unrouted('begun', ['t']));
    await initialiseLink(config, { copy: true });
    const application = await session();
    // The chunk cannot be read; what the application itself writes is in the stream behind the first watermark.
    await application.query(`LOCK TABLES ${table} WRITE`);
    const first = await run(config);
    await isRead(config);
    await application.query(`INSERT INTO ${table} VALUES (500, 1), (501, 1)`);
    await until(
      async () => (await rows(pair.b, `SELECT * FROM ${table}`)).length === 2,
      'rows of the stream',
    );
    expect(await first.stop()).toBeUndefined();
    await application.query(`DELETE FROM ${table} WHERE id = 500`);
    await application.query(`UPDATE ${table} SET v = 2 WHERE id = 501`);
    await application.query('UNLOCK TABLES');
    const second = await run(config);
    await copied(second);
    await settled(second, pair.a);
    await same(table);
    expect(second.status()).toMatchObject({ conflictsRecorded: 0, quarantined: 0 });
  });

  it('rows of a chunk that a TRUNCATE removes before the chunk is written are not copied', async () => {
    const table = await schemaWith('emptied');
    await unlogged(pair.a, [`INSERT INTO ${table} VALUES (1, 1), (2, 1)`]);
    const config = linkConfig(pair, 'a', 'emptied', unrouted('emptied', ['t']));
    await initialiseLink(config, { copy: true });
    const [holder, watermark] = [await session(), await session()];
    await holder.query(`LOCK TABLES ${table} WRITE`);
    const link = await run(config);
    await isRead(config);
    // The chunk is read, and its second watermark waits.
    await watermark.beginTransaction();
    await watermark.query(`SELECT 1 FROM interlock.copy_watermark WHERE link = '${config.link}' FOR UPDATE`);
    await holder.query('UNLOCK TABLES');
    const waiting =
      "SELECT 1 FROM information_schema.processlist WHERE info LIKE 'INSERT INTO interlock.copy_watermark%'";
    await until(async () => (await rows(pair.a, waiting)).length > 0, 'the chunk is read');
    await pair.a.pool.query(`TRUNCATE ${table}`);
    await watermark.commit();
    await copied(link);
    await settled(link, pair.a);
    expect(await dump(pair.b, table)).toEqual([]);
  });

  it('latest: what an application of the target writes while its table is filled is not written over', async () => {
    const table = await schemaWith('later');
    const list = Array.from({ length: 4_000 }, (_, i) => `(${i}, 1)`).join();
    await unlogged(pair.a, [`INSERT INTO ${table} VALUES ${list}`]);
    const [ab, ba] = (['a', 'b'] as const).map((from) =>
      linkConfig(pair, from, 'later', unrouted('later', ['t']), {
        conflicts: { [table]: { latest: 'v' } },
      }),
    ) as [LinkConfig, LinkConfig];
    // Between two chunks it rests for long.
    await initialiseLink(ab, { copy: true, maxRowsPerSecond: 20 });
    await initialiseLink(ba, { from: 'now' });
    const first = await run(ab);
    await until(() => (first.status().copy?.comparedRows ?? 0) > 0, 'the first chunk');
    await pair.b.pool.query(`INSERT INTO ${table} VALUES (9000, 20)`);
    await pair.a.pool.query(`INSERT INTO ${table} VALUES (9000, 15), (9001, 1)`);
    await until(
      async () => (await rows(pair.b, `SELECT * FROM ${table} WHERE id = 9001`)).length === 1,
      'rows of the stream',
    );
    expect(first.status().state).toBe('copying');
    await first.stop();
    await unlogged(pair.b, ['UPDATE interlock.link_copy SET max_rows_per_second = NULL']);
    const there = await run(ab);
    await copied(there);
    const back = await run(ba);
    await settled(back, pair.b);
    await settled(there, pair.a);
    await same(table);
    expect(await rows(pair.b, `SELECT v FROM ${table} WHERE id = 9000`)).toEqual([{ v: 20 }]);
  });

  it('a table that is gone while it was to be copied is not in the way of the resync that mends it', async () => {
    const table = await schemaWith('gone');
    await createOnBoth(pair, ['CREATE TABLE gone.old (id INT PRIMARY KEY)']);
    const config = linkConfig(pair, 'a', 'gone', unrouted('gone', ['t', 'old']));
    await pair.a.pool.query(`INSERT INTO ${table} VALUES (1, 1)`);
    await initialiseLink(config, { copy: true });
    await createOnBoth(pair, ['DROP TABLE gone.old']);
    const stopped = await run(config);
    expect(await stopped.ended).toMatchObject({
      code: 'LinkStopped',
      message: expect.stringContaining('replicate resync') as string,
    });
    await initialiseLink(config, { resync: { tables: null } });
    const mended = await run(config);
    await copied(mended);
    await settled(mended, pair.a);
    await same(table);
  });
});
