import type { Connection, RowDataPacket } from 'mysql2/promise';
import type { CatalogColumn, CatalogTable } from './catalog.js';
import { keyRange } from './key-range.js';
import { NULL, UTF8, bytesLiteral, hex, identifier, quote, utf8Literal } from './literal.js';
import type { Literal } from './literal.js';
import { floatLiteral } from './row-image.js';
import { answersInTime, connect } from './session.js';
import type { ServerAddress } from './session.js';
import type { SourceTable } from './source-table.js';
import { valueTypeOf } from './value-type.js';

/** A table as SELECT gives it. The literals are those that the stream gives, so that keys of both can be compared. */
export interface ReadableTable {
  source: SourceTable;
  select: string;
  literals: ((bytes: Buffer) => Literal)[];
  /** Columns of the primary key, in its order. */
  key: string[];
}

/** A session that reads rows as the server stores them: bytes unconverted, times in UTC. */
export async function connectReader(server: ServerAddress): Promise<Connection> {
  const connection = answersInTime(await connect(server));
  try {
    await connection.query('SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED');
    await connection.query(`SET SESSION time_zone='+00:00', character_set_results=NULL`);
    return connection;
  } catch (error) {
    connection.destroy();
    throw error;
  }
}

export function readable(table: CatalogTable): ReadableTable {
  const columns = [...table.columns.values()];
  const [schema, name] = table.name.split('.') as [string, string];
  const source: SourceTable = {
    name: table.name,
    schema,
    table: name,
    sql: table.sql,
    columns: columns.map((column) => column.name),
    primaryKey: table.primaryKey.map((key) => columns.findIndex((column) => column.name === key)),
    decoders: [],
    types: columns.map(valueTypeOf),
    carried: true,
    control: null,
    lax: false,
  };
  return {
    source,
    select: columns.map(expressionOf).join(','),
    literals: columns.map((column) => literalOf(column, () => (source.lax = true))),
    key: table.primaryKey,
  };
}

/**
 * Rows in the order of the primary key, behind `after` (as literals) and up to `upTo`; at most `limit`.
 * `from`: the table's name there, when it is another.
 */
export async function readRows(
  connection: Connection,
  table: ReadableTable,
  range: { after: Literal[] | null; upTo: Literal[] | null; limit: number | null; from?: string },
): Promise<Literal[][]> {
  const key = table.key.map(identifier);
  const where = [
    ...(range.after === null ? [] : [keyRange(key, '>', range.after)]),
    ...(range.upTo === null ? [] : [keyRange(key, '<=', range.upTo)]),
  ];
  const { literals } = table;
  let column = 0;
  let failure: { error: unknown } | undefined;
  const [rows] = await connection.query<RowDataPacket[]>({
    sql: `SELECT ${table.select} FROM ${range.from ?? table.source.sql}${where.length > 0 ? ` WHERE ${where.join(' AND ')}` : ''}
      ORDER BY ${key.join(',')}${range.limit === null ? '' : ` LIMIT ${range.limit}`}`,
    rowsAsArray: true,
    // As they arrive: values that wait as bytes for the last row cost more to keep than to read.
    typeCast: (field) => {
      const literal = literals[column]!;
      column = (column + 1) % literals.length;
      const bytes = field.buffer();
      if (bytes === null) return NULL;
      try {
        return literal(bytes);
      } catch (error) {
        // Thrown here, it would be the connection's.
        failure ??= { error };
        return NULL;
      }
    },
  });
  if (failure !== undefined) throw failure.error;
  return rows as unknown as Literal[][];
}

export function keyValues(table: ReadableTable, row: Literal[]): Literal[] {
  return table.source.primaryKey.map((i) => row[i]!);
}

/** What to select of a column for `literalOf`. */
export function expressionOf({ name, dataType, charset }: CatalogColumn): string {
  const column = identifier(name);
  // As text, a float has six digits; an enum's error value and a set's members have no number.
  if (dataType === 'float') return `CAST(${column} AS DOUBLE)`;
  if (dataType === 'enum') return `CAST(${column} AS UNSIGNED)`;
  if (dataType === 'set') return `CAST(${column} AS SIGNED)`;
  const bytes = BYTES_OF[dataType];
  // What the stream has of them; as text they are written in other ways.
  if (bytes !== undefined) return `CAST(${column} AS BINARY(${bytes}))`;
  // mysql2 reads the name of a column in the character set of its values, and does not know all of them.
  if (charset !== null) return `CAST(${column} AS BINARY)`;
  return column;
}

const BYTES_OF: Readonly<Record<string, number>> = { inet4: 4, inet6: 16, uuid: 16 };
const AS_IS = new Set('tinyint smallint mediumint int bigint decimal set'.split(' '));

/** `onErrorValue`: an enum has index 0, which only a lax session may write. */
export function literalOf(
  { type, dataType, charset }: CatalogColumn,
  onErrorValue: () => void,
): (bytes: Buffer) => Literal {
  if (dataType === 'enum') {
    return (bytes) => {
      const index = bytes.toString('latin1');
      if (index === '0') onErrorValue();
      return index;
    };
  }
  if (type.includes('zerofill')) return (bytes) => bytes.toString('latin1').replace(/^0+(?=\d)/, '');
  if (AS_IS.has(dataType)) return (bytes) => bytes.toString('latin1');
  if (dataType === 'float' || dataType === 'double')
    return (bytes) => floatLiteral(Number(bytes.toString('latin1')));
  if (dataType === 'year') return (bytes) => String(Number(bytes.toString('latin1')));
  if (dataType === 'bit') return (bytes) => String(BigInt(`0x${bytes.toString('hex')}`));
  if (/^(date|time|datetime|timestamp)$/.test(dataType)) return (bytes) => `'${bytes.toString('latin1')}'`;
  if (dataType === 'json') return (bytes) => quote(bytes.toString('utf8'));
  if (charset === null) return hex;
  const textOf = UTF8.has(charset) ? utf8Literal : bytesLiteral;
  return (bytes) => textOf(charset, bytes);
}
