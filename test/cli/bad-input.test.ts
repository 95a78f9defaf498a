import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { failure, interlock, silentTopology } from './command-line.js';

let topology: Awaited<ReturnType<typeof silentTopology>>;
beforeAll(async () => {
  topology = await silentTopology();
});
afterAll(() => topology.remove());

const UUID = '3e11fa47-71ca-11e1-9e33-c80aa9429562';

describe.each(['plan', 'start'])('switch %s', (command) => {
  const move = (changes: Record<string, string>): string[] => {
    const flags = { '--scope': 'cn-east:10%', '--from': 'dc-a', '--to': 'dc-b', ...changes };
    return ['switch', command, '--topology', topology.file, '--json', ...Object.entries(flags).flat()];
  };

  test('what is right gets as far as Temporal', async () => {
    expect(await failure(...move({}))).toMatchObject({ exitCode: 1, code: 'Unavailable' });
  });

  test.each<[Record<string, string>, string, string]>([
    [{ '--scope': 'nope:10%' }, '--scope', 'no region nope; it has cn-east, cn-west'],
    [{ '--scope': 'nope/0-9' }, '--scope', 'no region nope'],
    [{ '--scope': 'region:mars' }, '--scope', 'no region mars'],
    [{ '--scope': 'region:constructor' }, '--scope', 'no region constructor'],
    [{ '--scope': 'segment:none' }, '--scope', 'no segment none; it has vip'],
    [{ '--scope': 'central:none' }, '--scope', 'no central unit none; it has coupons'],
    [{ '--scope': 'dc:dc-z' }, '--scope', 'no data center dc-z'],
    [{ '--scope': 'dc:dc-b' }, '--scope', 'dc:dc-a'],
    [{ '--scope': 'what?' }, 'scope', 'expected'],
    [{ '--from': 'dc-z' }, '--from', 'dc-a, dc-b'],
    [{ '--to': 'dc-z' }, '--to', 'dc-a, dc-b'],
    [{ '--to': 'dc-a' }, '--to', 'another data center'],
    [{ '--soak': '99999999h' }, '--soak', 'milliseconds'],
    [{ '--soak': 'long' }, '--soak', 'duration'],
    [{ '--drain-timeout': '99999999h' }, '--drain-timeout', 'milliseconds'],
    [{ '--catch-up-timeout': '0s' }, '--catch-up-timeout', 'more than 0'],
    [{ '--require-verify': 'soon' }, '--require-verify', 'duration'],
    [{ '--require-verify': '0s' }, '--require-verify', '1 or more'],
  ])('%j is refused before anything is connected to', async (changes, field, words) => {
    const refused = await failure(...move(changes));
    expect(refused).toMatchObject({ exitCode: 2, code: 'BadInput', details: { field } });
    expect(refused.message).toContain(field);
    expect(refused.message).toContain(words);
  });
});

test('a reason has at most 400 characters', async () => {
  const start = ['switch', 'start', '--topology', topology.file, '--json'];
  const move = ['--scope', 'cn-east:10%', '--from', 'dc-a', '--to', 'dc-b', '--reason'];
  expect(await failure(...start, ...move, 'x'.repeat(401))).toMatchObject({
    exitCode: 2,
    details: { field: '--reason' },
    message: expect.stringContaining('400') as unknown,
  });
  expect(await failure(...start, ...move, 'x'.repeat(400))).toMatchObject({ exitCode: 1 });
});

describe('replicate start --from', () => {
  const start = (from: string): string[] => [
    ...['replicate', 'start', 'mysql/main:dc-a>dc-b', '--topology', topology.file, '--json'],
    ...['--from', from],
  ];
  test.each(['garbage', `${UUID}:0`, '0-1-5'])(
    '%s is refused before anything is connected to',
    async (from) => {
      expect(await failure(...start(from))).toMatchObject({
        exitCode: 2,
        code: 'BadInput',
        details: { field: '--from' },
      });
    },
  );
  test.each(['now', `${UUID}:1-5`])('%s gets as far as Temporal', async (from) => {
    expect(await failure(...start(from))).toMatchObject({ exitCode: 1, code: 'Unavailable' });
  });
});

