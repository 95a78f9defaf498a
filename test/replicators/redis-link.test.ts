import { createServer } from 'node:net';
import type { AddressInfo, Socket } from 'node:net';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Applier } from '../../replicators/redis/applier.js';
import { ApplyLoop } from '../../replicators/redis/apply-loop.js';
import { Arrivals } from '../../replicators/redis/arrivals.js';
import { CommandBytes } from '../../replicators/redis/block.js';
import { firstCheckpoint } from '../../replicators/redis/checkpoint.js';
import { CommandTable } from '../../replicators/redis/commands.js';
import { encodeCommand } from '../../replicators/redis/connection.js';
import { CommandFilter } from '../../replicators/redis/filter.js';
import { keyOfCopy } from '../../replicators/redis/full-sync.js';
import { Intake } from '../../replicators/redis/intake.js';
import { Judge } from '../../replicators/redis/judge.js';
import { KeySet } from '../../replicators/redis/key-set.js';
import { KeyUnitReader } from '../../replicators/redis/key-units.js';
import { REDIS_LINK_DEFAULTS } from '../../replicators/redis/link-config.js';
import type { RedisLinkConfig } from '../../replicators/redis/link-config.js';
import { Mends } from '../../replicators/redis/mends.js';
import { Ownership } from '../../replicators/redis/ownership.js';
import { Replica } from '../../replicators/redis/replica.js';
import { CommandReader } from '../../replicators/redis/resp/command-reader.js';
import type { StreamCommand } from '../../replicators/redis/resp/command-reader.js';
import { ShortLived } from '../../replicators/redis/short-lived.js';
import { requireContinues } from '../../replicators/redis/source-info.js';
import { SourceStream } from '../../replicators/redis/source-stream.js';
import { Spool, SpooledBytes } from '../../replicators/redis/spool.js';
import { bucketOf } from '../../src/routing/units.js';

const command = (...args: (string | number)[]): StreamCommand =>
  new CommandReader().push(encodeCommand(args))[0]!;

const limits = { databases: 16, rdbVersion: 10, argumentBytes: 1 << 29, transactionBytes: 1 << 30 };

/** A link of which every key is carried. */
const plainLink = {
  ...REDIS_LINK_DEFAULTS,
  keys: [],
  ...{ link: 'redis/c:a>b', from: 'a', to: 'b' },
  source: { host: '', port: 1 },
  target: { host: '', port: 1 },
  mapping: { defaultRegion: 'eu', regions: ['eu'], segments: {} },
};

function streamOf(
  config: RedisLinkConfig,
  ownership = new Ownership('a', []),
  from = { offset: 0, db: 0 },
): SourceStream {
  const judge = new Judge(config, ownership);
  const shortLived = new ShortLived(config.minTtlMs, Date.now);
  return new SourceStream(
    ...([config, new CommandTable(), judge, ownership, shortLived, from, limits, new Mends()] as const),
  );
}

/** What its block has for the target, up to where database 0 is selected again. */
function sentBy({ block }: SourceStream): string[] {
  const bytes = Buffer.concat(block.commands.take().parts as Buffer[]);
  const sent = new CommandReader().push(bytes).map(({ args }) => args.map(String).join(' '));
  return sent.at(-1) === 'SELECT 0' ? sent.slice(0, -1) : sent;
}

describe('what waits for the target', () => {
  it('comes out as it went in, whatever lies on disk', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.oneof(fc.integer({ min: 1, max: 300 }), fc.constant('shift'), fc.constant('load')), {
          minLength: 20,
          maxLength: 60,
        }),
        async (steps) => {
          const intake = new Intake(1e9, 400);
          let written = 0;
          const given: Buffer[] = [];
          const loads: Promise<void>[] = [];
          const take = (): boolean => {
            const chunk = intake.shift();
            if (chunk !== undefined) given.push(chunk);
            return chunk !== undefined;
          };
          for (const step of steps) {
            if (step === 'shift') take();
            else if (step === 'load') loads.push(intake.load());
            else intake.push(Buffer.from(Array.from({ length: step }, () => written++ % 251)));
          }
          await Promise.all(loads);
          while (!intake.isEmpty) if (!take()) await intake.load();
          expect(Buffer.concat(given)).toEqual(
            Buffer.from(Array.from({ length: written }, (_, i) => i % 251)),
          );
          expect(intake.onDisk).toBe(0);
          intake.close();
        },
      ),
      { numRuns: 40 },
    );
  });

  it('is full at its bound', () => {
    const intake = new Intake(5000, 1000);
    for (let i = 0; i < 5; i++) intake.push(Buffer.alloc(1000));
    expect(intake.isFull).toBe(true);
    expect(intake.onDisk).toBe(4000);
    intake.close();
  });
});

