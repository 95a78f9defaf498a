import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { stringify } from 'yaml';
import { InterlockError } from '../../src/errors.js';
import {
  loadTopology,
  parseTopology,
  topologyHash,
  resolveSecret,
  validateTopology,
} from '../../src/topology/load.js';
import {
  controlStore,
  initialRules,
  otherDc,
  wantedLinks,
  wantedMysqlLinks,
} from '../../src/topology/derive.js';
import { exampleDocument, exampleTopology } from '../support/topology.js';

/* eslint-disable @typescript-eslint/no-explicit-any, @typescript-eslint/no-unsafe-member-access, @typescript-eslint/no-unsafe-assignment, @typescript-eslint/no-unsafe-return, @typescript-eslint/no-unsafe-call */

interface ProblemLine {
  path: string;
  value: string;
  expected: string;
}

function problemsOf(action: () => unknown): ProblemLine[] {
  try {
    action();
  } catch (error) {
    if (!(error instanceof InterlockError)) throw error;
    expect(error.code).toBe('BadInput');
    const problems = error.details['problems'] as ProblemLine[];
    for (const p of problems) expect(error.message).toContain(`  ${p.path}: ${p.value}: ${p.expected}`);
    return problems;
  }
  throw new Error('expected BadInput, got no error');
}

function problemsAfter(change: (document: any) => void): ProblemLine[] {
  const document = exampleDocument();
  change(document);
  return problemsOf(() => validateTopology(document));
}

test('the example is valid, with defaults filled in', () => {
  const topology = exampleTopology();
  expect(topology.limits.holdMs).toBe(10_000);
  expect(controlStore(topology, 'dc-b').name).toBe('main');
  expect(otherDc(topology, 'dc-b')).toBe('dc-a');
});

