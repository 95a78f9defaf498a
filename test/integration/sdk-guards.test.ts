import type { ResultSetHeader, RowDataPacket } from 'mysql2';
import type mysql from 'mysql2/promise';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { ErrorCode, InterlockError } from '../../src/errors.js';
import { createInterlock, FixedRules, isInterlockError } from '../../src/sdk/index.js';
import type { FencedMysql, FencedTransaction, Interlock } from '../../src/sdk/index.js';
import { inUse, startFencedServer, testRules, userIn } from '../sdk/support.js';
import type { FencedServer } from '../sdk/support.js';

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
const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

const KEY = { userId: userIn(7), region: 'cn-east' };
const UNIT = 'cn-east/7';
const OTHER = { userId: userIn(3), region: 'cn-east' };
const OTHER_UNIT = 'cn-east/3';

describe.each(['mysql', 'mariadb'] as const)('guards of the fence on %s', (flavour) => {
  let dc: FencedServer;
  let rules: FixedRules;
  let interlock: Interlock;
  let pool: mysql.Pool;
  let store: FencedMysql;
  /** The connection that the pool gave out last: what a library of the application might reach behind the SDK's back. */
  let lastConnection: { query: (sql: string, done: (error: Error | null) => void) => void; threadId: number };

  beforeAll(async () => {
    dc = await startFencedServer(flavour);
    await dc.admin.query('SET GLOBAL log_bin_trust_function_creators = 1');
    await dc.admin.query(
      'CREATE FUNCTION app.writes() RETURNS INT MODIFIES SQL DATA BEGIN UPDATE app.t SET v = 999 WHERE id = 1; RETURN 1; END',
    );
    await dc.admin.query('CREATE PROCEDURE app.commits() BEGIN COMMIT; END');
  });
  afterAll(async () => {
    await dc?.stop();
  });
  beforeEach(async () => {
    rules = new FixedRules(testRules());
    interlock = createInterlock({ dc: 'dc-a', application: 'test', rules });
    usePool({});
    await dc.admin.query('DELETE FROM app.t');
    await dc.admin.query('INSERT INTO app.t (id, v) VALUES (1, 10), (2, 20), (3, 30)');
    await dc.admin.query(
      "UPDATE interlock.unit_state SET state = 'open', owner = 'dc-a', mapping_version = 1",
    );
  });
  afterEach(async () => {
    expect(inUse(pool)).toBe(0);
    // InnoDB refreshes this view when nobody has looked for 100 ms.
    await expect
      .poll(
        async () =>
          (
            await dc.admin.query<RowDataPacket[]>(
              "SELECT p.ID FROM information_schema.innodb_trx t JOIN information_schema.processlist p ON p.ID = t.trx_mysql_thread_id WHERE p.USER = 'app'",
            )
          )[0],
        { timeout: 5_000, interval: 150 },
      )
      .toEqual([]);
    await pool.end();
  });

  function usePool(options: mysql.PoolOptions): void {
    pool = dc.pool({ database: 'app', ...options });
    pool.on('acquire', (connection) => (lastConnection = connection as never));
    store = interlock.mysql(pool);
  }
  const behindTheBack = (sql: string) =>
    new Promise<void>((resolve, reject) =>
      lastConnection.query(sql, (error) => (error ? reject(error) : resolve())),
    );
  const value = async (id: number): Promise<number> => {
    const [rows] = await dc.admin.query<RowDataPacket[]>('SELECT v FROM app.t WHERE id = ?', [id]);
    return Number(rows[0]!['v']);
  };
  const bump = (tx: FencedTransaction, id: number) =>
    tx.query<ResultSetHeader>('UPDATE t SET v = v + 1 WHERE id = ?', [id]);

  /** Makes the SDK's transaction the victim of a deadlock at its next update of row 2. */
  async function deadlock(
    tx: FencedTransaction,
    next: (tx: FencedTransaction) => Promise<unknown>,
  ): Promise<void> {
    const heavy = await dc.admin.getConnection();
    try {
      await heavy.query('START TRANSACTION');
      await heavy.query('INSERT INTO app.t (id, v) VALUES (101,1),(102,1),(103,1),(104,1),(105,1),(106,1)');
      await heavy.query('UPDATE app.t SET v = v WHERE id = 2');
      await bump(tx, 1);
      const blocked = heavy.query('UPDATE app.t SET v = v WHERE id = 1');
      await pause(100);
      try {
        await next(tx);
      } finally {
        await blocked;
        await heavy.query('ROLLBACK');
      }
    } finally {
      heavy.release();
    }
  }

  describe('a transaction that vanishes under its handle', () => {
    it('sends nothing after a deadlock (1213), not even when the callback swallows it', async () => {
      const error = await failure(
        store.transaction(KEY, async (tx) => {
          await deadlock(tx, () => bump(tx, 2).catch(() => undefined));
          await bump(tx, 3).catch(() => undefined);
        }),
      );
      expect(error).toMatchObject({ code: 'TransactionLost', retryable: true, details: { deadlock: true } });
      expect([await value(1), await value(2), await value(3)]).toEqual([10, 20, 30]);
    });

    it('sends nothing after a deadlock, when the next statements are queued already', async () => {
      const outcome: PromiseSettledResult<unknown>[] = [];
      const error = await failure(
        store.transaction(KEY, async (tx) => {
          await deadlock(tx, async () => {
            outcome.push(...(await Promise.allSettled([bump(tx, 2), bump(tx, 3), bump(tx, 1)])));
          });
        }),
      );
      expect(error.code).toBe('TransactionLost');
      expect(outcome.map((o) => o.status)).toEqual(['rejected', 'rejected', 'rejected']);
      expect([await value(1), await value(2), await value(3)]).toEqual([10, 20, 30]);
    });

    it('sends nothing after a lock wait time-out (1205), and keeps nothing', async () => {
      const holder = await dc.admin.getConnection();
      await holder.query('START TRANSACTION');
      await holder.query('UPDATE app.t SET v = v + 100 WHERE id = 2');
      try {
        const error = await failure(
          store.transaction(KEY, async (tx) => {
            await behindTheBack('SET SESSION innodb_lock_wait_timeout = 1');
            await bump(tx, 1);
            await bump(tx, 2).catch(() => undefined);
            await bump(tx, 3).catch(() => undefined);
          }),
        );
        expect(error.code).toBe('TransactionLost');
      } finally {
        await holder.query('ROLLBACK');
        holder.release();
      }
      expect([await value(1), await value(2), await value(3)]).toEqual([10, 20, 30]);
    });

    it('sees on a row set that the transaction is gone', async () => {
      const error = await failure(
        store.transaction(KEY, async (tx) => {
          await behindTheBack('ROLLBACK');
          await tx.query('SELECT * FROM t').catch(() => undefined);
          await bump(tx, 1).catch(() => undefined);
        }),
      );
      expect(error.code).toBe('TransactionLost');
      expect(await value(1)).toBe(10);
    });

    it('sees on a prepared row set that the transaction is gone', async () => {
      const error = await failure(
        store.transaction(KEY, async (tx) => {
          await behindTheBack('ROLLBACK');
          await tx.execute('SELECT * FROM t WHERE id > ?', [0]).catch(() => undefined);
          await bump(tx, 1).catch(() => undefined);
        }),
      );
      expect(error.code).toBe('TransactionLost');
      expect(await value(1)).toBe(10);
    });

    it('asks after an error of unknown effect before it sends the next statement', async () => {
      const error = await failure(
        store.transaction(KEY, async (tx) => {
          await behindTheBack('ROLLBACK');
          await tx.query('SELECT nothing FROM nowhere').catch(() => undefined);
          await bump(tx, 1).catch(() => undefined);
        }),
      );
      expect(error.code).toBe('TransactionLost');
      expect(await value(1)).toBe(10);
    });

    it('goes on after an error that left the transaction alone', async () => {
      await store.transaction(KEY, async (tx) => {
        await bump(tx, 1);
        await expect(tx.query('INSERT INTO t (id, v) VALUES (1, 0)')).rejects.toMatchObject({ errno: 1062 });
        await bump(tx, 2);
      });
      expect([await value(1), await value(2)]).toEqual([11, 21]);
    });

    it('starts again after a deadlock only when asked, and not when something else was committed', async () => {
      let tries = 0;
      await store.transaction(
        KEY,
        async (tx) => {
          if (++tries === 1) await deadlock(tx, () => bump(tx, 2));
          else await bump(tx, 1);
        },
        { retries: 1 },
      );
      expect(tries).toBe(2);
      expect(await value(1)).toBe(11);

      tries = 0;
      const error = await failure(
        store.transaction(
          KEY,
          async (tx) => {
            tries++;
            await store.transaction(OTHER, (inner) => bump(inner, 3));
            await deadlock(tx, () => bump(tx, 2));
          },
          { retries: 5 },
        ),
      );
      expect(error.code).toBe('PartiallyExecuted');
      expect(tries).toBe(1);
      expect(await value(3)).toBe(31);
    });
  });

  describe('statements that end a transaction', () => {
    const refused = [
      'COMMIT',
      'commit and chain',
      'ROLLBACK',
      'START TRANSACTION',
      'BEGIN',
      '/* hint */ BEGIN WORK',
      '-- x\nCOMMIT',
      'SET autocommit = 1',
      'SET @a = 1, autocommit = 1',
      'SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED',
      'SET GLOBAL max_connections = 100',
      'CREATE TABLE t2 (id INT)',
      'DROP TABLE IF EXISTS t2',
      'TRUNCATE TABLE t',
      'ALTER TABLE t ADD COLUMN c INT',
      'LOCK TABLES t WRITE',
      'UNLOCK TABLES',
      "XA START 'x'",
      "XA PREPARE 'x'",
      'CALL commits()',
      "PREPARE p FROM 'COMMIT'",
      'EXECUTE p',
      '/*! COMMIT */',
      '/*!50000 COMMIT */',
      '/*M! COMMIT */',
      'UPDATE t SET v = 0; COMMIT',
      'SELECT 1; COMMIT',
      'ANALYZE TABLE t',
      'USE mysql',
      "LOAD DATA LOCAL INFILE '/dev/null' INTO TABLE t",
      'GRANT SELECT ON app.* TO app',
    ];

    it.each([false, true])(
      'are refused and leave it alone (multipleStatements: %s)',
      async (multipleStatements) => {
        await pool.end();
        usePool({ multipleStatements });
        await store.transaction(KEY, async (tx) => {
          await bump(tx, 1);
          for (const sql of refused) {
            for (const method of ['query', 'execute'] as const) {
              expect([sql, await codeOf(tx[method](sql))]).toEqual([sql, 'StatementRefused']);
            }
          }
          expect(await value(1)).toBe(10);
          // The fence lock is still held: a fence waits.
          await expect(
            dc.fence.change(
              {
                units: [UNIT],
                to: 'write_disabled',
                owner: 'dc-a',
                epoch: 1_000_000,
                holder: { workflowId: 'w', runId: 'r' },
              },
              { budgetMs: 50, blockers: 'give-up' },
            ),
          ).rejects.toMatchObject({ code: 'FenceBudgetExceeded' });
          await bump(tx, 2);
        });
        expect([await value(1), await value(2)]).toEqual([11, 21]);
      },
    );

    it('refuses a value that brings SQL of its own', async () => {
      const raw = { toSqlString: () => '1; COMMIT' };
      expect(
        await codeOf(store.transaction(KEY, (tx) => tx.query('UPDATE t SET v = ? WHERE id = 1', [raw]))),
      ).toBe('StatementRefused');
      expect(await codeOf(store.query('SELECT ?', [raw]))).toBe('StatementRefused');
      expect(await codeOf(store.query({ sql: 'SELECT ?', values: [raw] }))).toBe('StatementRefused');
    });

    it('allows savepoints, and keeps the fence lock over them', async () => {
      await store.transaction(KEY, async (tx) => {
        await tx.query('SAVEPOINT a');
        await bump(tx, 1);
        await tx.query('ROLLBACK TO SAVEPOINT a');
        await tx.query('ROLLBACK WORK TO a');
        await tx.query('RELEASE SAVEPOINT a');
        await expect(
          dc.fence.change(
            {
              units: [UNIT],
              to: 'write_disabled',
              owner: 'dc-a',
              epoch: 1_000_000,
              holder: { workflowId: 'w', runId: 'r' },
            },
            { budgetMs: 50, blockers: 'give-up' },
          ),
        ).rejects.toMatchObject({ code: 'FenceBudgetExceeded' });
        await bump(tx, 2);
      });
      expect([await value(1), await value(2)]).toEqual([10, 21]);
    });

    it('refuses statements after the callback has returned', async () => {
      let kept: FencedTransaction | undefined;
      await store.transaction(KEY, async (tx) => {
        kept = tx;
        await bump(tx, 1);
      });
      expect(await codeOf(bump(kept!, 1))).toBe('StatementRefused');
      expect(await value(1)).toBe(11);
    });

    it('waits for statements that the callback did not await', async () => {
      await store.transaction(KEY, async (tx) => {
        void bump(tx, 1);
        void bump(tx, 2);
      });
      expect([await value(1), await value(2)]).toEqual([11, 21]);
    });

    it('gives the connection back clean when COMMIT chains', async () => {
      await store.transaction(KEY, async (tx) => {
        await behindTheBack('SET SESSION completion_type = 1');
        await bump(tx, 1);
      });
      expect(await value(1)).toBe(11);
    });
  });

  describe('several units', () => {
    it('of different owners are CrossOwner, whatever their states', async () => {
      await dc.set(OTHER_UNIT, 'remote');
      const error = await failure(store.transaction([KEY, OTHER], (tx) => bump(tx, 1)));
      expect(error).toMatchObject({
        code: 'CrossOwner',
        details: { owners: { [UNIT]: 'dc-a', [OTHER_UNIT]: 'dc-b' } },
      });
      expect(await value(1)).toBe(10);
    });

    it('of one other owner are NotOwner', async () => {
      await dc.set(UNIT, 'remote');
      await dc.set(OTHER_UNIT, 'remote');
      expect(await codeOf(store.transaction([KEY, OTHER], (tx) => bump(tx, 1)))).toBe('NotOwner');
    });

    it('one added after a read starts the transaction again: it never computes from before the hand-over', async () => {
      await dc.set(OTHER_UNIT, 'remote');
      const seen: number[] = [];
      let tries = 0;
      await store.transaction(KEY, async (tx) => {
        const read = async (): Promise<number> =>
          Number((await tx.query<RowDataPacket[]>('SELECT v FROM t WHERE id = 3'))[0][0]!['v']);
        seen.push(await read());
        if (++tries === 1) {
          // The other DC writes the row, it is replicated, and the unit is handed over to this one.
          await dc.admin.query('UPDATE app.t SET v = 300 WHERE id = 3');
          await dc.set(OTHER_UNIT, 'open');
        }
        await tx.addUnit(OTHER);
        const v = await read();
        seen.push(v);
        expect(tx.units).toEqual([OTHER_UNIT, UNIT]);
        await tx.query('UPDATE t SET v = ? WHERE id = 3', [v + 1]);
      });
      expect(tries).toBe(2);
      expect(seen).toEqual([30, 300, 300]);
      expect(await value(3)).toBe(301);
    });

    it('one added after a read starts again even when the callback swallows the signal', async () => {
      let tries = 0;
      await store.transaction(KEY, async (tx) => {
        tries++;
        await tx.query('SELECT 1');
        await tx.addUnit(OTHER).catch(() => undefined);
        await bump(tx, 1).catch(() => undefined);
      });
      expect(tries).toBe(2);
      expect(await value(1)).toBe(11);
    });

    it('one added before the first statement is locked in place', async () => {
      let tries = 0;
      await store.transaction(KEY, async (tx) => {
        tries++;
        await tx.addUnit(OTHER);
        await tx.addUnit(KEY);
        expect(tx.units).toEqual([OTHER_UNIT, UNIT]);
        await bump(tx, 1);
        await expect(
          dc.fence.change(
            {
              units: [OTHER_UNIT],
              to: 'write_disabled',
              owner: 'dc-a',
              epoch: 1_000_000,
              holder: { workflowId: 'w', runId: 'r' },
            },
            { budgetMs: 50, blockers: 'give-up' },
          ),
        ).rejects.toMatchObject({ code: 'FenceBudgetExceeded' });
      });
      expect(tries).toBe(1);
    });

    it('one added that belongs to the other DC ends the transaction', async () => {
      await dc.set(OTHER_UNIT, 'remote');
      const early = store.transaction(KEY, async (tx) => {
        await tx.addUnit(OTHER).catch(() => undefined);
        await bump(tx, 1);
      });
      expect(await codeOf(early)).toBe('CrossOwner');
      const late = store.transaction(KEY, async (tx) => {
        await bump(tx, 1);
        await tx.addUnit(OTHER);
      });
      expect(await codeOf(late)).toBe('CrossOwner');
      expect(await value(1)).toBe(10);
    });
  });

  describe('mapping and identity', () => {
    it('refuses a mapping of another version, after one refresh of the rules', async () => {
      await dc.admin.query('UPDATE interlock.unit_state SET mapping_version = 2 WHERE unit = ?', [UNIT]);
      let refreshes = 0;
      rules.refresh = async () => {
        refreshes++;
        return rules.current();
      };
      expect(await failure(store.transaction(KEY, (tx) => bump(tx, 1)))).toMatchObject({
        code: 'StaleMapping',
        details: { unit: UNIT, owner: 'dc-a' },
      });
      expect(refreshes).toBe(1);
      expect(await value(1)).toBe(10);
    });

    it('writes by the refreshed mapping: a user that became a member of a segment', async () => {
      await dc.admin.query('UPDATE interlock.unit_state SET mapping_version = 2 WHERE unit = ?', [UNIT]);
      const newer = testRules(2, {
        mappingVersion: 2,
        unitMappingVersions: { [UNIT]: 2, 'segment:vip': 2 },
        segments: { vip: { owner: 'dc-a', state: 'open', members: [KEY.userId] } },
      });
      await dc.admin.query(
        'REPLACE INTO interlock.unit_state SELECT ?, state, owner, epoch, 2, server, NULL, NULL FROM interlock.unit_state WHERE unit = ?',
        ['segment:vip', UNIT],
      );
      rules.refresh = async () => {
        rules.set(newer);
        return rules.current();
      };
      await store.transaction(KEY, async (tx) => {
        expect(tx.units).toEqual(['segment:vip']);
        await bump(tx, 1);
      });
      expect(await value(1)).toBe(11);
    });

    it('refuses a server on which the state was not asserted', async () => {
      await dc.admin.query("UPDATE interlock.unit_state SET server = 'another' WHERE unit = ?", [UNIT]);
      try {
        expect(await failure(store.transaction(KEY, (tx) => bump(tx, 1)))).toMatchObject({
          code: 'ServerIdentityChanged',
          details: { server: 'another' },
        });
        expect(await value(1)).toBe(10);
      } finally {
        await dc.admin.query('UPDATE interlock.unit_state SET server = ? WHERE unit = ?', [
          await dc.fence.identity(),
          UNIT,
        ]);
      }
    });

    it('says what is missing when the control schema cannot be read', async () => {
      await dc.admin.query("REVOKE SELECT ON interlock.unit_state FROM 'app'@'127.0.0.1'");
      try {
        const error = await failure(store.transaction(KEY, (tx) => bump(tx, 1)));
        expect(error.code).toBe('Refused');
        expect(error.message).toContain('SELECT on interlock.unit_state');
      } finally {
        await dc.admin.query("GRANT SELECT ON interlock.unit_state TO 'app'@'127.0.0.1'");
      }
    });
  });

  describe('lost connections and time', () => {
    it('answers with the fence that killed it, not with the lost connection', async () => {
      const error = await failure(
        store.transaction(KEY, async (tx) => {
          await bump(tx, 1);
          await dc.fence.change(
            {
              units: [UNIT],
              to: 'write_disabled',
              owner: 'dc-a',
              epoch: (await dc.fence.highestEpoch()) + 1,
              holder: { workflowId: 'test', runId: 'test' },
            },
            { budgetMs: 50, blockers: 'kill' },
          );
          await bump(tx, 1);
        }),
      );
      expect(error.code).toBe('WriteDisabled');
      expect(await value(1)).toBe(10);
    });

    it('is TransactionLost when the connection is killed for another reason', async () => {
      const error = await failure(
        store.transaction(KEY, async (tx) => {
          await bump(tx, 1);
          await dc.admin.query(`KILL ${lastConnection.threadId}`);
          await pause(50);
          await bump(tx, 1);
        }),
      );
      expect(error.code).toBe('TransactionLost');
      expect(await value(1)).toBe(10);
    });

    it('is CommitUnknown when the connection is lost during COMMIT, and is not tried again', async () => {
      const blocker = await dc.admin.getConnection();
      let tries = 0;
      let locked: Promise<unknown> | undefined;
      try {
        const error = await failure(
          store.transaction(
            KEY,
            async (tx) => {
              tries++;
              await bump(tx, 1);
              // A global read lock stops COMMIT (MariaDB: the backup stage that does).
              if (flavour === 'mysql') await blocker.query('FLUSH TABLES WITH READ LOCK');
              else {
                await blocker.query('BACKUP STAGE START');
                await blocker.query('BACKUP STAGE BLOCK_COMMIT');
              }
              locked = pause(200).then(() => dc.admin.query(`KILL ${lastConnection.threadId}`));
            },
            { retries: 5 },
          ),
        );
        expect(error.code).toBe('CommitUnknown');
        expect(error.retryable).toBe(false);
        expect(tries).toBe(1);
      } finally {
        await locked;
        await blocker.query(flavour === 'mysql' ? 'UNLOCK TABLES' : 'BACKUP STAGE END');
        blocker.release();
      }
    });

    it('ends at its time-out, in a statement, outside of one, and while it waits for a connection', async () => {
      const holder = await dc.admin.getConnection();
      await holder.query('START TRANSACTION');
      await holder.query('UPDATE app.t SET v = v WHERE id = 2');
      try {
        const started = Date.now();
        expect(await codeOf(store.transaction(KEY, (tx) => bump(tx, 2), { timeoutMs: 200 }))).toBe(
          'TransactionLost',
        );
        expect(
          await codeOf(store.transaction(KEY, () => new Promise(() => undefined), { timeoutMs: 200 })),
        ).toBe('TransactionLost');
        expect(Date.now() - started).toBeLessThan(2_000);
      } finally {
        await holder.query('ROLLBACK');
        holder.release();
      }
      const taken = await Promise.all(Array.from({ length: 5 }, () => pool.getConnection()));
      expect(await codeOf(store.transaction(KEY, (tx) => bump(tx, 2), { timeoutMs: 100 }))).toBe(
        'TransactionLost',
      );
      for (const connection of taken) connection.release();
      await store.transaction(KEY, (tx) => bump(tx, 2));
      expect(await value(2)).toBe(21);
    });

    it('ends when its signal is aborted', async () => {
      const abort = new AbortController();
      const running = store.transaction(
        KEY,
        async (tx) => {
          await bump(tx, 1);
          abort.abort(new Error('shutting down'));
          await pause(10);
          await bump(tx, 1);
        },
        { signal: abort.signal },
      );
      expect(await codeOf(running)).toBe('TransactionLost');
      expect(await value(1)).toBe(10);
    });

    it('takes another connection when a pooled one is dead', async () => {
      await store.transaction(KEY, (tx) => bump(tx, 1));
      await dc.admin.query(`KILL ${lastConnection.threadId}`);
      await store.transaction(KEY, (tx) => bump(tx, 1));
      expect(await value(1)).toBe(12);
    });
  });

  describe('outside of a transaction', () => {
    it.each([
      'UPDATE t SET v = 0',
      'INSERT INTO t (id, v) VALUES (9, 9)',
      'DELETE FROM t',
      'REPLACE INTO t (id, v) VALUES (1, 1)',
      'WITH x AS (SELECT 1) DELETE FROM t',
      'SELECT * FROM t FOR UPDATE',
      'SELECT v FROM t WHERE id = 1 INTO @v',
      '/* a */ (SELECT * FROM t FOR UPDATE)',
      'EXPLAIN ANALYZE DELETE FROM t',
      'CALL commits()',
      'SET autocommit = 0',
      'START TRANSACTION',
      '/*! DELETE */ FROM t',
      'SELECT 1; DELETE FROM t',
    ])('%s is refused', async (sql) => {
      const error = await failure(store.query(sql));
      expect(error.code).toBe('StatementRefused');
      expect(error.message).toContain('transaction(');
      expect(await value(1)).toBe(10);
    });

    it.each([false, true])(
      'a function that writes is refused by the server (multipleStatements: %s)',
      async (multipleStatements) => {
        await pool.end();
        usePool({ multipleStatements });
        expect(await codeOf(store.query('SELECT writes()'))).toBe('StatementRefused');
        expect(await codeOf(store.execute('SELECT app.writes() + ?', [1]))).toBe('StatementRefused');
        expect(await value(1)).toBe(10);
      },
    );

    it('reads, with values, shapes and types as the pool has them', async () => {
      const [rows] = await store.query<RowDataPacket[]>(
        'SELECT id, COUNT(*) OVER () AS n FROM t WHERE id > ? ORDER BY id',
        [1],
      );
      expect(rows).toEqual([
        { id: 2, n: 2 },
        { id: 3, n: 2 },
      ]);
      const [arrays] = await store.query<RowDataPacket[]>({ sql: 'SELECT id FROM t', rowsAsArray: true });
      expect(arrays).toEqual([[1], [2], [3]]);
      const [prepared] = await store.execute<RowDataPacket[]>('SELECT v FROM t WHERE id = ?', [3]);
      expect(prepared).toEqual([{ v: 30 }]);
      const [shown] = await store.query<RowDataPacket[]>('SHOW TABLES');
      expect(shown).toHaveLength(1);
      const [cte] = await store.query<RowDataPacket[]>(
        'WITH x AS (SELECT MAX(v) AS m FROM t) SELECT m FROM x',
      );
      expect(cte).toEqual([{ m: 30 }]);
    });
  });

  it('takes pools of mysql2 and of mysql2/promise, and nothing else', async () => {
    const core = (pool as unknown as { pool: never }).pool;
    await interlock.mysql(core).transaction(KEY, (tx) => bump(tx, 1));
    expect(await value(1)).toBe(11);
    expect(() => interlock.mysql({} as never)).toThrow(/pool/);
  });

  it('is immune to the settings of a pool', async () => {
    await pool.end();
    usePool({
      namedPlaceholders: true,
      rowsAsArray: true,
      supportBigNumbers: true,
      bigNumberStrings: true,
      dateStrings: true,
      typeCast: () => 'cast',
    });
    await store.transaction([KEY, { central: 'coupons' }], async (tx) => {
      expect(tx.epochs.size).toBe(2);
      await tx.query('UPDATE t SET v = :v WHERE id = :id', { v: 5, id: 1 });
    });
    expect(await value(1)).toBe(5);
  });

  it('names bad input', async () => {
    const bad: [unknown, string][] = [
      [{ userId: '' }, 'userId'],
      [{ userId: 7 }, 'userId'],
      [{ userId: 'u', region: 'nowhere' }, 'region'],
      [{ unit: 'nonsense' }, 'unit'],
      [{ unit: "x' OR 1" }, 'unit'],
      [{ central: 'No Such' }, 'central'],
      [[], 'key'],
    ];
    for (const [key, field] of bad) {
      expect(await failure(store.transaction(key as never, async () => undefined))).toMatchObject({
        code: 'BadInput',
        details: { field },
      });
    }
    expect(await failure(store.transaction(async () => undefined))).toMatchObject({ code: 'BadInput' });
  });

  it('a connection of the store is fenced as the store is, and has no transactions of its own', async () => {
    const connection = await store.getConnection();
    const write = (value: number) => connection.execute('UPDATE app.t SET v = ? WHERE id = 1', [value]);
    expect(await codeOf(write(11))).toBe('StatementRefused');
    await interlock.run(KEY, () => write(12));
    await dc.set(UNIT, 'write_disabled');
    expect(await codeOf(interlock.run(KEY, () => write(13)))).toBe('WriteDisabled');
    for (const method of ['beginTransaction', 'commit', 'rollback'] as const) {
      const refusal = await failure(connection[method]());
      expect(refusal.code).toBe('StatementRefused');
      expect(refusal.message).toContain('.transaction(');
    }
    const [found] = await connection.query<RowDataPacket[]>('SELECT v FROM app.t WHERE id = ?', [1]);
    expect(found).toEqual([{ v: 12 }]);
    connection.release();
  });

  it('formats as its pool does, and ends it', async () => {
    expect(store.format('SELECT ?, ??', ["a'b", 'c`d'])).toBe(pool.format('SELECT ?, ??', ["a'b", 'c`d']));
    expect([store.escape("a'b"), store.escapeId('c`d')]).toEqual([pool.escape("a'b"), pool.escapeId('c`d')]);
    const other = interlock.mysql(dc.pool());
    await other.query('SELECT 1');
    await other.end();
    expect(await codeOf(other.query('SELECT 1'))).toBe('Unavailable');
  });
});
