import { Spool } from './spool.js';

const MEMORY_BYTES = 8 * 1024 * 1024;
const PIECE_BYTES = 256 * 1024;
const LOAD_PIECES = 8;

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
  private readonly spool = new Spool('what the source sends cannot be kept');
  /** What is before it was brought back from the disk. */
  private loaded = 0;
  private loading = false;
  private closed = false;

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
    return this.spool.end - this.loaded;
  }

  /** @throws InterlockError Unavailable, retryable: the disk does not take it */
  push(chunk: Buffer): void {
    if (this.closed) return;
    this.bytes += chunk.length;
    if (this.onDisk > 0 || this.loading || this.memoryBytes >= this.memoryMost) {
      this.spool.append(chunk);
      return;
    }
    this.memory.push(chunk);
    this.memoryBytes += chunk.length;
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
    return this.memory.length === 0 && this.onDisk > 0;
  }

  /** Brings the next pieces from disk. @throws InterlockError Unavailable, retryable: the disk does not give them back */
  async load(): Promise<void> {
    if (this.loading) return;
    this.loading = true;
    try {
      for (let i = 0; i < LOAD_PIECES && this.onDisk > 0; i++) {
        const piece = await this.spool.read(this.loaded, PIECE_BYTES);
        if (this.closed) return;
        this.loaded += piece.length;
        this.memory.push(piece);
        this.memoryBytes += piece.length;
        this.spool.release(this.loaded);
      }
    } finally {
      this.loading = false;
    }
  }

  /** Frees memory and disk. */
  close(): void {
    this.closed = true;
    this.memory.length = 0;
    this.bytes = 0;
    this.spool.close();
  }
}
