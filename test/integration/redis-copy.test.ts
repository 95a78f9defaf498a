import { beforeEach, expect, it, vi } from 'vitest';
import { initialiseRedisLink } from '../../replicators/redis/initialise.js';
import type { RedisLinkConfig } from '../../replicators/redis/link-config.js';
import { Replica } from '../../replicators/redis/replica.js';
import {
  redisDifferences,
  redisLinkConfig,
  redisSide,
  runRedisLink,
  startRedisLink,
  until,
} from '../support/redis-link.js';
import type { RunningRedisLink } from '../support/redis-link.js';
import { useRedisPair } from '../support/redis-pair.js';
import { asVersion, startRedis } from '../support/redis.js';

const { pair, running } = useRedisPair();

beforeEach(async () => {
  for (const { run } of [pair.a, pair.b]) {
    await run(
      'CONFIG',
      'SET',
      'rdb-key-save-delay',
      0,
      'repl-diskless-sync',
      'yes',
      'repl-diskless-sync-delay',
      0,
    );
  }
});

function run(...args: Parameters<typeof runRedisLink>): RunningRedisLink {
  const link = runRedisLink(...args);
  running.push(link);
  return link;
}

async function copied(config: RedisLinkConfig): Promise<RunningRedisLink> {
  const link = await startRedisLink(config, { copy: true });
  running.push(link);
  await until('it streams', () => link.status().state === 'streaming');
  return link;
}

it('of a save that was under way for another replica is not taken for one behind the marker and the fence', async () => {
  const other = await redisSide(await startRedis());
  try {
    await pair.a.run('CONFIG', 'SET', 'repl-diskless-sync', 'no');
    for (let i = 0; i < 20; i++) await pair.a.run('SET', `k${i}`, i);
    await pair.a.run('SET', 'x', 'old');
    await pair.a.run('CONFIG', 'SET', 'rdb-key-save-delay', 100_000);
    await other.run('REPLICAOF', '127.0.0.1', pair.a.server.port);
    await until('it saves', async () =>
      (await pair.a.text('INFO', 'persistence'))!.includes('rdb_bgsave_in_progress:1'),
    );
    await pair.a.run('SET', 'x', 'new');
    await pair.a.run('HSET', 'interlock:units', 'central:x', 'write_disabled:dc-a:2:1');
    const marker = { id: 'behind-x', workflowId: 'w', runId: 'r', epoch: 2 };
    await pair.a.run('SET', 'interlock:marker', JSON.stringify(marker));
    const config = redisLinkConfig(pair, 'a');
    await initialiseRedisLink(config, { copy: true });
    // It ends at the moment at which it has a marker to tell.
    const link = run(config, (point) => {
      if (point === 'before-acknowledge') throw new Error('it has a marker to tell');
    });
    await until('the marker', () => link.ended() !== undefined);
    expect(await pair.b.text('GET', 'x')).toBe('new');
  } finally {
    other.client.destroy();
    await other.server.stop();
  }
});

it('begins again when the fence was moved while it began', async () => {
  await pair.a.run('HSET', 'interlock:units', 'central:x', 'open:dc-a:1:1');
  await pair.a.run('SET', 'x', 'v');
  await pair.a.run('CONFIG', 'SET', 'repl-diskless-sync-delay', 1);
  const config = redisLinkConfig(pair, 'a');
  await initialiseRedisLink(config, { copy: true });
  const link = run(config);
  // The states were read; the save that the link waits for has not begun.
  await until('it waits', async () =>
    (await pair.a.text('INFO', 'replication'))!.includes('state=wait_bgsave'),
  );
  const { generation } = link.status();
  await pair.a.run('HSET', 'interlock:units', 'central:x', 'write_disabled:dc-a:2:1');
  await until('it streams', () => link.status().state === 'streaming');
  expect(link.status().generation).toBeGreaterThan(generation);
  expect(await pair.b.text('HGET', `interlock:link:${config.link}:units`, 'central:x')).toBe(
    'write_disabled:dc-a:2:1',
  );
});

