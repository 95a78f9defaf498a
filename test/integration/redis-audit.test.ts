import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from 'vitest';
import { textOf } from '../../replicators/redis/connection.js';
import type { RedisLinkConfig } from '../../replicators/redis/link-config.js';
import type { Reply } from '../../replicators/redis/resp/reply-reader.js';
import { passMarker, redisLinkConfig, startRedisLink, startRedisPair } from '../support/redis-link.js';
import type { RedisPair, RunningRedisLink } from '../support/redis-link.js';

let pair: RedisPair;
const running: RunningRedisLink[] = [];

beforeAll(async () => {
  pair = await startRedisPair({ 'repl-diskless-sync-delay': '0', 'repl-backlog-size': '16mb' });
});
afterAll(async () => pair.stop());
beforeEach(async () => {
  await pair.a.run('FLUSHALL');
  await pair.b.run('FLUSHALL');
});
afterEach(async () => {
  for (const link of running.splice(0)) await link.stop();
});

/** `SORT l BY w_* GET w_* STORE sorted` at a; what both sides then have, and what was put aside. */
async function sorted(
  overrides: Partial<RedisLinkConfig>,
  life: (string | number)[],
): Promise<{ a: string[]; b: string[]; quarantined: number }> {
  const link = await startRedisLink(redisLinkConfig(pair, 'a', { onQuarantine: 'go-on', ...overrides }));
  running.push(link);
  await pair.a.run('RPUSH', 'l', '1', '2', '3');
  for (const n of [1, 2, 3]) await pair.a.run('SET', `w_${n}`, 4 - n, ...life);
  await pair.a.run('SORT', 'l', 'BY', 'w_*', 'GET', 'w_*', 'STORE', 'sorted');
  await passMarker(pair.a, pair.b, link.config.link);
  const of = async (side: 'a' | 'b'): Promise<string[]> =>
    ((await pair[side].run('LRANGE', 'sorted', 0, -1)) as Reply[]).map(textOf);
  return { a: await of('a'), b: await of('b'), quarantined: link.status().quarantined };
}

it('SORT … STORE has the same on the target, though it reads keys that live too short', async () => {
  const { a, b } = await sorted({}, ['PX', 2500]);
  expect(b).toEqual(a);
});

it('SORT … STORE that reads keys which are not carried is put aside, or has the same on the target', async () => {
  const { a, b, quarantined } = await sorted({ filters: { excludeKeys: ['w_*'] } }, []);
  expect(quarantined > 0 ? a : b).toEqual(a);
});
