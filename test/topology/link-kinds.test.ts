import { describe, expect, test } from 'vitest';
import { formatLinkId, parseLinkId } from '../../replicators/core/contract.js';
import { CommandTable } from '../../replicators/redis/commands.js';
import { linkConfigOf, linkIds } from '../../replicators/host/configure.js';
import { problemOf } from '../../replicators/host/options.js';
import { isInterlockError } from '../../src/errors.js';
import { logicalTopologyHash } from '../../activities/plan.js';
import { isRedisWrite } from '../../src/topology/redis-commands.js';
import { wantedLinks } from '../../src/topology/derive.js';
import { topologyHash, validateTopology } from '../../src/topology/load.js';
import { exampleDocument } from '../support/topology.js';

/* eslint-disable @typescript-eslint/no-explicit-any, @typescript-eslint/no-unsafe-member-access, @typescript-eslint/no-unsafe-assignment, @typescript-eslint/no-unsafe-return, @typescript-eslint/no-unsafe-call */

/** The example with a Redis and a Kafka store in both data centers, and a link of each kind. */
function document(change: (document: any) => void = () => {}): Record<string, unknown> {
  const whole: any = exampleDocument();
  for (const [dc, base] of [
    ['dc-a', 21000],
    ['dc-b', 22000],
  ] as const) {
    const { stores } = whole.datacenters[dc];
    stores.redis = {
      cache: { host: '127.0.0.1', port: base + 10, password: { env: 'REDIS_PASSWORD' } },
    };
    stores.kafka = { events: { brokers: [`127.0.0.1:${base + 20}`] } };
  }
  whole.keys = [{ pattern: 'user:{userId}:*' }, { pattern: 'coupon:*', central: 'coupons' }];
  whole.links.push({ store: 'redis/cache', exclude: ['tmp:*'] }, { store: 'kafka/events', from: 'dc-a' });
  change(whole);
  return whole;
}

function problems(change: (document: any) => void): string[] {
  try {
    validateTopology(document(change));
  } catch (error) {
    if (!isInterlockError(error, 'BadInput')) throw error;
    return (error.details['problems'] as { path: string; value: string; expected: string }[]).map(
      ({ path, value, expected }) => `${path}: ${value}: ${expected}`,
    );
  }
  return [];
}

test('stores and links of each kind, with their own options and defaults', () => {
  const topology = validateTopology(document());
  expect(linkIds(topology)).toEqual([
    ...['mysql/main:dc-a>dc-b', 'mysql/main:dc-b>dc-a'],
    ...['redis/cache:dc-a>dc-b', 'redis/cache:dc-b>dc-a', 'kafka/events:dc-a>dc-b'],
  ]);
  expect(wantedLinks(topology)[2]).toEqual({
    kind: 'redis',
    store: 'cache',
    from: 'dc-a',
    to: 'dc-b',
    include: ['*'],
    exclude: ['tmp:*'],
    excludeCommands: [],
    minTtlMs: 3000,
    onGap: 'stop',
    onQuarantine: 'stop',
    conflicts: 'owner-wins',
    unmapped: 'apply',
  });
  expect(wantedLinks(topology)[4]).toMatchObject({ kind: 'kafka', naming: '{from}.{topic}', onGap: 'stop' });
  const throttled = validateTopology(document((d) => (d.links[1].maxCommandsPerSecond = 9)));
  expect(wantedLinks(throttled)[2]).toMatchObject({ throttle: { maxRowsPerSecond: 9 } });
});

test('databases and commands are included and excluded', () => {
  const filters = (change: object): unknown => {
    const topology = validateTopology(document((d) => Object.assign(d.links[1], change)));
    return (linkConfigOf(topology, 'redis/cache:dc-a>dc-b', () => '') as { filters: unknown }).filters;
  };
  const keys = { includeKeys: ['*'], excludeKeys: ['tmp:*'] };
  expect(filters({})).toEqual({ ...keys, excludeCommands: [] });
  expect(filters({ databases: [0, 2], excludeCommands: ['APPEND', 'json.set'] })).toEqual({
    ...{ ...keys, includeDatabases: [0, 2], excludeCommands: ['APPEND', 'json.set'] },
  });
  expect(filters({ excludeDatabases: [3], includeCommands: ['set', 'del'] })).toEqual({
    ...{ ...keys, excludeDatabases: [3], includeCommands: ['set', 'del'], excludeCommands: [] },
  });
});

