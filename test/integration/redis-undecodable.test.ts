import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest';
import { StatusTracker } from '../../replicators/core/status.js';
import { Applier } from '../../replicators/redis/applier.js';
import { Block } from '../../replicators/redis/block.js';
import { takeGeneration } from '../../replicators/redis/checkpoint.js';
import { RedisConnection } from '../../replicators/redis/connection.js';
import { FullSync } from '../../replicators/redis/full-sync.js';
import { initialiseRedisLink } from '../../replicators/redis/initialise.js';
import { Judge } from '../../replicators/redis/judge.js';
import { Ownership } from '../../replicators/redis/ownership.js';
import type { Replica } from '../../replicators/redis/replica.js';
import { targetLimits } from '../../replicators/redis/target-limits.js';
import { NEW_FORMATS, bytes, entry, rdbFile, string } from '../support/rdb-fixture.js';
import { redisLinkConfig, startRedisPair } from '../support/redis-link.js';
import type { RedisPair } from '../support/redis-link.js';

/** What 7.4 saves, and the server here does not know: made by hand. */
const SOURCE = rdbFile(12, bytes(0xfe, 0), entry(0, 'plain', string('new')), ...Object.values(NEW_FORMATS));
const KEYS = ['h22', 'h23', 'h24', 'h25'];

let pair: RedisPair;

beforeAll(async () => {
  pair = await startRedisPair();
});
afterAll(async () => pair.stop());
beforeEach(async () => pair.b.run('FLUSHALL'));

/** A resync of dc-b from what dc-a has saved. @returns the keys that were put aside */
async function resynced(excludeKeys: string[] = []): Promise<string[]> {
  const config = redisLinkConfig(pair, 'a', { filters: { excludeKeys } });
  await initialiseRedisLink(config, { resync: true });
  const [target, data] = await Promise.all(
    ['t', 'd'].map((name) => RedisConnection.open(config.target, name)),
  );
  try {
    const checkpoint = await takeGeneration(target!, config.link, undefined);
    const replica = {
      rdbForm: async () => ({ length: SOURCE.length }),
      rdb: async function* () {
        yield SOURCE;
      },
    };
    const resync = { kind: 'full' as const, replid: 'r'.repeat(40), offset: 1 };
    const sync = new FullSync({
      ...{ config, resync, target: target!, pace: null, prune: true, silenceMs: 5_000 },
      replica: replica as unknown as Replica,
      applier: new Applier(data!, config.link, checkpoint!, () => undefined),
      judge: new Judge(config, new Ownership('dc-a', [])),
      tracker: Object.assign(new StatusTracker(config.link), { filtered: 0 }),
      limits: await targetLimits(target!),
      sourceNow: Date.now,
      wait: async () => undefined,
      failed: new Promise<never>(() => undefined),
      signal: new AbortController().signal,
    });
    await sync.run();
    await sync.write(new Block({ offset: 1, db: 0 }), { phase: 'streaming' });
    const records = (await pair.b.run('HVALS', `interlock:quarantine:${config.link}`)) as Buffer[];
    return records.map((text) => (JSON.parse(text.toString()) as { key: string }).key).sort();
  } finally {
    target!.destroy();
    data!.destroy();
  }
}

it('a resync leaves on the target what it has of a key whose value it cannot take', async () => {
  for (const key of [...KEYS, 'plain', 'gone']) await pair.b.run('SET', key, 'before');
  expect(await resynced()).toEqual(KEYS);
  for (const key of KEYS) expect(await pair.b.text('GET', key)).toBe('before');
  expect(await pair.b.text('GET', 'plain')).toBe('new');
  expect(await pair.b.run('EXISTS', 'gone')).toBe(0);
});

it('one that is not carried is not put aside', async () => {
  await pair.b.run('SET', 'h25', 'before');
  expect(await resynced(['h2[345]'])).toEqual(['h22']);
  expect(await pair.b.text('GET', 'h25')).toBe('before');
});
