/** How one position stands to another. `incomparable`: each has what the other has not; nobody may guess an order. */
export type Comparison = 'equal' | 'before' | 'after' | 'incomparable';

/** A place in a source's stream, as the set of what was seen. Immutable but for `add`, which only the owner of a copy calls. */
export interface Position<Self> {
  /** The stored form; `parse` of the same kind reads it back. */
  toString(): string;
  clone(): Self;
  /** Whether everything in `other` is in this one. */
  contains(other: Self): boolean;
  union(other: Self): Self;
}

export function comparePositions<P extends Position<P>>(a: P, b: P): Comparison {
  const covers = a.contains(b);
  const covered = b.contains(a);
  if (covers && covered) return 'equal';
  if (covers) return 'after';
  return covered ? 'before' : 'incomparable';
}
