import { InterlockError } from '../../src/errors.js';
import { hex, quote } from './literal.js';
import type { Literal } from './literal.js';
import { decimalText, packedDatetimeText, packedTimeText } from './packed-values.js';

/**
 * MySQL's binary JSON (https://dev.mysql.com/doc/dev/mysql-server/8.0.31/json__binary_8h.html) → a SQL literal that
 * stores an equal document. Types that JSON text does not have (DECIMAL, dates, binary strings) are rebuilt with
 * JSON_OBJECT and JSON_ARRAY; all else is text. Numbers keep their type: an integral double stays `1.0`.
 * @param asText the text that the source itself shows for it, for a server that keeps JSON as text (MariaDB)
 */
export function jsonLiteral(bytes: Buffer, asText = false): Literal {
  // An empty value is what the server writes for a JSON null of a row that was never set.
  if (bytes.length === 0) return quote('null');
  const node = readValue(bytes, 0, bytes[0]!, 1, asText);
  return 'text' in node ? quote(node.text) : node.sql;
}

/** `text`: JSON text. `sql`: an expression, for a document that has values JSON text cannot carry. */
type Node = { text: string } | { sql: string };

const TYPE = {
  smallObject: 0,
  largeObject: 1,
  smallArray: 2,
  largeArray: 3,
  literal: 4,
  int16: 5,
  uint16: 6,
  int32: 7,
  uint32: 8,
  int64: 9,
  uint64: 10,
  double: 11,
  string: 12,
  opaque: 15,
} as const;

function readValue(b: Buffer, start: number, type: number, at: number, asText: boolean): Node {
  switch (type) {
    case TYPE.smallObject:
      return readContainer(b, at, true, false, asText);
    case TYPE.largeObject:
      return readContainer(b, at, true, true, asText);
    case TYPE.smallArray:
      return readContainer(b, at, false, false, asText);
    case TYPE.largeArray:
      return readContainer(b, at, false, true, asText);
    case TYPE.literal:
      return { text: literalText(b[at]!) };
    case TYPE.int16:
      return { text: String(b.readInt16LE(at)) };
    case TYPE.uint16:
      return { text: String(b.readUInt16LE(at)) };
    case TYPE.int32:
      return { text: String(b.readInt32LE(at)) };
    case TYPE.uint32:
      return { text: String(b.readUInt32LE(at)) };
    case TYPE.int64:
      return { text: String(b.readBigInt64LE(at)) };
    case TYPE.uint64:
      return { text: String(b.readBigUInt64LE(at)) };
    case TYPE.double:
      return asText ? { text: shownDouble(b.readDoubleLE(at)) } : doubleNode(b.readDoubleLE(at));
    case TYPE.string: {
      const { length, next } = variableLength(b, at);
      return { text: JSON.stringify(b.toString('utf8', next, next + length)) };
    }
    case TYPE.opaque:
      return asText ? { text: opaqueText(b, at) } : readOpaque(b, at);
    default:
      throw new InterlockError('LinkStopped', `binary JSON type ${type} at byte ${start} is not known`);
  }
}

function literalText(value: number): string {
  return value === 1 ? 'true' : value === 2 ? 'false' : 'null';
}

const EXACT = /^-?(\d+)(?:\.(\d+))?(?:e([+-]\d+))?$/;

/**
 * Hazard: MySQL's JSON parser (RapidJSON, without full precision) is off in the last bit for about every fifth double; a number of SQL is
 * read exactly. It is exact itself for a whole number up to 2^53, times or divided by a power of ten up to 10^22.
 */
function doubleNode(value: number): Node {
  if (Object.is(value, -0)) return { text: '-0.0' };
  const text = String(value);
  const [, whole, fraction = '', exponent = '0'] = EXACT.exec(text)!;
  const power = Number(exponent) - fraction.length;
  if (Number(whole! + fraction) > 2 ** 53 || Math.abs(power) > 22)
    return { sql: `CAST(${text.includes('e') ? text : `${text}e0`} AS JSON)` };
  // A double that is integral would come back as an integer without its point.
  return {
    text: fraction === '' && exponent === '0' ? (whole!.length < 15 ? `${text}.0` : `${text}e0`) : text,
  };
}

/** As MySQL prints it (strings/dtoa.cc, my_gcvt). */
function shownDouble(value: number): string {
  if (value === 0) return Object.is(value, -0) ? '-0.0' : '0.0';
  const [, sign, first, rest = '', exponent] = /^(-?)(\d)(?:\.(\d+))?e([+-]\d+)$/.exec(
    value.toExponential(),
  )!;
  const point = Number(exponent) + 1;
  const digits = first! + rest;
  if (point < -14 || point > 15) return `${sign}${first}${rest === '' ? '' : `.${rest}`}e${Number(exponent)}`;
  if (point <= 0) return `${sign}0.${'0'.repeat(-point)}${digits}`;
  if (digits.length > point) return `${sign}${digits.slice(0, point)}.${digits.slice(point)}`;
  return `${sign}${digits}${'0'.repeat(point - digits.length)}.0`;
}

