import type { FieldPacket, Pool, PoolConnection, QueryOptions } from 'mysql2';
import type { Pool as PromisePool } from 'mysql2/promise';
import { InterlockError } from '../../errors.js';
import type { Deadline } from './deadline.js';
import { pipeline, watchStatus } from './driver.js';
import type { Done } from './driver.js';
import { damageOf, unavailable } from './mysql-errors.js';

/** A pool of mysql2 or of mysql2/promise. It is used, never changed. */
export type MysqlPool = Pool | PromisePool;

export const SERVER_STATUS_IN_TRANS = 0x0001;
const SERVER_STATUS_NO_BACKSLASH_ESCAPES = 0x0200;

/** mysql2 answers a row set, or what an OK packet says. */
export type Answer = [result: unknown, fields: FieldPacket[]];

/** The two methods as they are used here; mysql2's overloads name the shape of the rows. */
interface Statements {
  query(sql: string | QueryOptions, done: Done): unknown;
  query(sql: string | QueryOptions, values: unknown, done: Done): unknown;
  execute(sql: string | QueryOptions, done: Done): unknown;
  execute(sql: string | QueryOptions, values: unknown, done: Done): unknown;
}

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

/** Takes a connection; when the deadline comes first, the connection goes back as soon as it is there. */
export function acquire(pool: Pool, deadline?: Deadline): Promise<Session> {
  return new Promise((resolve, reject) => {
    if (deadline?.passed) {
      reject(deadline.passed);
      return;
    }
    const forget = deadline?.onPassed(reject);
    pool.getConnection((error, connection) => {
      forget?.();
      if (deadline?.passed) {
        if (!error) connection.release();
      } else if (error) reject(unavailable(error));
      else resolve(new Session(connection));
    });
  });
}

/** One pooled connection in the SDK's hands: one statement at a time, the server's status seen on every answer. */
export class Session {
  /** Status of the last answer that showed one. */
  status: number | undefined;
  /** A statement failed in a way that leaves the connection lost, or in a state nobody knows. */
  broken = false;
  private failPending: ((error: Error) => void) | undefined;
  private gone = false;

  constructor(private readonly connection: PoolConnection) {}

  get multipleStatements(): boolean {
    return (this.connection.config as { multipleStatements?: boolean }).multipleStatements === true;
  }

  /** The schema that the pool connects to. */
  get database(): string | undefined {
    return (this.connection.config as { database?: string }).database;
  }

  /** Whether a backslash escapes in strings, by the server's last answer. */
  get backslashEscapes(): boolean {
    return ((this.status ?? 0) & SERVER_STATUS_NO_BACKSLASH_ESCAPES) === 0;
  }

  /** The server's last answer said that a transaction is open. */
  get inTransaction(): boolean {
    return ((this.status ?? 0) & SERVER_STATUS_IN_TRANS) !== 0;
  }

  /** A statement of the SDK without rows: START TRANSACTION, COMMIT, … `status` is the server's afterwards. */
  async command(sql: string): Promise<void> {
    const [result] = await this.send('query', sql, undefined, false);
    this.status = statusOf(result);
  }

  /** A statement of the SDK that answers rows of one column `value`: immune to the pool's settings for rows, types and placeholders. */
  async values(sql: string): Promise<string[]> {
    const [rows] = await this.send('query', this.guarded(sql), undefined, false);
    return valuesOf(rows);
  }

  /** `command` and `values` in one round trip: as one text where the pool allows several statements, else one behind the other in the pipe. */
  async commandAndValues(command: string, select: string, pipelining: boolean): Promise<string[]> {
    if (this.multipleStatements) {
      const [results] = await this.send('query', this.guarded(`${command}; ${select}`), undefined, false);
      const [result, rows] = results as [unknown, unknown];
      this.status = statusOf(result);
      return valuesOf(rows);
    }
    if (pipelining) {
      const both = this.pending<Answer[]>((done) =>
        pipeline(this.connection, [command, this.guarded(select)], done),
      );
      if (both !== undefined) {
        const [[result], [rows]] = (await both) as [Answer, Answer];
        this.status = statusOf(result);
        return valuesOf(rows);
      }
    }
    await this.command(command);
    return this.values(select);
  }

