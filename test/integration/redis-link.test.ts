import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { RedisConnection, textOf } from '../../replicators/redis/connection.js';
import { initialiseRedisLink } from '../../replicators/redis/initialise.js';
import type { RedisLinkConfig } from '../../replicators/redis/link-config.js';
import { Replica } from '../../replicators/redis/replica.js';
import { unreadRecord } from '../../replicators/redis/refusals.js';
import type { Reply } from '../../replicators/redis/resp/reply-reader.js';
import { REDIS_RIGHTS } from '../../src/fence/redis-rights.js';
import { bucketOf } from '../../src/routing/units.js';
import { relay } from '../support/relay.js';
import { startRedis } from '../support/redis.js';
import {
  passMarker,
  redisDataset,
  redisDifferences,
  redisLinkConfig,
  redisSide,
  runRedisLink,
  startRedisLink,
  until,
} from '../support/redis-link.js';
import type { RedisSide, RunningRedisLink } from '../support/redis-link.js';
import { useRedisPair } from '../support/redis-pair.js';

const { pair, running } = useRedisPair();

async function keep(link: Promise<RunningRedisLink> | RunningRedisLink): Promise<RunningRedisLink> {
  const started = await link;
  running.push(started);
  return started;
}

/** A link a → b from now on. */
async function linked(overrides: Partial<RedisLinkConfig> = {}): Promise<RunningRedisLink> {
  return keep(startRedisLink(redisLinkConfig(pair, 'a', overrides)));
}

async function passed(link: RunningRedisLink): Promise<void> {
  await passMarker(pair.a, pair.b, link.config.link);
}

async function keysOfB(db = 0): Promise<string[]> {
  return [...(await redisDataset(pair.b, [db])).keys()].map((key) => key.slice(key.indexOf('/') + 1)).sort();
}

async function inQuarantine(
  link: RunningRedisLink,
  kind = 'quarantine',
): Promise<{ reason: string; key: string; command: string; detail: string }[]> {
  const reply = (await pair.b.run('HVALS', `interlock:${kind}:${link.config.link}`)) as Buffer[];
  return reply.map(
    (one) => JSON.parse(one.toString()) as { reason: string; key: string; command: string; detail: string },
  );
}

const unitOf = (user: string): string => `eu/${bucketOf(user)}`;
const BY_USER: Partial<RedisLinkConfig> = {
  keys: [{ pattern: 'user:{userId}:*' }, { pattern: 'stock:*', central: 'stock' }],
};

async function owns(side: 'a' | 'b', units: string[], state = 'open', owner = `dc-${side}`): Promise<void> {
  await pair[side].run(
    'HSET',
    'interlock:units',
    ...units.flatMap((unit) => [unit, `${state}:${owner}:1:1`]),
  );
}

