import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Arrivals } from '../../replicators/redis/arrivals.js';
import { CommandBytes } from '../../replicators/redis/block.js';
import { CommandTable } from '../../replicators/redis/commands.js';
import { encodeCommand } from '../../replicators/redis/connection.js';
import { CommandFilter } from '../../replicators/redis/filter.js';
import { Intake } from '../../replicators/redis/intake.js';
import { KeySet } from '../../replicators/redis/key-set.js';
import { KeyUnitReader } from '../../replicators/redis/key-units.js';
import { CommandReader } from '../../replicators/redis/resp/command-reader.js';
import type { StreamCommand } from '../../replicators/redis/resp/command-reader.js';
import { requireContinues } from '../../replicators/redis/source-info.js';
import { bucketOf } from '../../src/routing/units.js';

const command = (...args: (string | number)[]): StreamCommand =>
  new CommandReader().push(encodeCommand(args))[0]!;

describe('what waits for the target', () => {
  it('comes out as it went in, whatever lies on disk', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.oneof(fc.integer({ min: 1, max: 3000 }), fc.constant('shift'), fc.constant('load'))),
        async (steps) => {
          const intake = new Intake(1e9, 4000);
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
            else intake.push(Buffer.from(Array.from({ length: step as number }, () => written++ % 251)));
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
      { numRuns: 60 },
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
      ['GEORADIUS', 'g', 1, 2, 3, 'km', 'STOREDIST', 'd'],
      ['g', 'd'],
    ],
    [['PUBLISH', 'c', 'm'], []],
  ])('%j', (args, keys) => expect(keysOf(...args)).toEqual(keys));

  it('those of modules are learnt from the source', () => {
    const learnt = new CommandTable([[Buffer.from('JSON.SET'), -4, ['write', 'denyoom'], 1, 1, 1, []]]);
    expect(learnt.of('json.set')).toMatchObject({ kind: 'write', onlyKey: 1 });
    expect(table.of('json.set').kind).toBe('unknown');
  });
});

describe('a key', () => {
  it('has the unit of the first pattern that fits', () => {
    const reader = new KeyUnitReader(
      [
        { pattern: 'user:{id}:*' },
        { pattern: '{region}/cart/{{id}}' },
        { pattern: 'stock:*', central: 'stock' },
        { pattern: 'u.{id}' },
      ],
      { defaultRegion: 'eu', regions: ['eu', 'us'], segments: { vip: ['7'] } },
    );
    expect(reader.unitOf('user:42:name')).toBe(`eu/${bucketOf('42')}`);
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
    for (let i = 0; i < 200_000; i++) keys.add(i % 2, Buffer.from(`key:${i}`));
    expect(keys.size).toBe(200_000);
    for (let i = 0; i < 200_000; i += 7) {
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
    expect(made.at(2)).toMatchObject({ offset: null, db: 0 });
    expect(made.at(3)).toMatchObject({ offset: three.endOffset, db: 5 });
    const { parts, count } = made.take();
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
  const state = (replid: string, offset: number): unknown => {
    try {
      requireContinues('redis/c:a>b', 'a', { replid, offset }, replication);
      return 'continues';
    } catch (error) {
      return (error as { details: Record<string, unknown> }).details['state'];
    }
  };

  it.each([
    ['now', 1000, 'continues'],
    ['now', 100, 'continues'],
    ['now', 99, 'resync-required'],
    ['now', 1001, 'diverged'],
    ['former', 500, 'continues'],
    ['former', 501, 'diverged'],
    ['other', 500, 'resync-required'],
  ])('behind %s:%i: %s', (replid, offset, expected) => expect(state(replid, offset)).toBe(expected));
});
