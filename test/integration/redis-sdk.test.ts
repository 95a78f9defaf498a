import { Redis } from 'ioredis';
import type { ChainableCommander } from 'ioredis';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { ErrorCode } from '../../src/errors.js';
import { openRedis } from '../../src/fence/redis-client.js';
import { RedisFence } from '../../src/fence/redis-fence.js';
import type { UnitStateName } from '../../src/fence/types.js';
import { FixedRules, createInterlock, isInterlockError } from '../../src/sdk/index.js';
import type { Interlock, KeyRouting } from '../../src/sdk/index.js';
import { testRules, userIn } from '../sdk/support.js';
import { startRedis } from '../support/redis.js';
import type { TestRedis } from '../support/redis.js';

const KEYS: KeyRouting[] = [
  { pattern: 'user:{userId}:*' },
  { pattern: '{region}/{userId}' },
  { pattern: 'coupon:*', central: 'coupons' },
  { pattern: 'geo:*', unrouted: true },
];
const USER = userIn(7);
const UNIT = 'cn-east/7';
const KEY = `user:${USER}:n`;

let server: TestRedis;
let fence: RedisFence;
let plain: Redis;
let client: Redis;
let fenced: Redis;
let rules: FixedRules;
let interlock: Interlock;

beforeAll(async () => {
  server = await startRedis({ config: { appendonly: 'yes', appendfsync: 'always' } });
  fence = new RedisFence('dc-a', 'cache', openRedis(server, 'test'));
  plain = new Redis({ port: server.port });
});
afterAll(async () => {
  plain.disconnect();
  fence.client.disconnect();
  await server.stop();
});
beforeEach(async () => {
  await plain.flushall();
  await fence.addMissing(testRules());
  await fence.reassert(testRules());
  rules = new FixedRules(testRules());
  interlock = createInterlock({ dc: 'dc-a', application: 'test', rules });
  client = new Redis({ port: server.port, autoResendUnfulfilledCommands: false, maxRetriesPerRequest: 1 });
  client.on('error', () => undefined);
  fenced = interlock.redis(client, { keys: KEYS });
});
afterEach(async () => {
  client.disconnect();
  await interlock.close();
});

async function set(
  unit: string,
  state: UnitStateName,
  owner = state === 'remote' ? 'dc-b' : 'dc-a',
): Promise<void> {
  const epoch = (await fence.highestEpoch()) + 1;
  await fence.change({ units: [unit], to: state, owner, epoch, holder: { workflowId: 't', runId: 't' } });
}
async function codeOf(promise: Promise<unknown>): Promise<ErrorCode> {
  const error = await promise.then(
    (value) => new Error(`expected an error, got ${JSON.stringify(value)}`),
    (reason: unknown) => reason,
  );
  if (isInterlockError(error)) return error.code;
  throw error;
}