describe('a link', () => {
  it('copies, then follows, then goes on at its checkpoint, in every database', async () => {
    for (let i = 0; i < 2000; i++) await pair.a.run('SET', `k${i}`, `v${i}`);
    await pair.a.run('RPUSH', 'list', 'a', 'b');
    await pair.a.run('SELECT', 3);
    await pair.a.run('HSET', 'hash', 'f', '1');
    const config = redisLinkConfig(pair, 'a');
    const link = await keep(startRedisLink(config, { copy: true }));
    await until('streaming', () => link.status().state === 'streaming');
    expect(await redisDifferences(pair.a, pair.b, [0, 3])).toEqual([]);
    await pair.a.run('HINCRBY', 'hash', 'f', 5);
    await pair.a.run('SELECT', 0);
    await pair.a.run('RPUSH', 'list', 'c');
    await pair.a.run('INCR', 'n');
    await pair.a.run('SELECT', 3);
    await pair.a.run('APPEND', 's', 'x');
    await until('applied', async () => (await redisDifferences(pair.a, pair.b, [0, 3])).length === 0);
    await link.stop();
    // The stream has database 3 selected, and does not say so again.
    await pair.a.run('APPEND', 's', 'y');
    const again = await keep(runRedisLink(config));
    await until('applied', async () => (await redisDifferences(pair.a, pair.b, [0, 3])).length === 0);
    await pair.a.run('SELECT', 0);
    await passMarker(pair.a, pair.b, config.link);
    await until('told', () => again.markers.length > 0);
    expect(again.status().copy).toBeNull();
    expect(again.markers).toHaveLength(1);
    expect(again.status()).toMatchObject({ conflicts: 0, quarantined: 0, lagMs: 0 });
  });

  it('is a replica that nobody can promote', async () => {
    const link = await linked();
    await passed(link);
    expect(await pair.a.text('INFO', 'replication')).toMatch(/slave0:ip=127\.0\.0\.1,port=0,state=online/);
  });

  it('acknowledges what the target has, at once when it is asked', async () => {
    const link = await linked();
    await passed(link);
    await pair.a.run('SET', 'k', '1');
    expect(await pair.a.run('WAIT', 1, 30_000)).toBe(1);
    expect(await pair.b.text('GET', 'k')).toBe('1');
  });

  it('acknowledges because it is asked, not only from time to time', async () => {
    const every = globalThis.setInterval;
    const spy = vi
      .spyOn(globalThis, 'setInterval')
      .mockImplementation((run: () => void) => every(run, 2 ** 31 - 1));
    try {
      const link = await linked();
      await passed(link);
      for (const value of [1, 2]) {
        await pair.a.run('SET', 'k', value);
        expect(await pair.a.run('WAIT', 1, 30_000)).toBe(1);
      }
    } finally {
      spy.mockRestore();
    }
  });

  it('applies transactions and scripts as one', async () => {
    const link = await linked();
    await passed(link);
    let stop = false;
    const torn: string[] = [];
    const look = (async () => {
      while (!stop) {
        const [x, y, z] = (await pair.b.run('MGET', 'x', 'y', 'z')) as (Buffer | null)[];
        if (String(x) !== String(y) || String(y) !== String(z))
          torn.push(`${String(x)} ${String(y)} ${String(z)}`);
      }
    })();
    for (let i = 0; i < 300; i++) {
      await pair.a.client.askAll([
        ['MULTI'],
        ['INCR', 'x'],
        ['INCR', 'y'],
        ['SET', 'z', i * 2 + 1],
        ['EXEC'],
      ]);
      await pair.a.run('EVAL', "redis.call('INCR','x') redis.call('INCR','y') redis.call('INCR','z')", 0);
    }
    await passed(link);
    stop = true;
    await look;
    expect(torn).toEqual([]);
    expect(await pair.b.text('GET', 'z')).toBe('600');
  });

  it('stays with a target that closes connections which say nothing', async () => {
    const server = await startRedis({ config: { timeout: '1' } });
    try {
      const target = { host: '127.0.0.1', port: server.port };
      const link = await linked({ target });
      await until('streaming', () => link.status().state === 'streaming');
      const { generation } = link.status();
      for (let i = 0; i < 2; i++) {
        const idle = await RedisConnection.open(target, 'test');
        await new Promise((resolve) => (idle.onBroken = resolve));
      }
      await pair.a.run('SET', 'k', 'v');
      await until('applied', async () => (await server.cli('GET', 'k')) === 'v');
      expect(link.status()).toMatchObject({ generation, state: 'streaming' });
      await running.pop()!.stop();
    } finally {
      await server.stop();
    }
  });

  it('applies no more than its throttle allows', async () => {
    const link = await linked({ throttle: { maxRowsPerSecond: 2000 } });
    await passed(link);
    const begin = performance.now();
    await pair.a.client.askAll(Array.from({ length: 6000 }, () => ['INCR', 'n']));
    await passed(link);
    // A second's worth at once, then a second's worth each second.
    expect(performance.now() - begin).toBeGreaterThan(1500);
    expect(await pair.b.text('GET', 'n')).toBe('6000');
  });

  it('keeps two sides in step without a loop: three rings of writes, and no command behind the last', async () => {
    const forth = await linked();
    const back = await keep(startRedisLink(redisLinkConfig(pair, 'b')));
    const rounds = Array.from({ length: 3000 }, (_, i) => i);
    for (let ring = 1; ring <= 3; ring++) {
      await Promise.all([
        pair.a.client.askAll(rounds.map((i) => (i % 3 === 0 ? ['RPUSH', 'a:list', i] : ['INCR', 'a:n']))),
        pair.b.client.askAll(rounds.map((i) => (i % 3 === 0 ? ['RPUSH', 'b:list', i] : ['INCR', 'b:n']))),
      ]);
      await passMarker(pair.a, pair.b, forth.config.link);
      await passMarker(pair.b, pair.a, back.config.link);
      await passMarker(pair.a, pair.b, forth.config.link);
      expect(await redisDifferences(pair.a, pair.b)).toEqual([]);
      expect(await pair.a.text('GET', 'b:n')).toBe(String(2000 * ring));
      expect(await pair.a.run('LLEN', 'b:list')).toBe(1000 * ring);
    }
    // Of both servers: commands that write, and those that hold them together. What says that a link is alive reads only.
    const written = async (): Promise<number> => {
      const stats = await Promise.all(
        [pair.a, pair.b].map(async (side) => side.text('INFO', 'commandstats')),
      );
      return stats
        .flatMap((text) => [...text!.matchAll(/^cmdstat_(\w+).*?:calls=(\d+)/gm)])
        .filter(([, name]) => !['info', 'time', 'hlen', 'replconf', 'ping', 'get'].includes(name!))
        .reduce((sum, [, , calls]) => sum + Number(calls), 0);
    };
    await until('the commands per second are zero', async () => {
      const from = await written();
      await new Promise((resolve) => setTimeout(resolve, 1000));
      return (await written()) === from;
    });
    // Zero, and it stays there.
    const before = await written();
    await new Promise((resolve) => setTimeout(resolve, 1500));
    expect(await written()).toBe(before);
  });

  it('writes its checkpoint when much was left out, and that stops by itself', async () => {
    const config = redisLinkConfig(pair, 'a', { filters: { excludeKeys: ['out:*'] } });
    const link = await keep(startRedisLink(config));
    const back = await keep(startRedisLink(redisLinkConfig(pair, 'b')));
    await passed(link);
    const seq = async (): Promise<number> =>
      (JSON.parse((await pair.b.text('GET', `interlock:link:${config.link}`))!) as { seq: number }).seq;
    const before = await seq();
    await pair.a.client.askAll(Array.from({ length: 4000 }, (_, i) => ['SET', `out:${i}`, 'x'.repeat(100)]));
    await until('the checkpoint moves', async () => (await seq()) > before);
    await until('all is left out', () => link.status().lagMs === 0);
    const after = await seq();
    expect(after - before).toBeLessThan(8);
    await new Promise((resolve) => setTimeout(resolve, 500));
    expect(await seq()).toBe(after);
    expect(await keysOfB()).toEqual([]);
    expect(back.status().rows).toBe(0);
  });
});