test('the commands that a filter may name are those that links know', () => {
  const table = new CommandTable();
  const known = [
    'set',
    'pexpireat',
    'move',
    'copy',
    'unlink',
    'zunionstore',
    'function',
    'flushall',
    'xgroup',
  ];
  for (const name of known) {
    expect(table.of(name).kind).not.toBe('unknown');
    expect(isRedisWrite(name)).toBe(true);
  }
  expect(table.names.filter((name) => name !== 'pfcount' && !isRedisWrite(name))).toEqual([]);
});

test('a link id says its kind, and no other text is one', () => {
  for (const id of ['mysql/a:b>c', 'redis/a:b>c', 'kafka/a-1:b>c', 'outbox/a:b']) {
    expect(formatLinkId(parseLinkId(id)!)).toBe(id);
  }
  for (const id of [
    'mongo/a:b>c',
    'redis:a/b>c',
    'redis/a:b>',
    'Redis/a:b>c',
    'mysql/a:b',
    'outbox/a:b>c',
    '',
  ]) {
    expect(parseLinkId(id)).toBeUndefined();
  }
});

test('the relay of an outbox is a link of each data center, from its MySQL to its Kafka', () => {
  const outbox = { store: 'outbox/main', kafka: 'events', tables: ['shop.wallet'] };
  const topology = validateTopology(document((d) => d.links.push(outbox)));
  expect(linkIds(topology).slice(-2)).toEqual(['outbox/main:dc-a', 'outbox/main:dc-b']);
  const config = linkConfigOf(topology, 'outbox/main:dc-b', () => 'secret');
  expect(config).toMatchObject({
    dc: 'dc-b',
    tables: ['shop.wallet'],
    target: { brokers: ['127.0.0.1:22020'] },
  });
  const wrong = (change: object): string[] => problems((d) => d.links.push({ ...outbox, ...change }));
  expect(wrong({ kafka: 'none' })[0]).toMatch(/kafka: none: expected a Kafka store of both data centers/);
  expect(wrong({ store: 'outbox/none' })[0]).toMatch(/expected a MySQL store of both data centers/);
  expect(wrong({ tables: ['shop.none'] })[0]).toMatch(
    /tables\.0: shop\.none: expected a table of tables, routed/,
  );
  expect(wrong({ from: 'dc-a' })[0]).toMatch(/from/);
  expect(problems((d) => d.links.push(outbox, outbox)).join()).toMatch(/expected one relay for a store/);
  expect(problemOf('outbox', { copy: true })?.field).toBe('copy');
});

