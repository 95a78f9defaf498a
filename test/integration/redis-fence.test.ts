import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { openRedis } from '../../src/fence/redis-client.js';
import { RedisFence } from '../../src/fence/redis-fence.js';
import type { Witnesses } from '../../src/fence/redis-freshness.js';
import { preflightRedis } from '../../src/fence/redis-preflight.js';
import type { UnitChange } from '../../src/fence/types.js';
import { silentLogger } from '../../src/observability/logger.js';
import { rulesHash } from '../../src/routing/hash.js';
import { switchRules } from '../../src/routing/plan.js';
import { unitsOf } from '../../src/routing/rules.js';
import { RedisStates } from '../../src/rule-center/fence-states.js';
import { Reassertion } from '../../src/rule-center/reassertion.js';
import { RuleBook } from '../../src/rule-center/rule-book.js';
import { asVersion, startRedis } from '../support/redis.js';
import type { TestRedis } from '../support/redis.js';
import { RUN_1, RUN_2, buckets, rulesAt, testRules } from './fence-fixture.js';

const UNITS = buckets(20);
const ALL = unitsOf(testRules()).length;

let redis: TestRedis;
let fence: RedisFence;

beforeAll(async () => {
  redis = await startRedis({
    config: {
      appendonly: 'yes',
      appendfsync: 'always',
      'maxmemory-policy': 'noeviction',
      'repl-backlog-size': '64mb',
    },
  });
  fence = new RedisFence('dc-a', 'cache', openRedis(redis, 'test'));
});
afterAll(async () => {
  fence.client.disconnect();
  await redis.stop();
});
beforeEach(async () => {
  await redis.cli('FLUSHALL');
  await fence.addMissing(testRules());
});

function change(over: Partial<UnitChange> = {}): UnitChange {
  return { units: UNITS, to: 'write_disabled', owner: 'dc-a', epoch: 2, holder: RUN_1, ...over };
}
const marker = (id: string) => ({ id, ...RUN_1, epoch: 2 });
/** How often keys were set, by anybody. */
const sets = async (): Promise<string> =>
  /cmdstat_set:calls=(\d+)/.exec(await redis.cli('INFO', 'commandstats'))![1]!;

/** Between what a change has read and what it writes. */
function beforeNextSwap(meanwhile: () => Promise<unknown>): void {
  const { client } = fence;
  const evalsha = client.evalsha.bind(client);
  client.evalsha = (async (...given: Parameters<typeof evalsha>) => {
    client.evalsha = evalsha;
    await meanwhile();
    return evalsha(...given);
  }) as typeof client.evalsha;
}

/** No other data center has a Redis of that name, and the rules are the first. */
const witnesses = { history: { before: async () => undefined }, source: undefined };

/** What a rule center of dc-a does when both data centers have the same rules. */
function reassertion(
  over: { rules?: ReturnType<typeof rulesAt>; peerEpoch?: number; history?: Witnesses['history'] } = {},
): Reassertion {
  const rules = over.rules ?? testRules();
  const book = new RuleBook();
  book.offer({ rules, hash: rulesHash(rules) });
  const epoch = over.peerEpoch ?? rules.epoch;
  const peer = { dc: 'dc-b', health: async () => ({ epoch, hash: rulesHash(rules), storeEpoch: epoch }) };
  return new Reassertion(
    [new RedisStates(fence, { ...witnesses, ...(over.history && { history: over.history }) })],
    peer,
    book,
    async () => rules.epoch,
    silentLogger(),
  );
}

