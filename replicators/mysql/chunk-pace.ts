const FIRST_ROWS = 2_000;
const MOST_ROWS = 40_000;
const FEWEST_ROWS = 100;
const CHUNK_BYTES = 4 * 1024 * 1024;
/** A chunk is written between changes that wait behind it: this is what they may have to wait. */
const CHUNK_MS = 200;
/** Sized for the one above, a chunk takes some more or less: from here on the target is slow. */
const SLOW_MS = 2 * CHUNK_MS;
const MOST_REST_MS = 5_000;

/** How much of a table is copied at once, and how long the target is left alone between two chunks. */
export class ChunkPace {
  rows = FIRST_ROWS;

  /** Before anything of a table was read. @param rowBytes what the server knows of the size of its rows */
  begin(rowBytes: number): void {
    this.rows = Math.max(1, Math.min(FIRST_ROWS, Math.floor(CHUNK_BYTES / Math.max(rowBytes, 1))));
  }

  /** @param tookMs from where the one before was done until the chunk was written and the next one read */
  adapt(rows: number, bytes: number, tookMs: number): void {
    if (rows === 0) return;
    const byTime = Math.max(FEWEST_ROWS, (rows * CHUNK_MS) / Math.max(tookMs, 1));
    const byBytes = CHUNK_BYTES / Math.max(bytes / rows, 1);
    this.rows = Math.max(1, Math.floor(Math.min(byTime, byBytes, this.rows * 2, MOST_ROWS)));
  }

  /** A chunk has to be read again because of what happened meanwhile: a shorter while. */
  shrink(): void {
    this.rows = Math.max(FEWEST_ROWS, Math.floor(this.rows / 2));
  }

  /**
   * What is left to wait after a chunk.
   * @param answeredMs how long the target took for it: when it is slow, it is left alone for what that is above what it should take
   */
  restMs(rows: number, maxRowsPerSecond: number | null, tookMs: number, answeredMs: number): number {
    const byRate = maxRowsPerSecond === null ? 0 : (rows * 1000) / maxRowsPerSecond - tookMs;
    const bySlowness = answeredMs > SLOW_MS ? Math.min(MOST_REST_MS, answeredMs - CHUNK_MS) : 0;
    return Math.max(0, byRate, bySlowness);
  }
}
