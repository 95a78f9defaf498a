import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { ReplyError } from '../../replicators/redis/resp/reply-reader.js';
import type { Reply } from '../../replicators/redis/resp/reply-reader.js';
import { writeAnew } from '../../replicators/redis/verify/repair.js';
import { Side, textOf } from '../../replicators/redis/verify/side.js';
import { verifyRedis } from '../../replicators/redis/verify/verify-redis.js';
import type { VerifyRedisOptions } from '../../replicators/redis/verify/verify-redis.js';
import type { RedisVerifyProgress } from '../../replicators/redis/verify/verification.js';
import { REDIS_RIGHTS } from '../../src/fence/redis-rights.js';
import { startRedis } from '../support/redis.js';
import type { TestRedis } from '../support/redis.js';
import { RedisTestConnection } from '../support/redis-connection.js';
import { fillWithEveryEncoding } from '../support/redis-encodings.js';

/** The target is a replica of the source that may be written: the server's own replication is the link from a to b. */
let source: TestRedis;
let target: TestRedis;
let a: RedisTestConnection;
let b: RedisTestConnection;
const opened: RedisTestConnection[] = [];

function connection(server: TestRedis): RedisTestConnection {
  const made = new RedisTestConnection(server.port);
  opened.push(made);
  return made;
}

beforeAll(async () => {
  const config = { 'repl-diskless-sync-delay': '0', 'enable-debug-command': 'local' };
  source = await startRedis({ config });
  const replicaof = `127.0.0.1 ${source.port}`;
  target = await startRedis({ config: { ...config, replicaof, 'replica-read-only': 'no' } });
  a = connection(source);
  b = connection(target);
  while (!textOf(await b.ask('INFO', 'replication')).includes('master_link_status:up')) await sleep(20);
});

afterAll(async () => {
  for (const one of opened) one.close();
  await Promise.all([source.stop(), target.stop()]);
});

beforeEach(async () => {
  await done(a, 'FLUSHALL');
  await arrived('a');
});

async function done(on: RedisTestConnection, ...command: (string | number | Buffer)[]): Promise<void> {
  const reply = await on.ask(...command);
  if (reply instanceof ReplyError) throw new Error(`${command.join(' ')}: ${reply.message}`);
}

async function runIdOf(on: RedisTestConnection): Promise<string> {
  return /run_id:(\w+)/.exec(textOf(await on.ask('INFO', 'server')))![1]!;
}

let markers = 0;
let replicating = true;

/** The link from a to b has brought all that a had; from b to a nothing is carried. */
async function arrived(from: string): Promise<boolean> {
  if (from !== 'a' || !replicating) return true;
  markers += 1;
  await done(a, 'SET', 'interlock:marker', markers);
  for (let wait = 0; wait < 1_000; wait += 1) {
    if (textOf(await b.ask('GET', 'interlock:marker')) === String(markers)) return true;
    await sleep(5);
  }
  return false;
}

async function verify(
  options: Partial<VerifyRedisOptions> = {},
  from?: RedisVerifyProgress,
  sliceMs?: number,
): Promise<RedisVerifyProgress> {
  return verifyRedis(
    {
      source: { dc: 'a', connection: connection(source) },
      target: { dc: 'b', connection: connection(target) },
      mode: 'full',
      awaitMarker: arrived,
      ownerOf: () => ({ unit: null, owner: 'a' }),
      signal: new AbortController().signal,
      ...options,
    },
    from,
    sliceMs,
  );
}

