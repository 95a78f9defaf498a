import { setTimeout as sleep } from 'node:timers/promises';
import type { Connection, ResultSetHeader, RowDataPacket } from 'mysql2/promise';
import { InterlockError, messageOf } from '../../../src/errors.js';
import { connect } from '../session.js';
import type { ServerAddress } from '../session.js';
import { isUnavailable } from '../target-errors.js';
import type { SqlError } from '../target-errors.js';
import { algorithmsOf, asksForOther, definitionOf, textFor } from './attempts.js';
import type { Algorithm } from './attempts.js';
import { readStatement } from './statement.js';

/** One statement of a change, as it is recorded in every store that it runs on. */
export interface DdlStep {
  seq: number;
  name: string;
  text: string;
  dropped: string[];
}

export interface StepInput extends DdlStep {
  changeId: string;
  /** The table's definition before and behind it, on this server; null: no such table. */
  before: string | null;
  after: string | null;
}

export interface StepResult {
  algorithm: Algorithm | null;
  /** It was found executed. */
  found: boolean;
  /** How often the table was not free in time. */
  waits: number;
}

const LOCK = 'interlock:ddl';
/** So long a statement waits for the table, and everything behind it. */
export const LOCK_WAIT_SECONDS = 2;
const WAITS = 60;
const BACKOFF_MS = { first: 500, most: 15_000 };
export const ER_LOCK_WAIT_TIMEOUT = 1205;

/**
 * Writes the steps of a change into a store before any of them runs anywhere: from then on, links into it wait for what they meet of it. Steps of
 * a change that never ended are over: there is one at a time.
 */
export async function announceSteps(
  server: ServerAddress,
  changeId: string,
  steps: readonly DdlStep[],
): Promise<void> {
  await withConnection(server, async (connection) => {
    await abandon(connection, changeId);
    // What was dropped so long ago is in no stream any more.
    await connection.query(
      `DELETE FROM interlock.ddl_step WHERE state IN ('done', 'failed') AND updated_at < UTC_TIMESTAMP() - INTERVAL 90 DAY`,
    );
    for (const { seq, name, text, dropped } of steps) {
      await connection.query(
        `INSERT INTO interlock.ddl_step (change_id, seq, name, statement, dropped, state, updated_at)
         VALUES (?, ?, ?, ?, ?, 'planned', UTC_TIMESTAMP(6)) ON DUPLICATE KEY UPDATE seq = seq`,
        [changeId, seq, name, text, dropped.length === 0 ? null : JSON.stringify(dropped)],
      );
    }
  });
}

/**
 * Ends the steps of runs that have ended without a word (terminated), so that links do not wait for them.
 * @returns how many there were
 */
export async function abandonSteps(server: ServerAddress): Promise<number> {
  return withConnection(server, (connection) => abandon(connection, ''));
}

async function abandon(connection: Connection, but: string): Promise<number> {
  const [{ affectedRows }] = await connection.query<ResultSetHeader>(
    `UPDATE interlock.ddl_step SET state = 'failed', updated_at = UTC_TIMESTAMP(6)
     WHERE change_id <> ? AND state NOT IN ('done', 'failed')`,
    [but],
  );
  return affectedRows;
}

/** The statement has run everywhere (`done`), or the change has ended without it (`failed`). */
export async function settleSteps(
  server: ServerAddress,
  changeId: string,
  seq: number | null,
  state: 'done' | 'failed',
): Promise<void> {
  await withConnection(server, async (connection) => {
    await connection.query(
      `UPDATE interlock.ddl_step SET state = ?, updated_at = UTC_TIMESTAMP(6)
       WHERE change_id = ? AND state NOT IN ('done', 'failed')${seq === null ? '' : ' AND seq = ?'}`,
      [state, changeId, ...(seq === null ? [] : [seq])],
    );
  });
}

/**
 * Runs a statement once. DDL is not in a transaction: whether one that was begun before (by a process that is gone) has been executed is told by
 * the table's definition, once the session that began it has ended.
 * @throws InterlockError Refused: the server, or a definition that is neither that of before nor that of behind
 */
