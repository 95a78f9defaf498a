import { setTimeout as sleep } from 'node:timers/promises';
import { createHash } from 'node:crypto';
import type { Connection, RowDataPacket } from 'mysql2/promise';
import { InterlockError } from '../../src/errors.js';
import type { ConflictPolicy } from '../../src/topology/schema.js';
import { ER_LOCK_WAIT_TIMEOUT, LOCK_WAIT_SECONDS, blockers } from './ddl-apply/run.js';
import type { Catalog, CatalogTable } from './catalog.js';
import { identifier, quote } from './literal.js';
import type { Literal } from './literal.js';
import { LAX_MODE } from './session.js';
import type { SqlError } from './target-errors.js';

const KEPT_DAYS = 30;
const ER_TRG_ALREADY_EXISTS = 1359;
/** So often in a row; what waited behind it goes on between two. */
const TRIES = 3;
const PAUSE_MS = 500;
const TRIGGER = /^interlock_tombstone_([0-9a-f]{16})(_key)?$/;

/** Whether a trigger is one that keeps tombstones; it fires for what a link deletes, too, and is meant to. */
export function keepsTombstones(trigger: string): boolean {
  return TRIGGER.test(trigger);
}

/** That which keeps the rows that are deleted from a table, with the column that decides. */
export function tombstoneTrigger(table: string, column: string): string {
  return `interlock_tombstone_${hashOf(table, column)}`;
}

/** In the name: a table of another definition is another one. */
const VERSION = 2;

function hashOf(table: string, column: string): string {
  return createHash('sha256')
    .update(`${VERSION} ${table} ${column.toLowerCase()}`)
    .digest('hex')
    .slice(0, 16);
}

/** Where the deleted rows of a table are: key, value of the column that decides, and when; ready for a statement. */
export function tombstoneTable(table: string, column: string): Literal {
  return `interlock.${identifier(`tombstone_${hashOf(table, column)}`)}`;
}

/** From now on what this session deletes is known as the link's: its own stream says by itself what came behind it. */
export async function deletesFor(connection: Connection, link: string): Promise<void> {
  await connection.query(`SET @interlock_link=${quote(link)}`);
}

/** Of a tombstone: that somebody else than the link has deleted the row. */
export function deletedByOthers(link: string): string {
  return `NOT (interlock_link<=>${quote(link)})`;
}

/**
 * For every table whose conflicts go by `latest`: a table of what was deleted, and triggers that fill it in the deleting transaction, so that
 * an update which is older than the deletion does not bring the row back. A key that changes is the deletion of the old one. What is of a policy
 * that is not in force any more is removed: its column may go, and then every DELETE would fail. Idempotent.
 * @throws InterlockError Refused: the column is not there
 */
export async function ensureTombstones(
  connection: Connection,
  catalog: Catalog,
  policies: Readonly<Record<string, ConflictPolicy>>,
): Promise<void> {
  for (const table of catalog.values()) await removeOthers(connection, table, policies[table.name]);
  for (const [name, policy] of Object.entries(policies)) {
    const table = catalog.get(name);
    // What cannot be carried at all is refused by the preflight.
    if (typeof policy !== 'object' || table === undefined || table.primaryKey.length === 0) continue;
    const column = [...table.columns.keys()].find((one) => one.toLowerCase() === policy.latest.toLowerCase());
    if (column === undefined)
      throw new InterlockError(
        'Refused',
        `conflicts of ${name}: no column ${policy.latest}, whose greatest value is to win; name one in the topology's links.conflicts`,
        { details: { field: 'conflicts', table: name } },
      );
    const trigger = tombstoneTrigger(name, column);
    if (![trigger, `${trigger}_key`].every((one) => table.triggers.includes(one)))
      await create(connection, table, column, trigger);
    await connection.query(
      `DELETE FROM ${tombstoneTable(name, column)} WHERE interlock_deleted_at < UTC_TIMESTAMP(6) - INTERVAL ${KEPT_DAYS} DAY LIMIT 10000`,
    );
  }
}

async function removeOthers(
  connection: Connection,
  table: CatalogTable,
  policy: ConflictPolicy | undefined,
): Promise<void> {
  const wanted = typeof policy === 'object' ? hashOf(table.name, policy.latest) : null;
  const [schema] = table.name.split('.') as [string];
  for (const trigger of table.triggers) {
    const hash = TRIGGER.exec(trigger)?.[1];
    if (hash === undefined || hash === wanted) continue;
    await whenFree(connection, table, `DROP TRIGGER IF EXISTS ${identifier(schema)}.${identifier(trigger)}`);
    // The last of its triggers is gone: nothing writes it any more.
    if (!table.triggers.some((other) => other > trigger && TRIGGER.exec(other)?.[1] === hash))
      await connection.query(`DROP TABLE IF EXISTS interlock.${identifier(`tombstone_${hash}`)}`);
  }
}

