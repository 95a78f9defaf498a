import { InterlockError } from '../../src/errors.js';
import { jsonLiteral } from './json-binary.js';
import { NULL, UTF8, bytesLiteral, utf8Literal } from './literal.js';
import type { Literal } from './literal.js';
import { inBytes } from './value-type.js';
import type { ValueType } from './value-type.js';
import { dateText, datetimeText, decimalText, fractionText, timeText } from './packed-values.js';

/** A reader over the bytes of one binlog event. */
export class Cursor {
  buffer: Buffer;
  at: number;
  readonly end: number;

  constructor(buffer: Buffer, at: number, end: number) {
    this.buffer = buffer;
    this.at = at;
    this.end = end;
  }

  uint(bytes: number): number {
    const value = this.buffer.readUIntLE(this.at, bytes);
    this.at += bytes;
    return value;
  }

  uintBE(bytes: number): number {
    const value = this.buffer.readUIntBE(this.at, bytes);
    this.at += bytes;
    return value;
  }

  bytes(length: number): Buffer {
    const slice = this.buffer.subarray(this.at, this.at + length);
    this.at += length;
    return slice;
  }

  lengthEncoded(): number {
    const first = this.uint(1);
    return first < 251 ? first : this.uint(first === 252 ? 2 : first === 253 ? 3 : 6);
  }
}

/** Reads one value that is not NULL. */
export type Decoder = (cursor: Cursor) => Literal;

/** What the table map event says of a column. */
export interface ColumnMetadata {
  name: string;
  /** Type code of the wire; ENUM and SET are told apart from STRING. */
  type: number;
  unsigned: boolean;
  /** null: binary. */
  charset: string | null;
  maxLength?: number;
  lengthSize?: number;
  precision?: number;
  decimals?: number;
  bits?: number;
  size?: number;
  /** The target has no binary JSON. */
  jsonAsText?: boolean;
  /** An ENUM was read that holds no member (index 0), which a strict session does not write. */
  onErrorValue?: () => void;
}

const TYPE = {
  tiny: 1,
  short: 2,
  long: 3,
  float: 4,
  double: 5,
  longlong: 8,
  int24: 9,
  date: 10,
  year: 13,
  varchar: 15,
  bit: 16,
  timestamp2: 17,
  datetime2: 18,
  time2: 19,
  json: 245,
  decimal: 246,
  enum: 247,
  set: 248,
  tinyBlob: 249,
  mediumBlob: 250,
  longBlob: 251,
  blob: 252,
  string: 254,
  geometry: 255,
} as const;

const INTEGER_BYTES: Record<number, number> = {
  [TYPE.tiny]: 1,
  [TYPE.short]: 2,
  [TYPE.int24]: 3,
  [TYPE.long]: 4,
};

/** What values a column can hold, as its table map says. @param members of an ENUM or SET */
export function mappedType(column: ColumnMetadata, members: number | undefined): ValueType {
  const { type, unsigned, charset } = column;
  const integer = type === TYPE.longlong ? 8 : INTEGER_BYTES[type];
  if (integer !== undefined) return { kind: 'integer', bytes: integer, unsigned };
  switch (type) {
    case TYPE.decimal:
      return { kind: 'decimal', precision: column.precision!, scale: column.decimals!, unsigned };
    case TYPE.bit:
      return { kind: 'bit', bits: column.bits! };
    case TYPE.enum:
    case TYPE.set:
      return { kind: type === TYPE.enum ? 'enum' : 'set', members: members ?? 0, names: null };
    case TYPE.time2:
      return { kind: 'time', decimals: column.decimals! };
    case TYPE.datetime2:
      return { kind: 'datetime', decimals: column.decimals! };
    case TYPE.timestamp2:
      return { kind: 'timestamp', decimals: column.decimals! };
    case TYPE.varchar:
      return charset === null
        ? { kind: 'bytes', ...inBytes(column.maxLength!) }
        : { kind: 'text', chars: null, bytes: column.maxLength!, declared: 'chars' };
    case TYPE.tinyBlob:
    case TYPE.blob:
    case TYPE.mediumBlob:
    case TYPE.longBlob:
      return { kind: charset === null ? 'bytes' : 'text', ...inBytes(256 ** column.lengthSize! - 1) };
    case TYPE.string:
      return charset === null
        ? { kind: 'binary', ...inBytes(column.maxLength!) }
        : { kind: 'char', chars: null, bytes: column.maxLength!, declared: 'chars' };
    default:
      return { kind: 'other', type: '' };
  }
}

