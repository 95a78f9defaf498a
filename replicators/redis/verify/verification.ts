import type { DcId, UnitId } from '../../../src/routing/units.js';

/** What of two keys is compared. `sample`: as `full`, of some keys. */
export type VerifyMode = 'full' | 'length' | 'existence' | 'sample';

/** A key that is not the same on both sides, and was proven not to be on its way. */
export interface KeyDifference {
  db: number;
  /** As text for people. */
  key: string;
  /** The same, of any bytes. */
  keyHex: string;
  what: 'missing' | 'type' | 'length' | 'value' | 'expiry';
  /** In words: which side lacks it, both types, the first field that differs, … */
  detail: string;
  unit: UnitId | null;
  /** null: nobody's value is the right one. */
  owner: DcId | null;
  repaired: boolean;
  /** Why it was not, though it was asked for. */
  notRepaired?: string;
}

/** How far a comparison is. Plain data: it travels in heartbeats, and a comparison goes on from it in another process. */
export interface RedisVerifyProgress {
  /** Keys of both sides are looked at: first those that the source has, then those that only the target has. */
  side: 'source' | 'target';
  db: number;
  /** Of SCAN on that side: what is before it is done. */
  cursor: string;
  done: boolean;
  /** Keys that SCAN has given, and those of them that were compared. */
  scanned: number;
  compared: number;
  /** Of both sides, when it began: what `scanned` is to be. */
  estimated: number;
  /** Keys that differed at first sight, and were looked at again behind a marker. */
  again: number;
  differing: number;
  repaired: number;
  /** Of `differing`: keys that nobody owns. */
  unowned: number;
  /** Keys that one side leaves out, as they live too short for a link. */
  shortLived: number;
  /** Keys that differ each time, and are written all the while: verify again. */
  undecided: number;
  /** The first differences; the rest is only counted. */
  differences: KeyDifference[];
  /** So many keys differ that the rest was not compared. */
  cut: boolean;
  /** Why the keys from `cursor` on could not be compared, and what to do. */
  notComparable: string | null;
  /** run_id of both servers when it began; null: it has not begun. */
  servers: readonly [source: string, target: string] | null;
  /** Milliseconds of work. */
  activeMs: number;
}

export const NOTHING_COMPARED: RedisVerifyProgress = {
  side: 'source',
  db: 0,
  cursor: '0',
  done: false,
  scanned: 0,
  compared: 0,
  estimated: 0,
  again: 0,
  differing: 0,
  repaired: 0,
  unowned: 0,
  shortLived: 0,
  undecided: 0,
  differences: [],
  cut: false,
  notComparable: null,
  servers: null,
  activeMs: 0,
};