describe('the keys of a command', () => {
  const table = new CommandTable();
  const keysOf = (...args: (string | number)[]): string[] => {
    const found = command(...args);
    return table
      .of(found.name)
      .keysOf(found)
      .map((index) => found.arg(index).toString());
  };

  it.each([
    [['SET', 'k', 'v'], ['k']],
    [
      ['MSET', 'a', 1, 'b', 2],
      ['a', 'b'],
    ],
    [
      ['DEL', 'a', 'b', 'c'],
      ['a', 'b', 'c'],
    ],
    [
      ['RENAME', 'a', 'b'],
      ['a', 'b'],
    ],
    [
      ['BITOP', 'AND', 'd', 'a', 'b'],
      ['d', 'a', 'b'],
    ],
    [['XGROUP', 'CREATE', 's', 'g', '$'], ['s']],
    [
      ['ZUNIONSTORE', 'd', 2, 'a', 'b', 'WEIGHTS', 1, 2],
      ['d', 'a', 'b'],
    ],
    [
      ['SORT', 'a', 'BY', 'w_*', 'STORE', 'd'],
      ['a', 'd'],
    ],
    [
      ['SORT', 'a', 'LIMIT', 0, 1, 'store', 'd', 'BY', 'store', 'GET', '#'],
      ['a', 'd'],
    ],
    [
      ['SORT', 'a', 'STORE', 'store', 'ALPHA'],
      ['a', 'store'],
    ],
    [
      ['GEORADIUS', 'g', 1, 2, 3, 'km', 'STOREDIST', 'd'],
      ['g', 'd'],
    ],
    [
      ['GEORADIUSBYMEMBER', 'g', 'store', 1, 'km', 'COUNT', 1, 'ANY', 'STORE', 'store', 'ASC'],
      ['g', 'store'],
    ],
    [['PUBLISH', 'c', 'm'], []],
  ])('%j', (args, keys) => expect(keysOf(...args)).toEqual(keys));

  it('HDEL is a deletion where fields of a hash can expire', () => {
    const of74 = new CommandTable([[Buffer.from('hpexpireat'), -6, ['write'], 1, 1, 1]]);
    expect(of74.of('hdel')).toMatchObject({ kind: 'delete', onlyKey: 1 });
    expect(table.of('hdel')).toMatchObject({ kind: 'write', onlyKey: 1 });
    // An expiry at a source that does not own the unit is dropped, a write is a conflict.
    const config = { ...REDIS_LINK_DEFAULTS, keys: [{ pattern: 'user:{userId}:*' }] };
    const judge = new Judge(
      {
        ...config,
        ...{ link: 'redis/c:a>b', from: 'a', to: 'b' },
        source: { host: '', port: 1 },
        target: { host: '', port: 1 },
        mapping: { defaultRegion: 'eu', regions: ['eu'], segments: {} },
      },
      new Ownership('a', []),
    );
    expect(judge.verdict(of74.of('hdel'), command('HDEL', 'user:1:h', 'f'))).toBe('late-deletion');
    expect(judge.verdict(table.of('hdel'), command('HDEL', 'user:1:h', 'f'))).toBe('not-owned');
  });

  it('those of modules are learnt from the source', () => {
    const learnt = new CommandTable([[Buffer.from('JSON.SET'), -4, ['write', 'denyoom'], 1, 1, 1, []]]);
    expect(learnt.of('json.set')).toMatchObject({ kind: 'write', onlyKey: 1 });
    expect(table.of('json.set').kind).toBe('unknown');
  });
});

describe('a command of a copy', () => {
  it.each([
    [['SET', 'k', 'v'], 'k'],
    [['XGROUP', 'CREATE', 'k', 'g', '0'], 'k'],
    [['SELECT', 1], null],
    [['FUNCTION', 'LOAD', 'REPLACE', 'x'], null],
  ])('%j is of the key %s', (args, key) => {
    expect(keyOfCopy(command(...args))?.toString() ?? null).toBe(key);
  });
});

