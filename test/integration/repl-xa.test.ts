import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { InterlockError } from '../../src/errors.js';
import { createOnBoth, dump, linkConfig, runLink, settled, startPair } from '../support/replication.js';
import type { Pair, RunningLink } from '../support/replication.js';

describe.each(['mysql', 'mariadb'] as const)('XA transactions on %s', (flavour) => {
  let pair: Pair;
  const running: RunningLink[] = [];

  beforeAll(async () => {
    pair = await startPair(flavour);
  });
  afterEach(async () => {
    await Promise.all(running.splice(0).map((link) => link.stop()));
  });
  afterAll(async () => {
    await pair.stop();
  });

  const create = async (schema: string): Promise<ReturnType<typeof linkConfig>> => {
    await createOnBoth(pair, [
      `CREATE DATABASE ${schema}`,
      `CREATE TABLE ${schema}.item (id INT PRIMARY KEY, n INT)`,
    ]);
    return linkConfig(pair, 'a', schema, { [`${schema}.item`]: { unrouted: true } });
  };
  const start = async (
    config: ReturnType<typeof linkConfig>,
    from: string | null = 'now',
  ): Promise<RunningLink> => {
    const link = await runLink(config, from);
    running.push(link);
    return link;
  };
  const xa = async (id: string, statement: string, end: string): Promise<void> => {
    const connection = await pair.a.pool.getConnection();
    await connection.query(`XA START '${id}'`);
    await connection.query(statement);
    await connection.query(`XA END '${id}'`);
    await connection.query(end);
    connection.destroy();
    await new Promise((resolve) => setTimeout(resolve, 100));
  };

  it('carries one that is committed in one phase', async () => {
    const config = await create('t_xa_one');
    const link = await start(config);
    await xa('one', 'INSERT INTO t_xa_one.item VALUES (1, 1)', `XA COMMIT 'one' ONE PHASE`);
    await settled(link, pair.a);
    expect(await dump(pair.b, 't_xa_one.item')).toEqual(await dump(pair.a, 't_xa_one.item'));
    expect(await dump(pair.b, 't_xa_one.item')).toHaveLength(1);
  });

  it.runIf(flavour === 'mysql')(
    'applies a prepared one when it is committed, over a restart of the link',
    async () => {
      const config = await create('t_xa');
      const { pool } = pair.a;
      let link = await start(config);
      await pool.query('INSERT INTO t_xa.item VALUES (1, 1), (2, 2)');
      await xa('late', 'UPDATE t_xa.item SET n = 100 WHERE id = 1', `XA PREPARE 'late'`);
      await xa('never', 'INSERT INTO t_xa.item VALUES (9, 9)', `XA PREPARE 'never'`);
      await pool.query('INSERT INTO t_xa.item VALUES (3, 3)');
      await pool.query('UPDATE t_xa.item SET n = 20 WHERE id = 2');
      await settled(link, pair.a);
      expect(await dump(pair.b, 't_xa.item')).toEqual(await dump(pair.a, 't_xa.item'));
      // The position has what came after the XA PREPARE, but not that: the rows come again.
      await link.stop();
      link = await start(config, null);
      await pool.query('INSERT INTO t_xa.item VALUES (4, 4)');
      await settled(link, pair.a);
      await pool.query(`XA COMMIT 'late'`);
      await pool.query(`XA ROLLBACK 'never'`);
      await pool.query('UPDATE t_xa.item SET n = n + 1 WHERE id = 1');
      await settled(link, pair.a);
      expect(await dump(pair.b, 't_xa.item')).toEqual(await dump(pair.a, 't_xa.item'));
      expect(await dump(pair.b, 't_xa.item')).toHaveLength(4);
      // Nothing is applied twice.
      await link.stop();
      link = await start(config, null);
      await pool.query('DELETE FROM t_xa.item WHERE id = 4');
      await settled(link, pair.a);
      expect(await dump(pair.b, 't_xa.item')).toEqual(await dump(pair.a, 't_xa.item'));
      expect(link.status().lagMs).toBe(0);
    },
  );

  it.runIf(flavour === 'mysql')(
    'stops at the commit of one that was prepared before its position',
    async () => {
      const config = await create('t_xa_old');
      await xa('old', 'INSERT INTO t_xa_old.item VALUES (1, 1)', `XA PREPARE 'old'`);
      const link = await start(config);
      await pair.a.pool.query(`XA COMMIT 'old'`);
      const error = await link.ended;
      expect(error).toBeInstanceOf(InterlockError);
      expect((error as InterlockError).code).toBe('LinkStopped');
      expect((error as InterlockError).message).toContain(
        'prepared before the position that the link began at',
      );
    },
  );

  it.runIf(flavour === 'mariadb')('stops at a prepared one: the position cannot leave it out', async () => {
    const config = await create('t_xa');
    const link = await start(config);
    await xa('p', 'INSERT INTO t_xa.item VALUES (1, 1)', `XA PREPARE 'p'`);
    const error = await link.ended;
    expect((error as InterlockError).message).toContain('XA transaction');
    await pair.a.pool.query(`XA ROLLBACK 'p'`);
  });
});