describe('states, as those of MySQL', () => {
  test('are written whole, bound to the server, and a second time not at all', async () => {
    const states = await fence.states();
    expect(states).toHaveLength(ALL);
    expect(states.find(({ unit }) => unit === 'cn-west/7')).toEqual({
      ...{ unit: 'cn-west/7', state: 'remote', owner: 'dc-b', epoch: 1, mappingVersion: 1, holder: null },
      server: await fence.identity(),
    });
    expect(await fence.addMissing(testRules())).toMatchObject({ written: [] });
    await redis.cli('HDEL', 'interlock:units', 'cn-east/3');
    expect(await fence.addMissing(rulesAt(4))).toMatchObject({ written: ['cn-east/3'] });
  });

  test('a fence changes all units and sets the marker in one step; a repeat writes nothing', async () => {
    const first = await fence.change(change({ marker: marker('m1') }));
    expect(first.changed).toBe(true);
    expect(JSON.parse(await redis.cli('GET', 'interlock:marker'))).toEqual(marker('m1'));
    const before = await sets();
    expect(await fence.change(change({ marker: marker('m1') }))).toMatchObject({ changed: false });
    expect(await sets()).toBe(before);
    const { states, server } = await fence.evidence(UNITS);
    for (const row of states)
      expect(row).toMatchObject({ state: 'write_disabled', epoch: 2, server, holder: RUN_1 });
    // In the stream: one block, so that no link sees the one without the other.
    expect((await fence.states(['cn-east/20']))[0]).toMatchObject({ state: 'open', epoch: 1 });
  });

  test('late, foreign and impossible changes are refused, and change nothing', async () => {
    await fence.change(change());
    const refused: [UnitChange, string][] = [
      [change({ epoch: 1 }), 'StaleEpoch'],
      [change({ holder: RUN_2 }), 'EpochConflict'],
      [change({ epoch: 3, holder: RUN_2 }), 'HeldByOther'],
      [change({ epoch: 3, units: ['cn-west/1'] }), 'NotOwner'],
      [change({ epoch: 3, units: ['cn-north/1'] }), 'Refused'],
      [change({ epoch: 3, units: [] }), 'BadInput'],
    ];
    const before = await fence.states();
    for (const [one, code] of refused) await expect(fence.change(one), code).rejects.toMatchObject({ code });
    await expect(fence.raise(change({ epoch: 3, to: 'remote', owner: 'dc-b' }))).rejects.toMatchObject({
      code: 'AlreadySwitched',
    });
    expect(await fence.states()).toEqual(before);
    await fence.change(change({ epoch: 3, holder: RUN_2, takeOverFrom: RUN_1 }));
    await fence.reopen(change({ epoch: 4, holder: RUN_2, to: 'open' }));
    expect((await fence.states(UNITS)).every(({ state, epoch }) => state === 'open' && epoch === 4)).toBe(
      true,
    );
    await fence.change(change({ epoch: 5, to: 'remote', owner: 'dc-b' }));
    await expect(fence.reopen(change({ epoch: 6, to: 'open' }))).rejects.toMatchObject({
      code: 'AlreadySwitched',
    });
  });

  test('a change that another one overtakes looks again', async () => {
    const other = new RedisFence('dc-a', 'cache', openRedis(redis, 'test'));
    beforeNextSwap(() => other.change(change({ epoch: 7, units: UNITS.slice(3, 4) })));
    await expect(fence.change(change({ epoch: 5 }))).rejects.toMatchObject({ code: 'StaleEpoch' });
    expect((await fence.states(UNITS)).filter(({ state }) => state === 'write_disabled')).toHaveLength(1);
    other.client.disconnect();
  });

  test('many at once: an epoch never goes back, and of two contents of one epoch one is refused', async () => {
    const other = new RedisFence('dc-a', 'cache', openRedis(redis, 'test'));
    const watcher = openRedis(redis, 'test');
    let going = true;
    const backwards: string[] = [];
    const watching = (async () => {
      const highest = new Map<string, number>();
      while (going) {
        const values = await watcher.hmget('interlock:units', ...UNITS);
        UNITS.forEach((unit, i) => {
          const epoch = Number(values[i]!.split(':')[2]);
          if (epoch < (highest.get(unit) ?? 0)) backwards.push(`${unit}: ${epoch}`);
          highest.set(unit, epoch);
        });
      }
    })();
    const epochs = Array.from({ length: 40 }, (_, i) => 2 + Math.floor(i / 2));
    const done = await Promise.allSettled(
      epochs.map((epoch, i) =>
        (i % 2 === 0 ? fence : other).change(
          change({ epoch, to: i % 3 === 0 ? 'open' : 'write_disabled', units: UNITS.slice(i % 5) }),
        ),
      ),
    );
    going = false;
    await watching;
    for (const client of [other.client, watcher]) client.disconnect();
    expect(backwards).toEqual([]);
    for (const one of done)
      if (one.status === 'rejected')
        expect(['StaleEpoch', 'EpochConflict', 'HeldByOther']).toContain(
          (one.reason as { code: string }).code,
        );
    expect(done.some(({ status }) => status === 'fulfilled')).toBe(true);
  });
});

