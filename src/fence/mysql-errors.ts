/** MySQL and MariaDB errors by number; messages are never looked at. */
export const ER_DUP_ENTRY = 1062;
export const ER_NO_SUCH_THREAD = 1094;
export const ER_LOCK_WAIT_TIMEOUT = 1205;
export const ER_LOCK_DEADLOCK = 1213;
const ER_QUERY_INTERRUPTED = 1317;
const ER_QUERY_TIMEOUT = 3024;
const ER_NO_SUCH_TABLE = 1146;
const ER_BAD_DB = 1049;

export function errnoOf(error: unknown): number | undefined {
  const errno = (error as { errno?: unknown } | null)?.errno;
  return typeof errno === 'number' ? errno : undefined;
}

export function isInterrupted(error: unknown): boolean {
  const errno = errnoOf(error);
  return errno === ER_QUERY_INTERRUPTED || errno === ER_QUERY_TIMEOUT;
}

/** The `interlock` schema or one of its tables is not there. */
export function isSchemaMissing(error: unknown): boolean {
  const errno = errnoOf(error);
  return errno === ER_NO_SUCH_TABLE || errno === ER_BAD_DB;
}

const CONNECTION_CODES = new Set([
  'PROTOCOL_CONNECTION_LOST',
  'PROTOCOL_SEQUENCE_TIMEOUT',
  'ECONNRESET',
  'ECONNREFUSED',
  'EPIPE',
  'ETIMEDOUT',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'ENOTFOUND',
  'EAI_AGAIN',
  'ER_SERVER_SHUTDOWN',
  'ER_CON_COUNT_ERROR',
  'ER_CLIENT_INTERACTION_TIMEOUT',
]);

/** The connection could not be made or was lost: the server, the network or a KILL. */
export function isConnectionLost(error: unknown): boolean {
  const { code, fatal } = (error ?? {}) as { code?: unknown; fatal?: unknown };
  if (typeof code === 'string' && CONNECTION_CODES.has(code)) return true;
  // ER_CONNECTION_KILLED (MariaDB 1927), ER_SERVER_SHUTDOWN, and mysql2's "connection is in closed state".
  const errno = errnoOf(error);
  if (errno === 1927 || errno === 1053) return true;
  return fatal === true && errno === undefined;
}
