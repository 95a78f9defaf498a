import { format } from 'mysql2/promise';
import type { Pool, PoolConnection, RowDataPacket } from 'mysql2/promise';
import { BlockerWatch } from './blockers.js';
import { identityExpression } from './flavour.js';
import type { Flavour } from './flavour.js';
import { ER_LOCK_WAIT_TIMEOUT, errnoOf, isInterrupted } from './mysql-errors.js';
import { ABANDONED_AFTER_SECONDS, FORGIVING, ask, bounds, openSession } from './session.js';
import type { Blocker, FenceBudget, UnitChange } from './types.js';

/** `read_only` of a server, and what Interlock wants it to be. */
export interface ReadOnlyView {
  on: boolean;
  /** It would refuse Interlock's own marker, too. */
  superOn: boolean;
  /** Interlock write-disabled the whole data center on this server, and nothing was opened in it since. */
  wanted: boolean;
  /** The epoch at which Interlock wanted it so; null: it never did on this server. */
  epoch: number | null;
  /** Interlock has turned it off, or is about to: it is not on for somebody else's reason. */
  settled: boolean;
}

/** The SET waited for statements and table locks beyond the budget; `read_only` is as it was. */
export class ReadOnlyBlocked extends Error {
  constructor(readonly blockers: Blocker[]) {
    super('read_only waits for statements and table locks');
    this.name = 'ReadOnlyBlocked';
  }
}

/** Every SET runs under this lock and to what the record says at that moment: a late one cannot undo a newer one. */
const LOCK = 'interlock.read_only';
const MINE = `IS_USED_LOCK('${LOCK}') = CONNECTION_ID()`;
/** Behind the watch, which knows milliseconds and names who is in the way. */
const WAIT_MARGIN_SECONDS = 3;
const LEVEL_WAIT_MS = 2_000;
/** What statements in flight are given, however little of the fence's budget is left: most end by themselves. */
const LEAST_WAIT_MS = 250;

/**
 * `read_only` for a whole data center, for writers that do not use the SDK. It bypasses nobody but accounts with CONNECTION_ADMIN (MariaDB: READ_ONLY
 * ADMIN), of which Interlock's is one; `super_read_only` would refuse the marker and the links.
 *
 * The server forgets it on a restart, and may be paused at any point of a change: so the row of `interlock.dc_read_only` says what is wanted,
 * and `level` brings the server there.
 */
export class ReadOnlySwitch {
  constructor(
    private readonly pool: Pool,
    private readonly flavour: Flavour,
  ) {}

  async view(): Promise<ReadOnlyView> {
    const [rows] = await this.pool.query<RowDataPacket[]>(
      `SELECT @@global.read_only AS is_on, ${this.flavour === 'mysql' ? '@@global.super_read_only' : '0'} AS super_on, r.wanted, r.epoch, r.settled
       FROM (SELECT 1) one LEFT JOIN interlock.dc_read_only r ON r.id = 1 AND r.server = ${identityExpression(this.flavour)}`,
    );
    const row = rows[0]!;
    return {
      on: Number(row['is_on']) === 1,
      superOn: Number(row['super_on']) === 1,
      wanted: Number(row['wanted'] ?? 0) === 1,
      epoch: row['epoch'] === null ? null : Number(row['epoch']),
      settled: Number(row['settled'] ?? 1) === 1,
    };
  }

  /**
   * Refuses the writes of every account without the right to bypass, and returns when none of them is in flight or can commit. The caller
   * holds the locks of all the data center's open units, in a session of its own. Fails with ReadOnlyBlocked: the caller takes back
   * (`lift`, in the session with the locks) what it has not committed.
   */
  async turnOn(
    { epoch, holder }: Pick<UnitChange, 'epoch' | 'holder'>,
    server: string,
    policy: FenceBudget['blockers'],
    deadline: number,
  ): Promise<Blocker[]> {
    const newer = (column: string): string =>
      `${column} = IF(epoch > VALUES(epoch), ${column}, VALUES(${column}))`;
    // The epoch is assigned last: assignments see those before them.
    await this.pool.query(
      `INSERT INTO interlock.dc_read_only (id, wanted, settled, server, holder_workflow, holder_run, epoch) VALUES (1, 1, 0, ?, ?, ?, ?)
       ON DUPLICATE KEY UPDATE ${['wanted', 'settled', 'server', 'holder_workflow', 'holder_run', 'epoch'].map(newer).join(', ')}`,
      [server, holder.workflowId, holder.runId, epoch],
    );
    const { blockers, on } = await this.level(policy, deadline);
    if (!on) throw new ReadOnlyBlocked(blockers);
    return blockers;
  }

  /**
   * Mends what a restart of the server or a dead change left: read_only as wanted, and not wanted where units are open and no fence is
   * under way. Answers what it did; undefined: nothing was to be done.
   */
  async mend(): Promise<'turned on' | 'turned off' | undefined> {
    const before = await this.view();
    // It never wanted anything on this server.
    if (before.epoch === null) return undefined;
    if (before.wanted) await this.liftAbandoned();
    const { wanted, settled, on } = await this.view();
    // On and not wanted, and settled: somebody else's.
    if (settled && (on || !wanted)) return undefined;
    await this.level('give-up', performance.now() + LEVEL_WAIT_MS);
    if (on === wanted) return undefined;
    return wanted ? 'turned on' : 'turned off';
  }

