import { ANSWER_MS, NoAnswer } from './session.js';

const TIMES_MOST = 16;

/** A statement that the target works on, or that waits there for somebody's lock, and that was given up. */
export class SlowStatement extends NoAnswer {
  constructor(
    answerMs: number,
    /** Of the one transaction that it is of; null: of several, or of none. */
    readonly gtid: string | null,
    /** What, how long, and what the server says of it. */
    readonly reason: string,
    /** For a lock: somebody else has to end, and the statement is none the worse. */
    readonly waits: boolean,
  ) {
    super(answerMs);
  }
}

/**
 * How long the target may take for a statement. Hazard: one that takes longer by itself would be given up again and again, for ever; so at the
 * same place of the stream it gets more time with each try. One for which the most is not enough is not tried again.
 */
export class Patience {
  answerMs: number;
  /** Of the last attempt: its position has not been passed yet. */
  slow: SlowStatement | undefined;
  /** The transaction that the target cannot apply in time. */
  tooSlow: { gtid: string; reason: string } | undefined;
  private failedAt: string | undefined;

  constructor(private readonly leastMs = ANSWER_MS) {
    this.answerMs = leastMs;
  }

  /** A statement gets no more time than now. */
  get isLast(): boolean {
    return this.answerMs >= this.leastMs * TIMES_MOST;
  }

  /** An attempt has ended, at this position. */
  ended(cause: unknown, position: string): void {
    const moved = position !== this.failedAt;
    this.failedAt = position;
    if (cause instanceof SlowStatement) this.slow = cause;
    else if (moved) this.slow = undefined;
    if (moved) {
      this.answerMs = this.leastMs;
      return;
    }
    // One that was asked whether it is there at all, and got less, says nothing of its statements.
    if (!(cause instanceof NoAnswer) || cause.answerMs < this.answerMs) return;
    if (cause instanceof SlowStatement && this.isLast && !cause.waits && cause.gtid !== null)
      this.tooSlow = { gtid: cause.gtid, reason: cause.reason };
    else this.answerMs = Math.min(this.answerMs * 2, this.leastMs * TIMES_MOST);
  }

  /** What was slow is applied. */
  passed(): void {
    this.slow = undefined;
  }
}
