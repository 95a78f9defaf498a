import { describe, expect, test } from 'vitest';
import type { Seen } from '../../src/fence/preflight.js';
import type { RedisFence } from '../../src/fence/redis-fence.js';
import { redisChecks } from '../../src/fence/redis-preflight.js';

/** What the check of this name says of a server with these settings. */
async function seen(name: string, settings: Record<string, string>): Promise<Seen> {
  const client = { config: async (_get: string, one: string) => [one, settings[one]] };
  return redisChecks({ client } as unknown as RedisFence)
    .find((check) => check.name === name)!
    .look();
}

describe('eviction', () => {
  test.each([
    ['noeviction', '0', 'noeviction'],
    ['noeviction', '1048576', 'noeviction'],
    ['allkeys-lru', '0', /^allkeys-lru: with a maxmemory it would evict the unit states/],
    ['volatile-ttl', '0', /^volatile-ttl: with a maxmemory it would evict keys that the other side keeps/],
    ['allkeys-lru', '2097152', /^allkeys-lru above 2 MB: it would evict the unit states/],
  ])('%s with maxmemory %s', async (policy, maxmemory, said) => {
    const found = await seen('eviction', { 'maxmemory-policy': policy, maxmemory });
    if (typeof said === 'string') expect(found).toBe(said);
    else expect(found).toEqual({ wrong: expect.stringMatching(said) as string });
  });
});

describe('output buffer', () => {
  const MB = 1024 * 1024;
  test.each([
    [256 * MB, 64 * MB, true],
    [0, 0, true],
    [256 * MB, 0, true],
    [256 * MB, 32 * MB, false],
    [32 * MB, 0, false],
  ])('hard %i, soft %i: %s', async (hard, soft, fine) => {
    const limits = `normal 0 0 0 slave ${hard} ${soft} 60 pubsub 33554432 8388608 60`;
    expect(typeof (await seen('output buffer', { 'client-output-buffer-limit': limits })) === 'string').toBe(
      fine,
    );
  });
});
