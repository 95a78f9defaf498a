import { afterAll, beforeAll, expect, test } from 'vitest';
import { startRedis } from '../support/redis.js';
import type { TestRedis } from '../support/redis.js';

let redis: TestRedis;
beforeAll(async () => {
  redis = await startRedis();
});
afterAll(async () => {
  await redis.stop();
});

test('a server comes back on its port after a kill', async () => {
  await redis.cli('SET', 'k', 'v');
  await redis.cli('SAVE');
  await redis.kill('SIGKILL');
  await redis.restart();
  expect(await redis.cli('GET', 'k')).toBe('v');
  await expect(redis.cli('LPUSH', 'k', 'v')).rejects.toThrow('WRONGTYPE');
});
