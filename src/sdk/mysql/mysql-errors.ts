import { InterlockError } from '../../errors.js';

const ER_LOCK_WAIT_TIMEOUT = 1205;
const ER_LOCK_TABLE_FULL = 1206;
const ER_LOCK_DEADLOCK = 1213;
const ER_XA_RBDEADLOCK = 1614;
const ER_LOCK_NOWAIT = 3572;
const ER_OPTION_PREVENTS_STATEMENT = 1290;
const ER_READ_ONLY_TRANSACTION = 1792;
/** Errors with a number that end the connection: shutdown, killed (MariaDB), idle for too long. */
const ER_CONNECTION_ENDED = [1053, 1927, 4031];
const ER_ROLLED_BACK = [ER_LOCK_DEADLOCK, ER_LOCK_WAIT_TIMEOUT, ER_LOCK_TABLE_FULL, ER_XA_RBDEADLOCK];
const ER_CONTROL_SCHEMA = [1044, 1049, 1142, 1146];

/** What an error says of the transaction it happened in. */
export type Damage =
  /** The connection is gone, or in a state nobody knows. */
  | 'connection'
  /** The server rolled the transaction back, or part of it. */
  | 'transaction'
  /** Perhaps none: ask before the next statement. */
  | 'unknown';

export function damageOf(error: unknown): Damage {
  if (error instanceof InterlockError) return 'unknown';
  const { code, fatal } = (error ?? {}) as { code?: unknown; fatal?: unknown };
  if (fatal === true || code === 'PROTOCOL_SEQUENCE_TIMEOUT' || code === 'PROTOCOL_CONNECTION_LOST')
    return 'connection';
  const errno = errnoOf(error);
  if (errno === undefined) return typeof code === 'string' ? 'connection' : 'unknown';
  if (ER_CONNECTION_ENDED.includes(errno)) return 'connection';
  return ER_ROLLED_BACK.includes(errno) ? 'transaction' : 'unknown';
}

/** A deadlock, or a lock wait time-out: the same transaction may succeed when it starts again. */
export function isDeadlock(error: unknown): boolean {
  const errno = errnoOf(error);
  return errno === ER_LOCK_DEADLOCK || errno === ER_LOCK_WAIT_TIMEOUT;
}

/** The answer to NOWAIT on a locked row: 3572 on MySQL, 1205 on MariaDB. */
export function isLockConflict(error: unknown): boolean {
  const errno = errnoOf(error);
  return errno === ER_LOCK_NOWAIT || errno === ER_LOCK_WAIT_TIMEOUT;
}

export function isReadOnlyTransaction(error: unknown): boolean {
  return errnoOf(error) === ER_READ_ONLY_TRANSACTION;
}

/** The server is `read_only`, as when a whole data center is write-disabled: the statement, or the COMMIT, did nothing. */
export function isReadOnlyServer(error: unknown): boolean {
  return errnoOf(error) === ER_OPTION_PREVENTS_STATEMENT;
}

export function isControlSchemaError(error: unknown): boolean {
  const errno = errnoOf(error);
  return errno !== undefined && ER_CONTROL_SCHEMA.includes(errno);
}

export function unavailable(error: unknown): InterlockError {
  const message = error instanceof Error ? error.message : String(error);
  return new InterlockError('Unavailable', `no connection to the store: ${message}`, {
    retryable: true,
    cause: error,
    details: { what: 'mysql' },
  });
}

/** The server's error number; undefined for errors of the driver and of sockets. */
function errnoOf(error: unknown): number | undefined {
  const { errno } = (error ?? {}) as { errno?: unknown };
  return typeof errno === 'number' && errno > 0 ? errno : undefined;
}