describe('every problem names its path, its value and what was expected', () => {
  const cases: [string, (d: any) => void, string, string, RegExp][] = [
    ['a missing key', (d) => delete d.defaultRegion, 'defaultRegion', '(missing)', /expected string/],
    ['a wrong type', (d) => (d.version = '1'), 'version', '"1"', /expected 1/],
    ['an unknown key', (d) => (d.colour = 'red'), 'colour', '"red"', /no such key/],
    [
      'a name with upper case',
      (d) => (d.regions['CN'] = { home: 'dc-a' }),
      'regions.CN',
      '"CN"',
      /lower-case letters/,
    ],
    [
      'a port out of range',
      (d) => (d.datacenters['dc-a'].stores.mysql.main.port = 70_000),
      'datacenters.dc-a.stores.mysql.main.port',
      '70000',
      /65535/,
    ],
    [
      'a URL without scheme',
      (d) => (d.datacenters['dc-a'].ruleCenter.url = 'localhost:80'),
      'datacenters.dc-a.ruleCenter.url',
      '"localhost:80"',
      /http/,
    ],
    [
      'a numeric user id',
      (d) => (d.segments.vip.members = [1001]),
      'segments.vip.members.0',
      '1001',
      /expected string/,
    ],
    [
      'a key source that is none',
      (d) => (d.applications.shop.routingKey.userId = [{ body: 'id' }]),
      'applications.shop.routingKey.userId.0',
      '{"body":"id"}',
      /header.*cookie.*query.*path/,
    ],
    [
      'an environment name that is none',
      (d) => (d.datacenters['dc-a'].ruleCenter.token = { env: '1-2' }),
      'datacenters.dc-a.ruleCenter.token.env',
      '(not shown)',
      /name of an environment variable/,
    ],
    [
      'a Redis user without a password',
      (d) =>
        (d.datacenters['dc-a'].stores.redis = { cache: { host: 'redis', port: 6379, user: 'interlock' } }),
      'datacenters.dc-a.stores.redis.cache.password',
      '(missing)',
      /as there is a user/,
    ],
    [
      'a third data center',
      (d) => {
        d.datacenters['dc-c'] = structuredClone(d.datacenters['dc-b']);
      },
      'datacenters',
      'dc-a, dc-b, dc-c',
      /exactly two data centers; a third \(dc-c\)/,
    ],
    [
      'one data center',
      (d) => {
        delete d.datacenters['dc-b'];
        d.regions['cn-west'].home = 'dc-a';
      },
      'datacenters',
      'dc-a',
      /exactly two/,
    ],
    [
      'a region at home nowhere',
      (d) => (d.regions['cn-west'].home = 'dc-x'),
      'regions.cn-west.home',
      'dc-x',
      /one of dc-a, dc-b/,
    ],
    [
      'a segment at home nowhere',
      (d) => (d.segments.vip.home = 'dc-x'),
      'segments.vip.home',
      'dc-x',
      /dc-a, dc-b/,
    ],
    [
      'a central unit at home nowhere',
      (d) => (d.central.coupons.home = 'dc-x'),
      'central.coupons.home',
      'dc-x',
      /dc-a, dc-b/,
    ],
    [
      'a default region that is none',
      (d) => (d.defaultRegion = 'us'),
      'defaultRegion',
      'us',
      /cn-east, cn-west/,
    ],
    [
      'a name of Object.prototype',
      (d) => (d.defaultRegion = 'constructor'),
      'defaultRegion',
      'constructor',
      /one of/,
    ],
    [
      'a user in two segments',
      (d) => (d.segments.beta = { home: 'dc-b', members: ['vip-1'] }),
      'segments.beta.members.0',
      'vip-1',
      /already a member of segment vip/,
    ],
    [
      'a user twice in a segment',
      (d) => d.segments.vip.members.push('vip-1'),
      'segments.vip.members.2',
      'vip-1',
      /twice/,
    ],
    [
      'no control store',
      (d) => (d.datacenters['dc-a'].stores.mysql.main.control = false),
      'datacenters.dc-a.stores.mysql',
      '(no control store)',
      /exactly one/,
    ],
    [
      'two control stores',
      (d) =>
        (d.datacenters['dc-a'].stores.mysql.other = {
          ...d.datacenters['dc-a'].stores.mysql.main,
          port: 1,
        }),
      'datacenters.dc-a.stores.mysql',
      'main, other',
      /exactly one/,
    ],
    [
      'control stores of different names',
      (d) => {
        const { mysql } = d.datacenters['dc-b'].stores;
        mysql.other = { ...mysql.main, port: 1 };
        mysql.main.control = false;
      },
      'datacenters.dc-b.stores.mysql',
      'other',
      /same name in both/,
    ],
    [
      'two stores on one server',
      (d) => (d.datacenters['dc-b'].stores.mysql.main.port = d.datacenters['dc-a'].stores.mysql.main.port),
      'datacenters.dc-b.stores.mysql.main',
      '127.0.0.1:21003',
      /datacenters.dc-a.stores.mysql.main has this address/,
    ],
    [
      'a link of a store that one DC lacks',
      (d) => {
        const { mysql } = d.datacenters['dc-a'].stores;
        mysql.orders = { ...mysql.main, port: 1, control: false };
        d.links.push({ store: 'mysql/orders' });
      },
      'links.1.store',
      'mysql/orders',
      /dc-b has no mysql\/orders/,
    ],
    [
      'a policy of a table that is not declared',
      (d) => (d.links[0].conflicts = { 'shop.nothing': 'owner-wins' }),
      'links.0.conflicts.shop.nothing',
      'shop.nothing',
      /a table of tables/,
    ],
    [
      'an unknown policy',
      (d) => (d.links[0].conflicts = { 'shop.wallet': 'newest' }),
      'links.0.conflicts.shop.wallet',
      '"newest"',
      /owner-wins, source-wins, target-wins, quarantine or/,
    ],
    [
      'an owner of a table that has none',
      (d) => (d.links[0].conflicts = { 'shop.country': 'owner-wins' }),
      'links.0.conflicts.shop.country',
      'owner-wins',
      /an unrouted table has no owner/,
    ],
    [
      'a side that wins both ways',
      (d) => (d.links[0].conflicts = { 'shop.wallet': 'source-wins' }),
      'links.0.conflicts.shop.wallet',
      'source-wins',
      /a link with from and to/,
    ],
    [
      'latest of one direction only',
      (d) => {
        const both = d.links[0];
        d.links = [
          { ...both, from: 'dc-a', to: 'dc-b', conflicts: { 'shop.wallet': { latest: 'at' } } },
          { ...both, from: 'dc-b', to: 'dc-a', conflicts: { 'shop.wallet': { latest: 'id' } } },
        ];
      },
      'links.0.conflicts.shop.wallet',
      '{"latest":"at"}',
      /links\.1\.conflicts\.shop\.wallet: \{ latest: at \}, too/,
    ],
    ['a link from nowhere', (d) => (d.links[0].from = 'dc-x'), 'links.0.from', 'dc-x', /one of dc-a, dc-b/],
    [
      'a link from a DC to itself',
      (d) => Object.assign(d.links[0], { from: 'dc-a', to: 'dc-a' }),
      'links.0.to',
      'dc-a',
      /another data center/,
    ],
    [
      'a direction twice',
      (d) => d.links.push({ store: 'mysql/main', from: 'dc-b' }),
      'links.1',
      'mysql/main from dc-b',
      /links.0 is the same/,
    ],
    [
      'one task queue for both',
      (d) => (d.datacenters['dc-b'].taskQueue = 'interlock-dc-a'),
      'datacenters.dc-b.taskQueue',
      'interlock-dc-a',
      /datacenters.dc-a.taskQueue is the same/,
    ],
    [
      'a task queue that is the control queue',
      (d) => (d.datacenters['dc-b'].taskQueue = 'interlock-control'),
      'datacenters.dc-b.taskQueue',
      'interlock-control',
      /temporal.controlTaskQueue/,
    ],
    [
      'no gateway',
      (d) => (d.datacenters['dc-b'].gateways = {}),
      'datacenters.dc-b.gateways',
      '(none)',
      /at least one/,
    ],
    [
      'a gateway address twice',
      (d) => (d.datacenters['dc-b'].gateways['gw-1'].url = 'http://127.0.0.1:21001/'),
      'datacenters.dc-b.gateways.gw-1.url',
      'http://127.0.0.1:21001',
      /datacenters.dc-a.gateways.gw-1.url is the same/,
    ],
    [
      'a central path of no unit',
      (d) => (d.applications.shop.central['/stock'] = 'central:stock'),
      'applications.shop.central./stock',
      'central:stock',
      /one of coupons/,
    ],
    [
      'a central path outside of the application',
      (d) => (d.applications.shop.paths = ['/shop']),
      'applications.shop.central./coupons',
      '/coupons',
      /no request would match/,
    ],
    [
      'a table of no central unit',
      (d) => (d.tables['shop.coupon'] = { central: 'stock' }),
      'tables.shop.coupon.central',
      'stock',
      /one of coupons/,
    ],
    [
      'a path source without its segment',
      (d) => (d.applications.shop.routingKey.userId = [{ path: '/users/:id' }]),
      'applications.shop.routingKey.userId.0.path',
      '/users/:id',
      /exactly one segment :userId/,
    ],
    [
      'a path source with * in the middle',
      (d) => (d.applications.shop.routingKey.userId = [{ path: '/*/:userId' }]),
      'applications.shop.routingKey.userId.0.path',
      '/*/:userId',
      /only as the last/,
    ],
    [
      'an application that a DC does not have',
      (d) => delete d.datacenters['dc-b'].applications.shop,
      'datacenters.dc-b.applications',
      '(no shop)',
      /id and instances of shop/,
    ],
    [
      'an application that is not declared',
      (d) => (d.datacenters['dc-b'].applications.cart = { id: 'x', instances: [] }),
      'datacenters.dc-b.applications.cart',
      'cart',
      /one of shop/,
    ],
    [
      'a path of two applications',
      (d) => {
        d.applications.cart = { paths: ['/'], routingKey: { userId: [{ query: 'u' }] } };
        for (const dc of ['dc-a', 'dc-b'])
          d.datacenters[dc].applications.cart = { id: 'cart', instances: [] };
      },
      'applications.cart.paths.0',
      '/',
      /shop has it/,
    ],
  ];
  test.each(cases)('%s', (_name, change, path, value, expected) => {
    const problems = problemsAfter(change);
    const found = problems.find((p) => p.path === path);
    expect(found, JSON.stringify(problems)).toMatchObject({ path, value });
    expect(found!.expected).toMatch(expected);
  });
});