it('leaves out keys that live too short, removes what the target has of them, and takes again what then still lives', async () => {
  await pair.a.run('SET', 'short', 'v', 'PX', 300_000);
  await pair.a.run('SET', 'long', 'v', 'PX', 600_000);
  await pair.b.run('SET', 'short', 'older');
  await pair.b.run('CONFIG', 'RESETSTAT');
  await copied({ ...redisLinkConfig(pair, 'a'), minTtlMs: 400_000 });
  // The note that a key is to be taken again, in the set of those.
  expect(await pair.b.text('INFO', 'commandstats')).toMatch(/cmdstat_sadd:calls=1,/);
  expect(await pair.b.text('GET', 'long')).toBe('v');
  await until('it is as at the source', async () => (await redisDifferences(pair.a, pair.b)).length === 0);
  expect(await pair.b.text('GET', 'short')).toBe('v');
});

it('acknowledges nothing until it is applied, and says how long it will take', async () => {
  const { a } = pair;
  // A source that has had a replica begins at more than 0.
  await (await copied(redisLinkConfig(pair, 'a'))).stop();
  await pair.b.run('FLUSHALL');
  await a.client.askAll(Array.from({ length: 12_000 }, (_, i) => ['SET', `k${i}`, 'v']));
  // A link of before may have left its word for the next there.
  const keys = (await a.run('DBSIZE')) as number;
  const config = redisLinkConfig(pair, 'a', { throttle: { maxRowsPerSecond: 2_000 } });
  const link = await startRedisLink(config, { copy: true });
  running.push(link);
  const acknowledges = vi.spyOn(Replica.prototype, 'acknowledge');
  let replica = '';
  await until('it is a replica', async () => {
    replica = /^slave0:.*state=online.*$/m.exec((await a.text('INFO', 'replication')) ?? '')?.[0] ?? '';
    return (
      replica !== '' && acknowledges.mock.calls.length > 2 && (link.status().copy?.rowsPerSecond ?? 0) > 0
    );
  });
  acknowledges.mockRestore();
  const { state, copy } = link.status();
  expect(state).toBe('copying');
  expect(replica).toContain(',offset=0,');
  const { estimatedRows, comparedRows, rowsPerSecond, etaSeconds } = copy!;
  expect(estimatedRows).toBe(keys);
  expect(rowsPerSecond).toBeGreaterThan(0);
  // More may have been read since it was told.
  expect(etaSeconds).toBeGreaterThanOrEqual(Math.ceil((estimatedRows - comparedRows) / rowsPerSecond));
  expect(etaSeconds).toBeLessThan(estimatedRows / rowsPerSecond);
  await until('it streams', () => link.status().state === 'streaming');
  expect(link.status().copy).toMatchObject({ comparedRows: keys, etaSeconds: 0 });
  expect(await a.run('WAIT', 1, 30_000)).toBe(1);
});

it('gives an older target commands for what its RESTORE does not know', async () => {
  // One that says that it is 6.2, whose values are of RDB version 9: hashes and sorted sets were saved otherwise then.
  const older = await asVersion(pair.b.server.port, '6.2.');
  try {
    await pair.a.run('HSET', 'hash', 'f', 'v');
    await pair.a.run('ZADD', 'zset', 1, 'm');
    await pair.a.run('SADD', 'set', 1, 2);
    await pair.b.run('CONFIG', 'RESETSTAT');
    await copied({ ...redisLinkConfig(pair, 'a'), target: { host: '127.0.0.1', port: older.port } });
    const calls = await pair.b.text('INFO', 'commandstats');
    expect(await redisDifferences(pair.a, pair.b)).toEqual([]);
    const counted = ['hset', 'zadd', 'restore'].map(
      (name) => new RegExp(`cmdstat_${name}:calls=(\\d+)`).exec(calls!)?.[1],
    );
    // The set is of a format that is as old as that.
    expect(counted).toEqual(['1', '1', '1']);
  } finally {
    for (const link of running.splice(0)) await link.stop();
    older.close();
  }
});
