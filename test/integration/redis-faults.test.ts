import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { Applier } from '../../replicators/redis/applier.js';
import { Block } from '../../replicators/redis/block.js';
import { takeGeneration } from '../../replicators/redis/checkpoint.js';
import { RedisConnection, encodeCommand } from '../../replicators/redis/connection.js';
import { initialiseRedisLink } from '../../replicators/redis/initialise.js';
import type { RedisLinkConfig } from '../../replicators/redis/link-config.js';
import { bucketOf } from '../../src/routing/units.js';
import { startProgram } from '../support/programs.js';
import type { Program } from '../support/programs.js';
import {
  passMarker,
  redisDifferences,
  redisLinkConfig,
  redisSide,
  runRedisLink,
  startRedisPair,
  until,
} from '../support/redis-link.js';
import type { RedisPair, RedisSide, RunningRedisLink } from '../support/redis-link.js';
import { startRedis } from '../support/redis.js';
import { relay } from '../support/relay.js';

/** What a server promises to have on its disk when it answers. */
const DURABLE = { appendonly: 'yes', appendfsync: 'always' };
const QUICK = { 'repl-diskless-sync-delay': '0', 'repl-backlog-size': '64mb' };

let directory: string;
let pair: RedisPair;
const programs: Program[] = [];
const running: RunningRedisLink[] = [];

beforeAll(async () => {
  directory = await mkdtemp(path.join(tmpdir(), 'interlock-redis-faults-'));
  pair = await startRedisPair({ ...QUICK, ...DURABLE });
});
afterEach(async () => {
  await Promise.all(programs.splice(0).map((program) => program.kill('SIGKILL')));
  await Promise.all(running.splice(0).map((link) => link.stop()));
});
afterAll(async () => {
  await pair?.stop();
  await rm(directory, { recursive: true, force: true });
});

async function fresh(overrides: Partial<RedisLinkConfig> = {}): Promise<RedisLinkConfig> {
  await Promise.all([pair.a.run('FLUSHALL'), pair.b.run('FLUSHALL')]);
  const config = redisLinkConfig(pair, 'a', overrides);
  await initialiseRedisLink(config, { from: 'now' });
  return config;
}

/** Commands that show when they were applied twice, or not, alone and in transactions. */
async function write({ client }: RedisSide, times: number): Promise<void> {
  for (let i = 0; i < times; i++)
    await client.askAll([
      ['INCR', 'n'],
      ['RPUSH', 'list', i],
      ['APPEND', 'text', 'x'],
      ['XADD', 'stream', '*', 'f', i],
      ['MULTI'],
      ['INCRBY', 'm:1', 3],
      ['ZINCRBY', 'm:2', 3, 'a'],
      ['EXEC'],
      ['SADD', 'set', i, i + 1, i + 2],
      ['SPOP', 'set'],
      ['HINCRBYFLOAT', 'hash', 'f', '0.5'],
    ]);
}

async function linkProcess(config: RedisLinkConfig, stopAt?: string): Promise<Program> {
  const file = path.join(directory, `${config.link.replace(/\W/g, '_')}-${config.source.port}.json`);
  await writeFile(file, JSON.stringify(config));
  const program = startProgram(
    'test/support/link-process.js',
    [file],
    stopAt === undefined ? {} : { INTERLOCK_LINK_STOP_AT: stopAt },
  );
  programs.push(program);
  return program;
}

const POINTS = [
  'before-read',
  'after-read',
  'before-target-write',
  'before-target-commit',
  'after-target-commit',
  'before-acknowledge',
  'after-acknowledge',
];

