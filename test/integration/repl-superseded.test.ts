import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { LinkConfig } from '../../replicators/mysql/link-config.js';
import { changed, quarantineUpdate, readQuarantine } from '../../replicators/mysql/records.js';
import type { QuarantineRecord } from '../../replicators/mysql/records.js';
import { initialiseLink } from '../../replicators/mysql/initialise.js';
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
  until,
} from '../support/replication.js';
import type { Pair, RunningLink } from '../support/replication.js';

describe.each(['mysql', 'mariadb'] as const)('changes that later ones supersede, on %s', (flavour) => {
  let pair: Pair;
  const running: RunningLink[] = [];
  beforeAll(async () => {
    pair = await startPair(flavour);
    for (const [side, state] of [
      [pair.a, 'open'],
      [pair.b, 'remote'],
    ] as const)
      await side.pool.query(
        `INSERT INTO interlock.unit_state (unit, state, owner, epoch, mapping_version, server) VALUES (?, ?, 'dc-a', 1, 1, 's')`,
        [bucketUnit('cn-east', bucketOf('ann')), state],
      );
  });
  afterEach(async () => {
    await Promise.all(running.splice(0).map((link) => link.stop()));
  });
  afterAll(() => pair.stop());

  const schemaWith = async (name: string): Promise<string> => {
    await createOnBoth(pair, [
      `CREATE DATABASE ${name}`,
      `CREATE TABLE ${name}.item (id INT PRIMARY KEY, user_id VARCHAR(20), n INT, t VARCHAR(20), UNIQUE KEY (t))`,
    ]);
    return `${name}.item`;
  };
  const configOf = (from: 'a' | 'b', table: string, overrides: Partial<LinkConfig> = {}): LinkConfig =>
    linkConfig(pair, from, table.split('.')[0]!, { [table]: { userId: 'user_id' } }, overrides);
  const run = async (config: LinkConfig): Promise<RunningLink> => {
    const link = await runLink(config, null);
    running.push(link);
    return link;
  };
  const transaction = async (statements: string[], side = pair.a): Promise<void> => {
    const connection = await side.pool.getConnection();
    await connection.beginTransaction();
    for (const statement of statements) await connection.query(statement);
    await connection.commit();
    connection.release();
  };
  const same = async (table: string): Promise<void> =>
    expect(await dump(pair.b, table)).toEqual(await dump(pair.a, table));

  describe('in one batch', () => {
    it('a row that came and went takes away the one that the target had in its place', async () => {
      const table = await schemaWith('came_and_went');
      const config = configOf('a', table);
      await initialiseLink(config, { from: 'now' });
      await unlogged(pair.b, [`INSERT INTO ${table} VALUES (1, 'ann', 9, NULL)`]);
      await transaction([
        `INSERT INTO ${table} VALUES (1, 'ann', 1, NULL), (2, 'ann', 1, NULL)`,
        `DELETE FROM ${table} WHERE id = 1`,
      ]);
      const link = await run(config);
      await settled(link, pair.a);
      await same(table);
      expect(link.status()).toMatchObject({ conflictsRecorded: 1, conflicts: 0 });
    });

    it('a row that became what it was is looked at', async () => {
      const table = await schemaWith('there_and_back');
      const config = configOf('a', table);
      await createOnBoth(pair, [`INSERT INTO ${table} VALUES (1, 'ann', 1, NULL)`]);
      await initialiseLink(config, { from: 'now' });
      await unlogged(pair.b, [`UPDATE ${table} SET n = 9`]);
      await transaction([
        `UPDATE ${table} SET n = 2`,
        `UPDATE ${table} SET n = 1`,
        `INSERT INTO ${table} VALUES (2, 'ann', 1, NULL)`,
      ]);
      const link = await run(config);
      await settled(link, pair.a);
      await same(table);
      expect(link.status()).toMatchObject({ conflictsRecorded: 1, conflicts: 0 });
    });

    it('latest: both sides end equal', async () => {
      await createOnBoth(pair, [
        'CREATE DATABASE brief',
        'CREATE TABLE brief.lease (id INT PRIMARY KEY, v INT)',
      ]);
      const configs = (['a', 'b'] as const).map((from) =>
        linkConfig(
          pair,
          from,
          'brief',
          { 'brief.lease': { unrouted: true } },
          { conflicts: { 'brief.lease': { latest: 'v' } } },
        ),
      );
      for (const config of configs) await initialiseLink(config, { from: 'now' });
      await transaction(['INSERT INTO brief.lease VALUES (1, 5)'], pair.b);
      await transaction(['INSERT INTO brief.lease VALUES (1, 10)', 'DELETE FROM brief.lease WHERE id = 1']);
      await transaction(['INSERT INTO brief.lease VALUES (2, 5)', 'DELETE FROM brief.lease WHERE id = 2']);
      await transaction(['INSERT INTO brief.lease VALUES (2, 10)'], pair.b);
      const [ab, ba] = [await run(configs[0]!), await run(configs[1]!)];
      await settled(ab, pair.a);
      await settled(ba, pair.b);
      await same('brief.lease');
      expect(await rows(pair.a, 'SELECT * FROM brief.lease')).toEqual([{ id: 2, v: 10 }]);
    });
  });

  describe('a transaction in quarantine that the link went on behind', () => {
    const kept = async ({ config }: RunningLink): Promise<QuarantineRecord[]> => {
      const connection = await pair.b.pool.getConnection();
      try {
        return await readQuarantine(connection, { link: config.link });
      } finally {
        connection.release();
      }
    };
    const retry = async (link: RunningLink, which = 0): Promise<void> => {
      const { id } = (await kept(link))[which]!;
      const connection = await pair.b.pool.getConnection();
      expect(await changed(connection, quarantineUpdate(id, 'open', 'retry'))).toBe(true);
      connection.release();
      await until(async () => (await kept(link))[which]!.state === 'applied', 'it is applied');
    };
    /** Rows 5 to 7 on both sides, and one on the target that holds a unique value. */
    const begun = async (name: string): Promise<{ table: string; config: LinkConfig }> => {
      const table = await schemaWith(name);
      await createOnBoth(pair, [
        `INSERT INTO ${table} VALUES (5, 'ann', 1, NULL), (6, 'ann', 1, NULL), (7, 'ann', 1, NULL)`,
      ]);
      await unlogged(pair.b, [`INSERT INTO ${table} VALUES (900, 'ann', 0, 'taken')`]);
      const config = configOf('a', table, { onQuarantine: 'go-on' });
      await initialiseLink(config, { from: 'now' });
      return { table, config };
    };
    const refused = (table: string): Promise<void> =>
      transaction([
        `INSERT INTO ${table} VALUES (1, 'ann', 1, NULL), (2, 'ann', 2, 'taken'), (3, 'ann', 3, NULL)`,
        `UPDATE ${table} SET n = 2 WHERE id = 5`,
        `DELETE FROM ${table} WHERE id = 6`,
        `UPDATE ${table} SET n = 2 WHERE id = 7`,
      ]);
    const later = async (table: string): Promise<void> => {
      // As they were before it, each in its own way.
      await pair.a.pool.query(`DELETE FROM ${table} WHERE id = 1`);
      await pair.a.pool.query(`UPDATE ${table} SET n = 1 WHERE id = 5`);
      await pair.a.pool.query(`INSERT INTO ${table} VALUES (6, 'ann', 1, NULL)`);
    };

    it('is tried again without what later transactions have changed', async () => {
      const { table, config } = await begun('as_before');
      const link = await run(config);
      await refused(table);
      await later(table);
      await settled(link, pair.a);
      await unlogged(pair.b, [`DELETE FROM ${table} WHERE id = 900`]);
      await retry(link);
      await same(table);
    });

    it('also by a link that was started again between', async () => {
      const { table, config } = await begun('restarted');
      const link = await run(config);
      await refused(table);
      await settled(link, pair.a);
      await link.stop();
      await later(table);
      const again = await run(config);
      await settled(again, pair.a);
      await again.stop();
      const last = await run(config);
      await unlogged(pair.b, [`DELETE FROM ${table} WHERE id = 900`]);
      await retry(last);
      await same(table);
    });

    it('also without what was copied again since', async () => {
      const { table, config } = await begun('copied_again');
      const link = await run(config);
      await refused(table);
      await settled(link, pair.a);
      await link.stop();
      await later(table);
      await unlogged(pair.b, [`DELETE FROM ${table} WHERE id = 900`]);
      await initialiseLink(config, { resync: { tables: null } });
      const again = await run(config);
      await copied(again);
      await same(table);
      await retry(again);
      await same(table);
    });

    it('and one that follows from it is tried again behind it', async () => {
      const { table, config } = await begun('chain');
      const link = await run(config);
      await refused(table);
      await transaction([`UPDATE ${table} SET n = 3 WHERE id = 7`, `UPDATE ${table} SET n = 4 WHERE id = 2`]);
      await settled(link, pair.a);
      expect(await kept(link)).toHaveLength(2);
      await unlogged(pair.b, [`DELETE FROM ${table} WHERE id = 900`]);
      await retry(link, 0);
      await retry(link, 1);
      await same(table);
    });
  });
});
