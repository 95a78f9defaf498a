import { keyOf } from './batch.js';
import type { Batch, OrderedChange, RowNet, TableBatch } from './batch.js';
import { outOfLine, requireWhole } from './large-values.js';
import type { Cut } from './large-values.js';
import { identifier, quote } from './literal.js';
import type { Literal } from './literal.js';
import type { Flavour } from './position.js';
import { checksOf } from './row-check.js';
import { LAX_MODE } from './session.js';
import { deletedByOthers, tombstoneTable } from './tombstones.js';
import type { RowChange, SourceTransaction } from './transaction.js';
import { HIDDEN_HASH, columns, keyCondition, whereKey, writtenColumns } from './written-columns.js';

/** One statement for the target, and what it must have done: `affected` rows (changed rows, not matched ones). */
export interface Statement {
  sql: string;
  /** null: any number of rows. */
  affected: number | null;
  /** A delete whose row may be gone already. */
  mayBeGone?: boolean;
  /**
   * `session`: a setting, no change. `check`: reads `rows`, which are to be as their `before` says. `deleted`: which of `rows`, which were inserted,
   * somebody has deleted before.
   */
  kind: 'insert' | 'update' | 'delete' | 'session' | 'check' | 'deleted';
  table: TableBatch;
  /** The rows it writes, for errors. */
  keys: string[];
  rows?: RowNet[];
}

const ROWS_PER_STATEMENT = 2_000;
/** MySQL's range optimizer gives up, and reads and locks the whole table, on too many keys. */
const KEYS_PER_DELETE = 200;

export interface StatementOptions {
  flavour: Flavour;
  /** Tables whose rows are written whatever the target has of them. */
  blind: ReadonlySet<string>;
  /** Tables that are being copied. */
  copied: ReadonlySet<string>;
  /** Rows that are to be inserted are looked for, too. Else the server's own check of the key is enough. */
  checkInserts: boolean;
  cut: Cut;
  link: string;
  /** Tables whose conflicts go by `latest` → the column that decides. */
  latest: ReadonlyMap<string, string>;
}

/** The statements of a batch, in an order in which no row is in another's way; before the changes of rows, the checks that they are there. */
export function statementsOf(batch: Batch, options: StatementOptions): Statement[] {
  const { blind } = options;
  const statements: Statement[] = [];
  for (const table of batch.tables.values()) {
    if (blind.has(table.source.name)) statements.push(...replacing(table, [...table.rows.values()], options));
    else if (table.inOrder)
      for (const change of table.log!) statements.push(...single(table, change, options));
    else statements.push(...merged(table, options));
  }
  statements.push(...ordered(batch.ordered, options));
  for (const table of batch.tables.values()) statements.push(...stillWithout(table));
  return statements;
}

/**
 * Hazard: a column that the target does not have is left out, and nothing says when it gets one; from then on its values have to come. Behind its
 * rows the table's definition stands still up to the commit: a subquery of two rows is an error where one of the columns is there.
 */
function stillWithout(table: TableBatch): Statement[] {
  const { source, target } = table;
  const absent = source.columns.filter((name) => !target.columns.has(name) && !HIDDEN_HASH.test(name));
  if (absent.length === 0) return [];
  const there = `SELECT 1 FROM information_schema.columns WHERE table_schema=${quote(source.schema)} AND table_name=${quote(source.table)} AND column_name IN (${absent.map(quote).join(',')})`;
  return [session(table, '', `SET @interlock_without = (${there} UNION ALL ${there})`)];
}

/**
 * Whatever is there of these rows, afterwards they are as they should be. Of a table that is being copied the target has some rows and not
 * others; those it has are as the source had them at one place of its stream, so that no unique value is in two of them.
 */
export function replacing(table: TableBatch, rows: readonly RowNet[], options: Written): Statement[] {
  const statements: Statement[] = [];
  for (const some of chunks(rows, KEYS_PER_DELETE, options.cut))
    statements.push({ ...deleteOf(table, some), affected: null });
  const present = rows.filter((row) => row.after !== null);
  return [...statements, ...inserted(table, present, options)];
}

