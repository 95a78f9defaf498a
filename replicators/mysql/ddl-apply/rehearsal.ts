import type { Connection, RowDataPacket } from 'mysql2/promise';
import { InterlockError, messageOf } from '../../../src/errors.js';
import type { TableRouting } from '../../../src/topology/schema.js';
import { readCatalog } from '../catalog.js';
import type { CatalogTable } from '../catalog.js';
import { mayBeLeftOut } from '../drift.js';
import { identifier } from '../literal.js';
import type { Flavour } from '../position.js';
import { tombstoneTrigger } from '../tombstones.js';
import { defaultTest, holds, valueTypeOf } from '../value-type.js';
import { algorithmsOf, asksForOther, definitionOf, saysAlready, textFor } from './attempts.js';
import type { Algorithm } from './attempts.js';
import type { DdlStatement } from './statement.js';

/** What a statement would do on one server. */
export interface Rehearsed {
  /** It was executed there before. */
  already: boolean;
  /** `contract`: something goes. Null where it was executed already. */
  phase: 'expand' | 'contract' | null;
  algorithm: Algorithm | null;
  /** `schema.table` and `schema.table.column` that go. */
  dropped: string[];
  /** The definition that the table has before and behind it; null: none. */
  before: string | null;
  after: string | null;
  columns: CatalogTable | null;
  /** Why it cannot go, with what to do instead. */
  refusals: string[];
}

const LOCK = 'interlock:ddl-rehearsal';
const LOCK_SECONDS = 30;

/**
 * Runs the statements, in their order, on empty copies of their tables, in the control schema, which links do not carry. So it is the server that
 * says whether they are right, what they make of a table and how; and nothing is guessed from their text.
 */
export async function rehearse(
  connection: Connection,
  flavour: Flavour,
  statements: readonly DdlStatement[],
  routing: Readonly<Record<string, TableRouting>>,
): Promise<Rehearsed[]> {
  const [[locked]] = (await connection.query('SELECT GET_LOCK(?, ?) AS got', [
    LOCK,
    LOCK_SECONDS,
  ])) as unknown as [[{ got: number | null }]];
  if (Number(locked.got) !== 1)
    throw new InterlockError('Unavailable', 'another rehearsal holds the server', { retryable: true });
  const copies = new Map<string, string>();
  try {
    const found: Rehearsed[] = [];
    for (const statement of statements) {
      let copy = copies.get(statement.name);
      if (copy === undefined) {
        copy = `interlock.ddl_rehearsal_${copies.size}`;
        copies.set(statement.name, copy);
        await connection.query(`DROP TABLE IF EXISTS ${copy}`);
        if ((await definitionOf(connection, statement.name)) !== null)
          await connection.query(`CREATE TABLE ${copy} LIKE ${sqlOf(statement.name)}`);
      }
      found.push(await one(connection, flavour, statement, copy, routing));
    }
    return found;
  } finally {
    for (const copy of copies.values())
      await connection.query(`DROP TABLE IF EXISTS ${copy}`).catch(() => undefined);
    await connection.query('DO RELEASE_LOCK(?)', [LOCK]).catch(() => undefined);
  }
}

async function one(
  connection: Connection,
  flavour: Flavour,
  statement: DdlStatement,
  copy: string,
  routing: Readonly<Record<string, TableRouting>>,
): Promise<Rehearsed> {
  const [before, was] = [await tableOf(connection, copy), await definitionOf(connection, copy)];
  const result: Rehearsed = {
    ...{
      already: false,
      phase: null,
      algorithm: null,
      dropped: [],
      before: was,
      after: was,
      columns: before,
    },
    refusals: [],
  };
  if (statement.verb === 'create' && was !== null) {
    const other = `${copy}_new`;
    await connection.query(`DROP TABLE IF EXISTS ${other}`);
    try {
      await connection.query(textFor(statement, null, other));
      if ((await definitionOf(connection, other)) === was) result.already = true;
      else result.refusals.push('the table is there already, in another definition');
    } catch (error) {
      result.refusals.push(messageOf(error));
    } finally {
      await connection.query(`DROP TABLE IF EXISTS ${other}`);
    }
    return result;
  }
  for (const algorithm of algorithmsOf(statement, flavour)) {
    try {
      await connection.query(textFor(statement, algorithm, copy));
      result.algorithm = algorithm;
      break;
    } catch (error) {
      if (algorithm !== null && algorithm !== 'copy' && asksForOther(error)) continue;
      // What is not there cannot be altered; but what is to go may have gone.
      const missing = was === null && statement.verb !== 'drop';
      if (saysAlready(error) && !missing) result.already = true;
      else result.refusals.push(missing ? `${statement.name} does not exist` : messageOf(error));
      return result;
    }
  }
  result.after = await definitionOf(connection, copy);
  result.columns = await tableOf(connection, copy);
  if (result.after === was) return { ...result, already: true };
  const judged = judge(statement, before, result.columns, was, result.after, routing);
  judged.refusals.push(...(await decidingColumns(connection, statement.name, judged.dropped)));
  return { ...result, ...judged };
}

