import type { Fetched } from './client/data-api.js';
import type { SourceBatch } from './client/record-batch.js';

/** Which batches of one partition's log belong to a transaction that was committed, or to none. */
export class CommittedOnly {
  /** Transactions that were undone, whose records are still to come; by their first offset. */
  private coming: Fetched['aborted'] = [];
  private readonly undone = new Set<bigint>();

  /** What a broker said with the records that come now: all that is undone of them, whatever it said before. */
  expect(aborted: Fetched['aborted']): void {
    this.undone.clear();
    this.coming = [...aborted].sort((a, b) => a.firstOffset - b.firstOffset);
  }

  holds(batch: SourceBatch): boolean {
    while (this.coming.length > 0 && this.coming[0]!.firstOffset <= batch.lastOffset) {
      this.undone.add(this.coming.shift()!.producerId);
    }
    if (batch.control) {
      this.undone.delete(batch.producerId);
      return false;
    }
    return !(batch.transactional && this.undone.has(batch.producerId));
  }
}