const KINDS: Record<string, (string | number)[][]> = {
  string: [['SET', 'planted:string', 'v']],
  counter: [['SET', 'planted:counter', 7]],
  list: [['RPUSH', 'planted:list', 'x', 'y', 'z']],
  set: [['SADD', 'planted:set', 'x', 'y', 'z']],
  zset: [['ZADD', 'planted:zset', 1, 'x', 2, 'y']],
  hash: [['HSET', 'planted:hash', 'f', 'v', 'g', 'w']],
  stream: [
    ['XADD', 'planted:stream', '1-1', 'f', 'v'],
    ['XADD', 'planted:stream', '1-2', 'f', 'v'],
  ],
  group: [
    ['XADD', 'planted:group', '1-1', 'f', 'v'],
    ['XGROUP', 'CREATE', 'planted:group', 'g', 0],
    ['XREADGROUP', 'GROUP', 'g', 'c', 'STREAMS', 'planted:group', '>'],
  ],
  claimed: [
    ['XADD', 'planted:claimed', '1-1', 'f', 'v'],
    ['XGROUP', 'CREATE', 'planted:claimed', 'g', 0],
    ['XREADGROUP', 'GROUP', 'g', 'c', 'STREAMS', 'planted:claimed', '>'],
  ],
  type: [['SET', 'planted:type', 'v']],
  length: [['SET', 'planted:length', 'v']],
  expiry: [['SET', 'planted:expiry', 'v', 'EX', 10_000]],
  life: [['SET', 'planted:life', 'v']],
  'only a': [['SET', 'planted:only a', 'v']],
  'long string': [['SETRANGE', 'planted:long string', 3_000_000, 'end']],
};

/** What is done on b alone, and what has to be found. */
const PLANTED: Record<string, { commands: (string | number)[][]; what: string; detail: RegExp }> = {
  string: { commands: [['SET', 'planted:string', 'w']], what: 'value', detail: /^the string differs/ },
  counter: { commands: [['SET', 'planted:counter', 8]], what: 'value', detail: /^the string differs/ },
  list: { commands: [['LSET', 'planted:list', 1, 'q']], what: 'value', detail: /^element 1 differs/ },
  set: {
    commands: [
      ['SREM', 'planted:set', 'y'],
      ['SADD', 'planted:set', 'q'],
    ],
    what: 'value',
    detail: /^member "y" differs/,
  },
  zset: { commands: [['ZADD', 'planted:zset', 2.5, 'y']], what: 'value', detail: /^member "y" differs/ },
  hash: { commands: [['HSET', 'planted:hash', 'g', 'q']], what: 'value', detail: /^field "g" differs/ },
  stream: {
    commands: [
      ['XDEL', 'planted:stream', '1-2'],
      ['XADD', 'planted:stream', '1-3', 'f', 'v'],
    ],
    what: 'value',
    detail: /^entry 1-2 differs/,
  },
  group: { commands: [['XACK', 'planted:group', 'g', '1-1']], what: 'value', detail: /^group "g" differs/ },
  claimed: {
    commands: [['XCLAIM', 'planted:claimed', 'g', 'c', 0, '1-1', 'RETRYCOUNT', 9]],
    what: 'value',
    detail: /^group "g", pending 1-1 differs/,
  },
  type: {
    commands: [
      ['DEL', 'planted:type'],
      ['RPUSH', 'planted:type', 'v'],
    ],
    what: 'type',
    detail: /^string in a, list in b/,
  },
  length: { commands: [['APPEND', 'planted:length', 'w']], what: 'length', detail: /^length 1 in a, 2 in b/ },
  expiry: {
    commands: [['EXPIRE', 'planted:expiry', 20_000]],
    what: 'expiry',
    detail: /^expires at .* in a, expires at .* in b/,
  },
  life: {
    commands: [['EXPIRE', 'planted:life', 10_000]],
    what: 'expiry',
    detail: /^does not expire in a, expires at .* in b/,
  },
  'only a': {
    commands: [['DEL', 'planted:only a']],
    what: 'missing',
    detail: /^b does not have it, a has a string/,
  },
  'only b': {
    commands: [['SET', 'planted:only b', 'v']],
    what: 'missing',
    detail: /^a does not have it, b has a string/,
  },
  'long string': {
    commands: [['SETRANGE', 'planted:long string', 2_999_999, '!']],
    what: 'value',
    detail: /from byte 2097152 on differs/,
  },
};

async function plant(): Promise<void> {
  for (const commands of Object.values(KINDS)) for (const command of commands) await done(a, ...command);
  await arrived('a');
  for (const { commands } of Object.values(PLANTED))
    for (const command of commands) await done(b, ...command);
}