/** Triggers of the table name the column by which its conflicts are decided: with it gone, every DELETE would fail. */
async function decidingColumns(
  connection: Connection,
  table: string,
  dropped: readonly string[],
): Promise<string[]> {
  if (dropped.length === 0) return [];
  const [rows] = await connection.query<RowDataPacket[]>(
    "SELECT trigger_name AS name FROM information_schema.triggers WHERE CONCAT(event_object_schema, '.', event_object_table) = ?",
    [table],
  );
  const triggers = new Set(rows.map((row) => String(row['name'])));
  return dropped
    .map((column) => column.slice(table.length + 1))
    .filter((column) => triggers.has(tombstoneTrigger(table, column)))
    .map(
      (column) =>
        `conflicts of ${table} are decided by ${column}: give the table another policy (the topology's links.conflicts), start its links anew, which removes the triggers, then drop it`,
    );
}

/** What kind of change it is, by what it made of the table. */
function judge(
  { name, verb }: DdlStatement,
  before: CatalogTable | null,
  after: CatalogTable | null,
  was: string | null,
  is: string | null,
  routing: Readonly<Record<string, TableRouting>>,
): Pick<Rehearsed, 'phase' | 'dropped' | 'refusals'> {
  if (after === null && verb === 'drop') return { phase: 'contract', dropped: [name], refusals: [] };
  if (after === null) return { phase: null, dropped: [], refusals: ['the table is gone behind it'] };
  const refusals: string[] = [];
  if (after.engine.toLowerCase() !== 'innodb')
    refusals.push(`engine ${after.engine}: only InnoDB is carried`);
  if (before === null) {
    if (after.primaryKey.length === 0)
      refusals.push('a table without a primary key is not carried; give it one');
    return { phase: 'expand', dropped: [], refusals };
  }
  if (before.primaryKey.join() !== after.primaryKey.join())
    refusals.push(
      'rows are found by their primary key on both sides. Make a new table with the new key, let applications write both, copy the rows, and drop the old one',
    );
  const routed = Object.hasOwn(routing, name) ? routing[name]! : undefined;
  const routes = routed !== undefined && 'userId' in routed ? [routed.userId, routed.region] : [];
  const dropped: string[] = [];
  for (const [column, old] of before.columns) {
    const now = after.columns.get(column);
    if (now === undefined) {
      dropped.push(`${name}.${column}`);
      if (routes.some((one) => one?.toLowerCase() === column.toLowerCase()))
        refusals.push(`the topology routes ${name} by ${column}`);
      continue;
    }
    const same = (key: 'charset' | 'collation' | 'generated' | 'expression'): boolean =>
      old[key] === now[key];
    const narrower = !old.generated && holds(valueTypeOf(now), valueTypeOf(old)) !== 'always';
    if (narrower || (old.nullable && !now.nullable))
      refusals.push(
        `${column} becomes ${now.type}${now.nullable ? '' : ' NOT NULL'}, which does not hold all that ${old.type}${old.nullable ? '' : ' NOT NULL'} does. Add a new column, let applications write both, copy the values, and drop the old one`,
      );
    if (!same('charset') || !same('collation'))
      refusals.push(
        `${column} gets another character set or collation: pause the links, run it on both sides, resume them`,
      );
    if (!same('generated') || !same('expression'))
      refusals.push(`${column} is computed otherwise: drop it, and add it anew, in two statements`);
  }
  let added = 0;
  for (const [column, now] of after.columns) {
    if (before.columns.has(column)) continue;
    added++;
    if (now.generated) continue;
    if (!mayBeLeftOut(now))
      refusals.push(
        `${column} is NOT NULL without a default: rows of a side that does not have it yet could not be written. Give it a default`,
      );
    else if (defaultTest(now) === undefined && now.default.kind !== 'literal')
      refusals.push(
        `${column}: each side would compute its own default for the rows that are there. Add it NULL without one, fill it as an application does, then set the default`,
      );
  }
  const [had, has] = [indexes(was), indexes(is)];
  const goes = dropped.length > 0 || had.some((index) => !has.includes(index));
  const comes = added > 0 || has.some((index) => !had.includes(index));
  if (goes && comes)
    refusals.push('it adds and drops at once: what is new comes first on all sides; write two statements');
  return { phase: goes ? 'contract' : 'expand', dropped, refusals };
}

/** Names of the secondary indexes. */
function indexes(definition: string | null): string[] {
  const lines = (definition ?? '').split('\n');
  return lines.flatMap(
    (line) => /^\s*(?:UNIQUE |FULLTEXT |SPATIAL )?KEY `((?:[^`]|``)*)`/.exec(line)?.[1] ?? [],
  );
}

async function tableOf(connection: Connection, copy: string): Promise<CatalogTable | null> {
  const catalog = await readCatalog(connection, {
    carries: (schema, table) => `${schema}.${table}` === copy,
  });
  return catalog.get(copy) ?? null;
}

function sqlOf(name: string): string {
  return name
    .split('.')
    .map((part) => identifier(part))
    .join('.');
}