test('all problems are reported at once', () => {
  const problems = problemsAfter((d) => {
    d.defaultRegion = 'us';
    d.regions['cn-west'].home = 'dc-x';
    d.datacenters['dc-b'].gateways = {};
  });
  expect(problems.map((p) => p.path)).toEqual([
    'regions.cn-west.home',
    'defaultRegion',
    'datacenters.dc-b.gateways',
  ]);
});

test('a password that was typed into the topology is not shown in the error', () => {
  const problems = problemsAfter((d) => {
    d.datacenters['dc-a'].stores.mysql.main.password = 'hunter2';
    d.datacenters['dc-a'].gateways['gw-1'].token = { literal: 'hunter2' };
  });
  expect(problems).toHaveLength(2);
  expect(JSON.stringify(problems)).not.toContain('hunter2');
  expect(problems[0]!.expected).toBe('expected { env: NAME } or { file: PATH }');
});

describe('text that is no topology', () => {
  test.each([
    ['broken YAML', 'a: [1, 2', /line/],
    ['a key twice', 'version: 1\nversion: 1\n', /unique/],
    ['an empty file', '', /expected object/],
    ['a list', '- 1', /expected object/],
    ['nested aliases', billionLaughs(), /alias/i],
  ])('%s', (_name, text, message) => {
    expect(JSON.stringify(problemsOf(() => parseTopology(text)))).toMatch(message);
  });
});