function variableLength(b: Buffer, at: number): { length: number; next: number } {
  let length = 0;
  let factor = 1;
  for (let i = 0; i < 5; i++) {
    const byte = b[at + i]!;
    length += (byte & 0x7f) * factor;
    if ((byte & 0x80) === 0) return { length, next: at + i + 1 };
    factor *= 128;
  }
  throw new InterlockError('LinkStopped', `binary JSON length at byte ${at} is not valid`);
}

function readContainer(b: Buffer, at: number, isObject: boolean, isLarge: boolean, asText: boolean): Node {
  const size = isLarge ? 4 : 2;
  const uint = (offset: number): number => (isLarge ? b.readUInt32LE(offset) : b.readUInt16LE(offset));
  const count = uint(at);
  const keys = at + 2 * size;
  const values = isObject ? keys + count * (size + 2) : keys;
  const names: string[] = [];
  const nodes: Node[] = [];
  for (let i = 0; i < count; i++) {
    if (isObject) {
      const entry = keys + i * (size + 2);
      const from = at + uint(entry);
      names.push(b.toString('utf8', from, from + b.readUInt16LE(entry + size)));
    }
    const entry = values + i * (size + 1);
    const type = b[entry]!;
    const inlined =
      type === TYPE.literal ||
      type === TYPE.int16 ||
      type === TYPE.uint16 ||
      (isLarge && (type === TYPE.int32 || type === TYPE.uint32));
    nodes.push(readValue(b, entry, type, inlined ? entry + 1 : at + uint(entry + 1), asText));
  }
  if (nodes.every((node) => 'text' in node)) {
    const texts = nodes.map((node) => node.text);
    const members = isObject ? texts.map((text, i) => `${JSON.stringify(names[i])}: ${text}`) : texts;
    return { text: isObject ? `{${members.join(', ')}}` : `[${members.join(', ')}]` };
  }
  const expressions = nodes.map((node) => ('text' in node ? `CAST(${quote(node.text)} AS JSON)` : node.sql));
  return isObject
    ? { sql: `JSON_OBJECT(${expressions.map((sql, i) => `${quote(names[i]!)}, ${sql}`).join(', ')})` }
    : { sql: `JSON_ARRAY(${expressions.join(', ')})` };
}

/** As MySQL prints it (sql-common/json_dom.cc, Json_wrapper::to_string). */
function opaqueText(b: Buffer, at: number): string {
  const type = b[at]!;
  const { length, next } = variableLength(b, at + 1);
  const bytes = b.subarray(next, next + length);
  switch (type) {
    case 246:
      return decimalText(bytes, 2, bytes[0]!, bytes[1]!).text;
    case 10:
      return JSON.stringify(packedDatetimeText(bytes.readBigInt64LE(0)).slice(0, 10));
    case 11:
      return JSON.stringify(packedTimeText(bytes.readBigInt64LE(0)));
    case 7:
    case 12:
      return JSON.stringify(packedDatetimeText(bytes.readBigInt64LE(0)));
    default:
      return JSON.stringify(`base64:type${type}:${bytes.toString('base64')}`);
  }
}

/** A JSON value of a column's type, which no literal has. */
function ofColumn(type: string, json: string, value = 'c'): string {
  return `(SELECT CAST(${value} AS JSON) FROM JSON_TABLE(${json},'$[*]' COLUMNS(c ${type} PATH '$')) t)`;
}

function readOpaque(b: Buffer, at: number): Node {
  const type = b[at]!;
  const { length, next } = variableLength(b, at + 1);
  const bytes = b.subarray(next, next + length);
  switch (type) {
    case 246: {
      const precision = bytes[0]!;
      const scale = bytes[1]!;
      const digits = decimalText(bytes, 2, precision, scale).text;
      return { sql: `CAST(CAST(${digits} AS DECIMAL(${precision},${scale})) AS JSON)` };
    }
    case 10:
      return {
        sql: `CAST(CAST(${quote(packedDatetimeText(bytes.readBigInt64LE(0)).slice(0, 10))} AS DATE) AS JSON)`,
      };
    case 11:
      return { sql: `CAST(CAST(${quote(packedTimeText(bytes.readBigInt64LE(0)))} AS TIME(6)) AS JSON)` };
    case 7:
      return { sql: ofColumn('TIMESTAMP(6)', quote(`["${packedDatetimeText(bytes.readBigInt64LE(0))}"]`)) };
    case 12:
      return {
        sql: `CAST(CAST(${quote(packedDatetimeText(bytes.readBigInt64LE(0)))} AS DATETIME(6)) AS JSON)`,
      };
    case 16:
      return { sql: ofColumn(`BIT(${length * 8})`, `'[${BigInt(`0x${bytes.toString('hex') || '0'}`)}]'`) };
    // The server gives a binary string in JSON the type of its expression. No expression has the type of a TINYBLOB, MEDIUMBLOB, LONGBLOB or
    // BINARY column: their bytes are carried, as a BLOB's or VARBINARY's.
    case 249:
    case 250:
    case 251:
    case 252:
      return { sql: ofColumn('BLOB', `'[null]'`, `COALESCE(c,${hex(bytes)})`) };
    case 15:
    case 253:
    case 254:
      return { sql: `CAST(${hex(bytes)} AS JSON)` };
    default:
      throw new InterlockError('LinkStopped', `a JSON value holds the type ${type}, which cannot be carried`);
  }
}
