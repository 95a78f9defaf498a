const NOTHING = Buffer.alloc(0);

/**
 * The bytes of an item that is not complete yet, over any number of chunks. What is complete stays in the chunk that brought it: slices of it are
 * handed out and never written again.
 *
 * Hazard: a declared length may be garbage, and an item of 512 MB arrives in thousands of chunks. Guard: room is made in proportion to what has
 * arrived, never to what was declared, and so that each byte is copied a bounded number of times.
 */
export class Accumulator {
  /** Where the items are read from. */
  data: Buffer = NOTHING;
  /** Bytes of `data` that have arrived. */
  end = 0;
  /** `data` is ours: it has room behind `end`, and nothing of `data` was handed out. */
  private owned = false;

  /** Puts `chunk` behind what is kept. `expected`: how many bytes the item under way will have, as far as it is known. */
  append(chunk: Buffer, expected = 0): void {
    if (this.end === 0) {
      this.data = chunk;
      this.end = chunk.length;
      this.owned = false;
      return;
    }
    const length = this.end + chunk.length;
    if (!this.owned || length > this.data.length) {
      const least = this.owned ? 2 * length : length;
      const room = Math.max(least, Math.min(expected, 4 * length));
      const grown = Buffer.allocUnsafeSlow(room);
      this.data.copy(grown, 0, 0, this.end);
      this.data = grown;
      this.owned = true;
    }
    chunk.copy(this.data, this.end);
    this.end = length;
  }

  /** Keeps only what begins at `start`, the first byte of the item that is not complete; slices of what is before it may be in use. */
  keep(start: number): void {
    if (start === 0) return;
    this.data = start === this.end ? NOTHING : this.data.subarray(start, this.end);
    this.end -= start;
    this.owned = false;
  }
}
