import type { FieldPacket, Pool, QueryOptions, QueryResult } from 'mysql2';
import { InterlockError, isInterlockError, messageOf } from '../../errors.js';
import type { Router } from '../../routing/rules.js';
import type { UnitId } from '../../routing/units.js';
import { afterEffects, assertNotRefused, contexts, Effects, REFUSALS } from '../context.js';
import type { RulesSource } from '../rules-source.js';
import { unitsOfTargets } from '../target.js';
import type { Target, WantedUnit } from '../target.js';
import { checkRows, lockedError, lockStatement } from './fence-check.js';
import type { Flavour } from '../../fence/flavour.js';
import {
  abortedError,
  corePoolOf,
  damageOf,
  isDeadlock,
  isLockConflict,
  isReadOnlyTransaction,
  SERVER_STATUS_IN_TRANS,
  Session,
} from './session.js';
import type { MysqlPool, StatementResult } from './session.js';
import { classify } from './statement.js';
import { TransactionHandle, UnitAdded } from './transaction.js';
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

const flavours = new WeakMap<Pool, Promise<Flavour>>();

/** One MySQL or MariaDB store of this DC behind the fence. Get it by `interlock.mysql(pool)`. */
export class FencedMysql {
  private readonly pool: Pool;

  constructor(
    pool: MysqlPool,
    readonly store: string,
    private readonly rules: RulesSource,
  ) {
    this.pool = corePoolOf(pool);
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
    const deadline = deadlineOf(options);
    try {
      return await this.tries(
        isList(key) ? [...key] : [key],
        work,
        options?.retries ?? 0,
        effects,
        deadline.signal,
        ambient?.target,
      );
    } catch (error) {
      throw afterEffects(error, effects, REFUSALS);
    } finally {
      deadline.clear();
    }
  }

  /**
   * A read on any connection of the pool, not fenced: it may be answered in a DC that is not the owner any more. Writes are refused.
   * A statement that may call a stored function runs in a READ ONLY transaction (with `multipleStatements` every read does).
   */
  async query<T extends QueryResult>(
    sql: string | QueryOptions,
    values?: unknown,
  ): Promise<[T, FieldPacket[]]> {
    return this.read<T>('query', sql, values);
  }

  /** As `query`, prepared on the server. */
  async execute<T extends QueryResult>(
    sql: string | QueryOptions,
    values?: unknown,
  ): Promise<[T, FieldPacket[]]> {
    return this.read<T>('execute', sql, values);
  }

