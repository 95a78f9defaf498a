import type { Connection, RowDataPacket } from 'mysql2/promise';
import type { CopyProgress } from '../core/contract.js';
import type { Catalog, CatalogTable } from './catalog.js';
import { quote } from './literal.js';
import type { Literal } from './literal.js';

/**
 * fill     the target's table was empty: every row of the source is copied.
 * merge    both sides have rows: rows that the source owns are made as they are there, rows that only the target has stay.
 * resync   as merge, and what the source owns and does not have is removed.
 */
export type CopyPurpose = 'fill' | 'merge' | 'resync';

/** One table that a link copies. */
export interface CopyTable {
  name: string;
  purpose: CopyPurpose;
  /** The primary key up to which it is copied, as literals; null: from the beginning. */
  lastKey: Literal[] | null;
  estimated: number;
  counts: CopyCounts;
  maxRowsPerSecond: number | null;
}

export interface CopyCounts {
  /** Rows of the source that were looked at. */
  compared: number;
  written: number;
  removed: number;
  /** Rows that differ and that the source does not own: as they were on the target. */
  kept: number;
}

export interface CopyOrder {
  purpose: CopyPurpose;
  estimated: number;
}

/** The tables that a link has still to copy, in their order. */
export async function unfinished(target: Connection, link: string): Promise<CopyTable[]> {
  const [rows] = await target.query<RowDataPacket[]>(
    `SELECT name, purpose, last_key, estimated, compared, written, removed, kept, max_rows_per_second
     FROM interlock.link_copy WHERE link = ? AND state <> 'done' ORDER BY state = 'waiting', name`,
    [link],
  );
  return rows.map((row) => ({
    name: String(row['name']),
    purpose: row['purpose'] as CopyPurpose,
    lastKey: row['last_key'] === null ? null : (JSON.parse(String(row['last_key'])) as Literal[]),
    estimated: Number(row['estimated']),
    counts: {
      compared: Number(row['compared']),
      written: Number(row['written']),
      removed: Number(row['removed']),
      kept: Number(row['kept']),
    },
    maxRowsPerSecond: row['max_rows_per_second'] === null ? null : Number(row['max_rows_per_second']),
  }));
}

/** Which of these tables have rows on the target. */
export async function tablesWithRows(
  target: Connection,
  tables: readonly CopyTable[],
  catalog: Catalog,
): Promise<Set<string>> {
  const found = new Set<string>();
  for (const { name } of tables) {
    const table = catalog.get(name);
    if (table !== undefined && !(await isEmpty(target, table))) found.add(name);
  }
  return found;
}

export async function isEmpty(connection: Connection, table: CatalogTable): Promise<boolean> {
  const [rows] = await connection.query<RowDataPacket[]>(`SELECT 1 FROM ${table.sql} LIMIT 1`);
  return rows.length === 0;
}

/** What of a link's copy is done; null: it has never copied. */
export async function copyProgress(target: Connection, link: string): Promise<CopyProgress | null> {
  const [rows] = await target.query<RowDataPacket[]>(
    `SELECT COUNT(*) AS tables, SUM(state = 'done') AS done, SUM(GREATEST(estimated, compared)) AS estimated, SUM(compared) AS compared,
       SUM(written) AS written, SUM(removed) AS removed, SUM(kept) AS kept FROM interlock.link_copy WHERE link = ?`,
    [link],
  );
  const row = rows[0]!;
  if (Number(row['tables']) === 0) return null;
  return {
    tables: Number(row['tables']),
    tablesDone: Number(row['done']),
    table: null,
    estimatedRows: Number(row['estimated']),
    comparedRows: Number(row['compared']),
    writtenRows: Number(row['written']),
    removedRows: Number(row['removed']),
    keptRows: Number(row['kept']),
    rowsPerSecond: 0,
    etaSeconds: null,
  };
}

/** In the transaction of the chunk: how far the table is. */
export function progressStatement(link: string, table: CopyTable, done: boolean): string {
  const { compared, written, removed, kept } = table.counts;
  const key = table.lastKey === null ? 'NULL' : quote(JSON.stringify(table.lastKey));
  return `UPDATE interlock.link_copy SET state='${done ? 'done' : 'copying'}', last_key=${key}, compared=${compared}, written=${written}, removed=${removed}, kept=${kept}, updated_at=UTC_TIMESTAMP(6) WHERE link=${quote(link)} AND name=${quote(table.name)}`;
}

/** Nothing is to be copied any more. The caller has a transaction open. */
export async function cancelCopy(target: Connection, link: string): Promise<void> {
  await target.query('DELETE FROM interlock.link_copy WHERE link = ?', [link]);
}

/** Tables to copy from the beginning. The caller has a transaction open. */
export async function orderCopy(
  target: Connection,
  link: string,
  tables: ReadonlyMap<string, CopyOrder>,
  maxRowsPerSecond: number | null,
): Promise<void> {
  for (const [name, { purpose, estimated }] of tables) {
    await target.query(
      `INSERT INTO interlock.link_copy (link, name, purpose, state, last_key, estimated, compared, written, removed, kept, max_rows_per_second, updated_at)
       VALUES (?, ?, ?, 'waiting', NULL, ?, 0, 0, 0, 0, ?, UTC_TIMESTAMP(6))
       ON DUPLICATE KEY UPDATE purpose = VALUES(purpose), state = 'waiting', last_key = NULL, estimated = VALUES(estimated), compared = 0, written = 0,
         removed = 0, kept = 0, max_rows_per_second = VALUES(max_rows_per_second), updated_at = VALUES(updated_at)`,
      [link, name, purpose, estimated, maxRowsPerSecond],
    );
  }
}
