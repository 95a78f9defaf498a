import { InterlockError, messageOf } from '../../src/errors.js';
import type { Mismatch } from './row-check.js';
import type { TableBatch } from './batch.js';
import type { Statement } from './statements.js';

export interface SqlError extends Error {
  errno?: number;
  code?: string;
  fatal?: boolean;
}

/** Deadlock, lock wait timeout: the same transaction again has every chance. */
export const LOCK_ERRORS = new Set([1205, 1213]);

/** The server, not the data: shutting down, read-only, out of disk, memory or locks, too many connections, killed session, a right that is gone. */
const SERVER_ERRORS = new Set([
  1021, 1026, 1030, 1040, 1041, 1044, 1053, 1079, 1114, 1142, 1143, 1153, 1158, 1159, 1160, 1161, 1206, 1290,
  1317, 1836, 1927, 3024, 4031,
]);

/** Whether the connection, or the server behind it, is gone; by errno and code, never by text. */
export function isUnavailable(error: SqlError): boolean {
  if (error.fatal === true || error.errno === undefined) return true;
  return error.errno < 0 || (error.errno >= 2000 && error.errno < 3000) || SERVER_ERRORS.has(error.errno);
}

export function targetUnavailable(error: unknown): InterlockError {
  return new InterlockError('Unavailable', `target: ${messageOf(error)}`, { cause: error, retryable: true });
}

/** Rows are not on the target as the source had them; the policy of their table decides. Nothing was written. */
export class RowsDiffer extends Error {
  readonly mismatches: readonly Mismatch[];

  constructor(mismatches: readonly Mismatch[]) {
    const { table, row } = mismatches[0]!;
    super(
      `${table.source.name} key (${row.key}) is not on the target as the source had it (${mismatches.length} rows)`,
    );
    this.mismatches = mismatches;
  }
}

/** What a person has decided is otherwise than it was read. Nothing was written. */
export class RecordChanged extends Error {}

/** Rows were changed at the source past the fence; the policy of their table decides. Nothing was written. */
export class PastTheFence extends Error {}

/** A transaction cannot be applied, and is to be kept aside whole. Nothing was written. */
export class ToQuarantine extends Error {}

/** The target does not take a change: a constraint, a value, a definition. Nothing was written. */
export class ChangeRefused extends Error {
  readonly table: string | undefined;
  readonly errno: number | null;

  constructor(message: string, table: string | undefined, error?: SqlError) {
    super(message, { cause: error });
    this.table = table;
    this.errno = error?.errno ?? null;
  }
}

/** A value, or a statement that cannot be cut, is above what the target takes. Nothing was written. */
export class TooLarge extends ChangeRefused {
  constructor({ source }: TableBatch, what: string, bytes: number, packetBytes: number) {
    super(
      `${source.name}: ${what} has ${bytes} bytes, the target's max_allowed_packet is ${packetBytes}; SET GLOBAL max_allowed_packet there (and in its configuration) to at least the source's`,
      source.name,
    );
  }
}

/** @param statement undefined: several went in one message, and the server does not say which it refused */
function refusedBy(statement: Statement | undefined, error: SqlError): ChangeRefused {
  const table = statement?.table.source.name;
  return new ChangeRefused(
    `${table ?? 'the target'} refuses the change: ${error.message} (${error.code ?? error.errno})`,
    table,
    error,
  );
}

export function changedOthers({ kind, affected, keys, table }: Statement, changed: number): ChangeRefused {
  const { name } = table.source;
  return new ChangeRefused(
    `${kind} of ${name} changed ${changed} rows on the target instead of ${affected} (keys ${keys.slice(0, 5).join('; ')})`,
    name,
  );
}

/** Of an error in the midst of a transaction: that the target does not take a change; undefined: it is something else. */
export function refusalOf(
  error: unknown,
  failed: Statement | undefined,
): RowsDiffer | ChangeRefused | undefined {
  if (error instanceof RowsDiffer || error instanceof ChangeRefused) return error;
  if (isOurs(error) || isUnavailable(error as SqlError)) return undefined;
  return LOCK_ERRORS.has((error as SqlError).errno!) ? undefined : refusedBy(failed, error as SqlError);
}

/** It says what is to be done, and is no answer of a server. */
export function isOurs(error: unknown): boolean {
  return (
    error instanceof InterlockError ||
    error instanceof RowsDiffer ||
    error instanceof ChangeRefused ||
    error instanceof RecordChanged ||
    error instanceof PastTheFence ||
    error instanceof ToQuarantine
  );
}
