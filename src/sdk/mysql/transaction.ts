import type { FieldPacket, QueryOptions, QueryResult } from 'mysql2';
import { InterlockError, messageOf } from '../../errors.js';
import type { UnitId } from '../../routing/units.js';
import type { Target } from '../target.js';
import { damageOf, isDeadlock, SERVER_STATUS_IN_TRANS } from './session.js';
import type { Session, StatementResult } from './session.js';
import { classify } from './statement.js';

/** What the callback of `transaction` gets. */
export interface FencedTransaction {
  /** As in mysql2/promise: text protocol, values escaped by the client. */
  query<T extends QueryResult>(sql: string | QueryOptions, values?: unknown): Promise<[T, FieldPacket[]]>;
  /** As in mysql2/promise: prepared on the server. */
  execute<T extends QueryResult>(sql: string | QueryOptions, values?: unknown): Promise<[T, FieldPacket[]]>;
  /** The epoch of the unit's row, read under the lock; of several units the highest. */
  readonly epoch: number;
  /** The epoch of each unit. */
  readonly epochs: ReadonlyMap<UnitId, number>;
  /** The units that are locked, sorted. */
  readonly units: readonly UnitId[];
  /**
   * Adds a unit. The transaction starts again from the beginning of the callback with all its units locked, unless no statement was sent
   * yet: what was read before the lock may be older than a hand-over. Await it, and let what it throws pass.
   */
  addUnit(target: Target): Promise<void>;
}

/** Thrown through the callback by `addUnit`; never leaves `transaction`. */
export class UnitAdded extends Error {
  constructor(readonly target: Target) {
    super('a unit was added: the transaction starts again with all units locked');
    this.name = 'UnitAdded';
  }
}

export interface TransactionHooks {
  /** Is the target's unit among the locked ones? Throws when it is none. */
  has(target: Target): boolean;
  /** Locks one more unit in place; only before the first statement. */
  lockMore(target: Target): Promise<void>;
}

/**
 * The handle of one transaction on one connection.
 *
 * Hazard: the transaction can vanish under its handle. After a deadlock the server has rolled it back, and the next statement, which mysql2
 * may already have queued, commits by itself, without the fence's lock. Guards: statements are sent one by one; a statement that may end the
 * transaction is refused; the server's IN_TRANS flag is looked at on every answer; after 1205 and 1213 nothing is sent any more; after any
 * other error the server is asked before the next statement.
 */
export class TransactionHandle implements FencedTransaction {
  /** Set once: nothing may be sent any more, and why. */
  private ended: Error | undefined;
  /** The last statement failed, or nobody saw the server's status: ask before the next one. */
  private uncertain = false;
  private tail: Promise<unknown> = Promise.resolve();
  /** Statements of the callback that were sent. */
  statements = 0;
  epochs: Map<UnitId, number>;

  constructor(
    private readonly session: Session,
    epochs: Map<UnitId, number>,
    private readonly hooks: TransactionHooks,
  ) {
    this.epochs = epochs;
  }

  get epoch(): number {
    return Math.max(...this.epochs.values());
  }

  get units(): UnitId[] {
    return [...this.epochs.keys()].sort();
  }

  query<T extends QueryResult>(sql: string | QueryOptions, values?: unknown): Promise<[T, FieldPacket[]]> {
    return this.statement<T>('query', sql, values);
  }

  execute<T extends QueryResult>(sql: string | QueryOptions, values?: unknown): Promise<[T, FieldPacket[]]> {
    return this.statement<T>('execute', sql, values);
  }

  async addUnit(target: Target): Promise<void> {
    if (this.ended) throw this.ended;
    if (this.hooks.has(target)) return;
    await this.enqueue(async () => {
      if (this.statements === 0) {
        try {
          await this.hooks.lockMore(target);
        } catch (error) {
          // The failed lock may have rolled everything back (innodb_rollback_on_timeout), the first units' locks with it.
          this.ended ??= error as Error;
          throw error;
        }
        return;
      }
      // Hazard: rows read so far may be older than the hand-over of the new unit, and so may the snapshot. Guard: start again.
      this.ended = new UnitAdded(target);
      throw this.ended;
    });
  }

  /** Waits for what was sent, then says whether the transaction is still the one that holds the lock. */
  async settle(): Promise<void> {
    await this.tail;
    if (this.ended) throw this.ended;
    if (this.uncertain) await this.ask();
    if (((this.session.status ?? 0) & SERVER_STATUS_IN_TRANS) === 0) throw this.lose();
    this.ended = new InterlockError(
      'StatementRefused',
      'the transaction is over: await every statement before the callback returns',
    );
  }