describe('a key', () => {
  it('has the unit of the first pattern that fits', () => {
    const reader = new KeyUnitReader(
      [
        { pattern: 'user:*:tmp', unrouted: true },
        { pattern: 'user:{userId}:*' },
        { pattern: '{region}/cart/{{userId}}' },
        { pattern: 'stock:*', central: 'stock' },
        { pattern: 'u.{userId}' },
      ],
      { defaultRegion: 'eu', regions: ['eu', 'us'], segments: { vip: ['7'] } },
    );
    expect(reader.unitOf('user:42:name')).toBe(`eu/${bucketOf('42')}`);
    expect(reader.unitOf('user:42:tmp')).toBeNull();
    expect(reader.unitOf('user:7:name')).toBe('segment:vip');
    expect(reader.unitOf('us/cart/{42}')).toBe(`us/${bucketOf('42')}`);
    expect(reader.unitOf('mars/cart/{42}')).toBe('mars/(not routed)');
    expect(reader.unitOf('stock:9')).toBe('central:stock');
    expect(reader.unitOf('u.ü'.replace('ü', '\u00c3\u00bc'))).toBe(`eu/${bucketOf('ü')}`);
    expect(reader.unitOf('uX1')).toBeUndefined();
    expect(reader.unitOf('user:42')).toBeUndefined();
  });

  it('is filtered by patterns as KEYS has them', () => {
    const filter = (pattern: string): ((key: string) => boolean) => {
      const made = new CommandFilter({ includeKeys: [pattern] });
      return (key) => made.carriesKey(key);
    };
    expect(filter('a?c')('abc')).toBe(true);
    expect(filter('a?c')('abbc')).toBe(false);
    expect(filter('h[ae-g]llo')('hfllo')).toBe(true);
    expect(filter('h[^a]llo')('hallo')).toBe(false);
    expect(filter('a\\*')('a*')).toBe(true);
    expect(filter('a\\*')('ab')).toBe(false);
    expect(filter('a.b*')('axb')).toBe(false);
  });

  it('is found again among many others', () => {
    const keys = new KeySet();
    for (let i = 0; i < 50_000; i++) keys.add(i % 2, Buffer.from(`key:${i}`));
    expect(keys.size).toBe(50_000);
    for (let i = 0; i < 50_000; i += 7) {
      expect(keys.has(i % 2, Buffer.from(`key:${i}`))).toBe(true);
      expect(keys.has(1 - (i % 2), Buffer.from(`key:${i}`))).toBe(false);
    }
  });
});

describe('a block', () => {
  it('forwards what follows each other as it came, and selects databases only where they change', () => {
    const bytes = Buffer.concat([1, 2, 3, 4].map((i) => encodeCommand(['SET', `k${i}`, i])));
    const [one, two, three, four] = new CommandReader().push(bytes) as [
      StreamCommand,
      StreamCommand,
      StreamCommand,
      StreamCommand,
    ];
    const made = new CommandBytes();
    for (const each of [one, two, four]) made.add(each, 0);
    made.add(three, 5);
    made.remove(one);
    const spool = new Spool('a large command cannot be kept');
    expect([...made.pick([2, 3], spool)]).toMatchObject([
      { offset: null, db: 0 },
      { offset: three.endOffset, db: 5 },
    ]);
    const { count } = made.take();
    const parts = made.take().parts as Buffer[];
    expect(count).toBe(5);
    expect(Buffer.concat(parts)).toEqual(
      Buffer.concat([
        two.raw,
        four.raw,
        encodeCommand(['SELECT', 5]),
        three.raw,
        encodeCommand(['SELECT', 0]),
      ]),
    );
    expect(parts).toHaveLength(5);
  });
});

