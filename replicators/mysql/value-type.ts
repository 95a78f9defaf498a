import { NULL } from './literal.js';
import type { Literal } from './literal.js';

/**
 * What values a column can hold, as far as a column of another size can be asked whether it holds them, too. `other`: told apart by its
 * whole description only.
 */
export type ValueType =
  | { kind: 'integer'; bytes: number; unsigned: boolean }
  | { kind: 'decimal'; precision: number; scale: number; unsigned: boolean }
  /** Text and binary strings of variable and of fixed length. */
  | ({ kind: 'text' | 'bytes' | 'char' | 'binary' } & Length)
  | { kind: 'time' | 'datetime' | 'timestamp'; decimals: number }
  | { kind: 'enum' | 'set'; members: number; names: readonly string[] | null }
  | { kind: 'bit'; bits: number }
  | { kind: 'other'; type: string };

export interface Length {
  bytes: number;
  /** The most characters; null when only bytes are bounded, or (`declared` in characters, in a table map) when only those are told. */
  chars: number | null;
  declared: 'chars' | 'bytes';
}

/** Whether a value fits; `always` and `never` for any of them. */
export type Fit = 'always' | 'never' | ((literal: Literal) => boolean);

const INTEGER_BYTES: Record<string, number> = { tinyint: 1, smallint: 2, mediumint: 3, int: 4, bigint: 8 };
const LENGTH_BYTES: Record<string, number> = { tiny: 1, '': 2, medium: 3, long: 4 };

/** @param column of information_schema: `decimal(10,2) unsigned`, with the bytes that a text of it can have */
export function valueTypeOf(column: { type: string; dataType: string; octets: number | null }): ValueType {
  const { dataType } = column;
  const type = column.type.toLowerCase();
  const numbers = (/\(([\d,\s]+)\)/.exec(type)?.[1] ?? '').split(',').map(Number);
  const unsigned = /\b(unsigned|zerofill)\b/.test(type);
  const bytes = INTEGER_BYTES[dataType];
  if (bytes !== undefined) return { kind: 'integer', bytes, unsigned };
  const blob = /^(tiny|medium|long|)(text|blob)$/.exec(dataType);
  if (blob !== null) {
    return {
      kind: blob[2] === 'text' ? 'text' : 'bytes',
      ...inBytes(256 ** LENGTH_BYTES[blob[1]!]! - 1),
    };
  }
  switch (dataType) {
    case 'decimal':
      return { kind: 'decimal', precision: numbers[0]!, scale: numbers[1] ?? 0, unsigned };
    case 'varchar':
    case 'char':
      return {
        ...{ kind: dataType === 'char' ? 'char' : 'text', declared: 'chars' },
        ...{ chars: numbers[0]!, bytes: column.octets ?? numbers[0]! * 4 },
      };
    case 'varbinary':
      return { kind: 'bytes', ...inBytes(numbers[0]!) };
    case 'binary':
      return { kind: 'binary', ...inBytes(numbers[0]!) };
    case 'time':
    case 'datetime':
    case 'timestamp':
      return { kind: dataType, decimals: numbers[0] || 0 };
    case 'enum':
    case 'set': {
      const names = membersOf(column.type);
      return { kind: dataType, members: names.length, names };
    }
    case 'bit':
      return { kind: 'bit', bits: numbers[0] || 1 };
    default:
      return { kind: 'other', type };
  }
}

export function inBytes(bytes: number): Length {
  return { bytes, chars: null, declared: 'bytes' };
}

/** The members of `enum('a','b')` or `set(…)`. */
export function membersOf(type: string): string[] {
  return [...type.matchAll(/'((?:[^']|'')*)'/g)].map(([, name]) => name!.replaceAll("''", "'"));
}

