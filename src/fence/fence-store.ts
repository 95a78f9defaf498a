import { format } from 'mysql2/promise';
import type { Pool, PoolConnection, RowDataPacket } from 'mysql2/promise';
import { InterlockError } from '../errors.js';
import { Router, unitsOf } from '../routing/rules.js';
import type { Rules } from '../routing/rules.js';
import type { DcId, UnitId } from '../routing/units.js';
import { assertedState, checkAssertion } from './assertion.js';
import { BlockerWatch } from './blockers.js';
import { CONTROL_SCHEMA, CONTROL_TABLES } from './control-schema.js';
import { identityExpression, positionExpression } from './flavour.js';
import type { Flavour } from './flavour.js';
import { checkChange, verdictOf } from './guard.js';
import type { GuardContext } from './guard.js';
import {
  ER_DUP_ENTRY,
  ER_LOCK_DEADLOCK,
  ER_LOCK_WAIT_TIMEOUT,
  errnoOf,
  isConnectionLost,
  isInterrupted,
} from './mysql-errors.js';
import {
  ReadOnlyBlocked,
  ReadOnlySwitch,
  forgotten,
  lift,
  moveTo,
  needsLevel,
  recordOf,
} from './read-only.js';
import { rulesInTheWay, rulesInsert } from './rules-store.js';
import { ABANDONED_AFTER_SECONDS, FORGIVING, ask, bounds, openSession } from './session.js';
import type { Blocker, ChangeResult, FenceBudget, Marker, UnitChange, UnitState } from './types.js';
import { unavailable } from './unavailable.js';
import type { Evidence, LinkCheckpoint, UnitFence } from './unit-fence.js';

export interface FenceStoreOptions {
  dc: DcId;
  /** `main`: the store's name in the topology. */
  store: string;
  pool: Pool;
  flavour: Flavour;
  /** The server ends a change whose client is silent for so long with the rows locked (default 30). */
  abandonedAfterSeconds?: number;
}

export interface ChangeHooks {
  /** Runs under the rows' locks, given the rows as they were; when it fails, nothing is changed. */
  beforeCommit?: (before: UnitState[]) => Promise<void>;
}

const DEFAULT_BUDGET: FenceBudget = { budgetMs: 5_000, blockers: 'give-up' };
/** InnoDB's lock wait is the back-stop behind the watch: whole seconds, well past budget and kill grace. */
const LOCK_WAIT_MARGIN_MS = 3_000;
/**
 * Units per statement. Hazard: of an `IN (…)` that names most rows of the table, MySQL makes a scan, which waits for transactions of
 * other units. Few enough are ranges of the primary key on both flavours.
 */
export const UNITS_PER_STATEMENT = 100;
const ATTEMPTS = 5;
const XA_LOOK_AGAIN_MS = 10;
const XA_RECOVER = 'XA RECOVER';

const COLUMNS = 'unit, state, owner, epoch, mapping_version, server, holder_workflow, holder_run';

/** The fence of one MySQL store: `interlock.unit_state` and what is written with it. Safe to call late, twice and from many processes. */
export class FenceStore implements UnitFence {
  readonly kind = 'mysql';
  readonly dc: DcId;
  readonly store: string;
  /** Names the store in messages: `dc-a mysql/main`. */
  readonly name: string;
  readonly flavour: Flavour;
  readonly pool: Pool;
  /** `read_only` of the server: writers without the SDK, when the whole data center is write-disabled. */
  readonly readOnly: ReadOnlySwitch;
  private readonly abandonedAfterSeconds: number;

  constructor(options: FenceStoreOptions) {
    this.dc = options.dc;
    this.store = options.store;
    this.name = `${options.dc} mysql/${options.store}`;
    this.flavour = options.flavour;
    this.pool = options.pool;
    this.readOnly = new ReadOnlySwitch(options.pool, options.flavour);
    this.abandonedAfterSeconds = options.abandonedAfterSeconds ?? ABANDONED_AFTER_SECONDS;
  }