describe('a link survives', () => {
  it.each(POINTS)('kill -9 of its process at %s', async (point) => {
    const config = await fresh();
    await write(pair.a, 20);
    await pair.a.run('SET', 'interlock:marker', JSON.stringify({ id: point, workflowId: 'w', runId: 'r' }));
    const first = await linkProcess(config, `${point}:1`);
    await first.prints(`stopped at ${point}`);
    await write(pair.a, 20);
    await first.kill('SIGKILL');
    const second = await linkProcess(config);
    // Said again, when nobody can know whether it was heard.
    await second.prints(`marker ${point}`);
    await write(pair.a, 20);
    await passMarker(pair.a, pair.b, config.link);
    expect(await redisDifferences(pair.a, pair.b)).toEqual([]);
    expect(await pair.b.text('GET', 'n')).toBe('60');
  });

  it.each(['go-on', 'stop'] as const)(
    'kill -9 of its process before it has read what the target refused: %s',
    async (onQuarantine) => {
      const config = await fresh({ onQuarantine });
      await pair.b.run('SET', 'wrong', 'a string');
      await pair.a.client.askAll([...[['MULTI'], ['SET', 'x', 1], ['LPUSH', 'wrong', 'v'], ['EXEC']]]);
      const first = await linkProcess(config, 'after-target-commit:1');
      await first.prints('stopped at after-target-commit');
      await first.kill('SIGKILL');
      const kept = async (): Promise<Record<string, unknown>[]> =>
        ((await pair.b.run('HVALS', `interlock:quarantine:${config.link}`)) as Buffer[]).map(
          (one) => JSON.parse(one.toString()) as Record<string, unknown>,
        );
      expect(await kept()).toMatchObject([{ reason: 'unread' }]);
      await pair.a.run('SET', 'behind', 1);
      if (onQuarantine === 'stop') {
        const second = await linkProcess(config);
        await second.prints('ended LinkStopped final');
        expect(await pair.b.run('EXISTS', 'behind')).toBe(0);
      }
      const last = runRedisLink(config);
      running.push(last);
      await passMarker(pair.a, pair.b, config.link);
      await until('told', () => last.markers.length > 0);
      expect(last.markers.at(-1)).toMatchObject({ quarantined: 1 });
      expect(await kept()).toHaveLength(1);
      expect(await pair.b.run('EXISTS', 'x', 'behind')).toBe(2);
    },
  );

  it('kill -9 of its process while it leaves out keys that are then made to live longer', async () => {
    const config = await fresh({ minTtlMs: 60_000 });
    const first = await linkProcess(config);
    await first.prints('state streaming');
    await pair.a.client.askAll([
      ['SET', 'kept', 'v', 'EX', 50],
      ['APPEND', 'kept', 'x'],
      ...[['MULTI'], ['SET', 'prolonged', 'v'], ['EXPIRE', 'prolonged', 50], ['INCR', 'n'], ['EXEC']],
      ['SET', 'ends', 'v', 'EX', 50],
      ['INCR', 'n'],
    ]);
    await passMarker(pair.a, pair.b, config.link);
    expect(await pair.b.run('EXISTS', 'kept', 'prolonged', 'ends')).toBe(0);
    await first.kill('SIGKILL');
    // What the second has read again, the third has to find again.
    const second = await linkProcess(config);
    await second.prints('state streaming');
    await pair.a.run('INCR', 'n');
    await passMarker(pair.a, pair.b, config.link);
    await second.kill('SIGKILL');
    await pair.a.run('PERSIST', 'kept');
    await linkProcess(config);
    await pair.a.client.askAll([
      ['EXPIRE', 'prolonged', 1000],
      ['DEL', 'ends'],
    ]);
    await passMarker(pair.a, pair.b, config.link);
    expect(await pair.b.text('GET', 'kept')).toBe('vx');
    expect(await pair.b.text('GET', 'n')).toBe('3');
    expect(await redisDifferences(pair.a, pair.b)).toEqual([]);
  });

  it('kill -9 of the target while a block is on its way', async () => {
    const config = await fresh();
    for (const point of ['before-target-commit', 'after-target-commit']) {
      const link = await linkProcess(config, `${point}:2:${path.join(directory, point)}`);
      await link.prints('state streaming');
      await write(pair.a, 20);
      await link.prints(`stopped at ${point}`);
      await pair.b.server.kill('SIGKILL');
      await write(pair.a, 20);
      await writeFile(path.join(directory, point), '');
      await pair.b.server.restart();
      pair.b.client = await RedisConnection.open({ host: '127.0.0.1', port: pair.b.server.port }, 'test');
      await passMarker(pair.a, pair.b, config.link);
      expect(await redisDifferences(pair.a, pair.b)).toEqual([]);
      await link.kill('SIGKILL');
    }
    expect(await pair.b.text('GET', 'n')).toBe('80');
  });

  it('connections that are reset under load, both ways at once, again and again', async () => {
    const toB = await relay(pair.b.server.port);
    const toA = await relay(pair.a.server.port);
    try {
      const forth = await fresh({
        source: { host: '127.0.0.1', port: toA.port },
        target: { host: '127.0.0.1', port: toB.port },
      });
      const back = redisLinkConfig(pair, 'b', { source: forth.target, target: forth.source });
      await initialiseRedisLink(back, { from: 'now' });
      const links = [runRedisLink(forth), runRedisLink(back)];
      running.push(...links);
      // A take-over whose answer was lost ends a link, at any time; whoever runs it runs it again.
      const final: unknown[] = [];
      const rerun = setInterval(() => {
        for (const [i, link] of links.entries()) {
          const ended = link.ended();
          if (ended === undefined) continue;
          if ((ended.error as { retryable?: boolean } | null)?.retryable !== true) final.push(ended.error);
          running.push((links[i] = runRedisLink(link.config)));
        }
      }, 20);
      let writing = true;
      const load = [pair.a, pair.b].map(async (side, i) => {
        while (writing)
          await side.client.askAll(
            Array.from({ length: 50 }, (_, j) =>
              j % 5 === 0 ? ['RPUSH', `list:${i}`, j] : ['INCR', `n:${i}`],
            ),
          );
      });
      for (let i = 0; i < 15; i++) {
        await new Promise((resolve) => setTimeout(resolve, 100));
        (i % 2 === 0 ? toB : toA).reset();
      }
      writing = false;
      await Promise.all(load);
      try {
        await passMarker(pair.a, pair.b, forth.link);
        await passMarker(pair.b, pair.a, back.link);
        await passMarker(pair.a, pair.b, forth.link);
      } finally {
        clearInterval(rerun);
      }
      expect(final).toEqual([]);
      expect(await redisDifferences(pair.a, pair.b)).toEqual([]);
    } finally {
      await Promise.all(running.splice(0).map((link) => link.stop()));
      toA.close();
      toB.close();
    }
  });

  it('a network that swallows everything, at the source and at the target', async () => {
    for (const side of ['source', 'target'] as const) {
      const config = await fresh();
      const between = await relay(config[side].port);
      try {
        const link = runRedisLink({ ...config, [side]: { host: '127.0.0.1', port: between.port } });
        running.push(link);
        await write(pair.a, 5);
        await passMarker(pair.a, pair.b, config.link);
        between.silence();
        await write(pair.a, 5);
        await until('it notices', () => link.status().state === 'starting');
        await until('it is behind', () => link.status().lagMs > 0);
        between.heal();
        await passMarker(pair.a, pair.b, config.link);
        expect(await redisDifferences(pair.a, pair.b)).toEqual([]);
        await link.stop();
      } finally {
        between.close();
      }
    }
  });
});

