import { describe, expect, it } from 'vitest';
import { CommandBytes } from '../../replicators/redis/block.js';
import { CommandTable } from '../../replicators/redis/commands.js';
import { encodeCommand } from '../../replicators/redis/connection.js';
import type { RedisConnection } from '../../replicators/redis/connection.js';
import { Judge } from '../../replicators/redis/judge.js';
import { REDIS_LINK_DEFAULTS } from '../../replicators/redis/link-config.js';
import { Mending } from '../../replicators/redis/mending.js';
import type { RedisLinkConfig } from '../../replicators/redis/link-config.js';
import { Mends } from '../../replicators/redis/mends.js';
import { Ownership } from '../../replicators/redis/ownership.js';
import { Crc64 } from '../../replicators/redis/rdb/crc64.js';
import { CommandReader } from '../../replicators/redis/resp/command-reader.js';
import type { StreamCommand } from '../../replicators/redis/resp/command-reader.js';
import { ShortLived } from '../../replicators/redis/short-lived.js';
import { SourceStream } from '../../replicators/redis/source-stream.js';
import { bucketOf } from '../../src/routing/units.js';
import { listpack, string } from '../support/rdb-fixture.js';

const UNIT = `eu/${bucketOf('1')}`;
const KEY = Buffer.from('user:1:k');
const config = {
  ...REDIS_LINK_DEFAULTS,
  keys: [{ pattern: 'user:{userId}:*' }, { pattern: 'shared', unrouted: true as const }],
  ...{ link: 'redis/c:a>b', from: 'a', to: 'b' },
  source: { host: '', port: 1 },
  target: { host: '', port: 1 },
  mapping: { defaultRegion: 'eu', regions: ['eu'], segments: {} },
};

/** What DUMP of Redis 7.0 answers for a string. */
function dumped(text: string, version = 10): Buffer {
  const value = Buffer.from([0, text.length, ...Buffer.from(text), version, 0]);
  const crc = Buffer.alloc(8);
  new Crc64().reset().update(value).writeTo(crc, 0);
  return Buffer.concat([value, crc]);
}

function begin(
  heldMarker: { id: string; workflowId: string; runId: string } | null = null,
  overrides: Partial<RedisLinkConfig> = {},
  appliedTo = 0,
) {
  const ownership = new Ownership('a', [[UNIT, 'open:a:1:1']]);
  const mends = new Mends();
  const stream = new SourceStream(
    ...([{ ...config, ...overrides }, new CommandTable(), new Judge(config, ownership), ownership] as const),
    new ShortLived(3000, Date.now),
    { offset: 0, db: 0 },
    { databases: 16, rdbVersion: 10, argumentBytes: 1 << 29, transactionBytes: 1 << 30 },
    mends,
    { appliedTo, answersFrom: Infinity, heldMarker },
  );
  const reader = new CommandReader();
  const take = (...commands: (string | number)[][]): void => {
    for (const one of reader.push(Buffer.concat(commands.map(encodeCommand)))) stream.take(one);
  };
  /** Sends the block, and it is applied. */
  const applied = (): SourceStream['block'] => {
    const block = stream.takeBlock();
    stream.answered(block.endOffset);
    return block;
  };
  return { stream, mends, take, applied };
}

const marker = (id: string): (string | number)[] => [
  ...['SET', 'interlock:marker', JSON.stringify({ id, workflowId: 'w', runId: 'r', epoch: 1 })],
];
const mark = (asked: object): (string | number)[] => ['SET', 'interlock:passage', JSON.stringify(asked)];
const ids = (block: SourceStream['block']): string[] => block.markers.map(({ id }) => id);

function text(block: SourceStream['block']): string[] {
  return new CommandReader()
    .push(Buffer.concat(block.commands.take().parts as Buffer[]))
    .map((one) => one.args.map(String).join(' '));
}