describe('a source whose clock is not the link’s', () => {
  it.each([false, true])('says how long a key still lives (copied: %s)', async (copy) => {
    const HOUR_S = 3_600;
    const ahead = await relay(pair.a.server.port, (said) =>
      Buffer.from(
        said
          .toString('latin1')
          .replace(
            /^(\*2\r\n\$10\r\n)(\d{10})(?=\r\n\$\d)/gm,
            (_all, head: string, now: string) => `${head}${Number(now) + HOUR_S}`,
          ),
        'latin1',
      ),
    );
    const write = async (): Promise<void> => {
      // By that clock, it is over.
      await pair.a.run('SET', 'short', 'v', 'EX', HOUR_S - 600);
      await pair.a.run('SET', 'long', 'v', 'EX', HOUR_S + 600);
    };
    try {
      if (copy) await write();
      const config = redisLinkConfig(pair, 'a', { source: { host: '127.0.0.1', port: ahead.port } });
      const link = await keep(startRedisLink(config, copy ? { copy } : { from: 'now' }));
      await until('it streams', () => link.status().state === 'streaming');
      if (!copy) await write();
      await passed(link);
      expect(await keysOfB()).toEqual(['long']);
      expect(link.status()).toMatchObject({ mends: 0, quarantined: 0 });
      await running.pop()!.stop();
    } finally {
      ahead.close();
    }
  });
});

describe('filters', () => {
  it('by key, database and command', async () => {
    const link = await linked({
      filters: {
        includeKeys: ['in:*', 'also:[ab]?'],
        excludeKeys: ['in:not:*'],
        excludeDatabases: [2],
        excludeCommands: ['APPEND'],
      },
    });
    await pair.a.run('MSET', 'in:1', 'x', 'out:1', 'x', 'in:not:1', 'x', 'also:a1', 'x', 'also:c1', 'x');
    await pair.a.run('APPEND', 'in:2', 'x');
    await pair.a.run('SELECT', 2);
    await pair.a.run('SET', 'in:3', 'x');
    await pair.a.run('SELECT', 0);
    await pair.a.run('DEL', 'in:1', 'out:1');
    await pair.a.run('SADD', 'in:s', 'a');
    await passed(link);
    expect(await keysOfB()).toEqual(['also:a1', 'in:s']);
    // Three keys of MSET, one of DEL, APPEND, and what is written in database 2.
    expect(link.status()).toMatchObject({ filtered: 6, lateDeletions: 0 });
    expect(await keysOfB(2)).toEqual([]);
    // One key is carried, the other is not: the target cannot know the result.
    await pair.a.run('SADD', 'out:s', 'b');
    await pair.a.run('SUNIONSTORE', 'in:u', 'in:s', 'out:s');
    await until('it stops', () => link.ended() !== undefined);
    expect((await inQuarantine(link)).map(({ reason, command }) => [reason, command])).toEqual([
      ['split', 'sunionstore'],
    ]);
  });

  it('of a copy: what is left out is counted', async () => {
    await pair.a.run('MSET', 'in:1', 'x', 'out:1', 'x', 'out:2', 'x');
    await pair.a.run('SELECT', 2);
    await pair.a.run('SET', 'in:3', 'x');
    await pair.a.run('SELECT', 0);
    const filters = { includeKeys: ['in:*'], excludeDatabases: [2] };
    const link = await keep(startRedisLink(redisLinkConfig(pair, 'a', { filters }), { copy: true }));
    await until('it streams', () => link.status().state === 'streaming');
    expect(await keysOfB()).toEqual(['in:1']);
    expect(link.status()).toMatchObject({ filtered: 3 });
    await pair.a.run('FLUSHALL');
  });

  it('functions are loaded, deleted and restored; the own ones of the target stay', async () => {
    const link = await linked();
    const code = (name: string): string =>
      `#!lua name=${name}\nredis.register_function('${name}', function() return 1 end)`;
    const libraries = async (side: RedisSide): Promise<string[]> =>
      ((await side.run('FUNCTION', 'LIST')) as Buffer[][]).map((one) => one[1]!.toString()).sort();
    try {
      await pair.b.run('FUNCTION', 'LOAD', code('own'));
      for (const name of ['first', 'second']) await pair.a.run('FUNCTION', 'LOAD', code(name));
      await pair.a.run('FUNCTION', 'DELETE', 'second');
      const dump = (await pair.a.run('FUNCTION', 'DUMP')) as Buffer;
      await passed(link);
      expect(await libraries(pair.b)).toEqual(['first', 'own']);
      await pair.a.run('FUNCTION', 'FLUSH');
      await passed(link);
      expect(await libraries(pair.b)).toEqual(['first', 'own']);
      await pair.b.run('FUNCTION', 'DELETE', 'first');
      await pair.a.run('FUNCTION', 'RESTORE', dump, 'FLUSH');
      await passed(link);
      expect(await libraries(pair.b)).toEqual(['first', 'own']);
      expect(link.status()).toMatchObject({ quarantined: 0, state: 'streaming' });
    } finally {
      for (const side of [pair.a, pair.b]) await side.run('FUNCTION', 'FLUSH');
    }
  });

  it('PFCOUNT is a read, on either side, also in a transaction', async () => {
    const forth = await linked();
    const back = await keep(startRedisLink(redisLinkConfig(pair, 'b')));
    await pair.a.run('PFADD', 'h', 'a', 'b', 'c');
    await passed(forth);
    expect(await pair.a.run('PFCOUNT', 'h')).toBe(3);
    expect(await pair.b.run('PFCOUNT', 'h')).toBe(3);
    await pair.a.client.askAll([['MULTI'], ['PFADD', 'h', 'd'], ['PFCOUNT', 'h'], ['SET', 'x', 1], ['EXEC']]);
    await passed(forth);
    await passMarker(pair.b, pair.a, back.config.link);
    expect(await keysOfB()).toEqual(['h', 'x']);
    expect(await pair.b.run('PFCOUNT', 'h')).toBe(4);
    await pair.b.run('PFADD', 'h', 'e');
    await passMarker(pair.b, pair.a, back.config.link);
    expect(await pair.a.run('PFCOUNT', 'h')).toBe(5);
  });

  it('keys that live shorter than 3 s are left out, whatever gives them their life', async () => {
    const link = await linked();
    const { a } = pair;
    await a.run('SET', 'old', 'long');
    await passed(link);
    const now = Date.now();
    await a.run('SET', 's:ex', 'v', 'EX', 2);
    await a.run('SET', 's:px', 'v', 'PX', 2500);
    await a.run('SET', 's:exat', 'v', 'EXAT', Math.floor(now / 1000) + 2);
    await a.run('SET', 's:pxat', 'v', 'PXAT', now + 2000);
    await a.run('SETEX', 's:setex', 2, 'v');
    await a.run('PSETEX', 's:psetex', 2000, 'v');
    const dump = (await a.run('DUMP', 'old')) as Buffer;
    await a.run('RESTORE', 's:restore', 2000, dump);
    await a.run('SET', 'old', 'short', 'PX', 2500);
    await a.client.askAll([
      ['SET', 's:then', 'v'],
      ['INCRBY', 's:count', 1],
      ['PEXPIRE', 's:then', 2000],
    ]);
    await a.client.askAll([
      ['MULTI'],
      ['SET', 's:multi', '1'],
      ['INCR', 's:multi'],
      ['EXPIRE', 's:multi', 2],
      ['EXEC'],
    ]);
    // What goes on with a key that was left out is left out too, until the key is made to live longer.
    await a.run('SET', 'c:left', '1', 'PX', 2900);
    await a.run('INCR', 'c:left');
    await a.run('SET', 'c:longer', '1', 'PX', 2900);
    await a.run('INCR', 'c:longer');
    await a.run('EXPIRE', 'c:longer', 100);
    await a.run('SET', 'c:persisted', '1', 'PX', 2900);
    await a.run('APPEND', 'c:persisted', '2');
    await a.run('PERSIST', 'c:persisted');
    await a.run('SET', 'c:getex', '7', 'PX', 2900);
    await a.run('GETEX', 'c:getex', 'EX', 100);
    await a.run('SET', 'c:overwritten', '1', 'PX', 2900);
    await a.run('SET', 'c:overwritten', '2');
    await a.run('SET', 'c:copied', '5', 'PX', 2900);
    await a.run('COPY', 'c:copied', 'c:copy');
    await a.run('SET', 'long:ex', 'v', 'EX', 100);
    await a.run('EXPIRE', 's:count', 100);
    await passed(link);
    expect(await keysOfB()).toEqual([
      'c:copied', 'c:copy', 'c:getex', 'c:longer', 'c:overwritten', 'c:persisted', 'long:ex', 's:count',
    ]); // prettier-ignore
    expect(await pair.b.text('GET', 'c:longer')).toBe('2');
    expect(await pair.b.text('GET', 'c:persisted')).toBe('12');
    await until('they have expired', async () => (await redisDataset(a)).size === 6, 20_000);
    await passed(link);
    expect(await redisDifferences(pair.a, pair.b)).toEqual([]);
  });
});

