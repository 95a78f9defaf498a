import { keyOf } from './batch.js';
import type { RowNet, TableBatch } from './batch.js';
import type { CatalogColumn } from './catalog.js';
import { expressionOf, literalOf } from './chunk-reader.js';
import { NULL, identifier } from './literal.js';
import type { Literal } from './literal.js';
import type { Statement } from './statements.js';
import { keyCondition, writtenColumns } from './written-columns.js';

/** A row that is not on the target as the source had it before its change. */
export interface Mismatch {
  table: TableBatch;
  row: RowNet;
  /** As it is on the target, in the order of the source's columns; null: not there. */
  current: Literal[] | null;
}

/** The columns that a check reads, by the place that they have at the source. */
interface Compared {
  select: string;
  columns: { at: number; column: CatalogColumn; literal: (bytes: Buffer) => Literal }[];
}

const KEYS_PER_CHECK = 500;
const TEXT_PER_CHECK = 4 * 1024 * 1024;

const comparedOf = new WeakMap<TableBatch, Compared>();

function compared(table: TableBatch): Compared {
  let known = comparedOf.get(table);
  if (known === undefined) {
    known = comparedColumns(table);
    comparedOf.set(table, known);
  }
  return known;
}

function comparedColumns(table: TableBatch): Compared {
  const { source, target } = table;
  const read = new Set([...source.primaryKey, ...writtenColumns(table)]);
  const columns = [...read].map((at): Compared['columns'][number] => {
    const column = target.columns.get(source.columns[at]!)!;
    return { at, column, literal: literalOf(column, () => (source.lax = true)) };
  });
  return { columns, select: columns.map(({ column }) => expressionOf(column)).join(',') };
}

/** Reads rows under a lock, so that what they are is what the change meets. Each is to be as its `before` says. */
export function* checksOf(table: TableBatch, rows: readonly RowNet[]): Generator<Statement> {
  const known = compared(table);
  let some: RowNet[] = [];
  let text = 0;
  for (const row of rows) {
    some.push(row);
    for (const value of row.before ?? []) text += value.length;
    if (some.length < KEYS_PER_CHECK && text < TEXT_PER_CHECK) continue;
    yield checkOf(table, known, some);
    some = [];
    text = 0;
  }
  if (some.length > 0) yield checkOf(table, known, some);
}

function checkOf(table: TableBatch, { select }: Compared, rows: RowNet[]): Statement {
  const { source } = table;
  const key = source.primaryKey.map((i) => identifier(source.columns[i]!));
  const where =
    key.length === 1
      ? `${key[0]} IN (${rows.map((row) => row.key).join(',')})`
      : rows.map((row) => `(${keyCondition(table, row)})`).join(' OR ');
  return {
    sql: `SELECT ${select} FROM ${source.sql} WHERE ${where} FOR UPDATE`,
    affected: null,
    kind: 'check',
    table,
    keys: [],
    rows,
  };
}

/** @param answer of a check's statement, rows as arrays of bytes */
export function mismatchesOf(check: Statement, answer: (Buffer | null)[][]): Mismatch[] {
  const { table } = check;
  const { source } = table;
  const { columns } = compared(table);
  const found = new Map<string, Literal[]>();
  for (const values of answer) {
    const row = new Array<Literal>(source.columns.length).fill(NULL);
    columns.forEach(({ at, literal }, i) => {
      const bytes = values[i]!;
      row[at] = bytes === null ? NULL : literal(bytes);
    });
    found.set(keyOf(source, row), row);
  }
  const mismatches: Mismatch[] = [];
  for (const row of check.rows!) {
    const current = found.get(row.key) ?? null;
    const { before } = row;
    const same =
      before === null
        ? current === null
        : current !== null && columns.every(({ at }) => before[at] === current[at]);
    if (!same) mismatches.push({ table, row, current: current && completed(current, row, columns) });
  }
  return mismatches;
}

/** What is not compared is taken to be as the source had it: a row that is rebased on `current` has to be whole. */
function completed(current: Literal[], row: RowNet, columns: Compared['columns']): Literal[] {
  const image = row.before ?? row.after;
  const read = new Set(columns.map(({ at }) => at));
  return current.map((value, at) => (read.has(at) ? value : (image?.[at] ?? value)));
}

/**
 * Two literals may be of one value: JSON has many texts, and a row may have been read from a column of before an ALTER (another character
 * set, more decimals). An expression that the target is to answer with 1; null when the row differs in more than that.
 */
export function sameValue({ table, row, current }: Mismatch): string | null {
  const { before } = row;
  if (before === null || current === null) return null;
  const conditions: string[] = [];
  for (const { at, column } of compared(table).columns) {
    const [mine, other] = [before[at]!, current[at]!];
    if (mine === other) continue;
    const condition = mine === NULL || other === NULL ? null : sameIn(column, mine, other);
    if (condition === null) return null;
    conditions.push(condition);
  }
  return `(${conditions.join(' AND ')})`;
}

/** The row is from now on known as the target writes it. */
export function adopt({ row, current }: Mismatch): void {
  const { before, after } = row;
  current!.forEach((value, at) => {
    if (after !== null && after[at] === before![at]) after[at] = value;
    before![at] = value;
  });
}

/** @param other as the target's SELECT gave it */
function sameIn({ dataType, charset }: CatalogColumn, mine: Literal, other: Literal): string | null {
  // What the server prints: read again, its text would be a document of other types (a decimal becomes a double).
  if (dataType === 'json')
    return `CAST(CAST(CAST(${mine} AS JSON) AS CHAR) AS BINARY)=CAST(${other} AS BINARY)`;
  const both = (value: (literal: Literal) => string): string => `${value(mine)}=${value(other)}`;
  if (dataType === 'decimal') return both((literal) => literal);
  if (/^(datetime|timestamp)$/.test(dataType)) return both((literal) => `CAST(${literal} AS DATETIME(6))`);
  if (dataType === 'time') return both((literal) => `CAST(${literal} AS TIME(6))`);
  if (charset === null || dataType === 'enum' || dataType === 'set') return null;
  return both((literal) => `CAST(CONVERT(${literal} USING ${charset}) AS BINARY)`);
}