  /** Creates the schema `interlock` and its tables where they are missing; what is there is not written to the binlog again. */
  async ensureSchema(): Promise<void> {
    await this.guarded(async () => {
      const there = await this.controlTables();
      if (there === null) await this.pool.query(`CREATE DATABASE IF NOT EXISTS ${CONTROL_SCHEMA}`);
      for (const [name, statement] of Object.entries(CONTROL_TABLES)) {
        if (there?.has(name) !== true) await this.pool.query(statement);
      }
    });
  }

  /** The tables that a newer Interlock has, in a store that was set up before. */
  async upgradeSchema(): Promise<void> {
    const there = await this.guarded(() => this.controlTables());
    if (there?.has('unit_state') === true) await this.ensureSchema();
  }

  /** null: there is no control schema. */
  private async controlTables(): Promise<Set<string> | null> {
    const [rows] = await this.pool.query<RowDataPacket[]>(
      `SELECT t.table_name AS name FROM information_schema.schemata s LEFT JOIN information_schema.tables t ON t.table_schema = s.schema_name
       WHERE s.schema_name = ?`,
      [CONTROL_SCHEMA],
    );
    return rows.length === 0 ? null : new Set(rows.map((row) => String(row['name'])));
  }

  /** The identity of the server that answers (server_uuid; MariaDB: server_uid). */
  async identity(): Promise<string> {
    return this.scalar(identityExpression(this.flavour));
  }

  /** Everything this server has committed: gtid_executed, or gtid_binlog_pos on MariaDB. */
  async position(): Promise<string> {
    return (await this.scalar(positionExpression(this.flavour))).replaceAll('\n', '');
  }

  /** Opens the sessions that a fence needs, and goes through its messages with no rows, so that the fenced window pays for neither. */
  async warm(): Promise<void> {
    await this.guarded(async () => {
      const sessions = await Promise.all([openSession(this.pool), openSession(this.pool)]);
      for (const session of sessions) session.release();
      await this.withRetries(async (deadline) => {
        const session = await openSession(this.pool);
        let done = false;
        try {
          await this.lockRows(session, [''], DEFAULT_BUDGET, deadline, [XA_RECOVER]);
          await ask(session, ['COMMIT', FORGIVING, `SELECT ${positionExpression(this.flavour)}`], 1);
          done = true;
        } finally {
          finish(session, done);
        }
      });
    });
  }

  /** The rows of `units` (all when absent), by unit. */
  async states(units?: readonly UnitId[]): Promise<UnitState[]> {
    return this.guarded(async () => {
      if (units === undefined) {
        const [rows] = await this.pool.query<RowDataPacket[]>(
          `SELECT ${COLUMNS} FROM interlock.unit_state ORDER BY unit`,
        );
        return rows.map(toUnitState);
      }
      const states: UnitState[] = [];
      for (const batch of batches(sortedUnique(units))) {
        const [rows] = await this.pool.query<RowDataPacket[]>(
          `SELECT ${COLUMNS} FROM interlock.unit_state WHERE unit IN (?) ORDER BY unit`,
          [batch],
        );
        states.push(...rows.map(toUnitState));
      }
      return states;
    });
  }

  /**
   * The rows of `units`, the server that answers (null: it has none of them), its prepared XA transactions, and whether it has forgotten that it
   * is to be read_only, in one message.
   */
  async evidence(units: readonly UnitId[]): Promise<Evidence> {
    return this.guarded(async () => {
      const looks = batches(sortedUnique(units)).map((batch) =>
        format(
          `SELECT ${COLUMNS}, ${identityExpression(this.flavour)} AS answers FROM interlock.unit_state WHERE unit IN (?) ORDER BY unit`,
          [batch],
        ),
      );
      const asked = [...looks, XA_RECOVER, recordOf(this.flavour)];
      const answers = await ask(this.pool, asked, asked.length);
      const record = answers.pop()!;
      const prepared = answers.pop()!;
      const rows = answers.flat();
      return {
        states: rows.map(toUnitState),
        server: rows.length === 0 ? null : String(rows[0]!['answers']),
        preparedXa: xaNames(prepared),
        readOnlyForgotten: forgotten(record),
      };
    });
  }

