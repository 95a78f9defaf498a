import type { Connection, RowDataPacket } from 'mysql2/promise';
import { keyOf } from './batch.js';
import { quote } from './literal.js';
import type { Literal } from './literal.js';
import { keptChanges } from './records.js';
import type { StoredChange } from './records.js';
import { changesOf } from './spooled-transaction.js';
import type { RowChange, SourceTransaction } from './transaction.js';

/** So many rows are watched; behind more of them a link does not go on. */
const MOST_ROWS = 200_000;
const PATHS_PER_STATEMENT = 200;
/** Of a transaction that is too large for its record. */
const WHOLE = '$.overtaken';

/** An image of a change in a record. */
interface Place {
  id: number;
  path: string;
}

/**
 * The rows of the transactions that were kept aside, and that the link has gone on behind. Hazard: a later transaction can leave a row as it was
 * before one of them; tried again, that would match, and the row would be as it has not been at the source for long. Guard: what changes such a row
 * later says so in the record, in its own transaction; of that row nothing is tried again. Of a transaction that is too large for its record only the
 * tables are watched, and it is not tried again when one of them was changed.
 */
export class Overtaken {
  private readonly places = new Map<string, Place[]>();
  private readonly tables = new Set<string>();
  /** By table: records of transactions that are too large to be watched row by row. */
  private readonly large = new Map<string, Set<number>>();
  private isRead = false;

  constructor(
    private readonly target: Connection,
    private readonly link: string,
  ) {}

  get isFull(): boolean {
    return this.places.size >= MOST_ROWS;
  }

  /** Once; later ones are told by `add`. One record at a time: they may be large. */
  async read(): Promise<void> {
    if (this.isRead) return;
    for (let last: number | undefined = 0; last !== undefined;) last = await this.record(`id > ${last}`);
    this.isRead = true;
  }

  /** The link goes on behind a transaction. */
  async add(gtid: string): Promise<void> {
    await this.record(`gtid = ${quote(gtid)}`);
  }

  /** Nothing is kept aside any more. */
  clear(): void {
    this.places.clear();
    this.tables.clear();
    this.large.clear();
  }

  /** Whether a transaction changes such a row, or may: of what is on the disk only the tables are looked at. */
  concern(transaction: SourceTransaction): boolean {
    const { changes, spool } = transaction;
    if (this.large.size > 0 && tablesOf(transaction).some((name) => this.large.has(name))) return true;
    if (this.places.size === 0) return false;
    return (
      changes.some((change) => rowsOf(change).some((row) => this.places.has(row))) ||
      spool?.tableNames.some((name) => this.tables.has(name)) === true
    );
  }

  /** What goes into the target with the transaction, and is done when that is committed. */
  async by(transaction: SourceTransaction): Promise<{ statements: string[]; done: () => void }> {
    const rows = new Set<string>();
    if (this.places.size > 0) {
      const isOnDisk = transaction.spool?.tableNames.some((name) => this.tables.has(name)) === true;
      for await (const some of changesOf(isOnDisk ? transaction : { ...transaction, spool: null }))
        for (const change of some) for (const row of rowsOf(change)) if (this.places.has(row)) rows.add(row);
    }
    const paths = new Map<number, string[]>();
    for (const row of rows)
      for (const { id, path } of this.places.get(row)!) paths.set(id, [...(paths.get(id) ?? []), path]);
    const large = new Set<number>();
    if (this.large.size > 0)
      for (const name of tablesOf(transaction)) for (const id of this.large.get(name) ?? []) large.add(id);
    for (const id of large) paths.set(id, [WHOLE]);
    const statements = [...paths].flatMap(([id, list]) => marks(id, list));
    return {
      statements,
      done: () => {
        for (const row of rows) this.places.delete(row);
        for (const [name, ids] of this.large) {
          for (const id of large) ids.delete(id);
          if (ids.size === 0) this.large.delete(name);
        }
      },
    };
  }

