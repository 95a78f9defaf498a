import { InterlockError } from '../../errors.js';

type Listener = (error: InterlockError) => void;

/** The end of a transaction's time: by `timeoutMs`, or by the caller's signal. Lighter than an AbortSignal of its own per transaction. */
export class Deadline {
  /** Why it has passed. */
  passed: InterlockError | undefined;
  private readonly listeners = new Set<Listener>();
  private readonly timer: NodeJS.Timeout | undefined;
  private readonly onAbort: (() => void) | undefined;

  constructor(
    timeoutMs: number,
    private readonly signal: AbortSignal | undefined,
  ) {
    if (timeoutMs > 0) {
      this.timer = setTimeout(
        () =>
          this.pass(
            `the transaction took longer than its ${timeoutMs} ms (timeoutMs) and was given up`,
            true,
          ),
        timeoutMs,
      );
    }
    if (signal !== undefined) {
      this.onAbort = () => this.pass('the transaction was aborted', false, signal.reason);
      if (signal.aborted) this.onAbort();
      else signal.addEventListener('abort', this.onAbort, { once: true });
    }
  }

  /** Calls `listener` once when the deadline passes; the answer takes it back. */
  onPassed(listener: Listener): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  clear(): void {
    clearTimeout(this.timer);
    if (this.onAbort) this.signal?.removeEventListener('abort', this.onAbort);
    this.listeners.clear();
  }

  private pass(message: string, retryable: boolean, cause?: unknown): void {
    this.passed = new InterlockError('TransactionLost', message, { retryable, cause });
    const listeners = [...this.listeners];
    this.listeners.clear();
    for (const listener of listeners) listener(this.passed);
  }
}
