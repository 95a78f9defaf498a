import { InterlockError } from '../../src/errors.js';
import { NOBODY } from '../core/contract.js';
import type { StopPoint } from '../core/stop-points.js';
import type { Block, CommandBytes } from './block.js';
import { auxiliaryKey, heldByOther, keyIsGone, parseCheckpoint, unitCommands } from './checkpoint.js';
import type { RedisCheckpoint } from './checkpoint.js';
import { encodeCommand } from './connection.js';
import type { RedisConnection } from './connection.js';
import { recordCommands } from './quarantine.js';
import type { StreamCommand } from './resp/command-reader.js';
import { ReplyError } from './resp/reply-reader.js';
import type { Reply } from './resp/reply-reader.js';

const MULTI = encodeCommand(['MULTI']);
const EXEC = encodeCommand(['EXEC']);

/** Of the target as a whole, not of a command: they pass, or an operator ends them. */
const PASSING = new Set([
  'LOADING', 'BUSY', 'MISCONF', 'READONLY', 'MASTERDOWN', 'NOREPLICAS', 'OOM', 'CLUSTERDOWN', 'TRYAGAIN', 'NOAUTH', 'NOPERM',
]); // prettier-ignore

/** A command that the target did not take. */
export interface Refusal {
  command: StreamCommand;
  /** Of its last byte in the source's stream; null: it is of the link's own making. */
  offset: number | null;
  db: number;
  message: string;
}

export interface Applied {
  checkpoint: RedisCheckpoint;
  /** The rest of the block was applied. */
  refusals: Refusal[];
}

/** Commands were refused before EXEC, so nothing of the block was applied. */
export class BlockRefused extends Error {
  constructor(readonly refusals: readonly Refusal[]) {
    super(refusals[0]!.message);
  }
}

/**
 * Writes blocks to the target, each as one MULTI … EXEC whose first command sets the auxiliary key.
 *
 * Hazard: a link that was paused and taken over wakes up and goes on; EXEC knows no condition but WATCH. Guard: behind each EXEC the auxiliary key is
 * watched, then read; the next EXEC is sent only when the value that was read is the one written last. A take-over in between changes the key, and
 * EXEC does nothing. What stands before EXEC may be sent earlier: the target reads a block in while it says how the one before went.
 */
export class Applier {
  private readonly key: Buffer;
  private readonly watch: Buffer;
  /** Resolves when the auxiliary key was seen, under WATCH, as it was written last. */
  private armed: Promise<void>;
  /** That of the block that was sent last, whether or not it is applied. */
  private planned: RedisCheckpoint;
  isReady = false;

  constructor(
    private readonly connection: RedisConnection,
    private readonly link: string,
    checkpoint: RedisCheckpoint,
    private readonly stopAt: (point: StopPoint) => void,
  ) {
    this.key = Buffer.from(auxiliaryKey(link));
    this.watch = Buffer.concat([encodeCommand(['WATCH', this.key]), encodeCommand(['GET', this.key])]);
    this.planned = checkpoint;
    connection.write([this.watch]);
    this.armed = this.arm(checkpoint, JSON.stringify(checkpoint), Promise.resolve([]));
  }

  /** What was sent last. */
  get latest(): RedisCheckpoint {
    return this.planned;
  }

  /** @throws InterlockError, as `apply` does: another attempt has the link */
  async ready(): Promise<void> {
    await this.armed;
  }