  /** Brings the server to what the record says now, and answers which that is. Fails with ReadOnlyBlocked; nothing was changed. */
  async level(
    policy: FenceBudget['blockers'],
    deadline: number,
  ): Promise<{ blockers: Blocker[]; on: boolean }> {
    const session = await openSession(this.pool);
    const remainingMs = Math.max(LEAST_WAIT_MS, deadline - performance.now());
    const waitSeconds = Math.max(1, Math.ceil(remainingMs / 1000)) + WAIT_MARGIN_SECONDS;
    const { pool, flavour } = this;
    const watch = new BlockerWatch(pool, flavour, session.threadId, policy, remainingMs, 'read_only');
    let answer: RowDataPacket | undefined;
    let failure: unknown;
    try {
      // One message: a process that is stopped in between cannot come back with an old answer.
      answer = await first(session, [
        `SET SESSION lock_wait_timeout = ${waitSeconds}`,
        `DO GET_LOCK('${LOCK}', ${waitSeconds})`,
        // MariaDB wants a signed integer there.
        `SET GLOBAL read_only = IF(IF(${MINE}, (SELECT wanted FROM interlock.dc_read_only WHERE id = 1), @@global.read_only), 1, 0)`,
        `UPDATE interlock.dc_read_only SET settled = 1 WHERE id = 1 AND settled = 0 AND wanted = @@global.read_only AND ${MINE}`,
        `SELECT wanted, @@global.read_only AS is_on, ${MINE} AS mine FROM interlock.dc_read_only WHERE id = 1`,
        `DO RELEASE_LOCK('${LOCK}')`,
        'SET SESSION lock_wait_timeout = DEFAULT',
      ]);
    } catch (error) {
      failure = error;
    } finally {
      await watch.stop();
      // A KILL QUERY may be on its way to a session that was given up.
      if (answer !== undefined && !watch.gaveUp) session.release();
      else session.destroy();
    }
    const blocked = isInterrupted(failure) || errnoOf(failure) === ER_LOCK_WAIT_TIMEOUT;
    if (failure !== undefined && !blocked) throw failure as Error;
    const on = Number(answer?.['is_on']) === 1;
    const mine = Number(answer?.['mine']) === 1;
    if (answer === undefined || !mine || Number(answer['wanted']) !== Number(on))
      throw new ReadOnlyBlocked(watch.blockers);
    return { blockers: watch.blockers, on };
  }

  /** Wanted, and yet a unit is open and its row can be locked: the fence that wanted it did not come to its commit. */
  private async liftAbandoned(): Promise<void> {
    const share = this.flavour === 'mysql' ? 'FOR SHARE SKIP LOCKED' : 'LOCK IN SHARE MODE SKIP LOCKED';
    const session = await openSession(this.pool);
    let done = false;
    try {
      const open = await first(session, [
        bounds(ABANDONED_AFTER_SECONDS, 1),
        'START TRANSACTION',
        `SELECT unit FROM interlock.unit_state WHERE state = 'open' LIMIT 1 ${share}`,
      ]);
      // While the row is locked here, no fence can have all its locks, and none can turn read_only on.
      if (open !== undefined)
        await session.query('UPDATE interlock.dc_read_only SET wanted = 0, settled = 0 WHERE id = 1');
      await session.query(`COMMIT;${FORGIVING}`);
      done = true;
    } finally {
      if (done) session.release();
      else session.destroy();
    }
  }
}

export function recordOf(flavour: Flavour): string {
  return `SELECT wanted, settled, server = ${identityExpression(flavour)} AS here, @@global.read_only AS is_on FROM interlock.dc_read_only WHERE id = 1`;
}

/** Given the record as it is behind the commit that opened units: the server has to be told. */
export function needsLevel(rows: readonly RowDataPacket[]): boolean {
  const record = rows[0] && toRecord(rows[0]);
  return record !== undefined && record.here && !record.settled;
}

/** The data center was write-disabled as a whole on this server, and the server has forgotten that it is read_only. */
export function forgotten(rows: readonly RowDataPacket[]): boolean {
  const record = rows[0] && toRecord(rows[0]);
  return record !== undefined && record.here && record.wanted && !record.on;
}

/**
 * Goes into the transaction that opens units, also when nothing was wanted: a fence of before that is paused between its locks and its
 * record finds the higher epoch, and changes nothing.
 */
export function lift({ epoch, holder }: Pick<UnitChange, 'epoch' | 'holder'>, server: string): string {
  return format(
    `INSERT INTO interlock.dc_read_only (id, wanted, settled, server, holder_workflow, holder_run, epoch) VALUES (1, 0, 1, ?, ?, ?, ?)
     ON DUPLICATE KEY UPDATE settled = IF(epoch <= VALUES(epoch) AND wanted = 1, 0, settled), wanted = IF(epoch <= VALUES(epoch), 0, wanted),
       server = IF(epoch <= VALUES(epoch), VALUES(server), server), epoch = GREATEST(epoch, VALUES(epoch))`,
    [server, holder.workflowId, holder.runId, epoch],
  );
}

/** Goes into the transaction that asserts the states of another server anew. */
export function moveTo(server: string): string {
  return format(
    'UPDATE interlock.dc_read_only SET server = ?, settled = 0 WHERE id = 1 AND wanted = 1 AND server <> ?',
    [server, server],
  );
}

function toRecord(row: RowDataPacket): { wanted: boolean; settled: boolean; here: boolean; on: boolean } {
  const is = (column: string): boolean => Number(row[column]) === 1;
  return { wanted: is('wanted'), settled: is('settled'), here: is('here'), on: is('is_on') };
}

async function first(
  session: PoolConnection,
  statements: readonly string[],
): Promise<RowDataPacket | undefined> {
  const [rows] = await ask(session, statements, 1);
  return rows?.[0];
}