  private async tries<R>(
    targets: Target[],
    work: (tx: FencedTransaction) => Promise<R>,
    retries: number,
    effects: Effects,
    signal: AbortSignal | undefined,
    ambientTarget: Target | readonly Target[] | undefined,
  ): Promise<R> {
    let refreshed = false;
    for (;;) {
      const effectsOfTry = new Effects(effects);
      try {
        const wanted = await this.wanted(targets);
        return await this.once(wanted, work, effectsOfTry, signal, ambientTarget);
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

  private async wanted(targets: readonly Target[]): Promise<WantedUnit[]> {
    if (this.rules.current() === undefined && targets.some((target) => 'userId' in target)) {
      await this.rules.refresh();
    }
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
    signal: AbortSignal | undefined,
    ambientTarget: Target | readonly Target[] | undefined,
  ): Promise<R> {
    assertNotRefused(effects);
    const { session, epochs } = await this.begin(wanted, signal);
    const handle: TransactionHandle = new TransactionHandle(session, epochs, {
      has: (target) =>
        unitsOfTargets([target], () => this.router()).every(({ unit }) => handle.epochs.has(unit)),
      lockMore: async (target) => {
        const [more] = unitsOfTargets([target], () => this.router());
        const all = [...wanted, more!].sort((a, b) => (a.unit < b.unit ? -1 : 1));
        handle.epochs = await this.lock(session, all);
        wanted = all;
      },
    });
    let giveUp: ((error: Error) => void) | undefined;
    const onAbort = (): void => {
      const error = abortedError(signal!);
      handle.end(error);
      session.destroy(error);
      giveUp?.(error);
    };
    signal?.addEventListener('abort', onAbort, { once: true });
    try {
      if (signal?.aborted) onAbort();
      const running = contexts.run({ target: ambientTarget, effects }, async () => work(handle));
      const value =
        signal === undefined
          ? await running
          : await Promise.race([running, new Promise<never>((_resolve, reject) => (giveUp = reject))]);
      await handle.settle();
      await this.commit(session, effects, handle.statements > 0);
      return value;
    } catch (error) {
      // A callback may swallow or wrap what ended the transaction: what happened to the transaction counts.
      const cause = handle.endedBy instanceof UnitAdded ? handle.endedBy : error;
      handle.end(new InterlockError('StatementRefused', 'the transaction was rolled back', { cause }));
      await handle.idle();
      await this.rollBack(session, cause);
      throw await this.explained(cause, wanted, signal);
    } finally {
      signal?.removeEventListener('abort', onAbort);
    }
  }

  /** A connection with an open transaction that holds the units' locks. */
  private async begin(
    wanted: readonly WantedUnit[],
    signal: AbortSignal | undefined,
  ): Promise<{ session: Session; epochs: Map<UnitId, number> }> {
    for (let attempt = 1; ; attempt++) {
      const session = await Session.acquire(this.pool, signal);
      const onAbort = (): void => session.destroy(abortedError(signal!));
      signal?.addEventListener('abort', onAbort, { once: true });
      try {
        return { session, epochs: await this.lock(session, wanted, 'START TRANSACTION') };
      } catch (error) {
        await this.rollBack(session, error);
        if (isInterlockError(error) || damageOf(error) !== 'connection') throw schemaError(error);
        if (attempt >= DEAD_CONNECTIONS) {
          throw new InterlockError('Unavailable', `no connection to the store: ${messageOf(error)}`, {
            retryable: true,
            cause: error,
            details: { what: 'mysql' },
          });
        }
      } finally {
        signal?.removeEventListener('abort', onAbort);
      }
    }
  }

  /** Locks and checks the units' rows; with `first`, in the same round trip where the pool allows several statements. */
  private async lock(
    session: Session,
    wanted: readonly WantedUnit[],
    first?: 'START TRANSACTION',
  ): Promise<Map<UnitId, number>> {
    const units = wanted.map(({ unit }) => unit);
    const select = lockStatement(await this.flavour(session), units);
    let answer: StatementResult;
    let rows: unknown;
    try {
      if (first !== undefined && session.multipleStatements) {
        answer = await session.internal(`${first}; ${select}`);
        rows = (answer.result as unknown[])[1];
      } else {
        if (first !== undefined) await session.internal(first);
        answer = await session.internal(select);
        rows = answer.result;
      }
    } catch (error) {
      if (!isLockConflict(error)) throw error;
      throw lockedError(units, this.rules.current()?.routeUnit(units[0]!), error);
    }
    return checkRows(rows, wanted);
  }

  private flavour(session: Session): Promise<Flavour> {
    let flavour = flavours.get(this.pool);
    if (flavour === undefined) {
      flavour = session
        .internal('SELECT VERSION()')
        .then(({ result }) =>
          /mariadb/i.test(String((result as unknown[][])[0]?.[0])) ? 'mariadb' : 'mysql',
        );
      flavour.catch(() => flavours.delete(this.pool));
      flavours.set(this.pool, flavour);
    }
    return flavour;
  }

  private async commit(session: Session, effects: Effects, changed: boolean): Promise<void> {
    assertNotRefused(effects);
    let kept = true;
    effects.commitBegins();
    try {
      await session.internal('COMMIT');
      kept = changed;
    } catch (error) {
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
    if (((session.status ?? 0) & SERVER_STATUS_IN_TRANS) === 0) session.release();
    else await this.rollBack(session, undefined);
  }

  /** Gives the connection back clean, or ends it. */
  private async rollBack(session: Session, error: unknown): Promise<void> {
    const cause = isInterlockError(error, 'TransactionLost') ? error.cause : error;
    if (cause !== undefined && damageOf(cause) === 'connection') {
      session.destroy(error as Error);
      return;
    }
    try {
      const { statuses } = await session.internal('ROLLBACK');
      const last = statuses.at(-1);
      if (last !== undefined && (last & SERVER_STATUS_IN_TRANS) === 0) session.release();
      else
        session.destroy(new InterlockError('Internal', 'the connection is in a transaction after ROLLBACK'));
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
    signal: AbortSignal | undefined,
  ): Promise<unknown> {
    if (!isInterlockError(error, 'TransactionLost') || signal?.aborted === true) return error;
    if (error.cause === undefined || damageOf(error.cause) !== 'connection') return error;
    try {
      const { session } = await this.begin(wanted, signal);
      await this.rollBack(session, undefined);
      return error;
    } catch (refusal) {
      const said =
        isInterlockError(refusal) &&
        ['WriteDisabled', 'NotOwner', 'ServerIdentityChanged'].includes(refusal.code);
      return said ? refusal : error;
    }
  }

  private async read<T extends QueryResult>(
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
    const session = await Session.acquire(this.pool);
    let failure: unknown;
    try {
      const statement = classify(text, session.backslashEscapes);
      if (statement.kind !== 'read') {
        throw new InterlockError(
          'StatementRefused',
          `${statement.verb} outside of a fenced transaction: use interlock.mysql(pool).transaction({ userId, region }, (tx) => tx.query(…))` +
            (statement.kind === 'refused' ? `; and there too it is refused: ${statement.reason}` : ''),
          { details: { verb: statement.verb } },
        );
      }
      if (statement.opaque) await session.internal('START TRANSACTION READ ONLY');
      const answer = await session.run(method, sql, values);
      return [answer.result as T, answer.fields];
    } catch (error) {
      failure = error;
      if (!isReadOnlyTransaction(error)) throw error;
      throw new InterlockError(
        'StatementRefused',
        'a read outside of a fenced transaction called something that writes: use interlock.mysql(pool).transaction(…)',
        { cause: error },
      );
    } finally {
      const clean = failure === undefined && ((session.status ?? 0) & SERVER_STATUS_IN_TRANS) === 0;
      if (clean) session.release();
      else await this.rollBack(session, failure);
    }
  }
}

function isList(key: Target | readonly Target[]): key is readonly Target[] {
  return Array.isArray(key);
}

function deadlineOf(options: TransactionOptions | undefined): {
  signal: AbortSignal | undefined;
  clear: () => void;
} {
  const timeoutMs = options?.timeoutMs ?? DEFAULT_TIMEOUT_MS;
  if (timeoutMs === 0) return { signal: options?.signal, clear: () => undefined };
  const controller = new AbortController();
  const timer = setTimeout(
    () => controller.abort(new DOMException('timeoutMs is over', 'TimeoutError')),
    timeoutMs,
  );
  const signal =
    options?.signal === undefined ? controller.signal : AbortSignal.any([controller.signal, options.signal]);
  return { signal, clear: () => clearTimeout(timer) };
}

const ER_SCHEMA = new Set([1044, 1049, 1142, 1146]);

function schemaError(error: unknown): unknown {
  const { errno } = (error ?? {}) as { errno?: number };
  if (errno === undefined || !ER_SCHEMA.has(errno)) return error;
  return new InterlockError(
    'Refused',
    `interlock.unit_state cannot be read (${messageOf(error)}): the store needs the control schema (interlock rules init) and this account SELECT on interlock.unit_state`,
    { cause: error },
  );
}