test.each([
  'localhost:9464',
  '127.0.0.1:99999',
  '127.0.0.1:0',
  '127.0.0.1',
  '::1:9464',
  '[127.0.0.1]:1',
  '300.0.0.1:1',
])('worker --metrics %s', async (address) => {
  expect(
    await failure('worker', '--dc', 'dc-z', '--topology', topology.file, '--json', '--metrics', address),
  ).toMatchObject({ exitCode: 2, details: { field: '--metrics' } });
});

test.each(['127.0.0.1:9464', '[::1]:65535'])('worker --metrics %s is taken', async (address) => {
  const refused = await failure(
    ...['worker', '--dc', 'dc-z', '--topology', topology.file, '--json', '--metrics', address],
  );
  expect(refused.message).toContain('dc-z');
  expect(refused.message).not.toContain('--metrics');
});

test('rule-center takes --json', async () => {
  const refused = await failure('rule-center', '--dc', 'dc-z', '--topology', topology.file, '--json');
  expect(refused.message).toContain('dc-z');
});

describe('what is wrong with a command line is named', () => {
  test.each<[string[], Record<string, string>]>([
    [['switch', 'list', '--soack', '--json'], { flag: '--soack' }],
    [['switch', 'plan', '--json'], { flag: '--scope' }],
    [['switch', 'start', '--json', '--scope'], { flag: '--scope' }],
    [['switch', 'start', '--json', '--blockers', 'shoot'], { flag: '--blockers' }],
    [['lab', 'logs', '--json', '-n'], { flag: '--lines' }],
    [['lab', 'logs', '--json'], { argument: 'name' }],
    [['nosuch', '--json'], { command: 'nosuch' }],
    [['--json', 'nosuch'], { command: 'nosuch' }],
    [['switch', 'nosuch', '--json'], { command: 'nosuch' }],
    [['switch', 'list', '--limit', '0', '--json'], { field: '--limit' }],
  ])('%j', async (argv, details) => {
    const refused = await failure(...argv);
    expect(refused).toMatchObject({ exitCode: 2, code: 'BadInput' });
    expect(refused.details).toMatchObject(details);
  });
});

test('--json may stand in front of the command', async () => {
  const refused = await failure('--json', 'switch', 'list', '--topology', '/nowhere/topology.yaml');
  expect(refused).toMatchObject({
    exitCode: 2,
    message: expect.stringContaining('/nowhere/topology.yaml') as unknown,
  });
});

test('--version', async () => {
  const { exitCode, stdout } = await interlock('--version');
  expect(exitCode).toBe(0);
  expect(stdout).toMatch(/^\d+\.\d+\.\d+\n$/);
});

describe('verify mysql', () => {
  const verify = (...flags: string[]): string[] => [
    'verify',
    'mysql',
    '--topology',
    topology.file,
    '--json',
    ...flags,
  ];

  test('what is right gets as far as Temporal', async () => {
    expect(
      await failure(...verify('--tables', 'shop.*, shop.wallet', '--scope', 'cn-east:10%')),
    ).toMatchObject({
      exitCode: 1,
      code: 'Unavailable',
    });
  });

  test.each<[string, string, string]>([
    ['--tables', 'shop.nothing', 'shop.wallet, shop.coupon, shop.country'],
    ['--tables', 'shop.wallet,wallet', 'shop.wallet, shop.coupon'],
    ['--scope', 'region:mars', 'no region mars'],
    ['--scope', 'what?', 'expected dc:dc-a'],
    ['--keep', 'many', 'whole number'],
  ])('%s %s is refused', async (flag, value, words) => {
    const refused = await failure(...verify(flag, value));
    expect(refused).toMatchObject({ exitCode: 2, code: 'BadInput', details: { field: flag } });
    expect(refused.message).toContain(words);
  });
});

