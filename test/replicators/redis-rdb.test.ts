import fc from 'fast-check';
import { describe, expect, test, vi } from 'vitest';
import { Crc64 } from '../../replicators/redis/rdb/crc64.js';
import type { RdbEvent } from '../../replicators/redis/rdb/events.js';
import { Decompressor, decompress } from '../../replicators/redis/rdb/lzf.js';
import { readRdb } from '../../replicators/redis/rdb/read-rdb.js';
import type { RdbOptions } from '../../replicators/redis/rdb/read-rdb.js';
import { rdbVersionOf } from '../../replicators/redis/rdb/types.js';
import { CommandReader } from '../../replicators/redis/resp/command-reader.js';
import { CommandWriter } from '../../replicators/redis/resp/command-writer.js';
import { InterlockError } from '../../src/errors.js';
import {
  NEW_FORMATS,
  OLD_FORMATS,
  bytes,
  double,
  entry,
  length,
  milliseconds,
  rdbFile,
  string,
  uint32,
} from '../support/rdb-fixture.js';

async function* pieces(whole: Buffer, sizes: readonly number[]): AsyncGenerator<Buffer> {
  for (let at = 0, turn = 0; at < whole.length; turn += 1) {
    const size = sizes[turn % sizes.length] ?? 1;
    yield whole.subarray(at, at + size);
    at += size;
  }
}

async function read(
  file: Buffer,
  options: Partial<RdbOptions> = {},
  sizes: readonly number[] = [65_536],
): Promise<RdbEvent[]> {
  const events: RdbEvent[] = [];
  for await (const batch of readRdb(pieces(file, sizes), { rawLimitBytes: 1 << 20, ...options }))
    events.push(...batch);
  return events;
}

/** All commands of a value, as text. */
function commandsOf(events: readonly RdbEvent[]): string[] {
  return events.flatMap((event) =>
    event.kind === 'commands' ? event.commands.map((command) => command.map(String).join(' ')) : [],
  );
}

function failure(error: unknown): InterlockError {
  if (error instanceof InterlockError) return error;
  throw error;
}

/** Opcodes of all kinds around values of all formats. */
const EVERYTHING = rdbFile(
  12,
  Buffer.concat([
    bytes(250),
    string('redis-ver'),
    string('7.4.0'),
    bytes(250),
    string('redis-bits'),
    bytes(0xc0, 64),
  ]),
  // Module data: an unsigned number says when, then each kind of field.
  Buffer.concat([
    bytes(247),
    length(moduleId('exampledb', 3)),
    length(2),
    length(1),
    length(1),
    length(5),
    length(2),
    length(6),
  ]),
  Buffer.concat([length(3), uint32(0), length(4), double(1.5), length(5), string('text'), length(0)]),
  Buffer.concat([bytes(245), string('#!lua name=lib\n…')]),
  Buffer.concat([bytes(254), length(0), bytes(251), length(40), length(3)]),
  Buffer.concat([bytes(244), length(100), length(5), length(1)]),
  ...Object.values(OLD_FORMATS).filter((saved) => saved.length < 2_000),
  Buffer.concat([
    bytes(252),
    milliseconds(4_102_444_800_123),
    bytes(248),
    length(77),
    entry(0, 'idle', string('v')),
  ]),
  Buffer.concat([
    bytes(253),
    uint32(2_000_000_000),
    bytes(249, 200),
    entry(4, 'freq', length(1), string('f'), string('v')),
  ]),
  Buffer.concat([bytes(254), length(3)]),
  ...Object.values(NEW_FORMATS),
  entry(0, 'long', string('0123456789'.repeat(30))),
  entry(0, 'number', bytes(0xc2, 0, 0, 0, 0x80)),
  entry(0, 'compressed', bytes(0xc3), length(5), length(265), bytes(0, 0x61, 0xe0, 0xff, 0)),
  entry(2, 'set', length(3), string('a'), string('b'), string('c')),
  entry(
    5,
    'zset',
    length(4),
    string('a'),
    double(-0),
    string('b'),
    double(0.1),
    string('c'),
    double(Infinity),
    string('d'),
    double(5e-324),
  ),
  entry(
    7,
    'module',
    length(moduleId('exampledb', 3)),
    length(1),
    length(5),
    length(5),
    string('text'),
    length(0),
  ),
  entry(11, 'intset', string(Buffer.concat([uint32(2), uint32(2), bytes(0, 128, 255, 127)]))),
  entry(18, 'quicklist', length(2), length(1), string('plain'), length(2), string(OLD_LISTPACK())),
  // Redis loads no collection without elements.
  entry(1, 'none', length(0)),
);

