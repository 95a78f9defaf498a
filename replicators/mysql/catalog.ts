import type { Connection, RowDataPacket } from 'mysql2/promise';
import type { TableFilter } from '../core/table-filter.js';
import { identifier } from './literal.js';

export interface CatalogColumn {
  name: string;
  /** `varchar(64)`, `enum('a','b')`, … */
  type: string;
  dataType: string;
  charset: string | null;
  collation: string | null;
  nullable: boolean;
  generated: boolean;
  /** Set by the server itself on every UPDATE that does not name it. */
  autoUpdated: boolean;
}

export interface CatalogTable {
  name: string;
  sql: string;
  engine: string;
  columns: Map<string, CatalogColumn>;
  primaryKey: string[];
  /** Columns of unique keys other than the primary key; `(expression)` for a functional part. */
  uniqueColumns: Set<string>;
  uniqueKeys: string[];
  triggers: string[];
  /** Foreign keys whose actions the binlog does not show. */
  cascades: string[];
}

export type Catalog = Map<string, CatalogTable>;

/** The tables of a server that a link carries, as they are now. */
export async function readCatalog(connection: Connection, filter: TableFilter): Promise<Catalog> {
  const catalog: Catalog = new Map();
  const system = `('mysql','information_schema','performance_schema','sys','interlock')`;
  const rows = async (sql: string): Promise<Record<string, string | number | null>[]> => {
    const [found] = await connection.query<RowDataPacket[]>(sql);
    return found;
  };
  for (const row of await rows(
    `SELECT table_schema AS s, table_name AS t, engine AS e FROM information_schema.tables
     WHERE table_type IN ('BASE TABLE','SYSTEM VERSIONED') AND table_schema NOT IN ${system} ORDER BY 1, 2`,
  )) {
    const [schema, table] = [String(row['s']), String(row['t'])];
    if (!filter.carries(schema, table)) continue;
    catalog.set(`${schema}.${table}`, {
      name: `${schema}.${table}`,
      sql: `${identifier(schema)}.${identifier(table)}`,
      engine: String(row['e']),
      columns: new Map(),
      primaryKey: [],
      uniqueColumns: new Set(),
      uniqueKeys: [],
      triggers: [],
      cascades: [],
    });
  }
  if (catalog.size === 0) return catalog;
  const tableOf = (row: Record<string, string | number | null>): CatalogTable | undefined =>
    catalog.get(`${row['s']}.${row['t']}`);
  for (const row of await rows(
    `SELECT table_schema AS s, table_name AS t, column_name AS c, column_type AS ty, data_type AS d, character_set_name AS cs,
       collation_name AS co, is_nullable AS n, extra AS x, generation_expression AS g
     FROM information_schema.columns WHERE table_schema NOT IN ${system} ORDER BY 1, 2, ordinal_position`,
  )) {
    const extra = String(row['x'] ?? '').toLowerCase();
    tableOf(row)?.columns.set(String(row['c']), {
      name: String(row['c']),
      type: String(row['ty']),
      dataType: String(row['d']).toLowerCase(),
      charset: row['cs'] === null ? null : String(row['cs']),
      collation: row['co'] === null ? null : String(row['co']),
      nullable: row['n'] === 'YES',
      generated: row['g'] !== null && row['g'] !== '',
      autoUpdated: extra.includes('on update'),
    });
  }
  for (const row of await rows(
    `SELECT table_schema AS s, table_name AS t, index_name AS i, column_name AS c, sub_part AS p
     FROM information_schema.statistics WHERE non_unique = 0 AND table_schema NOT IN ${system} ORDER BY 1, 2, 3, seq_in_index`,
  )) {
    const table = tableOf(row);
    if (table === undefined) continue;
    const column = row['c'] === null ? '(expression)' : String(row['c']);
    if (row['i'] === 'PRIMARY') table.primaryKey.push(column);
    else {
      table.uniqueColumns.add(column);
      table.uniqueKeys.push(`${row['i']}(${column}${row['p'] === null ? '' : `/${row['p']}`})`);
    }
  }
  for (const row of await rows(
    `SELECT event_object_schema AS s, event_object_table AS t, trigger_name AS n FROM information_schema.triggers`,
  )) {
    tableOf(row)?.triggers.push(String(row['n']));
  }
  for (const row of await rows(
    `SELECT constraint_schema AS s, table_name AS t, constraint_name AS n FROM information_schema.referential_constraints
     WHERE delete_rule IN ('CASCADE','SET NULL','SET DEFAULT') OR update_rule IN ('CASCADE','SET NULL','SET DEFAULT')`,
  )) {
    tableOf(row)?.cascades.push(String(row['n']));
  }
  return catalog;
}