/** With a Redis in each data center, and a link each way. */
async function redisTopology(more: object = {}): ReturnType<typeof silentTopology> {
  return silentTopology((document) => {
    document['links'] = [{ store: 'redis/cache' }];
    document['keys'] = [{ pattern: 'user:{userId}' }];
    const datacenters = document['datacenters'] as Record<string, { stores: object }>;
    for (const [i, { stores }] of Object.values(datacenters).entries())
      Object.assign(stores, { redis: { cache: { host: '127.0.0.1', port: 3 + i, ...more } } });
  });
}

test('a Redis user without a password is refused: a client would be the default user', async () => {
  const file = await redisTopology({ user: 'interlock' });
  const refused = await failure('topology', 'check', '--topology', file.file, '--json');
  await file.remove();
  expect(refused).toMatchObject({ exitCode: 2, code: 'BadInput' });
  expect(refused.message).toContain('stores.redis.cache.password');
});

describe('links of a kind of store, and stores', () => {
  let redis: Awaited<ReturnType<typeof silentTopology>>;
  beforeAll(async () => {
    redis = await redisTopology();
  });
  afterAll(() => redis.remove());
  const LINK = 'redis/cache:dc-a>dc-b';

  test.each([
    ['replicate', 'start', '--store', 'redis', '--copy'],
    ['replicate', 'status', '--store', 'redis/cache'],
  ])('%s %s %s %s gets as far as Temporal', async (...argv) => {
    expect(await failure(...argv, '--topology', redis.file, '--json')).toMatchObject({
      exitCode: 1,
      code: 'Unavailable',
    });
  });

  test.each<[string, string[], string]>([
    ['--store', ['replicate', 'start', '--store', 'mysql'], 'expected one of redis, redis/cache'],
    ['--store', ['replicate', 'pause', '--store', 'redis/x'], 'expected one of redis, redis/cache'],
    ['--store', ['replicate', 'pause', LINK, '--store', 'redis'], 'name a link'],
    ['--store', ['replicate', 'pause', '--all', '--store', 'redis'], 'name a link'],
    ['copy', ['replicate', 'start', '--store', 'redis', '--copy', '--detach'], 'one link at a time'],
    ['link', ['replicate', 'resync', '--store', 'redis'], LINK],
    ['link', ['replicate', 'start', 'X'], 'link: "X" is no link'],
    ['--dc', ['rules', 'reassert', '--dc', 'dc-z'], 'expected one of dc-a, dc-b'],
    [
      '--accept-loss',
      ['rules', 'reassert', '--dc', 'dc-a', '--accept-loss', 'mysql/main'],
      '"mysql/main": expected a Redis store of dc-a (redis/cache)',
    ],
  ])('%s: %j is refused', async (field, argv, words) => {
    const refused = await failure(...argv, '--topology', redis.file, '--json');
    expect(refused).toMatchObject({ exitCode: 2, code: 'BadInput', details: { field } });
    expect(refused.message).toContain(field);
    expect(refused.message).toContain(words);
  });
});

test.each([
  ...['start', 'resync', 'pause', 'resume', 'stop', 'status'].map((name) => ['replicate', name]),
  ...['list', 'show', 'retry', 'discard'].map((name) => ['quarantine', name]),
  ['rules', 'reassert'],
])('%s %s --help has an example', async (...command) => {
  expect((await interlock(...command, '--help')).stdout).toContain(`  $ interlock ${command.join(' ')}`);
});

test('the default that --help shows may be given', async () => {
  const { stdout } = await interlock('verify', 'redis', '--help');
  const shown = /--ttl-tolerance[^(]*\(default: "?([^")]+)"?\)/.exec(stdout)?.[1];
  const redis = await redisTopology();
  try {
    const argv = ['verify', 'redis', '--ttl-tolerance', shown!, '--topology', redis.file, '--json'];
    expect(await failure(...argv)).toMatchObject({ code: 'Unavailable' });
  } finally {
    await redis.remove();
  }
});

