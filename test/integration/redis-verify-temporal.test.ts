import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Client, Connection } from '@temporalio/client';
import { defaultPayloadConverter } from '@temporalio/common';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { temporalComponent } from '../../infra/components/temporal.js';
import type { RedisVerifyProgress } from '../../replicators/redis/verify/verification.js';
import type { VerifyReport } from '../../workflows/verification-contract.js';
import { freePort } from '../support/mysql.js';
import { interlock, startCommand, startProgram } from '../support/programs.js';
import type { Program } from '../support/programs.js';
import { redisDifferences, redisSide, startRedisPair } from '../support/redis-link.js';
import type { RedisPair, RedisSide } from '../support/redis-link.js';
import { startPair, until } from '../support/replication.js';
import type { Pair } from '../support/replication.js';
import { exampleDocument } from '../support/topology.js';

const AB = 'redis/cache:dc-a>dc-b';
const MANY = 60_000;
type Command = (string | number)[];

const soon = (check: () => boolean | Promise<boolean>, what: string): Promise<void> =>
  until(check, what, 120_000);

/** As people run it: topology file, Temporal, a worker process per DC with both links, the command line. */
describe('interlock verify redis on Temporal', { timeout: 400_000 }, () => {
  let control: Pair;
  let redis: RedisPair;
  let temporal: Program;
  let directory: string;
  let topology: string;
  let client: Client;
  const env: Record<string, string> = { RULE_CENTER_TOKEN: 't', GATEWAY_TOKEN: 't', MYSQL_PASSWORD: 'test' };
  const workers = new Map<string, Program>();

  const startWorker = async (dc: string): Promise<void> => {
    const worker = startProgram('src/cli/main.js', ['worker', '--dc', dc, '--topology', topology], env);
    workers.set(dc, worker);
    await worker.prints(`worker of ${dc}: polls`, 120_000);
  };
  const run = async (...args: string[]): Promise<{ code: number | null; stdout: string; stderr: string }> =>
    interlock([...args, '--topology', topology], env);
  const verify = async (...args: string[]): Promise<{ code: number | null; report: VerifyReport }> => {
    const result = await run('verify', ...args, '--json');
    try {
      return { code: result.code, report: JSON.parse(result.stdout) as VerifyReport };
    } catch {
      throw new Error(`verify ${args.join(' ')}: exit ${result.code}\n${result.stdout}\n${result.stderr}`);
    }
  };
  const found = ({ stores }: VerifyReport): string[] =>
    stores![0]!.progress.differences
      .map(({ key, what, owner, repaired }) => `${key} ${what} ${owner}${repaired ? ' repaired' : ''}`)
      .sort();

  /** Written on one side alone: a transaction that begins with a link's key is never sent back. */
  const plant = async (side: RedisSide, ...commands: Command[]): Promise<void> => {
    const replies = await side.client.askAll([
      ['MULTI'],
      ['SET', 'interlock:link:planted', ''],
      ...commands,
      ['EXEC'],
    ]);
    const refused = replies.flat(2).find((reply) => reply instanceof Error);
    if (refused !== undefined) throw refused as Error;
  };

  /** Writes what each side owns, and what nobody does, until it is ended. */
  const writeAllTheWhile = (): (() => Promise<number>) => {
    let ended = false;
    let written = 0;
    const writer = async (side: RedisSide, key: (name: string, i: number) => string): Promise<void> => {
      const mine = await redisSide(side.server);
      for (let i = 0; !ended; i = (i + 1) % 2_000) {
        await mine.run('INCR', key('counter', i));
        await mine.run('HSET', key('hash', i % 100), `f${i % 7}`, written);
        await mine.run('RPUSH', key('list', i), written);
        await mine.run('SET', key('short', i), 'x', 'PX', 500);
        await mine.run('DEL', key('counter', (i + 1_000) % 2_000));
        written += 5;
      }
      mine.client.destroy();
    };
    const running = Promise.all([
      writer(redis.a, (name, i) => `user:w${i}:${name}`),
      writer(redis.b, (name, i) => `cn-west:cart:w${i}:${name}`),
      writer(redis.a, (name, i) => `page:live:${name}:${i}`),
    ]);
    return async () => {
      ended = true;
      await running;
      return written;
    };
  };

  /** How far the activity says it is, and which worker runs it; undefined between two slices. */
  const beat = async (): Promise<{ scanned: number; worker: string } | undefined> => {
    const { raw } = await client.workflow.getHandle('verify/example').describe();
    const activity = raw.pendingActivities?.find(({ activityType }) => activityType?.name === 'compareStore');
    const payload = activity?.heartbeatDetails?.payloads?.[0];
    if (!payload) return undefined;
    const { scanned } = defaultPayloadConverter.fromPayload<RedisVerifyProgress>(payload);
    return { scanned, worker: activity.lastWorkerIdentity!.split(' ')[0]! };
  };

  beforeAll(async () => {
    directory = await mkdtemp(path.join(tmpdir(), 'interlock-verify-redis-'));
    topology = path.join(directory, 'topology.yaml');
    [control, redis] = await Promise.all([startPair('mysql'), startRedisPair()]);
    const binary = (await temporalComponent.find())!.binary;
    const port = await freePort();
    temporal = startCommand(binary, [
      ...['server', 'start-dev', '--headless', '--ip', '127.0.0.1', '--port', String(port)],
      ...['--log-level', 'error', '--dynamic-config-value', 'history.transferProcessorMaxPollRPS=10000'],
    ]);
    const document = exampleDocument();
    document['temporal'] = { address: `127.0.0.1:${port}` };
    document['links'] = [{ store: 'redis/cache' }];
    document['keys'] = [
      ...[{ pattern: 'user:{userId}:*' }, { pattern: '{region}:cart:{userId}:*' }],
      ...[
        { pattern: 'coupon:*', central: 'coupons' },
        { pattern: 'page:*', unrouted: true },
      ],
    ];
    for (const name of ['a', 'b'] as const) {
      const { stores } = document.datacenters[`dc-${name}`] as unknown as {
        stores: { mysql: { main: Record<string, unknown> }; redis: unknown };
      };
      const { server } = control[name];
      stores.mysql.main = { ...stores.mysql.main, port: server.port, user: server.user };
      stores.redis = { cache: { host: '127.0.0.1', port: redis[name].server.port } };
    }
    await writeFile(topology, JSON.stringify(document));
    const init = await run('rules', 'init');
    expect(init.stdout, init.stderr).toContain('epoch 1');
    const address = `127.0.0.1:${port}`;
    await soon(
      () =>
        Connection.connect({ address }).then(
          (connection) => ((client = new Client({ connection })), true),
          () => false,
        ),
      'Temporal answers',
    );
    await Promise.all([startWorker('dc-a'), startWorker('dc-b')]);
    await redis.a.run('SET', 'page:of a', 'x');
    await redis.b.run('SET', 'page:of b', 'x');
    const started = await run('replicate', 'start', '--store', 'redis', '--copy');
    expect(started.code, started.stderr).toBe(0);
    for (const side of [redis.a, redis.b]) expect(await side.run('EXISTS', 'page:of a', 'page:of b')).toBe(2);
  });

  afterAll(async () => {
    await client?.connection.close();
    await Promise.all([...workers.values()].map((worker) => worker.kill('SIGKILL')));
    await temporal?.kill('SIGKILL');
    await Promise.all([control?.stop(), redis?.stop()]);
    await rm(directory, { recursive: true, force: true });
  });

  it('while both sides are written: finds nothing, then each planted difference and nothing else; repairs what has an owner', async () => {
    const end = writeAllTheWhile();
    try {
      const { a, b } = redis;
      await soon(async () => Number(await b.run('EXISTS', 'user:w300:list')) === 1, 'the link carries');
      const equal = await verify('redis', '--watch');
      expect(equal.report).toMatchObject({ outcome: 'equal', state: 'ended', differing: 0, undecided: 0 });
      expect(equal.code).toBe(0);
      expect(equal.report.rows).toBeGreaterThan(500);

      await a.run('SET', 'user:u1:value', 'x');
      await a.run('SET', 'user:u1:length', 'x');
      await a.run('RPUSH', 'user:u1:type', 'x');
      await a.run('SET', 'user:u1:expiry', 'x', 'EX', 10_000);
      await a.run('SET', 'user:u1:gone', 'x');
      await a.run('ZADD', 'coupon:set', 1, 'x');
      await a.run('SET', 'page:1', 'x');
      await b.run('HSET', 'cn-west:cart:u2:items', 'f', 'x');
      await soon(async () => (await b.text('GET', 'page:1')) === 'x', 'what dc-a has written arrives');
      await soon(
        async () => (await a.text('HGET', 'cn-west:cart:u2:items', 'f')) === 'x',
        'what dc-b has written arrives',
      );
      await plant(
        b,
        ...[
          ['SET', 'user:u1:value', 'y'],
          ['APPEND', 'user:u1:length', 'y'],
          ['DEL', 'user:u1:type'],
          ['SET', 'user:u1:type', 'x'],
          ['EXPIRE', 'user:u1:expiry', 20_000],
          ['DEL', 'user:u1:gone'],
          ['SET', 'user:u1:only b', 'y'],
          ['ZADD', 'coupon:set', 2, 'x'],
          ['SET', 'page:1', 'y'],
        ],
      );
      await plant(a, ['HSET', 'cn-west:cart:u2:items', 'f', 'y']);
      const keys = [
        '"user:u1:gone" missing dc-a',
        '"user:u1:only b" missing dc-a',
        '"user:u1:type" type dc-a',
      ];
      const lengths = [...keys, '"user:u1:expiry" expiry dc-a', '"user:u1:length" length dc-a'];
      const all = [
        ...lengths,
        '"cn-west:cart:u2:items" value dc-b',
        '"coupon:set" value dc-a',
        '"page:1" value null',
        '"user:u1:value" value dc-a',
      ].sort();
      const full = await verify('redis');
      expect(found(full.report)).toEqual(all);
      expect(full).toMatchObject({ code: 1, report: { outcome: 'different', undecided: 0 } });
      expect(found((await verify('redis', '--mode', 'existence')).report)).toEqual(keys);
      expect(found((await verify('redis', '--mode', 'length')).report)).toEqual(lengths.sort());
      const tolerant = await verify('redis', '--store', 'cache', '--ttl-tolerance', '10h', '--keep', '3');
      expect(tolerant.report.differing).toBe(all.length - 1);
      expect(found(tolerant.report)).toHaveLength(3);
      const sampled = await verify('redis', '--mode', 'sample', '--sample', '40%');
      expect(sampled.report.rows).toBeLessThan(full.report.rows * 0.8);
      const scoped = await verify('redis', '--scope', 'region:cn-west');
      expect(found(scoped.report)).toEqual(['"cn-west:cart:u2:items" value dc-b']);

      const repaired = await verify('redis', '--repair');
      expect(found(repaired.report)).toEqual(
        all.map((one) => (one.includes('page') ? one : `${one} repaired`)),
      );
      expect(repaired).toMatchObject({
        code: 1,
        report: { differing: all.length, repaired: all.length - 1 },
      });
    } finally {
      expect(await end()).toBeGreaterThan(1_000);
    }
    await plant(redis.b, ['SET', 'page:1', 'x']);
    const after = await run('verify', 'redis');
    expect(after.stdout, after.stderr).toMatch(/^Equal: \d+ keys of 1 of 1 stores compared, none differ\./);
    expect(after.code).toBe(0);
    await soon(
      async () => (await redisDifferences(redis.a, redis.b)).length === 0,
      'the data sets are equal',
    );
    const text = async (side: RedisSide): Promise<string | null> => side.text('GET', 'user:u1:value');
    expect([await text(redis.a), await text(redis.b)]).toEqual(['x', 'x']);
    expect(await redis.a.text('HGET', 'cn-west:cart:u2:items', 'f')).toBe('x');
  });

  it('is one at a time, pauses, resumes, stops; goes on at its batch when its worker is killed', async () => {
    for (const side of [redis.a, redis.b]) {
      // Not replicated: both sides get the same.
      await side.run('DEBUG', 'POPULATE', MANY, 'page:many', 20);
    }
    const script = `for i = 0, ${MANY - 1}, 1000 do redis.call('SET', 'page:many:' .. i, 'other') end`;
    await plant(redis.b, ['EVAL', script, 0]);
    const started = await run('verify', 'redis', '--detach');
    expect(started.code, started.stderr).toBe(0);
    const handle = client.workflow.getHandle('verify/example');
    const status = (): Promise<VerifyReport> => handle.query<VerifyReport>('status');
    await soon(async () => ((await beat())?.scanned ?? 0) > 0, 'it has begun');
    await handle.executeUpdate('pause');
    await soon(async () => (await status()).state === 'paused', 'it is paused');
    const paused = await status();
    expect(paused.rows).toBeGreaterThan(0);
    expect(paused.stores![0]!.progress.done).toBe(false);
    const second = await run('verify', 'mysql');
    expect(second.code).toBe(2);
    const third = await run('verify', 'redis', '--repair');
    expect(third.code).toBe(1);
    expect(third.stderr).toMatch(
      /A verification of example is under way: run \S+ \(all Redis stores, started/,
    );
    expect((await status()).rows).toBe(paused.rows);
    expect((await run('verify', 'resume')).code).toBe(0);

    const before = paused.stores![0]!.progress.scanned;
    let at: { scanned: number; worker: string } | undefined;
    await soon(async () => ((at = await beat())?.scanned ?? 0) > before, 'it goes on');
    await workers.get(at!.worker)!.kill('SIGKILL');
    await startWorker(at!.worker);
    await soon(async () => {
      const { scanned } = (await beat()) ?? { scanned: Infinity };
      expect(scanned, 'what was compared is not compared again').toBeGreaterThanOrEqual(at!.scanned);
      return scanned > at!.scanned;
    }, 'another attempt goes on');
    const report = (await handle.result()) as VerifyReport;
    const { progress } = report.stores![0]!;
    expect(progress.notComparable).toBeNull();
    expect(report).toMatchObject({ outcome: 'different', differing: MANY / 1_000, undecided: 0 });
    // Each once: SCAN gives a key twice only while its table is resized.
    expect(progress.compared).toBeGreaterThanOrEqual(MANY);
    expect(progress.compared).toBeLessThan(MANY * 1.02 + 20_000);

    await run('verify', 'redis', '--detach');
    await soon(async () => ((await beat())?.scanned ?? 0) > 0, 'it has begun');
    expect((await run('verify', 'stop')).code).toBe(0);
    expect(await handle.result()).toMatchObject({ state: 'ended' });
    const words = await run('verify', 'report');
    expect(words.stdout).toMatch(/redis\/cache database 0 "page:many:\d+" \(unowned\)\n {2}(length|value): /);
    expect(words.stdout).toMatch(/under way|different/);
  });

  it('a store whose link is paused is not comparable', async () => {
    expect((await run('replicate', 'pause', AB)).code).toBe(0);
    await redis.a.run('SET', 'user:u1:value', 'z');
    const { code, report } = await verify('redis', '--scope', 'region:cn-east');
    expect(code).toBe(3);
    expect(report).toMatchObject({ outcome: 'failed', differing: 0 });
    expect(report.stores![0]!.progress.notComparable).toContain(`${AB} is not running`);
    expect((await run('replicate', 'resume', AB)).code).toBe(0);
    expect((await verify('redis', '--scope', 'region:cn-east')).code).toBe(0);
  });
});