describe('a transaction that is too large for memory', () => {
  it('is the same on disk, and its commands keep their places in the stream', async () => {
    const spool = new Spool('test');
    const limits = { bulkBytes: 1000, commandBytes: 10_000, largeBytes: 40 };
    const reader = new CommandReader(spool, limits);
    const bytes = Buffer.concat(
      Array.from({ length: 30 }, (_, i) => encodeCommand(['SET', `k${i}`, 'v'.repeat((i * 7) % 90)])),
    );
    const commands: StreamCommand[] = [];
    for (let at = 0; at < bytes.length; at += 33)
      commands.push(...reader.push(Buffer.from(bytes.subarray(at, at + 33))));
    expect(new Set(commands.map(({ data }) => data === spool)).size).toBe(2);
    const carried = commands.filter((_, i) => i % 5 !== 2);
    const inMemory = new CommandBytes();
    const made = new CommandBytes();
    const disk = new Spool('test');
    for (const [i, one] of carried.entries()) {
      inMemory.add(one, i < 10 ? 0 : 3);
      made.add(one, i < 10 ? 0 : 3);
      if (i % 4 === 0) made.spill(disk);
      if (i % 4 === 0) expect(made.heldBytes).toBe(0);
    }
    const all = Array.from({ length: carried.length + 1 }, (_, i) => i);
    const picked = [...made.pick(all, new Spool('test'))];
    expect(picked.filter(({ offset }) => offset !== null).map(({ offset }) => offset)).toEqual(
      carried.map(({ endOffset }) => endOffset),
    );
    expect(picked.map(({ db }) => db)).toEqual(
      [...inMemory.pick(all, new Spool('test'))].map(({ db }) => db),
    );
    const bytesOf = (some: CommandBytes): Buffer =>
      Buffer.concat(
        some
          .take()
          .parts.map((part) =>
            part instanceof SpooledBytes ? part.spool.subarray(part.start, part.end) : part,
          ),
      );
    expect(bytesOf(made)).toEqual(bytesOf(inMemory));
    expect([...made.latest()].length).toBeLessThan(4);
    made.release();
    expect(disk.bytes).toBeLessThan(bytes.length);
    await expect(disk.read(disk.end, 1)).rejects.toThrow('is not there');
    disk.close();
    spool.close();
  });

  it('goes to the disk, and with many refused writes keeps only the first of them', () => {
    const judge = new Judge(
      { ...plainLink, keys: [{ pattern: 'user:{userId}' }], conflicts: 'quarantine' },
      new Ownership('a', []),
    );
    const stream = new SourceStream(
      { ...plainLink, conflicts: 'quarantine' },
      new CommandTable(),
      judge,
      new Ownership('a', []),
      new ShortLived(0, Date.now),
      { offset: 0, db: 0 },
      limits,
      new Mends(),
    );
    const reader = new CommandReader();
    const take = (...args: string[]): void => {
      for (const one of reader.push(encodeCommand(args))) stream.take(one);
    };
    take('MULTI');
    for (let i = 0; i < 100; i++) take('APPEND', 'shared', 'x'.repeat(200_000));
    for (let i = 0; i < 300; i++) take('SET', 'user:1', 'y'.repeat(40_000));
    take('EXEC');
    const { block } = stream;
    expect(block.commands.bytes).toBeGreaterThan(20_000_000);
    expect(block.commands.heldBytes).toBeLessThan(9_000_000);
    expect(block.records).toHaveLength(300);
    expect(block.records.filter(({ bytes }) => bytes !== null).length).toBeLessThan(100);
    expect(block.records[0]!.bytes).not.toBeNull();
    stream.close();
  });

  it('of a command of several keys, what is carried is cut out where it lies', () => {
    const mset = command('MSET', 'a', 1, 'user:1', 2, 'c', 3, 'd', 4);
    const made = new CommandBytes();
    made.addArguments('MSET', mset, [1, 2, 5, 6, 7, 8], 0);
    expect(Buffer.concat(made.take().parts as Buffer[]).toString()).toBe(
      encodeCommand(['MSET', 'a', 1, 'c', 3, 'd', 4]).toString(),
    );
  });
});

describe('lag', () => {
  it('is the age of the oldest bytes that are not applied', () => {
    const arrivals = new Arrivals(100);
    arrivals.came(10, 1000);
    arrivals.came(10, 2000);
    expect(arrivals.oldestAt).toBe(1000);
    arrivals.applied(109);
    expect(arrivals.oldestAt).toBe(1000);
    arrivals.applied(110);
    expect(arrivals.oldestAt).toBe(2000);
    arrivals.applied(120);
    expect(arrivals.oldestAt).toBeUndefined();
  });
});

