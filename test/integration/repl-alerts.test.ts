import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { alertsOf } from '../../replicators/core/alerts.js';
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
import type { Pair, RunningLink, Side } from '../support/replication.js';

const LIMITS = { alertLagMs: 700, alertStalledMs: 900 };

/** What fires, as a worker and `replicate status` would say. */
function firing({ status }: RunningLink, workflow = 'running'): string[] {
  return alertsOf({ workflow, status: status() }, LIMITS, Date.now()).map(({ alert }) => alert);
}

describe.each(['mysql', 'mariadb'] as const)('figures and alerts of a link on %s', (flavour) => {
  let pair: Pair;
  const links: RunningLink[] = [];
  const blocks: (() => Promise<void>)[] = [];
  beforeAll(async () => {
    pair = await startPair(flavour);
  });
  afterEach(async () => {
    for (const release of blocks.splice(0)) await release().catch(() => undefined);
    await Promise.all(links.splice(0).map((link) => link.stop()));
  });
  afterAll(async () => {
    await pair?.stop();
  });

  const start = async (schema: string): Promise<RunningLink> => {
    await createOnBoth(pair, [
      `CREATE DATABASE ${schema}`,
      `CREATE TABLE ${schema}.item (id INT PRIMARY KEY, name VARCHAR(2000))`,
    ]);
    const link = await runLink(linkConfig(pair, 'a', schema, { [`${schema}.item`]: { unrouted: true } }));
    links.push(link);
    return link;
  };
  const end = async (side: Side): Promise<{ file: string; at: number }> => {
    const [row] = await rows(side, 'SHOW MASTER STATUS');
    return { file: String(row!['File']), at: Number(row!['Position']) };
  };
  /** Rows of the target that the link cannot write until `release`. */
  const block = async (schema: string): Promise<() => Promise<void>> => {
    const connection = await pair.b.pool.getConnection();
    await connection.query(`LOCK TABLES ${schema}.item READ`);
    let held = true;
    const release = async (): Promise<void> => {
      if (!held) return;
      held = false;
      await connection.query('UNLOCK TABLES');
      connection.release();
    };
    blocks.push(release);
    return release;
  };

  it('counts bytes, rows and transactions on both sides of a link', async () => {
    const link = await start('t_bytes');
    const { a } = pair;
    await a.pool.query(`INSERT INTO t_bytes.item VALUES (1, 'before')`);
    await settled(link, a);
    await until(
      () => link.status().lagBytes === 0,
      'nothing is left',
      20_000,
      () => JSON.stringify(link.status()),
    );
    expect(firing(link)).toEqual([]);
    const release = await block('t_bytes');
    const from = await end(a);
    for (let i = 2; i <= 4; i++)
      await a.pool.query(`INSERT INTO t_bytes.item VALUES (${i}, REPEAT('x', 2000))`);
    const to = await end(a);
    expect(to.file).toBe(from.file);
    // Exactly what the source has written behind the last applied transaction.
    await until(
      () => link.status().lagBytes === to.at - from.at,
      `lag of ${to.at - from.at} bytes`,
      20_000,
      () => JSON.stringify(link.status()),
    );
    // Over files, too: what is left of this one, and what is in the next.
    await a.pool.query('FLUSH BINARY LOGS');
    await a.pool.query(`INSERT INTO t_bytes.item VALUES (5, 'next file')`);
    const next = await end(a);
    const closed = (await rows(a, 'SHOW BINARY LOGS')).find((row) => row['Log_name'] === from.file)!;
    const expected = Number(closed['File_size']) - from.at + next.at;
    await until(
      () => link.status().lagBytes === expected,
      `lag of ${expected} bytes`,
      20_000,
      () => JSON.stringify(link.status()),
    );
    expect(link.status().binlog).toMatchObject({ file: from.file, purged: false });
    const behind = link.status();
    expect(behind.rowsRead - behind.rows).toBe(4);
    expect(behind.transactionsRead - behind.transactions).toBe(4);
    await release();
    await settled(link, a);
    await until(
      () => link.status().lagBytes === 0,
      'nothing is left again',
      20_000,
      () => JSON.stringify(link.status()),
    );
    const done = link.status();
    expect(done.rows).toBe(5);
    expect(done.rowsRead).toBe(5);
    expect(done.binlog?.file).toBe(next.file);
    expect(done.checkpointAgeMs).toBeGreaterThanOrEqual(0);
    expect(done.checkpointAgeMs!).toBeLessThan(60_000);
  });

  it('conflicts fires while one is open, and counts those too that were decided', async () => {
    const schema = 't_conflicts';
    const table = `${schema}.item`;
    await createOnBoth(pair, [
      `CREATE DATABASE ${schema}`,
      `CREATE TABLE ${table} (id INT PRIMARY KEY, name VARCHAR(2000))`,
      `CREATE TABLE ${schema}.free (id INT PRIMARY KEY, n INT)`,
      `INSERT INTO ${table} VALUES (1, 'u1')`,
      `INSERT INTO ${schema}.free VALUES (1, 1)`,
    ]);
    const tables = { [table]: { userId: 'name' }, [`${schema}.free`]: { unrouted: true as const } };
    const conflicts = { [`${schema}.free`]: 'source-wins' as const };
    const link = await runLink(linkConfig(pair, 'a', schema, tables, { conflicts }));
    links.push(link);
    await unlogged(pair.b, [`UPDATE ${schema}.free SET n = 2`]);
    await pair.a.pool.query(`UPDATE ${schema}.free SET n = 3`);
    await settled(link, pair.a);
    expect(link.status()).toMatchObject({ conflicts: 0, conflictsRecorded: 1 });
    expect(firing(link)).toEqual([]);
    // Nobody has said that the source owns the unit.
    await pair.a.pool.query(`UPDATE ${table} SET id = 2`);
    await settled(link, pair.a);
    expect(link.status()).toMatchObject({ conflicts: 1, conflictsRecorded: 2 });
    expect(firing(link)).toEqual(['conflicts']);
    await pair.b.pool.query(
      `UPDATE interlock.conflict SET state = 'resolved', resolved_at = UTC_TIMESTAMP(6) WHERE link = '${link.config.link}'`,
    );
    await until(
      () => firing(link).length === 0,
      'it ends',
      20_000,
      () => JSON.stringify(link.status()),
    );
    expect(link.status().conflictsRecorded).toBe(2);
  });

  it('lag and stalled fire while the target takes nothing, and end', async () => {
    const link = await start('t_stall');
    const { a, b } = pair;
    await a.pool.query(`INSERT INTO t_stall.item VALUES (1, 'one')`);
    await settled(link, a);
    await b.server.pause();
    try {
      await a.pool.query(`INSERT INTO t_stall.item VALUES (2, 'two')`);
      await until(
        () => firing(link).includes('lag') && firing(link).includes('stalled'),
        'lag and stalled fire',
        20_000,
        () => JSON.stringify(link.status()),
      );
    } finally {
      b.server.unpause();
    }
    await until(
      () => firing(link).length === 0,
      'both end',
      30_000,
      () => JSON.stringify(link.status()),
    );
    expect(await rows(b, 'SELECT COUNT(*) AS n FROM t_stall.item')).toEqual([{ n: '2' }]);
  });

  it('stalled goes on while the target is gone, and binlog-purge fires when the source has removed what is needed', async () => {
    const link = await start('t_gone');
    const { a, b } = pair;
    await a.pool.query(`INSERT INTO t_gone.item VALUES (1, 'one')`);
    await settled(link, a);
    const release = await block('t_gone');
    await a.pool.query(`INSERT INTO t_gone.item VALUES (2, 'two')`);
    await until(() => link.status().transactionsRead === link.status().transactions + 1, 'it is read');
    await a.pool.query('FLUSH BINARY LOGS');
    await a.pool.query(`INSERT INTO t_gone.item VALUES (3, 'three')`);
    const { file } = await end(a);
    await until(
      () => link.status().transactionsRead === link.status().transactions + 2,
      'so is the next file',
    );
    await a.pool.query(`PURGE BINARY LOGS TO '${file}'`);
    await until(
      () => firing(link).includes('binlog-purge'),
      'binlog-purge fires',
      20_000,
      () => JSON.stringify(link.status()),
    );
    expect(link.status().binlog).toMatchObject({ purged: true });
    // What was read is applied all the same.
    await release();
    await settled(link, a);
    await until(
      () => firing(link).length === 0,
      'it ends',
      20_000,
      () => JSON.stringify(link.status()),
    );

    const again = await block('t_gone');
    await a.pool.query(`INSERT INTO t_gone.item VALUES (4, 'four')`);
    await until(() => firing(link).includes('stalled'), 'stalled fires');
    await b.server.kill('SIGKILL');
    await again().catch(() => undefined);
    await until(() => link.status().state === 'starting', 'the target is gone');
    const { stalledMs } = link.status();
    await until(() => link.status().stalledMs > stalledMs, 'stalled goes on');
    expect(firing(link)).toEqual(expect.arrayContaining(['lag', 'stalled']));
    await b.server.restart();
    await settled(link, a);
    await until(
      () => firing(link).length === 0,
      'all is well',
      20_000,
      () => JSON.stringify(link.status()),
    );
  });

  it.runIf(flavour === 'mysql')(
    'a prepared XA transaction counts in bytes, from where it was prepared',
    async () => {
      const link = await start('t_xa');
      const { a } = pair;
      await a.pool.query(`INSERT INTO t_xa.item VALUES (1, 'one')`);
      await settled(link, a);
      const from = await end(a);
      const connection = await a.pool.getConnection();
      for (const sql of [
        `XA START 'x'`,
        `INSERT INTO t_xa.item VALUES (2, 'two')`,
        `XA END 'x'`,
        `XA PREPARE 'x'`,
      ])
        await connection.query(sql);
      await a.pool.query(`INSERT INTO t_xa.item VALUES (3, 'three')`);
      const to = await end(a);
      await until(
        () => link.status().lagBytes === to.at - from.at && link.status().rows === 2,
        `${to.at - from.at} bytes`,
        20_000,
        () => JSON.stringify(link.status()),
      );
      await connection.query(`XA COMMIT 'x'`);
      connection.release();
      await settled(link, a);
      await until(() => link.status().lagBytes === 0, 'nothing is left');
    },
  );

  it('a long transaction that the source has not committed, and one that moves, are no stall', async () => {
    const link = await start('t_moves');
    const { a } = pair;
    const connection = await a.pool.getConnection();
    await connection.beginTransaction();
    await connection.query(`INSERT INTO t_moves.item VALUES (1, 'open')`);
    await new Promise((resolve) => setTimeout(resolve, 2 * LIMITS.alertStalledMs));
    expect(firing(link)).toEqual([]);
    await connection.commit();
    connection.release();
    await settled(link, a);
  });

  it('quarantine and stopped fire on a row that something else wrote, and end when it is mended', async () => {
    const link = await start('t_conflict');
    const { a, b } = pair;
    await unlogged(b, [`INSERT INTO t_conflict.item VALUES (7, 'stray')`]);
    await a.pool.query(`INSERT INTO t_conflict.item VALUES (7, 'mine')`);
    await link.ended;
    expect(firing(link, 'failed')).toEqual(expect.arrayContaining(['stopped', 'quarantine']));
    expect(firing(link, 'running')).toEqual(expect.arrayContaining(['stopped', 'quarantine']));
    await unlogged(b, ['DELETE FROM t_conflict.item WHERE id = 7']);
    const again = await runLink(link.config, null);
    links.push(again);
    await settled(again, a);
    expect(firing(again)).toEqual([]);
  });

  it('binlog-purge fires before the source removes a file that is needed, and ends', async () => {
    const { a } = pair;
    const [was] = await rows(a, 'SELECT @@GLOBAL.binlog_expire_logs_seconds AS s');
    await a.pool.query('SET GLOBAL binlog_expire_logs_seconds = 8');
    const link = await start('t_purge');
    await a.pool.query(`INSERT INTO t_purge.item VALUES (1, 'one')`);
    await settled(link, a);
    const release = await block('t_purge');
    try {
      await a.pool.query(`INSERT INTO t_purge.item VALUES (2, 'two')`);
      await until(
        () => firing(link).includes('binlog-purge'),
        'binlog-purge fires',
        20_000,
        () => JSON.stringify(link.status()),
      );
      const { binlog } = link.status();
      expect(binlog).toMatchObject({ retentionMs: 8000, purged: false });
      // It fired in time: a rotation now removes what is too old, and the file is still there.
      await a.pool.query('FLUSH BINARY LOGS');
      expect((await rows(a, 'SHOW BINARY LOGS')).map((row) => row['Log_name'])).toContain(binlog!.file);
    } finally {
      await a.pool.query(`SET GLOBAL binlog_expire_logs_seconds = ${String(was!['s'])}`);
      await release();
    }
    await settled(link, a);
    await until(
      () => !firing(link).includes('binlog-purge'),
      'binlog-purge ends',
      20_000,
      () => JSON.stringify(link.status()),
    );
  });
});
