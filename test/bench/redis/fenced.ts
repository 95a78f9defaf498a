import { Redis } from 'ioredis';
import { openRedis } from '../../../src/fence/redis-client.js';
import { RedisFence } from '../../../src/fence/redis-fence.js';
import { FixedRules, createInterlock } from '../../../src/sdk/index.js';
import { testRules, userIn } from '../../sdk/support.js';
import { startRedis } from '../../support/redis.js';

/** Commands of a pipeline, which is packed into one script. */
export const PACKED = 50;
/** Pipelines, or single writes, that are under way at a time. */
export const IN_FLIGHT = { pipelines: 4, single: 50 };
/** In each round the two take turns so often. */
const TURNS = 10;

export interface FencedWrites {
  /** Writes a second. */
  pipelined: { ours: number; peer: number };
  single: { ours: number; peer: number };
}

/** SETs of 100 bytes to keys of one user, behind the fence against plain ioredis, on one connection each, to one server. */
export async function fencedWrites(rounds: number, writes: number): Promise<FencedWrites[]> {
  const server = await startRedis();
  const fence = new RedisFence('dc-a', 'cache', openRedis(server, 'bench'));
  const rules = testRules();
  const interlock = createInterlock({ dc: 'dc-a', application: 'bench', rules: new FixedRules(rules) });
  const clients = [0, 1].map(() => new Redis({ port: server.port, autoResendUnfulfilledCommands: false }));
  try {
    await fence.addMissing(rules);
    await fence.reassert(rules);
    const [plain, behind] = clients as [Redis, Redis];
    const pair = { ours: interlock.redis(behind, { keys: [{ pattern: 'user:{userId}:*' }] }), peer: plain };
    const results: FencedWrites[] = [];
    // Round -1 warms both up, and does not count.
    for (let round = -1; round < rounds; round++) {
      const found = {
        pipelined: await inTurns(pair, round, writes, pipelines),
        single: await inTurns(pair, round, Math.ceil(writes / 10), singles),
      };
      if (round >= 0) results.push(found);
    }
    return results;
  } finally {
    for (const client of clients) client.disconnect();
    fence.client.disconnect();
    await interlock.close();
    await server.stop();
  }
}

async function inTurns(
  pair: Record<'ours' | 'peer', Redis>,
  round: number,
  writes: number,
  work: (client: Redis, writes: number) => Promise<void>,
): Promise<{ ours: number; peer: number }> {
  const ms = { ours: 0, peer: 0 };
  const part = Math.ceil(writes / TURNS);
  for (let turn = 0; turn < TURNS; turn++) {
    const order = (turn + round) % 2 === 0 ? (['ours', 'peer'] as const) : (['peer', 'ours'] as const);
    for (const name of order) {
      const begin = performance.now();
      await work(pair[name], part);
      ms[name] += performance.now() - begin;
    }
  }
  const all = part * TURNS * 1000;
  return { ours: all / ms.ours, peer: all / ms.peer };
}

const VALUE = 'x'.repeat(100);
const USER = userIn(7);
const key = (i: number): string => `user:${USER}:${i % 1_000}`;

async function pipelines(client: Redis, writes: number): Promise<void> {
  let next = 0;
  const one = async (): Promise<void> => {
    while (next < writes) {
      const pipeline = client.pipeline();
      for (let i = 0; i < PACKED; i++) pipeline.set(key(next + i), VALUE);
      next += PACKED;
      for (const [error] of (await pipeline.exec())!) if (error !== null) throw error;
    }
  };
  await Promise.all(Array.from({ length: IN_FLIGHT.pipelines }, one));
}

async function singles(client: Redis, writes: number): Promise<void> {
  let next = 0;
  const one = async (): Promise<void> => {
    while (next < writes) await client.set(key(next++), VALUE);
  };
  await Promise.all(Array.from({ length: IN_FLIGHT.single }, one));
}