describe('ownership', () => {
  it('deletions of units that the source does not own are dropped, writes are conflicts', async () => {
    await owns('a', [unitOf('1'), 'central:stock']);
    const link = await linked(BY_USER);
    await pair.a.run('MSET', 'user:1:x', 'a', 'user:2:x', 'a', 'stock:9', 'a', 'other', 'a');
    await passed(link);
    expect(await keysOfB()).toEqual(['other', 'stock:9', 'user:1:x']);
    expect(await inQuarantine(link, 'conflicts')).toEqual([]);
    expect(link.status()).toMatchObject({ conflicts: 0, conflictsRecorded: 1 });
    expect(await pair.b.run('LLEN', `interlock:conflict-log:${link.config.link}`)).toBe(1);
    // The unit moves: what the old owner deletes later (an expiry looks so) must not reach what the new owner wrote.
    await owns('a', [unitOf('1')], 'remote', 'dc-b');
    await passed(link);
    await pair.b.run('SET', 'user:1:x', 'fresh');
    await pair.a.run('DEL', 'user:1:x', 'other');
    await pair.a.run('SET', 'user:1:y', 'late');
    await passed(link);
    expect(await pair.b.text('GET', 'user:1:x')).toBe('fresh');
    expect(await keysOfB()).toEqual(['stock:9', 'user:1:x']);
    // Back again: in band, at once.
    await owns('a', [unitOf('1')]);
    await pair.a.run('SET', 'user:1:z', 'mine');
    await passed(link);
    expect(await pair.b.text('GET', 'user:1:z')).toBe('mine');
  });

  it('is as of the place in the stream, also when the link comes later', async () => {
    await owns('a', [unitOf('1')]);
    const config = redisLinkConfig(pair, 'a', BY_USER);
    await initialiseRedisLink(config, { from: 'now' });
    await pair.a.run('SET', 'user:1:x', 'owned');
    await pair.a.run('HDEL', 'interlock:units', unitOf('1'));
    await pair.a.run('SET', 'user:1:y', 'not owned');
    const link = await keep(runRedisLink(config));
    await passed(link);
    expect(await keysOfB()).toEqual(['user:1:x']);
    await link.stop();
    await pair.a.run('SET', 'user:1:z', 'not owned either');
    await owns('a', [unitOf('1')]);
    const again = await keep(runRedisLink(config));
    await passed(again);
    expect(await keysOfB()).toEqual(['user:1:x']);
    // What the stream said is kept with the checkpoint.
    await again.stop();
    await pair.a.run('SET', 'user:1:w', 'owned');
    await pair.a.run('HDEL', 'interlock:units', unitOf('1'));
    const last = await keep(runRedisLink(config));
    await passed(last);
    expect(await keysOfB()).toEqual(['user:1:w', 'user:1:x']);
  });

  it('source-wins applies a conflict, quarantine keeps it open', async () => {
    const wins = await linked({ ...BY_USER, conflicts: 'source-wins' });
    await pair.a.run('SET', 'user:1:x', 'v');
    await passed(wins);
    expect(await keysOfB()).toEqual(['user:1:x']);
    expect(wins.status()).toMatchObject({ conflicts: 0, conflictsRecorded: 1 });
    await wins.stop();
    await pair.b.run('FLUSHALL');
    const kept = await linked({ ...BY_USER, conflicts: 'quarantine', onQuarantine: 'go-on' });
    await pair.a.run('MSET', 'user:1:x', 'v', 'other', 'v');
    await pair.a.run('SET', 'user:2:x', 'v');
    await passed(kept);
    expect(await keysOfB()).toEqual(['other']);
    expect((await inQuarantine(kept, 'conflicts')).map(({ key }) => key).sort()).toEqual([
      'user:1:x',
      'user:2:x',
    ]);
    await until('told', () => kept.markers.length > 0);
    expect(kept.markers.at(-1)).toMatchObject({ conflicts: 2, quarantined: 0 });
  });

  it.each([
    ['apply', ['kept']],
    ['ignore-deletes', ['gone', 'kept']],
  ] as const)('keys of no unit: %s', async (unmapped, there) => {
    const link = await linked({ ...BY_USER, unmapped });
    await pair.a.run('MSET', 'kept', '1', 'gone', '1');
    await pair.a.run('DEL', 'gone');
    await passed(link);
    expect(await keysOfB()).toEqual(there);
  });

  it.each([
    ['unrouted', [{ pattern: 'pub:*', unrouted: true as const }]],
    ['of a topology without patterns', []],
  ])('a key that is %s: its expiry on one side does not delete what the other has', async (_name, keys) => {
    const { a, b } = pair;
    const config = { keys, unmapped: 'ignore-deletes' as const, minTtlMs: 0 };
    const there = await linked(config);
    const back = await keep(startRedisLink(redisLinkConfig(pair, 'b', config)));
    await a.run('SET', 'pub:k', 'session', 'PX', 1500);
    await passed(there);
    await there.stop();
    await a.run('PEXPIRE', 'pub:k', 3_600_000);
    await until('it ends', async () => (await b.run('EXISTS', 'pub:k')) === 0);
    await passMarker(b, a, back.config.link);
    expect(await a.text('GET', 'pub:k')).toBe('session');
    await passed(await keep(runRedisLink(there.config)));
    expect(await redisDifferences(a, b)).toEqual([]);
  });
});

