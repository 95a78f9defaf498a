import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { initialiseLink } from '../../replicators/mysql/initialise.js';
import type { InitialiseOptions } from '../../replicators/mysql/initialise.js';
import type { LinkConfig } from '../../replicators/mysql/link-config.js';
import {
  copied,
  createOnBoth,
  dump,
  linkConfig,
  purgeBinlogs,
  rows,
  runLink,
  settled,
  startPair,
  unlogged,
  unrouted,
  until,
} from '../support/replication.js';
import type { Pair, RunningLink, Side } from '../support/replication.js';

/** `1a 2b`: key and text of every row. */
const shown = async (side: Side, table: string): Promise<string> =>
  (await rows(side, `SELECT id, v FROM ${table} ORDER BY id`))
    .map(({ id, v }) => `${String(id)}=${String(v)}`)
    .join(' ');

const numbers = (count: number, row: (i: number) => string): string =>
  Array.from({ length: count }, (_, i) => row(i)).join(',');

describe.each(['mysql', 'mariadb'] as const)('copies over two sides with rows on %s', (flavour) => {
  let pair: Pair;
  beforeAll(async () => {
    pair = await startPair(flavour);
  });
  afterAll(async () => {
    await pair.stop();
  });

  const start = async (config: LinkConfig, options: InitialiseOptions): Promise<RunningLink> => {
    await initialiseLink(config, options);
    return runLink(config, null);
  };
  const conflictsOf = async (side: Side, schema: string): Promise<string[]> =>
    (
      await rows(
        side,
        `SELECT name, row_key, kind, state FROM interlock.conflict WHERE name LIKE '${schema}.%' ORDER BY name, row_key, id`,
      )
    ).map(
      ({ name, row_key, kind, state }) =>
        `${String(name).split('.')[1]} ${String(row_key)} ${String(kind)} ${String(state)}`,
    );

  it('a resync leaves no difference of an unrouted table unsaid: by its policy, else an open conflict', async () => {
    const schema = 'gap';
    const names = ['late', 'nobody', 'source', 'target'];
    await createOnBoth(pair, [
      `CREATE DATABASE ${schema}`,
      ...names.map((name) => `CREATE TABLE ${schema}.${name} (id INT PRIMARY KEY, v INT)`),
    ]);
    const config = linkConfig(pair, 'a', schema, unrouted(schema, names), {
      conflicts: {
        [`${schema}.late`]: { latest: 'v' },
        [`${schema}.source`]: 'source-wins',
        [`${schema}.target`]: 'target-wins',
      },
    });
    const before = await runLink(config, 'now');
    for (const name of names)
      await pair.a.pool.query(`INSERT INTO ${schema}.${name} VALUES (1,1),(2,1),(3,1),(4,9)`);
    await settled(before, pair.a);
    await before.stop();
    for (const name of names) {
      await pair.a.pool.query(`UPDATE ${schema}.${name} SET v = 5 WHERE id = 1`);
      await pair.a.pool.query(`DELETE FROM ${schema}.${name} WHERE id = 2`);
      await pair.a.pool.query(`UPDATE ${schema}.${name} SET v = 2 WHERE id = 4`);
      await pair.a.pool.query(`INSERT INTO ${schema}.${name} VALUES (5,1)`);
      await unlogged(pair.b, [`INSERT INTO ${schema}.${name} VALUES (6, 7)`]);
    }
    await purgeBinlogs(pair.a);
    let running = await start(config, { resync: { tables: null } });
    await copied(running);
    expect(await shown(pair.b, `${schema}.source`)).toBe('1=5 3=1 4=2 5=1');
    expect(await shown(pair.b, `${schema}.target`)).toBe('1=1 2=1 3=1 4=9 5=1 6=7');
    expect(await shown(pair.b, `${schema}.late`)).toBe('1=5 3=1 4=9 5=1 6=7');
    expect(await shown(pair.b, `${schema}.nobody`)).toBe('1=1 2=1 3=1 4=9 5=1 6=7');
    const open = [
      // No deletion of it is known, and nobody owns it.
      'late 6 exists open',
      ...['nobody 1 differs open', 'nobody 2 exists open', 'nobody 4 differs open', 'nobody 6 exists open'],
    ];
    expect(await conflictsOf(pair.b, schema)).toEqual(open);
    expect(running.status()).toMatchObject({ conflicts: 5, conflictsRecorded: 5 });
    await running.stop();

    // The same again says the same, not twice; what a person decides, the link does.
    running = await start(config, { resync: { tables: null } });
    await copied(running);
    expect(await conflictsOf(pair.b, schema)).toEqual(open);
    await pair.b.pool.query(
      `UPDATE interlock.conflict SET state = 'wanted' WHERE name = '${schema}.nobody' AND state = 'open'`,
    );
    await until(() => running.status().conflicts === 1, 'the conflicts are resolved');
    expect(await dump(pair.b, `${schema}.nobody`)).toEqual(await dump(pair.a, `${schema}.nobody`));
    await running.stop();
  });

  it('rows that are changed while a table is copied go by its policy, too', async () => {
    const schema = 'blind';
    const names = ['late', 'nobody', 'source', 'target'];
    await createOnBoth(pair, [
      `CREATE DATABASE ${schema}`,
      ...names.map(
        (name) =>
          `CREATE TABLE ${schema}.${name} (id INT PRIMARY KEY, v INT, note VARCHAR(9) DEFAULT 'default')`,
      ),
    ]);
    const count = 3_000;
    for (const name of names) {
      await unlogged(pair.a, [
        `INSERT INTO ${schema}.${name} VALUES ${numbers(count, (i) => `(${i}, 1, 'a')`)}`,
      ]);
      await unlogged(pair.b, [
        `INSERT INTO ${schema}.${name} VALUES ${numbers(count, (i) => `(${i}, ${i >= 2_900 ? 10 : 1}, 'mine')`)}`,
      ]);
    }
    const config = linkConfig(pair, 'a', schema, unrouted(schema, names), {
      conflicts: {
        [`${schema}.late`]: { latest: 'v' },
        [`${schema}.source`]: 'source-wins',
        [`${schema}.target`]: 'target-wins',
      },
      columns: Object.fromEntries(names.map((name) => [`${schema}.${name}`, { without: ['note'] }])),
    });
    await initialiseLink(config, { copy: true, maxRowsPerSecond: 1_500 });
    const running = await runLink(config, null);
    // All along, of the table that is being copied: rows that it has come to, and rows that it has not.
    let n = 1;
    // On a fast machine there are many rounds: the rows that are looked at below stay.
    const lastDeleted = (): number => 2_000 + Math.min(n, 400);
    while (running.status().state === 'copying') {
      n++;
      for (const name of names) {
        await pair.a.pool.query(`UPDATE ${schema}.${name} SET v = 2 WHERE id = 2900`);
        await pair.a.pool.query(`UPDATE ${schema}.${name} SET v = ${n} WHERE id IN (5, 2500)`);
        await pair.a.pool.query(`DELETE FROM ${schema}.${name} WHERE id = ${lastDeleted()}`);
      }
    }
    await copied(running);
    await settled(running, pair.a);
    for (const name of names) {
      // The last ones: as they were (10), or as the source has them.
      const kept = name !== 'source';
      expect(
        await rows(
          pair.b,
          `SELECT id, v, note FROM ${schema}.${name} WHERE id IN (5, 2500, 2900, 2901) ORDER BY id`,
        ),
        name,
      ).toEqual([
        { id: 5, v: n, note: 'mine' },
        { id: 2500, v: n, note: 'mine' },
        { id: 2900, v: kept ? 10 : 2, note: 'mine' },
        { id: 2901, v: kept ? 10 : 1, note: 'mine' },
      ]);
      expect(
        await rows(pair.b, `SELECT id FROM ${schema}.${name} WHERE id BETWEEN 2002 AND ${lastDeleted()}`),
        name,
      ).toEqual([]);
    }
    expect(n).toBeGreaterThan(3);
    const conflicts = await conflictsOf(pair.b, schema);
    expect(conflicts.every((one) => /^nobody 29\d\d differs open$/.test(one))).toBe(true);
    expect(new Set(conflicts).size).toBe(100);
    await running.stop();
  });

  it('the other direction streams all along: nothing comes back, nothing is lost, nothing is a conflict', async () => {
    const schema = 'two_ways';
    const count = 6_000;
    await createOnBoth(pair, [
      `CREATE DATABASE ${schema}`,
      `CREATE TABLE ${schema}.t (id INT PRIMARY KEY, v INT)`,
      `INSERT INTO ${schema}.t VALUES ${numbers(count, (i) => `(${i}, 0)`)}`,
    ]);
    const [ab, ba] = (['a', 'b'] as const).map((from) =>
      linkConfig(pair, from, schema, unrouted(schema, ['t'])),
    ) as [LinkConfig, LinkConfig];
    const there = await runLink(ab, 'now');
    await initialiseLink(ba, { copy: true, maxRowsPerSecond: 3_000 });
    const back = await runLink(ba, null);
    let written = 0;
    // Each side has rows of its own: whatever is a conflict here is one that the copy has made.
    const write = async (side: Side, parity: number): Promise<void> => {
      for (let i = 0; back.status().state === 'copying'; i++) {
        const id = Math.floor(Math.random() * (count / 2)) * 2 + parity;
        const fresh = count + i * 2 + parity;
        await side.pool.query(
          [
            `DELETE FROM ${schema}.t WHERE id = ${id}`,
            `UPDATE ${schema}.t SET v = v + 1 WHERE id BETWEEN ${id} AND ${id + 40} AND id % 2 = ${parity}`,
            `INSERT INTO ${schema}.t VALUES (${fresh}, 1)`,
            `REPLACE INTO ${schema}.t VALUES (${id}, ${i})`,
          ][i % 4]!,
        );
        written++;
      }
    };
    await Promise.all([write(pair.a, 0), write(pair.b, 1)]);
    await copied(back);
    await settled(there, pair.a);
    await settled(back, pair.b);
    await settled(there, pair.a);
    expect(written).toBeGreaterThan(20);
    expect(await dump(pair.a, `${schema}.t`)).toEqual(await dump(pair.b, `${schema}.t`));
    for (const running of [there, back])
      expect(running.status()).toMatchObject({ conflictsRecorded: 0, quarantined: 0 });
    await back.stop();
    await there.stop();
  });

  it('a deletion that is on its way to the source of a copy is waited for', async () => {
    const schema = 'coming_back';
    await createOnBoth(pair, [
      `CREATE DATABASE ${schema}`,
      `CREATE TABLE ${schema}.t (id INT PRIMARY KEY, v INT)`,
      `INSERT INTO ${schema}.t VALUES ${numbers(100, (i) => `(${i}, 1)`)}`,
    ]);
    const [ab, ba] = (['a', 'b'] as const).map((from) =>
      linkConfig(pair, from, schema, unrouted(schema, ['t'])),
    ) as [LinkConfig, LinkConfig];
    const there = await runLink(ab, 'now');
    const holder = await pair.b.pool.getConnection();
    await holder.beginTransaction();
    await holder.query(`SELECT * FROM ${schema}.t WHERE id IN (7, 8) FOR UPDATE`);
    await pair.a.pool.query(`DELETE FROM ${schema}.t WHERE id = 7`);
    await pair.a.pool.query(`UPDATE ${schema}.t SET v = 2 WHERE id = 8`);
    await pair.a.pool.query(`INSERT INTO ${schema}.t VALUES (500, 1)`);
    await initialiseLink(ba, { copy: true });
    const back = await runLink(ba, null);
    await until(
      async () =>
        back.status().state !== 'copying' ||
        (await rows(pair.a, `SELECT 1 FROM interlock.marker WHERE id LIKE 'verify-%'`)).length > 0,
      'the copy waits for the other link, or is done',
    );
    await holder.commit();
    holder.release();
    await copied(back);
    await settled(there, pair.a);
    await settled(back, pair.b);
    expect(await dump(pair.a, `${schema}.t`)).toEqual(await dump(pair.b, `${schema}.t`));
    expect(await rows(pair.a, `SELECT * FROM ${schema}.t WHERE id IN (7, 8, 500)`)).toEqual([
      { id: 8, v: 2 },
      { id: 500, v: 1 },
    ]);
    expect(back.status()).toMatchObject({ conflictsRecorded: 0, quarantined: 0 });
    await back.stop();
    await there.stop();
  });

  it('what the target has is decided under a lock, and a slow target gets smaller chunks', async () => {
    const schema = 'race';
    const count = 6_000;
    await createOnBoth(pair, [
      `CREATE DATABASE ${schema}`,
      `CREATE TABLE ${schema}.t (id INT PRIMARY KEY, v INT)`,
    ]);
    await unlogged(pair.a, [`INSERT INTO ${schema}.t VALUES ${numbers(count, (i) => `(${i}, 5)`)}`]);
    await unlogged(pair.b, [
      `INSERT INTO ${schema}.t VALUES ${numbers(count, (i) => `(${i}, 5)`)}`,
      `UPDATE ${schema}.t SET v = 1 WHERE id IN (100, 200)`,
      `DELETE FROM ${schema}.t WHERE id = 5500`,
    ]);
    const config = linkConfig(pair, 'a', schema, unrouted(schema, ['t']), {
      conflicts: { [`${schema}.t`]: { latest: 'v' } },
    });
    await initialiseLink(config, { copy: true });
    const [updates, inserts] = await Promise.all([pair.b.pool.getConnection(), pair.b.pool.getConnection()]);
    for (const application of [updates, inserts]) await application.beginTransaction();
    await updates.query(`UPDATE ${schema}.t SET v = 99 WHERE id = 100`);
    await inserts.query(`INSERT INTO ${schema}.t VALUES (5500, 99)`);
    const running = await runLink(config, null);
    const waits = (): Promise<void> =>
      until(async () => {
        // InnoDB shows what it knew before while it is asked more often.
        await new Promise((resolve) => setTimeout(resolve, 200));
        const waiting = "SELECT 1 FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'";
        return running.status().state === 'streaming' || (await rows(pair.b, waiting)).length > 0;
      }, 'the copy waits for the row');
    await waits();
    // So long the target takes for this chunk: the next ones are smaller.
    await new Promise((resolve) => setTimeout(resolve, 2_000));
    await updates.commit();
    await until(() => running.status().copy!.comparedRows >= 2_000, 'the first chunk is written');
    await waits();
    await inserts.commit();
    for (const application of [updates, inserts]) application.release();
    await copied(running);
    expect(await rows(pair.b, `SELECT * FROM ${schema}.t WHERE v <> 5 ORDER BY id`)).toEqual([
      { id: 100, v: 99 },
      { id: 5500, v: 99 },
    ]);
    expect(running.status()).toMatchObject({ conflicts: 0, quarantined: 0, copy: { keptRows: 2 } });
    const [mark] = await rows(
      pair.a,
      `SELECT seq FROM interlock.copy_watermark WHERE link = '${config.link}'`,
    );
    // Of 2000 rows each there would be 4, the last one empty.
    expect(Number(mark!['seq'])).toBeGreaterThan(4);
    await running.stop();
  });

  it('unique values that are under other keys on the target go by policy', async () => {
    const schema = 'uniq';
    const count = 6_000;
    const create = ['swapped', 'late', 'nobody'].map(
      (name) => `CREATE TABLE ${schema}.${name} (id INT PRIMARY KEY, v INT, e VARCHAR(20), UNIQUE KEY (e))`,
    );
    await createOnBoth(pair, [`CREATE DATABASE ${schema}`, ...create]);
    const swapped = (i: number): number => (i === 1 ? 5_900 : i === 5_900 ? 1 : i);
    await unlogged(pair.a, [
      `INSERT INTO ${schema}.swapped VALUES ${numbers(count, (i) => `(${i}, 1, 'e${i}')`)}`,
      ...['late', 'nobody'].map(
        (name) => `INSERT INTO ${schema}.${name} VALUES (1,5,'x'),(3,1,'z'),(5,1,'y')`,
      ),
    ]);
    await unlogged(pair.b, [
      `INSERT INTO ${schema}.swapped VALUES ${numbers(count, (i) => `(${i}, 1, 'e${swapped(i)}')`)}`,
      ...['late', 'nobody'].map((name) => `INSERT INTO ${schema}.${name} VALUES (2,9,'X'),(4,0,'z')`),
    ]);
    const config = linkConfig(pair, 'a', schema, unrouted(schema, ['swapped', 'late', 'nobody']), {
      conflicts: { [`${schema}.swapped`]: 'source-wins', [`${schema}.late`]: { latest: 'v' } },
    });
    await initialiseLink(config, { copy: true });
    const running = await runLink(config, null);
    await copied(running);
    expect(await dump(pair.b, `${schema}.swapped`)).toEqual(await dump(pair.a, `${schema}.swapped`));
    expect(await shown(pair.b, `${schema}.late`)).toBe('2=9 3=1 5=1');
    expect(await shown(pair.b, `${schema}.nobody`)).toBe('2=9 4=0 5=1');
    expect(await conflictsOf(pair.b, schema)).toEqual([
      'late 1 exists open',
      'late 4 exists resolved',
      'nobody 1 exists open',
      'nobody 3 exists open',
      'swapped 5900 exists resolved',
    ]);
    await running.stop();
  });

  it('named tables of a link that cannot go on are not ordered', async () => {
    const schema = 'named';
    await createOnBoth(pair, [
      `CREATE DATABASE ${schema}`,
      `CREATE TABLE ${schema}.t (id INT PRIMARY KEY, v INT)`,
    ]);
    const config = linkConfig(pair, 'a', schema, unrouted(schema, ['t']));
    await (await runLink(config, 'now')).stop();
    await pair.a.pool.query(`INSERT INTO ${schema}.t VALUES (1, 1)`);
    await purgeBinlogs(pair.a);
    await expect(initialiseLink(config, { resync: { tables: [`${schema}.t`] } })).rejects.toMatchObject({
      code: 'Refused',
      message: expect.stringMatching(/without --tables/) as string,
    });
    const running = await start(config, { resync: { tables: null } });
    await copied(running);
    expect(await shown(pair.b, `${schema}.t`)).toBe('1=1');
    await running.stop();
  });

  it('a link that only leaves out writes its position before the source removes what it needs', async () => {
    const schema = 'quiet';
    await createOnBoth(pair, [
      `CREATE DATABASE ${schema}`,
      `CREATE TABLE ${schema}.t (id INT PRIMARY KEY, v INT)`,
    ]);
    const [ab, ba] = (['a', 'b'] as const).map((from) =>
      linkConfig(pair, from, schema, unrouted(schema, ['t'])),
    );
    const there = await runLink(ab!, 'now');
    const back = await runLink(ba!, 'now');
    const checkpoint = async (): Promise<string> =>
      String(
        (await rows(pair.b, `SELECT position FROM interlock.link_checkpoint WHERE link = '${ab!.link}'`))[0]![
          'position'
        ],
      );
    const before = await checkpoint();
    await pair.b.pool.query(`INSERT INTO ${schema}.t VALUES (1, 1)`);
    await until(() => there.status().droppedForeign > 0, 'the row is left out on its way back');
    const { neededSince } = there.status().binlog!;
    expect(await checkpoint()).toBe(before);
    // Not later than is applied, but from the checkpoint on.
    await until(() => there.status().lagMs === 0, 'all is applied');
    const seen = Date.now();
    // Looked at once a second.
    await until(() => Date.now() - seen > 2_500, 'the source was looked at again');
    expect(there.status().binlog!.neededSince).toBe(neededSince);
    await pair.a.pool.query('SET GLOBAL binlog_expire_logs_seconds = 8');
    await until(async () => (await checkpoint()) !== before, 'the position is written', 60_000);
    await pair.a.pool.query('SET GLOBAL binlog_expire_logs_seconds = 86400');
    await until(() => there.status().binlog!.neededSince > neededSince, 'the binlog of before is not needed');
    await there.stop();
    await back.stop();
    await purgeBinlogs(pair.a);
    const again = await runLink(ab!, null);
    await pair.a.pool.query(`INSERT INTO ${schema}.t VALUES (2, 2)`);
    await settled(again, pair.a);
    expect(await shown(pair.b, `${schema}.t`)).toBe('1=1 2=2');
    await again.stop();
  });
});
