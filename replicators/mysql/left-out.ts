import type { SourceTransaction } from './transaction.js';

/** Positions are written for their own sake at most so often, and not rarer than the source may remove what they need. */
const MOST_MS = 10 * 60_000;
const MOST_BYTES = 64 * 1024 * 1024;
const RETENTION_SHARE = 0.25;

/**
 * What a link has left out since it wrote its position last (the other link's transactions, other tables): the checkpoint still needs it. Hazard:
 * the write that only moves a checkpoint is left out by the other link, which then has something to write, and so on. Guard: it waits.
 */
export class LeftOut {
  private bytes = 0;
  private since = 0;
  /** The transaction from which on the source's binlog is needed. */
  oldest: SourceTransaction | undefined;

  add(first: SourceTransaction | undefined, bytes: number): void {
    if (this.oldest === undefined) {
      this.oldest = first;
      this.since = performance.now();
    }
    this.bytes += bytes;
  }

  /** The position was written. */
  clear(): void {
    this.oldest = undefined;
    this.bytes = 0;
  }

  /** @param retentionMs so long the source keeps its binlog; 0: for ever */
  isDue(retentionMs: number): boolean {
    if (this.oldest === undefined) return false;
    const mostMs = retentionMs === 0 ? MOST_MS : Math.min(MOST_MS, retentionMs * RETENTION_SHARE);
    return this.bytes >= MOST_BYTES || performance.now() - this.since >= mostMs;
  }
}
