import type { FieldPacket, Pool, QueryOptions, QueryResult } from 'mysql2';
import { InterlockError, isInterlockError, messageOf } from '../../errors.js';
import type { Router } from '../../routing/rules.js';
import type { UnitId } from '../../routing/units.js';
import { afterEffects, assertNotRefused, contexts, Effects, REFUSALS } from '../context.js';
import type { RulesSource } from '../rules-source.js';
import { unitsOfTargets } from '../target.js';
import type { Target, WantedUnit } from '../target.js';
import { checkRows, lockedError, lockStatement, readOnlyError } from './fence-check.js';
import type { Flavour } from '../../fence/flavour.js';
import { FencedConnection } from './connection.js';
import type { Statements } from './connection.js';
import { Deadline } from './deadline.js';
import {
  damageOf,
  isControlSchemaError,
  isDeadlock,
  isLockConflict,
  isReadOnlyServer,
  isReadOnlyTransaction,
  unavailable,
} from './mysql-errors.js';
import { refuseRawValues } from './raw-values.js';
import { acquire, corePoolOf } from './session.js';
import type { MysqlPool, Session } from './session.js';
import { classify } from './statement.js';
import type { Statement } from './statement.js';
import { TransactionHandle, UnitAdded } from './transaction.js';
import { writeTarget } from './write-target.js';
import type { FencedTransaction } from './transaction.js';

export interface TransactionOptions {
  /**
   * Milliseconds from the call to the end of COMMIT, waiting for a connection included; then the connection is ended and the call
   * fails: with CommitUnknown when COMMIT was under way, else with TransactionLost. Default 30 000; 0: no limit.
   */
  timeoutMs?: number;
  /** Same as a time-out, at the caller's word. */
  signal?: AbortSignal;
  /**
   * How often a transaction that the server rolled back (deadlock, lock wait time-out) starts again from the beginning of its callback.
   * Default 0: the callback may do what must not be done twice. Never after something else of the callback was committed or sent.
   */
  retries?: number;
}

const DEFAULT_TIMEOUT_MS = 30_000;
const MOST_ADDED_UNITS = 64;
/** A pooled connection may be dead before its first statement; then nothing has happened, and another one is tried. */
const DEAD_CONNECTIONS = 3;

const flavours = new WeakMap<Pool, Flavour>();

/** One MySQL or MariaDB store of this DC behind the fence. Get it by `interlock.mysql(pool)`. */
export class FencedMysql implements Statements {
  private readonly pool: Pool;
  /** Undefined: those that the topology declares. */
  private readonly unrouted: ReadonlySet<string> | undefined;

  constructor(
    pool: MysqlPool,
    readonly store: string,
    private readonly rules: RulesSource,
    private readonly pipelining = true,
    unrouted?: readonly string[],
  ) {
    this.pool = corePoolOf(pool);
    this.unrouted = unrouted && new Set(unrouted.map(tableOption));
  }