describe('only one attempt writes', () => {
  it('a zombie with a block on its way does nothing once another has taken over', async () => {
    const config = await fresh();
    const address = { host: '127.0.0.1', port: pair.b.server.port };
    const [first, second] = await Promise.all([
      RedisConnection.open(address, 'first'),
      RedisConnection.open(address, 'second'),
    ]);
    const applier = new Applier(
      first,
      config.link,
      (await takeGeneration(first, config.link))!,
      () => undefined,
    );
    await applier.ready();
    const block = (): Block => {
      const made = new Block();
      made.commands.addRaw(encodeCommand(['INCR', 'zombie']), 0);
      return made;
    };
    await applier.apply(block()).done;
    await applier.ready();
    // The zombie sees nothing of this: it is ready, with the key under WATCH.
    await takeGeneration(second, config.link);
    const late = [applier.apply(block()).done, applier.apply(block()).done];
    const ends = await Promise.allSettled(late);
    expect(ends.map((end) => end.status === 'rejected' && (end.reason as { code: string }).code)).toEqual([
      'HeldByOther',
      'HeldByOther',
    ]);
    expect(await pair.b.text('GET', 'zombie')).toBe('1');
    first.destroy();
    second.destroy();
  });

  it('the older of two processes ends, and nothing is applied twice', async () => {
    const config = await fresh();
    const first = await linkProcess(config);
    await first.prints('state streaming');
    let writing = true;
    const load = (async () => {
      while (writing) await write(pair.a, 5);
    })();
    const second = await linkProcess(config);
    await second.prints('state streaming');
    await first.prints('ended HeldByOther final');
    writing = false;
    await load;
    await passMarker(pair.a, pair.b, config.link);
    expect(await redisDifferences(pair.a, pair.b)).toEqual([]);
  });
});

