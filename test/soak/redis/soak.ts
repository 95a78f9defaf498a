import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { auxiliaryKey } from '../../../replicators/redis/checkpoint.js';
import { RedisConnection, textOf } from '../../../replicators/redis/connection.js';
import { initialiseRedisLink } from '../../../replicators/redis/initialise.js';
import type { RedisLinkConfig } from '../../../replicators/redis/link-config.js';
import type { Reply } from '../../../replicators/redis/resp/reply-reader.js';
import { messageOf } from '../../../src/errors.js';
import { redisDataset, redisDifferences, redisLinkConfig } from '../../support/redis-link.js';
import { startRedis } from '../../support/redis.js';
import type { TestRedis } from '../../support/redis.js';
import { relay } from '../../support/relay.js';
import type { Relay } from '../../support/relay.js';
import { FaultInjector, killsOf } from '../mysql/faults.js';
import type { FaultCounts } from '../mysql/faults.js';
import { LinkSupervisor } from '../mysql/link-supervisor.js';
import { Random } from '../mysql/random.js';
import { DATABASES, RedisLoad, SOAK_KEYS, SOAK_REGION, unitStates } from './load.js';
import type { Letter } from './load.js';

export interface RedisSoakOptions {
  seed: number;
  /** Faults end after so long, and not before so many kills; 0: not asked for. */
  minutes: number;
  kills: number;
  say: (line: string) => void;
}

export interface RedisSoakReport {
  soak: 'redis';
  seed: number;
  seconds: number;
  kills: number;
  faults: FaultCounts;
  links: Record<string, { processes: number; superseded: number }>;
  transactions: { acknowledged: number; unanswered: number };
  /** Times that both sides were compared in full: before each kill of a server, and in the end. */
  comparisons: number;
  comparedKeys: number;
  /** What is wrong; empty when both sides are the same each time and every transaction counts once. */
  findings: string[];
}

const LETTERS = ['a', 'b'] as const;
const LEVEL_MS = 300_000;
const MARK_AGAIN_MS = 15_000;
const FINDINGS = 10;
const CONFIG = {
  appendonly: 'yes',
  appendfsync: 'always',
  'repl-backlog-size': '64mb',
  'repl-diskless-sync-delay': '0',
};

/**
 * Two servers, a link in each direction as a process of its own, load on both sides, and random faults; then both sides are compared in full. A server
 * that was killed has no replication history, so that its link stops, and is told to copy all again, which would mend what went wrong before: both sides
 * are compared before each of these kills, too.
 */
export async function runRedisSoak(options: RedisSoakOptions): Promise<RedisSoakReport> {
  const { seed, say } = options;
  const begin = Date.now();
  const directory = await mkdtemp(path.join(tmpdir(), 'interlock-soak-redis-'));
  const relays: Record<string, Relay> = {};
  const links: Record<string, LinkSupervisor> = {};
  const servers = { a: await startRedis({ config: CONFIG }), b: await startRedis({ config: CONFIG }) };
  let load: RedisLoad | undefined;
  try {
    for (const side of LETTERS) await ask(servers[side], 'HSET', 'interlock:units', ...unitStates(side));
    for (const from of LETTERS) {
      const config = redisLinkConfig({ a: { server: servers.a }, b: { server: servers.b } }, from, {
        keys: SOAK_KEYS,
        mapping: { defaultRegion: SOAK_REGION, regions: [SOAK_REGION], segments: {} },
        onGap: 'resync',
      });
      await initialiseRedisLink(config, { from: 'now' });
      for (const end of ['source', 'target'] as const) {
        const between = await relay(config[end].port);
        relays[`${config.link} and its ${end}`] = between;
        config[end] = { ...config[end], port: between.port };
      }
      const file = path.join(directory, `${from}.json`);
      await writeFile(file, JSON.stringify(config));
      links[config.link] = new LinkSupervisor(config.link, file, undefined, (words) =>
        words.includes('another history') ? copyAgain(config) : undefined,
      );
    }
    load = new RedisLoad(servers, seed);
    const level = new Level(servers, Object.keys(links), load, say);
    const victim = (server: TestRedis) => ({
      ...server,
      kill: async (signal: 'SIGKILL'): Promise<void> => {
        await level.compare();
        await server.kill(signal);
      },
    });
    const injector = new FaultInjector(
      { links, servers: { 'server a': victim(servers.a), 'server b': victim(servers.b) }, relays },
      new Random(seed),
      (line) => say(`${((Date.now() - begin) / 1000).toFixed(1)} s: ${line}`),
    );
    const failed = (): string | undefined =>
      Object.values(links).find(({ failure }) => failure !== undefined)?.failure;
    const startedAt = Date.now();
    const findings: string[] = [];
    try {
      await injector.run(
        (counts) =>
          failed() !== undefined ||
          level.findings.length > 0 ||
          (Date.now() - startedAt >= options.minutes * 60_000 && killsOf(counts) >= options.kills),
      );
      say('the faults are over; waiting for both links');
      if (failed() === undefined) await level.compare();
      await load.stop();
      findings.push(...level.findings, ...(await ledger(servers, load)));
    } catch (error) {
      findings.push(messageOf(error));
    }
    const failure = failed();
    if (failure !== undefined) findings.push(failure);
    return {
      ...{ soak: 'redis', seed, seconds: Math.round((Date.now() - begin) / 1000) },
      kills: killsOf(injector.counts),
      faults: injector.counts,
      links: Object.fromEntries(
        Object.entries(links).map(([link, { starts, superseded }]) => [
          link,
          { processes: starts, superseded },
        ]),
      ),
      transactions: { acknowledged: load.count, unanswered: load.unanswered },
      comparisons: level.comparisons,
      comparedKeys: level.comparedKeys,
      findings,
    };
  } finally {
    await load?.stop();
    await Promise.all(Object.values(links).map((link) => link.stop()));
    for (const each of Object.values(relays)) each.close();
    await Promise.all(LETTERS.map((side) => servers[side].stop()));
    await rm(directory, { recursive: true, force: true });
  }
}

