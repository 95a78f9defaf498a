import { ReplyError } from '../resp/reply-reader.js';
import type { Reply } from '../resp/reply-reader.js';
import { textOf } from './side.js';
import type { Command, Side } from './side.js';
import { streamDifference } from './stream-values.js';

/** A value that takes more memory is read in parts; so much of it at a time. */
export const PART_BYTES = 1024 * 1024;
const MOST_PER_PART = 5_000;

/** Reads that give a whole value, by type; those whose order means nothing are sorted. */
const WHOLE: Record<string, (key: Buffer) => Command> = {
  string: (key) => ['GET', key],
  list: (key) => ['LRANGE', key, 0, -1],
  set: (key) => ['SMEMBERS', key],
  zset: (key) => ['ZRANGE', key, 0, -1, 'WITHSCORES'],
  hash: (key) => ['HGETALL', key],
};

const LENGTH: Record<string, string> = {
  string: 'STRLEN',
  list: 'LLEN',
  set: 'SCARD',
  zset: 'ZCARD',
  hash: 'HLEN',
  stream: 'XLEN',
};

/** Undefined: a type of a module, which has no length. */
export function lengthCommand(type: string, key: Buffer): Command | undefined {
  const name = LENGTH[type];
  return name === undefined ? undefined : [name, key];
}

/** Undefined: of this type, values are not read whole. */
export function wholeCommand(type: string, key: Buffer): Command | undefined {
  return WHOLE[type]?.(key);
}

/** Where two values, read whole, differ first; null: they are the same. */
export function wholeDifference(type: string, a: Reply, b: Reply): string | null {
  if (type === 'string') return sameBytes(a, b) || sameRegisters(a, b) ? null : 'the string';
  if (!Array.isArray(a) || !Array.isArray(b)) return 'the value';
  if (type === 'hash') return hashDifference(pairs(a), pairs(b));
  if (type === 'set') {
    const members = new Set(b.map(textOf));
    const missing = a.findIndex((member) => !members.has(textOf(member)));
    return missing < 0 && a.length === b.length ? null : `member ${shown(a[missing] ?? null)}`;
  }
  return orderedDifference(a, b, type === 'zset' ? 2 : 1, 0);
}

const HLL_HEADER_BYTES = 16;
/** Of the header: the count as PFCOUNT has cached it. A link does not carry PFCOUNT. */
const HLL_COUNT = { from: 8, to: 16 };
const HLL_DENSE_BYTES = 12_304;

/** Both are HyperLogLogs, and count the same. */
function sameRegisters(a: Reply, b: Reply): boolean {
  if (!isHyperLogLog(a) || !isHyperLogLog(b) || a.length !== b.length) return false;
  const { from, to } = HLL_COUNT;
  return a.compare(b, 0, from, 0, from) === 0 && a.compare(b, to, b.length, to, a.length) === 0;
}

/** As Redis tells one from another string. */
function isHyperLogLog(value: Reply): value is Buffer {
  if (!Buffer.isBuffer(value) || value.length < HLL_HEADER_BYTES) return false;
  if (value.toString('latin1', 0, 4) !== 'HYLL') return false;
  return value[4] === 1 || (value[4] === 0 && value.length === HLL_DENSE_BYTES);
}

function orderedDifference(a: Reply[], b: Reply[], each: 1 | 2, from: number): string | null {
  const at = a.findIndex((element, index) => !sameBytes(element, b[index] ?? null));
  if (at < 0 && a.length === b.length) return null;
  const index = Math.floor((at < 0 ? a.length : at) / each);
  return each === 1 ? `element ${from + index}` : `member ${shown(a[2 * index] ?? b[2 * index] ?? null)}`;
}

function pairs(reply: Reply[]): Map<string, Reply> {
  const map = new Map<string, Reply>();
  for (let index = 0; index < reply.length; index += 2) map.set(textOf(reply[index]), reply[index + 1]!);
  return map;
}

function hashDifference(a: Map<string, Reply>, b: Map<string, Reply>): string | null {
  for (const [field, value] of a) {
    if (!sameBytes(value, b.get(field) ?? null)) return `field ${shown(Buffer.from(field, 'latin1'))}`;
  }
  return a.size === b.size ? null : 'fields';
}