/** What an operator has to look at. */
const OTHER_HISTORY = {
  code: 'NeedsOperator',
  message: expect.stringMatching(
    /another history.*interlock replicate resync redis\/cache:dc-a>dc-b$/,
  ) as string,
  details: { state: 'resync-required' },
};

/** Killed, and started on what its disk has. */
async function comesBack(side: RedisSide): Promise<void> {
  await side.server.kill('SIGKILL');
  await side.server.restart();
  side.client.destroy();
  side.client = await RedisConnection.open({ host: '127.0.0.1', port: side.server.port }, 'test');
}

describe('a source', () => {
  const extra: RedisSide[] = [];
  afterEach(async () => {
    for (const side of extra.splice(0)) {
      side.client.destroy();
      await side.server.stop();
    }
  });
  const server = async (config: Record<string, string> = {}): Promise<RedisSide> => {
    const side = await redisSide(await startRedis({ config: { ...QUICK, ...config } }));
    extra.push(side);
    return side;
  };

  it('that fails over to its replica goes on where it was', async () => {
    const [primary, replica, target] = await Promise.all([server(), server(), server()]);
    await replica.run('REPLICAOF', '127.0.0.1', primary.server.port);
    await until('in step', async () =>
      (await replica.text('INFO', 'replication'))!.includes('master_link_status:up'),
    );
    const config = redisLinkConfig({ a: primary, b: target }, 'a', { onGap: 'stop' });
    await initialiseRedisLink(config, { from: 'now' });
    const link = runRedisLink(config);
    running.push(link);
    await primary.run('SELECT', 2);
    await write(primary, 20);
    await until('applied', async () => (await redisDifferences(primary, target, [0, 2])).length === 0);
    expect(await primary.run('WAIT', 2, 30_000)).toBe(2);
    await primary.server.kill('SIGKILL');
    await link.stop();
    await replica.run('REPLICAOF', 'NO', 'ONE');
    await replica.run('SELECT', 2);
    await write(replica, 20);
    const next = runRedisLink({ ...config, source: { host: '127.0.0.1', port: replica.server.port } });
    running.push(next);
    await until('applied', async () => (await redisDifferences(replica, target, [0, 2])).length === 0);
    await target.run('SELECT', 2);
    expect(await target.text('GET', 'n')).toBe('40');
    expect(next.status().copy).toBeNull();
    // Through another kill: the new history's name is in the checkpoint.
    await next.stop();
    await write(replica, 5);
    const last = runRedisLink(next.config);
    running.push(last);
    await until('applied', async () => (await redisDifferences(replica, target, [0, 2])).length === 0);
    expect(last.status().copy).toBeNull();
  });

  it('that lacks what was applied is diverged', async () => {
    const [primary, replica, target] = await Promise.all([server(), server(), server()]);
    await replica.run('REPLICAOF', '127.0.0.1', primary.server.port);
    await until('in step', async () =>
      (await replica.text('INFO', 'replication'))!.includes('master_link_status:up'),
    );
    const config = redisLinkConfig({ a: primary, b: target }, 'a');
    await initialiseRedisLink(config, { from: 'now' });
    const link = runRedisLink(config);
    running.push(link);
    await passMarker(primary, target, config.link);
    await replica.run('REPLICAOF', 'NO', 'ONE');
    await write(primary, 5);
    await passMarker(primary, target, config.link);
    await link.stop();
    const next = runRedisLink({ ...config, source: { host: '127.0.0.1', port: replica.server.port } });
    running.push(next);
    await until('it stops', () => next.ended() !== undefined);
    expect(next.ended()!.error).toMatchObject({ code: 'NeedsOperator', details: { state: 'diverged' } });
  });

  it.each(['stop', 'resync'] as const)('whose backlog is too short: %s', async (onGap) => {
    const [source, target] = await Promise.all([server({ 'repl-backlog-size': '16kb' }), server()]);
    const config = redisLinkConfig({ a: source, b: target }, 'a', { onGap });
    await initialiseRedisLink(config, { from: 'now' });
    const link = runRedisLink(config);
    running.push(link);
    await source.client.askAll([
      ['SET', 'stays', 1],
      ['SET', 'goes', 1],
      ['RPUSH', 'changes', 'a', 'b'],
    ]);
    await passMarker(source, target, config.link);
    await link.stop();
    await source.run('DEL', 'goes', 'changes');
    await source.client.askAll(Array.from({ length: 1000 }, (_, i) => ['SET', `k${i}`, 'x'.repeat(100)]));
    const next = runRedisLink(config);
    running.push(next);
    if (onGap === 'stop') {
      await until('it stops', () => next.ended() !== undefined);
      expect(next.ended()!.error).toMatchObject({
        code: 'NeedsOperator',
        details: { state: 'resync-required' },
      });
      // Without a copy that nobody wanted.
      expect(await source.text('INFO', 'stats')).toMatch(/sync_full:1\r/);
      return;
    }
    await until('it streams', () => next.status().state === 'streaming');
    await source.run('RPUSH', 'changes', 'c');
    await passMarker(source, target, config.link);
    expect(await redisDifferences(source, target)).toEqual([]);
    expect(next.status().copy).toMatchObject({ removedRows: 2 });
  });

  it('is copied again to the end, whatever happens in between', async () => {
    const [source, target] = await Promise.all([server({ 'repl-backlog-size': '16kb' }), server()]);
    const config = redisLinkConfig({ a: source, b: target }, 'a', { onGap: 'resync' });
    await initialiseRedisLink(config, { from: 'now' });
    const link = runRedisLink(config);
    running.push(link);
    await source.run('SET', 'goes', 1);
    await passMarker(source, target, config.link);
    await link.stop();
    await source.run('DEL', 'goes');
    await source.client.askAll(Array.from({ length: 6000 }, (_, i) => ['SET', `k${i}`, i]));
    let blocks = 0;
    const crashes = runRedisLink(config, (point) => {
      if (point === 'after-target-commit' && ++blocks === 2) throw new Error('a crash');
    });
    running.push(crashes);
    await until('it crashes', () => crashes.ended() !== undefined);
    expect(await target.run('EXISTS', 'goes')).toBe(1);
    const next = runRedisLink(config);
    running.push(next);
    await passMarker(source, target, config.link);
    expect(await redisDifferences(source, target)).toEqual([]);
  });

  it.each([
    ['with its data', DURABLE],
    ['empty', {}],
  ])('that is killed and comes back %s is copied again by an operator only', async (name, persistence) => {
    const [source, target] = await Promise.all([server(persistence), server()]);
    const config = redisLinkConfig({ a: source, b: target }, 'a', { onGap: 'resync' });
    await initialiseRedisLink(config, { from: 'now' });
    const link = runRedisLink(config);
    running.push(link);
    await write(source, 20);
    await passMarker(source, target, config.link);
    const keys = await target.run('DBSIZE');
    await comesBack(source);
    await until('it stops', () => link.ended() !== undefined);
    expect(link.ended()!.error).toMatchObject(OTHER_HISTORY);
    expect(await target.run('DBSIZE')).toBe(keys);
    await write(source, 20);
    await initialiseRedisLink(config, { resync: true });
    running.push(runRedisLink(config));
    await passMarker(source, target, config.link);
    expect(await redisDifferences(source, target)).toEqual([]);
    expect(await target.text('GET', 'n')).toBe(name === 'empty' ? '20' : '40');
  });

  it.each(['a gap', 'an operator'])(
    'that comes back empty in the middle of a copy for %s empties nothing',
    async (why) => {
      const [source, target] = await Promise.all([server({ 'repl-backlog-size': '16kb' }), server()]);
      const config = redisLinkConfig({ a: source, b: target }, 'a', { onGap: 'resync' });
      await initialiseRedisLink(config, { from: 'now' });
      const link = runRedisLink(config);
      running.push(link);
      await source.client.askAll(Array.from({ length: 6000 }, (_, i) => ['SET', `k${i}`, i]));
      await passMarker(source, target, config.link);
      await link.stop();
      await source.client.askAll(Array.from({ length: 1000 }, (_, i) => ['SET', `k${i}`, 'x'.repeat(100)]));
      if (why === 'an operator') await initialiseRedisLink(config, { resync: true });
      const crashes = runRedisLink(config, (point) => {
        if (point === 'after-target-commit') throw new Error('a crash');
      });
      running.push(crashes);
      await until('it crashes', () => crashes.ended() !== undefined);
      const keys = await target.run('DBSIZE');
      await comesBack(source);
      const next = runRedisLink(config);
      running.push(next);
      await until('it stops', () => next.ended() !== undefined);
      expect(next.ended()!.error).toMatchObject(OTHER_HISTORY);
      expect(await target.run('DBSIZE')).toBe(keys);
    },
  );
});

