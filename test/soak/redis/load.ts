import { RedisConnection, textOf } from '../../../replicators/redis/connection.js';
import { ReplyError } from '../../../replicators/redis/resp/reply-reader.js';
import { bucketOf, bucketUnit } from '../../../src/routing/units.js';
import type { TestRedis } from '../../support/redis.js';
import { Random } from '../mysql/random.js';

export const SOAK_REGION = 'eu';
export const SOAK_KEYS = [{ pattern: 'user:{userId}:*' }];
export const DATABASES = [0, 1];
const WRITERS = 2;
const USERS = 8;
/** So that the load does not take the machine from what is tested. */
const PAUSE_MS = 8;
const RETRY_MS = 100;
/** One transaction in so many has thousands of commands. */
const LARGE_EVERY = 300;
const TAKE = `local n = redis.call('INCRBY', KEYS[1], 3) redis.call('SADD', KEYS[2], n) redis.call('SPOP', KEYS[2]) return n`;

export type Letter = 'a' | 'b';
type Command = (string | number)[];

/** Users of a writer: nobody else writes them. Those of one side have other buckets than those of the other. */
function usersOf(side: Letter, writer: number): string[] {
  const users: string[] = [];
  for (let i = 0; users.length < USERS; i++) {
    const user = `${side}${writer}-${i}`;
    if (bucketOf(user) < 500 === (side === 'a')) users.push(user);
  }
  return users;
}

const writers = (): number[] => Array.from({ length: WRITERS }, (_, i) => i);

/** The states of all units, as the server of `side` has them. */
export function unitStates(side: Letter): string[] {
  return (['a', 'b'] as const).flatMap((owner) =>
    writers()
      .flatMap((writer) => usersOf(owner, writer))
      .flatMap((user) => [
        bucketUnit(SOAK_REGION, bucketOf(user)),
        `${owner === side ? 'open' : 'remote'}:dc-${owner}:1:1`,
      ]),
  );
}

/**
 * Commands that are not idempotent, at both sides, each of units that its side owns. Each transaction counts one up and leaves its id in a list: one
 * that is lost or carried out twice shows in either.
 */
export class RedisLoad {
  /** Transactions that were answered, by user. */
  readonly acknowledged = new Map<string, string[]>();
  /** Transactions that were sent and not answered. */
  unanswered = 0;
  private stopping = false;
  private held: Promise<void> | undefined;
  private readonly idle = new Set<Promise<void>>();
  private readonly running: Promise<void>[];

  constructor(servers: Record<Letter, TestRedis>, seed: number) {
    this.running = (['a', 'b'] as const).flatMap((side, at) =>
      writers().map((writer) =>
        this.write(servers[side], usersOf(side, writer), new Random(seed * 7 + 2 * writer + at)),
      ),
    );
  }

  get count(): number {
    return [...this.acknowledged.values()].reduce((sum, ids) => sum + ids.length, 0);
  }

  /** Nothing is written while `work` runs. */
  async without<T>(work: () => Promise<T>): Promise<T> {
    let release!: () => void;
    this.held = new Promise((resolve) => (release = resolve));
    try {
      await Promise.all(this.idle);
      return await work();
    } finally {
      this.held = undefined;
      release();
    }
  }

  async stop(): Promise<void> {
    this.stopping = true;
    await Promise.all(this.running);
  }

  private async write({ port }: TestRedis, users: readonly string[], random: Random): Promise<void> {
    let connection: RedisConnection | undefined;
    for (let count = 0; !this.stopping; count++) {
      if (this.held !== undefined) await this.held;
      const user = users[random.int(users.length)]!;
      const id = `${user}/${count}`;
      const commands = transaction(random, user, id);
      let sent = false;
      const done = (async () => {
        connection ??= await RedisConnection.open({ host: '127.0.0.1', port }, 'soak-load');
        sent = true;
        const replies = await connection.askAll([
          ['SELECT', random.int(DATABASES.length)],
          ['MULTI'],
          ...commands,
          ['EXEC'],
        ]);
        const exec = replies.at(-1);
        const refused = [...replies, ...(Array.isArray(exec) ? exec : [])].find(
          (reply) => reply instanceof ReplyError,
        );
        if (refused !== undefined) throw new Error(textOf(refused));
        const ids = this.acknowledged.get(user) ?? [];
        ids.push(id);
        this.acknowledged.set(user, ids);
      })().catch(async () => {
        if (sent) this.unanswered += 1;
        connection?.destroy();
        connection = undefined;
        await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
      });
      this.idle.add(done);
      await done;
      this.idle.delete(done);
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    }
    connection?.destroy();
  }
}

function transaction(random: Random, user: string, id: string): Command[] {
  const key = (name: string): string => `user:${user}:${name}`;
  const commands: Command[] = [
    ['INCR', key('count')],
    ['RPUSH', key('ids'), id],
  ];
  const more = random.int(LARGE_EVERY) === 0 ? 3_000 : random.int(8);
  for (let i = 0; i < more; i++) {
    const n = random.int(1_000);
    commands.push(
      ...random.weighted<() => Command[]>([
        [3, () => [['APPEND', key('text'), `${n},`]]],
        [1, () => [['SET', key('text'), '']]],
        [
          3,
          () => [
            ['LPUSH', key('list'), n, n + 1],
            ['RPOP', key('list')],
          ],
        ],
        [1, () => [['LTRIM', key('list'), 0, 50]]],
        [1, () => [['LMOVE', key('list'), key('list2'), 'LEFT', 'RIGHT']]],
        [
          3,
          () => [
            ['SADD', key('set'), n, `m${n}`],
            ['SPOP', key('set')],
          ],
        ],
        [2, () => [['ZINCRBY', key('zset'), n, `m${n % 50}`]]],
        [1, () => [['ZPOPMIN', key('zset'), 2]]],
        [2, () => [['HINCRBY', key('hash'), `f${n % 20}`, n]]],
        [1, () => [['HINCRBYFLOAT', key('hash'), 'float', `${n}.1`]]],
        [
          3,
          () => [
            ['XADD', key('stream'), '*', 'n', n],
            ['XTRIM', key('stream'), 'MAXLEN', 100],
          ],
        ],
        [1, () => [['INCRBYFLOAT', key('float'), `0.${n}`]]],
        [1, () => [['EVAL', TAKE, 2, key('taken'), key('takenset')]]],
        [1, () => [['PEXPIRE', key('hash'), 100_000_000 + n]]],
        [1, () => [['PERSIST', key('hash')]]],
        [1, () => [['SET', key('lives'), n, 'EX', 100_000]]],
        [1, () => [['GETDEL', key('lives')]]],
        [1, () => [['COPY', key('list'), key('list3'), 'REPLACE']]],
        [1, () => [['UNLINK', key('list2'), key('takenset')]]],
        [1, () => [['BITFIELD', key('bits'), 'INCRBY', 'u8', n % 64, 1]]],
      ])(),
    );
  }
  return commands;
}
