import { InterlockError } from '../../../src/errors.js';
import type { DcId } from '../../../src/routing/units.js';
import { ReplyError } from '../resp/reply-reader.js';
import type { Reply } from '../resp/reply-reader.js';

export type Argument = string | Buffer | number;
export type Command = readonly Argument[];

/** A connection that nobody else uses: its database and what it watches are the comparison's. */
export interface VerifyConnection {
  /** Pipelined. An error that the server answers with is one of the replies; rejects when the connection is lost. */
  askAll: (commands: readonly Command[]) => Promise<Reply[]>;
}

export interface VerifiedSide {
  dc: DcId;
  connection: VerifyConnection;
}

/** An answer that is a string, of either kind; anything else is ''. */
export function textOf(reply: Reply | undefined): string {
  return Buffer.isBuffer(reply) ? reply.toString('latin1') : typeof reply === 'string' ? reply : '';
}

/** For one pipeline, of 8 MB at most where values are not larger. */
const ANSWER_MS = 60_000;

/** Errors that a key gives which was made another kind in between: it is looked at again. */
const CHANGED = new Set(['WRONGTYPE', 'NOGROUP']);

/** One of the two servers that are compared. */
export class Side {
  readonly dc: DcId;
  private readonly connection: VerifyConnection;
  /** run_id of the server; '' before `open`. */
  runId = '';
  private db = -1;
  /** PEXPIRETIME is known (Redis 7). */
  private tellsExpiry = false;

  constructor(
    { dc, connection }: VerifiedSide,
    private readonly signal: AbortSignal,
  ) {
    this.dc = dc;
    this.connection = connection;
  }

  /** @returns the databases that have keys, and how many */
  async open(): Promise<Map<number, number>> {
    const [server, keyspace] = await this.ask(0, [
      ['INFO', 'server'],
      ['INFO', 'keyspace'],
    ]);
    const version = /redis_version:(\d+)/.exec(textOf(server))?.[1];
    this.tellsExpiry = Number(version) >= 7;
    this.runId = /run_id:(\w+)/.exec(textOf(server))?.[1] ?? '';
    return new Map(
      [...textOf(keyspace).matchAll(/^db(\d+):keys=(\d+)/gm)].map(([, db, keys]) => [
        Number(db),
        Number(keys),
      ]),
    );
  }

  /** @throws InterlockError when the server refuses one of the commands; a key of another kind than asked for is an error among the replies */
  async ask(db: number, commands: readonly Command[]): Promise<Reply[]> {
    if (commands.length === 0) return [];
    const select = this.db !== db;
    const replies = await this.answered(select ? [['SELECT', db], ...commands] : commands);
    this.db = db;
    for (const [index, reply] of replies.entries()) {
      if (!(reply instanceof ReplyError) || CHANGED.has(reply.code)) continue;
      this.db = -1;
      const [name] = select ? (index === 0 ? ['SELECT'] : commands[index - 1]!) : commands[index]!;
      const passing = ['LOADING', 'BUSY', 'MASTERDOWN', 'TRYAGAIN'].includes(reply.code);
      throw new InterlockError(
        passing ? 'Unavailable' : 'Refused',
        `Redis of ${this.dc} refuses ${String(name)} in database ${db}: ${reply.message}`,
        { retryable: passing },
      );
    }
    return select ? replies.slice(1) : replies;
  }

  /** A server that does not answer, and hangs up neither, must not hold a comparison for ever. */
  private async answered(commands: readonly Command[]): Promise<Reply[]> {
    const limit = AbortSignal.any([this.signal, AbortSignal.timeout(ANSWER_MS)]);
    limit.throwIfAborted();
    const end = new AbortController();
    const given = new Promise<never>((_, reject) => {
      const stop = (): void => {
        const message = `Redis of ${this.dc} does not answer in ${ANSWER_MS / 1000} s`;
        reject(
          this.signal.aborted
            ? (this.signal.reason as Error)
            : new InterlockError('Unavailable', message, { retryable: true }),
        );
      };
      limit.addEventListener('abort', stop, { signal: end.signal });
    });
    try {
      return await Promise.race([this.connection.askAll(commands), given]);
    } finally {
      end.abort();
    }
  }

  /** When each key expires (Unix time in ms); null: never; undefined: there is no such key. */
  async expiries(db: number, keys: readonly Buffer[]): Promise<(number | null | undefined)[]> {
    const name = this.tellsExpiry ? 'PEXPIRETIME' : 'PTTL';
    const [time, ...replies] = await this.ask(db, [['TIME'], ...keys.map((key) => [name, key])]);
    const [seconds, micros] = (time as Buffer[]).map(Number);
    const now = this.tellsExpiry ? 0 : seconds! * 1000 + micros! / 1000;
    return replies.map((reply) => (reply === -2 ? undefined : reply === -1 ? null : now + Number(reply)));
  }

  /** Milliseconds that a key has left; null: no end, or no key. */
  async lifeLeft(db: number, key: Buffer): Promise<number | null> {
    const [left] = await this.ask(db, [['PTTL', key]]);
    return Number(left) < 0 ? null : Number(left);
  }
}
