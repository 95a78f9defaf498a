import type { Connection, RowDataPacket } from 'mysql2/promise';
import type { TableFilter } from '../../src/topology/table-filter.js';
import { identifier } from './literal.js';
import { columnDefault } from './value-type.js';
import type { ColumnDefault } from './value-type.js';

export interface CatalogColumn {
  name: string;
  /** `varchar(64)`, `enum('a','b')`, … */
  type: string;
  dataType: string;
  charset: string | null;
  collation: string | null;
  nullable: boolean;
  generated: boolean;
  /** Of a generated column, as the server spells it; else empty. */
  expression: string;
  default: ColumnDefault;
  /** Bytes that its text can have. */
  octets: number | null;
  /** Set by the server itself on every UPDATE that does not name it. */
  autoUpdated: boolean;
  /** The link does not carry it (see carried.ts). */
  leftOut?: boolean;
}

export interface CatalogTable {
  name: string;
  sql: string;
  engine: string;
  /** BASE TABLE, SYSTEM VERSIONED or SEQUENCE. */
  kind: string;
  columns: Map<string, CatalogColumn>;
  primaryKey: string[];
  /** Columns of unique keys other than the primary key; `(expression)` for a functional part. */
  uniqueColumns: Set<string>;
  uniqueKeys: string[];
  triggers: string[];
  foreignKeys: ForeignKey[];
  /** Tables that the link does not carry, whose foreign keys to this one cascade. */
  cascadesOutside: string[];
  /**
   * It is bound by foreign keys to tables of which one cascades: the engine changes rows by itself, which the binlog does not show, so
   * all changes of these tables go in the source's order, under the source's checks.
   */
  inOrder: boolean;
}

export interface ForeignKey {
  name: string;
  columns: string[];
  /** `schema.table`. */
  parent: string;
  parentColumns: string[];
  onDelete: string;
  onUpdate: string;
  cascades: boolean;
}

export type Catalog = Map<string, CatalogTable>;

/** The tables of a server that a link carries, as they are now. */
export async function readCatalog(
  connection: Pick<Connection, 'query'>,
  filter: Pick<TableFilter, 'carries'>,
): Promise<Catalog> {
  const catalog: Catalog = new Map();
  const system = `('mysql','information_schema','performance_schema','sys')`;
  const rows = async (sql: string): Promise<Record<string, string | number | null>[]> => {
    const [found] = await connection.query<RowDataPacket[]>(sql);
    return found;
  };
  for (const row of await rows(
    `SELECT table_schema AS s, table_name AS t, engine AS e, table_type AS k FROM information_schema.tables
     WHERE table_type IN ('BASE TABLE','SYSTEM VERSIONED','SEQUENCE') AND table_schema NOT IN ${system} ORDER BY 1, 2`,
  )) {
    const [schema, table] = [String(row['s']), String(row['t'])];
    if (!filter.carries(schema, table)) continue;
    catalog.set(`${schema}.${table}`, {
      name: `${schema}.${table}`,
      sql: `${identifier(schema)}.${identifier(table)}`,
      engine: String(row['e']),
      kind: String(row['k']),
      columns: new Map(),
      primaryKey: [],
      uniqueColumns: new Set(),
      uniqueKeys: [],
      triggers: [],
      foreignKeys: [],
      cascadesOutside: [],
      inOrder: false,
    });
  }
  if (catalog.size === 0) return catalog;
  const tableOf = (row: Record<string, string | number | null>): CatalogTable | undefined =>
    catalog.get(`${row['s']}.${row['t']}`);
  for (const row of await rows(
    `SELECT table_schema AS s, table_name AS t, column_name AS c, column_type AS ty, data_type AS d, character_set_name AS cs,
       collation_name AS co, is_nullable AS n, extra AS x, generation_expression AS g, column_default AS de,
       character_octet_length AS o, VERSION() LIKE '%MariaDB%' AS m
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
      expression: String(row['g'] ?? ''),
      default: columnDefault(row['de'] === null ? null : String(row['de']), extra, Number(row['m']) === 1),
      octets: row['o'] === null ? null : Number(row['o']),
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
    `SELECT event_object_schema AS s, event_object_table AS t, trigger_name AS n FROM information_schema.triggers ORDER BY 1, 2, 3`,
  )) {
    tableOf(row)?.triggers.push(String(row['n']));
  }
  for (const row of await rows(
    `SELECT k.table_schema AS s, k.table_name AS t, k.constraint_name AS n, k.column_name AS c, k.referenced_table_schema AS ps,
       k.referenced_table_name AS pt, k.referenced_column_name AS pc, r.delete_rule AS od, r.update_rule AS ou
     FROM information_schema.key_column_usage k JOIN information_schema.referential_constraints r
       ON r.constraint_schema = k.constraint_schema AND r.constraint_name = k.constraint_name AND r.table_name = k.table_name
     WHERE k.referenced_table_name IS NOT NULL AND k.table_schema NOT IN ${system} ORDER BY 1, 2, 3, k.ordinal_position`,
  )) {
    // InnoDB does the same for both words, and each server has its own default.
    const [onDelete, onUpdate] = [row['od'], row['ou']].map((rule) =>
      String(rule).replace('NO ACTION', 'RESTRICT'),
    ) as [string, string];
    const parent = `${row['ps']}.${row['pt']}`;
    const cascades = ACTIONS.has(onDelete) || ACTIONS.has(onUpdate);
    const table = tableOf(row);
    if (table === undefined) {
      if (cascades) catalog.get(parent)?.cascadesOutside.push(`${row['s']}.${row['t']}`);
      continue;
    }
    let key = table.foreignKeys.find((one) => one.name === row['n']);
    if (key === undefined) {
      key = { name: String(row['n']), columns: [], parent, parentColumns: [], onDelete, onUpdate, cascades };
      table.foreignKeys.push(key);
    }
    key.columns.push(String(row['c']));
    key.parentColumns.push(String(row['pc']));
  }
  markInOrder(catalog);
  return catalog;
}

/** What the engine does to the child's rows by itself. */
const ACTIONS = new Set(['CASCADE', 'SET NULL', 'SET DEFAULT']);

/** Every table that is connected by foreign keys, over however many, to one that cascades. */
function markInOrder(catalog: Catalog): void {
  const neighbours = new Map<string, string[]>();
  const open: string[] = [];
  for (const { name, foreignKeys } of catalog.values()) {
    for (const { parent, cascades } of foreignKeys) {
      neighbours.set(name, [...(neighbours.get(name) ?? []), parent]);
      neighbours.set(parent, [...(neighbours.get(parent) ?? []), name]);
      if (cascades) open.push(name);
    }
  }
  for (let name = open.pop(); name !== undefined; name = open.pop()) {
    const table = catalog.get(name);
    if (table === undefined || table.inOrder) continue;
    table.inOrder = true;
    open.push(...(neighbours.get(name) ?? []));
  }
}
