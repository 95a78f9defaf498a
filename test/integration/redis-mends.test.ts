import { readFileSync } from 'node:fs';
import { beforeEach, describe, expect, it } from 'vitest';
import type { RedisInitialiseOptions } from '../../replicators/redis/initialise.js';
import type { RedisLinkConfig } from '../../replicators/redis/link-config.js';
import { bucketOf } from '../../src/routing/units.js';
import {
  passMarker,
  redisDifferences,
  redisLinkConfig,
  runRedisLink,
  startRedisLink,
  until,
} from '../support/redis-link.js';
import type { RunningRedisLink } from '../support/redis-link.js';
import { useRedisPair } from '../support/redis-pair.js';

const UNIT = `eu/${bucketOf('1')}`;
const KEYS = [{ pattern: 'user:{userId}:*' }];
/** Long enough for what is done before, short enough to wait for. */
const LIFE_MS = 1_500;

const { pair, running } = useRedisPair();

beforeEach(async () => {
  await pair.a.run('CONFIG', 'SET', 'rdb-key-save-delay', 0);
});

function keep(link: RunningRedisLink): RunningRedisLink {
  running.push(link);
  return link;
}

async function linked(
  overrides: Partial<RedisLinkConfig> = {},
  options?: RedisInitialiseOptions,
): Promise<RunningRedisLink> {
  return keep(await startRedisLink(redisLinkConfig(pair, 'a', { minTtlMs: 0, ...overrides }), options));
}

/** The marker comes through, and says that both sides are the same. */
async function same({ config: { link } }: RunningRedisLink): Promise<void> {
  await passMarker(pair.a, pair.b, link);
  expect(await redisDifferences(pair.a, pair.b)).toEqual([]);
  expect(await pair.b.run('EXISTS', `interlock:mends:${link}`)).toBe(0);
}

async function inQuarantine(link: RunningRedisLink): Promise<{ reason: string; detail: string }[]> {
  const reply = (await pair.b.run('HVALS', `interlock:quarantine:${link.config.link}`)) as Buffer[];
  return reply.map((text) => JSON.parse(text.toString()) as { reason: string; detail: string });
}

async function goneAtB(...keys: string[]): Promise<void> {
  await until('they end on the target', async () => (await pair.b.run('EXISTS', ...keys)) === 0);
}

describe('a key that the target has let expire', () => {
  it('while the link stood still, and that was made to live longer at the source, comes back', async () => {
    const { a } = pair;
    const link = await linked();
    await a.run('SET', 'k', 'session', 'PX', LIFE_MS);
    await a.run('HSET', 'h', 'cart', 'full', 'user', '1');
    await a.run('INCR', 'c');
    for (const key of ['h', 'c']) await a.run('PEXPIRE', key, LIFE_MS);
    await passMarker(a, pair.b, link.config.link);
    await link.stop();
    for (const key of ['k', 'h']) await a.run('PEXPIRE', key, 3_600_000);
    await a.run('PERSIST', 'c');
    await a.run('HSET', 'h', 'last', 'x');
    await a.run('INCR', 'c');
    await goneAtB('k', 'h', 'c');
    const again = keep(runRedisLink(link.config));
    await same(again);
    expect(again.status()).toMatchObject({ state: 'streaming', quarantined: 0, conflicts: 0 });
    expect(again.markers.at(-1)).toMatchObject({ quarantined: 0, conflicts: 0 });
  });

  it('comes back whole when it was written before it was made to live longer, if the source owns it', async () => {
    const { a, b } = pair;
    await a.run('HSET', 'interlock:units', UNIT, 'open:dc-a:1:1');
    const link = await linked({ keys: KEYS });
    for (const key of ['user:1:h', 'shared']) {
      await a.run('HSET', key, 'cart', 'full');
      await a.run('PEXPIRE', key, LIFE_MS);
    }
    await passMarker(a, b, link.config.link);
    await link.stop();
    for (const key of ['user:1:h', 'shared']) {
      await a.run('HSET', key, 'last', 'x');
      await a.run('PEXPIRE', key, 3_600_000);
    }
    await goneAtB('user:1:h', 'shared');
    const again = keep(runRedisLink(link.config));
    await passMarker(a, b, again.config.link);
    // Of a key of no unit, the target may have newer writes of its own.
    expect(await redisDifferences(a, b)).toEqual([expect.stringContaining('shared')]);
    expect(await b.text('HGET', 'user:1:h', 'cart')).toBe('full');
  });

  it('comes back whole when the target stood still for longer than it lived', async () => {
    const { a, b } = pair;
    await a.run('HSET', 'interlock:units', UNIT, 'open:dc-a:1:1');
    const link = await linked({ keys: KEYS });
    await a.run('HSET', 'user:1:h', 'cart', 'full');
    await passMarker(a, b, link.config.link);
    await a.run('PEXPIRE', 'user:1:h', LIFE_MS);
    await passMarker(a, b, link.config.link);
    const ends = Number(await a.run('PEXPIRETIME', 'user:1:h'));
    expect(ends).toBeGreaterThan(0);
    b.server.pause();
    try {
      const stat = `/proc/${b.server.pid()}/stat`;
      await until('it stands still', () => readFileSync(stat, 'latin1').includes(') T '));
      await a.run('HSET', 'user:1:h', 'last', 'x');
      await a.run('PEXPIRE', 'user:1:h', 3_600_000);
      await until('its life is over', () => Date.now() > ends + 10);
    } finally {
      b.server.unpause();
    }
    await same(link);
  });

  it('comes back in its database, also when the link runs all the time', async () => {
    const { a, b } = pair;
    const link = await linked();
    await a.run('SELECT', 3);
    await a.run('RPUSH', 'l', 1, 2, 3);
    await a.run('SELECT', 0);
    await a.run('ZADD', 'z', 1, 'one');
    await passMarker(a, b, link.config.link);
    // As of a clock that is ahead.
    await b.run('SELECT', 3);
    await b.run('DEL', 'l');
    await b.run('SELECT', 0);
    await b.run('DEL', 'z');
    await a.client.askAll([
      ['MULTI'],
      ['SELECT', 3],
      ['INCR', 'other'],
      ['EXPIRE', 'l', 3600],
      ['SELECT', 0],
      ['EXPIRE', 'z', 3600],
      ['EXEC'],
    ]);
    await passMarker(a, b, link.config.link);
    expect(await redisDifferences(a, b, [0, 3])).toEqual([]);
  });

  it('is known over a kill of the link, wherever it comes', async () => {
    const { a, b } = pair;
    const config = redisLinkConfig(pair, 'a', { minTtlMs: 0 });
    // The answer was not read; it was, and nobody has noted it; it is noted, and the source was asked.
    for (const [point, passes] of [
      ['after-target-commit', 1],
      ['before-target-write', 2],
      ['before-target-commit', 3],
    ] as const) {
      const link = keep(await startRedisLink(config, { from: 'now', discardCheckpoint: true }));
      await a.run('SET', 'k', point);
      await passMarker(a, b, config.link);
      await link.stop();
      await b.run('DEL', 'k');
      await a.run('PEXPIRE', 'k', 3_600_000);
      let left: number = passes;
      const killed = runRedisLink(config, (at) => {
        if (at === point && --left === 0) throw new Error('killed');
      });
      await until('it is killed', () => killed.ended() !== undefined);
      await same(keep(runRedisLink(config)));
      for (const one of running.splice(0)) await one.stop();
    }
  });

  it('is named when the source does not give it again; the link goes on', async () => {
    const { a, b } = pair;
    await a.run('ACL', 'SETUSER', 'link', 'on', '>pw', '~*', '&*', '+@all', '-dump');
    const source = { host: '127.0.0.1', port: a.server.port, user: 'link', password: 'pw' };
    const link = await linked({ source: source });
    await a.run('SET', 'k', 1);
    await passMarker(a, b, link.config.link);
    await b.run('DEL', 'k');
    await a.run('PEXPIRE', 'k', 3_600_000);
    await passMarker(a, b, link.config.link);
    expect(link.markers.at(-1)).toMatchObject({ quarantined: 1 });
    expect(await inQuarantine(link)).toEqual([
      expect.objectContaining({
        reason: 'unmended',
        detail: expect.stringMatching(/NOPERM.*interlock verify redis --repair/) as string,
      }),
    ]);
    expect(link.status()).toMatchObject({ state: 'streaming', quarantined: 1 });
  });
});

