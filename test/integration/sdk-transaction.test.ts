import type { ResultSetHeader, RowDataPacket } from 'mysql2';
import type mysql from 'mysql2/promise';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { createInterlock, FixedRules, isInterlockError } from '../../src/sdk/index.js';
import type { FencedMysql, FencedTransaction, Interlock } from '../../src/sdk/index.js';
import type { ErrorCode, InterlockError } from '../../src/errors.js';
import { inUse, startFencedServer, testRules, userIn } from '../sdk/support.js';
import type { FencedServer } from '../sdk/support.js';
import { FakeRulesTable, startCenter } from '../rule-center/fakes.js';

async function failure(promise: Promise<unknown>): Promise<InterlockError> {
  try {
    await promise;
  } catch (error) {
    if (isInterlockError(error)) return error;
    throw error;
  }
  throw new Error('expected an InterlockError, got none');
}

const codeOf = async (promise: Promise<unknown>): Promise<ErrorCode> => (await failure(promise)).code;

const KEY = { userId: userIn(7), region: 'cn-east' };
const UNIT = 'cn-east/7';
const OTHER = { userId: userIn(3), region: 'cn-east' };

describe.each(['mysql', 'mariadb'] as const)('fenced transactions on %s', (flavour) => {
  let dc: FencedServer;
  let rules: FixedRules;
  let interlock: Interlock;
  let pool: mysql.Pool;
  let store: FencedMysql;

  beforeAll(async () => {
    dc = await startFencedServer(flavour);
  });
  afterAll(async () => {
    await dc?.stop();
  });

  describe.each([false, true])('multipleStatements: %s', (multipleStatements) => {
    beforeEach(async () => {
      rules = new FixedRules(testRules());
      interlock = createInterlock({ dc: 'dc-a', application: 'test', rules });
      pool = dc.pool({ multipleStatements, database: 'app' });
      store = interlock.mysql(pool);
      await dc.admin.query('DELETE FROM app.t');
      await dc.admin.query('INSERT INTO app.t (id, v) VALUES (1, 10), (2, 20), (3, 30)');
    });
    afterEach(async () => {
      // Every path gives its connection back, without a transaction on it.
      expect(inUse(pool)).toBe(0);
      // InnoDB refreshes this view when nobody has looked for 100 ms.
      await expect.poll(openTransactions, { timeout: 5_000, interval: 150 }).toEqual([]);
      await pool.end();
      await interlock.close();
      await dc.admin.query(
        "UPDATE interlock.unit_state SET state = 'open', owner = 'dc-a' WHERE unit LIKE 'cn-east/%'",
      );
    });

    describe('a plain write with an ambient key', () => {
      const v = async (id: number): Promise<number> => {
        const [rows] = await dc.admin.query<RowDataPacket[]>('SELECT v FROM app.t WHERE id = ?', [id]);
        return Number(rows[0]!['v']);
      };

      it.each(['query', 'execute'] as const)('%s is a fenced transaction of its own', async (method) => {
        await interlock.run(KEY, async () => {
          const [result] = await store[method]<ResultSetHeader>(
            'UPDATE t SET v = v + ? WHERE id = ?',
            [5, 1],
          );
          expect(result.affectedRows).toBe(1);
          const [rows] = await store[method]<RowDataPacket[]>('SELECT v FROM t WHERE id = ?', [1]);
          expect(rows[0]!['v']).toBe(15);
        });
        await dc.admin.query("UPDATE interlock.unit_state SET state = 'write_disabled' WHERE unit = ?", [
          UNIT,
        ]);
        const refused = interlock.run(KEY, () => store[method]('UPDATE t SET v = 0 WHERE id = 1'));
        expect(await codeOf(refused)).toBe('WriteDisabled');
        expect(await v(1)).toBe(15);
      });

      it('counts as committed: what is refused later in the request is not executed elsewhere', async () => {
        const request = interlock.run(KEY, async () => {
          await store.query('UPDATE t SET v = 11 WHERE id = 1');
          await dc.admin.query(
            "UPDATE interlock.unit_state SET state = 'remote', owner = 'dc-b' WHERE unit = ?",
            [UNIT],
          );
          await store.query('UPDATE t SET v = 12 WHERE id = 1');
        });
        expect(await codeOf(request)).toBe('PartiallyExecuted');
        expect(await v(1)).toBe(11);
      });

      it('is refused in the callback of a transaction, and what cannot be fenced is refused as ever', async () => {
        const nested = interlock.run(KEY, () =>
          store.transaction(async (tx) => {
            await tx.query('UPDATE t SET v = 13 WHERE id = 1');
            await store.query('UPDATE t SET v = 14 WHERE id = 2');
          }),
        );
        const error = await failure(nested);
        expect(error.code).toBe('StatementRefused');
        expect(error.message).toContain('tx.query');
        expect(await codeOf(interlock.run(KEY, () => store.query('TRUNCATE t')))).toBe('StatementRefused');
        expect(await codeOf(interlock.run(undefined, () => store.query('DELETE FROM t')))).toBe(
          'StatementRefused',
        );
        expect([await v(1), await v(2)]).toEqual([10, 20]);
      });
    });

    describe('a plain write to an unrouted table', () => {
      const all = async (): Promise<unknown> =>
        (await dc.admin.query<RowDataPacket[]>('SELECT id, v FROM app.loose ORDER BY id'))[0];

      beforeEach(async () => {
        await dc.admin.query('CREATE TABLE IF NOT EXISTS app.loose (id INT PRIMARY KEY, v INT)');
        await dc.admin.query('DELETE FROM app.loose');
        store = interlock.mysql(pool, { unrouted: ['app.loose'] });
      });

      it.each(['query', 'execute'] as const)('%s passes without a routing key', async (method) => {
        const [result] = await store[method]<ResultSetHeader>(
          'INSERT INTO loose (id, v) VALUES (?, ?)',
          [1, 2],
        );
        expect(result.affectedRows).toBe(1);
        await store[method]('UPDATE `app`.`loose` SET v = v + ? WHERE id = 1', [3]);
        await store[method]('REPLACE loose VALUES (5, 5)');
        await store[method]('DELETE FROM app.loose WHERE id = 5');
        expect(await all()).toEqual([{ id: 1, v: 5 }]);
      });

      it('passes while every unit is fenced; with a key it is a fenced transaction', async () => {
        await dc.admin.query(
          "UPDATE interlock.unit_state SET state = 'write_disabled' WHERE unit LIKE 'cn-east/%'",
        );
        await store.query('INSERT INTO loose VALUES (1, 1)');
        expect(await codeOf(interlock.run(KEY, () => store.query('INSERT INTO loose VALUES (2, 2)')))).toBe(
          'WriteDisabled',
        );
        expect(await all()).toEqual([{ id: 1, v: 1 }]);
      });

      it('refuses what does not plainly write that table alone', async () => {
        for (const sql of [
          'DELETE FROM t',
          'UPDATE loose, t SET loose.v = 1, t.v = 1',
          'INSERT INTO other.loose VALUES (1, 1)',
          'INSERT INTO loose VALUES (app.writes(1), 1)',
          'DELETE t FROM loose JOIN t',
        ]) {
          expect(await codeOf(store.query(sql))).toBe('StatementRefused');
        }
        const nested = interlock.run(KEY, () =>
          store.transaction(async () => {
            await store.query('INSERT INTO loose VALUES (7, 7)');
          }),
        );
        expect(await codeOf(nested)).toBe('StatementRefused');
        expect(await all()).toEqual([]);
        expect(() => interlock.mysql(pool, { unrouted: ['loose'] })).toThrow('expected schema.table');
      });

      it('passes when the topology says so, as the rule center knows it', async () => {
        const table = new FakeRulesTable(testRules());
        const { center, url } = await startCenter(table, { topology: 'test', unrouted: ['app.loose'] });
        const instance = createInterlock({ dc: 'dc-a', application: 'shop', ruleCenter: url });
        try {
          await instance.mysql(pool).query('INSERT INTO loose VALUES (1, 1)');
          expect(await codeOf(instance.mysql(pool).query('UPDATE t SET v = 0'))).toBe('StatementRefused');
          const none = instance.mysql(pool, { unrouted: [] });
          expect(await codeOf(none.query('INSERT INTO loose VALUES (2, 2)'))).toBe('StatementRefused');
          expect(await all()).toEqual([{ id: 1, v: 1 }]);
        } finally {
          await instance.close();
          await center.stop();
        }
      });

      it('counts as committed in the request that it belongs to', async () => {
        const request = interlock.run(undefined, async () => {
          await store.query('INSERT INTO loose VALUES (1, 1)');
          await dc.admin.query(
            "UPDATE interlock.unit_state SET state = 'remote', owner = 'dc-b' WHERE unit = ?",
            [UNIT],
          );
          await store.transaction(KEY, (tx) => tx.query('UPDATE t SET v = 0'));
        });
        expect(await codeOf(request)).toBe('PartiallyExecuted');
      });

      it('is committed where autocommit is off', async () => {
        const connection = await pool.getConnection();
        await connection.query('SET SESSION autocommit = 0');
        connection.release();
        await store.query('INSERT INTO loose VALUES (1, 1)');
        expect(await all()).toEqual([{ id: 1, v: 1 }]);
      });
    });

    const openTransactions = async (): Promise<unknown[]> => {
      const [rows] = await dc.admin.query<RowDataPacket[]>(
        "SELECT p.ID, p.INFO FROM information_schema.innodb_trx t JOIN information_schema.processlist p ON p.ID = t.trx_mysql_thread_id WHERE p.USER = 'app'",
      );
      return rows;
    };
    const value = async (id: number): Promise<number> => {
      const [rows] = await dc.admin.query<RowDataPacket[]>('SELECT v FROM app.t WHERE id = ?', [id]);
      return Number(rows[0]!['v']);
    };
    const bump = (id: number) => (tx: FencedTransaction) =>
      tx.query<ResultSetHeader>('UPDATE t SET v = v + 1, epoch = ? WHERE id = ?', [tx.epoch, id]);

    it('commits, and shows epoch and units', async () => {
      const epoch = await dc.set(UNIT, 'open');
      const seen = await store.transaction(KEY, async (tx) => {
        await bump(1)(tx);
        const [rows] = await tx.execute<RowDataPacket[]>('SELECT v FROM t WHERE id = ?', [1]);
        return { epoch: tx.epoch, units: tx.units, v: rows[0]!['v'] as number };
      });
      expect(seen).toEqual({ epoch, units: [UNIT], v: 11 });
      expect(await value(1)).toBe(11);
    });

    it('rolls back when the callback throws, and passes the error on', async () => {
      const boom = new Error('boom');
      await expect(
        store.transaction(KEY, async (tx) => {
          await bump(1)(tx);
          throw boom;
        }),
      ).rejects.toBe(boom);
      expect(await value(1)).toBe(10);
    });

    it('refuses a fenced unit and one of another owner, with owner and epoch', async () => {
      const fenced = await dc.set(UNIT, 'write_disabled');
      const disabled = await failure(store.transaction(KEY, bump(1)));
      expect(disabled).toMatchObject({
        code: 'WriteDisabled',
        details: { unit: UNIT, owner: 'dc-a', epoch: fenced },
      });
      const gone = await dc.set(UNIT, 'remote');
      const notOwner = await failure(store.transaction(KEY, bump(1)));
      expect(notOwner).toMatchObject({
        code: 'NotOwner',
        details: { unit: UNIT, owner: 'dc-b', epoch: gone },
      });
      expect(await value(1)).toBe(10);
    });

    it('takes an absent row for a no', async () => {
      await dc.admin.query('DELETE FROM interlock.unit_state WHERE unit = ?', [UNIT]);
      try {
        expect(await failure(store.transaction(KEY, bump(1)))).toMatchObject({
          code: 'WriteDisabled',
          details: { reason: 'absent' },
        });
      } finally {
        await dc.fence.addMissing(testRules());
      }
    });

    it('does not wait for a fence in progress: NOWAIT', async () => {
      const fencing = await dc.admin.getConnection();
      await fencing.query('START TRANSACTION');
      await fencing.query('SELECT * FROM interlock.unit_state WHERE unit = ? FOR UPDATE', [UNIT]);
      try {
        const started = Date.now();
        const refusal = await failure(store.transaction(KEY, bump(1), { timeoutMs: 3_000 }));
        expect(refusal).toMatchObject({
          code: 'WriteDisabled',
          details: { reason: 'locked', owner: 'dc-a', epoch: 1 },
        });
        expect(Date.now() - started).toBeLessThan(1_000);
      } finally {
        await fencing.query('ROLLBACK');
        fencing.release();
      }
    });

    it('keeps a fence waiting until it has committed', async () => {
      let fenced: Promise<number> | undefined;
      await store.transaction(KEY, async (tx) => {
        fenced = dc.set(UNIT, 'write_disabled');
        await new Promise((resolve) => setTimeout(resolve, 150));
        const state = await dc.fence.states([UNIT]);
        expect(state[0]!.state).toBe('open');
        await bump(1)(tx);
      });
      await fenced;
      expect(await value(1)).toBe(11);
      expect(await codeOf(store.transaction(KEY, bump(1)))).toBe('WriteDisabled');
    });

    it('locks no unit but its own', async () => {
      await store.transaction([KEY, OTHER], async (tx) => {
        await bump(1)(tx);
        await dc.set('cn-east/4', 'write_disabled');
        await dc.set('cn-east/8', 'write_disabled');
        await dc.set('cn-east/2', 'write_disabled');
      });
    });
  });
});
