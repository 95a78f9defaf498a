import { STREAM_ID_BYTES } from './stream-entries.js';

/** Id, time of the last delivery, count of deliveries. */
const ENTRY_BYTES = STREAM_ID_BYTES + 16;

/** What a group has delivered and nobody has acknowledged. The file says by whom only after all of it: 32 bytes each until then. */
export class PendingEntries {
  private data = Buffer.alloc(0);
  private count = 0;

  /** In the order of their ids; false when this one is not behind the one before. */
  add(id: Buffer, deliveredAtMs: bigint, deliveries: bigint): boolean {
    const at = this.count * ENTRY_BYTES;
    if (this.count > 0 && this.compare(this.count - 1, id) >= 0) return false;
    if (at === this.data.length) {
      const grown = Buffer.allocUnsafeSlow(Math.max(64 * ENTRY_BYTES, 2 * at));
      this.data.copy(grown);
      this.data = grown;
    }
    id.copy(this.data, at);
    this.data.writeBigInt64LE(deliveredAtMs, at + STREAM_ID_BYTES);
    this.data.writeBigUInt64LE(deliveries, at + STREAM_ID_BYTES + 8);
    this.count += 1;
    return true;
  }

  find(id: Buffer): { deliveredAtMs: bigint; deliveries: bigint } | null {
    let from = 0;
    let to = this.count - 1;
    while (from <= to) {
      const middle = (from + to) >>> 1;
      const order = this.compare(middle, id);
      if (order === 0) {
        const at = middle * ENTRY_BYTES + STREAM_ID_BYTES;
        return { deliveredAtMs: this.data.readBigInt64LE(at), deliveries: this.data.readBigUInt64LE(at + 8) };
      }
      if (order < 0) from = middle + 1;
      else to = middle - 1;
    }
    return null;
  }

  private compare(index: number, id: Buffer): number {
    const at = index * ENTRY_BYTES;
    return this.data.compare(id, 0, STREAM_ID_BYTES, at, at + STREAM_ID_BYTES);
  }
}