it('ignore-deletes: what is written behind a deletion meets the old value', async () => {
  const { a, b } = pair;
  const link = await linked({ unmapped: 'ignore-deletes', onQuarantine: 'go-on' });
  await a.run('MSET', 'set', 'old', 'nx', 'old', 'life', 'old', 'n', 5, 'got', 'old', 'type', 'old');
  await a.run('RPUSH', 'list', 'old');
  await a.run('SADD', 'members', 'x', 'y');
  await a.run('SADD', 'one', 'x');
  await a.run('DEL', 'set', 'nx', 'life', 'n', 'list', 'type');
  await a.run('SPOP', 'members', 2);
  await a.run('SPOP', 'one');
  await a.run('GETDEL', 'got');
  await a.run('SET', 'set', 'new');
  await a.run('SET', 'nx', 'new', 'NX');
  await a.run('SET', 'life', 'new', 'NX', 'EX', 600);
  await a.run('INCR', 'n');
  await a.run('RPUSH', 'list', 'new');
  await a.run('RPUSH', 'type', 'new');
  await passed(link);
  const values = (await b.run('MGET', 'set', 'nx', 'life', 'n', 'got', 'type')) as Buffer[];
  expect(values.map(String)).toEqual(['new', 'old', 'new', '6', 'old', 'old']);
  expect(((await b.run('LRANGE', 'list', 0, -1)) as Buffer[]).map(String)).toEqual(['old', 'new']);
  expect(await b.run('SCARD', 'members')).toBe(2);
  expect(await b.run('EXISTS', 'one')).toBe(0);
  expect(await inQuarantine(link)).toEqual([expect.objectContaining({ reason: 'refused', key: 'type' })]);
});