function OLD_LISTPACK(): Buffer {
  const body = Buffer.concat([
    bytes(0x7f, 1, 0xdf, 0xff, 2, 0xf1, 0, 0x80, 3, 0xf2, 0, 0, 0x80, 4, 0xf3, 0, 0, 0, 0x80, 5),
    bytes(0xe0, 64),
    Buffer.alloc(64, 'e'),
    bytes(66),
  ]);
  const whole = Buffer.concat([uint32(6 + body.length + 1), bytes(6, 0), body, bytes(255)]);
  return whole;
}

function moduleId(name: string, version: number): bigint {
  const set = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';
  return (
    [...name].reduce((id, letter) => (id << 6n) | BigInt(set.indexOf(letter)), 0n) * 1024n + BigInt(version)
  );
}

test('CRC64 is that of Redis, in any pieces', () => {
  const sum = (data: Buffer, cut: number): bigint => {
    const out = Buffer.alloc(8);
    new Crc64().update(data, 0, cut).update(data, cut).writeTo(out, 0);
    return out.readBigUInt64LE();
  };
  expect(sum(Buffer.from('123456789'), 4)).toBe(0xe9c6d914c4b8d9can);
  const bitByBit = (data: Buffer): bigint => {
    let value = 0n;
    for (const byte of data) {
      value ^= BigInt(byte);
      for (let bit = 0; bit < 8; bit += 1) value = (value >> 1n) ^ ((value & 1n) * 0x95ac9329ac4bc9b5n);
    }
    return value;
  };
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 60 }), fc.nat(60), (array, cut) => {
      const data = Buffer.from(array);
      expect(sum(data, Math.min(cut, data.length))).toBe(bitByBit(data));
    }),
  );
});