  /** The highest epoch of any unit here; 0 when there is none. */
  async highestEpoch(): Promise<number> {
    return Number(await this.scalar('(SELECT COALESCE(MAX(epoch), 0) FROM interlock.unit_state)'));
  }

  /** Prepared XA transactions, as XA RECOVER names them. MariaDB releases their locks at XA PREPARE: a fence does not wait for them. */
  async preparedXa(): Promise<string[]> {
    return this.guarded(async () => {
      const [rows] = await this.pool.query<RowDataPacket[]>(XA_RECOVER);
      return xaNames(rows);
    });
  }

  /** The checkpoints of links that apply into this store. */
  async checkpointMarkers(links: readonly string[]): Promise<LinkCheckpoint[]> {
    if (links.length === 0) return [];
    return this.guarded(async () => {
      const [rows] = await this.pool.query<RowDataPacket[]>(
        `SELECT link, generation, position, marker,
          (SELECT COUNT(*) FROM interlock.conflict o WHERE o.link = c.link AND o.state <> 'resolved') AS conflicts,
          (SELECT COUNT(*) FROM interlock.quarantine o WHERE o.link = c.link AND o.state IN ('open','retry')) AS quarantined
         FROM interlock.link_checkpoint c WHERE link IN (?)`,
        [links],
      );
      return rows.map((row) => ({
        link: String(row['link']),
        generation: Number(row['generation']),
        position: String(row['position']),
        marker: row['marker'] === null ? null : String(row['marker']),
        conflicts: Number(row['conflicts']),
        quarantined: Number(row['quarantined']),
      }));
    });
  }

  /**
   * Changes the state of some units, and writes the marker and the rules document that go with it, in one transaction.
   * When it has committed as `write_disabled`, no fenced write of the units is in flight or can start here.
   *
   * Idempotent: a repeat with the same content answers `changed: false`. Nothing is changed when it fails with
   * StaleEpoch, EpochConflict, HeldByOther, NotOwner, ServerIdentityChanged, Refused, BadInput or FenceBudgetExceeded
   * (`details.blockers`: Blocker[]), but for a FenceBudgetExceeded with `details.committed`: the fence is made, and a prepared XA
   * transaction may still commit behind it. Unavailable means that nobody knows: repeat it.
   */
  async change(
    change: UnitChange,
    budget: FenceBudget = DEFAULT_BUDGET,
    hooks: ChangeHooks = {},
  ): Promise<ChangeResult> {
    return this.carryOut(change, budget, 'change', hooks);
  }

  /**
   * Compensation at the target: writes a higher epoch into its rows, so that a late `open` of a dead attempt fails with StaleEpoch.
   * `change.to` is `remote`. Fails with AlreadySwitched when a row is not remote: the switch has happened.
   */
  async raise(change: UnitChange, budget: FenceBudget = DEFAULT_BUDGET): Promise<ChangeResult> {
    if (change.to !== 'remote') {
      throw new InterlockError('BadInput', `${this.name}: raise keeps units remote, not ${change.to}`);
    }
    return this.carryOut(change, budget, 'raise');
  }

  /** Opens units again at the source (compensation). Fails with AlreadySwitched when a row is remote: it was handed over. */
  async reopen(change: UnitChange, budget: FenceBudget = DEFAULT_BUDGET): Promise<ChangeResult> {
    if (change.to !== 'open') {
      throw new InterlockError('BadInput', `${this.name}: reopen opens units, not ${change.to}`);
    }
    return this.carryOut(change, budget, 'reopen');
  }

  /** Writes the rows that are missing, as `rules` say; rows that are there stay as they are. */
  async addMissing(rules: Rules): Promise<{ written: UnitId[]; server: string }> {
    return this.assert(rules, 'missing');
  }

