import type { FieldPacket, QueryOptions, QueryResult } from 'mysql2';
import { InterlockError, messageOf } from '../../errors.js';
import type { UnitId } from '../../routing/units.js';
import type { Target } from '../target.js';
import { readOnlyError } from './fence-check.js';
import { damageOf, isDeadlock, isReadOnlyServer } from './mysql-errors.js';
import type { Session } from './session.js';
import { refuseRawValues } from './raw-values.js';
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

type Rows<T> = [T, FieldPacket[]];

const RETURNING = /\breturning\b/i;

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
  private over = false;
  /** The last statement failed, or nobody saw the server's status: ask before the next one. */
  private uncertain = false;
  /** Settles when the statements sent so far are answered; undefined when there are none. */
  private tail: Promise<void> | undefined;
  /** Statements of the callback that were sent. */
  statements = 0;

  constructor(
    private readonly session: Session,
    public epochs: Map<UnitId, number>,
    private readonly hooks: TransactionHooks,
  ) {}

  get epoch(): number {
    return Math.max(...this.epochs.values());
  }

  get units(): UnitId[] {
    return [...this.epochs.keys()].sort();
  }

  query<T extends QueryResult>(sql: string | QueryOptions, values?: unknown): Promise<Rows<T>> {
    return this.inTurn(() => this.send<T>('query', sql, values));
  }

  execute<T extends QueryResult>(sql: string | QueryOptions, values?: unknown): Promise<Rows<T>> {
    return this.inTurn(() => this.send<T>('execute', sql, values));
  }

  async addUnit(target: Target): Promise<void> {
    await this.inTurn(async () => {
      if (this.hooks.has(target)) return;
      if (this.statements > 0) {
        // Hazard: rows read so far may be older than the hand-over of the new unit, and so may the snapshot. Guard: start again.
        throw (this.ended = new UnitAdded(target));
      }
      try {
        await this.hooks.lockMore(target);
      } catch (error) {
        // The failed lock may have rolled everything back (innodb_rollback_on_timeout), the first units' locks with it.
        throw (this.ended ??= error as Error);
      }
    });
  }

  /** Waits for what was sent, then says whether the transaction is still the one that holds the lock. Nothing can be sent afterwards. */
  async settle(): Promise<void> {
    while (this.tail !== undefined) await this.tail;
    if (this.ended) throw this.ended;
    this.over = true;
    if (this.uncertain) await this.ask();
    if (!this.session.inTransaction) throw this.lose();
  }

  /** Ends the handle from outside: time-out, a callback that threw. The first reason stays. */
  end(reason?: Error): void {
    this.over = true;
    if (reason !== undefined) this.ended ??= reason;
  }

  /** Resolves when no statement is under way any more. */
  async idle(): Promise<void> {
    while (this.tail !== undefined) await this.tail;
  }

  get endedBy(): Error | undefined {
    return this.ended;
  }

  /** One after the other: the next statement is sent when the answer to the one before it has been looked at. */
  private inTurn<R>(work: () => Promise<R>): Promise<R> {
    const turn = this.tail === undefined ? this.checked(work) : this.tail.then(() => this.checked(work));
    const answered = (): void => {
      if (this.tail === tail) this.tail = undefined;
    };
    const tail: Promise<void> = turn.then(answered, answered);
    this.tail = tail;
    return turn;
  }

  private checked<R>(work: () => Promise<R>): Promise<R> {
    if (this.ended) return Promise.reject(this.ended);
    if (this.over) {
      return Promise.reject(
        new InterlockError(
          'StatementRefused',
          'the transaction is over: await every statement before the callback returns',
        ),
      );
    }
    return work();
  }

  private async send<T extends QueryResult>(
    method: 'query' | 'execute',
    sql: string | QueryOptions,
    values: unknown,
  ): Promise<Rows<T>> {
    const text = typeof sql === 'string' ? sql : sql?.sql;
    const verb = this.assertAllowed(text, values ?? (typeof sql === 'string' ? undefined : sql?.values));
    if (this.uncertain) await this.ask();
    this.statements++;
    const watched = !CHANGES.has(verb) || RETURNING.test(text);
    try {
      const { answer, seen } = await this.session.run(method, sql, values, watched);
      // The server says on every answer whether a transaction is open.
      if (!seen) this.uncertain = true;
      else if (!this.session.inTransaction) throw this.lose();
      return answer as Rows<T>;
    } catch (error) {
      throw error === this.ended ? error : this.failed(error);
    }
  }

  /** Answers the verb. */
  private assertAllowed(text: unknown, values: unknown): string {
    if (typeof text !== 'string') {
      throw new InterlockError('BadInput', 'sql: expected a string or { sql }', {
        details: { field: 'sql' },
      });
    }
    refuseRawValues(values);
    const statement = classify(text, this.session.backslashEscapes);
    if (statement.kind !== 'refused') return statement.verb;
    throw new InterlockError(
      'StatementRefused',
      `${statement.verb} is refused in a fenced transaction: ${statement.reason}`,
      { details: { verb: statement.verb, reason: statement.reason } },
    );
  }

  private failed(error: unknown): unknown {
    if (isReadOnlyServer(error)) return (this.ended ??= readOnlyError(this.epochs, error));
    switch (damageOf(error)) {
      case 'unknown':
        this.uncertain = true;
        return error;
      case 'transaction':
        this.ended ??= lost(`the server rolled the transaction back: ${messageOf(error)}`, error);
        return this.ended;
      case 'connection':
        this.ended ??= lost(`the connection was lost: ${messageOf(error)}`, error);
        return this.ended;
    }
  }

  /** Asks the server whether the transaction is still open, with a statement that changes nothing. */
  private async ask(): Promise<void> {
    try {
      await this.session.command('DO 0');
    } catch (error) {
      throw (this.ended ??= lost(`the connection was lost: ${messageOf(error)}`, error));
    }
    if (!this.session.inTransaction) throw this.lose();
    this.uncertain = false;
  }

  private lose(): Error {
    this.ended ??= lost('the server ended the transaction under its handle', undefined);
    return this.ended;
  }
}

/** Verbs whose answer is an OK packet, unless they have a RETURNING clause. */
const CHANGES: ReadonlySet<string> = new Set(['INSERT', 'UPDATE', 'DELETE', 'REPLACE']);

function lost(message: string, cause: unknown): InterlockError {
  return new InterlockError('TransactionLost', message, {
    cause,
    retryable: true,
    details: { deadlock: isDeadlock(cause) },
  });
}
