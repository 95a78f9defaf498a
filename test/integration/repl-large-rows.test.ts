import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  createOnBoth,
  linkConfig,
  roomForLargeValues,
  rows,
  runLink,
  settled,
  startPair,
} from '../support/replication.js';
import type { Pair, RunningLink, Side } from '../support/replication.js';

describe.each(['mysql', 'mariadb'] as const)('large rows on %s', (flavour) => {
  let pair: Pair;
  let link: RunningLink | undefined;

  beforeAll(async () => {
    pair = await startPair(flavour);
    await roomForLargeValues(pair, flavour);
    await createOnBoth(pair, [
      'CREATE DATABASE t_large',
      `CREATE TABLE t_large.big (id INT PRIMARY KEY, b LONGBLOB, t LONGTEXT, g LONGTEXT CHARACTER SET gbk, j JSON, n INT) CHARSET utf8mb4`,
    ]);
    link = await runLink(linkConfig(pair, 'a', 't_large', { 't_large.big': { unrouted: true } }));
  });
  afterAll(async () => {
    await link?.stop();
    await pair?.stop();
  });

  const sums = (side: Side): Promise<Record<string, unknown>[]> =>
    rows(
      side,
      'SELECT id, n, LENGTH(b) AS bl, SHA1(b) AS b, LENGTH(t) AS tl, SHA1(t) AS t, LENGTH(g) AS gl, SHA1(CAST(g AS BINARY)) AS g, SHA1(CAST(j AS CHAR)) AS j FROM t_large.big ORDER BY id',
    );

  it.each([
    ['64 KB', 16 * 1024],
    ['1 MB', 256 * 1024],
    ['16 MB', 4 * 1024 * 1024],
  ])('carries rows of %s', async (_size, quarter) => {
    const { pool } = pair.a;
    const half = quarter / 2;
    await pool.query('DELETE FROM t_large.big');
    await pool.query(
      `INSERT INTO t_large.big VALUES (1, REPEAT(x'00FF275C', ${quarter}), NULL, NULL, NULL, 1)`,
    );
    await pool.query(
      `INSERT INTO t_large.big VALUES (2, NULL, REPEAT(_utf8mb4 x'C3BC5C27F09F9880', ${half}), NULL, NULL, 1)`,
    );
    await pool.query(
      `INSERT INTO t_large.big VALUES (3, x'01', 'x', REPEAT(_gbk x'C4E3C55C61', ${half}), CONCAT('"', REPEAT('ab', ${half}), '"'), 1)`,
    );
    await settled(link!, pair.a);
    expect(await sums(pair.b)).toEqual(await sums(pair.a));
    const connection = await pool.getConnection();
    await connection.beginTransaction();
    await connection.query('UPDATE t_large.big SET n = n + 1');
    await connection.query(`UPDATE t_large.big SET b = CONCAT(SUBSTR(b, 2), x'01') WHERE id = 1`);
    await connection.query(`UPDATE t_large.big SET t = REVERSE(t) WHERE id = 2`);
    await connection.query(`DELETE FROM t_large.big WHERE id = 3`);
    await connection.commit();
    connection.release();
    await settled(link!, pair.a);
    expect(await sums(pair.b)).toEqual(await sums(pair.a));
  });

  it('carries a row of 64 MB', async () => {
    const { pool } = pair.a;
    await pool.query('DELETE FROM t_large.big');
    await pool.query(
      `INSERT INTO t_large.big (id, b, n) VALUES (4, REPEAT(x'00FF275C', ${16 * 1024 * 1024}), 1)`,
    );
    await settled(link!, pair.a);
    expect(await sums(pair.b)).toEqual(await sums(pair.a));
    await pool.query('UPDATE t_large.big SET n = 2');
    await settled(link!, pair.a);
    await pool.query('DELETE FROM t_large.big');
    await settled(link!, pair.a);
    expect(await rows(pair.b, 'SELECT COUNT(*) AS n FROM t_large.big')).toEqual([{ n: '0' }]);
    expect(link!.status().generation).toBe(1);
  });
});
