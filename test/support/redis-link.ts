import type { BaselineReached, LinkStatus } from '../../replicators/core/contract.js';
import { RedisConnection, textOf } from '../../replicators/redis/connection.js';
import { initialiseRedisLink } from '../../replicators/redis/initialise.js';
import type { RedisInitialiseOptions } from '../../replicators/redis/initialise.js';
import { REDIS_LINK_DEFAULTS } from '../../replicators/redis/link-config.js';
import type { RedisLinkConfig } from '../../replicators/redis/link-config.js';
import { RedisLink } from '../../replicators/redis/link.js';
import type { Reply } from '../../replicators/redis/resp/reply-reader.js';
import { startRedis } from './redis.js';
import type { TestRedis } from './redis.js';

export interface RedisSide {
  server: TestRedis;
  client: RedisConnection;
  /** A command; an error reply rejects. */
  run: (...args: (string | Buffer | number)[]) => Promise<Reply>;
  /** The value as text, as in a test that asks for one string. */
  text: (...args: (string | Buffer | number)[]) => Promise<string | null>;
}

export interface RedisPair {
  a: RedisSide;
  b: RedisSide;
  stop: () => Promise<void>;
}

export async function redisSide(server: TestRedis): Promise<RedisSide> {
  const side: RedisSide = {
    server,
    client: await RedisConnection.open({ host: '127.0.0.1', port: server.port }, 'test'),
    run: async (...args) => side.client.call(...args),
    text: async (...args) => {
      const reply = await side.client.call(...args);
      return reply === null ? null : textOf(reply);
    },
  };
  return side;
}

/** Two servers, as dc-a and dc-b. */
export async function startRedisPair(config: Record<string, string> = {}): Promise<RedisPair> {
  const servers = await Promise.all([startRedis({ config }), startRedis({ config })]);
  const [a, b] = await Promise.all(servers.map(redisSide));
  return {
    a: a!,
    b: b!,
    stop: async () => {
      a!.client.destroy();
      b!.client.destroy();
      await Promise.all(servers.map((server) => server.stop()));
    },
  };
}

export function redisLinkConfig(
  pair: Record<'a' | 'b', Pick<RedisSide, 'server'>>,
  from: 'a' | 'b',
  overrides: Partial<RedisLinkConfig> = {},
): RedisLinkConfig {
  const to = from === 'a' ? 'b' : 'a';
  return {
    ...REDIS_LINK_DEFAULTS,
    keys: [],
    link: `redis/cache:dc-${from}>dc-${to}`,
    from: `dc-${from}`,
    to: `dc-${to}`,
    source: { host: '127.0.0.1', port: pair[from].server.port },
    target: { host: '127.0.0.1', port: pair[to].server.port },
    mapping: { defaultRegion: 'eu', regions: ['eu'], segments: {} },
    ...overrides,
  };
}

export interface RunningRedisLink {
  config: RedisLinkConfig;
  status: () => LinkStatus;
  markers: BaselineReached[];
  /** How it ended; undefined: it runs. */
  ended: () => { error: unknown } | undefined;
  stop: () => Promise<void>;
}

/** Runs a link in this thread. */
export function runRedisLink(
  config: RedisLinkConfig,
  stopAt: ConstructorParameters<typeof RedisLink>[2] = () => undefined,
): RunningRedisLink {
  const abort = new AbortController();
  const markers: BaselineReached[] = [];
  let ended: { error: unknown } | undefined;
  const link = new RedisLink(
    config,
    { onStatus: () => undefined, onMarker: (baseline) => void markers.push(baseline) },
    stopAt,
  );
  const run = link.run(abort.signal).then(
    () => (ended = { error: null }),
    (error: unknown) => (ended = { error }),
  );
  return {
    config,
    status: () => link.status(),
    markers,
    ended: () => ended,
    stop: async () => {
      abort.abort();
      await run;
    },
  };
}

export async function startRedisLink(
  config: RedisLinkConfig,
  options: RedisInitialiseOptions = { from: 'now' },
): Promise<RunningRedisLink> {
  await initialiseRedisLink(config, options);
  return runRedisLink(config);
}

export async function until(
  what: string,
  holds: () => boolean | Promise<boolean>,
  ms = 60_000,
): Promise<void> {
  const deadline = Date.now() + ms;
  while (!(await holds())) {
    if (Date.now() > deadline) throw new Error(`not in ${ms} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

let markers = 0;

/** Everything that the source has written so far is on the target when this returns. */
export async function passMarker(
  source: RedisSide,
  target: RedisSide,
  link: string,
  ms = 60_000,
): Promise<void> {
  const id = `m${process.pid}-${++markers}`;
  await source.run(
    'SET',
    'interlock:marker',
    JSON.stringify({ id, workflowId: 'test', runId: 'r', epoch: 1 }),
  );
  await until(
    `marker ${id} through ${link}`,
    async () => ((await target.text('GET', `interlock:link:${link}`)) ?? '').includes(`"marker":"${id}"`),
    ms,
  );
}

/** `db/key` → type, digest of the value (the order of members does not count), when it expires. Without Interlock's own keys. */
export async function redisDataset(
  side: Pick<RedisSide, 'server'>,
  databases: readonly number[] = [0],
): Promise<Map<string, string>> {
  const found = new Map<string, string>();
  const client = await RedisConnection.open({ host: '127.0.0.1', port: side.server.port }, 'test-dataset');
  for (const db of databases) {
    await client.call('SELECT', db);
    const keys = ((await client.call('KEYS', '*')) as Buffer[]).filter(
      (key) => !key.toString('latin1').startsWith('interlock:'),
    );
    for (let i = 0; i < keys.length; i += 500) {
      const some = keys.slice(i, i + 500);
      const replies = await client.askAll(
        some.flatMap((key) => [
          ['TYPE', key],
          ['DEBUG', 'DIGEST-VALUE', key],
          ['PEXPIRETIME', key],
        ]),
      );
      for (const [j, key] of some.entries())
        found.set(
          `${db}/${key.toString('latin1')}`,
          replies
            .slice(3 * j, 3 * j + 3)

            .map((reply) => (Array.isArray(reply) ? reply.map(textOf).join() : textOf(reply)))
            .join(' '),
        );
    }
  }
  client.destroy();
  return found;
}

/** What the two differ in, shortly; empty when they are the same. */
export async function redisDifferences(
  a: Pick<RedisSide, 'server'>,
  b: Pick<RedisSide, 'server'>,
  databases: readonly number[] = [0],
): Promise<string[]> {
  const [left, right] = await Promise.all([redisDataset(a, databases), redisDataset(b, databases)]);
  const differences: string[] = [];
  for (const [key, image] of left) {
    const other = right.get(key);
    if (other !== image) differences.push(`${key}: ${image} | ${other ?? 'missing'}`);
  }
  for (const key of right.keys()) if (!left.has(key)) differences.push(`${key}: missing | ${right.get(key)}`);
  return differences.sort();
}
