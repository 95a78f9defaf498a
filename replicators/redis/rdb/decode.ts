import { streamCommands } from './decode-stream.js';
import { element, stringCommands } from './decode-string.js';
import { whole } from './decoding.js';
import type { Decoding } from './decoding.js';
import type { OpenValue } from './entry-reader.js';
import type { Argument, DecodedValue, UndecodableValue } from './events.js';
import { intsetElements, listpackElements, zipmapElements, ziplistElements } from './packed.js';
import { Pieces } from './pieces.js';
import { skipModuleField } from './skip.js';
import type { Spool } from '../spool.js';
import { RDB } from './types.js';
import type { Window } from './window.js';

/** Field lifetimes are of RDB version 12. */
const HASH_TTL_SINCE = 12;

export interface DecodeOptions {
  rawLimitBytes: number;
  targetRdbVersion: number;
  spool: Spool | null;
  pieceKey: Buffer | null;
}

/** The value at which the window stands, as commands. */
export function* decodeValue(
  window: Window,
  value: OpenValue,
  options: DecodeOptions,
): Generator<DecodedValue | UndecodableValue | undefined> {
  const reason = undecodable(value.rdbType, options.targetRdbVersion);
  const pieces = new Pieces(value, options.rawLimitBytes, options.pieceKey);
  const decoding = commands(window, value.rdbType, pieces, options);
  if (reason !== null) {
    for (const piece of decoding) if (piece === undefined) yield undefined;
    const { db, key, type, expireAtMs } = value;
    yield { kind: 'undecodable', db, key, type, expireAtMs, reason };
    return;
  }
  yield* decoding;
  // Redis does not load a collection without elements, either.
  if (!pieces.empty) yield pieces.take(true);
}

function undecodable(rdbType: number, targetRdbVersion: number): string | null {
  if (rdbType === RDB.MODULE_2) return 'the value of a module has no commands of its own';
  return rdbType >= RDB.HASH_METADATA_PRE_GA && targetRdbVersion < HASH_TTL_SINCE
    ? 'fields of the hash have a time to live, which the target does not know (Redis 7.4 does)'
    : null;
}

function* commands(window: Window, rdbType: number, pieces: Pieces, options: DecodeOptions): Decoding {
  const one = (): Decoding<Argument> => element(window, options.spool, pieces.limitBytes);
  switch (rdbType) {
    case RDB.STRING:
      return yield* stringCommands(window, pieces);
    case RDB.LIST:
      return yield* strings(window, pieces, 'RPUSH', one);
    case RDB.SET:
      return yield* strings(window, pieces, 'SADD', one);
    case RDB.HASH:
      return yield* strings(window, pieces, 'HSET', one);
    case RDB.ZSET:
      return yield* members(window, pieces, one, () => textScore(window));
    case RDB.ZSET_2:
      return yield* members(window, pieces, one, () => exact(window.take(8).readDoubleLE()));
    case RDB.HASH_ZIPMAP:
      return yield* packed(window, pieces, 'HSET', zipmapElements);
    case RDB.LIST_ZIPLIST:
      return yield* packed(window, pieces, 'RPUSH', ziplistElements);
    case RDB.SET_INTSET:
      return yield* packed(window, pieces, 'SADD', intsetElements);
    case RDB.ZSET_ZIPLIST:
      return yield* packed(window, pieces, 'ZADD', ziplistElements);
    case RDB.HASH_ZIPLIST:
      return yield* packed(window, pieces, 'HSET', ziplistElements);
    case RDB.HASH_LISTPACK:
      return yield* packed(window, pieces, 'HSET', listpackElements);
    case RDB.ZSET_LISTPACK:
      return yield* packed(window, pieces, 'ZADD', listpackElements);
    case RDB.SET_LISTPACK:
      return yield* packed(window, pieces, 'SADD', listpackElements);
    case RDB.LIST_QUICKLIST:
    case RDB.LIST_QUICKLIST_2:
      return yield* quicklist(window, pieces, one, rdbType === RDB.LIST_QUICKLIST_2);
    case RDB.HASH_METADATA:
    case RDB.HASH_METADATA_PRE_GA:
      return yield* hashWithLives(window, pieces, one, rdbType === RDB.HASH_METADATA);
    case RDB.HASH_LISTPACK_EX:
    case RDB.HASH_LISTPACK_EX_PRE_GA:
      return yield* packedHashWithLives(window, pieces, rdbType === RDB.HASH_LISTPACK_EX);
    case RDB.STREAM_LISTPACKS:
    case RDB.STREAM_LISTPACKS_2:
    case RDB.STREAM_LISTPACKS_3:
      return yield* streamCommands(window, rdbType, pieces, options.targetRdbVersion);
    default:
      yield* whole(window, () => window.number());
      while (yield* whole(window, () => skipModuleField(window)));
  }
}

