import type { Redis } from 'ioredis';
import { isInterlockError } from '../../../src/errors.js';
import { ShopError } from './requests.js';
import type { WalletRef } from './wallet.js';

/** Which of the shop's Redis keys are whose; the topology's `keys`. */
export const SHOP_KEYS = ['visit', 'count', 'limit', 'cache'].map((kind) => ({
  pattern: `${kind}:{region}:{userId}`,
}));

/** A user's visits in so short a time are refused beyond this many. */
const MOST_VISITS = 1_000;
const LIMIT_MS = 1_000;
const CACHE_MS = 1_000;

/** What the shop keeps in Redis: a count of visits that must be right, a rate limit and a cache. All on the SDK. */
export class Visits {
  constructor(private readonly redis: Redis) {}

  /**
   * Counts a visit, once: the request's id and the count change in one step. The limit lives for a second, and is no link's to carry.
   * `visit:<region>:<user>` has each request's id with how often it was carried out; a repeat of a request is not counted.
   */
  async visit(
    requestId: string,
    { region, userId }: WalletRef,
  ): Promise<{ visits: number; repeated: boolean }> {
    const of = (kind: string): string => `${kind}:${region}:${userId}`;
    if (Number(await this.redis.get(of('limit'))) > MOST_VISITS)
      throw new ShopError(429, 'TooManyVisits', `more than ${MOST_VISITS} visits in ${LIMIT_MS} ms`);
    const counted = await this.redis.eval(
      COUNT_ONCE,
      3,
      of('visit'),
      of('count'),
      of('limit'),
      requestId,
      LIMIT_MS,
    );
    if (counted !== null) return { visits: Number(counted), repeated: false };
    return { visits: Number(await this.redis.get(of('count'))), repeated: true };
  }

  /** From the cache, else from `read`. A data center that does not own the user reads, and caches nothing. */
  async cached({ region, userId }: WalletRef, read: () => Promise<number>): Promise<number> {
    const key = `cache:${region}:${userId}`;
    const found = await this.redis.get(key);
    if (found !== null) return Number(found);
    const value = await read();
    try {
      await this.redis.set(key, value, 'PX', CACHE_MS);
    } catch (error) {
      if (!isInterlockError(error)) throw error;
    }
    return value;
  }
}

const COUNT_ONCE = `
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1 then return nil end
redis.call('HINCRBY', KEYS[1], ARGV[1], 1)
redis.call('INCR', KEYS[3])
redis.call('PEXPIRE', KEYS[3], ARGV[2])
return redis.call('INCR', KEYS[2])`;