  /**
   * Runs `work` in one transaction that holds its units' fence locks, and commits it. Without a key: the ambient one of `interlock.run`
   * or of the HTTP middleware. When `work` throws, the transaction is rolled back and the error passed on.
   *
   * Throws InterlockError: WriteDisabled, NotOwner, StaleMapping, ServerIdentityChanged (nothing was done), CrossOwner, PartiallyExecuted,
   * TransactionLost (rolled back), CommitUnknown, StatementRefused, BadInput, NoRules, Unavailable.
   */
  transaction<R>(work: (tx: FencedTransaction) => Promise<R>, options?: TransactionOptions): Promise<R>;
  transaction<R>(
    key: Target | readonly Target[],
    work: (tx: FencedTransaction) => Promise<R>,
    options?: TransactionOptions,
  ): Promise<R>;
  async transaction<R>(
    ...args:
      | [work: (tx: FencedTransaction) => Promise<R>, options?: TransactionOptions]
      | [
          key: Target | readonly Target[],
          work: (tx: FencedTransaction) => Promise<R>,
          options?: TransactionOptions,
        ]
  ): Promise<R> {
    const ambient = contexts.getStore();
    const [key, work, options] =
      typeof args[0] === 'function'
        ? [ambient?.target, args[0], args[1] as TransactionOptions | undefined]
        : [args[0], args[1], args[2]];
    if (typeof work !== 'function') {
      throw new InterlockError('BadInput', 'transaction: expected a function', {
        details: { field: 'work' },
      });
    }
    if (key === undefined) {
      throw new InterlockError(
        'BadInput',
        'transaction: no routing key given, and none is ambient: pass { userId, region } or use interlock.run(key, …) or the HTTP middleware',
        { details: { field: 'key' } },
      );
    }
    const effects = new Effects(ambient?.effects);
    const deadline = new Deadline(options?.timeoutMs ?? DEFAULT_TIMEOUT_MS, options?.signal);
    try {
      return await this.tries(
        isList(key) ? [...key] : [key],
        work,
        options?.retries ?? 0,
        effects,
        deadline,
        ambient?.target,
      );
    } catch (error) {
      throw afterEffects(error, effects, REFUSALS);
    } finally {
      deadline.clear();
    }
  }

  /**
   * A read: on any connection of the pool, not fenced; it may be answered in a DC that is not the owner any more. One that may call a
   * stored function runs in a READ ONLY transaction.
   * A write: with an ambient routing key, a fenced transaction of its own, with the errors of `transaction`. Without one it is StatementRefused,
   * unless it plainly writes one table that the topology declares unrouted: then it runs by itself, not fenced (Unavailable: the rule center has not
   * said yet which those are). In the callback of a transaction it is StatementRefused.
   */
  async query<T extends QueryResult>(
    sql: string | QueryOptions,
    values?: unknown,
  ): Promise<[T, FieldPacket[]]> {
    return this.plain<T>('query', sql, values);
  }

  /** As `query`, prepared on the server. */
  async execute<T extends QueryResult>(
    sql: string | QueryOptions,
    values?: unknown,
  ): Promise<[T, FieldPacket[]]> {
    return this.plain<T>('execute', sql, values);
  }

  /** For code that asks its pool for a connection; its statements are the store's (see FencedConnection). */
  getConnection(): Promise<FencedConnection> {
    return Promise.resolve(new FencedConnection(this));
  }