/** Whether `target` holds the values that `source` can have: all, none surely, or to be asked of each. */
export function holds(target: ValueType, source: ValueType): Fit {
  switch (target.kind) {
    case 'integer': {
      if (source.kind !== 'integer') return 'never';
      const [low, high] = range(target);
      const [least, most] = range(source);
      return low <= least && most <= high ? 'always' : (v) => low <= BigInt(v) && BigInt(v) <= high;
    }
    case 'decimal': {
      if (source.kind !== 'decimal') return 'never';
      const whole = target.precision - target.scale;
      const fits =
        source.precision - source.scale <= whole &&
        source.scale <= target.scale &&
        (source.unsigned || !target.unsigned);
      return fits ? 'always' : (v) => decimalFits(v, whole, target.scale, target.unsigned);
    }
    case 'text':
    case 'bytes':
    case 'char':
    case 'binary':
      // The stored form of fixed and variable length differs in what it pads.
      if (source.kind !== target.kind) return 'never';
      return sized(target, source);
    case 'time':
    case 'datetime':
    case 'timestamp':
      if (source.kind !== target.kind) return 'never';
      // Rounded without a word.
      return source.decimals <= target.decimals ? 'always' : (v) => fractionFits(v, target.decimals);
    case 'enum':
    case 'set':
      return source.kind === target.kind ? membersFit(target, source) : 'never';
    case 'bit':
      if (source.kind !== 'bit') return 'never';
      return source.bits <= target.bits ? 'always' : (v) => BigInt(v) < 1n << BigInt(target.bits);
    case 'other':
      return source.kind === 'other' && source.type === target.type ? 'always' : 'never';
  }
}

function range({ bytes, unsigned }: { bytes: number; unsigned: boolean }): [bigint, bigint] {
  const bits = BigInt(bytes * 8);
  return unsigned ? [0n, (1n << bits) - 1n] : [-(1n << (bits - 1n)), (1n << (bits - 1n)) - 1n];
}

function decimalFits(literal: Literal, whole: number, scale: number, unsigned: boolean): boolean {
  const [, sign, integer, fraction] = /^(-?)0*(\d*)(?:\.(\d*?)0*)?$/.exec(literal) ?? [];
  if (integer === undefined) return false;
  return integer.length <= whole && (fraction ?? '').length <= scale && !(unsigned && sign === '-');
}

/**
 * Hazard: what is beyond the target's length and is blank, a strict session cuts off without an error. So every value is measured here.
 * The character set is the same on both sides; else the table does not flow.
 */
function sized(target: Length, source: Length): Fit {
  const most = target.declared === 'chars' && source.declared === 'bytes' ? target.chars! : target.bytes;
  if (source.bytes <= most) return 'always';
  return (v) => {
    const { bytes, chars } = lengthOf(v);
    // In a character set that is not read here, a character is a byte at least.
    return bytes <= target.bytes && (target.chars === null || (chars ?? bytes) <= target.chars);
  };
}

/** Bytes and characters of a text or binary literal; characters are null where only the server knows them. */
export function lengthOf(literal: Literal): { bytes: number; chars: number | null } {
  if (literal === "''") return { bytes: 0, chars: 0 };
  const hex = /^(?:_\w+ )?x'([0-9a-f]*)'$/.exec(literal);
  if (hex !== null) return { bytes: hex[1]!.length / 2, chars: null };
  const text = literal.slice(1, -1).replace(/\\./gs, '?');
  let chars = 0;
  for (const _char of text) chars++;
  return { bytes: Buffer.byteLength(text), chars };
}

function fractionFits(literal: Literal, decimals: number): boolean {
  const fraction = /\.(\d+)'$/.exec(literal)?.[1] ?? '';
  return /^0*$/.test(fraction.slice(decimals));
}

interface Members {
  kind: 'enum' | 'set';
  members: number;
  names: readonly string[] | null;
}

/** Values travel as numbers: members may be added behind the others, and not be in another order. */
function membersFit(target: Members, source: Members): Fit {
  const common = Math.min(target.members, source.members);
  if (target.names !== null && source.names !== null) {
    for (let i = 0; i < common; i++) if (target.names[i] !== source.names[i]) return 'never';
  }
  if (source.members <= target.members) return 'always';
  const { members } = target;
  if (target.kind === 'enum') return (v) => Number(v) <= members;
  return (v) => BigInt.asUintN(64, BigInt(v)) < 1n << BigInt(members);
}

