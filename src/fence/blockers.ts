import type { Pool, PoolConnection, RowDataPacket } from 'mysql2/promise';
import type { Flavour } from './flavour.js';
import { ER_NO_SUCH_THREAD, errnoOf } from './mysql-errors.js';
import type { Blocker, FenceBudget } from './types.js';

/** After the budget, transactions are killed as long as each such time brings a new one; then the fence is given up whatever the policy. */
const KILL_GRACE_MS = 2_000;
/**
 * How soon to look again. InnoDB's tables in information_schema are a copy that is renewed only when nobody has read it for 100 ms:
 * looking more often would show the same for ever.
 */
const LOOK_AGAIN_MS = 120;

// The connection is that of the transaction, not BLOCKING_THREAD_ID: a prepared XA transaction no longer belongs to the session that
// created the lock, and killing that one would hit a bystander.
const QUERIES: Record<Flavour, string> = {
  mysql: `
    SELECT DISTINCT t.trx_mysql_thread_id AS id, p.PROCESSLIST_USER AS user, p.PROCESSLIST_HOST AS host,
           UNIX_TIMESTAMP(t.trx_started) AS started, COALESCE(t.trx_query, s.SQL_TEXT) AS statement
    FROM performance_schema.data_lock_waits w
    JOIN performance_schema.threads r ON r.THREAD_ID = w.REQUESTING_THREAD_ID AND r.PROCESSLIST_ID = ?
    JOIN information_schema.innodb_trx t ON t.trx_id = w.BLOCKING_ENGINE_TRANSACTION_ID
    LEFT JOIN performance_schema.threads p ON p.PROCESSLIST_ID = t.trx_mysql_thread_id
    LEFT JOIN performance_schema.events_statements_current s ON s.THREAD_ID = p.THREAD_ID`,
  // MariaDB runs without performance_schema by default: an idle transaction's last statement is not known there.
  mariadb: `
    SELECT DISTINCT t.trx_mysql_thread_id AS id, p.USER AS user, p.HOST AS host,
           UNIX_TIMESTAMP(t.trx_started) AS started, COALESCE(t.trx_query, p.INFO) AS statement
    FROM information_schema.innodb_lock_waits w
    JOIN information_schema.innodb_trx r ON r.trx_id = w.requesting_trx_id AND r.trx_mysql_thread_id = ?
    JOIN information_schema.innodb_trx t ON t.trx_id = w.blocking_trx_id
    LEFT JOIN information_schema.processlist p ON p.ID = t.trx_mysql_thread_id`,
};

/** Statements under way and table locks, for which `SET GLOBAL read_only` waits; not Interlock's own (a link applies them). */
const READ_ONLY_QUERIES: Record<Flavour, string> = {
  mysql: `
    SELECT DISTINCT t.PROCESSLIST_ID AS id, t.PROCESSLIST_USER AS user, t.PROCESSLIST_HOST AS host,
           UNIX_TIMESTAMP(NOW(6)) - t.PROCESSLIST_TIME AS started, COALESCE(t.PROCESSLIST_INFO, s.SQL_TEXT) AS statement
    FROM performance_schema.metadata_locks m
    JOIN performance_schema.threads t ON t.THREAD_ID = m.OWNER_THREAD_ID AND t.PROCESSLIST_ID <> ?
    LEFT JOIN performance_schema.events_statements_current s ON s.THREAD_ID = t.THREAD_ID
    WHERE m.OBJECT_TYPE IN ('GLOBAL', 'COMMIT') AND m.LOCK_STATUS = 'GRANTED' AND m.LOCK_TYPE = 'INTENTION_EXCLUSIVE'
      AND t.PROCESSLIST_USER <> SUBSTRING_INDEX(CURRENT_USER(), '@', 1)`,
  // LOCK TABLES and a statement of another engine are not seen there.
  mariadb: `
    SELECT t.trx_mysql_thread_id AS id, p.USER AS user, p.HOST AS host,
           UNIX_TIMESTAMP(t.trx_started) AS started, t.trx_query AS statement
    FROM information_schema.innodb_trx t JOIN information_schema.processlist p ON p.ID = t.trx_mysql_thread_id
    WHERE t.trx_mysql_thread_id <> ? AND t.trx_query IS NOT NULL AND t.trx_tables_locked > 0
      AND p.USER <> SUBSTRING_INDEX(CURRENT_USER(), '@', 1) AND COALESCE(p.STATE, '') NOT LIKE 'Waiting for % lock'`,
};

