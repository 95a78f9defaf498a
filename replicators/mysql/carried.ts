import type { Connection } from 'mysql2/promise';
import { InterlockError } from '../../src/errors.js';
import type { CarriedColumns, RowFilter } from '../../src/topology/schema.js';
import { TableFilter } from '../../src/topology/table-filter.js';
import { readCatalog } from './catalog.js';
import type { Catalog, CatalogColumn, CatalogTable } from './catalog.js';
import { mayBeLeftOut } from './drift.js';
import { NULL, UTF8, identifier, quote, textOf } from './literal.js';
import type { Literal } from './literal.js';

/** Which tables, columns and rows a link carries, and to where; all names are those of the source. */
export interface CarriedConfig {
  include: string[];
  exclude: string[];
  /** Source table → target table. */
  rename?: Record<string, string>;
  columns?: Record<string, CarriedColumns>;
  rows?: Record<string, RowFilter>;
}

/** A column that each side has values of its own in; the table's name is that of the source. */
export interface StoredApart {
  table: string;
  column: string;
}

/** Whether a row is carried. */
export type RowTest = (row: readonly Literal[]) => boolean;

/**
 * What a link carries, seen from both sides. Everywhere behind the stream a table has the name that it has on the target, also in the catalog
 * of the source: there only `sql` is the source's own name.
 */
export class Carried {
  readonly sourceFilter: TableFilter;
  readonly targetFilter: TableFilter;
  private readonly targets: ReadonlyMap<string, string>;
  private readonly sources: ReadonlyMap<string, string>;

  constructor(private readonly config: CarriedConfig) {
    this.targets = new Map(Object.entries(config.rename ?? {}));
    this.sources = new Map([...this.targets].map(([source, target]) => [target, source]));
    this.sourceFilter = new TableFilter(config.include, config.exclude);
    this.targetFilter = new TargetFilter(this, config);
  }

  targetName(source: string): string {
    return this.targets.get(source) ?? source;
  }

  /** Undefined: the table of that name is carried to another one, and nothing to this one. */
  sourceName(target: string): string | undefined {
    return this.sources.get(target) ?? (this.targets.has(target) ? undefined : target);
  }

  /** By the table's name on the target. */
  leftOut(target: string): readonly string[] {
    const source = this.sourceName(target);
    return (source === undefined ? undefined : this.config.columns?.[source]?.without) ?? [];
  }

  rowFilter(target: string): RowFilter | undefined {
    const source = this.sourceName(target);
    return source === undefined ? undefined : this.config.rows?.[source];
  }

  /** By the literals of a row, in the order of `columns`; undefined: every row is carried. */
  rowTest(target: string, columns: readonly string[]): RowTest | undefined {
    const filter = this.rowFilter(target);
    if (filter === undefined) return undefined;
    const at = columns.indexOf(filter.column);
    if (at < 0) {
      throw new InterlockError(
        'LinkStopped',
        `${target} has no column ${filter.column}, by which the topology filters its rows`,
      );
    }
    const wanted = new Set(filter.in.map(String));
    return (row) => row[at] !== NULL && wanted.has(textOf(row[at]!)!);
  }

  /** What is said of the source's tables, by the names of the target. */
  byTargetName<T>(bySource: Readonly<Record<string, T>>): Record<string, T> {
    return Object.fromEntries(
      Object.entries(bySource).map(([name, value]) => [this.targetName(name), value]),
    );
  }

  /** What the source has, by the names of the target, and without the columns that are left out. */
  async sourceCatalog(connection: Connection): Promise<Catalog> {
    return this.asOnTarget(await readCatalog(connection, this.sourceFilter));
  }

  /** What the target has; the columns that are left out as if the server made them, so that no statement names them. */
  async targetCatalog(connection: Connection): Promise<Catalog> {
    return this.withoutWriting(await readCatalog(connection, this.targetFilter));
  }

  /** Both catalogs, why they cannot be carried in this way, and the columns that are left out although both sides store them. */
  async catalogs(
    source: Pick<Connection, 'query'>,
    target: Pick<Connection, 'query'>,
  ): Promise<{ source: Catalog; target: Catalog; problems: string[]; apart: StoredApart[] }> {
    const here = await readCatalog(source, this.sourceFilter);
    const there = await readCatalog(target, this.targetFilter);
    const problems = this.problems(here, there);
    const apart = this.storedApart(here, there);
    return { source: this.asOnTarget(here), target: this.withoutWriting(there), problems, apart };
  }

  private storedApart(source: Catalog, target: Catalog): StoredApart[] {
    const isStored = (table: CatalogTable | undefined, column: string): boolean =>
      table?.columns.get(column)?.generated === false;
    return Object.entries(this.config.columns ?? {}).flatMap(([table, { without }]) =>
      without
        .filter((column) =>
          [source.get(table), target.get(this.targetName(table))].every((side) => isStored(side, column)),
        )
        .map((column) => ({ table, column })),
    );
  }

