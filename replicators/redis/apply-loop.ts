import { InterlockError, messageOf } from '../../src/errors.js';
import type { StopAt } from '../core/stop-points.js';
import type { Pace } from '../core/pace.js';
import { BlockRefused } from './applier.js';
import type { Applied, Applier } from './applier.js';
import type { Block } from './block.js';
import type { RedisCheckpoint } from './checkpoint.js';
import type { Replica } from './replica.js';
import { CommandReader } from './resp/command-reader.js';
import type { StreamCommand } from './resp/command-reader.js';
import type { SourceStream } from './source-stream.js';
import { Spool } from './spool.js';

const BLOCK_COMMANDS = 4_000;
const BLOCK_BYTES = 1024 * 1024;
/** Hazard: where little is carried, a block of a few commands would keep as many chunks of the stream in memory. */
const HELD_BYTES = 8 * 1024 * 1024;
const RECORD_BYTES = 1024 * 1024;
/** From here on it is worth while to send a block while the target is at the one before. */
const AHEAD_BYTES = 32 * 1024;
/**
 * What was left out moves the position in memory only; with this much of it the checkpoint is written too, so that it stays within the source's
 * backlog. Hazard: the other link leaves that write out, and would write its checkpoint in turn, for ever. Guard: each is a small part of what calls for
 * the next.
 */
const LEFT_OUT_BYTES = 128 * 1024;

export interface LoopEvents {
  /** A block was applied, or a part of the stream has nothing for the target: everything up to `offset` is done. */
  onApplied: (offset: number, block: Block | null, applied: Applied | null) => void;
  onError: (error: unknown) => void;
}

/** Takes what the source sends, makes blocks of it, and keeps the target busy with one while the next is sent. */
export class ApplyLoop {
  private readonly spool = new Spool('a large command cannot be kept');
  private readonly reader = new CommandReader(this.spool);
  /** Of `spool`: what is before it was taken into blocks, or left out. */
  private taken = 0;
  private commands: StreamCommand[] = [];
  private next = 0;
  /** The block before has not been told to begin. */
  private sending = false;
  private inFlight = 0;
  private persisted: number;
  private moved: number;
  private ended = false;
  private loading = false;
  private freeAt = 0;
  private timer: NodeJS.Timeout | undefined;
  private deferred = false;
  private readonly most: { rows: number; bytes: number };

  constructor(
    private readonly replica: Replica,
    private readonly stream: SourceStream,
    private readonly applier: Applier,
    private readonly pace: Pace | null,
    checkpoint: RedisCheckpoint,
    private readonly replid: string,
    private readonly events: LoopEvents,
    private readonly stopAt: StopAt,
  ) {
    // A source's new name is not put off: it knows its former one, and none before that.
    this.persisted = replid === checkpoint.replid ? checkpoint.offset : -Infinity;
    this.moved = checkpoint.offset;
    const most = { rows: BLOCK_COMMANDS, bytes: Math.min(BLOCK_BYTES, stream.target.transactionBytes / 4) };
    this.most = pace?.most(most.rows, most.bytes) ?? most;
  }

  end(): void {
    this.ended = true;
    clearTimeout(this.timer);
    this.spool.close();
    this.stream.close();
  }

  /** Everything that has come is applied. */
  get isIdle(): boolean {
    return this.inFlight === 0 && this.replica.intake.isEmpty && this.next >= this.commands.length;
  }

  /** Goes on as far as it can: something came, or the target has room. */
  pump(): void {
    if (this.ended) return;
    try {
      this.fill();
      this.flush();
    } catch (error) {
      this.fail(error);
      return;
    }
    const { replica } = this;
    if (replica.failure !== undefined && this.isIdle) {
      // What had arrived whole is applied before a lost source ends the attempt.
      this.fail(replica.failure);
    } else if (replica.intake.mustLoad && !this.loading && !this.isFull) {
      this.loading = true;
      replica.intake.load().then(
        () => {
          this.loading = false;
          this.pump();
        },
        (error: unknown) => this.fail(error),
      );
    }
  }

  private get isFull(): boolean {
    const { stream, most } = this;
    const { commands, recordBytes } = stream.block;
    return (
      stream.isCut ||
      commands.count >= most.rows ||
      commands.bytes >= most.bytes ||
      commands.heldBytes >= HELD_BYTES ||
      recordBytes >= RECORD_BYTES
    );
  }

  private fill(): void {
    const { stream } = this;
    while (!this.isFull) {
      if (this.next === this.commands.length) {
        this.next = 0;
        this.commands = [];
        const chunk = this.replica.shift();
        if (chunk === undefined) return;
        this.commands = this.reader.push(chunk);
        if (this.commands.length > 0) this.stopAt('after-read');
        continue;
      }
      const command = this.commands[this.next++]!;
      stream.take(command);
      if (command.data === this.spool) this.taken = command.end;
    }
  }

  private flush(): void {
    const { stream, applier } = this;
    const { block } = stream;
    if (this.sending || !stream.isWhole || stream.isRereading) return;
    if (!block.hasEffect) {
      if (this.inFlight > 0) return;
      this.spool.release(this.taken);
      if (block.endOffset !== this.moved) this.reached(block.endOffset, null, null);
      // It may have a marker now, which has waited until everything before it was answered.
      if (!block.hasEffect && block.endOffset - this.persisted < LEFT_OUT_BYTES) return;
    }
    if (!applier.isReady && (this.inFlight > 1 || (block.commands.bytes < AHEAD_BYTES && !this.isFull)))
      return;
    if (this.waits()) return;
    this.send(stream.takeBlock());
  }

  /** @returns whether the block has to wait, for the throttle */
  private waits(): boolean {
    if (this.pace === null) return false;
    const waitMs = this.freeAt - performance.now();
    if (waitMs <= 0) return false;
    this.timer ??= setTimeout(() => {
      this.timer = undefined;
      this.pump();
    }, waitMs);
    return true;
  }

  private send(block: Block): void {
    if (this.pace !== null) {
      const now = performance.now();
      this.freeAt = now + this.pace.waitMs(block.rows, block.commands.bytes, now);
    }
    this.inFlight += 1;
    this.sending = true;
    const { taken } = this;
    const { sent, done } = this.applier.apply(block, { replid: this.replid });
    sent.then(
      () => {
        this.sending = false;
        this.pump();
      },
      () => undefined,
    );
    done.then(
      (applied) => {
        this.inFlight -= 1;
        this.spool.release(taken);
        this.persisted = applied.checkpoint.offset;
        this.reached(applied.checkpoint.offset, block, applied);
        if (!this.sending) this.pumpSoon();
      },
      (error: unknown) => this.fail(error),
    );
  }

  /** The target's readiness is told right behind the answer to a block: by then, the next one can be sent at once. */
  private pumpSoon(): void {
    if (this.deferred) return;
    this.deferred = true;
    this.applier.ready().then(
      () => {
        this.deferred = false;
        this.pump();
      },
      (error: unknown) => this.fail(error),
    );
  }

  private reached(offset: number, block: Block | null, applied: Applied | null): void {
    this.moved = offset;
    this.events.onApplied(offset, block, applied);
  }

  private fail(error: unknown): void {
    if (this.ended) return;
    this.end();
    if (error instanceof InterlockError || error instanceof BlockRefused) this.events.onError(error);
    else
      this.events.onError(
        new InterlockError('Internal', `the link has a defect: ${messageOf(error)}`, { cause: error }),
      );
  }
}
