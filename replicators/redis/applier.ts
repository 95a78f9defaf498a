import { InterlockError } from '../../src/errors.js';
import { NOBODY } from '../core/contract.js';
import type { StopAt } from '../core/stop-points.js';
import type { Block, CommandBytes, Picked, Prolonged } from './block.js';
import {
  auxiliaryKey,
  heldByOther,
  keyIsGone,
  mendCommands,
  parseCheckpoint,
  unitCommands,
} from './checkpoint.js';
import type { RedisCheckpoint } from './checkpoint.js';
import { firstKeyOf } from './commands.js';
import { encodeCommand, PASSING } from './connection.js';
import type { RedisConnection } from './connection.js';
import { UNITS_KEY } from './ownership.js';
import { conflictsKey, quarantineKey, recordCommands, recordOf } from './quarantine.js';
import type { QuarantineRecord } from './quarantine.js';
import { refusalCheck, unreadRecord } from './refusals.js';
import { ReplyError } from './resp/reply-reader.js';
import type { Reply } from './resp/reply-reader.js';
import { PIECE_BYTES, Spool, SpooledBytes } from './spool.js';

const MULTI = encodeCommand(['MULTI']);
const EXEC = encodeCommand(['EXEC']);
const PING = encodeCommand(['PING']);

/** So many commands that the target refused are named; what it says of a block is in memory. */
const MOST_NAMED = 1000;

/** A command that the target did not take. */
export interface Refusal {
  record: QuarantineRecord;
  /** Of its last byte in the source's stream; null: it is of the link's own making. */
  offset: number | null;
}

export interface Applied {
  checkpoint: RedisCheckpoint;
  /** The first ones; the rest of the block was applied. */
  refusals: Refusal[];
  /** The record that stands on the target for what was refused; null: nothing was. `isNamed`: `refusals` has all of it. */
  unread: { id: string; isNamed: boolean } | null;
  /** Commands that found nothing to prolong. */
  unprolonged: Prolonged[];
  /** What was open as of this commit; asked for with a marker only. */
  open: { conflicts: number; quarantined: number } | null;
}

/** Commands were refused before EXEC, so nothing of the block was applied. */
export class BlockRefused extends Error {
  constructor(readonly refusals: readonly { offset: number | null; message: string }[]) {
    super(refusals[0]!.message);
  }
}

/** `interlock:units` was written while it was watched, so nothing of the block was applied: judge its keys anew. */
export class UnitsMoved extends Error {}

const UNITS_DIGEST = encodeCommand([
  ...['EVAL', "return redis.sha1hex(table.concat(redis.call('HGETALL', KEYS[1]), '\\0'))", 1, UNITS_KEY],
]);

/**
 * Writes blocks to the target, each as one MULTI … EXEC whose first command sets the auxiliary key.
 *
 * Hazard: a link that was paused and taken over wakes up and goes on; EXEC knows no condition but WATCH. Guard: behind each EXEC the auxiliary key is
 * watched, then read; the next EXEC is sent only when the value that was read is the one written last. A take-over in between changes the key, and
 * EXEC does nothing. What stands before EXEC may be sent earlier: the target reads a block in while it says how the one before went.
 */
export class Applier {
  private readonly key: Buffer;
  /** Resolves when the auxiliary key was seen, under WATCH, as it was written last. */
  private armed: Promise<void>;
  /** That of the block that was sent last, whether or not it is applied. */
  private planned: RedisCheckpoint;
  private watchesUnits = false;
  /** The WATCH before the next EXEC has the units. */
  private unitsInForce = false;
  isReady = false;
  /** Of the target's `interlock:units`, read behind its WATCH: what is judged by it is applied, or it has not changed. */
  unitsDigest = '';

  constructor(
    private readonly connection: RedisConnection,
    private readonly link: string,
    checkpoint: RedisCheckpoint,
    private readonly stopAt: StopAt,
  ) {
    this.key = Buffer.from(auxiliaryKey(link));
    this.planned = checkpoint;
    connection.write([this.watch()]);
    this.armed = this.arm(checkpoint, Promise.resolve([]));
  }

  /** What was sent last. */
  get latest(): RedisCheckpoint {
    return this.planned;
  }

  /** @throws InterlockError, as `apply` does: another attempt has the link */
  async ready(): Promise<void> {
    await this.armed;
  }

  /** Hazard: the target closes connections that say nothing for its `timeout`. Not within a block that is sent ahead of its turn: MULTI would queue it. */
  keepAlive(): void {
    if (!this.isReady) return;
    this.connection.expect(1, () => undefined);
    this.connection.write([PING]);
  }

