import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { initialiseLink } from '../../replicators/mysql/initialise.js';
import { Passage } from '../../replicators/mysql/verify/passage.js';
import { Side as VerifiedSide } from '../../replicators/mysql/verify/side.js';
import { InterlockError } from '../../src/errors.js';
import {
  createOnBoth,
  dump,
  linkConfig,
  runLink,
  settled,
  startPair,
  unlogged,
  until,
} from '../support/replication.js';
import type { Pair, RunningLink } from '../support/replication.js';

describe.each([
  ['mysql', 'mysql'],
  ['mariadb', 'mariadb'],
  ['mysql', 'mariadb'],
] as const)('XA transactions from %s to %s', (flavour, flavourOfB) => {
  let pair: Pair;
  const running: RunningLink[] = [];

  beforeAll(async () => {
    pair = await startPair(flavour, flavourOfB);
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

  it('applies a prepared one when it is committed, over a restart of the link', async () => {
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
    await until(() => link.status().lagMs > 0, 'what is open counts as lag');
    // The position has what came after the XA PREPARE, but not that: the rows come again.
    await link.stop();
    link = await start(config, null);
    await pool.query('INSERT INTO t_xa.item VALUES (4, 4)');
    await xa('both', 'INSERT INTO t_xa.item VALUES (5, 5)', `XA PREPARE 'both'`);
    await pool.query(`XA COMMIT 'both'`);
    await settled(link, pair.a);
    // Of two that were open, one is decided before the next restart.
    await pool.query(`XA ROLLBACK 'never'`);
    await settled(link, pair.a);
    await link.stop();
    await pool.query(`XA COMMIT 'late'`);
    link = await start(config, null);
    await pool.query('UPDATE t_xa.item SET n = n + 1 WHERE id = 1');
    await settled(link, pair.a);
    expect(await dump(pair.b, 't_xa.item')).toEqual(await dump(pair.a, 't_xa.item'));
    expect(await dump(pair.b, 't_xa.item')).toHaveLength(5);
    // Nothing is applied twice.
    await link.stop();
    link = await start(config, null);
    await pool.query('DELETE FROM t_xa.item WHERE id = 4');
    await settled(link, pair.a);
    expect(await dump(pair.b, 't_xa.item')).toEqual(await dump(pair.a, 't_xa.item'));
    await until(() => link.status().lagMs === 0, 'nothing is open');
    expect(link.status()).toMatchObject({ conflictsRecorded: 0, quarantined: 0 });
  });

  it('applies a large one, whose rows wait on the disk, over a restart', async () => {
    const config = await create('t_xa_large');
    const { pool } = pair.a;
    await createOnBoth(pair, ['ALTER TABLE t_xa_large.item ADD COLUMN body LONGBLOB']);
    let link = await start(config);
    await xa(
      'large',
      `INSERT INTO t_xa_large.item VALUES ${[1, 2, 3, 4, 5, 6].map((id) => `(${id}, ${id}, REPEAT('x', 2000000))`).join()}`,
      `XA PREPARE 'large'`,
    );
    await pool.query(`INSERT INTO t_xa_large.item VALUES (7, 7, 'y')`);
    await settled(link, pair.a);
    expect(await dump(pair.b, 't_xa_large.item')).toHaveLength(1);
    await link.stop();
    link = await start(config, null);
    await pool.query(`XA COMMIT 'large'`);
    await settled(link, pair.a);
    expect(await dump(pair.b, 't_xa_large.item')).toHaveLength(7);
    expect(await dump(pair.b, 't_xa_large.item')).toEqual(await dump(pair.a, 't_xa_large.item'));
  });

  it.each(['COMMIT', 'ROLLBACK'])('a copy over a large one: XA %s between the chunks', async (end) => {
    const schema = `t_xa_copy_${end.toLowerCase()}`;
    const unit = `central:${end.toLowerCase()}`;
    const routed = { [`${schema}.item`]: { central: end.toLowerCase() } };
    const config = { ...(await create(schema)), tables: routed };
    for (const [side, state] of [
      [pair.a, 'open'],
      [pair.b, 'remote'],
    ] as const)
      await unlogged(side, [
        `INSERT INTO interlock.unit_state VALUES ('${unit}','${state}','dc-a',1,1,'',NULL,NULL)`,
      ]);
    const { pool } = pair.a;
    await createOnBoth(pair, [`ALTER TABLE ${schema}.item ADD COLUMN body LONGBLOB`]);
    const rows = 5000;
    for (let id = 0; id < rows; id += 500) {
      const values = Array.from({ length: 500 }, (_, i) => `(${id + i}, 0, REPEAT('x', 1500))`);
      await pool.query(`INSERT INTO ${schema}.item VALUES ${values.join()}`);
    }
    await initialiseLink(config, { copy: true, maxRowsPerSecond: 1000 });
    const link = await start(config, null);
    const compared = (): number => link.status().copy?.comparedRows ?? 0;
    await until(() => compared() > 0, 'a chunk is written');
    await xa('slow', `UPDATE ${schema}.item SET n = 1, body = REPEAT('y', 1500)`, `XA PREPARE 'slow'`);
    // The next chunk is read while this one is written: the one that is written next was read before the commit.
    const before = compared();
    await until(() => compared() > before, 'another chunk is written');
    await pool.query(`XA ${end} 'slow'`);
    await until(
      () => link.status().state === 'streaming',
      'copied',
      60_000,
      () => JSON.stringify(link.status()),
    );
    await settled(link, pair.a);
    expect(await dump(pair.b, `${schema}.item`)).toEqual(await dump(pair.a, `${schema}.item`));
    expect(await dump(pair.b, `${schema}.item`)).toHaveLength(rows);
  });

  it('a verification waits for no prepared transaction', async () => {
    const config = await create('t_xa_verify');
    const { pool } = pair.a;
    const link = await start(config);
    await pool.query('INSERT INTO t_xa_verify.item VALUES (1, 1), (2, 2)');
    await xa('open', 'UPDATE t_xa_verify.item SET n = 5 WHERE id = 1', `XA PREPARE 'open'`);
    await settled(link, pair.a);
    const sides = [new VerifiedSide('dc-a', pair.a.server), new VerifiedSide('dc-b', pair.b.server)] as const;
    const passage = new Passage(config.link, ...sides, new AbortController().signal);
    expect(await passage.pass(10_000)).toBe(link.status().generation);
    await passage.clear();
    for (const side of sides) side.close();
    await pool.query(`XA COMMIT 'open'`);
  });

  it('stops at the commit of one that was prepared before its position', async () => {
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
  });
});