describe('verify redis', () => {
  let redis: Awaited<ReturnType<typeof silentTopology>>;
  beforeAll(async () => {
    redis = await redisTopology();
  });
  afterAll(() => redis.remove());
  const verify = (...flags: string[]): string[] => [
    ...['verify', 'redis', '--topology', redis.file, '--json'],
    ...flags,
  ];

  test('what is right gets as far as Temporal', async () => {
    const flags = [
      '--store',
      'redis/cache',
      '--scope',
      'cn-east:10%',
      '--mode',
      'sample',
      '--sample',
      '0.5%',
    ];
    expect(await failure(...verify(...flags, '--ttl-tolerance', '0ms'))).toMatchObject({
      exitCode: 1,
      code: 'Unavailable',
    });
  });

  test.each<[string[], string, string]>([
    [['--store', 'cache,nothing'], '--store', '"nothing": expected Redis stores that have a link: cache'],
    [['--mode', 'some'], '--mode', 'full, length, existence, sample'],
    [['--mode', 'sample', '--sample', '101%'], '--sample', 'above 0% and up to 100%'],
    [['--mode', 'sample', '--sample', '0%'], '--sample', 'above 0%'],
    [['--mode', 'sample', '--sample', '5'], '--sample', 'such as 5%'],
    [['--sample', '5%'], '--sample', 'the mode is full'],
    [['--ttl-tolerance', 'long'], '--ttl-tolerance', 'duration'],
    [['--scope', 'region:mars'], '--scope', 'no region mars'],
    [['--keep', '-1'], '--keep', 'whole number'],
  ])('%j is refused', async (flags, field, words) => {
    const refused = await failure(...verify(...flags));
    expect(refused).toMatchObject({ exitCode: 2, code: 'BadInput', details: { field } });
    expect(refused.message).toContain(words);
  });

  test('a topology without Redis links has nothing to compare', async () => {
    const none = await failure('verify', 'redis', '--topology', topology.file, '--json');
    expect(none).toMatchObject({ exitCode: 2, code: 'BadInput', details: { field: 'links' } });
  });
});

describe('ddl apply', () => {
  let directory: string;
  const files: Record<string, string> = {
    good: 'ALTER TABLE shop.wallet ADD COLUMN x INT NULL;',
    rename: 'ALTER TABLE shop.wallet ADD COLUMN x INT NULL; RENAME TABLE shop.wallet TO shop.purse;',
    empty: '-- nothing;\n',
  };
  beforeAll(async () => {
    directory = await mkdtemp(path.join(tmpdir(), 'interlock-ddl-'));
    for (const [name, text] of Object.entries(files)) await writeFile(path.join(directory, name), text);
  });
  afterAll(() => rm(directory, { recursive: true, force: true }));
  const apply = (file: string, ...flags: string[]): string[] => [
    ...['ddl', 'apply', '--topology', topology.file, '--json', '--file', path.join(directory, file)],
    ...flags,
  ];

  test('what is right gets as far as Temporal', async () => {
    expect(await failure(...apply('good', '--yes'))).toMatchObject({ exitCode: 1, code: 'Unavailable' });
  });

  test.each([
    ['missing', ['--yes'], '--file', 'no such file'],
    ['empty', ['--yes'], '--file', 'no statement in it'],
    ['rename', ['--yes'], '--file', 'statement 2 (RENAME TABLE shop.wallet'],
    ['good', ['--yes', '--stores', 'main,other'], '--stores', 'expected some of main'],
    ['good', [], '--yes', 'nobody is there to ask'],
  ])('%s %j is refused before anything is connected to', async (file, flags, field, words) => {
    const refused = await failure(...apply(file, ...flags));
    expect(refused).toMatchObject({ exitCode: 2, code: 'BadInput', details: { field } });
    expect(refused.message).toContain(words);
  });
});