describe('a server that has forgotten', () => {
  async function restart(): Promise<void> {
    await redis.kill('SIGKILL');
    await redis.restart();
  }

  test('restarted: no fence is made on it; the rule center binds the states when nothing speaks against it', async () => {
    await restart();
    await expect(fence.change(change())).rejects.toMatchObject({ code: 'ServerIdentityChanged' });
    const center = reassertion();
    await center.look();
    expect(center.problems).toEqual([]);
    expect(center.reasserted).toBe(1);
    await fence.change(change());
    await restart();
    const again = reassertion();
    await again.look();
    expect(again.problems[0]).toMatchObject({ code: 'ServerIdentityChanged' });
    expect(again.problems[0]!.message).toContain('write-disabled');
    const disagree = reassertion({ peerEpoch: 9 });
    await disagree.look();
    expect(disagree.reasserted).toBe(0);
  });

  test('restarted between the look and the change: the change is not made', async () => {
    beforeNextSwap(restart);
    await expect(fence.change(change({ marker: marker('m1') }))).rejects.toMatchObject({
      code: 'ServerIdentityChanged',
    });
    expect(await redis.cli('EXISTS', 'interlock:marker')).toBe('0');
  });

  test('restarted in mid-fence: the compensation opens the units, and they count when the rule center has bound them', async () => {
    await fence.change(change());
    await restart();
    await fence.reopen(change({ epoch: 3, to: 'open' }));
    const { states, server } = await fence.evidence(UNITS);
    expect(states.every((row) => row.state === 'open' && row.server !== server)).toBe(true);
    const center = reassertion({ rules: rulesAt(3) });
    await center.look();
    expect(center.problems).toEqual([]);
    const bound = await fence.evidence(UNITS);
    expect(bound.states.every((row) => row.state === 'open' && row.server === bound.server)).toBe(true);
    // What is closed may always be closed.
    await restart();
    await fence.change(change({ epoch: 4, to: 'remote', owner: 'dc-b' }));
  });

  test('restarted with older data: a compensation does not make it look new', async () => {
    // Its units were moved away at epoch 2 and back at 4, and it has slept through that.
    await restart();
    await fence.reopen(change({ epoch: 4, to: 'open' }));
    await restart();
    await fence.reopen(change({ epoch: 6, to: 'open' }));
    expect((await fence.states(UNITS)).every(({ state, epoch }) => state === 'open' && epoch === 6)).toBe(
      true,
    );
    const away = switchRules(testRules(), UNITS, 'dc-b', 2, 'away');
    const back = switchRules(away, UNITS, 'dc-a', 4, 'back');
    const documents = [testRules(), away, back].map((rules) => ({ rules }));
    const history = {
      before: async (epoch: number) => documents.filter(({ rules }) => rules.epoch < epoch).at(-1),
    } as unknown as Witnesses['history'];
    const rules = { ...back, epoch: 6 };
    const center = reassertion({ rules, history });
    await center.look();
    expect(center.problems[0]!.message).toMatch(
      /20 units that dc-a owns now are there as before a switchover \(.*: open of dc-a at epoch 1\).*--accept-loss redis\/cache/,
    );
    await expect(fence.change(change({ epoch: 7 }))).rejects.toMatchObject({ code: 'ServerIdentityChanged' });
    // A person's word; from then on it is as any other.
    await fence.reassert(rules, true);
    await restart();
    const later = reassertion({ rules, history });
    await later.look();
    expect(later.problems).toEqual([]);
  });

  test('flushed: nobody asserts by itself what was lost with the data; an operator does, and a compensation is not held up', async () => {
    await fence.change(change());
    await redis.cli('FLUSHALL');
    await expect(fence.change(change({ epoch: 3 }))).rejects.toMatchObject({ code: 'Refused' });
    expect(await fence.reopen(change({ epoch: 3, to: 'open' }))).toMatchObject({ changed: false });
    const center = reassertion({ rules: rulesAt(3) });
    await center.look();
    expect(center.problems[0]!.message).toContain(`it has 0 unit states of ${ALL}`);
    expect(await fence.states()).toEqual([]);
    const named = {
      code: 'NeedsOperator',
      message: expect.stringContaining('--accept-loss redis/cache') as string,
    };
    await expect(fence.reassert(rulesAt(3))).rejects.toMatchObject(named);
    // Nor does `rules init`, once there are rules.
    await expect(fence.addMissing(rulesAt(3), true)).rejects.toMatchObject(named);
    expect(await fence.states()).toEqual([]);
    await fence.reassert(rulesAt(3), true);
    expect((await fence.evidence(UNITS)).states).toHaveLength(UNITS.length);
  });

  test('evicted: as flushed, and preflight says so before', async () => {
    const names = async (): Promise<string[]> =>
      (await preflightRedis(fence)).filter(({ ok }) => !ok).map(({ name }) => name);
    expect(await names()).toEqual([]);
    try {
      await redis.cli('CONFIG', 'SET', 'maxmemory-policy', 'allkeys-random', 'maxmemory', '3mb');
      expect(await names()).toEqual(['dc-a redis/cache: eviction']);
      for (let i = 0; (await redis.cli('EXISTS', 'interlock:units')) === '1'; i++)
        await redis.cli(
          'EVAL',
          `for i = 1, 500 do redis.call('SET', 'k${i}-' .. i, string.rep('x', 500)) end`,
          '0',
        );
      await expect(fence.change(change())).rejects.toMatchObject({ code: 'Refused' });
    } finally {
      await redis.cli('CONFIG', 'SET', 'maxmemory', '0', 'maxmemory-policy', 'noeviction');
    }
  });

  test('a replica that is promoted is another server', async () => {
    const replica = await startRedis({ config: { replicaof: `127.0.0.1 ${redis.port}` } });
    const there = new RedisFence('dc-a', 'cache', openRedis(replica, 'test'));
    try {
      await expect.poll(() => there.states().then((rows) => rows.length), { timeout: 20_000 }).toBe(ALL);
      expect((await preflightRedis(there)).find(({ name }) => name.endsWith('role'))).toMatchObject({
        ok: false,
      });
      await replica.cli('REPLICAOF', 'NO', 'ONE');
      await expect(there.change(change())).rejects.toMatchObject({ code: 'ServerIdentityChanged' });
    } finally {
      there.client.disconnect();
      await replica.stop();
    }
  });
});

