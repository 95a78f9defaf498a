export type DifferenceKind =
  /** The copy lacks a record of the source. */
  | 'missing'
  /** The copy has a record that the source does not have. */
  | 'extra'
  /** Copied again, or out of order. */
  | 'twice'
  /** Key, value, time or headers differ. */
  | 'content'
  /** In the copy, and no copy of this partition. */
  | 'stranger';

export interface Difference {
  kind: DifferenceKind;
  /** Of the source; null for a stranger. */
  offset: number | null;
  /** In the copy; null for a missing one. */
  copyOffset: number | null;
}

/** The records of some offsets of the source, and their copies. */
export interface ComparedRange {
  from: number;
  to: number;
  records: number;
  copies: number;
  /** SHA-256 over the hashes of the records, in order. */
  hash: string;
  copyHash: string;
}

export interface ComparedPartition {
  partition: number;
  /** Source offsets [from, to) were compared; null: nothing had to be there. */
  from: number | null;
  to: number;
  /** By the latest record of each key: the topic is compacted. */
  compacted: boolean;
  records: number;
  copies: number;
  /** Records before `from`: the link began behind them, or the copy's retention has removed them. */
  before: number;
  ranges: ComparedRange[];
  /** The first and the last record that both sides have: at the source, and in the copy. */
  offsets: { first: [source: number, copy: number]; last: [source: number, copy: number] } | null;
  differing: number;
  /** The first ones. */
  differences: Difference[];
  /** Why it, or the rest of it, could not be compared; null: it was. */
  undecided: string | null;
}

export interface ComparedTopic {
  link: string;
  topic: string;
  copy: string;
  partitions: ComparedPartition[];
}
