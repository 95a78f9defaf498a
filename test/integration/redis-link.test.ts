import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import {
  passMarker,
  redisDifferences,
  redisLinkConfig,
  runRedisLink,
  startRedisLink,
  startRedisPair,
  until,
} from '../support/redis-link.js';
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

async function keep(link: Promise<RunningRedisLink> | RunningRedisLink): Promise<RunningRedisLink> {
  const started = await link;
  running.push(started);
  return started;
}

describe('a link', () => {
  it('copies, then follows, then goes on at its checkpoint', async () => {
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
    await passMarker(pair.a, pair.b, config.link);
    expect(await redisDifferences(pair.a, pair.b, [0, 3])).toEqual([]);
    await link.stop();
    await pair.a.run('INCR', 'n');
    await pair.a.run('SELECT', 3);
    await pair.a.run('APPEND', 's', 'x');
    await pair.a.run('SELECT', 0);
    const again = await keep(runRedisLink(config));
    await passMarker(pair.a, pair.b, config.link);
    expect(await redisDifferences(pair.a, pair.b, [0, 3])).toEqual([]);
    expect(again.status().copy).toBeNull();
    expect(again.markers).toHaveLength(1);
  });
});
