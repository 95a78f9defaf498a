const BEAT_MS = 50;
/** A switchover waits longer than that for an instance before it goes on without. */
const PAUSE_MS = 200;

/** Notices that the process stood still: it was stopped, or its event loop was held. */
export class Pauses {
  private last = performance.now();
  private woke = 0;
  private timer: NodeJS.Timeout | undefined;

  watch(): void {
    this.last = performance.now();
    this.timer = setInterval(() => this.wokeAt(), BEAT_MS).unref();
  }

  /** When the last pause ended, by the monotonic clock; 0: there was none. */
  wokeAt(): number {
    const now = performance.now();
    if (now - this.last > PAUSE_MS) this.woke = now;
    this.last = now;
    return this.woke;
  }

  end(): void {
    clearInterval(this.timer);
  }
}
