import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import {
  binlogPosition,
  createOnBoth,
  dump,
  linkConfig,
  rows,
  runLink,
  settled,
  startPair,
  until,
} from '../support/replication.js';
import type { Pair, RunningLink } from '../support/replication.js';

describe.each(['mysql', 'mariadb'] as const)('links in both directions on %s', (flavour) => {
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

  const both = async (
    schema: string,
    tables: Parameters<typeof linkConfig>[3],
  ): Promise<[RunningLink, RunningLink]> => {
    const ab = await runLink(linkConfig(pair, 'a', schema, tables));
    running.push(ab);
    const ba = await runLink(linkConfig(pair, 'b', schema, tables));
    running.push(ba);
    return [ab, ba];
  };

  it('carries inserts, updates, deletes and key changes, and never back', async () => {
    await createOnBoth(pair, [
      'CREATE DATABASE t_basic',
      'CREATE TABLE t_basic.item (id INT PRIMARY KEY, name VARCHAR(40), n INT)',
    ]);
    const [ab, ba] = await both('t_basic', { 't_basic.item': { unrouted: true } });
    const { a, b } = pair;
    await a.pool.query(
      `INSERT INTO t_basic.item VALUES (1,'one',1),(3,'three',3),(5,'five',5),(7,'seven',7)`,
    );
    await b.pool.query(`INSERT INTO t_basic.item VALUES (2,'two',2),(4,'four',4)`);
    await a.pool.query(`UPDATE t_basic.item SET n = n + 10 WHERE id IN (1, 3)`);
    await a.pool.query('DELETE FROM t_basic.item WHERE id = 5');
    await a.pool.query('UPDATE t_basic.item SET id = 9 WHERE id = 7');
    await b.pool.query(`UPDATE t_basic.item SET name = 'zwei' WHERE id = 2`);
    const markerMs = await settled(ab, a);
    await settled(ba, b);
    expect(await dump(a, 't_basic.item')).toEqual(await dump(b, 't_basic.item'));
    expect(await rows(a, 'SELECT id, name, n FROM t_basic.item ORDER BY id')).toEqual([
      { id: 1, name: 'one', n: 11 },
      { id: 2, name: 'zwei', n: 2 },
      { id: 3, name: 'three', n: 13 },
      { id: 4, name: 'four', n: 4 },
      { id: 9, name: 'seven', n: 7 },
    ]);
    expect(ab.status().droppedForeign).toBeGreaterThan(0);
    expect(ba.status().droppedForeign).toBeGreaterThan(0);
    console.log(`${flavour}: marker to callback ${markerMs.toFixed(1)} ms`);
  });

  it('two idle sides write nothing to each other', async () => {
    await createOnBoth(pair, ['CREATE DATABASE t_idle', 'CREATE TABLE t_idle.item (id INT PRIMARY KEY)']);
    const [ab, ba] = await both('t_idle', { 't_idle.item': { unrouted: true } });
    await pair.a.pool.query('INSERT INTO t_idle.item VALUES (1)');
    await pair.b.pool.query('INSERT INTO t_idle.item VALUES (2)');
    await settled(ab, pair.a);
    await settled(ba, pair.b);
    await until(() => ab.status().lagMs === 0 && ba.status().lagMs === 0, 'lag 0');
    const before = [await binlogPosition(pair.a), await binlogPosition(pair.b)];
    await new Promise((resolve) => setTimeout(resolve, 3000));
    expect([await binlogPosition(pair.a), await binlogPosition(pair.b)]).toEqual(before);
    expect(ab.status().lagMs).toBe(0);
  });
});