describe('a write', () => {
  test('of each kind answers as the client itself does', async () => {
    // The same commands on two users, one behind the fence and one not: replies and data have to be equal.
    const other = `user:${userIn(8)}`;
    const mine = `user:${USER}`;
    const commands = (key: string): [string, ...(string | number | Buffer)[]][] => [
      ['set', `${key}:s`, 'v'],
      ['set', `${key}:s`, 'w', 'GET'],
      ['set', `${key}:s`, 'x', 'NX'],
      ['incr', `${key}:n`],
      ['incrbyfloat', `${key}:n`, 1.5],
      ['append', `${key}:s`, 'ä'],
      ['setex', `${key}:t`, 100, 'v'],
      ['getdel', `${key}:t`],
      ['hset', `${key}:h`, 'a', 1, 'b', 2],
      ['hincrby', `${key}:h`, 'a', 5],
      ['hdel', `${key}:h`, 'b', 'c'],
      ['lpush', `${key}:l`, 'a', 'b'],
      ['lpop', `${key}:l`, 2],
      ['rpop', `${key}:l`],
      ['sadd', `${key}:set`, 'a', 'b'],
      ['spop', `${key}:set`, 2],
      ['zadd', `${key}:z`, 1, 'a', 2, 'b'],
      ['zadd', `${key}:z`, 'INCR', 3, 'a'],
      ['zincrby', `${key}:z`, 0.5, 'b'],
      ['zpopmin', `${key}:z`, 1],
      ['xadd', `${key}:x`, '1-1', 'f', 'v'],
      ['xgroup', 'CREATE', `${key}:x`, 'g', 0],
      ['xreadgroup', 'GROUP', 'g', 'c', 'STREAMS', `${key}:x`, '>'],
      ['pexpire', `${key}:h`, 500_000],
      ['persist', `${key}:h`],
      ['hset', `${key}:s`, 'a', 'b'],
      ['incr', `${key}:s`],
      ['set', `${key}:bytes`, Buffer.from([0, 255, 13, 10])],
      ['rename', `${key}:h`, `${key}:i`],
      ['del', `${key}:i`, `${key}:none`],
      ['mset', `${key}:m1`, 1, `${key}:m2`, 2],
      ['setbit', `${key}:bit`, 7, 1],
      ['getset', `${key}:m1`, 9],
      ['sort', `${key}:l`, 'STORE', `${key}:sorted`],
    ];
    const outcome = async (
      on: Redis,
      [name, ...args]: [string, ...(string | number | Buffer)[]],
    ): Promise<unknown> => {
      const method = (on as unknown as Record<string, (...given: unknown[]) => Promise<unknown>>)[name]!;
      return method.apply(on, args).then(
        (value) => JSON.stringify(value),
        (error: Error) => `${error.name} ${error.message}`,
      );
    };
    for (const [i, command] of commands(mine).entries()) {
      const twin = commands(other)[i]!;
      expect([command[0], String(await outcome(fenced, command)).replaceAll(mine, other)]).toEqual([
        command[0],
        await outcome(plain, twin),
      ]);
    }
    // A stream has the times of its consumers.
    for (const key of (await plain.keys(`${mine}:*`)).filter((one) => !one.endsWith(':x')))
      expect([key, await plain.dumpBuffer(key)]).toEqual([
        key,
        await plain.dumpBuffer(key.replace(mine, other)),
      ]);
    expect(await fenced.getBuffer(`${mine}:bytes`)).toEqual(Buffer.from([0, 255, 13, 10]));
  });

  test('is refused by the state of its unit, and nothing is done; reads go on', async () => {
    await fenced.set(KEY, 1);
    const cases: [() => Promise<void>, ErrorCode, (() => Promise<unknown>)?][] = [
      [() => set(UNIT, 'write_disabled'), 'WriteDisabled'],
      [() => set(UNIT, 'open'), 'StaleMapping', () => plain.hset('interlock:units', UNIT, 'open:dc-a:9:2')],
      [() => set(UNIT, 'remote'), 'NotOwner'],
      [async () => void (await plain.hdel('interlock:units', UNIT)), 'WriteDisabled'],
    ];
    for (const [change, code, more] of cases) {
      await change();
      await more?.();
      expect(await codeOf(fenced.incr(KEY))).toBe(code);
      expect(await codeOf(fenced.on('close', () => undefined).incr(KEY))).toBe(code);
      expect(await codeOf(fenced.pipeline().incr(KEY).incr(KEY).exec())).toBe(code);
      expect(await codeOf(fenced.multi().incr(KEY).exec())).toBe(code);
      expect(await codeOf(fenced.eval('return redis.call("INCR", KEYS[1])', 1, KEY))).toBe(code);
      expect(await fenced.get(KEY)).toBe('1');
    }
  });

  test('is refused on a server that was restarted, flushed or replaced', async () => {
    await server.kill('SIGKILL');
    await server.restart();
    await expect
      .poll(() => codeOf(fenced.incr(KEY)).catch(() => 'no answer yet'), { timeout: 10_000 })
      .toBe('ServerIdentityChanged');
    await fence.reassert(testRules());
    expect(await fenced.incr(KEY)).toBe(1);
    await plain.flushall();
    expect(await codeOf(fenced.incr(KEY))).toBe('WriteDisabled');
    expect(await plain.keys('*')).toEqual([]);
  });

  test('is of whom the patterns say, else of the ambient routing key, else nobody’s', async () => {
    await set(UNIT, 'remote');
    expect(await codeOf(fenced.set(`cn-east/${USER}`, 1))).toBe('NotOwner');
    await fenced.set('coupon:1', 1);
    await fenced.set('geo:1', 1);
    expect(await codeOf(fenced.set('other', 1))).toBe('StatementRefused');
    expect(await codeOf(interlock.run({ userId: USER }, () => fenced.set('other', 1)))).toBe('NotOwner');
    await interlock.run({ userId: userIn(3) }, () => fenced.set('other', 1));
    expect(await codeOf(fenced.mset('coupon:1', 1, KEY, 2))).toBe('CrossOwner');
    expect(await codeOf(fenced.set('interlock:units', 1))).toBe('StatementRefused');
    for (const one of [
      fenced.flushall(),
      fenced.flushdb(),
      fenced.blpop('coupon:q', 1),
      fenced.call('SWAPDB', 0, 1),
    ])
      expect(await codeOf(one)).toBe('StatementRefused');
    expect(() => fenced.multi({ pipeline: false })).toThrow(/not supported/);
  });

  test('in another database looks at the same states', async () => {
    await fenced.select(3);
    await fenced.set(KEY, 'three');
    await set(UNIT, 'write_disabled');
    expect(await codeOf(fenced.set(KEY, 'no'))).toBe('WriteDisabled');
    expect(await fenced.get(KEY)).toBe('three');
    expect(await plain.get(KEY)).toBeNull();
  });
});