describe('a source goes on', () => {
  const replication = new Map([
    ['master_replid', 'now'],
    ['master_replid2', 'former'],
    ['second_repl_offset', '501'],
    ['master_repl_offset', '1000'],
    ['repl_backlog_active', '1'],
    ['repl_backlog_first_byte_offset', '101'],
    ['repl_backlog_histlen', '900'],
  ]);
  const state = (replid: string, offset: number, onGap: 'stop' | 'resync'): unknown => {
    try {
      requireContinues('redis/c:a>b', 'a', { replid, offset }, replication, onGap);
      return 'goes on';
    } catch (error) {
      return (error as { details: Record<string, unknown> }).details['state'];
    }
  };

  it.each([
    ['now', 1000, 'goes on', 'goes on'],
    ['now', 100, 'goes on', 'goes on'],
    ['now', 99, 'resync-required', 'goes on'],
    ['now', 1001, 'diverged', 'diverged'],
    ['former', 500, 'goes on', 'goes on'],
    ['former', 99, 'resync-required', 'goes on'],
    ['former', 501, 'diverged', 'diverged'],
    ['other', 500, 'resync-required', 'resync-required'],
  ] as const)('behind %s:%i: %s; with onGap: resync: %s', (replid, offset, stop, resync) => {
    expect(state(replid, offset, 'stop')).toBe(stop);
    expect(state(replid, offset, 'resync')).toBe(resync);
  });
});

describe('what empties or exchanges databases', () => {
  it.each([
    [['FLUSHALL'], 5, true, 'lost'],
    [['FLUSHDB'], 5, false, 'kept'],
    [['FLUSHDB'], 1, true, 'kept'],
    [['FLUSHDB'], 0, false, 'lost'],
    [['SWAPDB', 5, 1], 5, true, 'kept'],
    [['SWAPDB', 5, 6], 5, false, 'kept'],
    [['SWAPDB', 5, 0], 5, false, 'lost'],
  ] as const)(
    '%j with database %i selected, of which 1 is carried: recorded %s, ownership %s',
    (args, db, recorded, units) => {
      const config = { ...plainLink, filters: { includeDatabases: [1] } };
      const ownership = new Ownership('a', [['eu/1', 'open:a:1:1']]);
      const stream = streamOf(config, ownership, { offset: 0, db });
      stream.take(command(...args));
      expect(stream.block.records.map(({ reason }) => reason)).toEqual(recorded ? ['whole-database'] : []);
      expect(ownership.isOpen('eu/1')).toBe(units === 'kept');
    },
  );
});

describe('a command that nobody knows the keys of', () => {
  it.each([
    [{}, ['unknown-command'], 0],
    [{ excludeCommands: ['NOBODY.KNOWS'] }, [], 1],
    [{ includeCommands: ['set'] }, [], 1],
  ])('with filters %j: recorded %j, filtered %i', (filters, recorded, filtered) => {
    const stream = streamOf({ ...plainLink, filters });
    stream.take(command('NOBODY.KNOWS', 'x'));
    expect(stream.block.records.map(({ reason }) => reason)).toEqual(recorded);
    expect(stream.counts.filtered).toBe(filtered);
  });
});

describe('filters by command', () => {
  it.each([
    [{ includeCommands: ['SET'] }, ['SET k v']],
    [{ excludeCommands: ['SET', 'FlushAll'] }, ['INCR n', 'PUBLISH c m']],
    [{ includeCommands: ['set', 'incr'], excludeCommands: ['incr'] }, ['SET k v']],
  ])('%j: %j', (filters, sent) => {
    const stream = streamOf({ ...plainLink, filters });
    for (const args of [['SET', 'k', 'v'], ['INCR', 'n'], ['PUBLISH', 'c', 'm'], ['FLUSHALL']])
      stream.take(command(...args));
    expect(sentBy(stream)).toEqual(sent);
    expect(stream.block.records).toEqual([]);
  });
});