describe('a marker', () => {
  it('is told where it is met when nothing may be wrong before it', () => {
    const { take, applied } = begin();
    take(['SET', 'shared', 1], marker('m'));
    const block = applied();
    expect(ids(block)).toEqual(['m']);
    expect(block.heldMarker).toBeNull();
  });

  it('waits for the answers to what stands before it, in its block or one before', () => {
    for (const isOwnBlock of [true, false]) {
      const { stream, take } = begin();
      take(['PEXPIREAT', 'shared', 9e12]);
      const first = isOwnBlock ? undefined : stream.takeBlock();
      take(marker('m'));
      const block = stream.takeBlock();
      expect(ids(block)).toEqual([]);
      expect(block.heldMarker?.id).toBe('m');
      expect(block.answersFrom).toEqual({ offset: 0, db: 0 });
      if (first !== undefined) stream.answered(first.endOffset);
      expect(ids(stream.block)).toEqual([]);
      stream.answered(block.endOffset);
      const last = stream.takeBlock();
      expect(ids(last)).toEqual(['m']);
      expect(last).toMatchObject({ heldMarker: null, answersFrom: null });
    }
  });

  it('waits until keys that are wrong before it are written, not for those behind', () => {
    const { stream, mends, take, applied } = begin();
    mends.add(Buffer.from('shared'), 0, 0);
    take(marker('m'));
    expect(ids(applied())).toEqual([]);
    const asked = mends.ask(mends.next(10));
    mends.add(Buffer.from('later'), 0, stream.block.endOffset);
    mends.answer([{ db: 0, key: Buffer.from('shared'), payload: dumped('v'), expireAtMs: null }]);
    take(mark(asked));
    const block = applied();
    expect(text(block)).toEqual(['SET shared v']);
    expect(block.mendsDone.map(String)).toEqual(['0:shared']);
    expect(mends.size).toBe(1);
    expect(ids(applied())).toEqual(['m']);
  });

  it('that an attempt before has not told is told when its keys are mended', () => {
    const { stream, mends } = begin({ id: 'm', workflowId: 'w', runId: 'r' });
    mends.load([Buffer.from('0:shared')]);
    stream.answered(0);
    expect(ids(stream.block)).toEqual([]);
    stream.block.mendsDone.push(mends.drop({ db: 0, key: Buffer.from('shared') }));
    stream.answered(0);
    expect(ids(stream.block)).toEqual(['m']);
  });
});

describe('a value that was asked for', () => {
  const ask = (link: ReturnType<typeof begin>, key = KEY): (string | number)[] => {
    link.mends.add(key, 0, 0);
    return mark(link.mends.ask(link.mends.next(10)));
  };
  const value = (key = KEY) => ({ db: 0, key, payload: dumped('v'), expireAtMs: null });

  it('is written where its mark is met, before anything behind it, whenever it comes', () => {
    const link = begin();
    const { stream, mends, take } = link;
    take(['APPEND', 'user:1:k', 'x'], ask(link));
    expect(stream.isCut).toBe(true);
    mends.answer([value()]);
    stream.mend();
    expect(stream.isCut).toBe(false);
    take(['APPEND', 'user:1:k', 'y']);
    expect(text(stream.block)).toEqual(['APPEND user:1:k x', 'SET user:1:k v', 'APPEND user:1:k y']);
  });

  it('is removed when the source has none, behind a transaction that has the mark', () => {
    const link = begin();
    const { stream, mends, take } = link;
    const question = ask(link);
    mends.answer([{ ...value(), payload: null, expireAtMs: null }]);
    take(['MULTI'], ['DEL', 'user:1:k'], question);
    expect(stream.isCut).toBe(false);
    take(['EXEC']);
    expect(text(stream.block)).toEqual(['DEL user:1:k', 'UNLINK user:1:k']);
  });

  it.each([
    ['is open', 'open:a:1:1', false, true],
    ['is fenced, and its marker told', 'write_disabled:a:2:1', false, false],
    ['is fenced, and its marker waits', 'write_disabled:a:2:1', true, true],
    ['is the other side’s', 'remote:b:3:1', false, false],
    ['is the other side’s, and a marker waits', 'remote:b:3:1', true, false],
  ])('of a unit that %s', (_name, state, waits, written) => {
    const link = begin();
    const { stream, mends, take } = link;
    const question = ask(link);
    take(['HSET', 'interlock:units', UNIT, state], ...(waits ? [marker('m')] : []));
    mends.answer([value()]);
    take(question);
    expect(text(stream.block)).toEqual(written ? ['SET user:1:k v'] : []);
    expect(stream.block.mendsDone.map(String)).toEqual(['0:user:1:k']);
  });

  const answered = (rdbType: number, body: Buffer): SourceStream => {
    const link = begin();
    const question = ask(link);
    const payload = Buffer.concat([Buffer.from([rdbType]), body, dumped('v', 12).subarray(-10)]);
    link.mends.answer([{ ...value(), payload, expireAtMs: 5 }]);
    link.take(question);
    return link.stream;
  };

  it('of a format that the target does not know comes as commands', () => {
    const { block } = answered(20, string(listpack('a', 7)));
    expect(text(block)).toEqual(['UNLINK user:1:k', 'SADD user:1:k a 7', 'PEXPIREAT user:1:k 5']);
    expect(block.unmended).toEqual([]);
  });

  it.each([
    ['that commands do not make, either', 25, string('')],
    ['that nobody knows', 99, string('')],
    ['that is broken', 20, string('v')],
  ])('of a format %s is named', (_, rdbType, body) => {
    const { block } = answered(rdbType, body);
    expect(text(block)).toEqual([]);
    expect(block.unmended).toEqual([
      expect.objectContaining({ reason: 'unmended', key: 'user:1:k', unit: UNIT }),
    ]);
  });

  it('is asked for again when the source could not give it', () => {
    const link = begin();
    const { stream, mends, take } = link;
    take(ask(link));
    stream.askAgain();
    expect(stream.isCut).toBe(false);
    expect(mends.next(10)).toEqual([expect.objectContaining({ key: KEY, db: 0 })]);
    expect(stream.block.mendsDone).toEqual([]);
  });
});

