import { randomUUID } from 'node:crypto';
import { closeSync, openSync, read, unlinkSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { spoolFailure } from '../core/spool-failure.js';

const readAt = promisify(read);

const MEMORY_BYTES = 8 * 1024 * 1024;
const PIECE_BYTES = 256 * 1024;
const SEGMENT_BYTES = 64 * 1024 * 1024;

/** A file without a name, private to the process: it is gone with its process, however that ends. */
interface Segment {
  fd: number;
  written: number;
  read: number;
}

/**
 * What the source has sent and the target has not taken, in order: in memory, and beyond that on disk. Hazard: a source whose replica does not
 * read keeps all of it in its own memory, and cuts the replica off at its limit (client-output-buffer-limit), after which all has to be copied again.
 * What was read is given back to the disk, segment by segment.
 */
export class Intake {
  /** In memory and on disk. */
  bytes = 0;
  private readonly memory: Buffer[] = [];
  private memoryBytes = 0;
  private readonly segments: Segment[] = [];
  private diskBytes = 0;
  private loading = false;
  private closed = false;
  private readonly directory = tmpdir();

  constructor(
    private readonly mostBytes: number,
    /** In memory, before the disk is used. */
    private readonly memoryMost = MEMORY_BYTES,
  ) {}

  get isEmpty(): boolean {
    return this.bytes === 0;
  }

  /** Nothing more may come: the source has to wait, and its own limits count. */
  get isFull(): boolean {
    return this.bytes >= this.mostBytes;
  }

  get onDisk(): number {
    return this.diskBytes;
  }

  /** @throws InterlockError Unavailable, retryable: the disk does not take it */
  push(chunk: Buffer): void {
    if (this.closed) return;
    this.bytes += chunk.length;
    if (this.diskBytes === 0 && !this.loading && this.memoryBytes < this.memoryMost) {
      this.memory.push(chunk);
      this.memoryBytes += chunk.length;
      return;
    }
    let segment = this.segments.at(-1);
    if (segment === undefined || segment.written >= SEGMENT_BYTES) {
      segment = { fd: this.open(), written: 0, read: 0 };
      this.segments.push(segment);
    }
    for (let at = 0; at < chunk.length;) {
      const written = this.disk(() => writeSync(segment.fd, chunk, at, chunk.length - at, segment.written));
      at += written;
      segment.written += written;
    }
    this.diskBytes += chunk.length;
  }

  /** What comes next, when it is in memory; undefined: there is nothing, or `load` has to bring it. */
  shift(): Buffer | undefined {
    const chunk = this.memory.shift();
    if (chunk === undefined) return undefined;
    this.memoryBytes -= chunk.length;
    this.bytes -= chunk.length;
    return chunk;
  }

  /** Gives back the rest of what `shift` gave. */
  unshift(chunk: Buffer): void {
    this.memory.unshift(chunk);
    this.memoryBytes += chunk.length;
    this.bytes += chunk.length;
  }

  /** Whether what comes next lies on disk. */
  get mustLoad(): boolean {
    return this.memory.length === 0 && this.diskBytes > 0;
  }

  /** Brings the next pieces from disk. @throws InterlockError Unavailable, retryable: the disk does not give them back */
  async load(): Promise<void> {
    if (this.loading) return;
    this.loading = true;
    try {
      for (let i = 0; i < 8 && this.diskBytes > 0; i++) {
        const segment = this.segments[0]!;
        const piece = Buffer.allocUnsafe(Math.min(PIECE_BYTES, segment.written - segment.read));
        const { bytesRead } = await readAt(segment.fd, piece, 0, piece.length, segment.read).catch(
          (error: unknown) => this.failed(error),
        );
        if (this.closed) return;
        if (bytesRead === 0) this.failed(new Error('the file has ended too early'));
        segment.read += bytesRead;
        this.diskBytes -= bytesRead;
        this.memory.push(piece.subarray(0, bytesRead));
        this.memoryBytes += bytesRead;
        if (segment.read === segment.written) {
          this.segments.shift();
          closeSync(segment.fd);
        }
      }
    } finally {
      this.loading = false;
      if (this.closed) this.release();
    }
  }

  /** Frees memory and disk. */
  close(): void {
    if (this.closed) return;
    this.closed = true;
    this.memory.length = 0;
    this.bytes = 0;
    // A read that is under way has the file open.
    if (!this.loading) this.release();
  }

  private release(): void {
    for (const { fd } of this.segments.splice(0)) closeSync(fd);
  }

  private open(): number {
    const file = path.join(this.directory, `interlock-intake-${randomUUID()}`);
    const fd = this.disk(() => openSync(file, 'wx+', 0o600));
    this.disk(() => unlinkSync(file));
    return fd;
  }

  private disk<T>(work: () => T): T {
    try {
      return work();
    } catch (error) {
      return this.failed(error);
    }
  }

  private failed(error: unknown): never {
    throw spoolFailure('what the source sends cannot be kept', this.directory, error);
  }
}
