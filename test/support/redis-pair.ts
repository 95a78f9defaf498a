import { afterAll, afterEach, beforeAll, beforeEach } from 'vitest';
import { startRedisPair } from './redis-link.js';
import type { RedisPair, RunningRedisLink } from './redis-link.js';

/**
 * Two servers for the tests of a file, emptied before each.
 * @returns `pair`: they are there in tests and hooks; `running`: links that end with their test
 */
export function useRedisPair(): { pair: RedisPair; running: RunningRedisLink[] } {
  const pair = {} as RedisPair;
  const running: RunningRedisLink[] = [];
  beforeAll(async () => {
    const config = { 'repl-diskless-sync-delay': '0', 'repl-backlog-size': '16mb' };
    Object.assign(pair, await startRedisPair(config));
  });
  afterAll(async () => pair.stop());
  beforeEach(async () => {
    for (const { run } of [pair.a, pair.b]) await run('FLUSHALL');
  });
  afterEach(async () => {
    for (const link of running.splice(0)) await link.stop();
  });
  return { pair, running };
}
