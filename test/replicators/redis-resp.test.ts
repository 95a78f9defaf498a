import fc from 'fast-check';
import { describe, expect, test, vi } from 'vitest';
import { CommandReader } from '../../replicators/redis/resp/command-reader.js';
import { CommandWriter } from '../../replicators/redis/resp/command-writer.js';
import { ReplyError, ReplyReader } from '../../replicators/redis/resp/reply-reader.js';
import type { Reply } from '../../replicators/redis/resp/reply-reader.js';
import { Spool } from '../../replicators/redis/spool.js';
import { InterlockError } from '../../src/errors.js';

const bytes = fc.uint8Array({ maxLength: 40 }).map((array) => Buffer.from(array));
const command = fc.array(bytes, { minLength: 1, maxLength: 6 });

function encode(args: readonly Buffer[]): Buffer {
  return Buffer.concat([
    Buffer.from(`*${args.length}\r\n`),
    ...args.flatMap((arg) => [Buffer.from(`$${arg.length}\r\n`), arg, Buffer.from('\r\n')]),
  ]);
}

/** Cuts `whole` into pieces of the given sizes, over and over. */
function pieces(whole: Buffer, sizes: readonly number[]): Buffer[] {
  const cut: Buffer[] = [];
  for (let at = 0, turn = 0; at < whole.length; turn += 1) {
    const size = sizes[turn % sizes.length] ?? 1;
    cut.push(Buffer.from(whole.subarray(at, at + size)));
    at += size;
  }
  return cut;
}

const sizes = fc.array(fc.integer({ min: 1, max: 50 }), { minLength: 1, maxLength: 8 });