  /** From now on a block is applied only when the target's units are as in `unitsDigest`. Nothing may be under way, nor sent ahead of its turn. */
  watchUnits(): void {
    this.watchesUnits = true;
    this.isReady = false;
    this.connection.write([this.watch()]);
    this.armed = this.arm(this.planned, Promise.resolve([]));
  }

  /** Behind the next block. */
  unwatchUnits(): void {
    this.watchesUnits = false;
  }

  /**
   * Sends a block; the one before may be under way.
   * @returns `sent`: the next block may be sent; `done`: this one is applied
   * @throws (`done`) BlockRefused, UnitsMoved: nothing was applied. InterlockError HeldByOther, NeedsOperator (the auxiliary key is gone; a record
   *   cannot be written), Unavailable. A lost connection says nothing here: see RedisConnection.onBroken.
   */
  apply(
    block: Block,
    fields: Partial<RedisCheckpoint> = {},
  ): { sent: Promise<void>; done: Promise<Applied> } {
    const { connection, link, armed, isReady, planned: before } = this;
    const next = this.nextCheckpoint(block, fields);
    const { parts, count } = block.commands.take();
    const unread = unreadRecord({ from: before.offset, to: next.offset, seq: next.seq });
    const check = count === 0 ? null : refusalCheck(link, unread);
    const own = [...unitCommands(link, block), ...recordCommands(link, block), ...mendCommands(link, block)];
    if (block.markers.length > 0) own.push(...openCounts(link));
    const head: (Buffer | SpooledBytes)[] = [MULTI, encodeCommand(['SET', this.key, JSON.stringify(next)])];
    if (check !== null) {
      head.push(check.before);
      for (const part of parts) head.push(part);
      head.push(check.behind);
    }
    head.push(...own);
    const inMemory = head.every((part): part is Buffer => !(part instanceof SpooledBytes)) ? head : null;
    const atOnce = isReady && inMemory !== null;
    /** The place of the first command of the source among the answers of EXEC. */
    const first = check === null ? 1 : 2;
    const answers = first + count + (check === null ? 0 : 1) + own.length;
    const errors: { at: number; error: ReplyError }[] = [];
    let at = -1;
    connection.expect(1 + answers, (reply) => {
      if (reply instanceof ReplyError) errors.push({ at: at - first, error: reply });
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
      const returnTo = this.unitsInForce ? before : undefined;
      connection.expect(1, exec);
      const tail = [EXEC, this.watch()];
      connection.write(atOnce ? [...inMemory, ...tail] : tail);
      rearm(this.arm(next, answered, returnTo));
    };
    let sent = Promise.resolve();
    if (atOnce) commit();
    else if (inMemory === null) sent = Promise.all([this.pipe(head), armed]).then(commit);
    else {
      connection.write(inMemory);
      sent = armed.then(commit);
    }
    sent.catch((error: Error) => rearm(Promise.reject(error)));
    const done = sent.then(async (): Promise<Applied> => {
      const reply = await answered;
      if (reply instanceof ReplyError) throw this.refused(reply, errors, block.commands);
      if (!Array.isArray(reply)) {
        // What watched the keys says why: another attempt's value, none, or the units.
        await this.armed;
        throw new UnitsMoved(`${link}: the units of the target have changed`);
      }
      this.stopAt('after-target-commit');
      const refused = this.refusedAt(reply, first, count);
      const refusals = this.named(refused.slice(0, MOST_NAMED), block.commands);
      block.commands.release();
      return {
        checkpoint: next,
        refusals,
        unprolonged: block.commands.prolonged.filter(({ at }) => foundNothing(reply[first + at])),
        unread: refused.length === 0 ? null : { id: unread.id, isNamed: refused.length === refusals.length },
        open:
          block.markers.length === 0
            ? null
            : { conflicts: Number(reply.at(-2)), quarantined: Number(reply.at(-1)) },
      };
    });
    return { sent, done };
  }

  /** What lies on disk goes on piece by piece, no faster than the target reads. */
  private async pipe(parts: readonly (Buffer | SpooledBytes)[]): Promise<void> {
    const { connection } = this;
    let waiting: Buffer[] = [];
    for (const part of parts) {
      if (!(part instanceof SpooledBytes)) {
        waiting.push(part);
        continue;
      }
      for (let at = part.start; at < part.end;) {
        const piece = await part.spool.read(at, Math.min(PIECE_BYTES, part.end - at));
        at += piece.length;
        connection.write([...waiting, piece]);
        waiting = [];
        await connection.drained();
        this.stopAt('within-target-write');
      }
    }
    if (waiting.length > 0) connection.write(waiting);
  }

  private nextCheckpoint(block: Block, fields: Partial<RedisCheckpoint>): RedisCheckpoint {
    const { planned } = this;
    const marker = block.markers.filter(({ workflowId }) => workflowId !== NOBODY).at(-1);
    return {
      ...planned,
      ...fields,
      offset: block.endOffset,
      db: block.db,
      rereadFrom: block.rereadFrom,
      answersFrom: block.answersFrom ?? undefined,
      heldMarker: block.heldMarker ?? undefined,
      seq: planned.seq + 1,
      marker: marker?.id ?? planned.marker,
    };
  }

  private watch(): Buffer {
    const { key, watchesUnits } = this;
    this.unitsInForce = watchesUnits;
    const keys = watchesUnits ? [key, UNITS_KEY] : [key];
    const read = [encodeCommand(['WATCH', ...keys]), encodeCommand(['GET', key])];
    return Buffer.concat(watchesUnits ? [...read, UNITS_DIGEST] : read);
  }

  /**
   * The answers to `watch` come next.
   * @param exec of the block before; what was not applied arms nothing
   * @param returnTo the checkpoint before it, when the units may have kept it from being applied
   */
  private arm(planned: RedisCheckpoint, exec: Promise<Reply>, returnTo?: RedisCheckpoint): Promise<void> {
    const { connection, link, unitsInForce } = this;
    let stays = false;
    const armed = new Promise<void>((resolve, reject) => {
      connection.expect(1, () => undefined);
      connection.expect(1, (value) => {
        const found = Buffer.isBuffer(value) ? value.toString() : null;
        stays = returnTo !== undefined && found === JSON.stringify(returnTo);
        if (!stays && found !== JSON.stringify(planned)) reject(this.notOurs(value));
        else if (!unitsInForce) resolve();
      });
      if (unitsInForce)
        connection.expect(1, (digest) => {
          if (!Buffer.isBuffer(digest)) return reject(this.notOurs(digest));
          this.unitsDigest = digest.toString();
          resolve();
        });
    }).then(async () => {
      if (Array.isArray(await exec) === stays)
        throw new InterlockError('Unavailable', `${link}: a block was not applied`, { retryable: true });
      if (stays) this.planned = returnTo!;
      // Hazard: the next block may be sent already; its EXEC goes first.
      if (stays || this.planned === planned) this.isReady = true;
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
    const isOwn = (at: number): boolean => at < 0 || at >= commands.count;
    const passing = errors.find(({ error, at }) => isOwn(at) || PASSING.has(error.code));
    if (passing !== undefined || errors.length === 0) {
      const said = passing?.error ?? exec;
      return new InterlockError('Unavailable', `the target refuses to be written: ${said.message}`, {
        retryable: true,
      });
    }
    const refusals: { offset: number | null; message: string }[] = [];
    this.pick(
      commands,
      errors.map(({ at }) => at),
      ({ offset }, i) => refusals.push({ offset, message: errors[i]!.error.message }),
    );
    return new BlockRefused(refusals);
  }

  /** Places among the block's commands, with what the target says of each. */
  private refusedAt(
    replies: readonly Reply[],
    first: number,
    count: number,
  ): { at: number; message: string }[] {
    const { link } = this;
    const refused: { at: number; message: string }[] = [];
    for (const [i, reply] of replies.entries()) {
      if (!(reply instanceof ReplyError)) continue;
      const at = i - first;
      if (at >= 0 && at < count) refused.push({ at, message: reply.message });
      else
        throw new InterlockError(
          'NeedsOperator',
          `${link}: the target does not take what the link notes beside the data: ${reply.message}. Look at the types of interlock:*:${link} there, and at the rights of the link's user (EVAL, INFO)`,
          { details: { link } },
        );
    }
    return refused;
  }

  private named(refused: readonly { at: number; message: string }[], commands: CommandBytes): Refusal[] {
    const refusals: Refusal[] = [];
    this.pick(
      commands,
      refused.map(({ at }) => at),
      ({ command, offset, db }, i) => {
        const key = firstKeyOf(command);
        const record = recordOf('refused', command, { db, key, detail: refused[i]!.message });
        refusals.push({ record, offset });
      },
    );
    return refusals;
  }

  private pick(
    commands: CommandBytes,
    indexes: readonly number[],
    take: (found: Picked, i: number) => void,
  ): void {
    const spool = new Spool('a large command cannot be kept');
    try {
      let i = 0;
      for (const found of commands.pick(indexes, spool)) take(found, i++);
    } finally {
      spool.close();
    }
  }
}

/** As of the commit that they stand in. */
function openCounts(link: string): Buffer[] {
  return [conflictsKey(link), quarantineKey(link)].map((key) => encodeCommand(['HLEN', key]));
}

/** PEXPIREAT, PERSIST: 0. Of fields of a hash: -2 for each that is not there. */
function foundNothing(reply: Reply | undefined): boolean {
  return reply === 0 || (Array.isArray(reply) && reply.includes(-2));
}