  /** Ends the handle from outside: time-out, abort, a callback that threw. The first reason stays. */
  end(reason: Error): void {
    this.ended ??= reason;
  }

  /** Resolves when no statement is under way any more. */
  async idle(): Promise<void> {
    await this.tail;
  }

  get endedBy(): Error | undefined {
    return this.ended;
  }

  private async statement<T extends QueryResult>(
    method: 'query' | 'execute',
    sql: string | QueryOptions,
    values: unknown,
  ): Promise<[T, FieldPacket[]]> {
    const answer = await this.enqueue(() => this.send(method, sql, values));
    return [answer.result as T, answer.fields];
  }

  /** One after the other: the next statement is sent when the answer to the one before it has been looked at. */
  private enqueue<R>(work: () => Promise<R>): Promise<R> {
    if (this.ended) return Promise.reject(this.ended);
    const turn = this.tail.then(() => {
      if (this.ended) throw this.ended;
      return work();
    });
    this.tail = turn.catch(() => undefined);
    return turn;
  }

  private async send(
    method: 'query' | 'execute',
    sql: string | QueryOptions,
    values: unknown,
  ): Promise<StatementResult> {
    const text = typeof sql === 'string' ? sql : sql.sql;
    this.assertAllowed(text, values ?? (typeof sql === 'string' ? undefined : sql.values));
    if (this.uncertain) await this.ask();
    this.statements++;
    let answer: StatementResult;
    try {
      answer = await this.session.run(method, sql, values);
    } catch (error) {
      throw this.failed(error);
    }
    if (answer.statuses.length === 0) this.uncertain = true;
    // The server says on every answer whether a transaction is open.
    for (const status of answer.statuses) {
      if ((status & SERVER_STATUS_IN_TRANS) === 0) throw this.lose();
    }
    return answer;
  }

  private assertAllowed(text: unknown, values: unknown): void {
    if (typeof text !== 'string') {
      throw new InterlockError('BadInput', 'sql: expected a string or { sql }', {
        details: { field: 'sql' },
      });
    }
    if (hasRawValue(values)) {
      throw new InterlockError(
        'StatementRefused',
        'a value with toSqlString() (mysql.raw) may hide a statement; write it into the SQL text',
      );
    }
    const statement = classify(text, this.session.backslashEscapes);
    if (statement.kind !== 'refused') return;
    throw new InterlockError(
      'StatementRefused',
      `${statement.verb} is refused in a fenced transaction: ${statement.reason}`,
      { details: { verb: statement.verb, reason: statement.reason } },
    );
  }

  private failed(error: unknown): unknown {
    switch (damageOf(error)) {
      case 'unknown':
        this.uncertain = true;
        return error;
      case 'transaction':
        this.ended ??= lost(
          `the server rolled the transaction back: ${messageOf(error)}`,
          error,
          isDeadlock(error),
        );
        return this.ended;
      case 'connection':
        this.ended ??= lost(`the connection was lost: ${messageOf(error)}`, error, false);
        return this.ended;
    }
  }

  /** Asks the server whether the transaction is still open, with a statement that changes nothing. */
  private async ask(): Promise<void> {
    let answer: StatementResult;
    try {
      answer = await this.session.internal('DO 0');
    } catch (error) {
      this.ended ??= lost(`the connection was lost: ${messageOf(error)}`, error, false);
      throw this.ended;
    }
    if (((answer.statuses.at(-1) ?? 0) & SERVER_STATUS_IN_TRANS) === 0) throw this.lose();
    this.uncertain = false;
  }

  private lose(): Error {
    this.ended ??= lost('the server ended the transaction under its handle', undefined, false);
    return this.ended;
  }
}

function lost(message: string, cause: unknown, deadlock: boolean): InterlockError {
  return new InterlockError('TransactionLost', message, { cause, retryable: true, details: { deadlock } });
}

function hasRawValue(values: unknown, depth = 0): boolean {
  if (values === null || typeof values !== 'object' || ArrayBuffer.isView(values)) return false;
  if (typeof (values as { toSqlString?: unknown }).toSqlString === 'function') return true;
  if (depth > 2) return false;
  return Object.values(values).some((value) => hasRawValue(value, depth + 1));
}
