import type { Connection, RowDataPacket } from 'mysql2/promise';
import type { TableRouting } from '../../src/topology/schema.js';
import type { Catalog, CatalogColumn, CatalogTable, ForeignKey } from './catalog.js';
import { differencesOf } from './drift.js';
import type { Difference } from './drift.js';
import { UTF8 } from './literal.js';
import type { Flavour } from './position.js';
import { keepsTombstones } from './tombstones.js';

const CARRIED_TYPES = new Set(
  (
    'tinyint smallint mediumint int bigint decimal float double bit date time datetime timestamp year char varchar ' +
    'binary varbinary tinyblob blob mediumblob longblob tinytext text mediumtext longtext enum set json ' +
    'geometry point linestring polygon multipoint multilinestring multipolygon geomcollection geometrycollection ' +
    'inet4 inet6 uuid'
  ).split(' '),
);
const ROUTING_TYPES = new Set(
  'tinyint smallint mediumint int bigint decimal char varchar tinytext text'.split(' '),
);

/** What of the source's server settings keeps a link from reading it; each says what to do. */
export async function sourceProblems(connection: Connection, flavour: Flavour): Promise<string[]> {
  const wanted: Record<string, string> = {
    log_bin: '1',
    binlog_format: 'ROW',
    binlog_row_image: 'FULL',
    binlog_row_metadata: 'FULL',
    ...(flavour === 'mysql'
      ? { gtid_mode: 'ON', binlog_row_value_options: '', binlog_transaction_compression: '0' }
      : { log_bin_compress: '0' }),
  };
  const names = Object.keys(wanted);
  const [rows] = await connection.query<RowDataPacket[]>(
    `SELECT ${names.map((name) => `@@GLOBAL.${name} AS ${name}`).join(', ')}`,
  );
  const problems: string[] = [];
  for (const name of names) {
    const value = String((rows[0] as Record<string, string | number | null>)[name] ?? '');
    if (value.toUpperCase() !== wanted[name]) {
      problems.push(
        `${name} is ${value === '' ? 'empty' : value}; set it to ${wanted[name] === '' ? "''" : wanted[name]}`,
      );
    }
  }
  return [...problems, ...(await binlogFilterProblems(connection))];
}

/** A transaction table that is filtered out of the binlog would let every change circle for ever. */
export async function binlogFilterProblems(connection: Connection): Promise<string[]> {
  const [status] = await connection.query<RowDataPacket[]>('SHOW MASTER STATUS');
  const row = status[0] as Record<string, unknown> | undefined;
  const problems: string[] = [];
  for (const name of ['Binlog_Do_DB', 'Binlog_Ignore_DB']) {
    const value = row?.[name];
    if (typeof value === 'string' && value !== '') {
      problems.push(`${name} is ${value}: the loop mark could be missing from the binlog; remove the filter`);
    }
  }
  return problems;
}

/** Why the tables of a link cannot be carried; each problem names its table. */
export function tableProblems(
  source: Catalog,
  target: Catalog,
  routing: Readonly<Record<string, TableRouting>>,
  mixed = false,
): string[] {
  return [...problemsByTable(source, target, routing, mixed, () => false).values()].flat();
}

/** The same for a link that runs: differences over which rows flow are none, nor is a table that one side does not have. */
export function problemsByTable(
  source: Catalog,
  target: Catalog,
  routing: Readonly<Record<string, TableRouting>>,
  mixed: boolean,
  passes: (difference: Difference) => boolean = ({ flows }) => flows,
): Map<string, string[]> {
  const found = new Map<string, string[]>();
  for (const name of new Set([...source.keys(), ...target.keys()])) {
    const differences = differencesOf(source, target, name, mixed);
    // Rows of it stop the link, or there are none.
    if (differences.length === 1 && differences[0]!.mend?.verb === 'CREATE' && passes(differences[0]!))
      continue;
    const { carriable, list } = oneTable(name, source, target, routing);
    const differing = carriable ? differences.filter((one) => !passes(one)).map(({ text }) => text) : [];
    if (differing.length + list.length > 0) found.set(name, [...differing, ...list]);
  }
  return found;
}