test('preflight names what is wrong, and what to do', async () => {
  const bad = await startRedis({
    config: { 'client-output-buffer-limit': 'replica 1mb 1mb 1', requirepass: 'p' },
  });
  const forgets = await startRedis({ config: { appendonly: 'yes', 'repl-backlog-size': '64mb' } });
  const setUser = (...given: string[]): Promise<string> => forgets.cli('ACL', 'SETUSER', ...given);
  await setUser('own', 'on', '>p', '~*', '&*', '+@all');
  await setUser('default', 'resetkeys');
  const worse = await startRedis({ config: { 'cluster-enabled': 'yes' } });
  await bad.cli(
    '-a',
    'p',
    '--no-auth-warning',
    'ACL',
    'SETUSER',
    'poor',
    'on',
    '>p',
    '~*',
    '+@all',
    ...['-psync', '-eval', '-watch', '-function', '-dump', '-memory'],
  );
  const old = await asVersion(forgets.port, '6.2.');
  const fences = [
    openRedis({ ...bad, password: 'p' }, 'test'),
    openRedis({ ...bad, user: 'poor', password: 'p' }, 'test'),
    openRedis({ ...bad, password: 'wrong' }, 'test'),
    openRedis(worse, 'test'),
    openRedis({ ...forgets, user: 'own', password: 'p' }, 'test'),
    openRedis({ ...forgets, port: old.port, user: 'own', password: 'p' }, 'test'),
  ].map((client) => new RedisFence('dc-a', 'cache', client));
  try {
    const wrong = await Promise.all(
      fences.map(async (one) =>
        (await preflightRedis(one))
          .filter(({ ok }) => !ok)
          .map(({ name, detail }) => `${name.replace(/.*: /, '')}: ${detail}`),
      ),
    );
    expect(wrong[0]!.join('\n')).toMatch(
      /backlog: .*CONFIG SET repl-backlog-size \d+\noutput buffer: .*replica 512mb/,
    );
    expect(wrong[1]!.join('\n')).toMatch(
      /rights: user poor may not PSYNC \(read the replication stream\), MEMORY \(verify\), DUMP \(repair\), WATCH \(.*\), EVAL \(.*\), FUNCTION \(apply a copy\): ACL/,
    );
    expect(wrong[2]).toHaveLength(1);
    expect(wrong[2]![0]).toMatch(/WRONGPASS/);
    expect(wrong[3]![0]).toMatch(/^version: .*cluster mode/);
    expect(wrong[5]!.join('\n')).toMatch(/^version: 6\.2\.9+, expected Redis 7 or later$/m);
    expect(wrong[4]!.join('\n')).toMatch(/persistence: the user default may not write/);
  } finally {
    for (const { client } of fences) client.disconnect();
    old.close();
    await bad.stop();
    await worse.stop();
    await forgets.stop();
  }
});