/** Tables whose foreign keys cascade: as the source did it, under the checks that the source's session had. */
function* ordered(changes: readonly OrderedChange[], options: StatementOptions): Generator<Statement> {
  const { checkInserts, copied } = options;
  // The parent of a row may not have been copied yet, and the rows of child tables are copied after it.
  const isUnchecked = ({ table, change: { after, unchecked } }: OrderedChange): boolean =>
    unchecked || (after !== null && copied.has(table.source.name));
  let checks = false;
  /** A row was deleted in this transaction, others perhaps with it. */
  let cascadedIn: SourceTransaction | undefined;
  for (let i = 0; i < changes.length; i++) {
    const { table, change, transaction } = changes[i]!;
    if (checks === isUnchecked(changes[i]!))
      yield session(table, `foreign_key_checks=${(checks = !checks) ? 1 : 0}`);
    if (change.before !== null) {
      const isDelete = change.after === null;
      // A DELETE of several tables logs the child's row, too, which has gone with its parent.
      if (isDelete && cascadedIn === transaction)
        yield { ...deleteOf(table, [rowOf(table, change)]), mayBeGone: true };
      else yield* single(table, change, options);
      if (isDelete && checks) cascadedIn = transaction;
      continue;
    }
    const inserts = [rowOf(table, change)];
    for (let next = changes[i + 1]; next?.table === table; next = changes[i + 1]) {
      if (next.change.before !== null || isUnchecked(next) !== !checks) break;
      inserts.push(rowOf(table, next.change));
      i++;
    }
    if (checkInserts) yield* checksOf(table, inserts);
    yield* inserted(table, inserts, options);
    yield* deletedOf(table, inserts, options);
  }
  if (checks) yield session(changes.at(-1)!.table, 'foreign_key_checks=0');
}

function session(table: TableBatch, setting: string, sql = `SET SESSION ${setting}`): Statement {
  return { sql, affected: 0, kind: 'session', table, keys: [] };
}

function rowOf(table: TableBatch, change: RowChange): RowNet {
  const { before, after } = change;
  return { key: keyOf(table.source, (before ?? after)!), before, after, change };
}

/** Deletes first: they free unique values. Inserts last: they take them. */
export function merged(table: TableBatch, options: MergeOptions): Statement[] {
  const { flavour, checkInserts, cut } = options;
  const deletes: RowNet[] = [];
  const updates: RowNet[] = [];
  const inserts: RowNet[] = [];
  /** Rows that end as they were, if they are as the source had them. */
  const unchanged: RowNet[] = [];
  for (const row of table.rows.values()) {
    const { before, after } = row;
    if (before === null) (after === null ? unchanged : inserts).push(row);
    else if (after === null) deletes.push(row);
    else (writtenColumns(table).some((i) => before[i] !== after[i]) ? updates : unchanged).push(row);
  }
  const statements: Statement[] = [
    ...checksOf(table, [...deletes, ...updates, ...unchanged, ...(checkInserts ? inserts : [])]),
  ];
  for (const some of chunks(deletes, KEYS_PER_DELETE, cut)) statements.push(deleteOf(table, some));
  if (updates.length === 1 || table.target.uniqueColumns.size > 0) {
    for (const row of updates) statements.push(...updated(table, row, options));
  } else {
    for (const some of chunks(updates, ROWS_PER_STATEMENT, cut)) {
      const upsert = upsertOf(table, some, flavour);
      if (upsert.sql.length <= cut.statement) statements.push(upsert);
      else for (const row of some) statements.push(...updated(table, row, options));
    }
  }
  statements.push(...inserted(table, inserts, options), ...deletedOf(table, inserts, options));
  return statements;
}

function single(table: TableBatch, change: RowChange, options: StatementOptions): Statement[] {
  const { checkInserts } = options;
  const { before, after } = change;
  const row = rowOf(table, change);
  const checks = before !== null || checkInserts ? checksOf(table, [row]) : [];
  if (before === null)
    return [...checks, ...inserted(table, [row], options), ...deletedOf(table, [row], options)];
  if (after === null) return [...checks, deleteOf(table, [row])];
  if (!writtenColumns(table).some((i) => before[i] !== after[i])) return [];
  return [...checks, ...updated(table, row, options)];
}

export type MergeOptions = Omit<StatementOptions, 'blind' | 'copied'>;

/** How rows are written. */
type Written = Pick<StatementOptions, 'flavour' | 'cut'>;

export function* inserted(
  table: TableBatch,
  rows: readonly RowNet[],
  { flavour, cut }: Written,
): Generator<Statement> {
  for (const some of chunks(rows, ROWS_PER_STATEMENT, cut)) {
    yield* fitted(table, some, cut, (fitting) => insertOf(table, fitting, flavour));
  }
}

function updated(table: TableBatch, row: RowNet, { flavour, cut }: Written): Iterable<Statement> {
  return fitted(table, [row], cut, ([fitting]) => updateOf(table, fitting!, flavour));
}

/** The statement; when it is too long for the server, its large values first, in pieces. */
function* fitted(
  table: TableBatch,
  rows: RowNet[],
  cut: Cut,
  make: (rows: RowNet[]) => Statement,
): Generator<Statement> {
  const whole = make(rows);
  if (whole.sql.length <= cut.statement) {
    yield whole;
    return;
  }
  const { rows: short, pieces, variables } = outOfLine(table, rows, cut);
  for (const sql of pieces) yield session(table, '', sql);
  if (variables.length > 0) yield session(table, '', requireWhole(variables));
  yield make(short);
  if (variables.length > 0)
    yield session(table, '', `SET ${variables.map(({ name }) => `${name}=NULL`).join(',')}`);
}