describe('a command of two databases, of which 0 and 2 are carried', () => {
  it.each([
    [0, ['MOVE', 'k', 2], ['MOVE k 2'], 0, []],
    [0, ['MOVE', 'k', 1], ['UNLINK k'], 0, []],
    [0, ['COPY', 'k', 'l', 'DB', 2, 'REPLACE'], ['COPY k l DB 2 REPLACE'], 0, []],
    [0, ['COPY', 'k', 'l', 'REPLACE', 'DB', 1], [], 1, []],
    [0, ['COPY', 'db', 'db', 'REPLACE'], ['COPY db db REPLACE'], 0, []],
    [1, ['MOVE', 'k', 2], [], 0, ['split']],
    [1, ['COPY', 'k', 'l', 'DB', 2], [], 0, ['split']],
    [1, ['COPY', 'k', 'l'], [], 1, []],
    [1, ['MOVE', 'k', 3], [], 1, []],
  ] as const)('with %i selected, %j: %j', (db, args, sent, filtered, recorded) => {
    const stream = streamOf({ ...plainLink, filters: { includeDatabases: [0, 2] } }, undefined, {
      offset: 0,
      db,
    });
    stream.take(command(...args));
    expect(sentBy(stream)).toEqual(sent);
    expect(stream.counts.filtered).toBe(filtered);
    expect(stream.block.records.map(({ reason }) => reason)).toEqual(recorded);
  });

  it.each([
    ['MOVE', 'k', 2],
    ['COPY', 'k', 'l', 'DB', 2],
  ])('%s %s %s brings what was left out', (...args) => {
    const stream = streamOf(plainLink);
    const set = ['SET', 'k', 'v', 'PXAT', Date.now() + 2000];
    stream.take(command(...set));
    stream.take(command(...args));
    expect(sentBy(stream)).toEqual(['UNLINK k', set.join(' '), args.join(' ')]);
  });

  it('what was left out in the other database is overwritten, and its time of expiry is that of the copy', () => {
    const stream = streamOf(plainLink);
    stream.take(command('SELECT', 2));
    stream.take(command('SET', 'l', 'old'));
    stream.take(command('SELECT', 0));
    stream.take(command('COPY', 'k', 'l', 'DB', 2, 'REPLACE'));
    stream.take(command('SELECT', 2));
    stream.take(command('PEXPIRE', 'l', 2000));
    stream.take(command('PERSIST', 'l'));
    const at = [
      'SELECT 2',
      'SET l old',
      'SELECT 0',
      'COPY k l DB 2 REPLACE',
      'SELECT 2',
      'PEXPIRE l 2000',
      'PERSIST l',
    ];
    expect(sentBy(stream)).toEqual(at);
  });
});

describe('a transaction of the source', () => {
  it('moves nothing before its end, wherever the stream is split', () => {
    const before = encodeCommand(['SET', 'before', 1]);
    const unit = Buffer.concat([
      ...[
        ['MULTI'],
        ['HSET', 'interlock:units', 'eu/1', 'open:a:2:1'],
        ['SELECT', 4],
        ['INCR', 'n'],
        ['EXEC'],
      ].map(encodeCommand),
    ]);
    for (let split = 1; split < unit.length; split++) {
      const ownership = new Ownership('a', []);
      const stream = streamOf(plainLink, ownership, { offset: 1000, db: 0 });
      const chunks = [Buffer.concat([before, unit.subarray(0, split)]), unit.subarray(split)];
      const sent: { offset: number; db: number; count: number; units: number }[] = [];
      const never = new Promise<never>(() => undefined);
      const applier = {
        isReady: true,
        ready: () => never,
        apply: ({ endOffset, db, commands, units }: SourceStream['block']) => {
          sent.push({ offset: endOffset, db, count: commands.count, units: units.size });
          return { sent: never, done: never };
        },
      } as unknown as Applier;
      const waiting: Buffer[] = [];
      const replica = {
        shift: () => waiting.shift(),
        failure: undefined,
        intake: { isEmpty: true, mustLoad: false },
      } as unknown as Replica;
      const checkpoint = firstCheckpoint(0, { offset: 1000, replid: 'r' });
      const events = {
        onApplied: () => undefined,
        onError: (error: unknown) => void sent.push(error as never),
      };
      const loop = (): ApplyLoop =>
        new ApplyLoop(replica, stream, applier, null, checkpoint, 'r', events, () => undefined);
      const first = loop();
      waiting.push(chunks[0]!);
      first.pump();
      for (const { offset, db, units } of sent) {
        expect([1000 + before.length, 1000 + before.length + unit.length]).toContain(offset);
        if (offset === 1000 + before.length) expect({ db, units }).toEqual({ db: 0, units: 0 });
      }
      expect(stream.block.endOffset === 1000 + before.length || stream.isWhole).toBe(true);
      first.end();
    }
  });
});

