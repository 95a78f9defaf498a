/* eslint-disable @typescript-eslint/unbound-method -- activities are plain functions, they do not use `this` */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { auxiliaryKey } from '../../replicators/redis/checkpoint.js';
import { initialise } from '../../src/fence/init.js';
import type { Rules } from '../../src/routing/rules.js';
import { initialRules } from '../../src/topology/derive.js';
import type { LinkMarker, WriteDisableInput } from '../../workflows/contract.js';
import { redisLinkConfig, redisSide, startRedisLink, until } from '../support/redis-link.js';
import type { RedisPair, RunningRedisLink } from '../support/redis-link.js';
import { startRedis } from '../support/redis.js';
import { failure, run, startActivities, step } from './activities-fixture.js';
import type { ActivitiesFixture } from './activities-fixture.js';
import { buckets } from './fence-fixture.js';

const UNITS = buckets(100);
const MYSQL = 'mysql/main:dc-a>dc-b';
const REDIS = 'redis/cache:dc-a>dc-b';
const MARKERS: LinkMarker[] = [
  { link: MYSQL, store: 'main', markerId: 'm-mysql' },
  { link: REDIS, store: 'redis/cache', markerId: 'm-redis' },
];

let f: ActivitiesFixture;
let pair: Pick<RedisPair, 'a' | 'b'>;
let base: Rules;
let link: RunningRedisLink;

beforeAll(async () => {
  const config = { 'repl-diskless-sync-delay': '0', 'repl-backlog-size': '16mb' };
  const durable = { ...config, appendonly: 'yes', appendfsync: 'always' };
  const [a, b] = await Promise.all([startRedis({ config }), startRedis({ config: durable })]);
  pair = { a: await redisSide(a), b: await redisSide(b) };
  f = await startActivities('mariadb', { 'dc-a': a, 'dc-b': b });
  base = initialRules(f.topology);
});
afterAll(async () => {
  await f?.stop();
  for (const side of [pair.a, pair.b]) {
    side.client.destroy();
    await side.server.stop();
  }
});

const fenceInput = (): WriteDisableInput => ({
  ...step(base, UNITS, 2, { owner: 'dc-a', state: 'write_disabled' }),
  links: MARKERS,
});
const switchInput = (epoch = 3) => ({
  ...step(base, UNITS, epoch, { owner: 'dc-b', state: 'open' }),
  links: MARKERS,
});
const waiting = () => ({ ...switchInput(), waitMs: 2_000 });
const redisOf = (dc: string) => f.stores.get(dc)!.redis.get('cache')!;
/** `mysql, redis` */
const seen = async (dc: string): Promise<string> => {
  const stores = await Promise.all(
    f.stores.get(dc)!.all.map(async (fence) => {
      const states = await fence.states(UNITS);
      return [...new Set(states.map((row) => `${row.state} of ${row.owner} at ${row.epoch}`))].join('; ');
    }),
  );
  return stores.join(', ');
};

/** Fenced in dc-a, with the marker of each link where it has to be. */
beforeEach(async () => {
  await pair.a.server.cli('FLUSHALL');
  await pair.b.server.cli('FLUSHALL');
  await f.reset();
  link = await startRedisLink(redisLinkConfig(pair, 'a'));
  await pair.a.server.cli('SET', 'k', 'v');
  await run(f.dc['dc-a']!.writeDisable, fenceInput());
  await f.stores
    .get('dc-b')!
    .control.pool.query(
      "INSERT INTO interlock.link_checkpoint VALUES (?, 1, 'pos', 'server', 'm-mysql', 1, UTC_TIMESTAMP(6))",
      [MYSQL],
    );
  await until('the marker is there', () => link.markers.some(({ markerId }) => markerId === 'm-redis'));
});
afterEach(async () => {
  await link.stop();
});

async function isCompensated(): Promise<void> {
  const reopen = step(base, UNITS, 4, { owner: 'dc-a', state: 'open' });
  await run(f.dc['dc-b']!.raiseTarget, reopen);
  await run(f.dc['dc-a']!.reopenSource, reopen);
  expect(await seen('dc-a')).toBe('open of dc-a at 4, open of dc-a at 4');
}

it('a target that has everything is opened', async () => {
  await run(f.dc['dc-b']!.switchTarget, switchInput());
  expect(await seen('dc-b')).toBe('open of dc-b at 3, open of dc-b at 3');
  expect(await pair.b.server.cli('GET', 'k')).toBe('v');
});