  /**
   * Writes what `rules` say into every row that is missing or was asserted on another server; other rows stay as they are.
   * The caller has made sure that both DCs agree on `rules` and that no switchover is under way.
   *
   * Errors: StaleEpoch when a row is newer than the rules; EpochConflict when a row of the rules' epoch is write-disabled and the rules say open.
   */
  async reassert(rules: Rules): Promise<{ written: UnitId[]; server: string }> {
    const asserted = await this.assert(rules, 'missing or of another server');
    await this.mendReadOnly();
    return asserted;
  }

  private async assert(
    rules: Rules,
    which: 'missing' | 'missing or of another server',
  ): Promise<{ written: UnitId[]; server: string }> {
    return this.withRetries(async (deadline) => {
      const session = await openSession(this.pool);
      let done = false;
      try {
        const units = unitsOf(rules).sort();
        const { rows, server } = await this.lockRows(session, units, DEFAULT_BUDGET, deadline);
        const router = new Router(rules);
        const missing = units.filter((unit) => !rows.has(unit));
        const foreign =
          which === 'missing'
            ? []
            : units.filter((unit) => rows.has(unit) && rows.get(unit)!.server !== server);
        for (const unit of foreign) checkAssertion(this.name, rows.get(unit)!, rules, router);
        const row = (unit: UnitId): unknown[] => this.assertedRow(unit, rules, router, server);
        // A row that somebody else inserts in the meantime is not locked here: it stays as it is.
        for (const batch of batches(missing.map(row))) {
          await session.query(
            `INSERT INTO interlock.unit_state (${COLUMNS}) VALUES ? ON DUPLICATE KEY UPDATE unit = VALUES(unit)`,
            [batch],
          );
        }
        for (const batch of batches(foreign.map(row))) {
          await session.query(
            `INSERT INTO interlock.unit_state (${COLUMNS}) VALUES ? ON DUPLICATE KEY UPDATE
               state = VALUES(state), owner = VALUES(owner), epoch = VALUES(epoch), mapping_version = VALUES(mapping_version),
               server = VALUES(server), holder_workflow = VALUES(holder_workflow), holder_run = VALUES(holder_run)`,
            [batch],
          );
        }
        const ended = which === 'missing' ? [] : [moveTo(server)];
        await session.query([...ended, 'COMMIT', FORGIVING].join(';'));
        done = true;
        return { written: [...missing, ...foreign].sort(), server };
      } finally {
        finish(session, done);
      }
    });
  }

  private assertedRow(unit: UnitId, rules: Rules, router: Router, server: string): unknown[] {
    const { state, owner, epoch, mappingVersion, holder } = assertedState(
      unit,
      this.dc,
      rules,
      router,
      server,
    );
    const held = [holder?.workflowId ?? null, holder?.runId ?? null];
    return [unit, state, owner, epoch, mappingVersion, server, ...held];
  }

  private async carryOut(
    change: UnitChange,
    budget: FenceBudget,
    mode: GuardContext['mode'],
    hooks: ChangeHooks = {},
  ): Promise<ChangeResult> {
    checkChange(change, { store: this.name, dc: this.dc, server: '', mode });
    const started = performance.now();
    return this.withRetries(
      (deadline, met) => this.once(change, budget, mode, hooks, deadline, started, met),
      budget,
    );
  }

