import type { TableMapEvent } from '@vlasky/zongji';
import { InterlockError } from '../../src/errors.js';
import type { TableFilter } from '../../src/topology/table-filter.js';
import type { Carried, RowTest } from './carried.js';
import { identifier } from './literal.js';
import { decoderOf, mappedType } from './row-image.js';
import type { ColumnMetadata, Decoder } from './row-image.js';
import type { ValueType } from './value-type.js';

export type ControlTable = 'unit_state' | 'marker' | 'link_checkpoint' | 'copy_watermark';

/** A table as one table map event of the source described it. */
export interface SourceTable {
  /** `schema.table`. */
  name: string;
  schema: string;
  table: string;
  sql: string;
  columns: string[];
  primaryKey: number[];
  decoders: Decoder[];
  /** What values the columns can hold. */
  types: ValueType[];
  carried: boolean;
  /** It holds values that a strict session does not write. */
  lax: boolean;
  /** Whether a row is carried; undefined: all are. */
  keeps?: RowTest | undefined;
  /** A table of the control schema that the link reads in band. */
  control: ControlTable | null;
}

const CONTROL: Record<string, ControlTable> = {
  unit_state: 'unit_state',
  marker: 'marker',
  link_checkpoint: 'link_checkpoint',
  copy_watermark: 'copy_watermark',
};

export interface Reading {
  /** Collation id → character set, of the source: MariaDB has ids that the wire library does not know. */
  charsets: ReadonlyMap<number, string>;
  /** The target keeps JSON as text. */
  jsonAsText: boolean;
  /** What becomes of names and rows; undefined: they stay as they are. */
  carried?: Carried;
}

/** What zongji read from the optional metadata. */
interface Described {
  _columnCharsetIds?: (number | undefined)[];
  _enumSetValues?: (Buffer[] | undefined)[];
}

const BINARY_COLLATION = 63;

/** What a table map says of its columns, as far as rows are read by it. */
export function definitionOf(event: TableMapEvent): string {
  return JSON.stringify([
    event.columnNames,
    event.columnTypes,
    event.columnsMetadata,
    event.signedness,
    event.primaryKey,
    (event as unknown as Described)._columnCharsetIds,
  ]);
}

/**
 * The character set is the event's own: the target's could be that of a later definition.
 * @throws InterlockError LinkStopped when a table that is carried cannot be.
 */
export function sourceTableOf(event: TableMapEvent, filter: TableFilter, reading: Reading): SourceTable {
  const name = `${event.schemaName}.${event.tableName}`;
  const control = event.schemaName === 'interlock' ? (CONTROL[event.tableName] ?? null) : null;
  const carried = filter.carries(event.schemaName, event.tableName);
  const table: SourceTable = {
    name,
    schema: event.schemaName,
    table: event.tableName,
    sql: `${identifier(event.schemaName)}.${identifier(event.tableName)}`,
    columns: [],
    primaryKey: [],
    decoders: [],
    types: [],
    carried,
    lax: false,
    control,
  };
  if (!carried && control === null) return table;
  // Without full metadata, rows would be read by the table's definition of now, which may be another.
  if (!event.hasSelfDescribingMetadata() || event.columnNames === undefined) {
    throw new InterlockError(
      'LinkStopped',
      `the source writes ${name} without full row metadata; set binlog_row_metadata=FULL there`,
    );
  }
  table.columns = event.columnNames;
  if (carried && reading.carried !== undefined) {
    table.name = reading.carried.targetName(name);
    if (table.name !== name) {
      // Names in the topology have one dot; others may have more.
      [table.schema, table.table] = table.name.split('.') as [string, string];
      table.sql = `${identifier(table.schema)}.${identifier(table.table)}`;
    }
    table.keeps = reading.carried.rowTest(table.name, table.columns);
  }
  table.primaryKey = event.primaryKey ?? [];
  if (carried && table.primaryKey.length === 0) {
    throw new InterlockError(
      'LinkStopped',
      `${name} has no primary key; add one, or exclude the table from the link`,
    );
  }
  const { _columnCharsetIds: collations = [], _enumSetValues: members = [] } = event as unknown as Described;
  table.decoders = table.columns.map((column, i) => {
    const metadata = event.columnsMetadata[i] as Record<string, number> | undefined;
    const collation = collations[i] ?? BINARY_COLLATION;
    const described: ColumnMetadata = {
      name: column,
      type: event.columnTypes[i]!,
      unsigned: event.signedness?.[i] === true,
      charset: collation === BINARY_COLLATION ? null : (reading.charsets.get(collation) ?? 'utf8mb4'),
      jsonAsText: reading.jsonAsText,
      onErrorValue: () => (table.lax = true),
      ...(metadata && {
        maxLength: metadata['max_length'],
        lengthSize: metadata['length_size'],
        precision: metadata['precision'],
        decimals: metadata['decimals'],
        bits: metadata['bits'],
        size: metadata['size'],
      }),
    };
    table.types.push(mappedType(described, members[i]?.length));
    return decoderOf(described, name);
  });
  return table;
}
