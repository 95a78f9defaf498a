import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { RedisInitialiseOptions } from '../../replicators/redis/initialise.js';
import type { RedisLinkConfig } from '../../replicators/redis/link-config.js';
import { openRedis } from '../../src/fence/redis-client.js';
import { RedisFence } from '../../src/fence/redis-fence.js';
import { preflightRedisPair } from '../../src/fence/redis-preflight.js';
import {
  passMarker,
  redisDifferences,
  redisLinkConfig,
  redisSide,
  startRedisLink,
  until,
} from '../support/redis-link.js';
import type { RedisSide, RunningRedisLink } from '../support/redis-link.js';
import { startRedis } from '../support/redis.js';

const MB = 1024 * 1024;

/** The target takes an argument of 1 MB, and a transaction of 4 MB. */
let pair: { a: RedisSide; b: RedisSide };
const running: RunningRedisLink[] = [];

beforeAll(async () => {
  const common = { 'repl-diskless-sync-delay': '0', 'repl-backlog-size': '64mb', rdbcompression: 'no' };
  const small = { 'proto-max-bulk-len': '1mb', 'client-query-buffer-limit': '4mb' };
  const servers = [
    await startRedis({ config: common }),
    await startRedis({ config: { ...common, ...small } }),
  ];
  const [a, b] = (await Promise.all(servers.map(redisSide))) as [RedisSide, RedisSide];
  pair = { a, b };
});
afterAll(async () => {
  for (const { client, server } of Object.values(pair)) {
    client.destroy();
    await server.stop();
  }
});
beforeEach(async () => {
  await Promise.all([pair.a.run('FLUSHALL'), pair.b.run('FLUSHALL')]);
});
afterEach(async () => {
  for (const link of running.splice(0)) await link.stop();
});

async function linked(
  overrides: Partial<RedisLinkConfig> = {},
  options?: RedisInitialiseOptions,
): Promise<RunningRedisLink> {
  const config = redisLinkConfig(pair, 'a', { onQuarantine: 'go-on', ...overrides });
  const link = await startRedisLink(config, options);
  running.push(link);
  return link;
}

async function putAside(
  { config }: RunningRedisLink,
  why = /bytes in one argument; the target takes 1048576 \(proto-max-bulk-len\): CONFIG SET/,
): Promise<string[]> {
  const reply = (await pair.b.run('HVALS', `interlock:quarantine:${config.link}`)) as Buffer[];
  return reply
    .map((text) => JSON.parse(text.toString()) as Record<'command' | 'key' | 'reason' | 'detail', string>)
    .map(({ command, key, reason, detail }) => {
      expect(detail).toMatch(why);
      return `${command} ${key} ${reason}`;
    })
    .sort();
}

const differing = async (): Promise<string[]> =>
  (await redisDifferences(pair.a, pair.b)).map((line) => line.slice(0, line.indexOf(':')));