describe('commands of a master', () => {
  test('are the same in any chunking, byte for byte, and so are their offsets', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(command, fc.nat(2)), { maxLength: 20 }), sizes, (sent, chunking) => {
        const encoded = sent.map(([args, newlines]) => [Buffer.from('\n'.repeat(newlines)), encode(args)]);
        const reader = new CommandReader();
        const read = pieces(Buffer.concat(encoded.flat()), chunking).flatMap((piece) => reader.push(piece));
        expect(read.map((one) => one.args)).toEqual(sent.map(([args]) => args));
        expect(Buffer.concat(read.map((one) => one.raw))).toEqual(
          Buffer.concat(encoded.map(([, raw]) => raw!)),
        );
        let offset = 0;
        for (const [index, [newlines, raw]] of encoded.entries()) {
          offset += newlines!.length + raw!.length;
          expect(read[index]!.endOffset).toBe(offset);
          expect(read[index]!.bytes).toBe(raw!.length);
        }
        expect(reader.offset).toBe(offset);
        expect(reader.pendingBytes).toBe(0);
      }),
    );
  });

  test('that follow one another in a chunk are forwarded with one slice', () => {
    const sent = [
      encode([Buffer.from('SET'), Buffer.from('k'), Buffer.from('v')]),
      encode([Buffer.from('PING')]),
    ];
    const [first, last] = new CommandReader().push(Buffer.concat(sent));
    expect(first!.data.subarray(first!.start, last!.end)).toEqual(Buffer.concat(sent));
    expect([first!.name, last!.name]).toEqual(['set', 'ping']);
  });

  test('keep the keep-alive behind them for the offset of the next', () => {
    const reader = new CommandReader();
    const ping = encode([Buffer.from('PING')]);
    reader.push(Buffer.concat([ping, Buffer.from('\n\n')]));
    expect(reader.offset).toBe(ping.length + 2);
  });

  test('that are large lie on disk, and are the same', () => {
    const limits = { bulkBytes: 1000, commandBytes: 10_000, largeBytes: 60 };
    fc.assert(
      fc.property(fc.array(command, { maxLength: 20 }), sizes, (sent, chunking) => {
        const spool = new Spool('test');
        const reader = new CommandReader(spool, limits);
        const encoded = sent.map(encode);
        const read = pieces(Buffer.concat(encoded), chunking).flatMap((piece) => reader.push(piece));
        expect(read.map((one) => one.args)).toEqual(sent);
        expect(read.map((one) => one.raw)).toEqual(encoded);
        let offset = 0;
        for (const [i, raw] of encoded.entries()) {
          expect(read[i]).toMatchObject({ endOffset: (offset += raw.length), bytes: raw.length });
          // A chunk may bring a large command whole; what has to be waited for is not gathered in memory.
          if (raw.length > 60 + Math.max(...chunking)) expect(read[i]!.data).toBe(spool);
        }
        expect(reader.offset).toBe(offset);
        spool.close();
      }),
    );
    for (const bad of [
      '*2\r\n$1\r\na\r\n$99\r\n' + 'x'.repeat(99) + 'yz',
      '*3\r\n$1\r\na\r\n$99\r\n' + 'x'.repeat(99) + '\r\n!',
      '*3\r\n$99\r\n' + 'x'.repeat(99) + '\r\n$1001\r\n',
      '*3\r\n$99\r\n' + 'x'.repeat(99) + '\r\n$1a',
    ]) {
      const spool = new Spool('test');
      const reader = new CommandReader(spool, limits);
      expect(() => pieces(Buffer.from(bad), [7]).map((piece) => reader.push(piece)), bad).toThrow(
        /broken at byte \d+/,
      );
      spool.close();
    }
  });

  test('with an argument of 16 MB, or many arguments, take time in proportion', () => {
    const large = Buffer.alloc(16 * 1024 * 1024, 'x');
    const many = Array.from({ length: 200_000 }, () => Buffer.from('e'));
    for (const args of [[Buffer.from('SET'), Buffer.from('k'), large], many]) {
      const reader = new CommandReader();
      const whole = encode(args);
      const copy = vi.spyOn(Buffer.prototype, 'copy');
      try {
        const read = pieces(whole, [16_384]).flatMap((piece) => reader.push(piece));
        expect(read).toHaveLength(1);
        expect(read[0]!.raw.equals(whole)).toBe(true);
        const copied = copy.mock.results.reduce((sum, { value }) => sum + Number(value), 0);
        expect(copied).toBeLessThan(3 * whole.length);
      } finally {
        copy.mockRestore();
      }
    }
  });

  test('that are garbage are an error with the byte, or wait for more; nothing is allocated for what was declared', () => {
    fc.assert(
      fc.property(
        fc.array(command, { minLength: 1, maxLength: 8 }),
        fc.nat(),
        fc.nat(255),
        sizes,
        (sent, where, byte, chunking) => {
          const whole = Buffer.concat(sent.map(encode));
          whole[where % whole.length] = byte;
          const reader = new CommandReader();
          try {
            for (const piece of pieces(whole, chunking)) reader.push(piece);
          } catch (error) {
            if (!(error instanceof InterlockError)) throw error;
            expect(error.message).toMatch(/at byte \d+/);
            expect(error.details['offset']).toBeLessThan(whole.length);
          }
        },
      ),
      { numRuns: 500 },
    );
    const before = process.memoryUsage().arrayBuffers;
    const reader = new CommandReader();
    reader.push(Buffer.from('*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$536870912\r\n'));
    reader.push(Buffer.from('x'));
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(1_000_000);
    for (const bad of [
      '$3\r\n',
      '*0\r\n',
      '*-1\r\n',
      '*1\r\n*1\r\n',
      '*1\r\n$536870913\r\n',
      '*1\r\n$3\r\nPINGS',
      '+OK\r\n',
      '*99999999999\r\n',
    ]) {
      expect(() => new CommandReader().push(Buffer.from(bad)), bad).toThrow(/broken at byte \d+/);
    }
  });
});

function encodeReply(reply: Reply): Buffer {
  if (reply === null) return Buffer.from('$-1\r\n');
  if (typeof reply === 'string') return Buffer.from(`+${reply}\r\n`);
  if (typeof reply === 'number' || typeof reply === 'bigint') return Buffer.from(`:${reply}\r\n`);
  if (reply instanceof ReplyError) return Buffer.from(`-${reply.message}\r\n`);
  if (Buffer.isBuffer(reply))
    return Buffer.concat([Buffer.from(`$${reply.length}\r\n`), reply, Buffer.from('\r\n')]);
  return Buffer.concat([Buffer.from(`*${reply.length}\r\n`), ...reply.map(encodeReply)]);
}