/** All that the owner has of the planted keys. */
async function ownersImage(): Promise<string[]> {
  const keys = Object.keys(PLANTED).map((name) => `planted:${name}`);
  const digests = await a.ask('DEBUG', 'DIGEST-VALUE', ...keys);
  const expiries = await a.askAll(keys.map((key) => ['PEXPIRETIME', key]));
  return [...(digests as Reply[]), ...expiries].map((reply) => textOf(reply) || String(reply as number));
}

/** Values that are read in parts, and that differ in nothing. */
async function fillLong(): Promise<void> {
  const script = `for i = 1, 40000 do
    local s = 'element ' .. i .. string.rep('x', 30)
    redis.call('RPUSH', 'long:list', s) redis.call('SADD', 'long:set', s) redis.call('ZADD', 'long:zset', i / 7, s)
    redis.call('HSET', 'long:hash', s, i) redis.call('XADD', 'long:stream', i .. '-1', 'f', s)
  end`;
  await done(a, 'EVAL', script, 0);
}

/** Writes to many keys of a, of all types and lives, until it is ended. */
function writeAllTheWhile(): () => Promise<number> {
  const writer = connection(source);
  let ended = false;
  let written = 0;
  const running = (async () => {
    for (let round = 0; !ended; round += 1) {
      const key = (name: string): string => `live:${name}:${round % 50}`;
      const replies = await writer.askAll([
        ['INCR', key('counter')],
        ['RPUSH', key('list'), round],
        ['LTRIM', key('list'), -20, -1],
        ['HSET', key('hash'), `f${round % 7}`, round],
        ['ZINCRBY', key('zset'), 1.5, `m${round % 9}`],
        ['XADD', key('stream'), 'MAXLEN', 50, '*', 'f', round],
        ['SPOP', key('set')],
        ['SADD', key('set'), round, round + 1],
        ['SET', key('toggle'), round % 2],
        ['SET', key('short'), round, 'PX', 40],
        ['DEL', key('gone')],
        ['SET', key('gone'), round],
        ['SELECT', 3],
        ['INCR', key('counter')],
        ['SELECT', 0],
      ]);
      written += replies.length;
      const error = replies.find((reply) => reply instanceof ReplyError);
      if (error !== undefined) throw new Error(error.message);
    }
  })();
  return async () => {
    ended = true;
    await running;
    return written;
  };
}

describe('while the source is written', () => {
  test('each planted difference is found, and nothing else; then the owner mends them', async () => {
    await fillWithEveryEncoding(source.port);
    await fillLong();
    await plant();
    const end = writeAllTheWhile();
    const owned = await ownersImage();
    const looked: RedisVerifyProgress[] = [];
    try {
      looked.push(await verify({ batchKeys: 30 }));
      looked.push(await verify({ batchKeys: 200, repair: true, minTtlMs: 0 }));
    } finally {
      expect(await end()).toBeGreaterThan(1_000);
    }
    const [found, mended] = looked as [RedisVerifyProgress, RedisVerifyProgress];
    expect(await ownersImage()).toEqual(owned);
    const planted = Object.entries(PLANTED).map(([name, { what, detail }]) => ({
      key: JSON.stringify(`planted:${name}`),
      what,
      detail: expect.stringMatching(detail) as string,
      repaired: false,
    }));
    const byKey = (x: { key: string }, y: { key: string }): number => (x.key < y.key ? -1 : 1);
    expect(found.differences.sort(byKey)).toMatchObject(planted.sort(byKey));
    expect(found).toMatchObject({
      done: true,
      differing: planted.length,
      undecided: 0,
      repaired: 0,
      unowned: 0,
    });
    expect(found.compared).toBeGreaterThan(150);
    expect(mended.differences.filter(({ repaired }) => !repaired)).toEqual([]);
    expect(mended.repaired).toBe(planted.length);
    await arrived('a');
    expect(await verify({ minTtlMs: 0 })).toMatchObject({ differing: 0, undecided: 0 });
  });
});

