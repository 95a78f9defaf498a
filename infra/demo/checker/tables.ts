import type { Connection, RowDataPacket } from 'mysql2/promise';
import { SHOP_SCHEMA, SHOP_TABLES } from '../schema.sql.js';
import type { ShopTable } from '../schema.sql.js';

export interface TableComparison {
  table: string;
  rows: number;
  equal: boolean;
  /** At most five differences, in words. */
  differences: string[];
}

const PAGE = 5000;

/** Compares whole tables, row by row and column by column, in the order of their primary keys. */
export async function compareTables(a: Connection, b: Connection): Promise<TableComparison[]> {
  const results: TableComparison[] = [];
  for (const table of SHOP_TABLES) {
    const rowsA = await rowsOf(a, table);
    const rowsB = await rowsOf(b, table);
    const differences: string[] = [];
    let different = 0;
    for (const key of new Set([...rowsA.keys(), ...rowsB.keys()])) {
      if (rowsA.get(key) === rowsB.get(key)) continue;
      different++;
      if (differences.length < 5) {
        differences.push(
          `${table.name} ${key}: ${rowsA.get(key) ?? 'absent'} | ${rowsB.get(key) ?? 'absent'}`,
        );
      }
    }
    results.push({ table: table.name, rows: rowsA.size, equal: different === 0, differences });
  }
  return results;
}

async function rowsOf(connection: Connection, table: ShopTable): Promise<Map<string, string>> {
  const rows = new Map<string, string>();
  const order = table.primaryKey.join(', ');
  for (let offset = 0; ; offset += PAGE) {
    const [page] = await connection.query<RowDataPacket[]>({
      sql: `SELECT * FROM ${SHOP_SCHEMA}.${table.name} ORDER BY ${order} LIMIT ${PAGE} OFFSET ${offset}`,
      dateStrings: true,
    });
    for (const row of page) {
      const key = table.primaryKey.map((column) => String(row[column])).join('/');
      rows.set(key, JSON.stringify(row));
    }
    if (page.length < PAGE) return rows;
  }
}

/** Row counts and checksums of all tables, made by the server: cheap enough to poll. Equal data gives equal text. */
export async function fingerprint(connection: Connection): Promise<string> {
  const parts: string[] = [];
  for (const table of SHOP_TABLES) {
    const columns = await columnsOf(connection, table.name);
    const [rows] = await connection.query<RowDataPacket[]>(
      `SELECT COUNT(*) AS n, COALESCE(SUM(CRC32(CONCAT_WS('|', ${columns.join(', ')}))), 0) AS crc
       FROM ${SHOP_SCHEMA}.${table.name}`,
    );
    parts.push(`${table.name}=${String(rows[0]!['n'])}:${String(rows[0]!['crc'])}`);
  }
  return parts.join(' ');
}

async function columnsOf(connection: Connection, table: string): Promise<string[]> {
  const [rows] = await connection.query<RowDataPacket[]>(
    `SELECT column_name AS name FROM information_schema.columns
     WHERE table_schema = ? AND table_name = ? ORDER BY ordinal_position`,
    [SHOP_SCHEMA, table],
  );
  return rows.map((row) => `\`${String(row['name'])}\``);
}

/** Waits until both servers have equal tables twice in a row with nothing written in between; false at the deadline. */
export async function waitUntilEqual(a: Connection, b: Connection, timeoutMs: number): Promise<boolean> {
  const deadline = Date.now() + timeoutMs;
  let last = '';
  for (;;) {
    const [here, there] = await Promise.all([fingerprint(a), fingerprint(b)]);
    if (here === there && here === last) return true;
    last = here === there ? here : '';
    if (Date.now() > deadline) return false;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}