describe('a copy', () => {
  it('goes on when a server has stood still, as in a fork', async () => {
    const { a, b } = pair;
    await a.client.askAll(Array.from({ length: 4_000 }, (_, i) => ['SET', `k${i}`, i]));
    const link = await keep(
      startRedisLink(redisLinkConfig(pair, 'a', { throttle: { maxRowsPerSecond: 1_000 } }), { copy: true }),
    );
    await until('it copies', () => (link.status().copy?.writtenRows ?? 0) > 0);
    const { generation } = link.status();
    const still = await Promise.all(
      [a, b].map(async ({ server: { port } }) => RedisConnection.open({ host: '127.0.0.1', port }, 'test')),
    );
    // Longer than a link that follows waits for an answer.
    await Promise.all(still.map(async (server) => server.call('DEBUG', 'SLEEP', 7)));
    for (const server of still) server.destroy();
    await until('it follows', () => link.status().state === 'streaming');
    await passed(link);
    expect(link.status().generation).toBe(generation);
    expect(await redisDifferences(a, b)).toEqual([]);
  });
});

describe('quarantine', () => {
  it.each([
    ['FLUSHALL', ['FLUSHALL']],
    ['FLUSHDB', ['FLUSHDB']],
    ['SWAPDB', ['SWAPDB', 0, 1]],
  ])('%s at the source stops the link before anything behind it', async (name, command) => {
    const link = await linked();
    await pair.a.run('SET', 'before', '1');
    await passed(link);
    await pair.a.client.askAll([command, ['SET', 'after', '1']]);
    await until('it stops', () => link.ended() !== undefined);
    expect(link.ended()!.error).toMatchObject({ code: 'LinkStopped', retryable: false });
    expect(await keysOfB()).toEqual(['before']);
    expect(await inQuarantine(link)).toMatchObject([
      { reason: 'whole-database', command: name.toLowerCase() },
    ]);
    // Started again, it goes on behind it; the record stays open.
    const again = await keep(runRedisLink(link.config));
    await passed(again);
    expect(await keysOfB()).toEqual(['after', 'before']);
    await until('told', () => again.markers.length > 0);
    expect(again.markers.at(-1)).toMatchObject({ quarantined: 1 });
  });

  it('a command that the target refuses is put aside; the others of its block are applied', async () => {
    const link = await linked({ onQuarantine: 'go-on' });
    await pair.b.run('SET', 'wrong', 'a string');
    await pair.a.client.askAll([
      ['SET', 'x', 1],
      ['LPUSH', 'wrong', 'v'],
      ['SET', 'y', 1],
    ]);
    await passed(link);
    expect(await keysOfB()).toEqual(['wrong', 'x', 'y']);
    await until('recorded', async () => (await inQuarantine(link)).length > 0);
    expect(await inQuarantine(link)).toMatchObject([{ reason: 'refused', key: 'wrong', command: 'lpush' }]);
    expect((await inQuarantine(link))[0]!.detail).toMatch(/^WRONGTYPE/);
    await until('counted', () => link.status().quarantined === 1);
  });

  it('a marker in the transaction of a refused command finds it counted, on the target and in what is told', async () => {
    const link = await linked({ onQuarantine: 'go-on' });
    await pair.b.run('SET', 'wrong', 'a string');
    const marker = JSON.stringify({ id: 'beside', workflowId: 'test', runId: 'r', epoch: 1 });
    // What the target says of both at one instant, from before the marker on.
    let seen: Reply[] = [];
    const watching = (async () => {
      while (!textOf(seen[0]).includes('"beside"')) {
        const { link: name } = link.config;
        const asked = [
          ['MULTI'],
          ['GET', `interlock:link:${name}`],
          ['HLEN', `interlock:quarantine:${name}`],
        ];
        seen = (await pair.b.client.askAll([...asked, ['EXEC']])).at(-1) as Reply[];
      }
    })();
    const source = await RedisConnection.open({ host: '127.0.0.1', port: pair.a.server.port }, 'test');
    await source.askAll([
      ...[['MULTI'], ['LPUSH', 'wrong', 'v'], ['SET', 'x', 1], ['LPUSH', 'wrong', 'w']],
      ...[['SET', 'interlock:marker', marker], ['EXEC']],
    ]);
    source.destroy();
    await watching;
    expect(seen[1]).toBeGreaterThan(0);
    await until('told', () => link.markers.length > 0);
    expect(link.markers[0]!.quarantined).toBeGreaterThan(0);
    await until('each is named', async () => (await inQuarantine(link)).length === 2);
    expect(await inQuarantine(link)).toMatchObject([
      { reason: 'refused', key: 'wrong', command: 'lpush' },
      { reason: 'refused', key: 'wrong', command: 'lpush' },
    ]);
    await until('status', () => link.status().quarantined === 2);
    await passed(link);
    await until('told', () => link.markers.length === 2);
    expect(link.markers[1]).toMatchObject({ quarantined: 2 });
  });

  it('a server that has no connection left is tried again', async () => {
    const full = await startRedis({ config: { requirepass: 'p', maxclients: '2' } });
    const address = { host: '127.0.0.1', port: full.port, password: 'p' };
    try {
      const held = [await RedisConnection.open(address, 'test'), await RedisConnection.open(address, 'test')];
      const passes = { code: 'Unavailable', retryable: true };
      await expect(RedisConnection.open(address, 'test')).rejects.toMatchObject(passes);
      await expect(Replica.open(address, 1e6)).rejects.toMatchObject(passes);
      held.forEach((one) => one.destroy());
    } finally {
      await full.stop();
    }
  });

  it('a source that cannot save takes no writes, and is followed', async () => {
    const server = await startRedis({ config: { save: '3600 1', 'repl-backlog-size': '16mb' } });
    const source = { host: '127.0.0.1', port: server.port };
    try {
      const config = redisLinkConfig(pair, 'a', { source });
      await (await startRedisLink(config)).stop();
      await server.cli('SET', 'k', 'v');
      await mkdir(path.join(server.directory, 'dump.rdb'));
      await until('MISCONF', async () => {
        // The link's own save may be under way.
        await server.cli('BGSAVE').catch(() => undefined);
        return server.cli('PING').then(
          () => false,
          (error: Error) => error.message.includes('MISCONF'),
        );
      });
      const link = await keep(runRedisLink(config));
      await until(
        'applied',
        async () => link.ended() !== undefined || (await pair.b.text('GET', 'k')) === 'v',
      );
      expect(link.ended()).toBeUndefined();
      await running.pop()!.stop();
    } finally {
      await server.stop();
    }
  });

  it.each([
    ['maxmemory', '1mb', '0'],
    ['min-replicas-to-write', '1', '0'],
  ])('a target that refuses everything (%s) is tried again until it takes it', async (name, bad, good) => {
    const link = await linked();
    await passed(link);
    await pair.b.run('CONFIG', 'SET', name, bad);
    try {
      await pair.a.run('INCR', 'n');
      // By an attempt that begins meanwhile.
      await until('refused', () => /refuses the checkpoint/.test(link.status().lastError?.message ?? ''));
    } finally {
      await pair.b.run('CONFIG', 'SET', name, good);
    }
    expect(link.ended()).toBeUndefined();
    await passed(link);
    expect(await pair.b.text('GET', 'n')).toBe('1');
    expect(link.status()).toMatchObject({ quarantined: 0, state: 'streaming' });
  });

  it('a command that the target does not even queue is put aside, and no other is lost', async () => {
    const [a, b] = await Promise.all([
      redisSide(await startRedis({ config: { 'repl-diskless-sync-delay': '0' } })),
      redisSide(await startRedis({ config: { 'rename-command': 'PFADD ""' } })),
    ]);
    try {
      const link = await keep(startRedisLink(redisLinkConfig({ a, b }, 'a', { onQuarantine: 'go-on' })));
      const rounds = Array.from({ length: 20_000 }, (_, i) =>
        i % 5000 === 2500 ? ['PFADD', `hll${i}`, 'x'] : ['INCR', 'n'],
      );
      await a.client.askAll(rounds);
      await passMarker(a, b, link.config.link);
      expect(await b.text('GET', 'n')).toBe('19996');
      expect(await b.run('HLEN', `interlock:quarantine:${link.config.link}`)).toBe(4);
      await link.stop();
    } finally {
      for (const side of [a, b]) {
        side.client.destroy();
        await side.server.stop();
      }
    }
  });

  it('an attempt that ended before it had read what the target refused has the link stop, and once', async () => {
    const config = redisLinkConfig(pair, 'a', { onQuarantine: 'stop' });
    const first = await startRedisLink(config);
    await passed(first);
    await first.stop();
    const record = unreadRecord({ from: 1, to: 9, seq: 3 });
    const quarantine = `interlock:quarantine:${config.link}`;
    await pair.b.run('HSET', quarantine, record.id, JSON.stringify(record));
    await pair.a.run('SET', 'k', 'v');
    const second = await keep(runRedisLink(config));
    await until('it stops', () => second.ended() !== undefined);
    expect(second.ended()!.error).toMatchObject({
      code: 'LinkStopped',
      details: { id: '9-unread-3-told', reason: 'unread' },
    });
    expect(await pair.b.run('EXISTS', 'k')).toBe(0);
    expect(((await pair.b.run('HKEYS', quarantine)) as Reply[]).map(textOf)).toEqual(['9-unread-3-told']);
    const third = await keep(runRedisLink(config));
    await passed(third);
    expect(await pair.b.text('GET', 'k')).toBe('v');
  });

  it.each([false, true])(
    'what is in databases that the target does not have is put aside (copied: %s)',
    async (copy) => {
      const b = await redisSide(await startRedis({ config: { databases: '2' } }));
      const { a } = pair;
      const write = async (): Promise<void> => {
        for (const db of [1, 2, 5, 0]) {
          await a.run('SELECT', db);
          await a.run('SET', `k${db}`, 'v');
        }
      };
      try {
        if (copy) await write();
        const config = redisLinkConfig({ a, b }, 'a', { onQuarantine: 'go-on' });
        const link = await keep(startRedisLink(config, copy ? { copy } : { from: 'now' }));
        if (!copy) await write();
        await passMarker(a, b, config.link);
        const records = (await b.run('HVALS', `interlock:quarantine:${config.link}`)) as Reply[];
        expect(
          records
            .map((one) => JSON.parse(textOf(one)) as { key: string; detail: string })
            .map(({ key, detail }) => [key, detail])
            .sort(),
        ).toEqual([
          ['k2', 'the target has no database 2'],
          ['k5', 'the target has no database 5'],
        ]);
        expect(await redisDifferences(a, b, [0, 1])).toEqual([]);
        expect(link.status().state).toBe('streaming');
        await running.pop()!.stop();
      } finally {
        b.client.destroy();
        await b.server.stop();
      }
    },
  );

  it('says that its auxiliary key did not survive on the target', async () => {
    const link = await linked();
    await pair.a.run('SET', 'x', 1);
    await passed(link);
    await pair.b.run('FLUSHALL');
    await pair.a.run('SET', 'y', 1);
    await until('it stops', () => link.ended() !== undefined);
    expect(link.ended()!.error).toMatchObject({
      code: 'NeedsOperator',
      details: { state: 'resync-required' },
    });
    expect(await keysOfB()).toEqual([]);
    await initialiseRedisLink(link.config, { resync: true });
    const again = await keep(runRedisLink(link.config));
    await passed(again);
    expect(await redisDifferences(pair.a, pair.b)).toEqual([]);
  });
});