describe('pipelines and transactions', () => {
  test('one script, in order, with reads; a command that fails leaves the others alone', async () => {
    const results = await fenced
      .pipeline()
      .set(KEY, 1)
      .incr(KEY)
      .get(KEY)
      .hset(KEY, 'a', 1)
      .hgetall(`user:${USER}:none`)
      .exec();
    expect(results!.map(([error, value]) => error?.message ?? value)).toEqual([
      'OK',
      2,
      '2',
      expect.stringContaining('WRONGTYPE'),
      {},
    ]);
    expect(
      await fenced
        .pipeline([
          ['incr', KEY],
          ['get', KEY],
        ])
        .exec(),
    ).toEqual([
      [null, 3],
      [null, '3'],
    ]);
    expect(await fenced.pipeline().get(KEY).exec()).toEqual([[null, '3']]);
    expect(await fenced.pipeline().exec()).toEqual([]);
    expect(await codeOf(fenced.pipeline().set(KEY, 1).eval('return 1', 0).exec())).toBe('StatementRefused');
  });

  test('MULTI: what Redis would refuse when it is queued stops the block', async () => {
    expect(await fenced.multi().set(KEY, 5).incr(KEY).exec()).toEqual([
      [null, 'OK'],
      [null, 6],
    ]);
    await expect(fenced.multi().set(KEY, 0).call('incr').exec()).rejects.toThrow(
      /EXECABORT.*wrong number of arguments/,
    );
    await expect(fenced.multi().set(KEY, 0).call('nonsense').exec()).rejects.toThrow(
      /EXECABORT.*unknown command/,
    );
    expect(await fenced.get(KEY)).toBe('6');
  });

  test('WATCH: a key that has changed makes exec answer null, also when the server has forgotten the script', async () => {
    await fenced.set(KEY, 'first');
    await fenced.watch(KEY);
    expect(await fenced.multi().set(KEY, 'mine').exec()).toEqual([[null, 'OK']]);
    await fenced.watch(KEY);
    await plain.set(KEY, 'theirs');
    expect(await fenced.multi().set(KEY, 'mine').exec()).toBeNull();
    expect(await fenced.get(KEY)).toBe('theirs');
    await plain.script('FLUSH');
    await fenced.watch(KEY);
    await plain.set(KEY, 'again');
    expect(await fenced.multi().set(KEY, 'mine').exec()).toBeNull();
    expect(await fenced.multi().set(KEY, 'mine').exec()).toEqual([[null, 'OK']]);
    await plain.script('FLUSH');
    // EXEC has found no script and ended the watch: whether the key has changed since, nobody knows.
    await fenced.watch(KEY);
    expect(await fenced.multi().set(KEY, 'mine').exec()).toBeNull();
    await plain.script('FLUSH');
    expect(await fenced.multi().set(KEY, 'mine').exec()).toEqual([[null, 'OK']]);
    await plain.script('FLUSH');
    expect(await fenced.incr(`user:${USER}:i`)).toBe(1);
  });

  test('WATCH: a write that is asked for again with newer rules has no watch, and answers null', async () => {
    await fenced.set(KEY, 'seen');
    await plain.hset('interlock:units', UNIT, 'open:dc-a:9:2');
    let refreshes = 0;
    rules.refresh = async () => {
      refreshes += 1;
      rules.set(testRules(9, { unitMappingVersions: { [UNIT]: 2 } }));
      // Between the refused EXEC and the second one.
      await plain.set(KEY, 'theirs');
      return rules.current();
    };
    await fenced.watch(KEY);
    expect(await fenced.multi().set(KEY, 'mine').exec()).toBeNull();
    expect(refreshes).toBe(1);
    expect(await fenced.get(KEY)).toBe('theirs');
    await fenced.watch(KEY);
    expect(await fenced.multi().set(KEY, 'mine').exec()).toEqual([[null, 'OK']]);
    // Rules that stay as old as they are end it: to read again would not help.
    await plain.hset('interlock:units', UNIT, 'open:dc-a:9:3');
    rules.refresh = async () => rules.current();
    await fenced.watch(KEY);
    expect(await codeOf(fenced.multi().set(KEY, 'no').exec())).toBe('StaleMapping');
  });

  test('WATCH: one of a connection that is gone answers null', async () => {
    for (const key of [KEY, 'geo:1']) {
      await fenced.set(key, 'seen');
      await fenced.watch(key);
      const connected = new Promise((resolve) => client.once('ready', resolve));
      await plain.client('KILL', 'ID', await client.client('ID'));
      await connected;
      await plain.set(key, 'theirs');
      expect(await fenced.multi().set(key, 'mine').exec()).toBeNull();
      expect(await fenced.get(key)).toBe('theirs');
      expect(await fenced.multi().set(key, 'mine').exec()).toEqual([[null, 'OK']]);
    }
  });

  test('WATCH: of several, one whose connection is gone makes exec answer null', async () => {
    await fenced.watch(KEY);
    const connected = new Promise((resolve) => client.once('ready', resolve));
    await plain.client('KILL', 'ID', await client.client('ID'));
    await connected;
    await plain.set(KEY, 'theirs');
    await fenced.watch(`${KEY}2`);
    expect(await fenced.multi().set(KEY, 'mine').exec()).toBeNull();
    await fenced.watch(KEY);
    await fenced.watch(`${KEY}2`);
    expect(await fenced.multi().set(KEY, 'mine').exec()).toEqual([[null, 'OK']]);
  });

  test.each([
    ['refused when it is queued', (made: ChainableCommander) => made.call('set', KEY), /EXECABORT/],
    ['of nobody’s key', (made: ChainableCommander) => made.set('nobodys', 1), /nobodys/],
  ])('WATCH: a transaction that is %s ends it', async (_, add, words) => {
    await fenced.watch(KEY);
    await expect(add(fenced.multi()).exec()).rejects.toThrow(words);
    await plain.set(KEY, 'theirs');
    expect(await fenced.multi().set(KEY, 'mine').exec()).toEqual([[null, 'OK']]);
  });

  test('scripts: of nobody’s keys they are sent as they are; EVALSHA in any case', async () => {
    await set(UNIT, 'write_disabled');
    const text = 'return redis.call("INCR", KEYS[1])';
    expect(await fenced.eval(text, 1, 'geo:n')).toBe(1);
    const sha = (await fenced.script('LOAD', text)) as string;
    expect(await fenced.evalsha(sha, 1, 'geo:n')).toBe(2);
    expect(await fenced.call('EVALSHA', sha, 1, 'geo:n')).toBe(3);
    expect(await codeOf(fenced.call('EVALSHA', sha, 1, KEY))).toBe('WriteDisabled');
    expect(await codeOf(fenced.call('EVAL', text, 1, KEY))).toBe('WriteDisabled');
    await set(UNIT, 'open');
    expect(await fenced.call('EVALSHA', sha, 1, KEY)).toBe(1);
    expect(await fenced.call('EvalSha', sha.toUpperCase(), 1, KEY)).toBe(2);
    expect(await fenced.call('EVAL', text, 1, KEY)).toBe(3);
  });

  test('scripts of the application run behind the check', async () => {
    fenced.defineCommand('take', {
      numberOfKeys: 1,
      lua: 'local left = redis.call("DECRBY", KEYS[1], ARGV[1]) if left < 0 then return redis.error_reply("NONE left") end return left',
    });
    const take = (fenced as unknown as { take: (key: string, n: number) => Promise<number> }).take;
    await fenced.set(KEY, 3);
    expect(await take(KEY, 2)).toBe(1);
    expect(await take(KEY, 1)).toBe(0);
    await expect(take(KEY, 1)).rejects.toThrow('NONE left');
    expect(await fenced.eval('return {KEYS[1], ARGV[1], ARGV[2]}', 1, KEY, 'x', 'y')).toEqual([
      KEY,
      'x',
      'y',
    ]);
    expect(await fenced.eval('return nil', 1, KEY)).toBeNull();
    await set(UNIT, 'remote');
    expect(await codeOf(take(KEY, 1))).toBe('NotOwner');
  });
});