/** What a column's default is, so that a value can be told to be it; undefined when it cannot. */
export function defaultTest(column: {
  type: string;
  dataType: string;
  charset: string | null;
  octets: number | null;
  nullable: boolean;
  default: ColumnDefault;
}): ((literal: Literal) => boolean) | undefined {
  if (column.default.kind === 'none') return column.nullable ? (v) => v === NULL : undefined;
  if (column.default.kind === 'expression') return undefined;
  const { text } = column.default;
  const type = valueTypeOf(column);
  switch (type.kind) {
    case 'integer':
    case 'decimal': {
      const wanted = plainNumber(text);
      return wanted === undefined ? undefined : (v) => plainNumber(v) === wanted;
    }
    case 'text':
    case 'char': {
      const wanted = type.kind === 'char' ? text.replace(/ +$/, '') : text;
      // Wide character sets have other bytes for the same text.
      if (/[^\x20-\x7e]|['\\]/.test(wanted) || /^(ucs2|utf16|utf32)/.test(column.charset ?? ''))
        return undefined;
      const bytes = Buffer.from(wanted, 'latin1').toString('hex');
      return (v) => v === `'${wanted}'` || (wanted !== '' && v.endsWith(` x'${bytes}'`));
    }
    case 'time':
    case 'datetime': {
      const wanted = plainTime(text);
      return (v) => v !== NULL && plainTime(v.slice(1, -1)) === wanted;
    }
    case 'enum': {
      const index = type.names!.indexOf(text) + 1;
      return index === 0 ? undefined : (v) => v === String(index);
    }
    case 'bit': {
      const bits = /^b'([01]+)'$/.exec(text)?.[1];
      return bits === undefined ? undefined : (v) => v !== NULL && BigInt(v) === BigInt(`0b${bits}`);
    }
    case 'other':
      if (column.dataType === 'date') return (v) => v === `'${text}'`;
      if (column.dataType === 'year') return (v) => v !== NULL && Number(v) === Number(text);
      if (column.dataType === 'double') return (v) => v !== NULL && Number(v) === Number(text);
      if (column.dataType === 'float') return (v) => v !== NULL && Number(v) === Math.fround(Number(text));
      return undefined;
    // Shown in the session's time zone, or in a spelling of their own.
    case 'timestamp':
    case 'set':
    case 'bytes':
    case 'binary':
      return undefined;
  }
}

export type ColumnDefault = { kind: 'none' } | { kind: 'literal'; text: string } | { kind: 'expression' };

/** The default as information_schema shows it; the flavours do so differently. */
export function columnDefault(shown: string | null, extra: string, isMariadb: boolean): ColumnDefault {
  if (shown === null) return { kind: 'none' };
  if (!isMariadb) {
    // Before 8.0.13's general expressions there was CURRENT_TIMESTAMP, which is not marked on every version.
    const expression = extra.includes('default_generated') || /^current_timestamp/i.test(shown);
    return expression ? { kind: 'expression' } : { kind: 'literal', text: shown };
  }
  if (shown === 'NULL') return { kind: 'none' };
  if (/^-?\d+(\.\d*)?(e[-+]?\d+)?$/i.test(shown) || /^b'[01]+'$/.test(shown))
    return { kind: 'literal', text: shown };
  const text = /^'((?:[^'\\]|'')*)'$/.exec(shown)?.[1];
  return text === undefined ? { kind: 'expression' } : { kind: 'literal', text: text.replaceAll("''", "'") };
}

function plainNumber(text: string): string | undefined {
  const [, sign, whole, fraction] = /^(-?)0*(\d*)(?:\.(\d*?)0*)?$/.exec(text) ?? [];
  if (whole === undefined) return undefined;
  const digits = `${whole === '' ? '0' : whole}${fraction ? `.${fraction}` : ''}`;
  return digits === '0' ? '0' : `${sign}${digits}`;
}

function plainTime(text: string): string {
  return text.replace(/(\.\d*?)0+$/, '$1').replace(/\.$/, '');
}