/**
 * A decoder for a column. Source of the layouts: MySQL 8.0 sql/log_event.cc (log_event_print_value) and
 * sql/field.cc (pack/unpack).
 * @throws InterlockError LinkStopped for a type that is not carried.
 */
export function decoderOf(column: ColumnMetadata, table: string): Decoder {
  const { type } = column;
  switch (type) {
    case TYPE.tiny:
    case TYPE.short:
    case TYPE.int24:
    case TYPE.long: {
      const bytes = INTEGER_BYTES[type]!;
      const sign = 2 ** (bytes * 8 - 1);
      return column.unsigned
        ? (c) => String(c.uint(bytes))
        : (c) => {
            const value = c.uint(bytes);
            return String(value >= sign ? value - 2 * sign : value);
          };
    }
    case TYPE.longlong:
      return column.unsigned ? unsigned64 : signed64;
    case TYPE.float:
      return (c) => floatLiteral(c.bytes(4).readFloatLE(0));
    case TYPE.double:
      return (c) => floatLiteral(c.bytes(8).readDoubleLE(0));
    case TYPE.decimal: {
      const precision = column.precision!;
      const decimals = column.decimals!;
      return (c) => {
        const { text, size } = decimalText(c.buffer, c.at, precision, decimals);
        c.at += size;
        return text;
      };
    }
    case TYPE.year:
      return (c) => {
        const raw = c.uint(1);
        return raw === 0 ? '0' : String(raw + 1900);
      };
    case TYPE.bit: {
      const bytes = Math.floor((column.bits! + 7) / 8);
      return (c) => String(BigInt(`0x${c.bytes(bytes).toString('hex')}`));
    }
    case TYPE.enum: {
      const size = column.size!;
      const { onErrorValue } = column;
      return (c) => {
        const index = c.uint(size);
        if (index === 0) onErrorValue?.();
        return String(index);
      };
    }
    case TYPE.set: {
      const size = column.size!;
      // Both servers compare a SET with an integer as signed 64-bit numbers, and store either form.
      return size === 8 ? signed64 : (c) => String(c.uint(size));
    }
    case TYPE.date:
      return (c) => {
        const raw = c.uint(3);
        return `'${dateText(raw >> 9, (raw >> 5) & 15, raw & 31)}'`;
      };
    case TYPE.time2:
      return time2(column.decimals!);
    case TYPE.datetime2:
      return datetime2(column.decimals!);
    case TYPE.timestamp2:
      return timestamp2(column.decimals!);
    case TYPE.varchar:
    case TYPE.string: {
      const prefix = column.maxLength! > 255 ? 2 : 1;
      // The image of a BINARY(n) has no trailing zero bytes; in a WHERE they must be there. MariaDB's UUID, INET4 and INET6 look the same.
      const pad = type === TYPE.string && column.charset === null ? column.maxLength! : 0;
      return textDecoder(column.charset, (c) => c.uint(prefix), pad);
    }
    case TYPE.tinyBlob:
    case TYPE.blob:
    case TYPE.mediumBlob:
    case TYPE.longBlob:
    // The server's own form: SRID (4 bytes, little-endian), then WKB. Both take it back as a binary string.
    case TYPE.geometry: {
      const size = column.lengthSize!;
      return textDecoder(column.charset, (c) => c.uint(size), 0);
    }
    case TYPE.json: {
      const size = column.lengthSize!;
      const asText = column.jsonAsText === true;
      return (c) => jsonLiteral(c.bytes(c.uint(size)), asText);
    }
    default:
      throw new InterlockError(
        'LinkStopped',
        `${table}.${column.name} has a column type (wire code ${type}) that is not carried; exclude the table or change the column`,
      );
  }
}