/** A link that the test moves, in both directions: what is written by `write` arrives on the other side when the next marker passes. */
function linkByHand(): {
  write: (from: 'a' | 'b', ...command: (string | number)[]) => Promise<void>;
  verify: () => Promise<RedisVerifyProgress>;
} {
  const underWay: Record<string, (string | number)[][]> = { a: [], b: [] };
  return {
    write: async (from, ...command) => {
      await done(from === 'a' ? a : b, ...command);
      underWay[from]!.push(command);
    },
    verify: () =>
      verify({
        awaitMarker: async (from) => {
          for (const command of underWay[from]!.splice(0)) await done(from === 'a' ? b : a, ...command);
          return true;
        },
      }),
  };
}

describe('between two servers that are both written', () => {
  beforeAll(async () => {
    await done(b, 'REPLICAOF', 'NO', 'ONE');
    replicating = false;
  });

  beforeEach(async () => {
    await done(b, 'FLUSHALL');
  });

  test.each(['a', 'b'] as const)('what is on its way from %s is no difference', async (from) => {
    const { write, verify: look } = linkByHand();
    for (let index = 0; index < 100; index += 1) await write(from, 'HSET', `k${index}`, 'f', index);
    expect(await look()).toMatchObject({ done: true, differing: 0, undecided: 0, again: 100 });
  });

  test('a key that is written on either side while markers pass is not called different, also when it is as it was', async () => {
    for (const side of ['a', 'b'] as const) {
      const hot = side === 'a' ? a : b;
      await done(a, 'SET', 'hot', 'x');
      await done(b, 'SET', 'hot', 'y');
      await done(a, 'SET', 'cold', 'x');
      await done(b, 'SET', 'cold', 'y');
      const found = await verify({
        awaitMarker: async () => {
          await done(hot, 'SET', 'hot', 'z');
          await done(hot, 'SET', 'hot', side === 'a' ? 'x' : 'y');
          return true;
        },
      });
      expect(found).toMatchObject({ differing: 1, undecided: 1, notComparable: null });
      expect(found.differences).toMatchObject([{ key: '"cold"', what: 'value' }]);
    }
  });

  test.each([1, 2])(
    'a link that does not bring marker %s ends the comparison, and no key is called different',
    async (which) => {
      await done(a, 'SET', 'k', 'v');
      let written = 0;
      const awaitMarker = async (from: string): Promise<boolean> => from === 'a' || ++written !== which;
      const found = await verify({ awaitMarker });
      expect(found).toMatchObject({
        done: true,
        differing: 0,
        cursor: '0',
        notComparable: expect.stringContaining('replicate status') as string,
      });
      expect(await verify({}, { ...found, done: false, notComparable: null })).toMatchObject({
        differing: 1,
        notComparable: null,
      });
    },
  );

  test('a comparison that is stopped while a server does not answer ends at once', async () => {
    await done(a, 'SET', 'k', 'v');
    const controller = new AbortController();
    target.pause();
    try {
      setTimeout(() => controller.abort(), 50);
      expect(await verify({ signal: controller.signal })).toMatchObject({ done: false, compared: 0 });
    } finally {
      target.unpause();
    }
  });

  test('keys of Interlock, keys that are not carried, and keys that live too short for a link are left out', async () => {
    await done(a, 'SET', 'interlock:link:x', 'v');
    await done(b, 'HSET', 'interlock:units', 'u', 'open:b:1:1');
    await done(a, 'SET', 'session:1', 'v');
    await done(a, 'SET', 'short', 'v', 'PX', 2_500);
    await done(b, 'SET', 'short too', 'v', 'PX', 2_500);
    const found = await verify({
      carried: (_, key) => !key.toString().startsWith('session:'),
      minTtlMs: 3_000,
    });
    expect(found).toMatchObject({ differing: 0, undecided: 0, shortLived: 2, compared: 2 });
    expect(await verify({ carried: () => false })).toMatchObject({ compared: 0, done: true });
  });

  test('HyperLogLogs that count the same are the same, whoever has counted; a string of that form is not', async () => {
    for (const on of [a, b]) {
      await done(on, 'PFADD', 'sparse', 'x', 'y');
      await done(on, 'PFADD', 'dense', ...Array.from({ length: 5_000 }, (_, i) => i));
      await done(on, 'PFADD', 'other', 'x', on === a ? 'y' : 'z');
      await done(on, 'SET', 'string', `HYLL\x05${'\0'.repeat(11)}`);
    }
    for (const key of ['sparse', 'dense']) {
      await done(b, 'PFCOUNT', key);
      expect(await a.ask('GET', key)).not.toEqual(await b.ask('GET', key));
    }
    await done(b, 'SETRANGE', 'string', 9, 'z');
    const { differences } = await verify();
    expect(differences.map(({ key }) => key).sort()).toEqual(['"other"', '"string"']);
  });

  test('modes look as far as they say', async () => {
    for (const on of [a, b]) {
      await done(on, 'SET', 'value', on === a ? 'x' : 'y');
      await done(on, 'SET', 'length', on === a ? 'x' : 'yy');
      await done(on, 'SET', 'expiry', 'v', 'PXAT', on === a ? 4_000_000_000_000 : 4_000_000_001_500);
      for (let index = 0; index < 400; index += 1)
        await done(on, 'SET', `many:${index}`, on === a ? 'x' : 'y');
    }
    await done(a, 'SET', 'missing', 'v');
    const differing = async (options: Partial<VerifyRedisOptions>): Promise<string[]> =>
      (await verify({ keep: 1_000, ...options })).differences
        .map(({ key }) => JSON.parse(key) as string)
        .filter((key) => !key.startsWith('many:'))
        .sort();
    expect(await differing({ mode: 'existence' })).toEqual(['missing']);
    expect(await differing({ mode: 'length' })).toEqual(['expiry', 'length', 'missing']);
    expect(await differing({ mode: 'full' })).toEqual(['expiry', 'length', 'missing', 'value']);
    expect(await differing({ mode: 'full', expiryToleranceMs: 2_000 })).toEqual([
      'length',
      'missing',
      'value',
    ]);
    const sample = await verify({ mode: 'sample', sample: 0.25 });
    expect(sample.compared).toBeGreaterThan(40);
    expect(sample.compared).toBeLessThan(200);
    expect(sample.differing).toBeGreaterThan(30);
    expect((await verify({ mode: 'sample', sample: 0.25 })).compared).toBe(sample.compared);
    await expect(verify({ mode: 'sample' })).rejects.toThrow('sample: undefined is no share of the keys');
  });

  test('a comparison goes on from where another one was ended', async () => {
    for (const db of [0, 2]) {
      await a.askAll([
        ['SELECT', db],
        ...Array.from({ length: 300 }, (_, index) => ['SET', `k${index}`, index]),
        ['SELECT', 0],
      ]);
      await b.askAll([
        ['SELECT', db],
        ...Array.from({ length: 300 }, (_, index) => ['SET', `k${index + 1}`, index + 1]),
        ['SELECT', 0],
      ]);
    }
    let at: RedisVerifyProgress | undefined;
    let runs = 0;
    while (at?.done !== true) {
      const controller = new AbortController();
      at = await verify(
        { batchKeys: 50, signal: controller.signal, onProgress: () => controller.abort() },
        at === undefined ? undefined : (JSON.parse(JSON.stringify(at)) as RedisVerifyProgress),
      );
      runs += 1;
    }
    expect(runs).toBeGreaterThan(10);
    expect(at.differences.map(({ db, key, detail }) => `${db} ${key} ${detail}`).sort()).toEqual([
      '0 "k0" b does not have it, a has a string',
      '0 "k300" a does not have it, b has a string',
      '2 "k0" b does not have it, a has a string',
      '2 "k300" a does not have it, b has a string',
    ]);
    expect(at).toMatchObject({ estimated: 1_200, differing: 4 });
  });

  test('a slice ends behind the batch it is at, and the next one goes on there', async () => {
    for (const on of [a, b]) {
      await on.askAll(
        Array.from({ length: 1_000 }, (_, i) => ['SET', `k${i}`, i % 250 === 0 ? String(on === a) : i]),
      );
    }
    const first = await verify({ batchKeys: 100 }, undefined, 0);
    expect(first).toMatchObject({ done: false, side: 'source' });
    expect(first.scanned).toBeGreaterThan(0);
    expect(first.scanned).toBeLessThan(300);
    let at = first;
    let slices = 1;
    for (; !at.done; slices += 1) at = await verify({ batchKeys: 100 }, at, 0);
    expect(slices).toBeGreaterThan(10);
    expect(at.differing).toBe(4);
    expect(at.compared).toBeGreaterThanOrEqual(1_000);
    expect(at.compared).toBeLessThan(1_100);
  });

  test('differences that a report cannot carry are counted, and not kept', async () => {
    const long = 'x'.repeat(3_000);
    for (const key of ['k1', long, 'k2']) await done(a, 'SET', key, 'v');
    const found = await verify({ keepLength: 2_000 });
    expect(found.differing).toBe(3);
    expect(found.differences.map(({ key }) => key).sort()).toEqual(['"k1"', '"k2"']);
    expect((await verify({ keepLength: 100 })).differences).toEqual([]);
    expect((await verify()).differences).toHaveLength(3);
  });

  test('what differs is not mended where its unit is closed, where nobody owns it, or where nothing is brought', async () => {
    const owned = { unit: 'cn/1', owner: 'a' };
    await done(a, 'SET', 'k', 'of a');
    await done(b, 'SET', 'k', 'of b');
    const refused = async (owner: {
      unit: string | null;
      owner: string | null;
    }): Promise<string | undefined> => {
      const { repaired, differing, differences } = await verify({
        repair: true,
        awaitMarker: async () => true,
        ownerOf: () => owner,
      });
      expect({ repaired, differing }).toEqual({ repaired: 0, differing: 1 });
      return differences[0]!.notRepaired;
    };
    expect(await refused(owned)).toMatch(/^cn\/1 is not open in a; verify again/);
    await done(a, 'HSET', 'interlock:units', 'cn/1', 'write_disabled:a:7:1');
    expect(await refused(owned)).toMatch(/^cn\/1 is not open in a/);
    await done(a, 'HSET', 'interlock:units', 'cn/1', 'open:a:7:1');
    expect(await refused(owned)).toMatch(/^a was restarted, and its states do not count/);
    await done(a, 'HSET', 'interlock:units', '#server', 'b'.repeat(40));
    expect(await refused(owned)).toMatch(/^a was restarted, and its states do not count/);
    await done(a, 'HSET', 'interlock:units', '#server', await runIdOf(a));
    expect(await refused(owned)).toMatch(/^its owner wrote it anew, and it differs still/);
    expect(await refused({ unit: null, owner: null })).toMatch(/^nobody owns it/);
    expect(textOf(await a.ask('GET', 'k'))).toBe('of a');
    expect(textOf(await b.ask('GET', 'k'))).toBe('of b');
  });

  test('a repair never writes over what is written meanwhile', async () => {
    const real = connection(source);
    let writes = 1;
    const side = new Side(
      {
        dc: 'a',
        connection: {
          askAll: async (commands) => {
            const replies = await real.askAll(commands);
            if (commands.some(([name]) => name === 'DUMP') && writes-- > 0) await done(a, 'INCR', 'n');
            return replies;
          },
        },
      },
      new AbortController().signal,
    );
    await side.open();
    await done(a, 'SET', 'n', 1);
    expect(await writeAnew(side, 0, Buffer.from('n'), null)).toBeUndefined();
    expect(textOf(await a.ask('GET', 'n'))).toBe('2');
    writes = 100;
    expect(await writeAnew(side, 0, Buffer.from('n'), null)).toMatch(/^a writes it all the while/);
    expect(textOf(await a.ask('GET', 'n'))).toBe('7');
  });

  test('a repair never writes into a unit that is fenced meanwhile', async () => {
    const real = connection(source);
    const fence = 'write_disabled:a:8:1';
    const side = new Side(
      {
        dc: 'a',
        connection: {
          askAll: async (commands) => {
            const replies = await real.askAll(commands);
            if (commands.some(([name]) => name === 'DUMP'))
              await done(a, 'HSET', 'interlock:units', 'cn/1', fence);
            return replies;
          },
        },
      },
      new AbortController().signal,
    );
    await side.open();
    await done(a, 'SET', 'n', 1);
    await done(a, 'HSET', 'interlock:units', 'cn/1', 'open:a:7:1', '#server', await runIdOf(a));
    expect(await writeAnew(side, 0, Buffer.from('n'), 'cn/1')).toMatch(/^cn\/1 is not open in a/);
  });

  test('needs no other rights than preflight asks for', async () => {
    const names = [...REDIS_RIGHTS.verify, ...REDIS_RIGHTS.repair].map(([name]) => `+${name}`);
    for (const on of [a, b]) await done(on, 'ACL', 'SETUSER', 'few', 'on', 'nopass', '~*', '-@all', ...names);
    const few = [connection(source), connection(target)] as const;
    for (const one of few) await done(one, 'AUTH', 'few', '');
    for (const on of [a, b]) {
      for (const commands of Object.values(KINDS)) for (const command of commands) await done(on, ...command);
      await done(on, 'SADD', 'long:set', 'x'.repeat(700_000), 'y'.repeat(700_000));
      await done(on, 'HSET', 'long:hash', 'x', 'x'.repeat(1_400_000));
      await done(on, 'XADD', 'long:stream', '1-1', 'f', 'x'.repeat(1_400_000));
      await done(on, 'HSET', 'interlock:units', 'cn/1', 'open:a:7:1', '#server', await runIdOf(on));
    }
    await done(a, 'SET', 'differs', 'x');
    const { differences } = await verify({
      ...{ source: { dc: 'a', connection: few[0] }, target: { dc: 'b', connection: few[1] } },
      ...{ repair: true, ownerOf: () => ({ unit: 'cn/1', owner: 'a' }), awaitMarker: async () => true },
    });
    expect(differences.map(({ key, notRepaired }) => [key, notRepaired])).toEqual([
      ['"differs"', expect.stringMatching(/^its owner wrote it anew, and it differs still/)],
    ]);
  });

  test('a server that may not be read is said', async () => {
    await done(b, 'ACL', 'SETUSER', 'blind', 'on', 'nopass', '~*', '+@all', '-get', '-type');
    const blind = connection(target);
    await done(blind, 'AUTH', 'blind', '');
    await done(a, 'SET', 'k', 'v');
    await expect(verify({ target: { dc: 'b', connection: blind } })).rejects.toThrow(
      /Redis of b refuses TYPE in database 0: NOPERM/,
    );
  });
});

