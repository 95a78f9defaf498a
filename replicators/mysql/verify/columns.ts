import type { CatalogColumn } from '../catalog.js';
import { NULL, UTF8, bytesLiteral, hex, identifier, quote } from '../literal.js';
import type { Literal } from '../literal.js';

/** A value as the server stores it: bytes of text, binary and JSON columns, else exact text; null: NULL. */
export type Value = string | Buffer | null;

/** A column, and how its values are read without loss, hashed, written again and shown. */
export interface ComparedColumn {
  name: string;
  sql: string;
  /** An expression whose value is a `Value`. */
  exact: string;
  /** Text for the hash of a row: never NULL, without a comma. */
  hashed: string;
  /** An expression that people read in place of the value; null: the value itself. */
  label: string | null;
  generated: boolean;
  /** One text for one value, of what `exact` has answered. */
  canonical(value: Value): Value;
  literal(value: Value): Literal;
  show(value: Value): string | null;
}

const SHOWN = 120;
/** Longer text is hashed by its digest, so that the text of a row stays far below `max_allowed_packet`: beyond it, functions answer NULL. */
const HEX_LENGTH = 255;
const GEOMETRY = /point|linestring|polygon|geom/;

/** Expects a session with `time_zone = '+00:00'`, in which connection text is utf8mb4. */
export function comparedColumn(column: CatalogColumn): ComparedColumn {
  const sql = identifier(column.name);
  const described = byType(column, sql);
  // `~` is no hexadecimal digit and no part of a number or time: NULL is never taken for a value, nor for ''.
  const hashed = column.nullable ? `IFNULL(${described.hashed},'~')` : described.hashed;
  return {
    ...{ name: column.name, sql, label: null, generated: column.generated },
    ...described,
    hashed,
    canonical: (value) =>
      typeof value === 'string' && described.canonical ? described.canonical(value) : value,
    literal: (value) => (value === null ? NULL : described.literal(value)),
    show: (value) => (value === null ? null : described.show(value)),
  };
}

interface ByType {
  exact: string;
  hashed: string;
  label?: string;
  canonical?(value: string): string;
  literal(value: string | Buffer): Literal;
  show(value: string | Buffer): string;
}

function byType({ dataType, type, charset }: CatalogColumn, sql: string): ByType {
  const text = (expression: string): string => `CAST(${expression} AS CHAR)`;
  const asIs = { literal: String, show: String };
  switch (dataType) {
    case 'float':
    case 'double': {
      // A FLOAT by itself is printed with six digits. A DOUBLE must be printed as it is: MySQL cuts what it has calculated to 23 characters.
      const exact = text(dataType === 'float' ? `CAST(${sql} AS DOUBLE)` : sql);
      // Servers print one number in several ways: as 1.5e-7 and as 0.00000015.
      const canonical = (value: string): string =>
        Object.is(Number(value), -0) ? '-0' : String(Number(value));
      const literal = (value: string | Buffer): Literal =>
        /e/.test(String(value)) ? String(value) : `${String(value)}e0`;
      return { exact, hashed: exact, canonical, literal, show: String };
    }
    case 'bit': {
      const exact = text(`CAST(${sql} AS UNSIGNED)`);
      return { exact, hashed: exact, ...asIs };
    }
    case 'enum':
    case 'set': {
      // By number: a label can be empty, and says nothing of its place. `+ 0` would be a double, too small for 64 members.
      const exact = text(`CAST(${sql} AS UNSIGNED)`);
      return { exact, hashed: exact, label: text(sql), ...asIs };
    }
    case 'date':
    case 'time':
    case 'datetime':
    case 'timestamp': {
      const exact = text(sql);
      return { exact, hashed: exact, literal: (value) => quote(String(value)), show: String };
    }
    case 'inet4':
    case 'inet6':
    case 'uuid': {
      const exact = text(sql);
      return { exact, hashed: exact, literal: (value) => quote(String(value)), show: String };
    }
    case 'json':
      return {
        exact: `CAST(${text(sql)} AS BINARY)`,
        hashed: `MD5(${text(sql)})`,
        literal: (value) => `CAST(_utf8mb4 ${hex(value as Buffer)} AS JSON)`,
        show: (value) => shortened(String(value)),
      };
    default:
      break;
  }
  if (GEOMETRY.test(dataType)) {
    const exact = `CAST(${sql} AS BINARY)`;
    return { exact, hashed: `MD5(${sql})`, literal: (value) => hex(value as Buffer), show: bytesShown };
  }
  if (!/char|text|binary|blob/.test(dataType)) return { exact: text(sql), hashed: text(sql), ...asIs };
  // The bytes themselves, in the column's own character set: neither its collation nor the connection's character set has a say.
  const exact = `CAST(${sql} AS BINARY)`;
  const length = Number(/\((\d+)\)/.exec(type)?.[1] ?? Infinity);
  const hashed = length <= HEX_LENGTH ? `HEX(${sql})` : `MD5(${sql})`;
  if (charset === null) return { exact, hashed, literal: (value) => hex(value as Buffer), show: bytesShown };
  return {
    exact,
    hashed,
    literal: (value) => bytesLiteral(charset, value as Buffer),
    show: (value) => (UTF8.has(charset) ? shortened(String(value)) : bytesShown(value)),
  };
}

function bytesShown(value: string | Buffer): string {
  return shortened(`x'${(value as Buffer).toString('hex')}'`);
}

function shortened(text: string): string {
  return text.length <= SHOWN ? text : `${text.slice(0, SHOWN)}… (${text.length} characters)`;
}

export function sameValue(a: Value, b: Value): boolean {
  if (Buffer.isBuffer(a) && Buffer.isBuffer(b)) return a.equals(b);
  return a === b;
}