function unsigned64(c: Cursor): Literal {
  const value = c.buffer.readBigUInt64LE(c.at);
  c.at += 8;
  return String(value);
}

function signed64(c: Cursor): Literal {
  const value = c.buffer.readBigInt64LE(c.at);
  c.at += 8;
  return String(value);
}

/** A double literal; the shortest text that reads back as the same double, and as the same float after rounding. */
export function floatLiteral(value: number): Literal {
  if (Object.is(value, -0)) return '-0e0';
  const text = String(value);
  return text.includes('e') ? text : `${text}e0`;
}

function textDecoder(charset: string | null, length: (c: Cursor) => number, pad: number): Decoder {
  if (charset === null) {
    return (c) => {
      const bytes = length(c);
      const from = c.at;
      c.at += bytes;
      const text = c.buffer.toString('hex', from, from + bytes).padEnd(pad * 2, '0');
      return text === '' ? "''" : `x'${text}'`;
    };
  }
  const literalOf = UTF8.has(charset) ? utf8Literal : bytesLiteral;
  return (c) => {
    const bytes = length(c);
    const from = c.at;
    c.at += bytes;
    return literalOf(charset, c.buffer, from, from + bytes);
  };
}

function time2(decimals: number): Decoder {
  const bytes = Math.ceil(decimals / 2);
  const scale = 10 ** (6 - 2 * bytes);
  return (c) => {
    let whole = c.uintBE(3) - 0x800000;
    let fraction = bytes === 0 ? 0 : c.uintBE(bytes);
    // A negative time is stored as a two's complement over both parts.
    if (whole < 0 && fraction > 0) {
      whole += 1;
      fraction = 256 ** bytes - fraction;
    }
    const negative = whole < 0 || (fraction > 0 && c.buffer[c.at - bytes - 3]! < 0x80);
    return `'${timeText(negative, Math.abs(whole), fraction * scale, decimals)}'`;
  };
}

function datetime2(decimals: number): Decoder {
  const bytes = Math.ceil(decimals / 2);
  const scale = 10 ** (6 - 2 * bytes);
  return (c) => {
    const whole = c.uintBE(5) - 0x8000000000;
    const fraction = bytes === 0 ? 0 : c.uintBE(bytes);
    return `'${datetimeText(Math.floor(whole / 131072), whole % 131072, fraction * scale, decimals)}'`;
  };
}

function timestamp2(decimals: number): Decoder {
  const bytes = Math.ceil(decimals / 2);
  const scale = 10 ** (6 - 2 * bytes);
  return (c) => {
    const seconds = c.uintBE(4);
    const micros = bytes === 0 ? 0 : c.uintBE(bytes) * scale;
    if (seconds === 0 && micros === 0) return `'0000-00-00 00:00:00${fractionText(0, decimals)}'`;
    const text = new Date(seconds * 1000).toISOString();
    return `'${text.slice(0, 10)} ${text.slice(11, 19)}${fractionText(micros, decimals)}'`;
  };
}

/** Reads one row image; `present` must have every column (binlog_row_image=FULL). */
export function readImage(cursor: Cursor, decoders: readonly Decoder[]): Literal[] {
  const count = decoders.length;
  const nulls = cursor.at;
  cursor.at += (count + 7) >> 3;
  const { buffer } = cursor;
  const values = new Array<Literal>(count);
  for (let i = 0; i < count; i++) {
    values[i] = (buffer[nulls + (i >> 3)]! & (1 << (i & 7))) !== 0 ? NULL : decoders[i]!(cursor);
  }
  return values;
}
