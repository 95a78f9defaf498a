import { anyImage } from './batch.js';
import type { RowNet, TableBatch } from './batch.js';
import { identifier } from './literal.js';
import type { Literal } from './literal.js';

/** MariaDB's unique keys on long text have a hidden column each, which is in the binlog. */
export const HIDDEN_HASH = /^DB_ROW_HASH_\d+$/;

interface Columns {
  written: number[];
  list: string;
  /** Assignments of columns that only the target has, and would set by itself. */
  kept: string[];
}
const columnsOf = new WeakMap<TableBatch, Columns>();

/** The columns that are written: all but those that the target computes or does not have (what they hold was looked at before). */
export function writtenColumns(table: TableBatch): number[] {
  return columns(table).written;
}

export function columns(table: TableBatch): Columns {
  let known = columnsOf.get(table);
  if (known === undefined) {
    const indexes = table.source.columns
      .map((_name, i) => i)
      .filter((i) => {
        const column = table.target.columns.get(table.source.columns[i]!);
        return column !== undefined && !column.generated;
      });
    const kept = [...table.target.columns.values()]
      .filter(({ name, autoUpdated }) => autoUpdated && !table.source.columns.includes(name))
      .map(({ name }) => `${identifier(name)}=${table.target.sql}.${identifier(name)}`);
    known = {
      written: indexes,
      list: indexes.map((i) => identifier(table.source.columns[i]!)).join(','),
      kept,
    };
    columnsOf.set(table, known);
  }
  return known;
}

export function whereKey(table: TableBatch, row: Literal[]): string {
  const { source } = table;
  return source.primaryKey.map((i) => `${identifier(source.columns[i]!)}=${row[i]!}`).join(' AND ');
}

/** As the row was, is to be, or has been between. */
export function keyCondition(table: TableBatch, row: RowNet): string {
  return whereKey(table, anyImage(row));
}
