import { InterlockError } from '../../src/errors.js';
import type { SourceTransaction } from './transaction.js';

/** Most that prepared XA transactions may have together in memory. */
const PREPARED_BYTES = 32 * 1024 * 1024;

/**
 * Prepared XA transactions, by XID. Hazard: their rows are with this process only. Guard: the GTID of the XA PREPARE comes into the position
 * together with that of the XA COMMIT; until then the source sends it again.
 */
export class PreparedTransactions {
  private readonly byXid = new Map<string, SourceTransaction>();
  private bytes = 0;

  /** The one that was read first. */
  get first(): SourceTransaction | undefined {
    return this.byXid.values().next().value;
  }

  discard(): void {
    for (const { spool } of this.byXid.values()) spool?.discard();
  }

  hold(xid: string, transaction: SourceTransaction, byteBudget: number): void {
    this.byXid.set(xid, transaction);
    this.bytes += inMemory(transaction);
    if (this.bytes > Math.max(PREPARED_BYTES, byteBudget)) {
      throw new InterlockError(
        'LinkStopped',
        `the source's prepared XA transactions are larger together than ${PREPARED_BYTES} bytes; XA COMMIT or XA ROLLBACK them`,
      );
    }
  }

  peek(xid: string): SourceTransaction | undefined {
    return this.byXid.get(xid);
  }

  /** `end` becomes what the held transaction is now. */
  end(xid: string, end: SourceTransaction, commits: boolean): void {
    const held = this.byXid.get(xid)!;
    this.byXid.delete(xid);
    this.bytes -= inMemory(held);
    end.preparedGtid = held.gtid;
    if (!commits) {
      held.spool?.discard();
      return;
    }
    const { changes, spool, units, unitsBefore, markers, violation } = held;
    Object.assign(end, { changes, spool, units, unitsBefore, markers, violation });
    end.bytes += held.bytes;
  }
}

export function xidOf(gtrid: string, bqual: string, format: number): string {
  return `${gtrid.toLowerCase()},${bqual.toLowerCase()},${format}`;
}

function inMemory({ bytes, spool }: SourceTransaction): number {
  return bytes - (spool?.bytes ?? 0);
}
