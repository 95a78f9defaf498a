import type { Pool, PoolConnection, RowDataPacket } from 'mysql2/promise';

const prepared = new WeakSet<object>();

/**
 * A connection of the pool, prepared for changes of `unit_state` and `rules`; settings stay on the connection, so that a warm
 * one costs no round trip. The caller releases it, or destroys it after an error.
 *
 * READ COMMITTED: at REPEATABLE READ an update of many units scans, locks every row and waits for transactions of other units.
 */
export async function openSession(pool: Pool): Promise<PoolConnection> {
  const connection = await pool.getConnection();
  const key = connection.connection;
  try {
    if (!prepared.has(key)) {
      await connection.query("SET SESSION sql_mode = 'STRICT_ALL_TABLES'");
      await connection.query('SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED');
      prepared.add(key);
    }
    return connection;
  } catch (error) {
    connection.destroy();
    throw error;
  }
}

/** Longer than the other data center may take to answer while rows are locked, and than a busy process stands still. */
export const ABANDONED_AFTER_SECONDS = 30;

/**
 * Hazard: a process that is stopped, or whose host is gone, between its locks and its commit keeps the rows for the hours of the server's
 * `wait_timeout`: nobody may write them, and no committed state says so. Guard: the server ends such a session; `FORGIVING` goes behind
 * the commit, for pooled sessions may idle.
 */
export function bounds(abandonedAfterSeconds: number, lockWaitSeconds: number): string {
  return `SET SESSION wait_timeout = ${abandonedAfterSeconds}, innodb_lock_wait_timeout = ${lockWaitSeconds}`;
}
export const FORGIVING = 'SET SESSION wait_timeout = DEFAULT';

/**
 * Sends several statements in one message (`format` has put their values in). Answers the rows of the last `count` that have some; the
 * first that fails ends the message.
 */
export async function ask(
  session: Pick<PoolConnection, 'query'>,
  statements: readonly string[],
  count: number,
): Promise<RowDataPacket[][]> {
  const [results] = await session.query(statements.join(';'));
  return (results as unknown[])
    .filter((result): result is RowDataPacket[] => Array.isArray(result))
    .slice(-count);
}