  private async once(
    change: UnitChange,
    budget: FenceBudget,
    mode: GuardContext['mode'],
    hooks: ChangeHooks,
    deadline: number,
    started: number,
    met: Blocker[],
  ): Promise<ChangeResult> {
    const session = await openSession(this.pool);
    let done = false;
    try {
      const units = sortedUnique(change.units);
      // A message with its answer costs more than what is asked in it: one up to the locks, one up to the commit.
      const { marker, rules: document } = change;
      const asked = [
        ...(change.to === 'write_disabled' ? [XA_RECOVER] : []),
        ...(marker === undefined
          ? []
          : [format('SELECT id FROM interlock.marker WHERE id = ?', [marker.id])]),
        ...(document === undefined ? [] : rulesInTheWay(document)),
      ];
      const locked = await this.lockRows(session, units, budget, deadline, asked);
      const { rows, server } = locked;
      met.push(...locked.blockers);
      const waitedMs = performance.now() - started;
      const context = { store: this.name, dc: this.dc, server, mode };
      const apply = units.filter((unit) => verdictOf(unit, rows.get(unit), change, context) === 'apply');
      if (change.to === 'write_disabled')
        await this.awaitNoXa(session, deadline, met, locked.answers.shift()!, false);
      const writes = batches(apply).map((batch) => updateOf(batch, change));
      if (change.to === 'open' && writes.length > 0) writes.push(lift(change, server));
      if (marker !== undefined && locked.answers.shift()!.length === 0) writes.push(insertOf(marker));
      if (document !== undefined) writes.push(...rulesInsert(this.name, document, locked.answers.at(-1)!));
      await hooks.beforeCommit?.([...rows.values()]);
      // Under the locks: the writers that the rows stop are stopped by them, with their own answer.
      if (change.readOnly === true) {
        const found = await this.disableWrites(change, server, budget, deadline).catch(
          async (error: unknown) => {
            // Hazard: rows that are as they should be were fenced by an attempt of before; its read_only is not this one's to take back.
            if (apply.length > 0) await this.takeBack(session, change, server);
            throw error;
          },
        );
        met.push(...found);
      }
      // The binlog position covers the marker only when it is read after the commit. A transaction that was being prepared as XA when the
      // locks were taken is seen now at the latest.
      const position = `SELECT ${positionExpression(this.flavour)} AS position`;
      const opening = change.to === 'open';
      const looks = [position, XA_RECOVER, ...(opening ? [recordOf(this.flavour)] : [])];
      const [committed, prepared, record] = await ask(
        session,
        [...writes, 'COMMIT', FORGIVING, ...looks],
        looks.length,
      );
      if (change.to === 'write_disabled') await this.awaitNoXa(session, deadline, met, prepared!, true);
      done = true;
      // Behind the commit: until then the units are not this data center's to write.
      if (opening && needsLevel(record!)) await this.enableWrites();
      return {
        changed: writes.length > 0,
        position: String(committed![0]!['position']).replaceAll('\n', ''),
        server,
        blockers: met,
        waitedMs,
      };
    } finally {
      finish(session, done);
    }
  }

  /**
   * Starts a transaction and locks the rows in the order of their units, as every fenced transaction does, within the budget. `answers`
   * are those to the statements `asked`, which are carried out when all is locked.
   */
  private async lockRows(
    session: PoolConnection,
    units: readonly UnitId[],
    budget: FenceBudget,
    deadline: number,
    asked: readonly string[] = [],
  ): Promise<{
    rows: Map<UnitId, UnitState>;
    server: string;
    blockers: Blocker[];
    answers: RowDataPacket[][];
  }> {
    const watch = new BlockerWatch(
      this.pool,
      this.flavour,
      session.threadId,
      budget.blockers,
      deadline - performance.now(),
    );
    const rows = new Map<UnitId, UnitState>();
    let server: string | undefined;
    let answers: RowDataPacket[][] = [];
    let failure: unknown;
    try {
      const locks = batches(units).map((batch) =>
        format(
          `SELECT ${COLUMNS}, ${identityExpression(this.flavour)} AS answers
           FROM interlock.unit_state FORCE INDEX (PRIMARY) WHERE unit IN (?) ORDER BY unit FOR UPDATE`,
          [batch],
        ),
      );
      const found = await ask(
        session,
        [
          bounds(this.abandonedAfterSeconds, lockWaitSeconds(budget)),
          'START TRANSACTION',
          ...locks,
          ...asked,
        ],
        locks.length + asked.length,
      );
      for (const row of found.slice(0, locks.length).flat()) {
        server = String(row['answers']);
        const state = toUnitState(row);
        rows.set(state.unit, state);
      }
      answers = found.slice(locks.length);
    } catch (error) {
      failure = error;
    } finally {
      await watch.stop();
    }
    const timedOut = isInterrupted(failure) || errnoOf(failure) === ER_LOCK_WAIT_TIMEOUT;
    if (watch.gaveUp || timedOut) throw this.budgetExceeded(budget, watch.blockers);
    if (failure !== undefined) throw failure as Error;
    return { rows, server: server ?? (await this.identityIn(session)), blockers: watch.blockers, answers };
  }