  /** Ends the pool, and with it all stores over it. */
  end(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.pool.end((error) => (error ? reject(unavailable(error)) : resolve()));
    });
  }

  format(sql: string, values?: unknown): string {
    return this.pool.format(sql, values);
  }

  escape(value: unknown): string {
    return this.pool.escape(value);
  }

  escapeId(value: string): string {
    return this.pool.escapeId(value);
  }

  private async tries<R>(
    targets: Target[],
    work: (tx: FencedTransaction) => Promise<R>,
    retries: number,
    effects: Effects,
    deadline: Deadline,
    ambientTarget: Target | readonly Target[] | undefined,
  ): Promise<R> {
    let refreshed = false;
    for (;;) {
      const effectsOfTry = new Effects(effects);
      try {
        if (this.rules.current() === undefined && targets.some((target) => 'userId' in target)) {
          await this.rules.refresh();
        }
        return await this.once(this.wanted(targets), work, effectsOfTry, deadline, ambientTarget);
      } catch (error) {
        if (error instanceof UnitAdded) {
          if (targets.length >= MOST_ADDED_UNITS) {
            throw new InterlockError(
              'BadInput',
              `a transaction of more than ${MOST_ADDED_UNITS} units; split it`,
            );
          }
          targets.push(error.target);
        } else if (isInterlockError(error, 'StaleMapping') && !refreshed) {
          refreshed = true;
          await this.rules.refresh();
        } else if (isInterlockError(error, 'TransactionLost') && isDeadlock(error.cause) && retries > 0) {
          retries--;
        } else {
          throw error;
        }
        // Hazard: what the callback committed or sent besides this transaction would be done twice.
        if (!effectsOfTry.none) {
          throw new InterlockError(
            'PartiallyExecuted',
            `the transaction has to start again, but its callback already ${effectsOfTry.words} something else: ${messageOf(error)}`,
            { cause: error },
          );
        }
      }
    }
  }

  private wanted(targets: readonly Target[]): WantedUnit[] {
    return unitsOfTargets(targets, () => this.router());
  }

  private router(): Router {
    const router = this.rules.current();
    if (router === undefined) {
      throw new InterlockError('NoRules', 'no rules are known yet: the user cannot be mapped to a unit', {
        retryable: true,
      });
    }
    return router;
  }

  private async once<R>(
    wanted: WantedUnit[],
    work: (tx: FencedTransaction) => Promise<R>,
    effects: Effects,
    deadline: Deadline,
    ambientTarget: Target | readonly Target[] | undefined,
  ): Promise<R> {
    assertNotRefused(effects);
    const { session, epochs } = await this.begin(wanted, deadline);
    const handle: TransactionHandle = new TransactionHandle(session, epochs, {
      has: (target) => this.wanted([target]).every(({ unit }) => handle.epochs.has(unit)),
      lockMore: async (target) => {
        wanted = [...wanted, ...this.wanted([target])].sort((a, b) => (a.unit < b.unit ? -1 : 1));
        handle.epochs = await this.lock(session, wanted);
      },
    });
    let forget: (() => void) | undefined;
    try {
      const value = await new Promise<R>((resolve, reject) => {
        const giveUp = (error: InterlockError): void => {
          handle.end(error);
          session.destroy(error);
          reject(error);
        };
        if (deadline.passed) return giveUp(deadline.passed);
        forget = deadline.onPassed(giveUp);
        const inside = { target: ambientTarget, effects, inTransaction: true };
        contexts.run(inside, async () => work(handle)).then(resolve, reject);
      });
      await handle.settle();
      await this.commit(session, effects, handle);
      return value;
    } catch (error) {
      // A callback may swallow or wrap what ended the transaction: what happened to the transaction counts.
      const cause = handle.endedBy instanceof UnitAdded ? handle.endedBy : error;
      handle.end();
      await handle.idle();
      await this.rollBack(session);
      throw await this.explained(cause, wanted, deadline);
    } finally {
      forget?.();
    }
  }

  /** A connection with an open transaction that holds the units' locks. */
  private async begin(
    wanted: readonly WantedUnit[],
    deadline: Deadline,
  ): Promise<{ session: Session; epochs: Map<UnitId, number> }> {
    for (let attempt = 1; ; attempt++) {
      const session = await acquire(this.pool, deadline);
      const forget = deadline.onPassed((error) => session.destroy(error));
      try {
        return { session, epochs: await this.lock(session, wanted, 'START TRANSACTION') };
      } catch (error) {
        await this.rollBack(session);
        if (isControlSchemaError(error)) throw noControlSchema(error);
        if (isInterlockError(error) || damageOf(error) !== 'connection') throw error;
        if (attempt >= DEAD_CONNECTIONS) throw unavailable(error);
      } finally {
        forget();
      }
    }
  }

  /** Locks and checks the units' rows; with `first`, in the same round trip where driver and pool allow it. */
  private async lock(
    session: Session,
    wanted: readonly WantedUnit[],
    first?: 'START TRANSACTION',
  ): Promise<Map<UnitId, number>> {
    const units = wanted.map(({ unit }) => unit);
    const select = lockStatement(flavours.get(this.pool) ?? (await this.detectFlavour(session)), units);
    let rows: string[];
    try {
      rows =
        first === undefined
          ? await session.values(select)
          : await session.commandAndValues(first, select, this.pipelining);
    } catch (error) {
      if (!isLockConflict(error)) throw error;
      throw lockedError(units, this.rules.current()?.routeUnit(units[0]!), error);
    }
    return checkRows(rows, wanted);
  }

  private async detectFlavour(session: Session): Promise<Flavour> {
    const [version] = await session.values('SELECT VERSION() AS value');
    const flavour = /mariadb/i.test(version!) ? 'mariadb' : 'mysql';
    flavours.set(this.pool, flavour);
    return flavour;
  }

  private async commit(session: Session, effects: Effects, handle: TransactionHandle): Promise<void> {
    assertNotRefused(effects);
    let kept = true;
    effects.commitBegins();
    try {
      await session.command('COMMIT');
      kept = handle.statements > 0;
    } catch (error) {
      if (isReadOnlyServer(error)) {
        kept = false;
        throw readOnlyError(handle.epochs, error);
      }
      if (damageOf(error) === 'transaction') {
        kept = false;
        throw new InterlockError('TransactionLost', `rolled back at COMMIT: ${messageOf(error)}`, {
          retryable: true,
          cause: error,
        });
      }
      // Hazard: the server may have committed before it, or its answer, was lost. Nobody may try again on a guess.
      session.destroy(error as Error);
      throw new InterlockError(
        'CommitUnknown',
        `COMMIT was sent and not confirmed: ${messageOf(error)}. It may have been committed`,
        { cause: error },
      );
    } finally {
      effects.commitEnds(kept);
    }
    // completion_type=CHAIN opens another transaction at COMMIT.
    if (session.inTransaction) await this.rollBack(session);
    else session.release();
  }

  /** Gives the connection back clean, or ends it. */
  private async rollBack(session: Session): Promise<void> {
    if (session.broken) {
      session.destroy(new InterlockError('TransactionLost', 'the connection was lost', { retryable: true }));
      return;
    }
    try {
      await session.command('ROLLBACK');
      if (session.inTransaction) {
        session.destroy(new InterlockError('Internal', 'the connection is in a transaction after ROLLBACK'));
      } else {
        session.release();
      }
    } catch (failure) {
      session.destroy(failure as Error);
    }
  }

  /**
   * A fence may kill the connections that hold its rows. Nothing was committed then, and the typed refusal lets the gateway hold or forward
   * the request: ask the rows once, on another connection, why the connection was lost.
   */
  private async explained(
    error: unknown,
    wanted: readonly WantedUnit[],
    deadline: Deadline,
  ): Promise<unknown> {
    if (!isInterlockError(error, 'TransactionLost') || deadline.passed !== undefined) return error;
    if (error.cause === undefined || damageOf(error.cause) !== 'connection') return error;
    try {
      const { session } = await this.begin(wanted, deadline);
      await this.rollBack(session);
      return error;
    } catch (refusal) {
      const said =
        isInterlockError(refusal) &&
        ['WriteDisabled', 'NotOwner', 'ServerIdentityChanged'].includes(refusal.code);
      return said ? refusal : error;
    }
  }

  private async plain<T extends QueryResult>(
    method: 'query' | 'execute',
    sql: string | QueryOptions,
    values: unknown,
  ): Promise<[T, FieldPacket[]]> {
    const text = typeof sql === 'string' ? sql : sql?.sql;
    if (typeof text !== 'string') {
      throw new InterlockError('BadInput', 'sql: expected a string or { sql }', {
        details: { field: 'sql' },
      });
    }
    refuseRawValues(values ?? (typeof sql === 'string' ? undefined : sql.values));
    const answer = await this.readUnlessWrite<T>(method, text, sql, values);
    return answer ?? this.transaction((tx) => tx[method]<T>(sql, values));
  }

  /** Undefined: it writes, and there is a routing key to fence it by. Nothing was sent then. */
  private async readUnlessWrite<T extends QueryResult>(
    method: 'query' | 'execute',
    text: string,
    sql: string | QueryOptions,
    values: unknown,
  ): Promise<[T, FieldPacket[]] | undefined> {
    const session = await acquire(this.pool);
    let failed = true;
    try {
      const statement = classify(text, session.backslashEscapes);
      if (statement.kind !== 'read') {
        const ambient = contexts.getStore();
        if (statement.kind === 'write' && ambient?.target !== undefined && !ambient.inTransaction) {
          failed = false;
          return undefined;
        }
        if (statement.kind === 'write' && !ambient?.inTransaction && (await this.isUnrouted(text, session))) {
          const answer = await this.writeUnrouted<T>(session, ambient?.effects, method, sql, values);
          failed = false;
          return answer;
        }
        throw new InterlockError('StatementRefused', refusalOf(statement, ambient?.inTransaction), {
          details: { verb: statement.verb },
        });
      }
      if (statement.opaque) await session.command('START TRANSACTION READ ONLY');
      const { answer } = await session.run(method, sql, values, true);
      failed = false;
      return answer as [T, FieldPacket[]];
    } catch (error) {
      if (!isReadOnlyTransaction(error)) throw error;
      throw new InterlockError(
        'StatementRefused',
        'a read outside of a fenced transaction called something that writes: use interlock.mysql(pool).transaction(…)',
        { cause: error },
      );
    } finally {
      if (failed || session.inTransaction) await this.rollBack(session);
      else session.release();
    }
  }

  /** Whether the text plainly writes one table that is declared unrouted. */
  private async isUnrouted(text: string, session: Session): Promise<boolean> {
    if (this.unrouted?.size === 0) return false;
    const target = writeTarget(text, session.backslashEscapes);
    const schema = target?.schema ?? session.database;
    if (target === undefined || schema === undefined) return false;
    const names = this.unrouted ?? (await this.rules.unrouted?.());
    return names?.has(`${schema}.${target.table}`) === true;
  }

  /** By itself, as the pool would do it; what it commits counts in the request that it belongs to. */
  private async writeUnrouted<T extends QueryResult>(
    session: Session,
    effects: Effects | undefined,
    method: 'query' | 'execute',
    sql: string | QueryOptions,
    values: unknown,
  ): Promise<[T, FieldPacket[]]> {
    if (effects) assertNotRefused(effects);
    let kept = true;
    effects?.commitBegins();
    try {
      const { answer } = await session.run(method, sql, values, true);
      // Where autocommit is off, it has begun a transaction.
      if (session.inTransaction) await session.command('COMMIT');
      return answer as [T, FieldPacket[]];
    } catch (error) {
      if (damageOf(error) === 'connection') {
        throw new InterlockError(
          'CommitUnknown',
          `the connection was lost during a write to an unrouted table: ${messageOf(error)}. It may have been committed`,
          { cause: error },
        );
      }
      kept = false;
      if (isReadOnlyServer(error)) throw readOnlyError(new Map(), error);
      throw error;
    } finally {
      effects?.commitEnds(kept);
    }
  }
}

function tableOption(name: string): string {
  if (/^[^.]+\.[^.]+$/.test(name)) return name;
  throw new InterlockError('BadInput', `unrouted: ${JSON.stringify(name)}: expected schema.table`, {
    details: { field: 'unrouted', value: name },
  });
}

function refusalOf(
  statement: Exclude<Statement, { kind: 'read' }>,
  inTransaction: boolean | undefined,
): string {
  const { verb } = statement;
  if (statement.kind === 'refused') return `${verb} is refused, in transaction(…) too: ${statement.reason}`;
  if (inTransaction === true)
    return `${verb} by the store inside of a transaction is not part of it: use tx.query(…)`;
  return `${verb} without a routing key: use interlock.mysql(pool).transaction({ userId, region }, (tx) => tx.query(…)), interlock.run(key, …) or the HTTP middleware`;
}

function isList(key: Target | readonly Target[]): key is readonly Target[] {
  return Array.isArray(key);
}

function noControlSchema(error: unknown): InterlockError {
  return new InterlockError(
    'Refused',
    `interlock.unit_state cannot be read (${messageOf(error)}): the store needs the control schema (interlock rules init) and this account SELECT on interlock.unit_state`,
    { cause: error },
  );
}
