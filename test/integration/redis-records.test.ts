import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { checkReverse } from '../../activities/undecided.js';
import type { DatacenterDeps } from '../../activities/dependencies.js';
import type { RedisLinkConfig } from '../../replicators/redis/link-config.js';
import { openRedis } from '../../src/fence/redis-client.js';
import { RedisFence } from '../../src/fence/redis-fence.js';
import { bucketOf } from '../../src/routing/units.js';
import { validateTopology } from '../../src/topology/load.js';
import { failure, interlock } from '../cli/command-line.js';
import type { Ran } from '../cli/command-line.js';
import {
  passMarker,
  redisDifferences,
  redisLinkConfig,
  runRedisLink,
  startRedisLink,
  until,
} from '../support/redis-link.js';
import type { RunningRedisLink } from '../support/redis-link.js';
import { useRedisPair } from '../support/redis-pair.js';
import { exampleDocument } from '../support/topology.js';

const AB = 'redis/cache:dc-a>dc-b';
const KEYS = [{ pattern: 'user:{userId}:*' }];

interface Listed {
  id: string;
  link: string;
  state: string;
  reason: string;
  key: string | null;
  detail: string | null;
}

const { pair, running } = useRedisPair();
let directory: string;
let file: string;
let document: ReturnType<typeof exampleDocument>;
let fence: RedisFence;

beforeAll(async () => {
  directory = await mkdtemp(path.join(tmpdir(), 'interlock-records-'));
  file = path.join(directory, 'topology.yaml');
  document = exampleDocument();
  document['links'] = [{ store: 'redis/cache' }];
  document['keys'] = KEYS;
  for (const name of ['a', 'b'] as const) {
    const { stores } = document.datacenters[`dc-${name}`] as unknown as { stores: { redis: unknown } };
    stores.redis = { cache: { host: '127.0.0.1', port: pair[name].server.port } };
  }
  await writeFile(file, JSON.stringify(document));
  fence = new RedisFence('dc-b', 'cache', openRedis({ host: '127.0.0.1', port: pair.b.server.port }, 'test'));
});
afterAll(async () => {
  fence.client.disconnect();
  await rm(directory, { recursive: true, force: true });
});

async function linked(from: 'a' | 'b', overrides: Partial<RedisLinkConfig> = {}): Promise<RunningRedisLink> {
  const link = await startRedisLink(redisLinkConfig(pair, from, { onQuarantine: 'go-on', ...overrides }));
  running.push(link);
  return link;
}
const run = (...argv: string[]): Promise<Ran> => interlock(...argv, '--topology', file);
const failed = (...argv: string[]): ReturnType<typeof failure> =>
  failure(...argv, '--json', '--topology', file);
async function told(...argv: string[]): Promise<{ code: number; json: Record<string, unknown> }> {
  const { exitCode, stdout } = await run(...argv, '--json');
  return { code: exitCode, json: JSON.parse(stdout) as Record<string, unknown> };
}
async function listed(kind: 'quarantine' | 'conflicts', ...flags: string[]): Promise<Listed[]> {
  return (await told(kind, 'list', AB, ...flags)).json[kind] as Listed[];
}

