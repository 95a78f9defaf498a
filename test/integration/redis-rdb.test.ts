import { createReadStream } from 'node:fs';
import { connect } from 'node:net';
import { Readable } from 'node:stream';
import path from 'node:path';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import type { RdbEvent } from '../../replicators/redis/rdb/events.js';
import { readRdb } from '../../replicators/redis/rdb/read-rdb.js';
import type { RdbOptions } from '../../replicators/redis/rdb/read-rdb.js';
import { Spool, SpooledBytes } from '../../replicators/redis/spool.js';
import { CommandWriter } from '../../replicators/redis/resp/command-writer.js';
import { ReplyError, ReplyReader } from '../../replicators/redis/resp/reply-reader.js';
import { OLD_FORMATS, rdbFile } from '../support/rdb-fixture.js';
import { startRedis } from '../support/redis.js';
import type { TestRedis } from '../support/redis.js';
import { dataset, redisClient } from '../support/redis-dataset.js';
import type { KeyImage } from '../support/redis-dataset.js';
import { fillWithEveryEncoding } from '../support/redis-encodings.js';

const DATABASES = [0, 3, 15];

let source: TestRedis;
let target: TestRedis;
/** The source's whole data set, saved by the source. */
let file: string;

beforeAll(async () => {
  const config = { 'list-compress-depth': '1' };
  [source, target] = await Promise.all([startRedis({ config }), startRedis()]);
  await fillWithEveryEncoding(source.port);
  await source.cli('SAVE');
  file = path.join(source.directory, 'dump.rdb');
});

afterAll(async () => {
  await Promise.all([source.stop(), target.stop()]);
});

beforeEach(async () => {
  await target.cli('FLUSHALL');
  await target.cli('FUNCTION', 'FLUSH');
});

/** Sends what was read to a server, as a link does; the errors that it answers with. */
async function apply(events: AsyncIterable<RdbEvent[]>, port: number): Promise<string[]> {
  const socket = connect(port, '127.0.0.1');
  const reader = new ReplyReader();
  const errors: string[] = [];
  let sent = 0;
  let answered = 0;
  const ended = new Promise<void>((resolve, reject) => {
    socket.on('error', reject);
    socket.on('close', resolve);
    socket.on('data', (chunk: Buffer) => {
      for (const reply of reader.push(chunk)) {
        answered += 1;
        if (reply instanceof ReplyError) errors.push(reply.message);
      }
    });
  });
  const writer = new CommandWriter();
  for await (const batch of events) {
    for (const event of batch) {
      if (event.kind === 'select') writer.command('SELECT', event.db);
      else if (event.kind === 'value') event.writeTo(writer);
      else if (event.kind === 'function') writer.command('FUNCTION', 'LOAD', 'REPLACE', event.code);
      else if (event.kind === 'commands')
        for (const command of event.commands) writer.command(...command.map(inMemory));
      sent +=
        event.kind === 'commands'
          ? event.commands.length
          : ['select', 'value', 'function'].includes(event.kind)
            ? 1
            : 0;
    }
    for (const part of writer.take())
      if (!socket.write(part)) await new Promise((resolve) => socket.once('drain', resolve));
  }
  socket.end();
  await ended;
  expect(answered).toBe(sent);
  return errors;
}

function chunksOf(size: number): AsyncIterable<Buffer> {
  return createReadStream(file, { highWaterMark: size });
}

async function collect(events: AsyncIterable<RdbEvent[]>): Promise<RdbEvent[]> {
  const all: RdbEvent[] = [];
  for await (const batch of events) all.push(...batch);
  return all;
}

/** The file as a master sends it: saved to its disk first (`$<length>`), or not (`$EOF:<mark>`). */
async function fullSync(port: number, capabilities: string): Promise<Buffer> {
  const socket = connect(port, '127.0.0.1');
  if (capabilities !== '') {
    socket.write(capabilities);
    await new Promise((resolve) => socket.once('readable', resolve));
    socket.read();
  }
  socket.write('PSYNC ? -1\r\n');
  let received = Buffer.alloc(0);
  try {
    for await (const chunk of socket) {
      received = Buffer.concat([received, chunk as Buffer]);
      const [head, announced] =
        /^\+FULLRESYNC [^\r]*\r\n\n*\$([^\r\n]+)\r\n/.exec(received.toString('latin1', 0, 300)) ?? [];
      if (head === undefined || announced === undefined) continue;
      const mark = /^EOF:(.{40})$/.exec(announced)?.[1];
      if (mark === undefined && received.length >= head.length + Number(announced)) {
        return received.subarray(head.length, head.length + Number(announced));
      }
      if (mark !== undefined && received.subarray(-40).equals(Buffer.from(mark)))
        return received.subarray(head.length, -40);
    }
    throw new Error('the master has closed the connection');
  } finally {
    socket.destroy();
  }
}