  /**
   * Sends a block; the one before may be under way.
   * @returns `sent`: the next block may be sent; `done`: this one is applied
   * @throws (`done`) BlockRefused: nothing was applied. InterlockError HeldByOther, NeedsOperator (the auxiliary key is gone), Unavailable. A lost
   *   connection says nothing here: see RedisConnection.onBroken.
   */
  apply(
    block: Block,
    fields: Partial<RedisCheckpoint> = {},
  ): { sent: Promise<void>; done: Promise<Applied> } {
    const { connection, link, armed, isReady } = this;
    const next = this.nextCheckpoint(block, fields);
    const text = JSON.stringify(next);
    const extra = [...unitCommands(link, block), ...recordCommands(link, block.records, block.log)];
    const { parts, count } = block.commands.take();
    const head = [MULTI, encodeCommand(['SET', this.key, text]), ...parts, ...extra];
    const errors: { at: number; error: ReplyError }[] = [];
    let at = 0;
    connection.expect(2 + count + extra.length, (reply) => {
      if (reply instanceof ReplyError) errors.push({ at: at - 2, error: reply });
      at += 1;
    });
    this.planned = next;
    this.isReady = false;
    this.stopAt('before-target-write');
    let rearm!: (outcome: Promise<void>) => void;
    this.armed = new Promise((resolve) => (rearm = resolve));
    this.armed.catch(() => undefined);
    let exec!: (reply: Reply) => void;
    const answered = new Promise<Reply>((resolve) => (exec = resolve));
    const commit = (): void => {
      this.stopAt('before-target-commit');
      connection.expect(1, exec);
      connection.write(isReady ? [...head, EXEC, this.watch] : [EXEC, this.watch]);
      rearm(this.arm(next, text, answered));
    };
    let sent = Promise.resolve();
    if (isReady) commit();
    else {
      connection.write(head);
      sent = armed.then(commit);
    }
    sent.catch((error: Error) => rearm(Promise.reject(error)));
    const done = sent.then(async (): Promise<Applied> => {
      const reply = await answered;
      if (reply instanceof ReplyError) throw this.refused(reply, errors, block.commands);
      if (!Array.isArray(reply)) {
        // What watched the key says why: another attempt's value, none, or the same again.
        await this.armed;
        throw new InterlockError('Unavailable', `${link}: its auxiliary key was touched`, {
          retryable: true,
        });
      }
      this.stopAt('after-target-commit');
      return { checkpoint: next, refusals: refusalsOf(reply, block.commands) };
    });
    return { sent, done };
  }

  private nextCheckpoint(block: Block, fields: Partial<RedisCheckpoint>): RedisCheckpoint {
    const { planned } = this;
    const marker = block.markers.filter(({ workflowId }) => workflowId !== NOBODY).at(-1);
    return {
      ...planned,
      ...fields,
      offset: block.endOffset,
      db: block.db,
      seq: planned.seq + 1,
      marker: marker?.id ?? planned.marker,
    };
  }

  /** The answers to WATCH and GET come next. @param exec of the block before; what was not applied arms nothing */
  private arm(planned: RedisCheckpoint, expected: string, exec: Promise<Reply>): Promise<void> {
    const { connection, link } = this;
    const armed = new Promise<void>((resolve, reject) => {
      connection.expect(1, () => undefined);
      connection.expect(1, (value) => {
        if (Buffer.isBuffer(value) && value.toString() === expected) return resolve();
        reject(this.notOurs(value));
      });
    }).then(async () => {
      if (!Array.isArray(await exec))
        throw new InterlockError('Unavailable', `${link}: a block was not applied`, { retryable: true });
      // Hazard: the next block may be sent already; its EXEC goes first.
      if (this.planned === planned) this.isReady = true;
    });
    armed.catch(() => undefined);
    return armed;
  }

  private notOurs(value: Reply): InterlockError {
    const { link, planned } = this;
    if (value instanceof ReplyError)
      return new InterlockError('Unavailable', `${link}: its checkpoint cannot be read: ${value.message}`, {
        retryable: true,
      });
    if (!Buffer.isBuffer(value)) return keyIsGone(link);
    const found = parseCheckpoint(value.toString(), link);
    if (found === undefined || found.generation !== planned.generation || found.lineage !== planned.lineage)
      return heldByOther(link);
    return new InterlockError('Unavailable', `${link}: its checkpoint is another than it has written`, {
      retryable: true,
    });
  }

  private refused(
    exec: ReplyError,
    errors: readonly { at: number; error: ReplyError }[],
    commands: CommandBytes,
  ): Error {
    const passing = errors.find(({ error, at }) => at < 0 || PASSING.has(error.code));
    if (passing !== undefined || errors.length === 0) {
      const said = passing?.error ?? exec;
      return new InterlockError('Unavailable', `the target refuses to be written: ${said.message}`, {
        retryable: true,
      });
    }
    return new BlockRefused(errors.map(({ at, error }) => ({ ...commands.at(at), message: error.message })));
  }
}

/** The first answer is that of the auxiliary key's SET. */
function refusalsOf(replies: readonly Reply[], commands: CommandBytes): Refusal[] {
  const refusals: Refusal[] = [];
  for (let i = 1; i < replies.length; i++) {
    const reply = replies[i];
    if (reply instanceof ReplyError) refusals.push({ ...commands.at(i - 1), message: reply.message });
  }
  return refusals;
}
