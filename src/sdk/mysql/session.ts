import type { FieldPacket, Pool, PoolConnection, QueryOptions } from 'mysql2';
import type { Pool as PromisePool } from 'mysql2/promise';
import { InterlockError } from '../../errors.js';

/** A pool of mysql2 or of mysql2/promise. It is used, never changed. */
export type MysqlPool = Pool | PromisePool;

export const SERVER_STATUS_IN_TRANS = 0x0001;
export const SERVER_STATUS_NO_BACKSLASH_ESCAPES = 0x0200;

const ER_LOCK_WAIT_TIMEOUT = 1205;
const ER_LOCK_TABLE_FULL = 1206;
const ER_LOCK_DEADLOCK = 1213;
const ER_XA_RBDEADLOCK = 1614;
const ER_LOCK_NOWAIT = 3572;
const ER_READ_ONLY_TRANSACTION = 1792;
/** Errors with a number that end the connection: shutdown, killed (MariaDB), idle for too long. */
const ER_CONNECTION_ENDED = new Set([1053, 1927, 4031]);

export interface StatementResult {
  result: unknown;
  fields: FieldPacket[];
  /** Server status of each OK and EOF packet of the answer, in order; empty when the driver shows none. */
  statuses: number[];
}

interface Packet {
  buffer: Buffer;
  offset: number;
  isEOF(): boolean;
  eofStatusFlags(): number;
}

/** mysql2's command objects, as far as they are watched. */
interface Command {
  execute?: (packet: Packet | undefined, connection: unknown) => boolean;
}

/** The two methods as they are used here; mysql2's overloads name the shape of the rows. */
type Send = (
  options: QueryOptions,
  done: (error: Error | null, result: unknown, fields: FieldPacket[]) => void,
) => unknown;
interface Statements {
  query: Send;
  execute: Send;
}

const withoutCast = (_field: unknown, next: () => unknown): unknown => next();

export function corePoolOf(pool: MysqlPool): Pool {
  const candidate = pool as { promise?: unknown; pool?: Pool; getConnection?: unknown } | null;
  if (typeof candidate?.getConnection === 'function') {
    if (typeof candidate.promise === 'function') return pool as Pool;
    if (typeof candidate.pool?.getConnection === 'function') return candidate.pool;
  }
  throw new InterlockError('BadInput', 'pool: expected a pool of mysql2 or mysql2/promise (createPool)', {
    details: { field: 'pool' },
  });
}

/** One pooled connection in the SDK's hands: one statement at a time, the server's status seen on every answer. */
export class Session {
  /** Status of the last packet that had one. */
  status: number | undefined;
  private failPending: ((error: Error) => void) | undefined;
  private gone = false;

  private constructor(private readonly connection: PoolConnection) {}

  /** Takes a connection; when `signal` fires first, the connection goes back as soon as it comes. */
  static acquire(pool: Pool, signal?: AbortSignal): Promise<Session> {
    return new Promise((resolve, reject) => {
      const onAbort = (): void => reject(abortedError(signal!));
      if (signal?.aborted) return onAbort();
      signal?.addEventListener('abort', onAbort, { once: true });
      pool.getConnection((error, connection) => {
        signal?.removeEventListener('abort', onAbort);
        if (error) reject(unavailable(error));
        else if (signal?.aborted) connection.release();
        else resolve(new Session(connection));
      });
    });
  }

  get multipleStatements(): boolean {
    return (this.connection.config as { multipleStatements?: boolean }).multipleStatements === true;
  }

  /** Whether a backslash escapes in strings, by the server's last answer. */
  get backslashEscapes(): boolean {
    return ((this.status ?? 0) & SERVER_STATUS_NO_BACKSLASH_ESCAPES) === 0;
  }

  get threadId(): number {
    return this.connection.threadId;
  }

  /** A statement of the SDK itself: immune to the pool's settings for rows, types and placeholders. */
  internal(sql: string): Promise<StatementResult> {
    // A typeCast function of the pool wins over everything but another function.
    const typeCast = typeof this.connection.config.typeCast === 'function' ? withoutCast : true;
    const options = { sql, rowsAsArray: true, typeCast, namedPlaceholders: false, nestTables: false };
    return this.run('query', options, undefined);
  }

  run(method: 'query' | 'execute', sql: string | QueryOptions, values: unknown): Promise<StatementResult> {
    return new Promise((resolve, reject) => {
      if (this.gone) {
        reject(new InterlockError('TransactionLost', 'the connection was lost', { retryable: true }));
        return;
      }
      this.failPending = reject;
      const statuses: number[] = [];
      const done = (error: Error | null, result: unknown, fields: FieldPacket[]): void => {
        this.failPending = undefined;
        if (error) {
          reject(error);
          return;
        }
        // Without the hook, a result without rows still says it.
        const shown = (result as { serverStatus?: unknown } | undefined)?.serverStatus;
        if (statuses.length === 0 && typeof shown === 'number') statuses.push(shown);
        this.status = statuses.at(-1) ?? this.status;
        resolve({ result, fields, statuses });
      };
      const options: QueryOptions = typeof sql === 'string' ? { sql } : { ...sql };
      if (values !== undefined) options.values = values as NonNullable<QueryOptions['values']>;
      const connection = this.connection as unknown as Statements;
      try {
        const command =
          method === 'query' ? connection.query(options, done) : connection.execute(options, done);
        observe(command, statuses);
      } catch (error) {
        this.failPending = undefined;
        reject(error instanceof Error ? error : new Error(String(error)));
      }
    });
  }

