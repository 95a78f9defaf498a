import type { Literal } from './literal.js';

/** Null: it is written. Else it is read again: rows of which it is not known whether they differ; or rows have gone with their parents. */
export type Written = ReadonlyMap<string, Literal[] | null> | 'disturbed' | null;

/** What becomes of a chunk between the one who reads it and the one who writes it. */
export class ChunkFate {
  /** All its statements have been made, if not written. */
  readonly made: Promise<void>;
  readonly written: Promise<Written>;
  /** Its second watermark was sent. */
  isAnnounced = false;
  isWritten = false;
  tellMade!: () => void;
  settle!: (how: Written) => void;

  /** @param before of the chunk before it, where that may be unwritten yet */
  constructor(private readonly before: ChunkFate | null) {
    this.made = new Promise((resolve) => (this.tellMade = resolve));
    this.written = new Promise((resolve) => (this.settle = resolve));
  }

  /** Hazard: the chunk before it is read again, and the copy's place must not pass it. */
  get isForfeit(): boolean {
    return this.before?.isWritten === false;
  }
}