describe('SORT with a pattern', () => {
  const sort = (to: string): string[] => ['SORT', 'list', 'BY', 'w_*', 'STORE', to];

  it('is not carried, nor what needs its result, until the value has come', () => {
    const { mends, take, applied } = begin();
    take(marker('before'), sort('shared'), ['LPOP', 'shared'], ['RENAME', 'shared', 'user:1:k'], marker('m'));
    take(['DEL', 'shared'], ['MSET', 'user:1:k', 'v', 'other', 'w'], ['INCR', 'other']);
    const block = applied();
    expect(text(block)).toEqual(['DEL shared', 'MSET user:1:k v other w', 'INCR other']);
    expect(ids(block)).toEqual(['before']);
    expect(block.heldMarker?.id).toBe('m');
    expect(block.mendsDue.map(String)).toEqual(['0:shared', '0:user:1:k']);
    const asked = mends.ask(mends.next(10));
    take(['INCR', 'user:1:k']);
    mends.answer([
      { db: 0, key: Buffer.from('shared'), payload: null, expireAtMs: null },
      { db: 0, key: KEY, payload: dumped('v'), expireAtMs: null },
    ]);
    take(mark(asked), ['INCR', 'user:1:k']);
    const mended = applied();
    expect(text(mended)).toEqual(['UNLINK shared', 'SET user:1:k v', 'INCR user:1:k']);
    expect(ids(applied())).toEqual(['m']);
  });

  it('that reads no others is carried', () => {
    const { mends, take, applied } = begin();
    const plain = [
      'SORT list BY nosort STORE shared',
      'SORT list LIMIT 0 5 GET # STORE shared',
      'SORT w_* DESC STORE get*',
    ];
    for (const one of plain) take(one.split(' '));
    expect(text(applied())).toEqual(plain);
    expect(mends.size).toBe(0);
  });

  it('is a conflict when what it stores is not the source’s, whatever it reads', () => {
    const { mends, take, applied } = begin();
    const units = ['HSET', 'interlock:units', UNIT, 'remote:b:3:1'];
    take(units, sort('user:1:k'), ['SORT', 'user:1:k', 'BY', 'w_*', 'STORE', 'shared']);
    const block = applied();
    expect(text(block)).toEqual([]);
    expect(block.log).toEqual([expect.objectContaining({ reason: 'not-owned', key: 'user:1:k' })]);
    expect(mends.next(10).map(({ key }) => String(key))).toEqual(['shared']);
  });

  it('is put aside when too many keys wait, and when a policy would carry it', () => {
    const full = begin();
    for (let i = 0; i < 100_000; i++) full.mends.add(Buffer.from(`k${i}`), 0, 0);
    full.take(sort('shared'));
    expect(full.stream.block.records).toEqual([expect.objectContaining({ reason: 'split', key: 'shared' })]);
    const wins = begin(null, { conflicts: 'source-wins' });
    wins.take(['HSET', 'interlock:units', UNIT, 'remote:b:3:1'], sort('user:1:k'));
    expect(wins.stream.block.records).toEqual([expect.objectContaining({ reason: 'split' })]);
  });

  it('over what the link has left out as it lives too short is what the source has', () => {
    const { mends, take, applied } = begin();
    take(['SET', 'shared', 'old', 'PXAT', Date.now() + 1000], sort('shared'));
    const asked = mends.ask(mends.next(10));
    mends.answer([{ db: 0, key: Buffer.from('shared'), payload: dumped('v'), expireAtMs: null }]);
    take(mark(asked), ['APPEND', 'shared', 'x']);
    expect(text(applied())).toEqual(['UNLINK shared', 'SET shared v', 'APPEND shared x']);
  });

  it('of an attempt before is not asked for twice, and its key waits', () => {
    const { stream, mends, take } = begin(null, {}, 1_000);
    mends.load([Buffer.from('0:shared')]);
    take(sort('other'), ['RENAME', 'other', 'more'], ['SET', 'pad', 'x'.repeat(2_000)]);
    expect(mends.next(10).map(({ key }) => String(key))).toEqual(['shared']);
    take(['LPOP', 'shared']);
    expect(text(stream.block)).toEqual([]);
  });
});