/**
 * Runs a statement that needs the table for itself. Hazard: while it waits for a transaction that is open, everything that comes to the table
 * waits behind it, reads too.
 * @throws InterlockError Unavailable: the table was never free
 */
async function whenFree(connection: Connection, table: CatalogTable, statement: string): Promise<void> {
  await connection.query(
    `SET @interlock_wait = @@SESSION.lock_wait_timeout, SESSION lock_wait_timeout = ${LOCK_WAIT_SECONDS}`,
  );
  try {
    for (let tried = 1; ; tried++) {
      try {
        await connection.query(statement);
        return;
      } catch (error) {
        if ((error as SqlError).errno !== ER_LOCK_WAIT_TIMEOUT) throw error;
        if (tried === TRIES) throw await neverFree(connection, table.name, error);
        await sleep(PAUSE_MS * tried);
      }
    }
  } finally {
    await connection.query('SET SESSION lock_wait_timeout = @interlock_wait').catch(() => undefined);
  }
}

async function neverFree(connection: Connection, table: string, cause: unknown): Promise<InterlockError> {
  const open = await blockers(connection);
  return new InterlockError(
    'Unavailable',
    `${table} was never free for ${LOCK_WAIT_SECONDS} s, which the triggers of its policy \`latest\` need once${open === '' ? '' : `; open transactions: ${open}`}. End what holds it, or wait: it is tried again`,
    { cause, retryable: true, details: { table } },
  );
}

async function create(
  connection: Connection,
  table: CatalogTable,
  column: string,
  trigger: string,
): Promise<void> {
  const [schema] = table.name.split('.') as [string];
  const key = table.primaryKey.map(identifier);
  const kept = [...new Set([...key, identifier(column)])];
  const [rows] = await connection.query<RowDataPacket[]>(`SHOW CREATE TABLE ${table.sql}`);
  const definition = String(rows[0]!['Create Table']);
  // The columns exactly as the table has them, character sets and all, but for what only the table itself does with them.
  const tombstones = tombstoneTable(table.name, column);
  const columns = kept.map((name) => {
    const line = definition.split('\n').find((one) => one.trim().startsWith(`${name} `))!;
    return line
      .trim()
      .replace(/,$/, '')
      .replace(/ (AUTO_INCREMENT|INVISIBLE|ON UPDATE \S+|COMMENT '(?:[^']|'')*')/gi, '')
      .replace(/ \/\*![\s\S]*?\*\//g, '');
  });
  const charset = /DEFAULT CHARSET=(\w+)(?: COLLATE=(\w+))?/.exec(definition);
  const defaults = charset
    ? `DEFAULT CHARSET=${charset[1]}${charset[2] === undefined ? '' : ` COLLATE=${charset[2]}`}`
    : '';
  // Hazard: a trigger runs under the mode that it was made in, and must take whatever the table holds: odd dates, for instance.
  await connection.query(`SET @interlock_mode = @@SESSION.sql_mode, SESSION sql_mode = '${LAX_MODE}'`);
  try {
    await connection.query(
      `CREATE TABLE IF NOT EXISTS ${tombstones} (${columns.join(',')}, interlock_deleted_at DATETIME(6) NOT NULL, interlock_link VARBINARY(191) NULL,
      PRIMARY KEY (${key.join(',')}), KEY interlock_by_time (interlock_deleted_at)) ENGINE=InnoDB ${defaults}`,
    );
    const keep = `REPLACE INTO ${tombstones} (${kept.join(',')}, interlock_deleted_at, interlock_link)
      VALUES (${kept.map((name) => `OLD.${name}`).join(',')}, UTC_TIMESTAMP(6), @interlock_link)`;
    const keyStays = key.map((name) => `OLD.${name}<=>NEW.${name}`).join(' AND ');
    for (const [name, event, does] of [
      [trigger, 'DELETE', keep],
      [`${trigger}_key`, 'UPDATE', `IF NOT (${keyStays}) THEN ${keep}; END IF`],
    ] as const) {
      await whenFree(
        connection,
        table,
        `CREATE TRIGGER ${identifier(schema)}.${identifier(name)} AFTER ${event} ON ${table.sql} FOR EACH ROW ${does}`,
      ).catch((error: unknown) => {
        // It is there, or another link of the same table made it meanwhile.
        if ((error as SqlError).errno !== ER_TRG_ALREADY_EXISTS) throw error;
      });
    }
  } finally {
    await connection.query('SET SESSION sql_mode = @interlock_mode').catch(() => undefined);
  }
}