test('effects: what was written stands, what is refused behind it is not executed elsewhere', async () => {
  const request = interlock.run({ userId: USER }, async () => {
    await fenced.incr(KEY);
    await set(UNIT, 'remote');
    await fenced.incr(KEY);
  });
  expect(await codeOf(request)).toBe('PartiallyExecuted');
  expect(await plain.get(KEY)).toBe('1');
});

test('a lost answer is CommitUnknown, a server that does not answer Unavailable', async () => {
  await fenced.incr(KEY);
  server.pause();
  const under = codeOf(fenced.incr(KEY));
  await server.kill('SIGKILL');
  expect(await under).toBe('CommitUnknown');
  expect(await codeOf(fenced.incr(KEY))).toBe('Unavailable');
  await server.restart();
});

test('a write whose time was over before there was a connection is not sent when there is one', async () => {
  const hasty = new Redis({
    port: server.port,
    autoResendUnfulfilledCommands: false,
    commandTimeout: 200,
    // Connected again when the test says so.
    retryStrategy: () => 600_000,
  });
  const writer = interlock.redis(hasty, { keys: KEYS });
  try {
    await fence.reassert(testRules());
    await expect.poll(() => writer.set(KEY, 1).catch(() => null), { timeout: 10_000 }).toBe('OK');
    const gone = new Promise((resolve) => hasty.once('reconnecting', resolve));
    hasty.disconnect(true);
    await gone;
    expect(await codeOf(writer.incr(KEY))).toBe('Unavailable');
    expect(await codeOf(writer.pipeline().incr(KEY).incr(KEY).exec())).toBe('Unavailable');
    await hasty.connect();
    // What has waited for the connection goes first.
    expect(await writer.get(KEY)).toBe('1');
    expect(await writer.incr(KEY)).toBe(2);
  } finally {
    hasty.disconnect();
  }
});