describe('a file', () => {
  test('gives what it holds, in its order', async () => {
    const events = await read(EVERYTHING);
    const short = events.map((event) => {
      if (event.kind === 'aux') return `aux ${event.name} ${String(event.value)}`;
      if (event.kind === 'select') return `select ${event.db}`;
      if (event.kind === 'resize') return `resize ${event.keys} ${event.expires}`;
      if (event.kind === 'module-aux') return `module-aux ${event.module}`;
      if (event.kind === 'function') return 'function';
      if (event.kind === 'end') return `end ${event.checksumOk} ${event.bytes}`;
      return `${event.kind} ${event.db} ${event.type} ${String(event.key)}`;
    });
    expect(short.slice(0, 6)).toEqual([
      'aux redis-ver 7.4.0',
      'aux redis-bits 64',
      'module-aux exampledb',
      'function',
      'select 0',
      'resize 40 3',
    ]);
    expect(short.at(-1)).toBe(`end true ${EVERYTHING.length}`);
    expect(short).toContain('value 3 module module');
    expect(short).not.toContain('value 3 list none');
    expect(
      events.filter(
        (event) => event.kind === 'value' && (event.expireAtMs ?? event.idle ?? event.freq) !== null,
      ),
    ).toMatchObject([
      { expireAtMs: 4_102_444_800_123, idle: 77, freq: null },
      { expireAtMs: 2_000_000_000_000, idle: null, freq: 200 },
    ]);
  });

  test('gives the same in any chunks, as payloads and as pieces', async () => {
    const limits = [1, 20, 200, 1 << 20];
    const whole = await Promise.all(
      limits.map((rawLimitBytes) => read(EVERYTHING, { rawLimitBytes }, [1 << 30])),
    );
    await fc.assert(
      fc.asyncProperty(
        fc.nat(3),
        fc.array(fc.integer({ min: 1, max: 400 }), { minLength: 1, maxLength: 6 }),
        async (limit, sizes) => {
          expect(await read(EVERYTHING, { rawLimitBytes: limits[limit]! }, sizes)).toEqual(whole[limit]);
        },
      ),
      { numRuns: 40 },
    );
  });

  test('that is cut anywhere is an error with the byte where it ends', async () => {
    for (let end = 0; end < EVERYTHING.length; end += 1) {
      const rawLimitBytes = end % 2 === 0 ? 16 : 1 << 20;
      const error = await read(EVERYTHING.subarray(0, end), { rawLimitBytes }).then(() => null, failure);
      expect(error?.details['offset'], `cut at ${end}`).toBe(end);
      expect(error?.message).toContain(`at byte ${end}: it ends here`);
    }
  });

  test('in which any byte is another is an error with a byte: the checksum finds what the formats do not', async () => {
    for (let at = 0; at < EVERYTHING.length; at += 1) {
      const file = Buffer.from(EVERYTHING);
      file[at]! ^= 1 + ((at * 37) % 255);
      const rawLimitBytes = at % 2 === 0 ? 16 : 1 << 20;
      const error = await read(file, { rawLimitBytes }).then(() => null, failure);
      expect(error, `byte ${at}`).not.toBeNull();
      if (at >= 9) expect(error!.details['offset'], error!.message).toBeLessThanOrEqual(file.length);
    }
  });

  test('of garbage behind its version is an error, or ends', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.uint8Array({ maxLength: 300 }),
        fc.constantFrom(4, 100_000),
        fc.constantFrom(1, 65_536),
        async (garbage, rawLimitBytes, size) => {
          const file = Buffer.concat([Buffer.from('REDIS0010'), garbage]);
          await read(file, { rawLimitBytes }, [size]).catch(failure);
        },
      ),
      { numRuns: 500 },
    );
  });

  test('that declares more than it has takes no memory for it', async () => {
    const huge = [
      entry(0, 'k', bytes(0x80), bytes(0x1f, 255, 255, 255), bytes(1)),
      entry(0, 'k', bytes(0xc3), length(5), length(500_000_000), bytes(0, 0x61, 0xe0, 0xff, 0)),
      entry(1, 'k', length(2n ** 40n), string('a')),
      entry(1, 'k', length(1), bytes(0xc3), length(5), length(500_000_000), bytes(0, 0x61, 0xe0, 0xff, 0)),
      entry(
        15,
        'k',
        length(0),
        length(0),
        length(0),
        length(0),
        length(1),
        string('g'),
        length(0),
        length(0),
        length(2n ** 40n),
      ),
      entry(16, 'k', string(bytes(255, 255, 255, 127, 255, 255, 1, 1))),
    ];
    for (const one of huge) {
      for (const rawLimitBytes of [1, 1 << 30]) {
        const before = process.memoryUsage().arrayBuffers;
        const error = await read(rdbFile(10, one), { rawLimitBytes, decode: 'all' }).then(
          () => null,
          failure,
        );
        expect(error).not.toBeNull();
        expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(8_000_000);
      }
    }
  });

  test('with more behind its end, of another version, or of a format that was never released, is refused', async () => {
    const last = EVERYTHING.length;
    await expect(read(Buffer.concat([EVERYTHING, bytes(1)]))).rejects.toThrow(
      `at byte ${last}: bytes follow its end`,
    );
    await expect(read(rdbFile(13))).rejects.toThrow('the source writes RDB version 13; versions 5 to 12');
    await expect(read(Buffer.from('-ERR no such thing'))).rejects.toThrow('does not begin with REDIS');
    await expect(read(rdbFile(10, bytes(246)))).rejects.toThrow(
      /at byte 9: it has functions as release candidates/,
    );
    await expect(read(rdbFile(10, entry(6, 'm', length(1))))).rejects.toThrow(
      /at byte 9: key "m" is of a module/,
    );
    await expect(read(rdbFile(10, entry(8, 'm', length(1))))).rejects.toThrow(
      /at byte 9: 8 where a value or an opcode begins/,
    );
  });

  test('without a checksum says so', async () => {
    const file = rdbFile(10);
    file.fill(0, file.length - 8);
    expect(await read(file)).toEqual([{ kind: 'end', checksumOk: null, bytes: file.length }]);
  });

  test('is read no further than it is pulled', async () => {
    let pulled = 0;
    const chunks = async function* (): AsyncGenerator<Buffer> {
      for await (const piece of pieces(EVERYTHING, [100])) {
        pulled += 1;
        yield piece;
      }
    };
    const events = readRdb(chunks(), { rawLimitBytes: 1 << 20 });
    await events.next();
    expect(pulled).toBeLessThanOrEqual(2);
    await events.return(undefined);
  });
});