describe('a key that lives too short, and is needed by a command of several keys', () => {
  const short = ['SET', 's', 'v', 'PXAT', Date.now() + 1_000].map(String);
  it.each([
    [['RENAME', 's', 'd']],
    [['LMOVE', 's', 'd', 'LEFT', 'LEFT']],
    [['SUNIONSTORE', 'd', 'other', 's']],
    [['BITOP', 'AND', 'd', 's', 'other']],
    [['ZUNIONSTORE', 'd', '2', 's', 'other']],
    [['SORT', 's', 'STORE', 'd']],
    [['MSETNX', 'd', '1', 's', '2']],
    [['COPY', 's', 'd']],
  ])('is carried in front of it: %j', (needs) => {
    const stream = streamOf(plainLink);
    for (const one of [short, needs]) stream.take(command(...one));
    expect(sentBy(stream)).toEqual(['UNLINK s', short.join(' '), needs.join(' ')]);
  });

  it('is carried in front of the part of it that is carried', () => {
    const stream = streamOf({ ...plainLink, filters: { excludeKeys: ['not'] } });
    for (const one of [short, ['MSET', 's', '1', 'not', '2']]) stream.take(command(...one));
    expect(sentBy(stream)).toEqual(['UNLINK s', short.join(' '), 'MSET s 1']);
  });
});

describe('keys that live too short, in an attempt behind another', () => {
  let now = 0;
  const begin = (offset: number, appliedTo?: number): SourceStream => {
    const ownership = new Ownership('a', []);
    return new SourceStream(
      ...([plainLink, new CommandTable(), new Judge(plainLink, ownership), ownership] as const),
      new ShortLived(3000, () => now),
      { offset, db: 0 },
      limits,
      new Mends(),
      ...(appliedTo === undefined ? [] : [{ appliedTo, answersFrom: Infinity, heldMarker: null }]),
    );
  };
  const text = (block: SourceStream['block']): string[] =>
    new CommandReader()
      .push(Buffer.concat(block.commands.take().parts as Buffer[]))
      .map((one) => one.args.map(String).join(' '));

  it('are read again into memory; nothing that was applied is applied again', () => {
    const before = [
      ['SET', 'prolonged', 1],
      // Long enough then, too short when it is read again.
      ['SET', 'edge', 1, 'PXAT', 4_000],
      ['INCR', 'n'],
      ['PEXPIREAT', 'prolonged', 2_500],
      ['APPEND', 'edge', 'x'],
    ];
    const raw = (commands: (string | number)[][]): Buffer => Buffer.concat(commands.map(encodeCommand));
    now = 0;
    const first = begin(1000);
    for (const one of new CommandReader().push(raw(before))) first.take(one);
    const block = first.takeBlock();
    expect(text(block)).toEqual(['SET edge 1 PXAT 4000', 'INCR n', 'UNLINK prolonged', 'APPEND edge x']);
    expect(block.rereadFrom).toEqual({ offset: 1000, db: 0 });
    const appliedTo = 1000 + raw(before).length;
    expect(block.endOffset).toBe(appliedTo);

    now = 2_000;
    const second = begin(1000, appliedTo);
    const again = new CommandReader();
    for (const one of again.push(raw(before))) {
      expect(second.isRereading).toBe(true);
      second.take(one);
    }
    expect(second.isRereading).toBe(false);
    expect(second.counts.commands).toBe(0);
    expect(second.block).toMatchObject({ endOffset: appliedTo, rows: 0 });
    const resumed = second.takeBlock();
    expect(text(resumed).sort()).toEqual(['UNLINK edge', 'UNLINK prolonged']);
    expect(resumed.rereadFrom).toEqual({ offset: 1000, db: 0 });
    const after = [
      ['PERSIST', 'prolonged'],
      ['PERSIST', 'edge'],
    ];
    for (const one of again.push(raw(after))) second.take(one);
    const last = second.takeBlock();
    expect(text(last)).toEqual([
      ...['SET prolonged 1', 'PEXPIREAT prolonged 2500', 'PERSIST prolonged'],
      ...['SET edge 1 PXAT 4000', 'APPEND edge x', 'PERSIST edge'],
    ]);
    expect(last.rereadFrom).toBeNull();
  });

  const foreign = (...commands: (string | number)[][]): (string | number)[][] => [
    ...[['MULTI'], ['SET', 'interlock:link:redis/c:b>a', '{}'], ...commands, ['EXEC']],
  ];
  const bytesOf = (commands: (string | number)[][]): Buffer => Buffer.concat(commands.map(encodeCommand));

  it('are forgotten when the other side has written them: nothing older comes back over that', () => {
    now = 0;
    const stream = begin(1000);
    const take = (...commands: (string | number)[][]): void => {
      for (const one of new CommandReader().push(bytesOf(commands))) stream.take(one);
    };
    take(
      ...['counter', 'moved', 'listed'].map((key) => ['SET', key, 5, 'PXAT', 2_000]),
      ...foreign(['SET', 'counter', 100], ['RENAME', 'other', 'moved'], ['DEL', 'x', 'listed']),
      ['INCR', 'counter'],
      ['PEXPIREAT', 'counter', 1_000_000],
      ['INCR', 'moved'],
      ['APPEND', 'listed', 'y'],
    );
    expect(text(stream.block)).toEqual([
      ...['UNLINK counter', 'UNLINK moved', 'UNLINK listed'],
      ...['INCR counter', 'PEXPIREAT counter 1000000', 'INCR moved', 'APPEND listed y'],
    ]);
    expect(stream.block.rereadFrom).toBeNull();
  });

  it('are forgotten so while the stream is read again', () => {
    now = 0;
    const before = [['SET', 'counter', 5, 'PXAT', 2_000], ...foreign(['SET', 'counter', 100])];
    const stream = begin(1000, 1000 + bytesOf(before).length);
    for (const one of new CommandReader().push(bytesOf([...before, ['INCR', 'counter']]))) stream.take(one);
    expect(text(stream.block)).toEqual(['INCR counter']);
  });

  it('are not put together from commands with what the other side wrote between', () => {
    now = 0;
    const stream = begin(1000);
    const commands = [
      ['SET', 'k', 5],
      ...foreign(['SET', 'k', 100]),
      ['PEXPIREAT', 'k', 2_000],
      ['PERSIST', 'k'],
    ];
    for (const one of new CommandReader().push(bytesOf(commands))) stream.take(one);
    expect(text(stream.block)).toEqual(['SET k 5', 'PEXPIREAT k 2000', 'PERSIST k']);
  });
});