test.each(['source', 'target'] as const)(
  'a %s that was restarted between two slices ends the comparison by name',
  async (which) => {
    const config = { appendonly: 'yes' };
    const pair = { source: await startRedis({ config }), target: await startRedis({ config }) };
    try {
      for (const server of Object.values(pair)) {
        const on = connection(server);
        for (let i = 0; i < 500; i++) await done(on, 'SET', `k${i}`, i);
      }
      const slice = (from?: RedisVerifyProgress): Promise<RedisVerifyProgress> =>
        verify(
          {
            source: { dc: 'dc-a', connection: connection(pair.source) },
            target: { dc: 'dc-b', connection: connection(pair.target) },
            awaitMarker: async () => true,
            batchKeys: 50,
          },
          from,
          from === undefined ? 0 : Infinity,
        );
      const first = await slice();
      expect(first).toMatchObject({ done: false, notComparable: null });
      await pair[which].kill('SIGKILL');
      await pair[which].restart();
      const after = await slice(first);
      expect(after).toMatchObject({ done: true, scanned: first.scanned });
      expect(after.notComparable).toMatch(
        new RegExp(`another server answers in dc-${which === 'source' ? 'a' : 'b'} .*verify again`),
      );
      // From the beginning, nothing of before counts.
      expect(await slice()).toMatchObject({ notComparable: null });
      expect((await slice(await slice())).differing).toBe(0);
    } finally {
      await Promise.all(Object.values(pair).map((server) => server.stop()));
    }
  },
);