export async function runStep(
  server: ServerAddress,
  input: StepInput,
  signal: AbortSignal,
): Promise<StepResult> {
  const { changeId, seq, name, before, after } = input;
  const statement = readStatement(input.text, seq);
  return withConnection(server, async (connection) => {
    await lock(connection, signal);
    const record = async (state: string, algorithm: Algorithm | null): Promise<void> => {
      await connection.query(
        `UPDATE interlock.ddl_step SET state = ?, algorithm = COALESCE(?, algorithm), updated_at = UTC_TIMESTAMP(6)
         WHERE change_id = ? AND seq = ? AND state NOT IN ('done', 'failed')`,
        [state, algorithm, changeId, seq],
      );
    };
    const now = await definitionOf(connection, name);
    if (now === after) {
      await record('executed', null);
      return { algorithm: null, found: true, waits: 0 };
    }
    if (now !== before) {
      throw new InterlockError(
        'Refused',
        `${name} is not as it was when the change was planned: something else has changed it. Look at it, then run interlock ddl apply again`,
        { details: { table: name, now, planned: before } },
      );
    }
    await record('running', null);
    await connection.query(`SET SESSION lock_wait_timeout = ${LOCK_WAIT_SECONDS}`);
    const algorithms = algorithmsOf(statement, server.flavour);
    let wait = BACKOFF_MS.first;
    for (let at = 0, waits = 0; ;) {
      const algorithm = algorithms[at] ?? null;
      try {
        await connection.query(textFor(statement, algorithm));
        await record('executed', algorithm);
        return { algorithm, found: false, waits };
      } catch (error) {
        if (algorithm !== null && algorithm !== 'copy' && asksForOther(error)) {
          at++;
          continue;
        }
        const { errno } = error as SqlError;
        if (errno !== ER_LOCK_WAIT_TIMEOUT || waits >= WAITS)
          throw refused(name, error, await blockers(connection));
        waits++;
        await sleep(wait, undefined, { signal: signal });
        wait = Math.min(wait * 2, BACKOFF_MS.most);
      }
    }
  });
}

/** A session of a process that is gone goes on with its statement; nobody may look at the table before it has ended. */
async function lock(connection: Connection, signal: AbortSignal): Promise<void> {
  for (;;) {
    signal.throwIfAborted();
    const [rows] = await connection.query<RowDataPacket[]>('SELECT GET_LOCK(?, 1) AS got', [LOCK]);
    if (Number((rows[0] as { got: number | null }).got) === 1) return;
  }
}

/** Transactions that are open for longest: one of them may hold the table. */
export async function blockers(connection: Connection): Promise<string> {
  try {
    const [rows] = await connection.query<RowDataPacket[]>(
      `SELECT trx_mysql_thread_id AS id, TIMESTAMPDIFF(SECOND, trx_started, NOW()) AS seconds
       FROM information_schema.innodb_trx ORDER BY trx_started LIMIT 3`,
    );
    return rows.map(({ id, seconds }) => `session ${String(id)}, for ${String(seconds)} s`).join('; ');
  } catch {
    return '';
  }
}

function refused(name: string, error: unknown, open: string): InterlockError {
  const known = error as SqlError;
  if (isUnavailable(known))
    return new InterlockError('Unavailable', messageOf(error), { cause: error, retryable: true });
  const why =
    known.errno === ER_LOCK_WAIT_TIMEOUT
      ? `the table was never free for ${LOCK_WAIT_SECONDS} s${open === '' ? '' : `; open transactions: ${open}`}. End what holds it, then run interlock ddl apply again`
      : messageOf(error);
  return new InterlockError('Refused', `${name}: ${why}`, {
    cause: error,
    details: { table: name, errno: known.errno },
  });
}

async function withConnection<T>(
  server: ServerAddress,
  work: (connection: Connection) => Promise<T>,
): Promise<T> {
  const connection = await connect(server);
  try {
    return await work(connection);
  } catch (error) {
    const decided = error instanceof InterlockError || (error as Error).name === 'AbortError';
    if (decided || !isUnavailable(error as SqlError)) throw error;
    throw new InterlockError('Unavailable', messageOf(error), { cause: error, retryable: true });
  } finally {
    connection.destroy();
  }
}
