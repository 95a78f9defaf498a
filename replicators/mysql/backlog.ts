import { Batch, BatchMismatch } from './batch.js';
import type { CatalogTable } from './catalog.js';
import type { SourceTable } from './source-table.js';
import { isEmpty } from './transaction.js';
import type { SourceTransaction } from './transaction.js';

/** What is written in one commit. */
export interface Work {
  batch: Batch;
  /** Transactions that are taken out of the backlog with it, those too that have nothing to write. */
  count: number;
  bytes: number;
  dropped: number;
  /** The batch is to be this transaction; something has to be done or decided before. */
  alone: SourceTransaction | null;
}

export interface BacklogOptions {
  tableOf: (table: SourceTable) => CatalogTable;
  /** Whether more than its rows is to be looked at: it stands alone. */
  standsAlone: (transaction: SourceTransaction) => boolean;
}

export interface WorkLimits {
  rows: number;
  bytes: number;
  transactions: number;
}

/** The source's transactions that were read and are not applied, in the order of its stream. */
export class Backlog {
  /** Up to `head`: holes of those that are done. */
  private readonly queue: (SourceTransaction | undefined)[] = [];
  private head = 0;

  constructor(private readonly options: BacklogOptions) {}

  push(transaction: SourceTransaction): void {
    this.queue.push(transaction);
  }

  get oldest(): SourceTransaction | undefined {
    return this.queue[this.head];
  }

  get isEmpty(): boolean {
    return this.head === this.queue.length;
  }

  all(): Iterable<SourceTransaction> {
    return this.queue.slice(this.head) as SourceTransaction[];
  }

  /** Of work that was gathered: the transactions that it takes with it. */
  of({ count }: Work): SourceTransaction[] {
    return this.queue.slice(this.head, this.head + count) as SourceTransaction[];
  }

  /** The work is done. */
  take({ count }: Work): void {
    // Hazard: what is taken out of the front of an array moves all the rest; so it is done now and then, and the rows must not wait for it.
    this.queue.fill(undefined, this.head, this.head + count);
    this.head += count;
    if (this.head < 10_000 && !this.isEmpty) return;
    this.queue.splice(0, this.head);
    this.head = 0;
  }

  /**
   * The next batch: everything that waits, up to the limits, up to a marker or one that stands alone.
   * @param behind work that is under way
   */
  gather(limits: WorkLimits, behind: Work | null = null): Work {
    const work: Work = { batch: new Batch(), count: 0, bytes: 0, dropped: 0, alone: null };
    const from = this.head + (behind?.count ?? 0);
    for (let i = from; i < this.queue.length; i++) {
      const transaction = this.queue[i]!;
      if (!isEmpty(transaction)) {
        const { batch } = work;
        if (this.options.standsAlone(transaction)) {
          if (!batch.isEmpty) return work;
          work.alone = transaction;
        } else if (!fits(batch, transaction, limits) || !this.add(work, transaction)) return work;
      } else if (transaction.foreign) work.dropped++;
      work.bytes += transaction.bytes;
      work.count++;
      if (work.alone !== null || transaction.markers.length > 0) return work;
    }
    return work;
  }

  /** @returns false: it does not follow from the ones before, and is to begin a batch of its own */
  private add(work: Work, transaction: SourceTransaction): boolean {
    const tableOf = this.options.tableOf;
    try {
      work.batch.add(transaction, ({ table }) => tableOf(table));
      return true;
    } catch (error) {
      if (!(error instanceof BatchMismatch)) throw error;
      // Something else wrote a row in between (the other side, whose transactions are dropped): the target decides, on its own.
      const before = work.batch.transactions;
      if (before.length === 0) {
        // Its own changes do not: whoever writes it says so.
        work.batch = new Batch();
        work.alone = transaction;
        return true;
      }
      work.batch = new Batch();
      for (const one of before) work.batch.add(one, ({ table }) => tableOf(table));
      return false;
    }
  }
}

function fits(batch: Batch, { changes, bytes }: SourceTransaction, limits: WorkLimits): boolean {
  return (
    batch.isEmpty ||
    (batch.transactions.length < limits.transactions &&
      batch.rowCount + changes.length <= limits.rows &&
      batch.bytes + bytes <= limits.bytes)
  );
}
