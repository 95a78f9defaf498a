import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { initialiseLink } from '../../replicators/mysql/initialise.js';
import { InterlockError } from '../../src/errors.js';
import { bucketOf, bucketUnit } from '../../src/routing/units.js';
import {
  binlogPosition,
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
import type { Pair, RunningLink, Side } from '../support/replication.js';

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

  it('ends when it is stopped while it looks for what people have decided', async () => {
    await createOnBoth(pair, [
      'CREATE DATABASE t_stopped',
      'CREATE TABLE t_stopped.item (id INT PRIMARY KEY)',
    ]);
    const config = linkConfig(pair, 'a', 't_stopped', { 't_stopped.item': { unrouted: true } });
    await initialiseLink(config, { from: 'now' });
    const lock = await pair.b.pool.getConnection();
    let link: RunningLink;
    try {
      // It may read, and waits when it removes old records.
      await lock.query('LOCK TABLES interlock.conflict READ');
      link = await runLink(config, null);
      running.push(link);
      await until(async () => {
        const [found] = await pair.b.pool.query('SHOW FULL PROCESSLIST');
        return JSON.stringify(found).includes('DELETE FROM interlock.conflict');
      }, 'the link waits');
      void link.stop();
      await new Promise((resolve) => setImmediate(resolve));
    } finally {
      await lock.query('UNLOCK TABLES');
      lock.release();
    }
    expect(await link.ended).toBeUndefined();
  });

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

  it('carries random concurrent work on both sides, and both end equal', async () => {
    await createOnBoth(pair, [
      'CREATE DATABASE t_work',
      `CREATE TABLE t_work.account (id INT PRIMARY KEY, user_id VARCHAR(20), n INT NOT NULL, note VARCHAR(200), UNIQUE KEY by_user (user_id))`,
      'CREATE TABLE t_work.entry (account INT, seq INT, amount DECIMAL(10,2), at DATETIME(6), PRIMARY KEY (account, seq))',
      'CREATE TABLE t_work.counter (id INT PRIMARY KEY, n INT NOT NULL)',
    ]);
    const [ab, ba] = await both('t_work', {
      't_work.account': { unrouted: true },
      't_work.entry': { unrouted: true },
      't_work.counter': { unrouted: true },
    });
    const work = async (side: Side, worker: number): Promise<void> => {
      // Keys of one side and one worker: sides never write the same row, as owners never do.
      let seed = worker * 7919 + (side === pair.a ? 1 : 2);
      const random = (n: number): number => (seed = (seed * 1103515245 + 12345) % 2147483648) % n;
      const base = (side === pair.a ? 0 : 100_000) + worker * 1000;
      await side.pool.query('INSERT INTO t_work.counter VALUES (?, 0)', [base]);
      for (let round = 0; round < 60; round++) {
        const connection = await side.pool.getConnection();
        await connection.beginTransaction();
        try {
          const changes = 1 + random(6);
          for (let i = 0; i < changes; i++) {
            const id = base + random(20);
            const kind = random(10);
            if (kind < 4) {
              await connection.query(
                'INSERT INTO t_work.account VALUES (?, ?, 0, ?) ON DUPLICATE KEY UPDATE n = n + 1, note = VALUES(note)',
                [id, `u${id}`, `round ${round} '\\`],
              );
            } else if (kind < 7) {
              await connection.query('UPDATE t_work.account SET n = n + 1 WHERE id BETWEEN ? AND ?', [
                id,
                id + 3,
              ]);
            } else if (kind < 8) await connection.query('DELETE FROM t_work.account WHERE id = ?', [id]);
            else if (kind < 9) {
              await connection.query('DELETE FROM t_work.entry WHERE account = ? AND seq < ?', [
                id,
                random(60),
              ]);
            } else {
              await connection.query('INSERT IGNORE INTO t_work.entry VALUES (?, ?, ?, NOW(6))', [
                id,
                round,
                round / 4,
              ]);
            }
          }
          await connection.query('UPDATE t_work.counter SET n = n + 1 WHERE id = ?', [base]);
          if (random(8) === 0) await connection.rollback();
          else await connection.commit();
        } catch (error) {
          // A deadlock with a link or another worker rolls back: an application would try again.
          if ((error as { errno?: number }).errno !== 1213) throw error;
          await connection.rollback();
        }
        connection.release();
      }
    };
    await Promise.all([work(pair.a, 1), work(pair.a, 2), work(pair.b, 1), work(pair.b, 2)]);
    await settled(ab, pair.a);
    await settled(ba, pair.b);
    for (const table of ['account', 'entry', 'counter']) {
      expect(await dump(pair.a, `t_work.${table}`)).toEqual(await dump(pair.b, `t_work.${table}`));
    }
    expect((await dump(pair.a, 't_work.counter')).length).toBe(4);
  });

  it('merges transactions that wait, each whole, and writes a row of many changes once', async () => {
    await createOnBoth(pair, [
      'CREATE DATABASE t_merge',
      'CREATE TABLE t_merge.item (id INT PRIMARY KEY, n INT)',
    ]);
    const config = linkConfig(pair, 'a', 't_merge', { 't_merge.item': { unrouted: true } });
    await initialiseLink(config, { from: 'now' });
    await pair.a.pool.query('INSERT INTO t_merge.item VALUES (1, 0), (2, 0), (3, 0)');
    for (let i = 0; i < 200; i++) await pair.a.pool.query('UPDATE t_merge.item SET n = n + 1 WHERE id = 1');
    await pair.a.pool.query('DELETE FROM t_merge.item WHERE id = 2');
    await pair.a.pool.query('INSERT INTO t_merge.item VALUES (2, 77), (4, 4)');
    await pair.a.pool.query('DELETE FROM t_merge.item WHERE id = 4');
    const [before] = await rows(pair.b, `SHOW GLOBAL STATUS LIKE 'Handler_commit'`);
    const ab = await runLink(config, null);
    running.push(ab);
    await settled(ab, pair.a);
    const [after] = await rows(pair.b, `SHOW GLOBAL STATUS LIKE 'Handler_commit'`);
    expect(await rows(pair.b, 'SELECT * FROM t_merge.item ORDER BY id')).toEqual([
      { id: 1, n: 200 },
      { id: 2, n: 77 },
      { id: 3, n: 0 },
    ]);
    expect(Number(after!['Value']) - Number(before!['Value'])).toBeLessThan(100);
    expect(ab.status().transactions).toBeGreaterThanOrEqual(205);
  });

  it('keeps the order where rows are in the way of each other', async () => {
    await createOnBoth(pair, [
      'CREATE DATABASE t_unique',
      'CREATE TABLE t_unique.seat (id INT PRIMARY KEY, place INT, UNIQUE KEY one (place))',
    ]);
    const config = linkConfig(pair, 'a', 't_unique', { 't_unique.seat': { unrouted: true } });
    await initialiseLink(config, { from: 'now' });
    const { pool } = pair.a;
    await pool.query('INSERT INTO t_unique.seat VALUES (1, 10), (2, 20), (3, 30), (4, 40)');
    const swap = async (): Promise<void> => {
      const connection = await pool.getConnection();
      await connection.beginTransaction();
      await connection.query('UPDATE t_unique.seat SET place = NULL WHERE id = 1');
      await connection.query('UPDATE t_unique.seat SET place = 10 WHERE id = 2');
      await connection.query('UPDATE t_unique.seat SET place = 20 WHERE id = 1');
      await connection.commit();
      connection.release();
    };
    await swap();
    await pool.query('DELETE FROM t_unique.seat WHERE id = 3');
    await pool.query('INSERT INTO t_unique.seat VALUES (5, 30)');
    await pool.query('UPDATE t_unique.seat SET id = 6 WHERE id = 4');
    const ab = await runLink(config, null);
    running.push(ab);
    await settled(ab, pair.a);
    // Both rows are on the target now: each value is free only after the other row has left it.
    const turn = await pool.getConnection();
    await turn.beginTransaction();
    await turn.query('UPDATE t_unique.seat SET place = NULL WHERE id = 1');
    await turn.query('UPDATE t_unique.seat SET place = 20 WHERE id = 2');
    await turn.query('UPDATE t_unique.seat SET place = 10 WHERE id = 1');
    await turn.commit();
    turn.release();
    await settled(ab, pair.a);
    expect(await dump(pair.b, 't_unique.seat')).toEqual(await dump(pair.a, 't_unique.seat'));
    await pool.query('UPDATE t_unique.seat SET place = place + 1 ORDER BY place DESC');
    await settled(ab, pair.a);
    expect(await dump(pair.b, 't_unique.seat')).toEqual(await dump(pair.a, 't_unique.seat'));
  });

  it('carries a transaction of many rows whole', async () => {
    await createOnBoth(pair, [
      'CREATE DATABASE t_big',
      'CREATE TABLE t_big.item (id INT PRIMARY KEY, text VARCHAR(100))',
    ]);
    const [ab] = await both('t_big', { 't_big.item': { unrouted: true } });
    const connection = await pair.a.pool.getConnection();
    await connection.beginTransaction();
    for (let from = 0; from < 30_000; from += 1000) {
      const values = Array.from({ length: 1000 }, (_x, i) => `(${from + i}, 'text of ${from + i}')`);
      await connection.query(`INSERT INTO t_big.item VALUES ${values.join(',')}`);
    }
    await connection.query(`UPDATE t_big.item SET text = CONCAT(text, '!') WHERE id % 3 = 0`);
    await connection.query(`DELETE FROM t_big.item WHERE id % 7 = 0`);
    await connection.commit();
    connection.release();
    await settled(ab, pair.a);
    await pair.a.pool.query(`UPDATE t_big.item SET text = CONCAT(text, '?')`);
    await pair.a.pool.query(`DELETE FROM t_big.item WHERE id % 5 = 0`);
    await settled(ab, pair.a);
    const checksum = `SELECT COUNT(*) AS n, SUM(CRC32(CONCAT(id, text))) AS sum FROM t_big.item`;
    expect(await rows(pair.b, checksum)).toEqual(await rows(pair.a, checksum));
  });

  it('reports a marker only when all before it is committed on the target', async () => {
    await createOnBoth(pair, ['CREATE DATABASE t_marker', 'CREATE TABLE t_marker.item (id INT PRIMARY KEY)']);
    const [ab] = await both('t_marker', { 't_marker.item': { unrouted: true } });
    for (let round = 0; round < 20; round++) {
      await Promise.all(
        [1, 2, 3].map((i) => pair.a.pool.query('INSERT INTO t_marker.item VALUES (?)', [round * 10 + i])),
      );
      await settled(ab, pair.a);
      const [count] = await rows(pair.b, 'SELECT COUNT(*) AS n FROM t_marker.item');
      expect(Number(count!['n'])).toBe((round + 1) * 3);
      const last = ab.markers.at(-1)!.baseline;
      expect(last).toMatchObject({ link: ab.config.link, conflicts: 0, quarantined: 0 });
      const [checkpoint] = await rows(
        pair.b,
        `SELECT marker, position FROM interlock.link_checkpoint WHERE link = '${ab.config.link}'`,
      );
      expect(checkpoint).toEqual({ marker: last.markerId, position: last.position });
    }
  });

  it('begins at a position with the owners that the units had there', async () => {
    await createOnBoth(pair, [
      'CREATE DATABASE t_then',
      'CREATE TABLE t_then.item (id INT PRIMARY KEY, user_id VARCHAR(20))',
    ]);
    const unit = bucketUnit('cn-east', bucketOf('then'));
    const { pool, server } = pair.a;
    const put = (state: string, owner: string, epoch: number): Promise<unknown> =>
      pool.query(
        `REPLACE INTO interlock.unit_state (unit, state, owner, epoch, mapping_version, server) VALUES (?, ?, ?, ?, 1, '')`,
        [unit, state, owner, epoch],
      );
    await put('open', 'dc-a', 1);
    const [row] = await rows(
      pair.a,
      `SELECT @@GLOBAL.${server.flavour === 'mysql' ? 'gtid_executed' : 'gtid_binlog_pos'} AS p`,
    );
    await pool.query("INSERT INTO t_then.item VALUES (1, 'then')");
    await put('write_disabled', 'dc-a', 2);
    await put('remote', 'dc-b', 3);
    const config = linkConfig(pair, 'a', 't_then', { 't_then.item': { userId: 'user_id' } });
    const link = await runLink(config, String(row!['p']));
    running.push(link);
    await settled(link, pair.a);
    expect(await dump(pair.b, 't_then.item')).toEqual(await dump(pair.a, 't_then.item'));
    await pool.query('DELETE FROM interlock.unit_state WHERE unit = ?', [unit]);
  });

  describe('stops, with nothing of the transaction applied', () => {
    const stopped = async (link: RunningLink): Promise<InterlockError> => {
      const error = await Promise.race([
        link.ended,
        new Promise((resolve) =>
          setTimeout(() => resolve(new Error(`still runs: ${JSON.stringify(link.status())}`)), 15_000),
        ),
      ]);
      expect(error).toBeInstanceOf(InterlockError);
      return error as InterlockError;
    };
    const prepare = async (schema: string): Promise<RunningLink> => {
      await createOnBoth(pair, [
        `CREATE DATABASE ${schema}`,
        `CREATE TABLE ${schema}.item (id INT PRIMARY KEY, n INT)`,
        `INSERT INTO ${schema}.item VALUES (1, 1), (2, 2)`,
      ]);
      const ab = await runLink(linkConfig(pair, 'a', schema, { [`${schema}.item`]: { unrouted: true } }));
      running.push(ab);
      return ab;
    };
    const inOne = async (side: Side, statements: string[]): Promise<void> => {
      const connection = await side.pool.getConnection();
      await connection.beginTransaction();
      for (const statement of statements) await connection.query(statement);
      await connection.commit();
      connection.release();
    };

    it.each([
      [
        'a row that is there already',
        't_dup',
        `INSERT INTO t_dup.item VALUES (3, 33)`,
        `INSERT INTO t_dup.item VALUES (3, 3)`,
        '3',
      ],
      [
        'an update of a missing row',
        't_upd',
        `DELETE FROM t_upd.item WHERE id = 2`,
        `UPDATE t_upd.item SET n = n + 10 WHERE id = 2`,
        '2',
      ],
      [
        'a merged update of a missing row',
        't_ups',
        `DELETE FROM t_ups.item WHERE id = 2`,
        `UPDATE t_ups.item SET n = n + 10`,
        '2',
      ],
      [
        'a deletion of a missing row',
        't_del',
        `DELETE FROM t_del.item WHERE id = 1`,
        `DELETE FROM t_del.item WHERE id = 1`,
        '1',
      ],
      [
        'an update that is there already',
        't_same',
        `UPDATE t_same.item SET n = 12 WHERE id = 2`,
        `UPDATE t_same.item SET n = 12 WHERE id = 2`,
        '2',
      ],
    ])('on %s', async (_what, schema, onTarget, onSource, key) => {
      const ab = await prepare(schema);
      await unlogged(pair.b, [onTarget]);
      const before = await dump(pair.b, `${schema}.item`);
      await inOne(pair.a, [`INSERT INTO ${schema}.item VALUES (50, 50)`, onSource]);
      const error = await stopped(ab);
      expect(error.code).toBe('LinkStopped');
      expect(error.details).toMatchObject({ kind: 'quarantined', link: ab.config.link });
      expect(error.message).toContain(`${schema}.item key (${key})`);
      expect(await dump(pair.b, `${schema}.item`)).toEqual(before);
      expect(ab.status()).toMatchObject({
        state: 'failed',
        quarantined: 1,
        lastError: { code: 'LinkStopped' },
      });
    });

    it.each([
      ['its own', 't_statement'],
      ['a system', 'mysql'],
      ["Interlock's", 'interlock'],
    ])('on a change that was logged as a statement in %s schema', async (_whose, schema) => {
      const table = `t_statement_${schema}`;
      const ab = await prepare(table);
      const connection = await pair.a.pool.getConnection();
      await connection.query("SET SESSION binlog_format = 'STATEMENT'");
      await connection.query(`USE ${schema === 't_statement' ? table : schema}`);
      await connection.query(`UPDATE ${table}.item SET n = 9 WHERE id = 1`);
      connection.destroy();
      const error = await stopped(ab);
      expect(error.code).toBe('LinkStopped');
      expect(error.message).toContain('a change written as a statement');
    });

    it('when another attempt has taken the generation', async () => {
      const ab = await prepare('t_zombie');
      await pair.b.pool.query(
        'UPDATE interlock.link_checkpoint SET generation = generation + 1 WHERE link = ?',
        [ab.config.link],
      );
      await pair.a.pool.query('INSERT INTO t_zombie.item VALUES (3, 3)');
      expect((await stopped(ab)).code).toBe('HeldByOther');
      expect(await dump(pair.b, 't_zombie.item')).toHaveLength(2);
    });

    it('when another process takes the link over, and does not take it back', async () => {
      const first = await prepare('t_taken');
      const second = await runLink(first.config, null);
      running.push(second);
      // Unavailable: its own take-over lost its connection to the other one's, and it cannot tell whose generation it sees. It does not go on either.
      expect(['HeldByOther', 'Unavailable']).toContain((await stopped(first)).code);
      await pair.a.pool.query('INSERT INTO t_taken.item VALUES (3, 3)');
      await settled(second, pair.a);
      expect(await dump(pair.b, 't_taken.item')).toHaveLength(3);
    });

    it('on a checkpoint that the source has not executed', async () => {
      const ab = await prepare('t_diverged');
      await ab.stop();
      const future = flavour === 'mysql' ? '00000000-0000-0000-0000-000000000001:1-5' : '99-1-5';
      await pair.b.pool.query(
        `UPDATE interlock.link_checkpoint SET position = CONCAT(position, ?) WHERE link = ?`,
        [`,${future}`, ab.config.link],
      );
      const again = await runLink(ab.config, null);
      const error = await stopped(again);
      expect(error.code).toBe('NeedsOperator');
      expect(again.status().state).toBe('diverged');
    });

    it('on a definition that differs, until both sides agree', async () => {
      const ab = await prepare('t_ddl');
      await pair.a.pool.query('ALTER TABLE t_ddl.item ADD COLUMN extra INT NOT NULL');
      await pair.a.pool.query('INSERT INTO t_ddl.item VALUES (3, 3, 3)');
      const error = await stopped(ab);
      expect(error.code).toBe('LinkStopped');
      expect(error.message).toContain('ALTER TABLE t_ddl.item ADD COLUMN extra INT NOT NULL');
      expect(error.message).toContain('t_ddl.item.extra');
      await unlogged(pair.b, ['ALTER TABLE t_ddl.item ADD COLUMN extra INT NOT NULL']);
      const again = await runLink(ab.config, null);
      running.push(again);
      await settled(again, pair.a);
      expect(await dump(pair.b, 't_ddl.item')).toEqual(await dump(pair.a, 't_ddl.item'));
      await pair.a.pool.query('TRUNCATE TABLE t_ddl.item');
      expect((await stopped(again)).message).toContain('emptied at the source, has rows on the target');
    });

    it('not on rows of before a change of character set: they are read as they were written', async () => {
      await createOnBoth(pair, [
        'CREATE DATABASE t_charset',
        'CREATE TABLE t_charset.item (id INT PRIMARY KEY, v VARCHAR(20) CHARACTER SET latin1)',
      ]);
      const config = linkConfig(pair, 'a', 't_charset', { 't_charset.item': { unrouted: true } });
      await initialiseLink(config, { from: 'now' });
      const alter = 'ALTER TABLE t_charset.item MODIFY v VARCHAR(20) CHARACTER SET utf8mb4';
      await pair.a.pool.query(`INSERT INTO t_charset.item VALUES (1, 'é€')`);
      await pair.a.pool.query(alter);
      await pair.a.pool.query(`INSERT INTO t_charset.item VALUES (2, 'é€')`);
      await unlogged(pair.b, [alter]);
      const link = await runLink(config, null);
      running.push(link);
      await settled(link, pair.a);
      expect(await dump(pair.b, 't_charset.item')).toEqual(await dump(pair.a, 't_charset.item'));
      expect(await dump(pair.b, 't_charset.item')).toHaveLength(2);
    });

    it('on a partition that is emptied, until it is empty on both sides', async () => {
      await createOnBoth(pair, [
        'CREATE DATABASE t_part',
        'CREATE TABLE t_part.item (id INT PRIMARY KEY) PARTITION BY RANGE (id) (PARTITION p0 VALUES LESS THAN (10), PARTITION p1 VALUES LESS THAN (20))',
      ]);
      const link = await runLink(linkConfig(pair, 'a', 't_part', { 't_part.item': { unrouted: true } }));
      running.push(link);
      await pair.a.pool.query('INSERT INTO t_part.item VALUES (1), (11)');
      await settled(link, pair.a);
      await pair.a.pool.query('ALTER TABLE t_part.item TRUNCATE PARTITION p0');
      const error = await stopped(link);
      expect(error.details['kind']).toBe('ddl');
      expect(error.message).toContain('t_part.item PARTITION (`p0`): emptied at the source');
      await unlogged(pair.b, ['ALTER TABLE t_part.item TRUNCATE PARTITION p0']);
      const again = await runLink(link.config, null);
      running.push(again);
      await settled(again, pair.a);
      await pair.a.pool.query('RENAME TABLE t_part.item TO t_part.old, t_part.old TO t_part.item');
      const { message } = await stopped(again);
      expect(message).toContain('t_part.item: has other rows now');
      expect(message).toMatch(/--from '.+' --discard-checkpoint/);
    });

    it('not on a write past the fence, or of a unit that is fenced: that is left out, and open', async () => {
      const schema = 't_owned';
      await createOnBoth(pair, [
        `CREATE DATABASE ${schema}`,
        `CREATE TABLE ${schema}.wallet (user_id VARCHAR(20) PRIMARY KEY, n INT)`,
      ]);
      const unit = bucketUnit('cn-east', bucketOf('u1'));
      await pair.a.pool.query(
        `INSERT INTO interlock.unit_state VALUES (?, 'open', 'dc-a', 1, 1, 's', NULL, NULL), ('cn-east/${bucketOf('u2')}', 'remote', 'dc-b', 1, 1, 's', NULL, NULL)`,
        [unit],
      );
      const config = linkConfig(pair, 'a', schema, { [`${schema}.wallet`]: { userId: 'user_id' } });
      const ab = await runLink(config);
      running.push(ab);
      await pair.a.pool.query(`INSERT INTO ${schema}.wallet VALUES ('u1', 1)`);
      await settled(ab, pair.a);
      expect(await dump(pair.b, `${schema}.wallet`)).toHaveLength(1);
      // Fenced in band, with its marker: the marker is reached, and what is written behind it is refused.
      await inOne(pair.a, [
        `UPDATE interlock.unit_state SET state = 'write_disabled', epoch = 2 WHERE unit = '${unit}'`,
        `INSERT INTO interlock.marker VALUES ('fence-${flavour}', 'w', 'r', 2, UTC_TIMESTAMP(6))`,
      ]);
      await until(
        () => ab.markers.some((m) => m.baseline.markerId === `fence-${flavour}`),
        'the fence marker',
      );
      expect(
        await rows(
          pair.b,
          `SELECT state, epoch FROM interlock.link_unit WHERE link = '${config.link}' AND unit = '${unit}'`,
        ),
      ).toEqual([{ state: 'write_disabled', epoch: '2' }]);
      await pair.a.pool.query(`UPDATE ${schema}.wallet SET n = 2 WHERE user_id = 'u1'`);
      await settled(ab, pair.a);
      expect(ab.status()).toMatchObject({ state: 'streaming', conflicts: 1 });
      // The next attempt knows it from its checkpoint.
      const again = await runLink(config, null);
      running.push(again);
      await pair.a.pool.query(`UPDATE ${schema}.wallet SET n = 3 WHERE user_id = 'u1'`);
      await settled(again, pair.a);
      expect(again.status()).toMatchObject({ conflicts: 2, conflictsRecorded: 1 });
      // Another unit, from the snapshot at the start.
      const fresh = await runLink({ ...config, link: 'mysql/t-owned2:dc-a>dc-b' });
      running.push(fresh);
      await pair.a.pool.query(`INSERT INTO ${schema}.wallet VALUES ('u2', 1)`);
      await settled(fresh, pair.a);
      expect(fresh.status()).toMatchObject({ conflicts: 1 });
      // A marker of a switchover says that it is not drained.
      await pair.a.pool.query(
        `INSERT INTO interlock.marker VALUES ('after-${flavour}', 'w', 'r', 2, UTC_TIMESTAMP(6))`,
      );
      await until(() => fresh.markers.length > 0, 'the marker');
      expect(fresh.markers[0]!.baseline).toMatchObject({ conflicts: 1, quarantined: 0 });
      expect(await rows(pair.b, `SELECT user_id, n FROM ${schema}.wallet`)).toEqual([
        { user_id: 'u1', n: 1 },
      ]);
    });
  });
});