describe('a full synchronisation', () => {
  it.each([
    ['from disk', 'no'],
    ['diskless', 'yes'],
  ])('%s, killed in the middle and under load', async (_name, diskless) => {
    await pair.a.run('CONFIG', 'SET', 'repl-diskless-sync', diskless);
    await Promise.all([pair.a.run('FLUSHALL'), pair.b.run('FLUSHALL')]);
    for (let i = 0; i < 20; i++)
      await pair.a.client.askAll(
        Array.from({ length: 1000 }, (_, j) => ['SET', `k${i}:${j}`, 'x'.repeat(100)]),
      );
    await pair.a.run('SET', 'big', 'y'.repeat(10_000_000));
    for (let i = 0; i < 30; i++)
      await pair.a.run(
        'RPUSH',
        'big:list',
        ...Array.from({ length: 1000 }, (_, j) => `${i}:${j}:${'z'.repeat(200)}`),
      );
    await pair.a.run('SET', 'lives', '1', 'EX', 1000);
    const config = redisLinkConfig(pair, 'a');
    await initialiseRedisLink(config, { copy: true });
    const first = await linkProcess(config, 'after-target-commit:4');
    await first.prints('stopped at after-target-commit');
    await write(pair.a, 20);
    await first.kill('SIGKILL');
    const second = await linkProcess(
      config,
      `after-target-commit:4:${path.join(directory, `go-${diskless}`)}`,
    );
    await second.prints('stopped at after-target-commit');
    // While the copy stands, the source goes on; what it sends waits here.
    await write(pair.a, 200);
    await pair.a.run('DEL', 'k0:0');
    await writeFile(path.join(directory, `go-${diskless}`), '');
    await second.prints('state streaming');
    await passMarker(pair.a, pair.b, config.link);
    expect(await redisDifferences(pair.a, pair.b)).toEqual([]);
    expect(await pair.b.text('GET', 'n')).toBe('220');
  });

  it.each(['before-target-commit', 'after-target-commit'])(
    'leaves alone what opens on the target meanwhile, at %s',
    async (point) => {
      await Promise.all([pair.a.run('FLUSHALL'), pair.b.run('FLUSHALL')]);
      const moved = 'moving';
      const unit = `eu/${bucketOf(moved)}`;
      await pair.a.run('HSET', 'interlock:units', unit, 'open:dc-a:1:1');
      await pair.b.run('HSET', 'interlock:units', unit, 'remote:dc-a:1:1');
      const keys = Array.from({ length: 6000 }, (_, i) => `user:${moved}:${i}`);
      await pair.a.client.askAll(keys.map((key) => ['SET', key, 'old']));
      const config = redisLinkConfig(pair, 'a', { keys: [{ pattern: 'user:{userId}:*' }] });
      await initialiseRedisLink(config, { copy: true });
      const go = path.join(directory, `opens-${point}`);
      const link = await linkProcess(config, `${point}:2:${go}`);
      await link.prints(`stopped at ${point}`);
      const copied = new Set(((await pair.b.run('KEYS', 'user:*')) as Buffer[]).map(String));
      expect(copied.size).toBeGreaterThan(0);
      expect(copied.size).toBeLessThan(keys.length);
      // The new owner: it opens, then writes some of what has come and of what has not.
      await pair.b.run('HSET', 'interlock:units', unit, 'open:dc-b:2:1');
      await pair.b.client.askAll(keys.filter((_, i) => i % 3 === 0).map((key) => ['SET', key, 'new']));
      await writeFile(go, '');
      await link.prints('state streaming');
      const values = (await pair.b.client.ask('MGET', ...keys)) as (Buffer | null)[];
      const expected = keys.map((key, i) => (i % 3 === 0 ? 'new' : copied.has(key) ? 'old' : null));
      expect(values.map((value) => value && value.toString())).toEqual(expected);
      // All else is copied on.
      await pair.a.run('SET', 'other', 1);
      await passMarker(pair.a, pair.b, config.link);
      expect(await pair.b.text('GET', 'other')).toBe('1');
    },
  );
});