/** Through whatever faults there are now. */
async function copyAgain(config: RedisLinkConfig): Promise<void> {
  const deadline = Date.now() + LEVEL_MS;
  while (Date.now() < deadline) {
    try {
      await initialiseRedisLink(config, { resync: true });
      return;
    } catch {
      await sleep(200);
    }
  }
}

/** Brings both sides to a stand, and compares them. */
class Level {
  comparisons = 0;
  comparedKeys = 0;
  readonly findings: string[] = [];
  private marks = 0;
  private last: Promise<void> = Promise.resolve();

  constructor(
    private readonly servers: Record<Letter, TestRedis>,
    private readonly links: readonly string[],
    private readonly load: RedisLoad,
    private readonly say: (line: string) => void,
  ) {}

  /** One after the other: the second one waits until the server is up that the first one was for. */
  compare(): Promise<void> {
    this.last = this.last.then(() => this.load.without(() => this.compared()));
    return this.last;
  }

  private async compared(): Promise<void> {
    const deadline = Date.now() + LEVEL_MS;
    for (;;) {
      try {
        for (const [i, from] of LETTERS.entries())
          await this.passes(
            this.links[i]!,
            this.servers[from],
            this.servers[from === 'a' ? 'b' : 'a'],
            deadline,
          );
        const [a, b] = [{ server: this.servers.a }, { server: this.servers.b }];
        const differences = await redisDifferences(a, b, DATABASES);
        this.comparedKeys = (await redisDataset(a, DATABASES)).size;
        this.comparisons += 1;
        this.findings.push(...differences.slice(0, FINDINGS));
        if (differences.length > 0) this.say(`${differences.length} keys differ`);
        return;
      } catch (error) {
        // A server is down, or paused: it comes back.
        if (Date.now() > deadline) throw error;
        await sleep(200);
      }
    }
  }

  /** What the source has is on the target. */
  private async passes(link: string, source: TestRedis, target: TestRedis, deadline: number): Promise<void> {
    for (;;) {
      const id = `soak-${++this.marks}`;
      await ask(
        source,
        'SET',
        'interlock:marker',
        JSON.stringify({ id, workflowId: 'soak', runId: 'r', epoch: 1 }),
      );
      const again = Date.now() + MARK_AGAIN_MS;
      while (Date.now() < again) {
        // Not one that is held: keys are to be mended before it counts.
        const text = textOf(await ask(target, 'GET', auxiliaryKey(link)));
        if (text !== '' && (JSON.parse(text) as { marker: string | null }).marker === id) return;
        await sleep(20);
      }
      if (Date.now() > deadline) throw new Error(`${link} passes no marker in ${LEVEL_MS} ms`);
    }
  }
}

/** Every transaction that was acknowledged is on both sides, once, in the databases together. */
async function ledger(servers: Record<Letter, TestRedis>, load: RedisLoad): Promise<string[]> {
  const findings: string[] = [];
  for (const side of LETTERS) {
    const connection = await RedisConnection.open({ host: '127.0.0.1', port: servers[side].port }, 'soak');
    for (const [user, ids] of load.acknowledged) {
      let count = 0;
      const there: string[] = [];
      for (const db of DATABASES) {
        await connection.call('SELECT', db);
        count += Number(textOf(await connection.call('GET', `user:${user}:count`)));
        there.push(...((await connection.call('LRANGE', `user:${user}:ids`, 0, -1)) as Reply[]).map(textOf));
      }
      const once = new Set(there);
      if (count !== there.length || once.size !== there.length)
        findings.push(
          `${user} on ${side}: counted ${count}, ${there.length} ids, ${once.size} of them different`,
        );
      const lost = ids.filter((id) => !once.has(id));
      if (lost.length > 0)
        findings.push(
          `${user} on ${side}: ${lost.length} acknowledged transactions are missing: ${lost.slice(0, 5).join(', ')}`,
        );
    }
    connection.destroy();
  }
  return findings.slice(0, FINDINGS);
}

async function ask({ port }: TestRedis, ...command: string[]): Promise<Reply> {
  const connection = await RedisConnection.open({ host: '127.0.0.1', port }, 'soak');
  try {
    return await connection.call(...command);
  } finally {
    connection.destroy();
  }
}

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