describe('a target that takes smaller values than the source', () => {
  it('is named by preflight', async () => {
    const fences = (['a', 'b'] as const).map(
      (name) =>
        new RedisFence(
          `dc-${name}`,
          'cache',
          openRedis({ host: '127.0.0.1', port: pair[name].server.port }, 't'),
        ),
    ) as [RedisFence, RedisFence];
    try {
      expect(await preflightRedisPair(...fences)).toEqual([
        {
          name: 'redis/cache dc-a and dc-b: proto-max-bulk-len',
          ok: false,
          detail: expect.stringContaining(`There: CONFIG SET proto-max-bulk-len ${512 * MB}`) as string,
        },
        {
          name: 'redis/cache dc-a and dc-b: client-query-buffer-limit',
          ok: false,
          detail: expect.stringContaining(`dc-b does not take all`) as string,
        },
      ]);
      const same = [fences[0], fences[0]] as const;
      expect((await preflightRedisPair(...same)).every(({ ok }) => ok)).toBe(true);
    } finally {
      for (const { client } of fences) client.disconnect();
    }
  });

  it('gets the rest of the stream; what is larger is put aside', async () => {
    const { a, b } = pair;
    const link = await linked();
    const large = Buffer.alloc(1.5 * MB, 'x');
    await a.client.askAll([
      ['INCR', 'n'],
      ['SET', 'large', large],
      ['MULTI'],
      ['HSET', 'hash', 'small', 1],
      ['HSET', 'hash', 'large', large],
      ['EXEC'],
      ['MSET', 'one', 1, 'two', large],
      ['INCR', 'n'],
    ]);
    await passMarker(a, b, link.config.link);
    expect(await b.text('GET', 'n')).toBe('2');
    expect(await b.text('HGET', 'hash', 'small')).toBe('1');
    expect(await putAside(link)).toEqual(['hset hash refused', 'mset one refused', 'set large refused']);
    expect(link.status()).toMatchObject({ state: 'streaming', generation: 1 });
  });

  it('gets a copy of what it takes, in pieces', async () => {
    const { a, b } = pair;
    for (let i = 0; i < 40; i++) {
      await a.run('RPUSH', 'list', Buffer.alloc(100_000, `e${i}`));
      await a.run('HSET', 'hash', `f${i}`, Buffer.alloc(100_000, `v${i}`));
      await a.run('SET', `k${i}`, Buffer.alloc(400_000, `k${i}`));
    }
    await a.run('SET', 'fits', Buffer.alloc(MB, 'y'));
    await a.run('SET', 'large', Buffer.alloc(1.5 * MB, 'x'));
    await a.run('HSET', 'with large', 'small', 1, 'large', Buffer.alloc(1.5 * MB, 'x'));
    await b.run('SET', 'large', 'stays');
    const link = await linked({}, { copy: true });
    await until('it streams', () => link.status().state === 'streaming');
    expect(await differing()).toEqual(['0/large', '0/with large']);
    expect(await b.text('GET', 'large')).toBe('stays');
    expect(await putAside(link)).toEqual(['restore large refused', 'restore with large refused']);
    expect(await b.run('EXISTS', `interlock:link:${link.config.link}:copy`)).toBe(0);
  });

  it('takes keys again in pieces, when they ended there too early', async () => {
    const { a, b } = pair;
    const link = await linked();
    const keys = ['hash', 'list', 'with large'];
    for (let i = 0; i < 30; i++) {
      await a.run('RPUSH', 'list', Buffer.alloc(100_000, `e${i}`));
      await a.run('HSET', 'hash', `f${i}`, Buffer.alloc(100_000, `v${i}`));
    }
    // No argument is too large, the string is: the target says so itself.
    await a.run('SETRANGE', 'with large', 1_500_000, 'x');
    await passMarker(a, b, link.config.link);
    await b.run('DEL', ...keys);
    for (const key of keys) await a.run('PEXPIRE', key, 3_600_000);
    await passMarker(a, b, link.config.link);
    expect(await differing()).toEqual(['0/with large']);
    expect(await putAside(link, /string exceeds maximum|proto-max-bulk-len/)).toEqual([
      'restore with large unmended',
      'setrange with large refused',
    ]);
    expect(link.status()).toMatchObject({ state: 'streaming', generation: 1 });
  });

  it('stops the link at a larger transaction, which goes on with it when the target takes it', async () => {
    const { a, b } = pair;
    const link = await linked();
    await a.run('SET', 'before', 1);
    await a.client.askAll([
      ['MULTI'],
      ...Array.from({ length: 60 }, () => ['RPUSH', 'list', Buffer.alloc(100_000, 'x')]),
      ['EXEC'],
    ]);
    await until('it stops', () => link.ended() !== undefined);
    expect(link.ended()!.error).toMatchObject({
      code: 'LinkStopped',
      retryable: false,
      message: expect.stringMatching(/client-query-buffer-limit\). CONFIG SET it in dc-b/) as string,
    });
    try {
      await b.run('CONFIG', 'SET', 'client-query-buffer-limit', 64 * MB);
      running.push(await startRedisLink(link.config, {}));
      await passMarker(a, b, link.config.link);
      expect(await redisDifferences(a, b)).toEqual([]);
    } finally {
      await b.run('CONFIG', 'SET', 'client-query-buffer-limit', 4 * MB);
    }
  });
});