const LOSSES: [string, string, () => Promise<unknown>][] = [
  ['was flushed', 'Refused', () => pair.b.server.cli('FLUSHALL')],
  ['has lost its states', 'Refused', () => pair.b.server.cli('HDEL', 'interlock:units', UNITS[7]!)],
  [
    'was restarted',
    'ServerIdentityChanged',
    async () => {
      await pair.b.server.kill('SIGKILL');
      await pair.b.server.restart();
    },
  ],
  [
    'is being copied again',
    'LinkStopped',
    async () => {
      await link.stop();
      const checkpoint = await pair.b.server.cli('GET', auxiliaryKey(REDIS));
      const syncing = JSON.stringify({ ...(JSON.parse(checkpoint) as object), phase: 'syncing' });
      await pair.b.server.cli('SET', auxiliaryKey(REDIS), syncing);
    },
  ],
  ['has lost the checkpoint of its link', 'LinkStopped', () => pair.b.server.cli('DEL', auxiliaryKey(REDIS))],
  [
    'has something put aside',
    'LinkStopped',
    () => pair.b.server.cli('HSET', `interlock:quarantine:${REDIS}`, '1', '{}'),
  ],
];

describe.each(LOSSES)('a Redis that %s behind the marker is not opened (%s)', (_name, type, lose) => {
  it('step by step', async () => {
    await lose();
    const { message } = await failure(run(f.dc['dc-b']!.switchTarget, switchInput()), type);
    expect(message).toMatch(/dc-b redis\/cache|redis\/cache:dc-a>dc-b/);
    expect(await f.stores.get('dc-b')!.control.states(UNITS)).toContainEqual(
      expect.objectContaining({ state: 'remote', epoch: 1 }),
    );
    await isCompensated();
  });

  it('with the fence', async () => {
    const fence = redisOf('dc-b');
    const evidence = fence.evidence.bind(fence);
    let lost = false;
    // Behind the look that has found everything drained.
    fence.evidence = async (units) => {
      if (!lost) await lose();
      lost = true;
      return evidence(units);
    };
    // The markers are read beside the states.
    const checkpointMarkers = fence.checkpointMarkers.bind(fence);
    let asked = 0;
    fence.checkpointMarkers = async (links) => {
      if (links.length > 0 && ++asked > 1) await until('it is lost', () => lost);
      return checkpointMarkers(links);
    };
    try {
      expect(await run(f.dc['dc-b']!.switchWhenDrained, waiting())).toBeNull();
    } finally {
      Object.assign(fence, { evidence, checkpointMarkers });
    }
    expect(lost).toBe(true);
    expect((await f.stores.get('dc-b')!.control.states(UNITS))[0]).toMatchObject({
      state: 'remote',
      epoch: 1,
    });
    await isCompensated();
  });
});

it('one that is lost behind the point of no return is named, stays closed, and the others open', async () => {
  const fence = redisOf('dc-b');
  const change = fence.change.bind(fence);
  fence.change = async (...given) => {
    await pair.b.server.cli('FLUSHALL');
    return change(...given);
  };
  try {
    const { message } = await failure(run(f.dc['dc-b']!.switchTarget, switchInput()), 'NeedsOperator');
    expect(message).toContain('dc-b redis/cache has no state of 100 units');
    expect(message).toContain('interlock rules reassert --dc dc-b --accept-loss redis/cache');
  } finally {
    fence.change = change;
  }
  expect(await seen('dc-b')).toBe('open of dc-b at 3, ');
});

it('`rules init` leaves a Redis closed that has lost its states, does all else, and says what to do', async () => {
  await pair.b.server.cli('FLUSHALL');
  await f.stores
    .get('dc-b')!
    .control.pool.query('DELETE FROM interlock.unit_state WHERE unit = ?', [UNITS[0]]);
  await expect(initialise(f.stores, base, () => undefined)).rejects.toMatchObject({
    code: 'NeedsOperator',
    message: expect.stringContaining(
      'interlock rules reassert --dc dc-b --accept-loss redis/cache',
    ) as string,
  });
  expect(await redisOf('dc-b').states()).toEqual([]);
  expect(await f.stores.get('dc-b')!.control.states(UNITS)).toHaveLength(UNITS.length);
});