  /**
   * A statement of the application. `watched`: it may answer rows, so the status is read off the packets. Answers whether the server's
   * status was seen; `status` has the first one that says "no transaction", else the last.
   */
  async run(
    method: 'query' | 'execute',
    sql: string | QueryOptions,
    values: unknown,
    watched: boolean,
  ): Promise<{ answer: Answer; seen: boolean }> {
    const statuses: number[] = [];
    const answer = await this.send(method, sql, values, watched ? statuses : false);
    if (!watched) {
      const status = statusOf(answer[0]);
      if (status !== undefined) statuses.push(status);
    }
    const seen = statuses.length > 0;
    if (seen)
      this.status = statuses.find((status) => (status & SERVER_STATUS_IN_TRANS) === 0) ?? statuses.at(-1);
    return { answer, seen };
  }

  /** Gives the connection back to the pool. The caller has seen that no transaction is open on it. */
  release(): void {
    if (this.gone) return;
    this.gone = true;
    this.connection.release();
  }

  /** Ends the connection; a statement under way fails with `error`. mysql2 would leave its callback waiting for ever. */
  destroy(error: Error): void {
    if (this.gone) return;
    this.gone = true;
    this.connection.destroy();
    this.failPending?.(error);
  }

  private send(
    method: 'query' | 'execute',
    sql: string | QueryOptions,
    values: unknown,
    statuses: number[] | false,
  ): Promise<Answer> {
    return this.pending((done) => {
      const connection = this.connection as unknown as Statements;
      const call: Done = (error, result, fields) => done(error, [result, fields]);
      const command =
        values === undefined ? connection[method](sql, call) : connection[method](sql, values, call);
      if (statuses) watchStatus(command, statuses);
      return true;
    })!;
  }

  /** A promise that `destroy` can fail. Undefined when `start` answers false: nothing was sent. */
  private pending<T>(
    start: (done: (error: Error | null, value: T) => void) => boolean,
  ): Promise<T> | undefined {
    if (this.gone) {
      return Promise.reject(
        new InterlockError('TransactionLost', 'the connection was lost', { retryable: true }),
      );
    }
    let started = true;
    const promise = new Promise<T>((resolve, reject) => {
      this.failPending = reject;
      try {
        started = start((error, value) => {
          this.failPending = undefined;
          if (error) {
            if (damageOf(error) === 'connection') this.broken = true;
            reject(error);
          } else resolve(value);
        });
      } catch (error) {
        this.failPending = undefined;
        reject(error instanceof Error ? error : new Error(String(error)));
      }
    });
    return started ? promise : undefined;
  }

  /** Options that switch the pool's settings off, where it has any: they cost time. */
  private guarded(sql: string): string | QueryOptions {
    const config = this.connection.config as Partial<
      Record<'typeCast' | 'rowsAsArray' | 'namedPlaceholders' | 'nestTables', unknown>
    >;
    const { typeCast, rowsAsArray, namedPlaceholders, nestTables } = config;
    // A typeCast function of the pool wins over everything but another function.
    const casts = typeof typeCast === 'function';
    if (!casts && !rowsAsArray && !namedPlaceholders && !nestTables) return sql;
    return {
      sql,
      rowsAsArray: false,
      namedPlaceholders: false,
      nestTables: false,
      typeCast: casts ? (_field: unknown, next: () => unknown) => next() : true,
    };
  }
}

function statusOf(result: unknown): number | undefined {
  const status = (result as { serverStatus?: unknown } | null | undefined)?.serverStatus;
  return typeof status === 'number' ? status : undefined;
}

function valuesOf(rows: unknown): string[] {
  return (rows as { value: unknown }[]).map((row) => String(row.value));
}
