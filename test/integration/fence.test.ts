import type { RowDataPacket } from 'mysql2/promise';
import { FenceStore, UNITS_PER_STATEMENT } from '../../src/fence/fence-store.js';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { isInterlockError } from '../../src/errors.js';
import type { InterlockError } from '../../src/errors.js';
import type { Blocker } from '../../src/fence/types.js';
import {
  buckets,
  fenceChange,
  openChange,
  remoteChange,
  rulesAt,
  RUN_1,
  RUN_2,
  startFence,
  testRules,
} from './fence-fixture.js';
import type { FenceFixture } from './fence-fixture.js';

/** The InterlockError of a promise that must fail with `code`. */
async function failure(promise: Promise<unknown>, code: InterlockError['code']): Promise<InterlockError> {
  const error = await promise.then(
    () => undefined,
    (e: unknown) => e,
  );
  expect(isInterlockError(error) ? error.code : error).toBe(code);
  return error as InterlockError;
}

describe.each(['mysql', 'mariadb'] as const)('fence on %s', (flavour) => {
  let f: FenceFixture;
  beforeAll(async () => {
    f = await startFence(flavour);
  });
  afterAll(async () => {
    await f.stop();
  });
  beforeEach(async () => {
    await f.reset();
  });

  const stateOf = async (unit: string): Promise<string> => {
    const [row] = await f.fence.states([unit]);
    return `${row!.state} of ${row!.owner} at ${row!.epoch}`;
  };

  describe('changes', () => {
    it('fences, hands over, opens; the marker and the rules are in the same commit', async () => {
      const units = buckets(100);
      const marker = { id: 'm1', workflowId: RUN_1.workflowId, runId: RUN_1.runId, epoch: 2 };
      const result = await f.fence.change(fenceChange(units, 2, RUN_1, { marker, rules: rulesAt(2) }));
      expect(result).toMatchObject({ changed: true, blockers: [] });
      expect(result.server).toBe(await f.fence.identity());
      expect(await stateOf('cn-east/7')).toBe('write_disabled of dc-a at 2');
      expect(await stateOf('cn-east/100')).toBe('open of dc-a at 1');
      expect(await f.rules.highestEpoch()).toBe(2);
      const [markers] = await f.pool.query<RowDataPacket[]>('SELECT id FROM interlock.marker');
      expect(markers.map((row) => String(row['id']))).toEqual(['m1']);
      await f.fence.change(remoteChange(units, 3));
      expect(await stateOf('cn-east/7')).toBe('remote of dc-b at 3');
      await f.fence.change(openChange(units, 4));
      expect(await stateOf('cn-east/7')).toBe('open of dc-a at 4');
    });

    it('moves 900 units at once', async () => {
      await f.fence.change(fenceChange(buckets(900), 2));
      const states = await f.fence.states();
      expect(states.filter((s) => s.state === 'write_disabled')).toHaveLength(900);
      expect(states.filter((s) => s.epoch === 2)).toHaveLength(900);
    });

    it('answers a repeat with changed: false and writes nothing', async () => {
      const marker = { id: 'm1', workflowId: RUN_1.workflowId, runId: RUN_1.runId, epoch: 2 };
      const change = fenceChange(buckets(3), 2, RUN_1, { marker, rules: rulesAt(2) });
      const first = await f.fence.change(change);
      const again = await f.fence.change(change);
      expect(again.changed).toBe(false);
      expect(again.position).toBe(first.position);
    });

    it('refuses a lower epoch, and the same epoch with other content', async () => {
      await f.fence.change(fenceChange(buckets(3), 5));
      await failure(f.fence.change(openChange(buckets(3), 4)), 'StaleEpoch');
      await failure(f.fence.change(openChange(buckets(3), 5)), 'EpochConflict');
      await failure(f.fence.change(fenceChange(buckets(3), 5, RUN_2)), 'EpochConflict');
      expect(await stateOf('cn-east/0')).toBe('write_disabled of dc-a at 5');
    });
  });

  describe('rules', () => {
    it('keep an epoch once, and only grow', async () => {
      expect(await f.rules.publish(rulesAt(3))).toMatchObject({ changed: true });
      expect(await f.rules.publish(rulesAt(3))).toMatchObject({ changed: false });
      await failure(f.rules.publish(rulesAt(3, 'other')), 'EpochConflict');
      await failure(f.rules.publish(rulesAt(2)), 'StaleEpoch');
      expect((await f.rules.current())?.rules.epoch).toBe(3);
      expect((await f.rules.at(1))?.rules).toEqual(testRules());
    });
  });

  describe('transactions in flight', () => {
    it('a conflict with a fence in progress, or a closed state, shows at once (NOWAIT is the check)', async () => {
      const [writer, other] = [await f.connect(), await f.connect()];
      await writer.query('START TRANSACTION');
      expect(await f.lockShared(writer, 'cn-east/1')).toBe('open');
      const fencing = f.fence.change(fenceChange(buckets(3), 2), { budgetMs: 5_000, blockers: 'give-up' });
      await waitUntil(async () => typeof (await f.lockShared(other, 'cn-east/1')) === 'number');
      const started = performance.now();
      const conflict = await f.lockShared(other, 'cn-east/1');
      expect(performance.now() - started).toBeLessThan(500);
      expect(conflict).toBe(flavour === 'mysql' ? 3572 : 1205);
      await writer.query('COMMIT');
      expect((await fencing).changed).toBe(true);
      expect(await f.lockShared(other, 'cn-east/1')).toBe('write_disabled');
    });

    it('waits for a transaction in flight within the budget, and commits behind it', async () => {
      const writer = await f.connect();
      await writer.query('START TRANSACTION');
      await f.lockShared(writer, 'cn-east/1');
      await writer.query("INSERT INTO app.entry (unit, note) VALUES ('cn-east/1', 'in flight')");
      let committed = false;
      const fencing = f.fence.change(fenceChange(buckets(3), 2), { budgetMs: 5_000, blockers: 'kill' });
      const watched = fencing.then((result) => ({ result, committed }));
      await sleep(200);
      committed = true;
      await writer.query('COMMIT');
      const { result, committed: before } = await watched;
      expect(before).toBe(true);
      expect(result.blockers).toEqual([]);
      expect(result.waitedMs).toBeGreaterThan(150);
    });

    it('gives up past the budget, names who held it up, and changes nothing', async () => {
      const writer = await f.connect();
      await writer.query('START TRANSACTION');
      await f.lockShared(writer, 'cn-east/1');
      const started = performance.now();
      const marker = { id: 'm1', workflowId: RUN_1.workflowId, runId: RUN_1.runId, epoch: 2 };
      const error = await failure(
        f.fence.change(fenceChange(buckets(3), 2, RUN_1, { marker, rules: rulesAt(2) }), {
          budgetMs: 150,
          blockers: 'give-up',
        }),
        'FenceBudgetExceeded',
      );
      expect(performance.now() - started).toBeLessThan(1_500);
      const blockers = error.details['blockers'] as Blocker[];
      expect(blockers).toHaveLength(1);
      expect(blockers[0]).toMatchObject({ connectionId: writer.threadId, user: 'root', killed: false });
      expect(Math.abs(Date.parse(blockers[0]!.since) - Date.now())).toBeLessThan(10_000);
      if (flavour === 'mysql') expect(blockers[0]!.statement).toContain('unit_state');
      expect(await stateOf('cn-east/0')).toBe('open of dc-a at 1');
      expect(await f.rules.highestEpoch()).toBe(1);
      await writer.query('COMMIT');
      // The session that was interrupted must not leave a lock behind.
      expect((await f.fence.change(fenceChange(buckets(3), 2))).changed).toBe(true);
    });

    it('kills what outlives the budget, on every unit, and goes on', async () => {
      const writers = [await f.connect(), await f.connect(), await f.connect()];
      for (const [i, writer] of writers.entries()) {
        await writer.query('START TRANSACTION');
        await f.lockShared(writer, `cn-east/${i}`);
        await writer.query('INSERT INTO app.entry (unit, note) VALUES (?, ?)', [`cn-east/${i}`, 'never']);
      }
      const result = await f.fence.change(fenceChange(buckets(3), 2), { budgetMs: 100, blockers: 'kill' });
      expect(result.changed).toBe(true);
      expect(result.blockers.map((b) => b.killed)).toEqual([true, true, true]);
      expect(result.blockers.map((b) => b.connectionId).sort()).toEqual(
        writers.map((w) => w.threadId).sort(),
      );
      expect(result.waitedMs).toBeLessThan(1_500);
      await expect(writers[0]!.query('COMMIT')).rejects.toThrow();
      const [rows] = await f.pool.query<RowDataPacket[]>('SELECT * FROM app.entry');
      expect(rows).toEqual([]);
    });

    it('does not wait for transactions of other units (READ COMMITTED, ranges of the primary key)', async () => {
      const writer = await f.connect();
      await writer.query('START TRANSACTION');
      await f.lockShared(writer, 'cn-east/950');
      await f.lockShared(writer, 'cn-west/0');
      await f.lockShared(writer, 'segment:vip');
      for (const [i, units] of [buckets(100), buckets(900)].entries()) {
        const result = await f.fence.change(fenceChange(units, 2 + i), {
          budgetMs: 2_000,
          blockers: 'give-up',
        });
        expect(result.waitedMs).toBeLessThan(1_000);
        expect(result.blockers).toEqual([]);
      }
      // At REPEATABLE READ a plan that scans would wait for every row: the session must not be at it whatever the plan is.
      let isolation: unknown[] = [];
      await f.fence.change(fenceChange(buckets(2), 9), undefined, {
        beforeCommit: async () => {
          const [trx] = await f.pool.query<RowDataPacket[]>(
            'SELECT trx_isolation_level AS level FROM information_schema.innodb_trx WHERE trx_mysql_thread_id <> ?',
            [writer.threadId],
          );
          isolation = trx.map((row) => row['level'] as unknown);
        },
      });
      expect(isolation).toEqual(['READ COMMITTED']);
      // And the fence's locks are of its own units only.
      const other = await f.connect();
      expect(await f.lockShared(other, 'cn-east/951')).toBe('open');
    });

    it('locks the rows of many units by ranges of the primary key, not by a scan', async () => {
      for (const count of [1, 10, UNITS_PER_STATEMENT]) {
        for (const statement of [
          'SELECT unit FROM interlock.unit_state FORCE INDEX (PRIMARY) WHERE unit IN (?) ORDER BY unit FOR UPDATE',
          "UPDATE interlock.unit_state FORCE INDEX (PRIMARY) SET state = 'remote' WHERE unit IN (?)",
        ]) {
          const [rows] = await f.pool.query<RowDataPacket[]>(`EXPLAIN ${statement}`, [buckets(count)]);
          expect(rows[0]).toMatchObject({ key: 'PRIMARY' });
          expect(['range', 'const']).toContain(rows[0]!['type']);
        }
      }
    });

    it('two fences of crossing units take turns', async () => {
      const results = await Promise.allSettled([
        f.fence.change(fenceChange(buckets(50), 2)),
        f.fence.change(fenceChange(buckets(50).reverse(), 3, RUN_2)),
        f.fence.change(fenceChange(buckets(50), 2)),
      ]);
      expect(results.some((r) => r.status === 'fulfilled')).toBe(true);
      const states = await f.fence.states(buckets(50));
      expect(new Set(states.map((s) => s.epoch)).size).toBe(1);
    });
  });

  describe('late and doubled operations', () => {
    it('a fence that comes after the compensation is refused', async () => {
      await f.fence.reopen(openChange(buckets(3), 4));
      await failure(f.fence.change(fenceChange(buckets(3), 2)), 'StaleEpoch');
      expect(await stateOf('cn-east/0')).toBe('open of dc-a at 4');
    });

    it('an open that comes after the compensation is refused', async () => {
      const units = buckets(3, 0, 'cn-west');
      await f.fence.raise({ units, to: 'remote', owner: 'dc-b', epoch: 4, holder: RUN_1 });
      await failure(f.fence.change(openChange(units, 3)), 'StaleEpoch');
      expect(await stateOf('cn-west/0')).toBe('remote of dc-b at 4');
    });

    it('a compensation that comes after the open is AlreadySwitched', async () => {
      const units = buckets(3, 0, 'cn-west');
      await f.fence.change(openChange(units, 3));
      await failure(
        f.fence.raise({ units, to: 'remote', owner: 'dc-b', epoch: 4, holder: RUN_1 }),
        'AlreadySwitched',
      );
      expect(await stateOf('cn-west/0')).toBe('open of dc-a at 3');
    });

    it('opening again what was handed over is AlreadySwitched', async () => {
      await f.fence.change(fenceChange(buckets(3), 2));
      await f.fence.change(remoteChange(buckets(3), 3));
      await failure(f.fence.reopen(openChange(buckets(3), 4)), 'AlreadySwitched');
    });

    it('the same change twice at once is carried out once', async () => {
      const marker = { id: 'm1', workflowId: RUN_1.workflowId, runId: RUN_1.runId, epoch: 2 };
      const change = fenceChange(buckets(100), 2, RUN_1, { marker, rules: rulesAt(2) });
      const results = await Promise.all([
        f.fence.change(change),
        f.fence.change(change),
        f.fence.change(change),
      ]);
      expect(results.filter((r) => r.changed)).toHaveLength(1);
    });

    it('a fenced unit is not fenced where it is remote', async () => {
      await f.fence.change(fenceChange(buckets(3), 2));
      await f.fence.change(remoteChange(buckets(3), 3));
      await failure(f.fence.change(fenceChange(buckets(3), 4)), 'NotOwner');
    });

    it('nothing is half changed when one unit of many is refused', async () => {
      await f.fence.change(fenceChange(['cn-east/5'], 7));
      await failure(f.fence.change(fenceChange(buckets(10), 6, RUN_1, { rules: rulesAt(6) })), 'StaleEpoch');
      expect(await stateOf('cn-east/0')).toBe('open of dc-a at 1');
      expect(await f.rules.highestEpoch()).toBe(1);
    });

    it('a hook that fails before the commit changes nothing', async () => {
      const refused = f.fence.change(fenceChange(buckets(2), 2), undefined, {
        beforeCommit: async (rows) => {
          expect(rows.map((row) => row.state)).toEqual(['open', 'open']);
          throw new Error('no');
        },
      });
      await expect(refused).rejects.toThrow('no');
      expect(await stateOf('cn-east/0')).toBe('open of dc-a at 1');
    });
  });

  describe('holders', () => {
    it('another run is refused, until it says whom it takes over from', async () => {
      await f.fence.change(fenceChange(buckets(3), 2, RUN_1));
      const error = await failure(f.fence.change(openChange(buckets(3), 3, RUN_2)), 'HeldByOther');
      expect(error.details['holder']).toEqual(RUN_1);
      await failure(
        f.fence.change(
          openChange(buckets(3), 3, RUN_2, {
            takeOverFrom: { workflowId: 'switchover/test', runId: 'run-0' },
          }),
        ),
        'HeldByOther',
      );
      await f.fence.change(fenceChange(buckets(3), 3, RUN_2, { takeOverFrom: RUN_1 }));
      // The old run's late operations fail on the higher epoch, and on the holder.
      await failure(f.fence.change(openChange(buckets(3), 3, RUN_1)), 'EpochConflict');
      await failure(f.fence.change(openChange(buckets(3), 2, RUN_1)), 'StaleEpoch');
      await failure(f.fence.change(openChange(buckets(3), 9, RUN_1)), 'HeldByOther');
      await f.fence.change(openChange(buckets(3), 4, RUN_2));
    });
  });

  describe('the server', () => {
    it('forgot: rows that were asserted on another server are refused until they are re-asserted', async () => {
      await f.pool.query("UPDATE interlock.unit_state SET server = 'another' WHERE unit LIKE 'cn-east/%'");
      await failure(f.fence.change(fenceChange(buckets(3), 2)), 'ServerIdentityChanged');
      await failure(f.fence.change(openChange(buckets(3), 2)), 'ServerIdentityChanged');
      const { written, server } = await f.fence.reassert(rulesAt(2));
      expect(written).toHaveLength(1000);
      expect(server).toBe(await f.fence.identity());
      expect(await stateOf('cn-east/0')).toBe('open of dc-a at 2');
      expect(await stateOf('cn-west/0')).toBe('remote of dc-b at 1');
      expect((await f.fence.change(fenceChange(buckets(3), 3))).changed).toBe(true);
    });

    it('is not re-asserted by rules that are older than its rows, or that forgot a fence', async () => {
      await f.fence.change(fenceChange(buckets(3), 5));
      await f.pool.query("UPDATE interlock.unit_state SET server = 'another'");
      await failure(f.fence.reassert(rulesAt(4)), 'StaleEpoch');
      await failure(f.fence.reassert(rulesAt(5)), 'EpochConflict');
      expect((await f.fence.states(['cn-east/0']))[0]).toMatchObject({
        state: 'write_disabled',
        server: 'another',
      });
    });

    it('init adds what is missing and overwrites nothing', async () => {
      await f.fence.change(fenceChange(buckets(3), 5));
      await f.pool.query("DELETE FROM interlock.unit_state WHERE unit = 'cn-east/500'");
      const { written } = await f.fence.addMissing(testRules());
      expect(written).toEqual(['cn-east/500']);
      expect(await stateOf('cn-east/0')).toBe('write_disabled of dc-a at 5');
    });

    it('holds a prepared XA transaction: not confirmed until it is gone', async () => {
      const xa = await f.connect();
      await xa.query("XA START 'x1'");
      await f.lockShared(xa, 'cn-east/1');
      await xa.query("INSERT INTO app.entry (unit, note) VALUES ('cn-east/1', 'late')");
      await xa.query("XA END 'x1'");
      await xa.query("XA PREPARE 'x1'");
      expect(await f.fence.preparedXa()).toEqual(['x1']);
      await failure(
        f.fence.change(fenceChange(buckets(3), 2), { budgetMs: 100, blockers: 'kill' }),
        'FenceBudgetExceeded',
      );
      expect(await stateOf('cn-east/0')).toBe('open of dc-a at 1');
      const again = f.fence.change(fenceChange(buckets(3), 2), { budgetMs: 5_000, blockers: 'give-up' });
      await sleep(100);
      await xa.query("XA ROLLBACK 'x1'");
      expect((await again).changed).toBe(true);
    });

    it('whose client is silent with the rows locked is ended by the server, and done when it wakes', async () => {
      const { fence, pool, flavour } = { fence: f.fence, pool: f.pool, flavour: f.fence.flavour };
      const silent = new FenceStore({
        dc: fence.dc,
        store: fence.store,
        pool,
        flavour,
        abandonedAfterSeconds: 1,
      });
      const application = await f.connect();
      const seen: unknown[] = [];
      const change = silent.change(fenceChange(buckets(3), 2), undefined, {
        beforeCommit: onceOnly(async () => {
          for (
            let state: unknown = 0;
            state !== 'open';
            state = await f.lockShared(application, 'cn-east/0')
          ) {
            seen.push(state);
            await sleep(100);
          }
          await application.rollback();
        }),
      });
      expect((await change).changed).toBe(true);
      expect(seen.length).toBeGreaterThan(1);
      expect(await stateOf('cn-east/0')).toBe('write_disabled of dc-a at 2');
      const [rows] = await pool.query<RowDataPacket[]>('SELECT @@session.wait_timeout AS seconds');
      expect(Number(rows[0]!['seconds'])).toBeGreaterThan(1);
    });

    it('lost the connection: the change is repeated and done once', async () => {
      const sabotage = f.fence.change(fenceChange(buckets(3), 2), undefined, {
        beforeCommit: onceOnly(async () => {
          const [rows] = await f.pool.query<RowDataPacket[]>(
            'SELECT trx_mysql_thread_id AS id FROM information_schema.innodb_trx',
          );
          for (const row of rows) await f.pool.query(`KILL ${Number(row['id'])}`);
        }),
      });
      expect((await sabotage).changed).toBe(true);
      expect(await stateOf('cn-east/0')).toBe('write_disabled of dc-a at 2');
    });

    it('that is down is Unavailable, and retryable', async () => {
      await f.server.kill('SIGKILL');
      try {
        const error = await failure(f.fence.change(fenceChange(buckets(3), 2)), 'Unavailable');
        expect(error.retryable).toBe(true);
        await failure(f.rules.current(), 'Unavailable');
      } finally {
        await f.server.restart();
      }
    });
  });

  it('refuses what makes no sense before it asks the server', async () => {
    await failure(f.fence.change(fenceChange([], 2)), 'BadInput');
    await failure(f.fence.change(fenceChange(buckets(1), 0)), 'BadInput');
    await failure(f.fence.change({ ...openChange(buckets(1), 2), owner: 'dc-b' }), 'BadInput');
    await failure(f.fence.change({ ...remoteChange(buckets(1), 2), owner: 'dc-a' }), 'BadInput');
    await failure(f.fence.change(fenceChange(buckets(1), 2, RUN_1, { rules: rulesAt(3) })), 'BadInput');
    await failure(f.fence.change(fenceChange(['cn-north/1'], 2)), 'Refused');
  });
});

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

async function waitUntil(condition: () => Promise<boolean>): Promise<void> {
  const deadline = Date.now() + 5_000;
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error('not within 5 s');
    await sleep(5);
  }
}

function onceOnly(action: () => Promise<void>): () => Promise<void> {
  let done = false;
  return async () => {
    if (done) return;
    done = true;
    await action();
  };
}