/** What a session may wait for: locks of rows, or the right to set `read_only`. */
export type Awaited = 'rows' | 'read_only';

/** Who keeps connection `waiter` waiting now. Connection id 0 is a prepared XA transaction. */
export async function listBlockers(
  connection: PoolConnection,
  flavour: Flavour,
  waiter: number,
  awaited: Awaited = 'rows',
): Promise<Blocker[]> {
  const queries = awaited === 'rows' ? QUERIES : READ_ONLY_QUERIES;
  const [rows] = await connection.query<RowDataPacket[]>(queries[flavour], [waiter]);
  return rows.map((row) => ({
    connectionId: Number(row['id']),
    user: (row['user'] as string | null) ?? 'unknown',
    host: (row['host'] as string | null) ?? 'unknown',
    since: new Date(Number(row['started']) * 1000).toISOString(),
    statement: (row['statement'] as string | null) ?? null,
    killed: false,
  }));
}

/**
 * Watches one waiting session. When the budget is over, lists who holds it up and, by policy, kills them and goes on, or
 * interrupts the waiting statement. InnoDB's own lock wait has whole seconds only, and names nobody.
 */
export class BlockerWatch {
  readonly blockers: Blocker[] = [];
  /** The waiting statement was (or is being) interrupted: the change must be rolled back, even when the lock came in between. */
  gaveUp = false;
  private stopped = false;
  private readonly timer: NodeJS.Timeout;
  private loop: Promise<void> = Promise.resolve();
  private failure: unknown;

  constructor(
    private readonly pool: Pool,
    private readonly flavour: Flavour,
    private readonly waiter: number,
    private readonly policy: FenceBudget['blockers'],
    remainingMs: number,
    private readonly awaited: Awaited = 'rows',
  ) {
    this.timer = setTimeout(
      () => {
        this.loop = this.watch().catch((error: unknown) => {
          this.failure = error;
        });
      },
      Math.max(0, remainingMs),
    );
  }

  /** Ends the watch; returns when nothing of it is under way. */
  async stop(): Promise<void> {
    this.stopped = true;
    clearTimeout(this.timer);
    await this.loop;
  }

  /** Why the watch itself failed, if it did: InnoDB's lock wait bounds the fence then. */
  get error(): unknown {
    return this.failure;
  }

  private async watch(): Promise<void> {
    const side = await this.pool.getConnection();
    try {
      let deadline = performance.now() + KILL_GRACE_MS;
      while (!this.stopped) {
        const met = await listBlockers(side, this.flavour, this.waiter, this.awaited);
        for (const blocker of met) this.remember(blocker);
        const stuck = met.some((blocker) => blocker.connectionId === 0);
        const over = performance.now() > deadline;
        if (over || stuck || (this.policy === 'give-up' && met.length > 0)) {
          if (this.stopped) return;
          this.gaveUp = true;
          await kill(side, 'QUERY', this.waiter);
          return;
        }
        if (this.policy === 'kill') {
          for (const blocker of this.blockers) {
            if (blocker.killed || !met.some((m) => m.connectionId === blocker.connectionId)) continue;
            await kill(side, 'CONNECTION', blocker.connectionId);
            blocker.killed = true;
            deadline = performance.now() + KILL_GRACE_MS;
          }
        }
        await new Promise((resolve) => setTimeout(resolve, LOOK_AGAIN_MS));
      }
    } finally {
      side.release();
    }
  }

  private remember(blocker: Blocker): void {
    const known = this.blockers.find((b) => b.connectionId === blocker.connectionId);
    if (known === undefined) this.blockers.push(blocker);
    else known.statement ??= blocker.statement;
  }
}

async function kill(side: PoolConnection, what: 'QUERY' | 'CONNECTION', id: number): Promise<void> {
  try {
    await side.query(`KILL ${what} ${id}`);
  } catch (error) {
    // It ended by itself in the meantime.
    if (errnoOf(error) !== ER_NO_SUCH_THREAD) throw error;
  }
}