  private async disableWrites(
    change: UnitChange,
    server: string,
    budget: FenceBudget,
    deadline: number,
  ): Promise<Blocker[]> {
    try {
      return await this.readOnly.turnOn(change, server, budget.blockers, deadline);
    } catch (error) {
      if (!(error instanceof ReadOnlyBlocked)) throw error;
      throw this.budgetExceeded(
        budget,
        error.blockers,
        'statements or table locks (LOCK TABLES) kept read_only waiting beyond',
      );
    }
  }

  /** In the session with the locks: when that is gone, another attempt may have them, and what it wants stands. */
  private async takeBack(session: PoolConnection, change: UnitChange, server: string): Promise<void> {
    await session.query(`${lift(change, server)};COMMIT`);
    await this.readOnly.level('give-up', performance.now() + DEFAULT_BUDGET.budgetMs);
  }

  /** What keeps it waiting (a table lock of an account that read_only does not bind, say) is passing: the rule center tries again, too. */
  private async enableWrites(): Promise<void> {
    await this.orUnavailable(
      'the units are open, and read_only could not be turned off',
      this.readOnly.level('give-up', performance.now() + DEFAULT_BUDGET.budgetMs),
    );
  }

  /** `read_only` as it should be, after a restart of the server or a fence that died. Answers what was done, if anything. */
  async mendReadOnly(): Promise<'turned on' | 'turned off' | undefined> {
    return this.orUnavailable('read_only could not be set', this.readOnly.mend());
  }

  private async orUnavailable<T>(what: string, done: Promise<T>): Promise<T> {
    try {
      return await done;
    } catch (error) {
      if (!(error instanceof ReadOnlyBlocked)) throw unavailable(this.name, error);
      throw new InterlockError(
        'Unavailable',
        `${this.name}: ${what}: statements and table locks are in the way`,
        {
          cause: error,
          retryable: true,
        },
      );
    }
  }

  private budgetExceeded(
    budget: FenceBudget,
    blockers: Blocker[],
    what = 'transactions in flight outlived',
  ): InterlockError {
    const list = blockers.map(
      (b) =>
        `connection ${b.connectionId} (${b.user}@${b.host}, since ${b.since}): ${b.statement ?? 'idle in its transaction'}`,
    );
    return new InterlockError(
      'FenceBudgetExceeded',
      `${this.name}: ${what} the budget of ${budget.budgetMs} ms, nothing was changed. ${list.join('; ')}`,
      { details: { store: this.name, budgetMs: budget.budgetMs, blockers } },
    );
  }

  /**
   * A prepared XA transaction may commit later. MariaDB has released its locks: the fence would hold, and the write would land
   * behind the marker. Waits for an empty XA RECOVER until the budget is over.
   */
  private async awaitNoXa(
    session: PoolConnection,
    deadline: number,
    met: Blocker[],
    found: RowDataPacket[],
    committed: boolean,
  ): Promise<void> {
    for (let rows = found; rows.length > 0; [rows] = await session.query<RowDataPacket[]>(XA_RECOVER)) {
      const prepared = xaNames(rows);
      if (performance.now() > deadline) {
        throw new InterlockError(
          'FenceBudgetExceeded',
          `${this.name}: prepared XA transactions may still commit behind the fence: ${prepared.join(', ')}. XA COMMIT or XA ROLLBACK them`,
          { details: { store: this.name, xa: prepared, blockers: met, committed } },
        );
      }
      await new Promise((resolve) => setTimeout(resolve, XA_LOOK_AGAIN_MS));
    }
  }