describe('formats that are newer than the installed server, from hand-built files', () => {
  test('are commands for a target that is told to take commands', async () => {
    const lives = (key: string): string[] => [
      `UNLINK ${key}`,
      `HSET ${key} f v`,
      `HPEXPIREAT ${key} 1900000000000 FIELDS 1 f`,
      `HSET ${key} g w`,
    ];
    const made = async (name: string): Promise<string[]> =>
      commandsOf(await read(rdbFile(12, NEW_FORMATS[name]!), { decode: 'all' }));
    expect(await made('set listpack')).toEqual(['UNLINK set', 'SADD set a 7 word']);
    expect(await made('stream of Redis 7.2')).toEqual([
      'UNLINK stream',
      'XADD stream 1000-1 a v',
      'XSETID stream 1000-1 ENTRIESADDED 17 MAXDELETEDID 900-5',
      'XGROUP CREATE stream read 1000-1 ENTRIESREAD 16',
      'XGROUP CREATECONSUMER stream read c1',
      'XCLAIM stream read c1 0 1000-1 TIME 1600000000000 RETRYCOUNT 3 FORCE JUSTID',
      'XGROUP CREATECONSUMER stream read c2',
      'XGROUP CREATE stream unread 0-0',
    ]);
    expect(await made('hash with lives, release candidate')).toEqual([
      'UNLINK h22',
      'HSET h22 f v g w',
      'HPEXPIREAT h22 1900000000000 FIELDS 1 g',
    ]);
    expect(await made('packed hash with lives, release candidate')).toEqual(lives('h23'));
    expect(await made('hash with lives')).toEqual([
      'UNLINK h24',
      'HSET h24 first v',
      'HPEXPIREAT h24 1900000000000 FIELDS 1 first',
      'HSET h24 ever w last x',
      'HPEXPIREAT h24 1900000001000 FIELDS 1 last',
    ]);
    expect(await made('packed hash with lives')).toEqual(lives('h25'));
  });

  test('are payloads for a target that knows them', async () => {
    for (const [name, saved] of Object.entries(NEW_FORMATS)) {
      const [value] = await read(rdbFile(12, saved));
      if (value?.kind !== 'value') throw new Error(name);
      const body = saved.subarray(1 + string(value.key).length);
      expect(value.payload.subarray(0, -10), name).toEqual(Buffer.concat([saved.subarray(0, 1), body]));
      expect(value.payload.readUInt16LE(value.payload.length - 10)).toBe(12);
    }
  });

  test('are commands, or named as what cannot be, for an older target', async () => {
    const events = await read(rdbFile(12, ...Object.values(NEW_FORMATS)), {
      targetRdbVersion: rdbVersionOf('7.0.15'),
    });
    expect(events.map((event) => event.kind)).toEqual([
      'commands',
      'commands',
      ...Array<string>(4).fill('undecodable'),
      'end',
    ]);
    expect(events.at(-2)).toMatchObject({
      key: Buffer.from('h25'),
      reason: expect.stringContaining('Redis 7.4') as string,
    });
    const module = await read(EVERYTHING, { rawLimitBytes: 10 });
    expect(module.filter((event) => event.kind === 'undecodable')).toMatchObject([
      { type: 'module', reason: expect.stringContaining('module') as string },
    ]);
  });
});