describe('the keys that wait', () => {
  it('hold a marker by the oldest of them, in whatever order they are found', () => {
    const mends = new Mends();
    mends.leaveOut(Buffer.from('read'), 0, 500);
    mends.add(Buffer.from('applied'), 0, 100);
    expect(mends.oldest).toBe(100);
    mends.ask(mends.next(1));
    expect(mends.oldest).toBe(100);
  });

  it('are bounded; the first that is too many is told', () => {
    const mends = new Mends();
    const told = Array.from({ length: 100_002 }, (_, i) => mends.add(Buffer.from(`k${i}`), 0, i));
    expect(told.filter((kept) => !kept)).toHaveLength(1);
    expect(mends.size).toBe(100_000);
    expect(mends.add(Buffer.from('k7'), 0, 1e9)).toBe(true);
    expect(mends.oldest).toBe(0);
  });
});

describe('commands that make keys live longer', () => {
  it('keep their numbers when others are taken out, and behind other databases', () => {
    const command = (...args: string[]): StreamCommand => new CommandReader().push(encodeCommand(args))[0]!;
    const all = new CommandBytes();
    const key = Buffer.from('k');
    const short = command('SET', 'short', '1');
    all.add(short, 0);
    all.add(command('PERSIST', 'k'), 0);
    all.prolongs(key, 0);
    const unit = new CommandBytes();
    unit.add(command('PERSIST', 'k'), 4);
    unit.prolongs(key, 4);
    all.remove(short);
    all.add(command('PERSIST', 'k'), 2);
    all.prolongs(key, 2);
    all.merge(unit);
    // PERSIST, SELECT 2, PERSIST, SELECT 0, SELECT 4, PERSIST
    expect(all.prolonged.map(({ db, at }) => [db, at])).toEqual([
      [0, 0],
      [2, 2],
      [4, 5],
    ]);
  });
});

it('a value that is too large to be taken again is named, with what mends it', async () => {
  const { stream, mends } = begin();
  const source = { askAll: async () => Promise.resolve([65 * 1024 * 1024]) };
  await new Promise<void>((resolve, reject) => {
    const judge = new Judge(config, new Ownership('a', []));
    const parts = { judge, mends, stream, source: source as unknown as RedisConnection };
    mends.add(KEY, 0, 0);
    new Mending({ ...parts, pump: resolve, onError: reject }).ask();
  });
  expect(mends.size).toBe(0);
  // A repair takes no more than 64 MB, either.
  expect(stream.block.unmended).toEqual([
    expect.objectContaining({
      key: 'user:1:k',
      detail: expect.stringMatching(/takes 68157440 bytes.*replicate resync/) as string,
    }),
  ]);
  expect(stream.block.unmended[0]!.detail).not.toContain('--repair');
});