describe('interlock quarantine, of a Redis link', () => {
  it('lists, shows, retries and leaves out; what is retried is not sent back', async () => {
    await pair.b.run('SET', 'wrong', 'a string');
    const [ab, ba] = [await linked('a'), await linked('b')];
    await pair.a.client.askAll([
      ['SELECT', 3],
      ['LPUSH', 'list', 'one'],
      ['SELECT', 0],
      ['LPUSH', 'wrong', 'v', 'w'],
      // Not of database 0, where the checkpoint of the other link is.
      ['SELECT', 5],
      ['FLUSHDB'],
      ['SELECT', 0],
    ]);
    await passMarker(pair.a, pair.b, AB);
    await until(
      'both are recorded',
      async () => (await pair.b.run('HLEN', `interlock:quarantine:${AB}`)) === 2,
    );
    const [refused, whole] = await listed('quarantine');
    expect([refused, whole]).toMatchObject([
      {
        link: AB,
        reason: 'refused',
        key: 'wrong',
        state: 'open',
        detail: expect.stringMatching(/^WRONGTYPE/) as unknown,
      },
      { link: AB, reason: 'whole-database', key: null, state: 'open' },
    ]);
    const table = await run('quarantine', 'list');
    expect(table.exitCode).toBe(3);
    expect(table.stdout).toMatch(/LPUSH wrong: the target refused it: WRONGTYPE/);
    const shown = await run('quarantine', 'show', AB, refused!.id);
    expect(shown.stdout).toContain('command: LPUSH wrong v w');
    expect(shown.stdout).toContain(`interlock quarantine retry|discard '${AB}' ${refused!.id}`);

    // Still refused: the record stays, and nothing else has happened.
    expect(await told('quarantine', 'retry', AB, refused!.id)).toMatchObject({
      code: 3,
      json: { state: 'open' },
    });
    expect(await pair.b.run('EXISTS', `interlock:link:${AB}:decision`)).toBe(0);
    await pair.b.run('DEL', 'wrong');
    await passMarker(pair.b, pair.a, ba.config.link);
    expect(await told('quarantine', 'retry', AB, refused!.id)).toMatchObject({
      code: 0,
      json: { state: 'applied', key: 'wrong' },
    });
    expect(await pair.b.run('LLEN', 'wrong')).toBe(2);
    await passMarker(pair.b, pair.a, ba.config.link);
    // Sent back, it would be there.
    expect(await pair.a.run('EXISTS', 'wrong')).toBe(0);
    expect(await failed('quarantine', 'retry', AB, refused!.id)).toMatchObject({
      exitCode: 1,
      code: 'Refused',
      message: expect.stringContaining('is applied, not open') as unknown,
    });

    expect(await failed('quarantine', 'retry', AB, whole!.id)).toMatchObject({
      exitCode: 1,
      message: expect.stringContaining('FLUSHDB would also take what the source does not own') as unknown,
    });
    expect((await run('quarantine', 'discard', AB, whole!.id)).exitCode).toBe(2);
    expect(await told('quarantine', 'discard', AB, whole!.id, '--yes')).toMatchObject({
      code: 0,
      json: { state: 'discarded' },
    });
    expect(await told('quarantine', 'list')).toEqual({ code: 0, json: { quarantine: [] } });
    expect((await run('quarantine', 'list')).stdout).toContain('Nothing is kept aside.');
    expect((await listed('quarantine', '--all')).map(({ id, state }) => [id, state])).toEqual([
      [refused!.id, 'applied'],
      [whole!.id, 'discarded'],
    ]);
    await until('the link counts none', () => ab.status().quarantined === 0);
    expect(await failed('quarantine', 'show', AB, '1-nothing')).toMatchObject({
      exitCode: 2,
      code: 'BadInput',
    });
    expect(await failed('quarantine', 'list', 'redis/other:dc-a>dc-b')).toMatchObject({
      exitCode: 2,
      message: expect.stringContaining(`expected one of ${AB}`) as unknown,
    });
  });

  it('a link that stopped goes on behind what was retried, in the order of the source, in its database', async () => {
    const link = await linked('a', { onQuarantine: 'stop' });
    await pair.b.run('SELECT', 3);
    await pair.b.run('SET', 'list', 'a string');
    await pair.a.run('SELECT', 3);
    await pair.a.run('RPUSH', 'list', 'one');
    await until('it stops', () => link.ended() !== undefined);
    await pair.a.run('RPUSH', 'list', 'two');
    await pair.a.run('SELECT', 0);
    await pair.b.run('DEL', 'list');
    await pair.b.run('SELECT', 0);
    const [record] = await listed('quarantine');
    expect(await told('quarantine', 'retry', AB, record!.id)).toMatchObject({ code: 0 });
    running.push(runRedisLink(link.config));
    await passMarker(pair.a, pair.b, AB);
    expect(await redisDifferences(pair.a, pair.b, [0, 3])).toEqual([]);
  });

  it('what was too long to be kept cannot be retried, only left out', async () => {
    await pair.b.run('SET', 'wrong', 'a string');
    await linked('a');
    await pair.a.run('RPUSH', 'wrong', 'x'.repeat(70_000));
    await until('recorded', async () => (await pair.b.run('HLEN', `interlock:quarantine:${AB}`)) === 1);
    const [record] = await listed('quarantine');
    expect(await failed('quarantine', 'retry', AB, record!.id)).toMatchObject({
      exitCode: 1,
      message: expect.stringContaining('its bytes were not kept') as unknown,
    });
    expect((await run('quarantine', 'show', AB, record!.id)).stdout).toContain('Its bytes were not kept.');
    expect((await run('quarantine', 'discard', AB, record!.id, '--yes')).exitCode).toBe(0);
  });
});