/** Strict, an ENUM's error value (index 0) is refused, which the source holds all the same. */
function relaxed(table: TableBatch, flavour: Flavour, sql: string): string {
  if (!table.source.lax) return sql;
  return flavour === 'mysql'
    ? sql.replace(/^\w+/, `$& /*+ SET_VAR(sql_mode='${LAX_MODE}') */`)
    : `SET STATEMENT sql_mode='${LAX_MODE}' FOR ${sql}`;
}

/** Behind an insertion nobody else can delete the row, and what was deleted before is to be seen. */
function* deletedOf(
  table: TableBatch,
  rows: readonly RowNet[],
  { latest, link, cut }: MergeOptions,
): Generator<Statement> {
  const { source } = table;
  const wanted = latest.get(source.name)?.toLowerCase();
  const column = source.columns.find((name) => name.toLowerCase() === wanted);
  if (column === undefined) return;
  const tombstones = tombstoneTable(source.name, column);
  for (const some of chunks(rows, KEYS_PER_DELETE, cut)) {
    yield {
      sql: `SELECT 1 FROM ${tombstones} WHERE (${whereKeys(table, some)}) AND ${deletedByOthers(link)} LIMIT 1`,
      affected: null,
      kind: 'deleted',
      table,
      keys: [],
      rows: some,
    };
  }
}

function whereKeys(table: TableBatch, rows: readonly RowNet[]): string {
  const { source } = table;
  return source.primaryKey.length === 1
    ? `${identifier(source.columns[source.primaryKey[0]!]!)} IN (${rows.map((row) => row.key).join(',')})`
    : rows.map((row) => `(${keyCondition(table, row)})`).join(' OR ');
}

function deleteOf(table: TableBatch, rows: RowNet[]): Statement {
  const { source } = table;
  return {
    sql: `DELETE FROM ${source.sql} WHERE ${whereKeys(table, rows)}`,
    affected: rows.length,
    kind: 'delete',
    table,
    keys: rows.map((row) => row.key),
  };
}

function updateOf(table: TableBatch, row: RowNet, flavour: Flavour): Statement {
  const { source, target } = table;
  const before = row.before!;
  const after = row.after!;
  const set: string[] = [];
  for (const i of writtenColumns(table)) {
    // A column that the server sets by itself must be named, or it gets the target's time.
    if (before[i] !== after[i] || target.columns.get(source.columns[i]!)?.autoUpdated === true) {
      set.push(`${identifier(source.columns[i]!)}=${after[i]!}`);
    }
  }
  set.push(...columns(table).kept);
  return {
    sql: relaxed(
      table,
      flavour,
      `UPDATE ${source.sql} SET ${set.join(',')} WHERE ${whereKey(table, before)}`,
    ),
    affected: 1,
    kind: 'update',
    table,
    keys: [row.key],
  };
}

function insertOf(table: TableBatch, rows: RowNet[], flavour: Flavour): Statement {
  return {
    sql: relaxed(
      table,
      flavour,
      `INSERT INTO ${table.source.sql} (${columns(table).list}) VALUES ${rows.map((row) => tuple(table, row.after!)).join(',')}`,
    ),
    affected: rows.length,
    kind: 'insert',
    table,
    keys: rows.map((row) => row.key),
  };
}

/**
 * Many updates in one statement. A row counts 2 when it was changed, 1 when it was inserted because it was missing, 0 when
 * it had the new content already: the sum is 2 per row only when every row was there and changed. Not for tables with
 * other unique keys, where it could update another row.
 */
function upsertOf(table: TableBatch, rows: RowNet[], flavour: Flavour): Statement {
  const { source } = table;
  const set = writtenColumns(table)
    .filter((i) => !source.primaryKey.includes(i))
    .map((i) => identifier(source.columns[i]!));
  const [alias, value] =
    flavour === 'mysql' ? [' AS n', (c: string) => `n.${c}`] : ['', (c: string) => `VALUES(${c})`];
  return {
    sql: relaxed(
      table,
      flavour,
      `INSERT INTO ${source.sql} (${columns(table).list}) VALUES ${rows.map((row) => tuple(table, row.after!)).join(',')}${alias} ON DUPLICATE KEY UPDATE ${[...set.map((c) => `${c}=${value(c)}`), ...columns(table).kept].join(',')}`,
    ),
    affected: rows.length * 2,
    kind: 'update',
    table,
    keys: rows.map((row) => row.key),
  };
}

function tuple(table: TableBatch, row: Literal[]): string {
  const indexes = columns(table).written;
  return indexes.length === row.length ? `(${row.join(',')})` : `(${indexes.map((i) => row[i]).join(',')})`;
}

/** At most `limit` rows, and values of some length together. */
function* chunks(rows: readonly RowNet[], limit: number, cut: Cut): Generator<RowNet[]> {
  let some: RowNet[] = [];
  let text = 0;
  for (const row of rows) {
    some.push(row);
    for (const value of row.after ?? [row.key]) text += value.length;
    if (some.length < limit && text < cut.rows) continue;
    yield some;
    some = [];
    text = 0;
  }
  if (some.length > 0) yield some;
}