  /** Deadlocks and lost connections are repeated: every operation here is idempotent. */
  private async withRetries<T>(
    operation: (deadline: number, met: Blocker[]) => Promise<T>,
    budget: FenceBudget = DEFAULT_BUDGET,
  ): Promise<T> {
    const deadline = performance.now() + budget.budgetMs;
    const met: Blocker[] = [];
    for (let attempt = 1; ; attempt++) {
      try {
        return await operation(deadline, met);
      } catch (error) {
        // A duplicate: two first documents at once, there was no row to take turns at.
        const repeatable = [ER_LOCK_DEADLOCK, ER_DUP_ENTRY].includes(errnoOf(error) ?? 0);
        const again = repeatable || isConnectionLost(error);
        if (!again || attempt >= ATTEMPTS) throw unavailable(this.name, error);
      }
    }
  }

  private async identityIn(session: PoolConnection): Promise<string> {
    const [rows] = await session.query<RowDataPacket[]>(
      `SELECT ${identityExpression(this.flavour)} AS server`,
    );
    return String(rows[0]!['server']);
  }

  private async scalar(expression: string): Promise<string> {
    return this.guarded(async () => {
      const [rows] = await this.pool.query<RowDataPacket[]>(`SELECT ${expression} AS value`);
      return String(rows[0]!['value']);
    });
  }

  private async guarded<T>(operation: () => Promise<T>): Promise<T> {
    try {
      return await operation();
    } catch (error) {
      throw unavailable(this.name, error);
    }
  }
}

/** After an error nothing is known of the session's transaction: the connection goes, and the server rolls back. */
function finish(session: PoolConnection, done: boolean): void {
  if (done) session.release();
  else session.destroy();
}

function updateOf(units: readonly UnitId[], change: UnitChange): string {
  const mapping = units.filter((unit) => change.mappingVersions?.[unit] !== undefined);
  const cases = mapping.map(() => 'WHEN ? THEN ?').join(' ');
  const set = mapping.length === 0 ? '' : `, mapping_version = CASE unit ${cases} ELSE mapping_version END`;
  const versions = mapping.flatMap((unit) => [unit, change.mappingVersions![unit]]);
  const { to, owner, epoch, holder } = change;
  return format(
    `UPDATE interlock.unit_state FORCE INDEX (PRIMARY)
     SET state = ?, owner = ?, epoch = ?, holder_workflow = ?, holder_run = ?${set} WHERE unit IN (?)`,
    [to, owner, epoch, holder.workflowId, holder.runId, ...versions, [...units]],
  );
}

function insertOf(marker: Marker): string {
  return format(
    'INSERT INTO interlock.marker (id, workflow_id, run_id, epoch, created_at) VALUES (?, ?, ?, ?, UTC_TIMESTAMP(6))',
    [marker.id, marker.workflowId, marker.runId, marker.epoch],
  );
}

function lockWaitSeconds(budget: FenceBudget): number {
  return Math.max(1, Math.ceil((budget.budgetMs + LOCK_WAIT_MARGIN_MS) / 1000));
}

function toUnitState(row: RowDataPacket): UnitState {
  const workflowId = row['holder_workflow'] as string | null;
  const runId = row['holder_run'] as string | null;
  return {
    unit: String(row['unit']),
    state: row['state'] as UnitState['state'],
    owner: String(row['owner']),
    epoch: Number(row['epoch']),
    mappingVersion: Number(row['mapping_version']),
    server: String(row['server']),
    holder: workflowId === null ? null : { workflowId, runId: runId ?? '' },
  };
}

function xaNames(recovered: readonly RowDataPacket[]): string[] {
  return recovered.map((row) => String(row['data']));
}

/** Sorted as the primary key (ascii_bin) sorts. */
function sortedUnique(units: readonly UnitId[]): UnitId[] {
  return [...new Set(units)].sort();
}

function batches<T>(items: readonly T[]): T[][] {
  const result: T[][] = [];
  for (let at = 0; at < items.length; at += UNITS_PER_STATEMENT)
    result.push(items.slice(at, at + UNITS_PER_STATEMENT));
  return result;
}