function billionLaughs(): string {
  const lines = ['a0: &a0 [x, x, x, x, x, x, x, x, x, x]'];
  for (let i = 1; i < 9; i++)
    lines.push(
      `a${i}: &a${i} [${Array(10)
        .fill(`*a${i - 1}`)
        .join(', ')}]`,
    );
  return lines.join('\n');
}

test('links wanted: both directions, unless one is named', () => {
  const links = (link: unknown): string[] =>
    wantedLinks(exampleTopology((d) => (d['links'] = [link]))).map((l) => `${l.from}>${l.to}`);
  expect(links({ store: 'mysql/main' })).toEqual(['dc-a>dc-b', 'dc-b>dc-a']);
  expect(links({ store: 'mysql/main', from: 'dc-b' })).toEqual(['dc-b>dc-a']);
  expect(links({ store: 'mysql/main', to: 'dc-b' })).toEqual(['dc-a>dc-b']);
  expect(links({ store: 'mysql/main', from: 'dc-a', to: 'dc-b' })).toEqual(['dc-a>dc-b']);
});

test('initial rules: everything open at its home, members sorted', () => {
  expect(initialRules(exampleTopology())).toEqual({
    format: 1,
    topology: 'example',
    epoch: 1,
    mappingVersion: 1,
    unitMappingVersions: {},
    defaultRegion: 'cn-east',
    regions: {
      'cn-east': [{ from: 0, to: 999, owner: 'dc-a', state: 'open' }],
      'cn-west': [{ from: 0, to: 999, owner: 'dc-b', state: 'open' }],
    },
    segments: { vip: { owner: 'dc-a', state: 'open', members: ['vip-1', 'vip-2'] } },
    central: { coupons: { owner: 'dc-a', state: 'open' } },
    holder: null,
    reason: 'initial rules of topology example',
  });
});

