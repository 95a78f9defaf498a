import { closeSync, read, writeSync } from 'node:fs';
import { promisify } from 'node:util';
import { SpoolDisk } from '../core/spool-disk.js';
import { Cursor } from './row-image.js';
import { rowsOf } from './rows-event.js';
import type { SourceTable } from './source-table.js';
import type { RowChange } from './transaction.js';

const readAt = promisify(read);

/** Length of the event's body 4, number of the table 4, type 1. */
const RECORD_BYTES = 9;
const BUFFER_BYTES = 1024 * 1024;

/**
 * Rows events of one transaction that is too large for memory, on disk, as they came: in the source's order. The file is private to the
 * process, and has no name: it is gone with its process, however that ends.
 */
export class Spool {
  /** On disk. */
  bytes = 0;
  /** Rows that the last reading has given. */
  rows = 0;
  /** Of these changes, those of units that the source did not own, as of this transaction's place in its stream. */
  notOwned: (changes: RowChange[]) => RowChange[] = () => [];
  private readonly disk = new SpoolDisk('a large transaction cannot be spooled');
  private readonly fd: number;
  private readonly tables: SourceTable[] = [];
  private readonly numbers = new Map<SourceTable, number>();
  private waiting: Buffer[] = [];
  private waitingBytes = 0;
  private closed = false;

  /** @throws InterlockError Unavailable, retryable: the disk does not take it. */
  constructor() {
    this.fd = this.disk.open();
  }

  get tableNames(): string[] {
    return this.tables.map(({ name }) => name);
  }

  /** @param body of the event, behind its table id; is copied. @throws InterlockError Unavailable, retryable */
  append(table: SourceTable, type: number, body: Buffer): void {
    let number = this.numbers.get(table);
    if (number === undefined) {
      this.numbers.set(table, (number = this.tables.length));
      this.tables.push(table);
    }
    const record = Buffer.allocUnsafe(RECORD_BYTES + body.length);
    record.writeUInt32LE(body.length, 0);
    record.writeUInt32LE(number, 4);
    record.writeUInt8(type, 8);
    body.copy(record, RECORD_BYTES);
    this.waiting.push(record);
    this.waitingBytes += record.length;
    if (this.waitingBytes >= BUFFER_BYTES) this.flush();
  }

  /** All of the transaction is there. @throws InterlockError Unavailable, retryable */
  flush(): void {
    // A large row is not copied once more.
    const buffer = this.waiting.length === 1 ? this.waiting[0]! : Buffer.concat(this.waiting);
    this.waiting = [];
    this.waitingBytes = 0;
    for (let at = 0; at < buffer.length;) {
      const written = this.disk.try(() => writeSync(this.fd, buffer, at, buffer.length - at, this.bytes));
      at += written;
      this.bytes += written;
    }
  }

  /**
   * The rows again, in the source's order, in pieces of at least `rows` rows or `bytes` bytes (the last one: what is left). May be called again.
   * @throws InterlockError Unavailable, retryable: the disk does not give it back; LinkStopped: a row cannot be carried
   */
  async *pieces(rows: number, bytes: number): AsyncGenerator<RowChange[]> {
    let changes: RowChange[] = [];
    let size = 0;
    this.rows = 0;
    const head = Buffer.allocUnsafe(RECORD_BYTES);
    for (let at = 0; at < this.bytes;) {
      await this.fill(head, at);
      const body = Buffer.allocUnsafe(head.readUInt32LE(0));
      await this.fill(body, at + RECORD_BYTES);
      at += RECORD_BYTES + body.length;
      const table = this.tables[head.readUInt32LE(4)]!;
      const before = changes.length;
      for (const row of rowsOf(head.readUInt8(8), new Cursor(body, 0, body.length), table)) changes.push(row);
      size += body.length;
      this.rows += changes.length - before;
      if (changes.length < rows && size < bytes) continue;
      yield changes;
      changes = [];
      size = 0;
    }
    if (changes.length > 0) yield changes;
  }

  /** Frees the disk. */
  discard(): void {
    if (this.closed) return;
    this.closed = true;
    closeSync(this.fd);
  }

  private async fill(buffer: Buffer, at: number): Promise<void> {
    for (let filled = 0; filled < buffer.length;) {
      const { bytesRead } = await readAt(this.fd, buffer, filled, buffer.length - filled, at + filled).catch(
        (error: unknown) => this.disk.failed(error),
      );
      if (bytesRead === 0) this.disk.failed(new Error('the file has ended before its last row'));
      filled += bytesRead;
    }
  }
}
