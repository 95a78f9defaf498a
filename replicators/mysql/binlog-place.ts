import type { Connection, RowDataPacket } from 'mysql2/promise';
import type { BinlogNeed } from '../core/contract.js';
import { HEADER_BYTES } from './zongji-seam.js';

/** A place in a server's binlog files. Only comparable on that server: positions that are kept are GTIDs. */
export interface BinlogPlace {
  file: string;
  at: number;
}

const ROTATE = 4;
const HEARTBEAT = 27;
/** The server made the event up for this connection: it is in no file. */
const ARTIFICIAL = 0x20;
const WRAP = 2 ** 32;

/** Where in the source's files a stream is, by the headers of its events (libbinlogevents/include/binlog_event.h: next position). */
export class BinlogReading {
  private place: BinlogPlace | undefined;
  private between: BinlogPlace | null = null;

  /** An event, from its header at `start` up to `end`, without its checksum. */
  see(buffer: Buffer, start: number, end: number): void {
    const type = buffer[start + 4]!;
    if (type === ROTATE) {
      const body = start + HEADER_BYTES;
      this.place = {
        file: buffer.toString('latin1', body + 8, end),
        at: Number(buffer.readBigUInt64LE(body)),
      };
      this.between = { ...this.place };
      return;
    }
    const next = buffer.readUInt32LE(start + 13);
    if (this.place === undefined || next === 0 || (buffer.readUInt16LE(start + 17) & ARTIFICIAL) !== 0)
      return;
    const low = this.place.at % WRAP;
    // The header has 32 bits, and a file of one huge transaction more.
    const wrapped = low > WRAP / 2 && next < WRAP / 2;
    if (next < low && !wrapped) return;
    this.place.at += next - low + (wrapped ? WRAP : 0);
    // Sent while there is nothing, and in the place of transactions that were left out.
    if (type === HEARTBEAT) this.between = { ...this.place };
  }

  /** The event that was seen last ends a transaction. */
  boundary(): void {
    this.between = this.place === undefined ? null : { ...this.place };
  }

  /** Between two transactions: all before it has been handed on. */
  get readTo(): BinlogPlace | null {
    return this.between;
  }
}

/** How long the source keeps what the link needs is looked at in so long. */
const RETENTION_MS = 5_000;

/** What the source says of its files. */
export class BinlogFiles {
  private end: BinlogPlace | undefined;
  /** File → size, in their order. */
  private sizes = new Map<string, number>();
  /** So long the server keeps a file; 0: for ever, or not known yet. */
  retentionMs = 0;
  private retentionAt = -Infinity;

  constructor(private readonly source: Connection) {}

  /** @param needed the file that the link is at */
  async look(needed: string | undefined): Promise<void> {
    const [rows] = await this.source.query<RowDataPacket[]>('SHOW MASTER STATUS');
    const row = rows[0];
    if (row === undefined) return;
    const end = { file: String(row['File']), at: Number(row['Position']) };
    const now = performance.now();
    // Where a server has thousands of files, their list costs: only when one is needed that is not the last, and now and then.
    const due = now - this.retentionAt > RETENTION_MS;
    if (due || (needed !== undefined && needed !== end.file && this.end?.file !== end.file)) {
      const [files] = await this.source.query<RowDataPacket[]>('SHOW BINARY LOGS');
      this.sizes = new Map(files.map((file) => [String(file['Log_name']), Number(file['File_size'])]));
    }
    if (due) {
      const [found] = await this.source.query<RowDataPacket[]>(
        `SHOW GLOBAL VARIABLES WHERE Variable_name IN ('binlog_expire_logs_seconds', 'expire_logs_days', 'binlog_expire_logs_auto_purge')`,
      );
      const values = new Map(found.map((one) => [String(one['Variable_name']), String(one['Value'])]));
      const seconds = Number(values.get('binlog_expire_logs_seconds') ?? 0);
      const days = Number(values.get('expire_logs_days') ?? 0);
      const never = values.get('binlog_expire_logs_auto_purge') === 'OFF';
      this.retentionMs = never ? 0 : (seconds > 0 ? seconds : days * 86_400) * 1000;
      this.retentionAt = now;
    }
    this.end = end;
  }

  /** From a place up to the end when it was looked at last; null: not known. */
  bytesBehind(place: BinlogPlace | null): number | null {
    const { end } = this;
    if (end === undefined || place === null) return null;
    if (place.file === end.file) return Math.max(0, end.at - place.at);
    const names = [...this.sizes.keys()];
    const first = names.indexOf(place.file);
    const last = names.indexOf(end.file);
    // The stream may be in a file that is newer than the last look.
    if (first < 0 || last < 0) return null;
    if (first > last) return 0;
    const between = names.slice(first, last).reduce((sum, name) => sum + this.sizes.get(name)!, 0);
    return between - place.at + end.at;
  }

  need(place: BinlogPlace | null, since: number): BinlogNeed | null {
    if (this.end === undefined) return null;
    // Names count upwards; a file that is newer than the list is not one that is gone.
    const oldest = this.sizes.keys().next().value;
    const purged =
      place !== null &&
      oldest !== undefined &&
      !this.sizes.has(place.file) &&
      fileNumber(place.file) < fileNumber(oldest);
    return {
      file: place?.file ?? null,
      neededSince: new Date(since).toISOString(),
      retentionMs: this.retentionMs,
      purged,
    };
  }
}

/** Files are numbered upwards. */
export function fileNumber(file: string): number {
  return Number(file.slice(file.lastIndexOf('.') + 1));
}