function inMemory(one: Buffer | SpooledBytes): Buffer {
  return one instanceof SpooledBytes ? one.spool.subarray(one.start, one.end) : one;
}

/** What only Redis 7 knows. */
const REDIS_7_ONLY = ['entries-added', 'max-deleted-entry-id', 'entries-read', 'lag'];

interface StreamImage {
  entries: [string, unknown][];
  groups: {
    pending: [string][];
    'pel-count': string;
    consumers: { 'pel-count': string; pending: [string][] }[];
  }[];
}

/** Leaves out what no command can make: pending entries that the stream does not have; to Redis 6, counts and consumers with nothing pending. */
function asMadeByCommands(image: KeyImage, redis6: boolean): void {
  // The target stores as it is configured.
  image.encoding = '';
  const stream = image.stream as StreamImage | undefined;
  if (stream === undefined) return;
  const ids = new Set(stream.entries.map(([id]) => id));
  for (const group of stream.groups) {
    group.pending = group.pending.filter(([id]) => ids.has(id));
    group['pel-count'] = String(group.pending.length);
    for (const consumer of group.consumers) {
      consumer.pending = consumer.pending.filter(([id]) => ids.has(id));
      consumer['pel-count'] = String(consumer.pending.length);
    }
    if (redis6) group.consumers = group.consumers.filter((consumer) => consumer.pending.length > 0);
  }
  if (redis6)
    for (const one of [stream, ...stream.groups])
      for (const name of REDIS_7_ONLY) Reflect.deleteProperty(one, name);
}

/** On disk is what is longer than a piece. */
const ELSEWHERE: RdbOptions = {
  rawLimitBytes: 10,
  spool: new Spool('test'),
  pieceKey: Buffer.from('interlock:link:test:copy'),
};

const WAYS: [string, RdbOptions, number][] = [
  ['RESTORE', { rawLimitBytes: 1 << 30 }, 65_536],
  ['RESTORE, pieces of what is over 2000 bytes, in chunks of 700', { rawLimitBytes: 2000 }, 700],
  ['pieces of all that is over 10 bytes', { rawLimitBytes: 10 }, 65_536],
  ['pieces, made under another name', ELSEWHERE, 700],
  ['commands only', { rawLimitBytes: 1 << 20, decode: 'all' }, 65_536],
  [
    'commands, where Redis 6 does not know the format',
    { rawLimitBytes: 1 << 20, targetRdbVersion: 9 },
    65_536,
  ],
];

test.each(WAYS)('every type and encoding arrives by %s', async (way, options, chunkBytes) => {
  expect(await apply(readRdb(chunksOf(chunkBytes), options), target.port)).toEqual([]);
  const [expected, found] = await Promise.all([
    dataset(source.port, DATABASES),
    dataset(target.port, DATABASES),
  ]);
  expect(expected.size).toBeGreaterThan(100);
  if (way !== 'RESTORE') {
    for (const image of [...expected.values(), ...found.values()])
      asMadeByCommands(image, options.targetRdbVersion === 9);
  }
  expect(Object.fromEntries(found)).toEqual(Object.fromEntries(expected));
  expect(await target.cli('FUNCTION', 'LIST', 'WITHCODE')).toBe(
    await source.cli('FUNCTION', 'LIST', 'WITHCODE'),
  );
});

test.each(['where-needed', 'all'] as const)(
  'what a key held before is replaced (decode: %s)',
  async (decode) => {
    const client = redisClient(target.port);
    try {
      const events = await collect(readRdb(chunksOf(65_536), { rawLimitBytes: 1 << 20, decode }));
      for (const event of events) {
        if ((event.kind !== 'value' && event.kind !== 'commands') || event.db !== 0) continue;
        await client.call(event.type === 'hash' ? 'RPUSH' : 'HSET', event.key, 'older', 'value');
        await client.call('EXPIRE', event.key, 1_000);
      }
      expect(await apply(readRdb(chunksOf(65_536), { rawLimitBytes: 1 << 20, decode }), target.port)).toEqual(
        [],
      );
      const [expected, found] = await Promise.all([
        dataset(source.port, DATABASES),
        dataset(target.port, DATABASES),
      ]);
      for (const image of [...expected.values(), ...found.values()]) asMadeByCommands(image, false);
      expect(Object.fromEntries(found)).toEqual(Object.fromEntries(expected));
    } finally {
      client.disconnect();
    }
  },
);

