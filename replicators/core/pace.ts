/** The most that a link applies. */
export interface Throttle {
  maxRowsPerSecond?: number;
  maxBytesPerSecond?: number;
}

/** How long a link waits between what it applies. */
export class Pace {
  private freeAt = 0;

  constructor(private readonly throttle: Throttle) {}

  /** What may be applied at once: a second's worth, so that a wait is short. */
  most(rows: number, bytes: number): { rows: number; bytes: number } {
    const { maxRowsPerSecond = rows, maxBytesPerSecond = bytes } = this.throttle;
    return { rows: Math.min(rows, maxRowsPerSecond), bytes: Math.min(bytes, maxBytesPerSecond) };
  }

  /** So much was applied: the milliseconds to wait before the next. Time that was not used is not saved up. */
  waitMs(rows: number, bytes: number, now: number): number {
    const { maxRowsPerSecond, maxBytesPerSecond } = this.throttle;
    const seconds = Math.max(
      maxRowsPerSecond === undefined ? 0 : rows / maxRowsPerSecond,
      maxBytesPerSecond === undefined ? 0 : bytes / maxBytesPerSecond,
    );
    this.freeAt = Math.max(this.freeAt, now) + seconds * 1000;
    return this.freeAt - now;
  }
}
