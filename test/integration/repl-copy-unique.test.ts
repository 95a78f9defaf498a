import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { initialiseLink } from '../../replicators/mysql/initialise.js';
import type { InitialiseOptions } from '../../replicators/mysql/initialise.js';
import type { LinkConfig } from '../../replicators/mysql/link-config.js';
import { bucketOf, bucketUnit } from '../../src/routing/units.js';
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

const numbers = (count: number, row: (i: number) => string): string =>
  Array.from({ length: count }, (_, i) => row(i + 1)).join(',');
const unit = (user: string): string => bucketUnit('cn-east', bucketOf(user));

describe.each(['mysql', 'mariadb'] as const)(
  'unique values that the stream brings while tables are copied on %s',
  (flavour) => {
    let pair: Pair;
    const running: RunningLink[] = [];
    beforeAll(async () => {
      pair = await startPair(flavour);
      await unlogged(pair.a, [
        `INSERT INTO interlock.unit_state (unit, state, owner, epoch, mapping_version, server) VALUES ('${unit('ann')}', 'open', 'dc-a', 1, 1, ''), ('${unit('bob')}', 'remote', 'dc-b', 1, 1, '')`,
      ]);
    });
    afterEach(async () => {
      await Promise.all(running.splice(0).map((link) => link.stop()));
    });
    afterAll(async () => {
      await pair?.stop();
    });

    /** A table that is copied for some seconds, before those of the test, and is gone on with. */
    const schemaOf = async (schema: string, tables: Record<string, string>): Promise<void> => {
      await createOnBoth(pair, [
        `CREATE DATABASE ${schema}`,
        `CREATE TABLE ${schema}.aaa (id INT PRIMARY KEY, v INT)`,
        ...Object.entries(tables).map(([name, columns]) => `CREATE TABLE ${schema}.${name} (${columns})`),
      ]);
      await unlogged(pair.a, [`INSERT INTO ${schema}.aaa VALUES ${numbers(8_000, (i) => `(${i}, 1)`)}`]);
      // Both sides have rows.
      await unlogged(pair.b, [`INSERT INTO ${schema}.aaa VALUES (1, 1)`]);
    };
    const begin = async (config: LinkConfig, options: InitialiseOptions): Promise<RunningLink> => {
      await initialiseLink(config, { ...options, maxRowsPerSecond: 1_000 });
      const link = await runLink(config, null);
      running.push(link);
      return link;
    };
    /** Runs statements at the source as one transaction each; returns when they have been met, before their tables are copied. */
    const changed = async (link: RunningLink, schema: string, transactions: string[][]): Promise<void> => {
      for (const statements of transactions) {
        const connection = await pair.a.pool.getConnection();
        await connection.beginTransaction();
        for (const statement of statements) await connection.query(statement);
        await connection.commit();
        connection.release();
      }
      await pair.a.pool.query(`INSERT INTO ${schema}.aaa VALUES (1000000, 7)`);
      await until(
        async () => {
          const { state, lastError } = link.status();
          if (state === 'failed') throw new Error(lastError?.message);
          return (await rows(pair.b, `SELECT v FROM ${schema}.aaa WHERE id = 1000000`)).length === 1;
        },
        'the changes are met',
        60_000,
        () => JSON.stringify(link.status()),
      );
      const waiting = await rows(
        pair.b,
        `SELECT COUNT(*) AS n FROM interlock.link_copy WHERE link = '${link.config.link}' AND state = 'waiting'`,
      );
      expect(Number(waiting[0]!['n'])).toBeGreaterThan(0);
    };
    const conflictsOf = async (schema: string): Promise<string[]> =>
      (
        await rows(
          pair.b,
          `SELECT name, row_key, kind, state FROM interlock.conflict WHERE name LIKE '${schema}.%' ORDER BY name, row_key, id`,
        )
      ).map(
        ({ name, row_key, kind, state }) =>
          `${String(name).split('.')[1]} ${String(row_key)} ${String(kind)} ${String(state)}`,
      );

    it('rows that the source owns: those in the way go, and come as the source has them', async () => {
      const schema = 'cu_owned';
      const columns =
        "id INT PRIMARY KEY, user VARCHAR(9) NOT NULL DEFAULT 'ann', v INT, e VARCHAR(20), f INT, UNIQUE KEY (e), UNIQUE KEY (f)";
      await schemaOf(schema, { item: columns, parent: columns, child: 'id INT PRIMARY KEY, p INT' });
      await createOnBoth(pair, [
        `ALTER TABLE ${schema}.child ADD FOREIGN KEY (p) REFERENCES ${schema}.parent (id) ON DELETE CASCADE`,
      ]);
      for (const table of ['item', 'parent']) {
        await unlogged(pair.a, [
          `INSERT INTO ${schema}.${table} (id, v, e, f) VALUES (1,1,'one',1),(3,1,'three',3),(5,1,'five',5),(40,1,'forty',40),(50,1,'fifty',50),(70,1,'seventy',70)`,
        ]);
        // Of before: 20 is gone at the source, 40 and 50 have other values there.
        await unlogged(pair.b, [
          `INSERT INTO ${schema}.${table} (id, v, e, f) VALUES (1,1,'one',1),(3,1,'three',3),(5,1,'five',5),(20,0,'new',20),(40,0,'b',400),(50,0,'c',500),(60,0,'sixty',7),(61,0,'d',61),(70,0,'e',70)`,
        ]);
      }
      for (const side of [pair.a, pair.b])
        await unlogged(side, [`INSERT INTO ${schema}.child VALUES (1, 3), (40, 40)`]);
      const config = linkConfig(
        pair,
        'a',
        schema,
        {
          ...unrouted(schema, ['aaa']),
          [`${schema}.item`]: { userId: 'user' },
          [`${schema}.parent`]: { unrouted: true },
          [`${schema}.child`]: { unrouted: true },
        },
        { conflicts: { [`${schema}.parent`]: 'source-wins', [`${schema}.child`]: 'source-wins' } },
      );
      const link = await begin(config, { copy: true });
      await changed(
        link,
        schema,
        ['item', 'parent'].flatMap((table) => [
          [`INSERT INTO ${schema}.${table} (id, v, e, f) VALUES (10, 1, 'NEW', 10)`],
          // Held by a row that the same transaction changes, as it is at the source.
          [
            `UPDATE ${schema}.${table} SET e = 'b' WHERE id = 3`,
            `UPDATE ${schema}.${table} SET v = v + 1 WHERE id = 40`,
            `UPDATE ${schema}.${table} SET e = 'c' WHERE id = 5`,
          ],
          // Two rows in the way of one.
          [`INSERT INTO ${schema}.${table} (id, v, e, f) VALUES (11, 1, 'd', 7)`],
          [`UPDATE ${schema}.${table} SET id = 12, e = 'e', f = 12 WHERE id = 1`],
          [`UPDATE ${schema}.${table} SET v = 9 WHERE id IN (10, 11, 40, 50)`],
        ]),
      );
      await copied(link);
      await settled(link, pair.a);
      for (const table of ['item', 'parent', 'child'])
        expect(await dump(pair.b, `${schema}.${table}`)).toEqual(await dump(pair.a, `${schema}.${table}`));
      expect(link.status()).toMatchObject({ conflicts: 0, quarantined: 0 });
      expect((await conflictsOf(schema)).filter((line) => line.startsWith('item'))).toEqual(
        ['20', '50', '60', '61', '70'].map((key) => `item ${key} exists resolved`),
      );
    });

    it('rows that nobody owns: by the policy; what no policy decides is an open conflict, and stops nothing', async () => {
      const schema = 'cu_policy';
      const columns = 'id INT PRIMARY KEY, v INT, e VARCHAR(20), UNIQUE KEY (e)';
      await schemaOf(schema, { late: columns, nobody: columns, source: columns });
      for (const table of ['late', 'nobody', 'source']) {
        await unlogged(pair.a, [`INSERT INTO ${schema}.${table} VALUES (3,5,'three'),(30,1,'thirty')`]);
        await unlogged(pair.b, [`INSERT INTO ${schema}.${table} VALUES (3,5,'three'),(20,9,'x'),(30,0,'y')`]);
      }
      const config = linkConfig(pair, 'a', schema, unrouted(schema, ['aaa', 'late', 'nobody', 'source']), {
        conflicts: { [`${schema}.late`]: { latest: 'v' }, [`${schema}.source`]: 'source-wins' },
      });
      const link = await begin(config, { copy: true });
      await changed(
        link,
        schema,
        ['late', 'nobody', 'source'].flatMap((table) => [
          [
            `INSERT INTO ${schema}.${table} VALUES (10, 5, 'x')`,
            `INSERT INTO ${schema}.${table} VALUES (12, 1, 'other')`,
          ],
          [`UPDATE ${schema}.${table} SET e = 'y', v = 6 WHERE id = 3`],
        ]),
      );
      await copied(link);
      await settled(link, pair.a);
      const shown = async (table: string): Promise<string> =>
        (await rows(pair.b, `SELECT id, e FROM ${schema}.${table} ORDER BY id`))
          .map(({ id, e }) => `${String(id)}=${String(e)}`)
          .join(' ');
      expect(await dump(pair.b, `${schema}.source`)).toEqual(await dump(pair.a, `${schema}.source`));
      expect(await shown('late')).toBe('3=y 12=other 20=x 30=thirty');
      expect(await shown('nobody')).toBe('3=three 12=other 20=x 30=y');
      expect(link.status()).toMatchObject({ state: 'streaming', quarantined: 0 });
      expect(await conflictsOf(schema)).toEqual([
        'late 10 exists open',
        'late 30 exists resolved',
        'nobody 10 exists open',
        'nobody 3 differs open',
        'nobody 30 differs open',
        'source 20 exists resolved',
        'source 30 exists resolved',
      ]);
    });

    it('a row of a unit that the target owns stays, and the one that arrives is an open conflict', async () => {
      const schema = 'cu_other';
      await schemaOf(schema, {
        item: 'id INT PRIMARY KEY, user VARCHAR(9) NOT NULL, e VARCHAR(20), UNIQUE KEY (e)',
      });
      await unlogged(pair.b, [`INSERT INTO ${schema}.item VALUES (20, 'bob', 'x')`]);
      const config = linkConfig(pair, 'a', schema, {
        ...unrouted(schema, ['aaa']),
        [`${schema}.item`]: { userId: 'user' },
      });
      const link = await begin(config, { copy: true });
      await changed(link, schema, [
        [`INSERT INTO ${schema}.item VALUES (10, 'ann', 'x')`],
        [`INSERT INTO ${schema}.item VALUES (11, 'ann', 'z')`],
      ]);
      await copied(link);
      await settled(link, pair.a);
      expect(await rows(pair.b, `SELECT id FROM ${schema}.item ORDER BY id`)).toEqual([
        { id: 11 },
        { id: 20 },
      ]);
      expect(await conflictsOf(schema)).toEqual(['item 10 exists open']);
    });

    it('the rows of a transaction that is larger than memory', async () => {
      const schema = 'cu_large';
      await schemaOf(schema, {
        item: "id INT PRIMARY KEY, user VARCHAR(9) NOT NULL DEFAULT 'ann', e VARCHAR(20), body VARBINARY(2000), UNIQUE KEY (e)",
      });
      await unlogged(pair.b, [
        `INSERT INTO ${schema}.item (id, e) VALUES (20000, 'e1'), (20001, 'e5000'), (5500, 'e5900')`,
      ]);
      const config = linkConfig(pair, 'a', schema, {
        ...unrouted(schema, ['aaa']),
        [`${schema}.item`]: { userId: 'user' },
      });
      const link = await begin(config, { copy: true });
      const batch = (from: number): string =>
        `INSERT INTO ${schema}.item (id, e, body) VALUES ${numbers(2_000, (i) => `(${from + i}, 'e${from + i}', REPEAT('x', 1200))`)}`;
      await changed(link, schema, [[batch(0), batch(2_000), batch(4_000)]]);
      await copied(link);
      await settled(link, pair.a);
      expect(await dump(pair.b, `${schema}.item`)).toEqual(await dump(pair.a, `${schema}.item`));
      expect(await conflictsOf(schema)).toEqual(['item 20000 exists resolved', 'item 20001 exists resolved']);
    });
  },
);