test('a payload is what DUMP answers, where the order of the elements is kept', async () => {
  const client = redisClient(source.port);
  try {
    let compared = 0;
    for (const event of await collect(readRdb(chunksOf(65_536), { rawLimitBytes: 1 << 30 }))) {
      if (event.kind !== 'value' || event.db !== 0 || event.type === 'set' || event.type === 'hash') continue;
      expect(event.payload.equals((await client.callBuffer('DUMP', event.key)) as Buffer)).toBe(true);
      compared += 1;
    }
    expect(compared).toBeGreaterThan(60);
  } finally {
    client.disconnect();
  }
});

test('formats of older servers, from hand-built files: what the server restores is what the commands make', async () => {
  const old = rdbFile(9, ...Object.values(OLD_FORMATS));
  const images: Record<string, KeyImage>[] = [];
  for (const [decode, rawLimitBytes] of [
    ['where-needed', 1 << 30],
    ['where-needed', 10],
    ['all', 1 << 30],
  ] as const) {
    await target.cli('FLUSHALL');
    expect(await apply(readRdb(Readable.from([old]), { rawLimitBytes, decode }), target.port)).toEqual([]);
    const found = await dataset(target.port);
    expect(found.size).toBe(Object.keys(OLD_FORMATS).length);
    for (const image of found.values()) asMadeByCommands(image, decode === 'all' || rawLimitBytes === 10);
    images.push(Object.fromEntries(found));
  }
  for (const image of Object.values(images[0]!)) asMadeByCommands(image, true);
  expect(images[1]).toEqual(images[0]);
  expect(images[2]).toEqual(images[0]);
});

test.each([
  ['saved to its disk first', ''],
  ['as it is made', 'REPLCONF capa eof\r\n'],
])('a file that the master sends, %s, is that of SAVE', async (_, capabilities) => {
  await source.cli(
    'CONFIG',
    'SET',
    'repl-diskless-sync',
    capabilities === '' ? 'no' : 'yes',
    'repl-diskless-sync-delay',
    '0',
  );
  const sent = await fullSync(source.port, capabilities);
  const values = async (chunks: AsyncIterable<Buffer>): Promise<string[]> =>
    (await collect(readRdb(chunks, { rawLimitBytes: 1 << 30 }))).flatMap((event) =>
      event.kind === 'value'
        ? [`${event.db} ${event.key.toString('hex')} ${event.expireAtMs} ${event.payload.toString('hex')}`]
        : [],
    );
  const [overWire, saved] = [await values(Readable.from([sent])), await values(chunksOf(65_536))];
  expect(overWire.sort()).toEqual(saved.sort());
});

test.each([
  ['allkeys-lru', 'IDLETIME', '1234'],
  ['allkeys-lfu', 'FREQ', '77'],
])('with %s, a key arrives with its %s', async (policy, attribute, value) => {
  const other = await startRedis({ config: { 'maxmemory-policy': policy } });
  try {
    const writer = redisClient(source.port);
    const reader = redisClient(other.port);
    const dumped = (await writer.callBuffer('DUMP', 'list:127')) as Buffer;
    await reader.call('RESTORE', 'k', 0, dumped, attribute, value);
    await reader.call('SET', 'plain', 'v');
    await other.cli('SAVE');
    const saved = createReadStream(path.join(other.directory, 'dump.rdb'));
    await target.cli('CONFIG', 'SET', 'maxmemory-policy', policy);
    expect(await apply(readRdb(saved, { rawLimitBytes: 1 << 20 }), target.port)).toEqual([]);
    expect(Math.abs(Number(await target.cli('OBJECT', attribute, 'k')) - Number(value))).toBeLessThanOrEqual(
      1,
    );
    expect(await target.cli('GET', 'plain')).toBe('v');
    writer.disconnect();
    reader.disconnect();
  } finally {
    await target.cli('CONFIG', 'SET', 'maxmemory-policy', 'noeviction');
    await other.stop();
  }
});