describe('both sides have keys', () => {
  it('a copy takes those of the units that the source holds; a resync removes only those', async () => {
    await owns('a', [unitOf('1')]);
    await owns('a', [unitOf('3')], 'write_disabled', 'dc-a');
    await owns('a', [unitOf('2')], 'remote', 'dc-b');
    await pair.a.run('MSET', 'user:1:x', 'a', 'user:2:x', 'a', 'user:3:x', 'a', 'other', 'a');
    await pair.b.run(
      'MSET',
      'user:1:x',
      'b',
      'user:2:x',
      'b',
      'user:1:gone',
      'b',
      'user:2:kept',
      'b',
      'mine',
      'b',
    );
    const link = await keep(startRedisLink(redisLinkConfig(pair, 'a', BY_USER), { copy: true }));
    await passed(link);
    const values = async (): Promise<Record<string, string | null>> => {
      const found: Record<string, string | null> = {};
      for (const key of await keysOfB()) found[key] = await pair.b.text('GET', key);
      return found;
    };
    const copied = {
      mine: 'b',
      other: 'a',
      'user:1:x': 'a',
      'user:2:kept': 'b',
      'user:2:x': 'b',
      'user:3:x': 'a',
    };
    expect(await values()).toEqual({ ...copied, 'user:1:gone': 'b' });
    expect(link.status().copy).toMatchObject({ keptRows: 1 });
    await link.stop();
    await initialiseRedisLink(link.config, { resync: true });
    const again = await keep(runRedisLink(link.config));
    await passed(again);
    expect(await values()).toEqual(copied);
    expect(again.status().copy).toMatchObject({ removedRows: 1 });
  });

  it('without --copy and without --from, a target that has keys is refused', async () => {
    await pair.b.run('SET', 'x', 1);
    await expect(initialiseRedisLink(redisLinkConfig(pair, 'a'), {})).rejects.toMatchObject({
      code: 'Refused',
    });
    await initialiseRedisLink(redisLinkConfig(pair, 'a'), { from: 'now' });
    const link = await keep(runRedisLink(redisLinkConfig(pair, 'a')));
    await passed(link);
    await expect(initialiseRedisLink(link.config, { from: 'now' })).rejects.toMatchObject({
      code: 'Refused',
    });
    expect(await initialiseRedisLink(link.config, {})).toMatchObject({ created: false });
  });
});