describe('files', () => {
  let directory: string;
  beforeEach(async () => {
    directory = await mkdtemp(path.join(tmpdir(), 'interlock-topology-'));
  });
  afterEach(async () => {
    await rm(directory, { recursive: true });
  });

  test('the hash does not depend on where the file lies, nor on the order of keys; secret files do', async () => {
    const document = exampleDocument();
    (document.datacenters['dc-a'] as any).ruleCenter.token = { file: 'token' };
    await writeFile(path.join(directory, 'a.yaml'), stringify(document));
    await writeFile(path.join(directory, 'b.yaml'), stringify(document, { sortMapEntries: true }));
    await writeFile(path.join(directory, 'token'), 'secret\n');
    const a = await loadTopology(path.join(directory, 'a.yaml'));
    const b = await loadTopology(path.join(directory, 'b.yaml'));
    expect(a.hash).toMatch(/^[0-9a-f]{64}$/);
    expect(b.hash).toBe(a.hash);
    const reference = a.topology.datacenters['dc-a']!.ruleCenter.token;
    expect(reference).toEqual({ file: path.join(directory, 'token') });
    expect(resolveSecret(reference)).toBe('secret');
    document.defaultRegion = 'cn-west';
    await writeFile(path.join(directory, 'a.yaml'), stringify(document));
    expect((await loadTopology(path.join(directory, 'a.yaml'))).hash).not.toBe(a.hash);
  });

  test('the hash is that of the meaning: addresses and secrets do not change it, all else does', () => {
    const hash = topologyHash(exampleTopology());
    const after = (change: (document: any) => void): string => topologyHash(exampleTopology(change));
    const main = (d: any): any => d.datacenters['dc-b'].stores.mysql.main;
    expect(after((d) => (main(d).port = 1))).toBe(hash);
    expect(after((d) => (main(d).password = { file: '/x' }))).toBe(hash);
    expect(after((d) => (d.temporal.address = 'elsewhere:7233'))).toBe(hash);
    expect(after((d) => (d.datacenters['dc-b'].ruleCenter.url = 'http://elsewhere'))).toBe(hash);
    expect(after((d) => (main(d).flavour = 'mariadb'))).not.toBe(hash);
    expect(after((d) => (d.tables['shop.wallet'].region = 'zone'))).not.toBe(hash);
    expect(after((d) => (d.limits = { lagMs: 1 }))).not.toBe(hash);
    expect(after((d) => (d.links = []))).not.toBe(hash);
  });

  test('a file that is not there is bad input that names it', async () => {
    const file = path.join(directory, 'none.yaml');
    await expect(loadTopology(file)).rejects.toMatchObject({
      code: 'BadInput',
      message: expect.stringContaining(file) as string,
    });
  });

  test('a secret that is not there is named by its reference', () => {
    expect(resolveSecret({ env: 'TOKEN' }, { TOKEN: 'x' })).toBe('x');
    expect(() => resolveSecret({ env: 'TOKEN' }, {})).toThrow(/TOKEN is not set/);
    expect(() => resolveSecret({ env: 'TOKEN' }, { TOKEN: '' })).toThrow(/TOKEN is empty/);
    expect(() => resolveSecret({ file: path.join(directory, 'none') })).toThrow(/none cannot be read/);
  });
});

test('tls of a store: files from the topology directory, a name to check, cert and key together; not part of the hash', async () => {
  const main = (document: any) => document.datacenters['dc-a'].stores.mysql.main;
  const at = 'datacenters.dc-a.stores.mysql.main.tls';
  expect(problemsAfter((document) => (main(document).tls = { ca: 'ca.pem' }))).toMatchObject([
    { path: `${at}.serverName`, value: '(missing)' },
  ]);
  expect(
    problemsAfter((document) => (main(document).tls = { ca: 'ca.pem', cert: 'c.pem', serverName: 'db' })),
  ).toMatchObject([{ path: at, expected: 'expected both cert and key, or neither' }]);
  expect(problemsAfter((document) => (main(document).tls = { serverName: 'db' }))).toMatchObject([
    { path: `${at}.ca`, value: '(missing)' },
  ]);
  const directory = await mkdtemp(path.join(tmpdir(), 'interlock-topology-'));
  try {
    const document: any = exampleDocument();
    main(document).tls = { ca: 'certs/ca.pem', serverName: 'db' };
    const file = path.join(directory, 'topology.yaml');
    await writeFile(file, stringify(document));
    const loaded = await loadTopology(file);
    expect(main(loaded.topology).tls.ca).toBe(path.join(directory, 'certs/ca.pem'));
    expect(loaded.hash).toBe(topologyHash(exampleTopology()));
  } finally {
    await rm(directory, { recursive: true });
  }
});