/** Where a long value differs first, read part by part from both sides; null: it is the same. */
export async function partsDifference(
  sides: readonly [Side, Side],
  db: number,
  key: Buffer,
  type: string,
  size: { length: number; bytes: number },
): Promise<string | null> {
  const each = Math.max(1, Math.ceil(size.bytes / Math.max(1, size.length)));
  const count = Math.min(MOST_PER_PART, Math.max(1, Math.floor(PART_BYTES / each)));
  switch (type) {
    case 'string':
      return ranges(sides, db, size.length, PART_BYTES, 'the string', (from, to) => [
        'GETRANGE',
        key,
        from,
        to,
      ]);
    case 'list':
      return ranges(sides, db, size.length, count, 'element', (from, to) => ['LRANGE', key, from, to]);
    case 'zset':
      return ranges(sides, db, size.length, count, 'member', (from, to) => [
        'ZRANGE',
        key,
        from,
        to,
        'WITHSCORES',
      ]);
    case 'set':
    case 'hash':
      return scanned(sides, db, key, type, count);
    case 'stream':
      return streamDifference(sides, db, key, count);
    default:
      return dumped(sides, db, key);
  }
}

/** Both sides answer the same to a command; null: they do. */
async function ranges(
  sides: readonly [Side, Side],
  db: number,
  length: number,
  count: number,
  what: 'the string' | 'element' | 'member',
  command: (from: number, to: number) => Command,
): Promise<string | null> {
  for (let from = 0; from < length; from += count) {
    const [a, b] = await both(sides, db, [command(from, from + count - 1)]);
    const [one, other] = [a[0]!, b[0]!];
    if (what === 'the string') {
      if (!sameBytes(one, other)) return `the string, from byte ${from} on`;
    } else {
      if (!Array.isArray(one) || !Array.isArray(other)) return 'the value';
      const found = orderedDifference(one, other, what === 'member' ? 2 : 1, from);
      if (found !== null) return found;
    }
  }
  return null;
}

/** All that one side has is on the other; that the other has no more is told by the lengths, which are the same. */
async function scanned(
  [left, right]: readonly [Side, Side],
  db: number,
  key: Buffer,
  type: 'set' | 'hash',
  count: number,
): Promise<string | null> {
  let cursor = '0';
  do {
    const [reply] = await left.ask(db, [[type === 'set' ? 'SSCAN' : 'HSCAN', key, cursor, 'COUNT', count]]);
    if (!Array.isArray(reply)) return 'the value';
    cursor = textOf(reply[0]);
    const found = reply[1] as Buffer[];
    const each = type === 'set' ? 1 : 2;
    const names = found.filter((_, index) => index % each === 0);
    const theirs = await right.ask(
      db,
      names.map((name) => [type === 'set' ? 'SISMEMBER' : 'HGET', key, name]),
    );
    const at = theirs.findIndex((value, index) =>
      type === 'set' ? value !== 1 : !sameBytes(found[2 * index + 1]!, value),
    );
    if (at >= 0) return `${type === 'set' ? 'member' : 'field'} ${shown(names[at]!)}`;
  } while (cursor !== '0');
  return null;
}

/** Of a module: what it saves has to be the same. */
async function dumped(sides: readonly [Side, Side], db: number, key: Buffer): Promise<string | null> {
  const [a, b] = await both(sides, db, [['DUMP', key]]);
  return sameBytes(a[0]!, b[0]!) ? null : 'what the module saves';
}

export async function both(
  [a, b]: readonly [Side, Side],
  db: number,
  commands: readonly Command[],
): Promise<[Reply[], Reply[]]> {
  return Promise.all([a.ask(db, commands), b.ask(db, commands)]);
}

export function sameBytes(a: Reply, b: Reply): boolean {
  if (a instanceof ReplyError || b instanceof ReplyError) return false;
  return Buffer.isBuffer(a) && Buffer.isBuffer(b) ? a.equals(b) : a === b;
}

/** For people. */
export function shown(value: Reply): string {
  if (!Buffer.isBuffer(value)) return value === null ? '(none)' : JSON.stringify(value);
  const start = value.toString('utf8', 0, 80);
  return JSON.stringify(value.length > 80 ? `${start}…` : start);
}
