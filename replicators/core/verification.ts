import type { DcId, UnitId } from '../../src/routing/units.js';

/** A row that is not the same on both sides, and was proven not to be on its way. */
export interface Difference {
  /** Column → value of the primary key, as text for people. */
  key: Record<string, string | null>;
  /** null: the table is unrouted, or the two images do not belong to one owner; nobody's image is the right one then. */
  unit: UnitId | null;
  owner: DcId | null;
  /** Column → value, as text for people (long values are cut); null: the side has no such row. */
  images: Record<DcId, Record<string, string | null> | null>;
  /** The owner's image was written to the other side. */
  repaired: boolean;
  /** Why it was not, though it was asked for. */
  notRepaired?: string;
}

/** How far the comparison of one table is. Plain data: it travels in heartbeats, and a comparison goes on from it in another process. */
export interface TableProgress {
  /** Literals of the last key that was compared; null: none yet. */
  cursor: string[] | null;
  done: boolean;
  chunks: number;
  /** Chunks that differed at first sight, and were looked at row by row. */
  reread: number;
  /** Rows compared. */
  rows: number;
  differing: number;
  repaired: number;
  /** Of `differing`: rows that nobody owns. */
  unowned: number;
  /** Rows that could not be decided, and why (of the first). */
  undecided: number;
  undecidedReason: string | null;
  /** The first differences; the rest is only counted. */
  differences: Difference[];
  /** So many rows differ that the rest of the table was not compared. */
  cut: boolean;
  /** Why the table, or the rest of it, could not be compared, and what to do. */
  notComparable: string | null;
  /** Milliseconds of work. */
  activeMs: number;
}
