import { closeSync, read, readSync, writeSync } from 'node:fs';
import { promisify } from 'node:util';
import { SpoolDisk } from '../core/spool-disk.js';

const readAt = promisify(read);

const SEGMENT_BYTES = 64 * 1024 * 1024;
/** Of what lies on disk, so much is in memory at a time. */
export const PIECE_BYTES = 256 * 1024;

/** Small reads lie close together: the arguments of one command. */
const PAGE_BYTES = 64 * 1024;

/** A file without a name, private to the process: it is gone with its process, however that ends. */
interface Segment {
  fd: number;
  /** Of its first byte. */
  start: number;
  written: number;
}

/** Bytes on the worker's disk, written at one end and given back at the other. A position counts the bytes since the spool was made. */
export class Spool {
  /** Where the next byte will be. */
  end = 0;
  private begin = 0;
  private readonly segments: Segment[] = [];
  private page = { data: Buffer.alloc(0), start: 0 };
  private reading = 0;
  private closed = false;
  private readonly disk: SpoolDisk;

  /** @param what cannot be done when the disk fails: `a large command cannot be kept` */
  constructor(what: string) {
    this.disk = new SpoolDisk(what);
  }

  /** Kept on disk. */
  get bytes(): number {
    return this.end - this.begin;
  }

  /** @returns its position. @throws InterlockError Unavailable, retryable: the disk does not take it */
  append(bytes: Buffer): number {
    const position = this.end;
    if (this.closed || bytes.length === 0) return position;
    let segment = this.segments.at(-1);
    if (segment === undefined || segment.written >= SEGMENT_BYTES) {
      segment = { fd: this.disk.open(), start: this.end, written: 0 };
      this.segments.push(segment);
    }
    const { fd } = segment;
    for (let at = 0; at < bytes.length;) {
      const written = this.disk.try(() => writeSync(fd, bytes, at, bytes.length - at, segment.written));
      at += written;
      segment.written += written;
      this.end += written;
    }
    return position;
  }

  /** As of a Buffer, so that bytes here and in memory are read alike. Few and small reads: each may wait for the disk. */
  subarray(start: number, end: number): Buffer {
    const { page } = this;
    if (start >= page.start && end <= page.start + page.data.length)
      return page.data.subarray(start - page.start, end - page.start);
    const data = Buffer.allocUnsafeSlow(Math.max(end - start, Math.min(PAGE_BYTES, this.end - start)));
    for (let filled = 0; filled < data.length;) {
      const { fd, offset, bytes } = this.find(start + filled, data.length - filled);
      filled += this.some(this.disk.try(() => readSync(fd, data, filled, bytes, offset)));
    }
    if (data.length <= PAGE_BYTES) this.page = { data, start };
    return data.subarray(0, end - start);
  }

  toString(encoding: BufferEncoding, start: number, end: number): string {
    return this.subarray(start, end).toString(encoding);
  }

  /** Some of the bytes from `start` on, `most` at most. @throws InterlockError Unavailable, retryable: the disk does not give them back */
  async read(start: number, most: number): Promise<Buffer> {
    const { fd, offset, bytes } = this.find(start, most);
    const data = Buffer.allocUnsafe(bytes);
    this.reading += 1;
    try {
      const { bytesRead } = await readAt(fd, data, 0, bytes, offset).catch((error: unknown) =>
        this.disk.failed(error),
      );
      return data.subarray(0, this.some(bytesRead));
    } finally {
      this.reading -= 1;
      // A read that is under way has the file open.
      if (this.closed) this.free();
    }
  }

  /** What is before `position` is no longer needed. */
  release(position: number): void {
    this.begin = Math.max(this.begin, position);
    if (this.reading > 0) return;
    while (this.segments.length > 0) {
      const [{ fd, start, written }] = this.segments as [Segment];
      if (start + written > this.begin) return;
      closeSync(fd);
      this.segments.shift();
    }
  }

  /** Frees the disk. */
  close(): void {
    if (this.closed) return;
    this.closed = true;
    this.free();
  }

  private free(): void {
    if (this.reading > 0) return;
    for (const { fd } of this.segments.splice(0)) closeSync(fd);
  }

  private find(position: number, most: number): { fd: number; offset: number; bytes: number } {
    for (const { fd, start, written } of this.segments) {
      const offset = position - start;
      if (offset >= 0 && offset < written) return { fd, offset, bytes: Math.min(most, written - offset) };
    }
    return this.disk.failed(new Error(this.closed ? 'it is closed' : `byte ${position} is not there`));
  }

  private some(bytesRead: number): number {
    return bytesRead > 0 ? bytesRead : this.disk.failed(new Error('the file has ended too early'));
  }
}

/** A string of a value that lies on disk. */
export class SpooledBytes {
  constructor(
    readonly spool: Spool,
    readonly start: number,
    readonly end: number,
  ) {}

  get length(): number {
    return this.end - this.start;
  }
}