describe('the replica', () => {
  const mark = 'f'.repeat(20) + '0'.repeat(20);
  const rdb = Buffer.from(`REDIS0010${'f'.repeat(30)}data${'f'.repeat(19)}`);
  const rest = encodeCommand(['SET', 'k', 'v']);
  let pieceBytes = 1;
  let form: Buffer;
  const server = createServer((socket: Socket) => {
    socket.setNoDelay(true);
    socket.on('error', () => undefined);
    socket.on('data', (data: Buffer) => {
      const asked = data.toString('latin1');
      if (asked.includes('capa')) socket.write('+OK\r\n');
      else if (asked.includes('PSYNC'))
        void (async () => {
          const head = Buffer.from(`\n+FULLRESYNC ${'a'.repeat(40)} 100\r\n\n\n`);
          const all = Buffer.concat([head, form, rest]);
          for (let at = 0; at < all.length; at += pieceBytes) {
            socket.write(all.subarray(at, at + pieceBytes));
            await new Promise((resolve) => setImmediate(resolve));
          }
        })();
    });
  });
  beforeAll(async () => new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve)));
  afterAll(() => void server.close());

  it.each([
    ['by its mark', Buffer.concat([Buffer.from(`$EOF:${mark}\r\n`), rdb, Buffer.from(mark)])],
    ['by its length', Buffer.concat([Buffer.from(`$${rdb.length}\r\n`), rdb])],
  ])('knows the end of the data %s, however it is split', async (_name, bytes) => {
    form = bytes;
    for (const size of [1, 2, 3, 7, 19, 39, 40, 41, 64, 1000]) {
      pieceBytes = size;
      const { port } = server.address() as AddressInfo;
      const replica = await Replica.open({ host: '127.0.0.1', port }, 1e9);
      try {
        expect(await replica.psync(null)).toEqual({ kind: 'full', replid: 'a'.repeat(40), offset: 100 });
        let wake: (() => void) | undefined;
        replica.onData = () => wake?.();
        const wait = async (): Promise<void> => new Promise<void>((resolve) => (wake = resolve));
        const found: Buffer[] = [];
        for await (const chunk of replica.rdb(await replica.rdbForm(), wait)) found.push(chunk);
        expect(Buffer.concat(found)).toEqual(rdb);
        const stream: Buffer[] = [];
        while (Buffer.concat(stream).length < rest.length) {
          const chunk = replica.shift();
          if (chunk === undefined) await wait();
          else stream.push(chunk);
        }
        expect(Buffer.concat(stream)).toEqual(rest);
      } finally {
        replica.close();
      }
    }
  });
});