test('a client that would send again is refused', () => {
  const resends = new Redis({ port: server.port, lazyConnect: true });
  expect(() => interlock.redis(resends)).toThrow(/autoResendUnfulfilledCommands: false/);
  resends.disconnect();
});

test('writers and fences at once: behind the fence not one write is done', async () => {
  const clients = Array.from(
    { length: 4 },
    () => new Redis({ port: server.port, autoResendUnfulfilledCommands: false }),
  );
  const writers = clients.map((one) => interlock.redis(one, { keys: KEYS }));
  await fence.reassert(testRules());
  let going = true;
  let accepted = 0;
  const loads = writers.map(async (writer, i) => {
    for (let n = 0; going; n++) {
      const write = (n + i) % 2 === 0 ? writer.incr(KEY) : writer.pipeline().incr(KEY).exec();
      await write.then(
        () => accepted++,
        (error: unknown) => expect(isInterlockError(error, 'WriteDisabled')).toBe(true),
      );
    }
  });
  try {
    for (let round = 0; round < 30; round++) {
      await set(UNIT, 'write_disabled');
      const at = await plain.get(KEY);
      await new Promise((resolve) => setTimeout(resolve, 5));
      expect(await plain.get(KEY)).toBe(at);
      await set(UNIT, 'open');
      await expect.poll(() => plain.get(KEY), { interval: 1 }).not.toBe(at);
    }
  } finally {
    going = false;
    await Promise.all(loads);
    for (const one of clients) one.disconnect();
  }
  expect(Number(await plain.get(KEY))).toBe(accepted);
  expect(accepted).toBeGreaterThan(100);
});