type ReadElement = () => Decoding<Argument>;

function* strings(window: Window, pieces: Pieces, name: string, one: ReadElement): Decoding {
  const count = yield* whole(window, () => window.length());
  for (let index = 0; index < count; index += 1) {
    if (pieces.full) yield pieces.take();
    const first = yield* one();
    if (name === 'HSET') pieces.element(name, first, yield* one());
    else pieces.element(name, first);
  }
}

function* members(window: Window, pieces: Pieces, one: ReadElement, score: () => string): Decoding {
  const count = yield* whole(window, () => window.length());
  for (let index = 0; index < count; index += 1) {
    if (pieces.full) yield pieces.take();
    const member = yield* one();
    pieces.element('ZADD', Buffer.from(yield* whole(window, score), 'latin1'), member);
  }
}

/** The shortest text that is read back as the same double. */
function exact(score: number): string {
  if (Number.isNaN(score)) return 'nan';
  if (!Number.isFinite(score)) return score > 0 ? 'inf' : '-inf';
  return Object.is(score, -0) ? '-0' : String(score);
}

function textScore(window: Window): string {
  const length = window.byte();
  if (length === 255) return '-inf';
  if (length === 254) return 'inf';
  return length === 253 ? 'nan' : window.take(length).toString('latin1');
}

type Unpack = (data: Buffer) => Buffer[] | null;

/** The elements of the packed form at which the window stands, checked to come in groups of `each`. */
function* unpacked(window: Window, unpack: Unpack, each: number): Decoding<Buffer[]> {
  return yield* whole(window, () => {
    const at = window.pos;
    const elements = unpack(window.string());
    return elements === null || elements.length % each !== 0
      ? window.bad('a packed collection that is broken', at)
      : elements;
  });
}

function* packed(
  window: Window,
  pieces: Pieces,
  name: 'RPUSH' | 'SADD' | 'HSET' | 'ZADD',
  unpack: Unpack,
): Decoding {
  const each = name === 'HSET' || name === 'ZADD' ? 2 : 1;
  const elements = yield* unpacked(window, unpack, each);
  for (let index = 0; index < elements.length; index += each) {
    if (pieces.full) yield pieces.take();
    const one = elements[index]!;
    if (each === 1) pieces.element(name, one);
    // The file has the member before its score, the command has it behind.
    else if (name === 'ZADD') pieces.element(name, elements[index + 1]!, one);
    else pieces.element(name, one, elements[index + 1]!);
  }
}

/** A node that holds one long element as it is. */
const PLAIN_NODE = 1;

function* quicklist(window: Window, pieces: Pieces, one: ReadElement, hasContainers: boolean): Decoding {
  const nodes = yield* whole(window, () => window.length());
  for (let node = 0; node < nodes; node += 1) {
    const container = hasContainers ? yield* whole(window, () => window.length()) : 0;
    if (container === PLAIN_NODE) {
      if (pieces.full) yield pieces.take();
      pieces.element('RPUSH', yield* one());
    } else {
      yield* packed(window, pieces, 'RPUSH', hasContainers ? listpackElements : ziplistElements);
    }
  }
}

function field(pieces: Pieces, name: Argument, value: Argument, expireAtMs: bigint): void {
  pieces.element('HSET', name, value);
  if (expireAtMs > 0n) pieces.command('HPEXPIREAT', String(expireAtMs), 'FIELDS', '1', name);
}

function* hashWithLives(window: Window, pieces: Pieces, one: ReadElement, relative: boolean): Decoding {
  const earliest = relative ? yield* whole(window, () => window.milliseconds()) : 1n;
  const count = yield* whole(window, () => window.length());
  for (let index = 0; index < count; index += 1) {
    if (pieces.full) yield pieces.take();
    // 0: for ever; else from the earliest on, plus 1.
    const life = yield* whole(window, () => window.number());
    const name = yield* one();
    field(pieces, name, yield* one(), life === 0n ? 0n : life + earliest - 1n);
  }
}

function* packedHashWithLives(window: Window, pieces: Pieces, hasEarliest: boolean): Decoding {
  if (hasEarliest) yield* whole(window, () => window.milliseconds());
  const elements = yield* unpacked(window, listpackElements, 3);
  for (let index = 0; index < elements.length; index += 3) {
    if (pieces.full) yield pieces.take();
    const life = elements[index + 2]!.toString('latin1');
    if (!/^\d{1,19}$/.test(life)) window.bad(`a field that lives until ${JSON.stringify(life)}`);
    field(pieces, elements[index]!, elements[index + 1]!, BigInt(life));
  }
}