describe('replies of a server', () => {
  const replies = fc.letrec<{ reply: Reply }>((tie) => ({
    reply: fc.oneof(
      { maxDepth: 4 },
      fc.constantFrom('OK', 'QUEUED', 'PONG', 'QUEUES', ''),
      fc.maxSafeInteger().map((value) => value + 0),
      fc.bigInt({ min: 2n ** 53n, max: 2n ** 63n - 1n }),
      bytes,
      fc.constant(null),
      fc.constantFrom('ERR no', 'WRONGTYPE wrong kind').map((text) => new ReplyError(text)),
      fc.array(tie('reply'), { maxLength: 5 }),
    ),
  })).reply;

  test('are the same in any chunking', () => {
    fc.assert(
      fc.property(fc.array(replies, { maxLength: 10 }), sizes, (sent, chunking) => {
        const reader = new ReplyReader();
        const whole = Buffer.concat(sent.map(encodeReply));
        expect(pieces(whole, chunking).flatMap((piece) => reader.push(piece))).toEqual(sent);
      }),
    );
  });

  test('that are garbage are an error with the byte, or wait for more', () => {
    fc.assert(
      fc.property(
        fc.array(replies, { minLength: 1, maxLength: 8 }),
        fc.nat(),
        fc.nat(255),
        (sent, where, byte) => {
          const whole = Buffer.concat(sent.map(encodeReply));
          whole[where % whole.length] = byte;
          try {
            new ReplyReader().push(whole);
          } catch (error) {
            if (!(error instanceof InterlockError)) throw error;
            expect(error.message).toMatch(/at byte \d+/);
          }
        },
      ),
      { numRuns: 500 },
    );
    for (const bad of [
      'OK\r\n',
      ':x\r\n',
      ':\r\n',
      '$-2\r\n',
      '$536870913\r\n',
      '$1\r\nab\r\n',
      '+a\rb',
      '*1\r\n'.repeat(40),
      'x'.repeat(70_000),
    ]) {
      expect(() => new ReplyReader().push(Buffer.from(bad)), bad.slice(0, 20)).toThrow(/broken at byte \d+/);
    }
  });

  test('that are errors have the code of their kind', () => {
    expect(new ReplyError('WRONGTYPE Operation against a key').code).toBe('WRONGTYPE');
    expect(new ReplyError('unknown').code).toBe('ERR');
  });
});

test('what the writer encodes is what the reader reads, and large strings are not copied', () => {
  fc.assert(
    fc.property(fc.array(command, { maxLength: 20 }), fc.nat(3), (commands, large) => {
      const writer = new CommandWriter();
      const big = Buffer.alloc(large * 20_000, 'x');
      const sent = commands.map((args) => [...args, big]);
      const taken: Buffer[] = [];
      for (const args of sent) {
        writer.command(...args);
        if (args.length % 2 === 0) taken.push(...writer.take());
      }
      writer.command('SET', 'ключ', 12);
      const left = writer.bytes;
      const rest = writer.take();
      expect(rest.reduce((sum, part) => sum + part.length, 0)).toBe(left);
      expect(writer.bytes).toBe(0);
      const read = new CommandReader().push(Buffer.concat([...taken, ...rest]));
      const expected = [...sent, ['SET', 'ключ', '12'].map((text) => Buffer.from(text))];
      expect(Buffer.concat(read.map((one) => one.raw)).equals(Buffer.concat(expected.map(encode)))).toBe(
        true,
      );
    }),
    { numRuns: 30 },
  );
  const value = Buffer.alloc(100_000);
  expect(new CommandWriter().command('SET', 'k', value).take()).toContain(value);
});

test('strings within an array are read over where they are not wanted, in any chunking', () => {
  const reply =
    '$3\r\nabc\r\n*4\r\n:1\r\n$5\r\nlarge\r\n*1\r\n$2\r\nxx\r\n-ERR no\r\n*1\r\n$4\r\nlast\r\n+OK\r\n';
  for (let size = 1; size < 20; size++) {
    const reader = new ReplyReader(true);
    const read = pieces(Buffer.from(reply), [size]).flatMap((piece) => reader.push(piece));
    expect(read).toEqual([Buffer.from('abc'), [1, null, [null], new ReplyError('ERR no')], [null], 'OK']);
  }
});
