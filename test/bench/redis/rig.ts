import { execFile, fork } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { promisify } from 'node:util';
import { compiled } from '../../../infra/project.js';
import { initialiseRedisLink } from '../../../replicators/redis/initialise.js';
import type { RedisInitialiseOptions } from '../../../replicators/redis/initialise.js';
import { redisDifferences, redisLinkConfig, redisSide } from '../../support/redis-link.js';
import type { RedisSide } from '../../support/redis-link.js';
import { startRedis } from '../../support/redis.js';
import type { LinkAnswer, LinkOrder, LinkUsage } from '../mysql/link-child.js';

const run = promisify(execFile);
const DEADLINE_MS = 300_000;
const STOP_MS = 20_000;
/** Nobody listens there. */
const NOWHERE = '1';

const CONFIG = {
  'repl-backlog-size': '1gb',
  'repl-diskless-sync-delay': '0',
  'client-output-buffer-limit': 'replica 2gb 2gb 60',
};

/** What carries the source's commands to one target. Between two works it is detached, and has everything. */
export interface Side {
  name: string;
  target: RedisSide;
  /** What is not part of the time. */
  prepare: () => Promise<void>;
  attach: () => Promise<void>;
  /** Everything up to here is on the target. */
  applied: () => Promise<number>;
  /** It follows the source. */
  isUp: () => Promise<boolean>;
  detach: () => Promise<LinkUsage | null>;
}

/** One source and two targets: one of the link, one that is a replica of the source. */
export class RedisRig {
  source!: RedisSide;
  ours!: LinkSide;
  native!: Side;
  version = '';
  private readonly servers: RedisSide[] = [];

  async up(): Promise<void> {
    for (let i = 0; i < 3; i++) this.servers.push(await redisSide(await startRedis({ config: CONFIG })));
    const [source, target, replica] = this.servers as [RedisSide, RedisSide, RedisSide];
    this.source = source;
    this.ours = new LinkSide(source, target);
    this.native = nativeSide(source, replica);
    await this.ours.begin({ from: 'now' });
    await this.catchUp(this.native);
    await this.native.detach();
    this.version = /redis_version:(\S+)/.exec((await source.text('INFO', 'server'))!)![1]!;
  }

  get sides(): [LinkSide, Side] {
    return [this.ours, this.native];
  }

  /** Attaches a side and waits until it has everything. Answers the milliseconds of both. */
  async catchUp(side: Side): Promise<number> {
    const end = await this.written();
    await side.prepare();
    const begin = performance.now();
    await side.attach();
    await this.reaches(side, end);
    return performance.now() - begin;
  }

  async reaches(side: Side, end: number): Promise<void> {
    const deadline = performance.now() + DEADLINE_MS;
    while (!(await side.isUp()) || (await side.applied()) < end) {
      if (performance.now() > deadline) throw new Error(`${side.name} is not at ${end} in ${DEADLINE_MS} ms`);
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
  }

  /**
   * Bytes of the source's replication so far. Hazard: a link that has nothing to apply (PING, what it leaves out) writes no checkpoint, and never says that
   * it is there. Guard: something that it carries comes behind, and leaves no key.
   */
  async written(): Promise<number> {
    const info = (await this.source.text('INFO', 'replication'))!;
    await this.source.client.askAll([['MULTI'], ['SET', 'bench:end', ''], ['DEL', 'bench:end'], ['EXEC']]);
    return Number(/master_repl_offset:(\d+)/.exec(info)![1]);
  }

  /** Seconds of CPU that the source has spent. */
  async sourceCpu(): Promise<number> {
    const info = (await this.source.text('INFO', 'cpu'))!;
    const of = (name: string): number => Number(new RegExp(`${name}:([\\d.]+)`).exec(info)![1]);
    return of('used_cpu_sys') + of('used_cpu_user');
  }

  /** redis-benchmark against the source; answers its milliseconds. */
  async load(...args: string[]): Promise<void> {
    await run('redis-benchmark', ['-p', String(this.source.server.port), '-q', ...args], {
      maxBuffer: 1 << 28,
    });
  }

  async requireEqual(): Promise<void> {
    for (const side of this.sides) await this.requireEqualTo(side);
  }

  async requireEqualTo(side: Side): Promise<void> {
    const found = await redisDifferences(this.source, side.target);
    if (found.length > 0) throw new Error(`${side.name} differs in ${found.length} keys: ${found[0]}`);
  }

  async down(): Promise<void> {
    this.ours?.kill();
    for (const side of this.servers.splice(0)) {
      side.client.destroy();
      await side.server.stop();
    }
  }
}

function nativeSide(source: RedisSide, target: RedisSide): Side {
  const info = async (): Promise<string> => (await target.text('INFO', 'replication'))!;
  return {
    name: 'native replica',
    target,
    prepare: async () => undefined,
    attach: async () => void (await target.run('REPLICAOF', '127.0.0.1', source.server.port)),
    applied: async () => Number(/slave_repl_offset:(\d+)/.exec(await info())?.[1] ?? 0),
    isUp: async () => (await info()).includes('master_link_status:up'),
    detach: async () => {
      await target.run('REPLICAOF', '127.0.0.1', NOWHERE);
      return null;
    },
  };
}

/** The link, in a process of its own: its CPU time and its memory are its alone. */
export class LinkSide implements Side {
  readonly name = 'interlock';
  private child: ChildProcess | undefined;
  private ended: (LinkUsage & { error: string | null }) | undefined;
  private readonly config;

  constructor(
    source: RedisSide,
    readonly target: RedisSide,
  ) {
    this.config = redisLinkConfig({ a: source, b: target }, 'a', { minTtlMs: 3000 });
  }

  async begin(options: RedisInitialiseOptions): Promise<void> {
    await initialiseRedisLink(this.config, options);
  }

  async prepare(): Promise<void> {
    this.ended = undefined;
    const child = fork(compiled('test', 'bench', 'mysql', 'link-child.js'), ['redis']);
    this.child = child;
    child.on('message', (answer: LinkAnswer) => {
      if (answer.type === 'ended') this.ended = answer;
    });
    await once(child, 'message', { signal: AbortSignal.timeout(STOP_MS) });
  }

  async attach(): Promise<void> {
    this.child!.send({ type: 'start', config: this.config } satisfies LinkOrder);
  }

  async applied(): Promise<number> {
    if (this.ended !== undefined)
      throw new Error(`the link ended: ${this.ended.error ?? 'without an error'}`);
    const value = await this.target.text('GET', `interlock:link:${this.config.link}`);
    return value === null ? 0 : (JSON.parse(value) as { offset: number }).offset;
  }

  async isUp(): Promise<boolean> {
    const value = await this.target.text('GET', `interlock:link:${this.config.link}`);
    return value?.includes('"phase":"streaming"') === true;
  }

  async detach(): Promise<LinkUsage> {
    const child = this.child!;
    const exit = once(child, 'exit', { signal: AbortSignal.timeout(STOP_MS) });
    child.send({ type: 'stop' } satisfies LinkOrder);
    await exit;
    if (this.ended === undefined || this.ended.error !== null)
      throw new Error(`the link ended: ${this.ended?.error ?? 'without a word'}`);
    return this.ended;
  }

  kill(): void {
    this.child?.kill('SIGKILL');
  }
}