describe('a value as commands', () => {
  test('has exact scores and numbers', async () => {
    const events = await read(EVERYTHING, { decode: 'all' });
    const made = commandsOf(events).filter((command) =>
      /^\w+ (zset|intset|number|quicklist|idle) /.test(command),
    );
    expect(made).toContain('ZADD zset -0 a 0.1 b inf c 5e-324 d');
    expect(made).toContain('SADD intset -32768 32767');
    expect(made).toContain('SET number -2147483648');
    expect(made).toContain(`RPUSH quicklist plain 127 -1 -32768 -8388608 -2147483648 ${'e'.repeat(64)}`);
    expect(made).toContain('PEXPIREAT idle 4102444800123');
  });

  test.each([
    ['plain', (size: number) => [length(size), Buffer.alloc(size, 'ab')]],
    ['compressed', (size: number) => compressedRun(size)],
    ['in small elements', (size: number) => [length(size / 32), Buffer.alloc(size, string('e'.repeat(31)))]],
  ])('of many megabytes, %s, is never in memory as a whole', async (form, parts) => {
    const size = (form === 'in small elements' ? 16 : 64) * 1024 * 1024;
    const value = parts(size);
    const type = form === 'in small elements' ? 1 : 0;
    const file = rdbFile(10, entry(type, 'k'), ...value);
    const sum = { bytes: 0, most: 0, pieces: 0, first: 0, last: 0 };
    const before = process.memoryUsage().arrayBuffers;
    let most = 0;
    for await (const batch of readRdb(pieces(file, [65_536]), { rawLimitBytes: 1 << 18 })) {
      for (const event of batch) {
        if (event.kind !== 'commands') continue;
        const held = event.commands.flat().reduce((total, arg) => total + arg.length, 0);
        sum.bytes += held;
        sum.most = Math.max(sum.most, held);
        sum.pieces += 1;
        sum.first += Number(event.first);
        sum.last += Number(event.last);
      }
      most = Math.max(most, process.memoryUsage().arrayBuffers - before);
    }
    expect(sum).toMatchObject({ first: 1, last: 1 });
    expect(sum.pieces).toBeGreaterThan(30);
    expect(sum.bytes).toBeGreaterThan(form === 'in small elements' ? size * 0.9 : size);
    expect(sum.most).toBeLessThan(1.2 * (1 << 18));
    expect(most).toBeLessThan(48 * 1024 * 1024);
  });
});

/** At least so many bytes 'a': a literal, then references to the byte before. */
function compressedRun(atLeast: number): Buffer[] {
  const references = Math.ceil(atLeast / 264);
  const compressed = Buffer.concat([bytes(0, 0x61), Buffer.alloc(3 * references, bytes(0xe0, 0xff, 0))]);
  return [bytes(0xc3), length(compressed.length), length(1 + 264 * references), compressed];
}

test('LZF is the same at once and piece by piece, and broken LZF is told', () => {
  const instruction = fc.oneof(
    fc.uint8Array({ minLength: 1, maxLength: 32 }).map((literal) => ({ literal: Buffer.from(literal) })),
    fc.record({ back: fc.integer({ min: 1, max: 8192 }), run: fc.integer({ min: 3, max: 264 }) }),
  );
  fc.assert(
    fc.property(
      fc.array(instruction, { minLength: 1, maxLength: 200 }),
      fc.integer({ min: 1, max: 9_000 }),
      fc.integer({ min: 1, max: 50 }),
      (list, pieceBytes, chunk) => {
        const plain: number[] = [];
        const code: number[] = [];
        for (const one of list) {
          if ('literal' in one) {
            code.push(one.literal.length - 1, ...one.literal);
            plain.push(...one.literal);
          } else if (plain.length > 0) {
            const back = Math.min(one.back, plain.length);
            const [run, far] = [one.run - 2, back - 1];
            code.push(...(run < 7 ? [(run << 5) | (far >> 8)] : [0xe0 | (far >> 8), run - 7]), far & 255);
            for (let count = 0; count < one.run; count += 1) plain.push(plain[plain.length - back]!);
          }
        }
        const [source, expected] = [Buffer.from(code), Buffer.from(plain)];
        fc.pre(source.length > 0);
        expect(decompress(source, expected.length)?.equals(expected)).toBe(true);
        const decompressor = new Decompressor(pieceBytes);
        const got: Buffer[] = [];
        for (let at = 0; at < source.length; at += chunk) {
          decompressor.push(source.subarray(at, at + chunk));
          for (let piece = decompressor.next(); piece !== null; piece = decompressor.next()) {
            if (piece === 'broken') throw new Error('broken');
            expect(piece.length).toBe(pieceBytes);
            got.push(piece);
          }
        }
        got.push(decompressor.rest() as Buffer);
        expect(Buffer.concat(got).equals(expected)).toBe(true);
        expect(decompress(source, expected.length + 1)).toBeNull();
        expect(decompress(source.subarray(0, -1), expected.length)).toBeNull();
      },
    ),
    { numRuns: 200 },
  );
  expect(decompress(bytes(0x20, 0), 3)).toBeNull();
  expect(decompress(bytes(0, 0x61, 0x20, 1), 4)).toBeNull();
});

