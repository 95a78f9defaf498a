import type { Connection, RowDataPacket } from 'mysql2/promise';
import type { ConflictPolicy } from '../../src/topology/schema.js';
import { keyOf } from './batch.js';
import type { RowNet } from './batch.js';
import type { CatalogTable } from './catalog.js';
import { expressionOf, literalOf } from './chunk-reader.js';
import type { ReadableTable } from './chunk-reader.js';
import { laterOnes } from './latest.js';
import type { LinkConfig } from './link-config.js';
import { NULL, identifier } from './literal.js';
import type { Literal } from './literal.js';
import type { Ownership } from './ownership.js';
import type { Mismatch } from './row-check.js';
import type { SourceTable } from './source-table.js';

export const DUPLICATE_KEY = 1062;
const ROWS_PER_QUESTION = 100;

/** As the target has the columns that the stream has. */
export type Shape = Pick<ReadableTable, 'source' | 'select' | 'literals'>;

export function shapeOf(source: SourceTable, { columns }: CatalogTable): Shape {
  const known = source.columns.map((name) => columns.get(name));
  return {
    source,
    select: known.map((column) => (column === undefined ? 'NULL' : expressionOf(column))).join(','),
    literals: known.map((column) =>
      column === undefined ? () => NULL : literalOf(column, () => (source.lax = true)),
    ),
  };
}

/**
 * Whether a row of the target that holds a unique value of one that arrives goes: it is the source's, which has another one there or none, or the
 * policy says so.
 * @param met the row that goes, under its key, with the image that arrives
 */
export async function givesWay(
  target: Connection,
  link: Pick<LinkConfig, 'link' | 'winsTies'>,
  {
    owner,
    policy,
    met,
  }: { owner: ReturnType<ReturnType<Ownership['snapshot']>>; policy: ConflictPolicy; met: Mismatch },
): Promise<boolean> {
  if (owner !== 'unrouted') return owner === 'source';
  if (typeof policy === 'string') return policy === 'source-wins';
  return (await laterOnes(target, link, policy.latest, [met]))[0] === 'source';
}

/**
 * Rows under other keys that hold a unique value of one that is to be written. Of keys on expressions or on the beginning of a column nothing is
 * known here.
 * @param rows to be written, `after`
 */
export async function inTheWay(
  connection: Connection,
  shape: Shape,
  { sql, uniqueKeys }: CatalogTable,
  rows: readonly RowNet[],
): Promise<{ row: RowNet; other: Literal[] }[]> {
  const { source, select, literals } = shape;
  const questions: { row: RowNet; text: string }[] = [];
  for (const columns of columnsOf(uniqueKeys)) {
    const places = columns.map((column) => source.columns.indexOf(column));
    if (places.includes(-1)) continue;
    for (const row of rows) {
      const values = places.map((at) => row.after![at]!);
      if (values.includes(NULL)) continue;
      const where = columns.map((column, i) => `${identifier(column)}=${values[i]!}`).join(' AND ');
      questions.push({ row, text: `SELECT ${questions.length},${select} FROM ${sql} WHERE ${where}` });
    }
  }
  const found: { row: RowNet; other: Literal[] }[] = [];
  for (let from = 0; from < questions.length; from += ROWS_PER_QUESTION) {
    const some = questions.slice(from, from + ROWS_PER_QUESTION);
    const [answers] = await connection.query<RowDataPacket[]>({
      sql: some.map(({ text }) => `(${text})`).join(' UNION ALL '),
      rowsAsArray: true,
      typeCast: false,
    });
    for (const [number, ...values] of answers as unknown as [Buffer, ...(Buffer | null)[]][]) {
      const { row } = questions[Number(number.toString('latin1'))]!;
      const other = values.map((bytes, i) => (bytes === null ? NULL : literals[i]!(bytes)));
      if (keyOf(source, other) !== row.key) found.push({ row, other });
    }
  }
  return found;
}

/** `name(column)` or `name(column/prefix)`, one for each column (catalog.ts). */
function columnsOf(uniqueKeys: readonly string[]): string[][] {
  const byName = new Map<string, string[]>();
  for (const key of uniqueKeys) {
    const [, name, column] = /^(.*?)\((.*)\)$/s.exec(key)!;
    byName.set(name!, [...(byName.get(name!) ?? []), column!]);
  }
  return [...byName.values()];
}