  /** @returns the record's id */
  private async record(which: string): Promise<number | undefined> {
    const found = await nextRecord(this.target, this.link, which);
    if (found === undefined) return undefined;
    const { id, changes, largeBytes, tables, overtaken } = found;
    if (largeBytes !== null) {
      if (overtaken) return id;
      for (const name of tables) this.large.set(name, (this.large.get(name) ?? new Set()).add(id));
      return id;
    }
    for (const [at, change] of changes.entries()) {
      const { table, before, after } = left(change);
      if (before !== null) this.watch(rowOf(table, before), { id, path: beforeAt(at) });
      if (after !== null) this.watch(rowOf(table, after), { id, path: afterAt(at) });
      this.tables.add(`${table.schema}.${table.table}`);
    }
    return id;
  }

  private watch(row: string, place: Place): void {
    const known = this.places.get(row);
    if (known === undefined) this.places.set(row, [place]);
    else known.push(place);
  }
}

/** Tables are copied again: of their rows nothing is tried again that was kept aside before. The caller has a transaction open. */
export async function overtakenByCopy(
  target: Connection,
  link: string,
  tables: ReadonlySet<string>,
): Promise<void> {
  let last = 0;
  for (;;) {
    const found = await nextRecord(target, link, `id > ${last}`);
    if (found === undefined) return;
    last = found.id;
    const paths =
      found.largeBytes === null
        ? found.changes.flatMap(({ table: { schema, table } }, at) =>
            tables.has(`${schema}.${table}`) ? [beforeAt(at), afterAt(at)] : [],
          )
        : found.tables.some((name) => tables.has(name))
          ? [WHOLE]
          : [];
    for (const statement of marks(last, paths)) await target.query(statement);
  }
}

/** What of a record is still to be tried. */
export function notOvertaken(changes: readonly StoredChange[]): StoredChange[] {
  return changes.map(left).filter(({ before, after }) => before !== null || after !== null);
}

/** A change of the key has two rows, of which one may be overtaken. */
function left(change: StoredChange): StoredChange {
  const { before, after, beforeOvertaken, afterOvertaken } = change;
  return {
    ...change,
    before: beforeOvertaken === undefined ? before : null,
    after: afterOvertaken === undefined ? after : null,
  };
}

function rowOf(table: StoredChange['table'], row: Literal[]): string {
  return `${table.schema}.${table.table} ${keyOf(table, row)}`;
}

function tablesOf({ changes, spool }: SourceTransaction): string[] {
  const names = new Set(changes.map(({ table }) => `${table.schema}.${table.table}`));
  for (const name of spool?.tableNames ?? []) names.add(name);
  return [...names];
}

function rowsOf({ table, before, after }: RowChange): string[] {
  return [before, after].flatMap((row) => (row === null ? [] : [rowOf(table, row)]));
}

function beforeAt(change: number): string {
  return `$[${change}].beforeOvertaken`;
}

function afterAt(change: number): string {
  return `$[${change}].afterOvertaken`;
}

function marks(id: number, paths: readonly string[]): string[] {
  const statements: string[] = [];
  for (let from = 0; from < paths.length; from += PATHS_PER_STATEMENT) {
    const set = paths.slice(from, from + PATHS_PER_STATEMENT).map((path) => `,'${path}',1`);
    statements.push(
      `UPDATE interlock.quarantine SET changes=JSON_SET(changes${set.join('')}) WHERE id=${id} AND state IN ('open','retry')`,
    );
  }
  return statements;
}

/** The first one that the link has gone on behind, and that may be tried again. */
async function nextRecord(
  target: Connection,
  link: string,
  which: string,
): Promise<({ id: number } & ReturnType<typeof keptChanges>) | undefined> {
  const [[row]] = await target.query<RowDataPacket[]>(
    `SELECT id, changes FROM interlock.quarantine WHERE link=${quote(link)} AND passed=1 AND state IN ('open','retry') AND ${which} ORDER BY id LIMIT 1`,
  );
  return row && { id: Number(row['id']), ...keptChanges(String(row['changes'])) };
}