test('LZF reaches back as far as it can, over pieces', () => {
  const literals = Array.from({ length: 256 }, (_, index) =>
    Buffer.from([31, ...Array.from({ length: 32 }, (__, at) => (index * 7 + at) & 255)]),
  );
  // Eight bytes from 8192 before: the first of all.
  const source = Buffer.concat([...literals, bytes((6 << 5) | 31, 255)]);
  const decompressor = new Decompressor(100);
  decompressor.push(source);
  const got: Buffer[] = [];
  for (let piece = decompressor.next(); Buffer.isBuffer(piece); piece = decompressor.next()) got.push(piece);
  const whole = Buffer.concat([...got, decompressor.rest() as Buffer]);
  expect(whole.equals(decompress(source, 8_200)!)).toBe(true);
  expect(whole.subarray(8_192)).toEqual(whole.subarray(0, 8));
});

test('a value that arrives in many chunks is not copied and looked at again for each of them', async () => {
  const file = rdbFile(10, entry(1, 'k', length(100_000), Buffer.alloc(600_000, string('12345'))));
  const concat = vi.spyOn(Buffer, 'concat');
  try {
    await read(file, { rawLimitBytes: 1 << 20 }, [1_000]);
    const copied = concat.mock.results.reduce((sum, { value }) => sum + (value as Buffer).length, 0);
    expect(copied).toBeLessThan(5 * file.length);
  } finally {
    concat.mockRestore();
  }
});

test('a key is written with SET where that does, with RESTORE and its attributes where not', async () => {
  const written = async (file: Buffer, options: Partial<RdbOptions> = {}): Promise<string[][]> => {
    const writer = new CommandWriter();
    for (const event of await read(file, options)) if (event.kind === 'value') event.writeTo(writer);
    return new CommandReader()
      .push(Buffer.concat(writer.take()))
      .map((one) => one.args.map((arg) => arg.toString('latin1')));
  };
  const expires = Buffer.concat([bytes(252), milliseconds(4_102_444_800_123)]);
  const plain = entry(0, 'k', string('v'));
  const restored = (version: number): unknown =>
    expect.stringMatching(new RegExp(`^\\x00\\x01v\\x${version.toString(16).padStart(2, '0')}\\x00[^]{8}$`));
  expect(await written(rdbFile(10, plain, expires, plain))).toEqual([
    ['SET', 'k', 'v'],
    ['SET', 'k', 'v', 'PXAT', '4102444800123'],
  ]);
  // PXAT is younger than Redis 5.
  expect(await written(rdbFile(10, expires, plain), { targetRdbVersion: 9 })).toEqual([
    ['RESTORE', 'k', '4102444800123', restored(9), 'REPLACE', 'ABSTTL'],
  ]);
  expect(await written(rdbFile(10, bytes(249, 7), plain))).toEqual([
    ['RESTORE', 'k', '0', restored(10), 'REPLACE', 'ABSTTL', 'FREQ', '7'],
  ]);
  expect(await written(rdbFile(10, bytes(248, 9), plain))).toEqual([
    ['RESTORE', 'k', '0', restored(10), 'REPLACE', 'ABSTTL', 'IDLETIME', '9'],
  ]);
  expect((await written(rdbFile(10, entry(0, 'k', bytes(0xc0, 5)))))[0]).toContain('RESTORE');
  for (const size of [0, 63, 64, 16_383, 16_384, 100_000]) {
    expect(await written(rdbFile(10, entry(0, 'k', string('x'.repeat(size)))))).toEqual([
      ['SET', 'k', 'x'.repeat(size)],
    ]);
  }
});

test('the RDB version that a server takes', () => {
  expect(['4.0.14', '5.0.7', '6.2.14', '7.0.15', '7.2.4', '7.4.1', '8.0.0'].map(rdbVersionOf)).toEqual([
    8, 9, 9, 10, 11, 12, 12,
  ]);
});
