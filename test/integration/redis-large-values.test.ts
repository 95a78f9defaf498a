import { readFileSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { initialiseRedisLink } from '../../replicators/redis/initialise.js';
import type { RedisInitialiseOptions } from '../../replicators/redis/initialise.js';
import type { RedisLinkConfig } from '../../replicators/redis/link-config.js';
import { bucketOf } from '../../src/routing/units.js';
import { startProgram } from '../support/programs.js';
import type { Program } from '../support/programs.js';
import { passMarker, redisDifferences, redisLinkConfig, redisSide, until } from '../support/redis-link.js';
import type { RedisSide } from '../support/redis-link.js';
import { startRedis } from '../support/redis.js';

const MB = 1024 * 1024;
/** A process with a link has less, however large a value is; without any, it has about 120 MB. */
const MOST_MB = 250;
/** Held whole, one alone would be too much. */
const VALUE_BYTES = 192 * MB;

let directory: string;
let pair: { a: RedisSide; b: RedisSide };
const programs: Program[] = [];

beforeAll(async () => {
  directory = await mkdtemp(path.join(tmpdir(), 'interlock-redis-large-'));
  const config = {
    'repl-diskless-sync-delay': '0',
    'repl-backlog-size': '400mb',
    'client-output-buffer-limit': 'replica 2gb 2gb 60',
  };
  const servers = await Promise.all([
    startRedis({ config: { ...config, rdbcompression: 'no' } }),
    startRedis({ config: { ...config, 'rename-command': 'SETBIT ""' } }),
  ]);
  const [a, b] = (await Promise.all(servers.map(redisSide))) as [RedisSide, RedisSide];
  pair = { a, b };
});
beforeEach(async () => {
  await Promise.all([pair.a.run('FLUSHALL'), pair.b.run('FLUSHALL')]);
});
afterEach(async () => {
  await Promise.all(programs.splice(0).map((program) => program.kill('SIGKILL')));
});
afterAll(async () => {
  for (const { client, server } of Object.values(pair)) {
    client.destroy();
    await server.stop();
  }
  await rm(directory, { recursive: true, force: true });
});

async function prepared(
  options: RedisInitialiseOptions,
  overrides: Partial<RedisLinkConfig> = {},
): Promise<RedisLinkConfig> {
  const config = redisLinkConfig(pair, 'a', overrides);
  await initialiseRedisLink(config, options);
  return config;
}

async function linkProcess(config: RedisLinkConfig, stopAt = ''): Promise<Program> {
  const file = path.join(directory, 'link.json');
  await writeFile(file, JSON.stringify(config));
  const program = startProgram('test/support/link-process.js', [file], { INTERLOCK_LINK_STOP_AT: stopAt });
  programs.push(program);
  return program;
}

/** The most that it ever had. */
function peakMb({ child }: Program): number {
  const status = readFileSync(`/proc/${child.pid}/status`, 'utf8');
  return Number(/^VmHWM:\s+(\d+) kB$/m.exec(status)![1]) / 1024;
}

/** Lua, at the source: what it writes is one transaction. */
async function script(text: string): Promise<void> {
  await pair.a.run(
    'EVAL',
    `local function long(n) return string.rep('0123456789abcdefghijk', n / 21) end ${text}`,
    0,
  );
}

describe('in the stream', () => {
  it('a value that is too large for memory arrives whole and once, killed in the middle of it', async () => {
    const config = await prepared({ from: 'now' }, { minTtlMs: 100_000 });
    const first = await linkProcess(config, 'within-target-write:300');
    await first.prints('state streaming');
    await script(
      `redis.call('INCR', 'n'); redis.call('SET', 'large', long(${VALUE_BYTES})); redis.call('INCR', 'n')`,
    );
    await first.prints('stopped at within-target-write');
    expect(await pair.b.run('EXISTS', 'large', 'n')).toBe(0);
    expect(peakMb(first)).toBeLessThan(MOST_MB);
    await first.kill('SIGKILL');
    const second = await linkProcess(config);
    // How long a key lives stands behind its value.
    await script(`redis.call('SET', 'short', long(${6 * MB}), 'EX', 50)`);
    await script(
      `redis.call('HSET', 'hash', 'small', 1, 'large', long(${32 * MB})); redis.call('INCR', 'n')`,
    );
    await passMarker(pair.a, pair.b, config.link, 120_000);
    expect(await pair.b.text('GET', 'n')).toBe('3');
    expect(await pair.b.run('EXISTS', 'short')).toBe(0);
    await pair.a.run('PERSIST', 'short');
    await passMarker(pair.a, pair.b, config.link, 120_000);
    expect(await redisDifferences(pair.a, pair.b)).toEqual([]);
    expect(peakMb(second)).toBeLessThan(MOST_MB);
  });

  it('a transaction that is too large for memory is one, and what is refused of it is put aside', async () => {
    const config = await prepared({ from: 'now' }, { onQuarantine: 'go-on' });
    await pair.b.run('SET', 'wrong', 'no list');
    const link = await linkProcess(config, 'within-target-write:300');
    await link.prints('state streaming');
    await script(`local some = long(40000)
      for i = 1, 5000 do
        redis.call('RPUSH', 'list', some)
        if i == 2500 then redis.call('LPUSH', 'wrong', i) redis.call('SETBIT', 'unknown', 1, 1) end
      end
      redis.call('INCR', 'n')`);
    await link.prints('stopped at within-target-write');
    expect(await pair.b.run('EXISTS', 'list', 'n')).toBe(0);
    await link.kill('SIGKILL');
    const next = await linkProcess(config);
    await passMarker(pair.a, pair.b, config.link, 120_000);
    expect(await pair.b.run('LLEN', 'list')).toBe(5000);
    expect(await pair.b.text('GET', 'n')).toBe('1');
    const records = async (): Promise<Record<string, unknown>[]> =>
      ((await pair.b.run('HVALS', `interlock:quarantine:${config.link}`)) as Buffer[]).map(
        (one) => JSON.parse(one.toString()) as Record<string, unknown>,
      );
    await until('both are named', async () => (await records()).every(({ reason }) => reason === 'refused'));
    expect((await records()).map(({ command, key }) => `${String(command)} ${String(key)}`).sort()).toEqual([
      'lpush wrong',
      'setbit unknown',
    ]);
    expect(peakMb(next)).toBeLessThan(MOST_MB);
  });
});

describe('in a full synchronisation', () => {
  const unit = `eu/${bucketOf('moving')}`;

  it('values that are too large for memory are never there in part, killed in the middle of one', async () => {
    await script(`redis.call('SET', 'large', long(${VALUE_BYTES}), 'EX', 100000)
      redis.call('HSET', 'hash', 'small', 1, 'large', long(${VALUE_BYTES / 2}))
      redis.call('RPUSH', 'list', 'a', long(${32 * MB}), 'b')
      for i = 1, 200 do redis.call('SADD', 'set', i .. long(40000)) end`);
    const config = await prepared({ copy: true });
    const piece = `interlock:link:${config.link}:copy`;
    const first = await linkProcess(config, 'after-target-commit:20');
    await first.prints('stopped at after-target-commit');
    expect(await pair.b.run('EXISTS', piece)).toBe(1);
    const there = ((await pair.b.run('KEYS', '[^i]*')) as Buffer[]).map(String);
    const differences = await redisDifferences(pair.a, pair.b);
    for (const key of there) expect(differences.join()).not.toContain(`0/${key}: `);
    await first.kill('SIGKILL');
    const second = await linkProcess(config);
    await second.prints('state streaming', 120_000);
    await passMarker(pair.a, pair.b, config.link, 120_000);
    expect(await redisDifferences(pair.a, pair.b)).toEqual([]);
    expect(await pair.b.run('EXISTS', piece)).toBe(0);
    expect(peakMb(second)).toBeLessThan(MOST_MB);
  });

  it.each(['before-target-commit', 'after-target-commit'])(
    'a value whose unit opens on the target while its pieces come is left alone, at %s',
    async (point) => {
      await pair.a.run('HSET', 'interlock:units', unit, 'open:dc-a:1:1');
      await pair.b.run('HSET', 'interlock:units', unit, 'remote:dc-a:1:1');
      await script(`for i = 1, 300 do redis.call('RPUSH', 'user:moving:list', i .. long(40000)) end`);
      await pair.b.run('RPUSH', 'user:moving:list', 'before');
      const config = await prepared({ copy: true }, { keys: [{ pattern: 'user:{userId}:*' }] });
      const go = path.join(directory, point);
      const link = await linkProcess(config, `${point}:5:${go}`);
      await link.prints(`stopped at ${point}`);
      const piece = `interlock:link:${config.link}:copy`;
      expect(await pair.b.run('EXISTS', piece)).toBe(1);
      const list = async (): Promise<string[]> =>
        ((await pair.b.run('LRANGE', 'user:moving:list', 0, -1)) as Buffer[]).map(String);
      expect(await list()).toEqual(['before']);
      await pair.b.run('HSET', 'interlock:units', unit, 'open:dc-b:2:1');
      await pair.b.run('RPUSH', 'user:moving:list', 'new');
      await writeFile(go, '');
      await link.prints('state streaming');
      expect(await list()).toEqual(['before', 'new']);
      expect(await pair.b.run('EXISTS', piece)).toBe(0);
    },
  );
});
