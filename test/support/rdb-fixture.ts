import { Crc64 } from '../../replicators/redis/rdb/crc64.js';

/** Builds RDB files by hand, from `rdb.c`, `listpack.c`, `ziplist.c`, `zipmap.c`, `intset.c`: what no server here writes. */

type Part = Buffer | string;

export function bytes(...values: number[]): Buffer {
  return Buffer.from(values);
}

export function length(value: number | bigint): Buffer {
  if (value < 64) return bytes(Number(value));
  if (value < 16_384) return bytes(0x40 | (Number(value) >> 8), Number(value) & 255);
  const wide = Buffer.alloc(9, 0x81);
  wide.writeBigUInt64BE(BigInt(value), 1);
  if (value >= 2 ** 32) return wide;
  return Buffer.concat([bytes(0x80), wide.subarray(5)]);
}

export function string(value: Part): Buffer {
  const content = Buffer.from(value);
  return Buffer.concat([length(content.length), content]);
}

export function milliseconds(value: number): Buffer {
  const buffer = Buffer.alloc(8);
  buffer.writeBigInt64LE(BigInt(value));
  return buffer;
}

export function double(value: number): Buffer {
  const buffer = Buffer.alloc(8);
  buffer.writeDoubleLE(value);
  return buffer;
}

export function streamId(ms: number, seq: number): Buffer {
  const buffer = Buffer.alloc(16);
  buffer.writeBigUInt64BE(BigInt(ms), 0);
  buffer.writeBigUInt64BE(BigInt(seq), 8);
  return buffer;
}

/** All elements as strings of less than 64 bytes, or numbers from 0 to 127. */
export function listpack(...elements: (string | number)[]): Buffer {
  const body = elements.map((element) => {
    const encoded =
      typeof element === 'number'
        ? bytes(element)
        : Buffer.concat([bytes(0x80 | element.length), Buffer.from(element)]);
    return Buffer.concat([encoded, bytes(encoded.length)]);
  });
  return listpackOf(elements.length, Buffer.concat(body));
}

/** Of elements that are encoded already, each with its length behind. */
export function listpackOf(count: number, body: Buffer): Buffer {
  const whole = Buffer.concat([Buffer.alloc(6), body, bytes(0xff)]);
  whole.writeUInt32LE(whole.length, 0);
  whole.writeUInt16LE(count, 4);
  return whole;
}

/** Elements are encoded already (without the length of the one before, which is put in front). */
export function ziplist(...elements: Buffer[]): Buffer {
  let before = 0;
  const body = elements.map((element) => {
    const prefix = before < 254 ? bytes(before) : Buffer.concat([bytes(254), uint32(before)]);
    before = prefix.length + element.length;
    return Buffer.concat([prefix, element]);
  });
  const content = Buffer.concat(body);
  const whole = Buffer.concat([Buffer.alloc(10), content, bytes(0xff)]);
  whole.writeUInt32LE(whole.length, 0);
  whole.writeUInt32LE(whole.length - 1 - before, 4);
  whole.writeUInt16LE(elements.length, 8);
  return whole;
}

export function ziplistString(value: string): Buffer {
  const content = Buffer.from(value);
  if (content.length < 64) return Buffer.concat([bytes(content.length), content]);
  if (content.length < 16_384)
    return Buffer.concat([bytes(0x40 | (content.length >> 8), content.length & 255), content]);
  const wide = Buffer.alloc(5, 0x80);
  wide.writeUInt32BE(content.length, 1);
  return Buffer.concat([wide, content]);
}

export function uint32(value: number): Buffer {
  const buffer = Buffer.alloc(4);
  buffer.writeUInt32LE(value);
  return buffer;
}

export function entry(rdbType: number, key: Part, ...value: Buffer[]): Buffer {
  return Buffer.concat([bytes(rdbType), string(key), ...value]);
}

/** A whole file, with its checksum. */
export function rdbFile(version: number, ...entries: Buffer[]): Buffer {
  const before = Buffer.concat([
    Buffer.from(`REDIS${String(version).padStart(4, '0')}`),
    ...entries,
    bytes(255),
  ]);
  const sum = Buffer.alloc(8);
  new Crc64().update(before).writeTo(sum, 0);
  return Buffer.concat([before, sum]);
}

const OLD_NUMBERS = [
  bytes(0xfe, 0x80),
  bytes(0xc0, 0x00, 0x80),
  bytes(0xf0, 0x00, 0x00, 0x80),
  bytes(0xd0, 0x00, 0x00, 0x00, 0x80),
  bytes(0xe0, 0, 0, 0, 0, 0, 0, 0, 0x80),
  bytes(0xf1),
  bytes(0xfd),
];

function xs(size: number): Buffer {
  return ziplistString('x'.repeat(size));
}

