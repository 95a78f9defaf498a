/* eslint-disable @typescript-eslint/unbound-method -- activities are plain functions, they do not use `this` */
import { cp, rm } from 'node:fs/promises';
import path from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { auxiliaryKey } from '../../replicators/redis/checkpoint.js';
import { RedisConnection } from '../../replicators/redis/connection.js';
import { initialise } from '../../src/fence/init.js';
import { openRedis } from '../../src/fence/redis-client.js';
import { RedisFence } from '../../src/fence/redis-fence.js';
import { silentLogger } from '../../src/observability/logger.js';
import { rulesHash } from '../../src/routing/hash.js';
import type { Rules } from '../../src/routing/rules.js';
import { RedisStates } from '../../src/rule-center/fence-states.js';
import { Reassertion } from '../../src/rule-center/reassertion.js';
import { RuleBook } from '../../src/rule-center/rule-book.js';
import { initialRules } from '../../src/topology/derive.js';
import type { LinkMarker, WriteDisableInput } from '../../workflows/contract.js';
import { redisLinkConfig, redisSide, runRedisLink, startRedisLink, until } from '../support/redis-link.js';
import type { RedisPair, RunningRedisLink } from '../support/redis-link.js';
import { startRedis } from '../support/redis.js';
import { RUN, failure, run, startActivities, step } from './activities-fixture.js';
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
  drainTimeoutMs: 10_000,
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

describe('a Redis that comes back with an older snapshot', () => {
  const dump = () => path.join(pair.b.server.directory, 'older');
  const appendOnly = () => path.join(pair.b.server.directory, 'appendonlydir');
  /** The files of `b` as they are now, in the place where the next start looks for them. */
  async function keep(): Promise<void> {
    await rm(dump(), { recursive: true, force: true });
    await cp(appendOnly(), dump(), { recursive: true });
  }
  async function comeBack(): Promise<void> {
    await link.stop();
    await pair.b.server.kill('SIGKILL');
    await rm(appendOnly(), { recursive: true });
    await cp(dump(), appendOnly(), { recursive: true });
    await pair.b.server.restart();
    pair.b.client = await RedisConnection.open({ host: '127.0.0.1', port: pair.b.server.port }, 'test');
  }
  /** The rule center of dc-b, once both have the rules of epoch 3. */
  async function look(rules = switchInput().rules, source = redisOf('dc-a')): Promise<string | undefined> {
    const { rules: history } = f.stores.get('dc-b')!;
    const book = new RuleBook();
    const hash = rulesHash(rules);
    book.offer({ rules, hash });
    const peer = { dc: 'dc-a', health: async () => ({ epoch: rules.epoch, hash, storeEpoch: rules.epoch }) };
    const states = new RedisStates(redisOf('dc-b'), { history, source });
    const center = new Reassertion([states], peer, book, async () => rules.epoch, silentLogger());
    await center.look();
    expect(center.problems.every(({ code }) => code === 'ServerIdentityChanged')).toBe(true);
    return center.problems[0]?.message;
  }
  const counts = async (): Promise<boolean> => {
    const { server, asserted } = await redisOf('dc-b').summary();
    return server === asserted;
  };

  it('of before the switch is not opened, caught up or not, but by a word', async () => {
    await keep();
    await run(f.dc['dc-b']!.switchTarget, switchInput());
    await run(f.dc['dc-a']!.handOverSource, switchInput());
    await pair.b.server.cli('SET', 'own', 'acknowledged');
    await comeBack();
    const message = await look();
    expect(message).toContain('100 units that dc-b owns now are there as before a switchover');
    expect(message).toContain('interlock replicate resync');
    expect(message).toContain('interlock rules reassert --dc dc-b --accept-loss redis/cache');
    link = await startRedisLink(redisLinkConfig(pair, 'a'), { resync: true });
    await until('copied', async () =>
      (await pair.b.text('GET', auxiliaryKey(REDIS)))!.includes('"streaming"'),
    );
    expect(await look()).toContain('as before a switchover');
    expect(await counts()).toBe(false);
    await redisOf('dc-b').reassert(switchInput().rules, true);
    expect(await counts()).toBe(true);
    expect(await seen('dc-b')).toBe('open of dc-b at 3, open of dc-b at 3');
  });

  it('of before the marker, to which the switch then writes, opens when its link has caught up', async () => {
    await link.stop();
    await keep();
    link = runRedisLink(link.config);
    await pair.a.run('SET', 'k', 'last of dc-a');
    // Before its units are fenced again: behind the snapshot.
    await run(f.dc['dc-a']!.writeDisable, { ...fenceInput(), ...refenced() });
    await until('the marker is there', () => link.markers.some(({ markerId }) => markerId === 'm-again'));
    await comeBack();
    // The point of no return was passed before.
    await redisOf('dc-b').change({ ...opened(), epoch: 5 });
    const { rules } = step(base, UNITS, 5, { owner: 'dc-b', state: 'open' });
    expect(await look(rules)).toMatch(/does not stand behind the last fence of dc-a.*m-again.*accept-loss/s);
    const gone = new RedisFence('dc-a', 'cache', openRedis({ host: '127.0.0.1', port: 1 }, 'test'));
    expect(await look(rules, gone)).toContain('dc-a redis/cache does not answer');
    gone.client.disconnect();
    expect(await counts()).toBe(false);
    link = runRedisLink(link.config);
    await until('it has caught up', () => link.status().lastMarker === 'm-again');
    expect(await look(rules)).toBeUndefined();
    expect(await counts()).toBe(true);
    expect(await pair.b.server.cli('GET', 'k')).toBe('last of dc-a');
  });
  const refenced = () => ({
    ...step(base, UNITS, 4, { owner: 'dc-a', state: 'write_disabled' }),
    links: [{ link: REDIS, store: 'redis/cache', markerId: 'm-again' }],
  });
  const opened = () => ({ units: UNITS, to: 'open' as const, owner: 'dc-b', holder: RUN });

  it('as new as its last fence is opened by itself', async () => {
    await run(f.dc['dc-b']!.switchTarget, switchInput());
    await keep();
    await comeBack();
    expect(await look()).toBeUndefined();
    expect(await counts()).toBe(true);
    expect(await seen('dc-b')).toBe('open of dc-b at 3, open of dc-b at 3');
  });

  it('of an earlier time as the owner is not opened', async () => {
    await run(f.dc['dc-b']!.switchTarget, switchInput());
    await keep();
    const { rules } = f.stores.get('dc-b')!;
    await rules.publish(step(base, UNITS, 5, { owner: 'dc-a', state: 'open' }).rules);
    const again = step(base, UNITS, 7, { owner: 'dc-b', state: 'open' }).rules;
    await rules.publish(again);
    await comeBack();
    expect(await look(again)).toContain('open of dc-b at epoch 3');
    expect(await counts()).toBe(false);
  });
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