describe('what is wrong with a store, a key pattern or a link is named', () => {
  const cases: [string, (d: any) => void, RegExp][] = [
    ['another kind', (d) => (d.links[1].store = 'mongo/x'), /^links\.1\.store: "mongo\/x": .*redis\/NAME/],
    [
      'an option of another kind',
      (d) => (d.links[1].rename = {}),
      /^links\.1\.rename: {}: expected no such key/,
    ],
    [
      'a command that no Redis has',
      (d) => (d.links[1].excludeCommands = ['append', 'nosuch']),
      /^links\.1\.excludeCommands\.1: "nosuch": expected the name of a command that writes/,
    ],
    [
      'a command that writes nothing',
      (d) => (d.links[1].includeCommands = ['get']),
      /^links\.1\.includeCommands\.0: /,
    ],
    ['a policy that there is not', (d) => (d.links[1].unmapped = 'drop'), /^links\.1\.unmapped: "drop": /],
    ['a bad value', (d) => (d.links[1].onGap = 'go-on'), /^links\.1\.onGap: "go-on": /],
    [
      'a store that is not there',
      (d) => (d.links[2].store = 'kafka/x'),
      /^links\.2\.store: .*dc-a has no kafka\/x/,
    ],
    ['a store of one DC', (d) => delete d.datacenters['dc-b'].stores.redis.cache, /dc-b has no redis\/cache/],
    [
      'the same direction twice',
      (d) => d.links.push({ store: 'redis/cache' }),
      /^links\.3: .*links\.1 is the same/,
    ],
    ['source-wins both ways', (d) => (d.links[1].conflicts = 'source-wins'), /^links\.1\.conflicts: /],
    [
      'two stores on one server',
      (d) => (d.datacenters['dc-a'].stores.redis.cache.port = 21003),
      /redis\.cache: 127\.0\.0\.1:21003: .*stores\.mysql\.main has this address/,
    ],
    [
      'one broker for both',
      (d) => (d.datacenters['dc-b'].stores.kafka.events.brokers = ['127.0.0.1:21020']),
      /dc-a\.stores\.kafka\.events\.brokers\.0 has this address/,
    ],
    [
      'a password in the file',
      (d) => (d.datacenters['dc-a'].stores.redis.cache.password = 'secret'),
      /redis\.cache\.password: \(not shown\)/,
    ],
    ['a copy without its topic', (d) => (d.links[2].naming = 'copy'), /^links\.2\.naming: .*\{topic\}/],
    [
      'a pattern of no user',
      (d) => (d.keys[0].pattern = 'user:*'),
      /^keys\.0\.pattern: user:\*: .*\{userId\}/,
    ],
    ['a pattern twice', (d) => d.keys.push(d.keys[0]), /^keys\.2\.pattern: .*each pattern once/],
    ['an unknown central', (d) => (d.keys[1].central = 'x'), /^keys\.1\.central: x: expected one of coupons/],
  ];
  for (const [name, change, expected] of cases) {
    test(name, () =>
      expect(
        problems(change).some((line) => expected.test(line)),
        String(problems(change)),
      ).toBe(true),
    );
  }
});

test('the hashes are of what is meant: addresses and accounts are not in them, stores, keys and links are', () => {
  const hashes = (change?: (document: any) => void): string[] => {
    const topology = validateTopology(document(change));
    return [topologyHash(topology), logicalTopologyHash(topology)];
  };
  const elsewhere = hashes((d) => {
    d.datacenters['dc-a'].stores.redis.cache = { host: 'r', port: 1, user: 'u', password: { env: 'P' } };
    d.datacenters['dc-a'].stores.kafka.events = {
      brokers: ['k:1'],
      sasl: { mechanism: 'plain', user: 'u', password: { env: 'P' } },
    };
  });
  expect(elsewhere).toEqual(hashes());
  for (const change of [
    (d: any) => (d.keys[0].pattern = 'u:{userId}:*'),
    (d: any) => d.keys.reverse(),
    (d: any) => (d.links[1].minTtlMs = 1),
    (d: any) => (d.datacenters['dc-a'].stores.redis.more = { host: 'r', port: 1 }),
  ]) {
    const other = hashes(change);
    hashes().forEach((hash, i) => expect(other[i]).not.toBe(hash));
  }
});

test('what a kind cannot do is refused in words, before anything is connected to', () => {
  const refused = (...given: Parameters<typeof problemOf>): string => problemOf(...given)?.message ?? '';
  expect(problemOf('mysql', { from: 'abc', maxRowsPerSecond: 1, copy: true })).toBeUndefined();
  expect(problemOf('redis', { copy: true })).toBeUndefined();
  expect(problemOf('redis', { resync: { tables: null } })).toBeUndefined();
  expect(problemOf('kafka', { from: 'earliest' })).toBeUndefined();
  expect(refused('redis', { from: 'earliest' })).toContain('begins at `now`');
  expect(refused('kafka', { from: '3' })).toContain('`now` or `earliest`');
  expect(refused('kafka', { copy: true })).toContain('--from earliest');
  expect(refused('kafka', { resync: { tables: null } })).toContain('--from earliest');
  expect(refused('redis', { resync: { tables: ['a.b'] } })).toContain('leave --tables out');
  expect(refused('redis', { maxRowsPerSecond: 1 })).toContain('maxCommandsPerSecond');
  const topology = validateTopology(document());
  expect(() => linkConfigOf(topology, 'redis/x:dc-a>dc-b', () => '')).toThrow(
    /expected one of .*redis\/cache:dc-a>dc-b/,
  );
});