describe('a key that a copy leaves out as it lives too short', () => {
  it('is there when it was made to live longer meanwhile', async () => {
    const { a } = pair;
    for (let i = 0; i < 90; i++) await a.run('SET', `f${i}`, i);
    for (const key of ['h', 'late']) await a.run('HSET', key, 'cart', 'full');
    // By what the copy says of it, it ends long before the copy does.
    await a.run('PEXPIRE', 'h', 2_500);
    await a.run('PEXPIRE', 'late', 60_000);
    await a.run('CONFIG', 'SET', 'rdb-key-save-delay', 50_000);
    const link = await linked({ minTtlMs: 90_000 }, { copy: true });
    await until('it copies', () => link.status().copy !== null);
    await a.run('HSET', 'h', 'last', 'x');
    await a.run('PEXPIRE', 'h', 3_600_000);
    await until('it is copied', () => link.status().state === 'streaming');
    await a.run('HSET', 'late', 'last', 'x');
    await a.run('PEXPIRE', 'late', 3_600_000);
    await same(link);
  });
});

describe('SORT … BY … STORE', () => {
  it.each<[string, Partial<RedisLinkConfig>, (string | number)[]]>([
    ['live too short', { minTtlMs: 3_000 }, ['PX', 2_500]],
    ['are not carried', { filters: { excludeKeys: ['w_*'] } }, []],
  ])('has the same on the target, though it reads keys that %s', async (_name, overrides, life) => {
    const { a, b } = pair;
    await b.run('SET', 'sorted', 'of another type');
    const link = await linked(overrides);
    await a.run('RPUSH', 'l', 1, 2, 3);
    for (const n of [1, 2, 3]) await a.run('SET', `w_${n}`, 4 - n, ...life);
    // While the value is on its way.
    await a.client.askAll([
      ['SORT', 'l', 'BY', 'w_*', 'GET', '#', 'GET', 'w_*', 'STORE', 'made'],
      ['RENAME', 'made', 'sorted'],
      ['LSET', 'sorted', 0, 'first'],
      ['COPY', 'sorted', 'copied', 'DB', 1],
      ['SORT', 'l', 'BY', 'nosort', 'DESC', 'STORE', 'plain'],
    ]);
    await passMarker(a, b, link.config.link);
    await a.run('DEL', 'w_1', 'w_2', 'w_3');
    await passMarker(a, b, link.config.link);
    expect(await redisDifferences(a, b, [0, 1])).toEqual([]);
    expect(await a.run('LLEN', 'sorted')).toBe(6);
    expect(link.status()).toMatchObject({ quarantined: 0, mends: 0 });
    expect(await b.run('EXISTS', `interlock:mends:${link.config.link}`)).toBe(0);
  });
});
