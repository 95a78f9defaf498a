import { InterlockError } from '../../src/errors.js';
import {
  arrayNode,
  bytesNode,
  decimalNode,
  doubleNode,
  nodeLiteral,
  objectNode,
  timeNode,
} from './json-node.js';
import type { Node } from './json-node.js';
import { quote } from './literal.js';
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
  return nodeLiteral(readValue(bytes, 0, bytes[0]!, 1, asText));
}

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
  return isObject ? objectNode(names, nodes) : arrayNode(nodes);
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

function readOpaque(b: Buffer, at: number): Node {
  const type = b[at]!;
  const { length, next } = variableLength(b, at + 1);
  const bytes = b.subarray(next, next + length);
  switch (type) {
    case 246: {
      const [precision, scale] = [bytes[0]!, bytes[1]!];
      return decimalNode(decimalText(bytes, 2, precision, scale).text, precision, scale);
    }
    case 10:
      return timeNode('DATE', packedDatetimeText(bytes.readBigInt64LE(0)).slice(0, 10));
    case 11:
      return timeNode('TIME', packedTimeText(bytes.readBigInt64LE(0)));
    case 7:
      return timeNode('TIMESTAMP', packedDatetimeText(bytes.readBigInt64LE(0)));
    case 12:
      return timeNode('DATETIME', packedDatetimeText(bytes.readBigInt64LE(0)));
    default:
      return bytesNode(type, bytes);
  }
}