describe('what a link carries', () => {
  const link = (change: object, tables: object = {}) =>
    problemsAfter((document) => {
      Object.assign(document.tables, tables);
      Object.assign(document.links[0], change);
    });
  const wallet = { userId: 'user_id', region: 'region' };

  test('filters of rows and columns name tables that are carried, and leave what is needed', () => {
    expect(link({ rows: { 'crm.user': { column: 'a', in: [1] } } })).toMatchObject([
      { path: 'links.0.rows.crm.user', value: 'crm.user' },
    ]);
    expect(link({ rows: { 'shop.wallet': { column: 'kind', in: [] } } })).toMatchObject([
      { path: 'links.0.rows.shop.wallet.in' },
    ]);
    expect(link({ columns: { 'shop.wallet': { without: ['note', 'USER_ID'] } } })).toMatchObject([
      { path: 'links.0.columns.shop.wallet.without.1', value: 'USER_ID' },
    ]);
    expect(
      link({
        columns: { 'shop.country': { without: ['kind'] } },
        rows: { 'shop.country': { column: 'kind', in: ['a'] } },
      }),
    ).toMatchObject([{ path: 'links.0.columns.shop.country.without.0', value: 'kind' }]);
    expect(link({ maxRowsPerSecond: 0 })).toMatchObject([{ path: 'links.0.maxRowsPerSecond', value: '0' }]);
  });

  test('rows of a routed table are not left out: a switchover moves them all', () => {
    const filter = { column: 'kind', in: ['a'] };
    exampleTopology((document: any) => (document.links[0].rows = { 'shop.country': filter }));
    for (const table of ['shop.wallet', 'shop.coupon'])
      expect(link({ rows: { [table]: filter } })).toMatchObject([
        {
          path: `links.0.rows.${table}`,
          value: table,
          expected: expect.stringContaining('expected an unrouted table'),
        },
      ]);
  });

  test('a renamed table is undone on the way back, has a name of its own, and is routed the same', () => {
    const there = { 'shop.wallet': 'shop.purse' };
    const back = { 'shop.purse': 'shop.wallet' };
    const purse = { 'shop.purse': wallet };
    expect(link({ rename: there, exclude: ['shop.purse'] }, purse)).toMatchObject([
      {
        path: 'links.0.rename.shop.wallet',
        expected: expect.stringContaining('links.0.rename.shop.purse: shop.wallet'),
      },
    ]);
    expect(link({ rename: { ...there, ...back }, from: 'dc-x' }, purse)).toMatchObject([
      { path: 'links.0.from' },
    ]);
    expect(link({ rename: { ...there, ...back } })).toMatchObject([
      { path: 'links.0.rename.shop.wallet', expected: expect.stringContaining('tables') },
      { path: 'links.0.rename.shop.purse' },
    ]);
    expect(link({ rename: there, from: 'dc-a', to: 'dc-b' }, purse)).toMatchObject([
      {
        path: 'links.0.rename.shop.wallet',
        expected: expect.stringContaining('shop.purse is carried there, too'),
      },
    ]);
    expect(link({ rename: { 'shop.wallet': 'interlock.marker' }, from: 'dc-a', to: 'dc-b' })).toMatchObject([
      { path: 'links.0.rename.shop.wallet', expected: 'expected a table of an application' },
      { path: 'links.0.rename.shop.wallet' },
    ]);
    const topology = exampleTopology((document: any) => {
      document.tables['shop.purse'] = wallet;
      document.links[0].rename = { ...there, ...back };
    });
    expect(wantedMysqlLinks(topology).map(({ rename }) => rename)).toEqual([
      { ...there, ...back },
      { ...there, ...back },
    ]);
  });
});