  /** Gives the connection back to the pool. The caller has seen that no transaction is open on it. */
  release(): void {
    if (this.gone) return;
    this.gone = true;
    this.connection.release();
  }

  /** Ends the connection; a statement under way fails with `error`. mysql2 would leave its promise pending for ever. */
  destroy(error: Error): void {
    if (this.gone) return;
    this.gone = true;
    this.connection.destroy();
    this.failPending?.(error);
  }
}

/**
 * mysql2 shows the server status in results of statements without rows only. The EOF packets of row sets have it too: look at them as
 * they pass. When a driver has no such hook, no status is seen, and the transaction asks with a statement of its own.
 * Source: MySQL client/server protocol, "Command Phase", OK_Packet and EOF_Packet.
 */
function observe(command: unknown, statuses: number[]): void {
  const target = command as Command;
  const original = target.execute;
  if (typeof original !== 'function') return;
  /** EOF packets still to come of the row set that is being read; 0 at the header of an answer. */
  let eofs = 0;
  target.execute = function (this: Command, packet, connection) {
    if (packet !== undefined && typeof packet.isEOF === 'function') {
      if (eofs > 0) {
        if (packet.isEOF()) {
          eofs--;
          statuses.push(packet.eofStatusFlags());
        }
      } else if (packet.buffer[packet.offset] === 0x00) {
        statuses.push(okStatus(packet));
      } else if (packet.buffer[packet.offset] !== 0xff) {
        eofs = 2;
      }
    }
    return original.call(this, packet, connection);
  };
}

/** OK_Packet: 0x00, affected rows and last insert id (length-encoded), then the status. */
function okStatus({ buffer, offset }: Packet): number {
  const afterRows = skipLengthEncoded(buffer, offset + 1);
  return buffer.readUInt16LE(skipLengthEncoded(buffer, afterRows));
}

function skipLengthEncoded(buffer: Buffer, at: number): number {
  const first = buffer[at]!;
  return at + (first < 0xfb ? 1 : first === 0xfc ? 3 : first === 0xfd ? 4 : 9);
}

/** What an error says of the transaction it happened in. */
export type Damage =
  /** The connection is gone, or in a state nobody knows. */
  | 'connection'
  /** The server rolled the transaction back, or part of it. */
  | 'transaction'
  /** Perhaps none: ask before the next statement. */
  | 'unknown';

export function damageOf(error: unknown): Damage {
  const { errno, code, fatal } = (error ?? {}) as { errno?: unknown; code?: unknown; fatal?: unknown };
  if (fatal === true || code === 'PROTOCOL_SEQUENCE_TIMEOUT' || code === 'PROTOCOL_CONNECTION_LOST') {
    return 'connection';
  }
  if (typeof errno !== 'number' || errno < 0) return typeof code === 'string' ? 'connection' : 'unknown';
  if (ER_CONNECTION_ENDED.has(errno)) return 'connection';
  const lost = [ER_LOCK_DEADLOCK, ER_LOCK_WAIT_TIMEOUT, ER_LOCK_TABLE_FULL, ER_XA_RBDEADLOCK];
  return lost.includes(errno) ? 'transaction' : 'unknown';
}

export function isDeadlock(error: unknown): boolean {
  const { errno } = (error ?? {}) as { errno?: unknown };
  return errno === ER_LOCK_DEADLOCK || errno === ER_LOCK_WAIT_TIMEOUT;
}

/** The answer to NOWAIT on a locked row: 3572 on MySQL, 1205 on MariaDB. */
export function isLockConflict(error: unknown): boolean {
  const { errno } = (error ?? {}) as { errno?: unknown };
  return errno === ER_LOCK_NOWAIT || errno === ER_LOCK_WAIT_TIMEOUT;
}

export function isReadOnlyTransaction(error: unknown): boolean {
  return (error as { errno?: unknown } | null)?.errno === ER_READ_ONLY_TRANSACTION;
}

function unavailable(error: Error): InterlockError {
  return new InterlockError('Unavailable', `no connection to the store: ${error.message}`, {
    retryable: true,
    cause: error,
    details: { what: 'mysql' },
  });
}

export function abortedError(signal: AbortSignal): InterlockError {
  const reason: unknown = signal.reason;
  const timedOut = reason instanceof Error && reason.name === 'TimeoutError';
  return new InterlockError(
    'TransactionLost',
    timedOut
      ? 'the transaction took longer than its timeoutMs and was given up'
      : 'the transaction was aborted',
    { cause: reason, retryable: timedOut },
  );
}