  private asOnTarget(catalog: Catalog): Catalog {
    return new Map(
      [...catalog.values()].map((table) => {
        const name = this.targetName(table.name);
        const foreignKeys = table.foreignKeys.map((key) => ({ ...key, parent: this.targetName(key.parent) }));
        return [name, without({ ...table, name, foreignKeys }, this.leftOut(name))];
      }),
    );
  }

  private withoutWriting(catalog: Catalog): Catalog {
    for (const table of catalog.values()) {
      const leftOut = this.leftOut(table.name);
      for (const name of leftOut) {
        const there = table.columns.get(name);
        table.columns.set(name, { ...(there ?? UNKNOWN), name, generated: true, leftOut: true });
      }
      table.uniqueKeys = table.uniqueKeys.filter((key) => !touches(key, leftOut));
    }
    return catalog;
  }

  private problems(source: Catalog, target: Catalog): string[] {
    const problems: string[] = [];
    for (const name of Object.keys(this.config.columns ?? {})) {
      const [here, there] = [source.get(name), target.get(this.targetName(name))];
      for (const column of this.config.columns![name]!.without) {
        const where = `columns.${name}.without: ${column}`;
        const found = there?.columns.get(column);
        if (here?.columns.get(column) === undefined && found === undefined) {
          problems.push(`${where}: neither side has such a column`);
          continue;
        }
        for (const table of [here, there]) {
          if (table?.primaryKey.includes(column) === true)
            problems.push(`${where}: it is of the primary key, which cannot be left out`);
          else if (table?.foreignKeys.some((key) => key.cascades && key.columns.includes(column)) === true)
            problems.push(`${where}: it is of a foreign key that cascades, which cannot be left out`);
          else continue;
          break;
        }
        if (there?.uniqueKeys.some((key) => touches(key, [column])) === true)
          problems.push(
            `${where}: it is of a unique key on the target, where every row would have its default`,
          );
        if (found !== undefined && !mayBeLeftOut(found))
          problems.push(`${where}: it has no default on the target; give it one there, or make it NULL`);
      }
    }
    for (const [name, { column }] of Object.entries(this.config.rows ?? {})) {
      const table = source.get(name);
      if (table === undefined) continue;
      const where = `rows.${name}.column: ${column}`;
      const found = table.columns.get(column);
      if (found === undefined) problems.push(`${where}: the source has no such column`);
      else if (
        !FILTER_TYPES.has(found.dataType) ||
        (found.charset !== null && !UTF8.has(found.charset)) ||
        found.type.includes('zerofill')
      )
        problems.push(`${where}: rows are filtered by integers or utf8 text, not by ${found.type}`);
      if (table.inOrder)
        problems.push(`${where}: rows of a table whose foreign keys cascade cannot be filtered`);
    }
    return problems;
  }
}

class TargetFilter extends TableFilter {
  constructor(
    private readonly carried: Carried,
    { include, exclude }: CarriedConfig,
  ) {
    super(include, exclude);
  }

  override carries(schema: string, table: string): boolean {
    const name = `${schema}.${table}`;
    const source = this.carried.sourceName(name);
    if (source === name) return super.carries(schema, table);
    if (source === undefined || !this.mayCarry(schema)) return false;
    return super.carries(...(source.split('.') as [string, string]));
  }
}

const FILTER_TYPES = new Set('tinyint smallint mediumint int bigint char varchar'.split(' '));
const UNKNOWN: Omit<CatalogColumn, 'name' | 'generated'> = {
  type: '',
  dataType: '',
  charset: null,
  collation: null,
  nullable: true,
  ...{ expression: '', default: { kind: 'none' }, octets: null },
  autoUpdated: false,
};

/** `name(column)` or `name(column/prefix)` (catalog.ts). */
function touches(uniqueKey: string, columns: readonly string[]): boolean {
  const part = uniqueKey.slice(uniqueKey.indexOf('(') + 1, -1).replace(/\/\d+$/, '');
  return columns.includes(part);
}

/** A table as if it had no such columns. */
export function without(table: CatalogTable, leftOut: readonly string[]): CatalogTable {
  if (leftOut.length === 0) return table;
  return {
    ...table,
    columns: new Map([...table.columns].filter(([name]) => !leftOut.includes(name))),
    uniqueColumns: new Set([...table.uniqueColumns].filter((name) => !leftOut.includes(name))),
    uniqueKeys: table.uniqueKeys.filter((key) => !touches(key, leftOut)),
  };
}

/** The rows of a filter in SQL: the bytes are compared, as the stream does it, whatever the column's collation is. */
export function rowCondition({ column, in: values }: RowFilter): string {
  const text = `CAST(CONVERT(${identifier(column)} USING utf8mb4) AS BINARY)`;
  return `${text} IN (${values.map((value) => `CAST(${quote(String(value))} AS BINARY)`).join(',')})`;
}
