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
    while (running.status().state === 'copying') {
      n++;
      for (const name of names) {
        await pair.a.pool.query(`UPDATE ${schema}.${name} SET v = 2 WHERE id = 2900`);
        await pair.a.pool.query(`UPDATE ${schema}.${name} SET v = ${n} WHERE id IN (5, 2500)`);
        await pair.a.pool.query(`DELETE FROM ${schema}.${name} WHERE id = ${2_000 + n}`);
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
        await rows(pair.b, `SELECT id FROM ${schema}.${name} WHERE id BETWEEN 2002 AND ${2_000 + n}`),
        name,
      ).toEqual([]);
    }
    expect(n).toBeGreaterThan(3);
    const conflicts = await conflictsOf(pair.b, schema);
    expect(conflicts.every((one) => /^nobody 29\d\d differs open$/.test(one))).toBe(true);
    expect(new Set(conflicts).size).toBe(100);
    await running.stop();
  });
});
