import type { Connection, RowDataPacket } from 'mysql2/promise';
import { InterlockError, messageOf } from '../../src/errors.js';
import { identifier } from './literal.js';
import type { Statement } from './statements.js';

export interface SqlError extends Error {
  errno?: number;
  code?: string;
  fatal?: boolean;
}

/** Deadlock, lock wait timeout: the same transaction again has every chance. */
export const LOCK_ERRORS = new Set([1205, 1213]);

/** The server, not the data: shutting down, read-only, too many connections, out of disk, killed session. */
const SERVER_ERRORS = new Set([
  1021, 1040, 1053, 1079, 1158, 1159, 1160, 1161, 1290, 1317, 1836, 1927, 3024, 4031,
]);

/** Whether the connection, or the server behind it, is gone; by errno and code, never by text. */
export function isUnavailable(error: SqlError): boolean {
  if (error.fatal === true || error.errno === undefined) return true;
  return error.errno < 0 || (error.errno >= 2000 && error.errno < 3000) || SERVER_ERRORS.has(error.errno);
}

export function targetUnavailable(error: unknown): InterlockError {
  return new InterlockError('Unavailable', `target: ${messageOf(error)}`, { cause: error, retryable: true });
}

/** The error of a change that the target does not take; the link stops on it. */
export function cannotApply(
  link: string,
  position: string,
  statement: Statement | undefined,
  error: SqlError,
): InterlockError {
  const table = statement?.table.source.name;
  return new InterlockError(
    'LinkStopped',
    `${link} stopped in ${position}: ${table ?? 'the target'} refuses the change: ${error.message} (${error.code ?? error.errno})`,
    { cause: error, details: { link, position, table, errno: error.errno, kind: 'refused' } },
  );
}

/**
 * The error of a statement that did not change exactly its rows: finds the row that is missing, or there already.
 * Called after the rollback.
 */
export async function conflictOf(
  connection: Connection,
  link: string,
  position: string,
  statement: Statement,
): Promise<InterlockError> {
  const { source } = statement.table;
  const table = source.name;
  const keys = source.primaryKey.map((i) => identifier(source.columns[i]!));
  const wantsAbsent = statement.kind === 'insert';
  let key: string | undefined;
  for (const candidate of statement.keys) {
    const where = keys.length === 1 ? `${keys[0]} = ${candidate}` : `(${keys.join(',')}) = (${candidate})`;
    const [rows] = await connection.query<RowDataPacket[]>(
      `SELECT 1 FROM ${source.sql} WHERE ${where} LIMIT 1`,
    );
    if (rows.length > 0 === wantsAbsent) {
      key = candidate;
      break;
    }
  }
  const what = wantsAbsent
    ? key === undefined
      ? 'a row with the same unique value is there already'
      : 'the row is there already'
    : key === undefined
      ? 'a row had the new content already'
      : 'the row is missing';
  const shown = key ?? (statement.keys.length === 1 ? statement.keys[0]! : `one of ${statement.keys.length}`);
  return new InterlockError(
    'LinkStopped',
    `${link} stopped in ${position}: ${statement.kind} of ${table} key (${shown}): ${what} on the target. Compare the row on both sides, mend the target, then: interlock replicate resume ${link}`,
    {
      details: {
        link,
        position,
        table,
        key: shown,
        kind: 'conflict',
        statement: statement.kind,
        found: key !== undefined,
      },
    },
  );
}
