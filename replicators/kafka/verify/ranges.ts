import { createHash } from 'node:crypto';
import type { Hash } from 'node:crypto';
import type { ComparedRange } from './report.js';

/** Offsets of the source. */
const RANGE = 10_000;

interface Range {
  records: number;
  copies: number;
  hash: Hash;
  copyHash: Hash;
}

/** A hash for every so many offsets of the source, of each side. */
export class Ranges {
  private readonly ranges = new Map<number, Range>();

  original({ offset, hash }: { offset: number; hash: Buffer }): void {
    const range = this.of(offset);
    range.records += 1;
    range.hash.update(hash);
  }

  copy(origin: number, hash: Buffer): void {
    const range = this.of(origin);
    range.copies += 1;
    range.copyHash.update(hash);
  }

  finish(from: number, to: number): ComparedRange[] {
    return [...this.ranges]
      .sort(([a], [b]) => a - b)
      .map(([index, { records, copies, hash, copyHash }]) => ({
        from: Math.max(from, index * RANGE),
        to: Math.min(to, (index + 1) * RANGE),
        ...{ records, copies, hash: hash.digest('hex'), copyHash: copyHash.digest('hex') },
      }));
  }

  private of(offset: number): Range {
    const index = Math.floor(offset / RANGE);
    let range = this.ranges.get(index);
    if (range === undefined) {
      range = { records: 0, copies: 0, hash: createHash('sha256'), copyHash: createHash('sha256') };
      this.ranges.set(index, range);
    }
    return range;
  }
}
