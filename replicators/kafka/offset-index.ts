/** A batch of a copy: which records of the source are where. */
interface Entry {
  first: number;
  last: number;
  base: number;
  count: number;
}

const KEPT = 64;

/** Where the records of one partition are that were copied last. What was copied before is looked up in the copy itself. */
export class OffsetIndex {
  private readonly entries: Entry[] = [];

  add(entry: Entry): void {
    this.entries.push(entry);
    if (this.entries.length > KEPT) this.entries.shift();
  }

  /**
   * Behind the last copy of a record before `offset` (of the source), all of which are copied.
   * @returns undefined when that is not known here
   */
  find(offset: number): number | undefined {
    for (let i = this.entries.length - 1; i >= 0; i--) {
      const { first, last, base, count } = this.entries[i]!;
      if (offset <= first) continue;
      if (offset > last) return base + count;
      // With gaps among the originals, the copies do not say which is which.
      return last - first + 1 === count ? base + offset - first : undefined;
    }
    return undefined;
  }
}