function oneTable(
  name: string,
  source: Catalog,
  target: Catalog,
  routing: Readonly<Record<string, TableRouting>>,
): { carriable: boolean; list: string[] } {
  const table = source.get(name) ?? target.get(name)!;
  if (table.kind === 'SEQUENCE')
    return { carriable: false, list: [`${name}: a sequence, whose rows are not carried; exclude it`] };
  if (table.kind === 'SYSTEM VERSIONED')
    return {
      carriable: false,
      list: [`${name}: system versioning, whose history only the server itself can write; exclude it`],
    };
  const problems: string[] = [];
  const engines = new Set([source, target].flatMap((side) => side.get(name)?.engine ?? []));
  for (const engine of engines) {
    if (engine.toLowerCase() !== 'innodb') problems.push(`${name}: engine ${engine}; only InnoDB is carried`);
  }
  if (table.primaryKey.length === 0) problems.push(`${name}: no primary key; add one or exclude the table`);
  for (const column of table.columns.values()) {
    if (column.leftOut !== true) problems.push(...columnProblems(name, column));
  }
  const triggers = [source, target]
    .flatMap((side) => side.get(name)?.triggers ?? [])
    .filter((trigger) => !keepsTombstones(trigger));
  if (triggers.length > 0) {
    problems.push(
      `${name}: trigger ${triggers.join(', ')} would fire a second time on the target; drop it or exclude the table`,
    );
  }
  problems.push(...cascadeProblems(name, source, target, routing));
  problems.push(...routingProblems(name, table.columns, routing));
  return { carriable: true, list: problems };
}

/**
 * What a cascade changes is not in the binlog: the target's engine has to do the same. It does when the child's rows are the same there,
 * so parent and child must be carried by one link, in the same definition, and always have the same owner.
 */
function cascadeProblems(
  name: string,
  source: Catalog,
  target: Catalog,
  routing: Readonly<Record<string, TableRouting>>,
): string[] {
  const problems: string[] = [];
  const keysOf = (table: CatalogTable | undefined): ForeignKey[] =>
    (table?.foreignKeys ?? []).filter((key) => key.cascades);
  const describe = (key: ForeignKey): string =>
    `(${key.columns.join()}) to ${key.parent} (${key.parentColumns.join()}) ON DELETE ${key.onDelete} ON UPDATE ${key.onUpdate}`;
  const [here, there] = [source, target].map((side) => keysOf(side.get(name)).map(describe).sort());
  if (here!.join() !== there!.join()) {
    problems.push(
      `${name}: foreign keys that cascade are [${here!.join('; ')}] at the source, [${there!.join('; ')}] on the target`,
    );
  }
  for (const key of keysOf(source.get(name))) {
    if (!source.has(key.parent)) {
      problems.push(
        `${name}: foreign key ${key.name} cascades from ${key.parent}, which the link does not carry; carry both, or use RESTRICT`,
      );
    } else if (!sameOwner(routing[name], routing[key.parent], key)) {
      problems.push(
        `${name}: foreign key ${key.name} cascades from ${key.parent}, whose rows may have another owner; put the routing columns into the foreign key, or use RESTRICT`,
      );
    }
  }
  const outside = new Set([source, target].flatMap((side) => side.get(name)?.cascadesOutside ?? []));
  for (const child of outside) {
    problems.push(
      `${name}: a foreign key of ${child}, which the link does not carry, cascades from it; carry both, or use RESTRICT`,
    );
  }
  return problems;
}

/** Whether a row and the row that its foreign key names are always of one unit. */
function sameOwner(
  child: TableRouting | undefined,
  parent: TableRouting | undefined,
  key: ForeignKey,
): boolean {
  if (child === undefined || parent === undefined) return true;
  if ('unrouted' in child) return 'unrouted' in parent;
  if ('central' in child) return 'central' in parent && parent.central === child.central;
  if (!('userId' in parent)) return false;
  const bound = (a: string | undefined, b: string | undefined): boolean =>
    a === undefined
      ? b === undefined
      : key.columns.some(
          (column, i) =>
            column.toLowerCase() === a.toLowerCase() &&
            key.parentColumns[i]!.toLowerCase() === b?.toLowerCase(),
        );
  return bound(child.userId, parent.userId) && bound(child.region, parent.region);
}

function columnProblems(table: string, column: CatalogColumn): string[] {
  const type = column.type.toLowerCase();
  if (!CARRIED_TYPES.has(column.dataType) || type.includes('compressed') || type.includes('mariadb-5.3')) {
    return [`${table}.${column.name}: type ${column.type} is not carried; exclude the table`];
  }
  return [];
}

function routingProblems(
  name: string,
  columns: Map<string, CatalogColumn>,
  routing: Readonly<Record<string, TableRouting>>,
): string[] {
  if (!Object.hasOwn(routing, name)) {
    return [
      `${name}: not in the topology's tables; declare userId, central or unrouted, or exclude it from the link`,
    ];
  }
  const declared = routing[name]!;
  if (!('userId' in declared)) return [];
  const problems: string[] = [];
  for (const wanted of [declared.userId, declared.region]) {
    if (wanted === undefined) continue;
    const column = [...columns.values()].find((c) => c.name.toLowerCase() === wanted.toLowerCase());
    if (column === undefined) problems.push(`${name}: no column ${wanted}, by which the topology routes it`);
    else if (!ROUTING_TYPES.has(column.dataType) || (column.charset !== null && !UTF8.has(column.charset))) {
      problems.push(
        `${name}.${wanted}: routing columns are integers or utf8 text, not ${column.type} ${column.charset ?? ''}`,
      );
    }
  }
  return problems;
}
