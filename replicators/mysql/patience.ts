import { ANSWER_MS, NoAnswer } from './session.js';

const MOST_MS = 16 * ANSWER_MS;

/**
 * How long the target may take for a statement. Hazard: one that takes longer by itself would be given up again and again, for ever; so at the
 * same place of the stream it gets more time with each try.
 */
export class Patience {
  answerMs = ANSWER_MS;
  private failedAt: string | undefined;

  /** An attempt has ended, at this position. */
  ended(cause: unknown, position: string): void {
    // One that was asked whether it is there at all, and got less, says nothing of its statements.
    if (position === this.failedAt && cause instanceof NoAnswer && cause.answerMs >= this.answerMs)
      this.answerMs = Math.min(this.answerMs * 2, MOST_MS);
    else if (position !== this.failedAt) this.answerMs = ANSWER_MS;
    this.failedAt = position;
  }
}