describe('a link with few rights', () => {
  afterEach(async () => {
    for (const side of [pair.a, pair.b]) await side.run('ACL', 'DELUSER', 'link');
  });

  it('needs what the documentation says', async () => {
    const rights = (...purposes: (keyof typeof REDIS_RIGHTS)[]): string[] =>
      purposes
        .flatMap((purpose) => REDIS_RIGHTS[purpose])
        .map(
          ([name, what]) => `+${['CONFIG', 'FUNCTION', 'MEMORY'].includes(name) ? `${name}|${what!}` : name}`,
        );
    await pair.a.run('ACL', 'SETUSER', 'link', 'on', '>secret', '%R~*', '~interlock:begin', '~interlock:passage', '-@all',
      ...rights('read the replication stream', 'take keys again')); // prettier-ignore
    await pair.b.run('ACL', 'SETUSER', 'link', 'on', '>secret', '~*', '&*', '-@all', '+pexpireat', '+incr',
      ...rights('apply commands with their position', 'apply a copy')); // prettier-ignore
    await pair.a.run(
      'FUNCTION',
      'LOAD',
      "#!lua name=f\nredis.register_function('f', function() return 1 end)",
    );
    const config = redisLinkConfig(pair, 'a');
    for (const server of [config.source, config.target])
      Object.assign(server, { user: 'link', password: 'secret' });
    for (let i = 0; i < 10; i++) await pair.a.run('HSET', `h${i}`, 'f', i);
    const copying = await keep(startRedisLink(config, { copy: true }));
    await passed(copying);
    await pair.a.run('INCR', 'n');
    await passed(copying);
    expect(await pair.b.run('FUNCTION', 'LIST')).toHaveLength(1);
    for (const side of [pair.a, pair.b]) await side.run('FUNCTION', 'FLUSH');
    expect(await redisDifferences(pair.a, pair.b)).toEqual([]);
    await copying.stop();
    await initialiseRedisLink(config, { from: 'now', discardCheckpoint: true });
    const link = await keep(runRedisLink(config));
    await pair.a.run('INCR', 'n');
    await pair.b.run('DEL', 'h1');
    await pair.a.run('EXPIRE', 'h1', 100);
    await passed(link);
    expect(await redisDifferences(pair.a, pair.b)).toEqual([]);
    expect(link.status().quarantined).toBe(0);
    await link.stop();
    const wrong = await keep(runRedisLink({ ...config, source: { ...config.source, password: 'wrong' } }));
    await until('it stops', () => wrong.ended() !== undefined);
    expect(wrong.ended()!.error).toMatchObject({ code: 'Refused', retryable: false });
  });
});