describe('interlock conflicts, of a Redis link', () => {
  it('open ones refuse a switch, and are decided for either side', async () => {
    const unitOf = (user: string): string => `cn-east/${bucketOf(user)}`;
    await pair.a.run(
      'HSET',
      'interlock:units',
      unitOf('1'),
      'remote:dc-b:1:1',
      unitOf('2'),
      'remote:dc-b:1:1',
    );
    const mapping = { defaultRegion: 'cn-east', regions: ['cn-east'], segments: {} };
    const link = await linked('a', { keys: KEYS, mapping, conflicts: 'quarantine' });
    await linked('b', { keys: KEYS, mapping });
    await pair.b.run('SET', 'user:2:n', 5);
    await pair.a.run('INCR', 'user:1:n');
    await pair.a.run('INCR', 'user:2:n');
    await passMarker(pair.a, pair.b, AB);
    // A switchover from dc-b to dc-a looks at what comes into dc-b.
    const deps = { topology: validateTopology(document) } as DatacenterDeps;
    const switchable = (): Promise<void> => checkReverse(deps, fence, { from: 'dc-b', to: 'dc-a' });
    await expect(switchable()).rejects.toMatchObject({
      code: 'Refused',
      details: { link: AB, conflicts: 2, quarantined: 0 },
    });
    const [first, second] = await listed('conflicts');
    expect([first, second]).toMatchObject([
      { reason: 'not-owned', key: 'user:1:n', state: 'open' },
      { reason: 'not-owned', key: 'user:2:n', state: 'open' },
    ]);
    expect((await run('conflicts', 'list', AB)).exitCode).toBe(3);
    expect((await run('conflicts', 'show', AB, first!.id)).stdout).toContain(
      'the source did not own the unit',
    );
    expect((await run('conflicts', 'resolve', AB, first!.id)).exitCode).toBe(2);
    expect(await told('conflicts', 'resolve', AB, first!.id, '--keep', 'target')).toMatchObject({
      code: 0,
      json: { state: 'discarded' },
    });
    await expect(switchable()).rejects.toMatchObject({ details: { conflicts: 1 } });
    expect(await told('conflicts', 'resolve', AB, second!.id, '--keep', 'source')).toMatchObject({
      code: 0,
      json: { state: 'applied' },
    });
    await switchable();
    expect(await pair.b.text('GET', 'user:1:n')).toBeNull();
    expect(await pair.b.text('GET', 'user:2:n')).toBe('6');
    expect((await run('conflicts', 'list')).stdout).toContain('No open conflicts.');
    expect((await listed('conflicts', '--all')).map(({ state }) => state)).toEqual(['discarded', 'applied']);
    await until('the link counts none', () => link.status().conflicts === 0);
  });

  it('those that the policy has decided are listed with --all', async () => {
    const mapping = { defaultRegion: 'cn-east', regions: ['cn-east'], segments: {} };
    await linked('a', { keys: KEYS, mapping });
    await pair.a.run('SET', 'user:1:n', 1);
    await passMarker(pair.a, pair.b, AB);
    expect(await listed('conflicts')).toEqual([]);
    expect(await listed('conflicts', '--all')).toMatchObject([{ key: 'user:1:n', state: 'by-policy' }]);
  });
});