/** Formats that Redis before 7.0 saved, and that 7.0 still restores. */
export const OLD_FORMATS: Record<string, Buffer> = {
  'list of strings': entry(1, 'list', length(3), string('a'), string('-7'), string('c'.repeat(100))),
  'zset with scores as text': entry(
    3,
    'zset',
    length(5),
    string('a'),
    string('0.10000000000000001'),
    string('b'),
    bytes(254),
    string('c'),
    bytes(255),
    string('d'),
    string('-17'),
    string('e'),
    string('1.7976931348623157e+308'),
  ),
  'hash zipmap': entry(
    9,
    'zipmap',
    string(
      Buffer.concat([
        bytes(2, 1),
        Buffer.from('f'),
        bytes(3, 2),
        Buffer.from('val'),
        bytes(0, 0, 254),
        uint32(300),
        Buffer.alloc(300, 'g'),
        bytes(254),
        uint32(254),
        bytes(0),
        Buffer.alloc(254, 'w'),
        bytes(255),
      ]),
    ),
  ),
  'list ziplist': entry(
    10,
    'ziplist',
    string(ziplist(...OLD_NUMBERS, ...[0, 63, 64, 254].map(xs), ziplistString('last'))),
  ),
  'list ziplist of long strings': entry(
    10,
    'ziplist:long',
    string(ziplist(...[253, 254, 300, 16_383, 16_384].map(xs), ziplistString('last'))),
  ),
  'zset ziplist': entry(
    12,
    'zset ziplist',
    string(
      ziplist(
        ziplistString('-inf'),
        ziplistString('-inf'),
        ziplistString('b'),
        bytes(0xf1),
        ziplistString('c'),
        ziplistString('0.30000000000000004'),
        ziplistString('d'),
        ziplistString('inf'),
      ),
    ),
  ),
  'hash ziplist': entry(
    13,
    'hash ziplist',
    string(ziplist(ziplistString('f'), bytes(0xfe, 0xf9), ziplistString('g'), ziplistString(''))),
  ),
  'list quicklist of ziplists': entry(
    14,
    'quicklist',
    length(2),
    string(ziplist(ziplistString('a'), bytes(0xf5))),
    string(ziplist(...OLD_NUMBERS)),
  ),
  'stream of Redis 5': entry(
    15,
    'stream',
    length(1),
    string(streamId(1_000, 0)),
    string(
      listpack(
        2,
        1,
        2,
        'a',
        'b',
        0,
        2,
        0,
        1,
        'v',
        'w',
        5,
        3,
        5,
        0,
        'gone',
        'gone',
        5,
        0,
        9,
        0,
        1,
        'c',
        'x',
        6,
      ),
    ),
    ...[2, 1_009, 0].map(length),
    length(1),
    string('group'),
    length(1_009),
    length(0),
    length(1),
    Buffer.concat([streamId(1_000, 1), milliseconds(1_600_000_000_000), length(3)]),
    length(2),
    Buffer.concat([string('c1'), milliseconds(1_600_000_000_001), length(1), streamId(1_000, 1)]),
    Buffer.concat([string('c2'), milliseconds(1_600_000_000_002), length(0)]),
  ),
};

/** Formats that Redis 7.2 (20, 21) and 7.4 (22 to 25) brought. */
export const NEW_FORMATS: Record<string, Buffer> = {
  'set listpack': entry(20, 'set', string(listpack('a', 7, 'word'))),
  'stream of Redis 7.2': entry(
    21,
    'stream',
    length(1),
    string(streamId(1_000, 0)),
    string(listpack(1, 0, 1, 'a', 0, 2, 0, 1, 'v', 4)),
    ...[1, 1_000, 1, 1_000, 1, 900, 5, 17].map(length),
    length(2),
    string('read'),
    ...[1_000, 1, 16].map(length),
    length(1),
    Buffer.concat([streamId(1_000, 1), milliseconds(1_600_000_000_000), length(3)]),
    length(2),
    Buffer.concat([
      string('c1'),
      milliseconds(1_600_000_000_001),
      milliseconds(1_600_000_000_002),
      length(1),
      streamId(1_000, 1),
    ]),
    Buffer.concat([string('c2'), milliseconds(1_600_000_000_003), milliseconds(-1), length(0)]),
    string('unread'),
    ...[0n, 0n, 2n ** 64n - 1n].map(length),
    length(0),
    length(0),
  ),
  'hash with lives, release candidate': entry(
    22,
    'h22',
    length(2),
    length(0),
    string('f'),
    string('v'),
    length(1_900_000_000_000),
    string('g'),
    string('w'),
  ),
  'packed hash with lives, release candidate': entry(23, 'h23', string(lives())),
  'hash with lives': entry(
    24,
    'h24',
    milliseconds(1_900_000_000_000),
    length(3),
    length(1),
    string('first'),
    string('v'),
    length(0),
    string('ever'),
    string('w'),
    length(1_001),
    string('last'),
    string('x'),
  ),
  'packed hash with lives': entry(25, 'h25', milliseconds(1_900_000_000_000), string(lives())),
};

/** Field, value, when the field expires (a number of 64 bits) or 0. */
function lives(): Buffer {
  const at = Buffer.alloc(9, 0xf4);
  at.writeBigInt64LE(1_900_000_000_000n, 1);
  const body = Buffer.concat([
    listpack('f', 'v').subarray(6, -1),
    at,
    bytes(9),
    listpack('g', 'w', 0).subarray(6, -1),
  ]);
  return listpackOf(6, body);
}
