/** What the verification workflow, its activities and the CLI agree on. */
import type { TableProgress } from '../replicators/core/verification.js';
import type { RedisVerifyProgress, VerifyMode } from '../replicators/redis/verify/verification.js';
import type { UnitId } from '../src/routing/units.js';

/** One verification at a time per topology: the workflow id is fixed. */
export function verificationWorkflowId(topology: string): string {
  return `verify/${topology}`;
}

export interface VerifyRequest {
  topology: string;
  /** `schema.table` patterns with `*`; empty: every table that a link carries. */
  tables: string[];
  /** As typed, as of a switchover; null: everything. */
  scope: string | null;
  /** Write the owner's image over the other side's. */
  repair: boolean;
  /** So many differences of a table or a store are kept; the rest is counted. */
  keep: number;
  startedBy: string;
  /** Redis stores are compared; when absent, tables are. */
  redis?: RedisVerification;
}

export interface RedisVerification {
  /** Names of stores; empty: every one that has a link. */
  stores: string[];
  mode: VerifyMode;
  /** Of the mode `sample`: the share of the keys, 0 to 1. */
  sample?: number;
  /** Times of expiry may be so far apart. */
  expiryToleranceMs: number;
}

/** One table of one store pair. */
export interface PlannedTable {
  store: string;
  table: string;
  /** The links that carry its changes. */
  links: string[];
  /** As the server estimates. */
  estimatedRows: number;
  /** Why it cannot be compared, known beforehand. */
  obstacle: string | null;
}

/** One Redis store pair, and how far its comparison is. */
export interface VerifiedStore {
  store: string;
  /** The links between the two. */
  links: string[];
  progress: RedisVerifyProgress;
}

export interface VerifyPlan {
  tables: PlannedTable[];
  /** Of a request with `redis`, and nothing compared of them yet. */
  stores?: VerifiedStore[];
  /** Of the scope; null: everything. */
  units: UnitId[] | null;
}

export interface VerifyTableInput {
  table: string;
  links: string[];
  units: UnitId[] | null;
  repair: boolean;
  keep: number;
  /** Characters as JSON that the kept differences of this table may have. */
  keepLength: number;
  progress: TableProgress;
}

export interface VerifyStoreInput extends VerifiedStore {
  redis: RedisVerification;
  units: UnitId[] | null;
  repair: boolean;
  keep: number;
  /** Characters as JSON that the kept differences of this store may have. */
  keepLength: number;
}

export interface VerificationActivities {
  /** The tables or stores to compare, and the units of the scope. Errors: BadInput (no such table, store, scope), Unavailable, NoRules. */
  planVerification(request: VerifyRequest): Promise<VerifyPlan>;
  /**
   * Compares a table from where `progress` is, for some seconds; the heartbeat carries how far it is, and another attempt goes on from there.
   * A cancel is answered with the progress.
   */
  compareTable(input: VerifyTableInput): Promise<TableProgress>;
  /** The same of the keys of a Redis store pair. */
  compareStore(input: VerifyStoreInput): Promise<RedisVerifyProgress>;
  /** Keeps the report in both control stores (those that can be reached). */
  recordVerification(report: VerifyReport): Promise<void>;
}

export type VerifyOutcome =
  | 'running'
  /** Every table or store was compared, and nothing differs. */
  | 'equal'
  /** Rows or keys differ; with `repair`, they did. */
  | 'different'
  | 'stopped'
  /** Something could not be compared, and nothing that was differs. */
  | 'failed';

export interface VerifiedTable extends PlannedTable {
  progress: TableProgress;
}

/** Answer of the query `status` (without `differences`), of `report`, and of the workflow. */
export interface VerifyReport {
  workflowId: string;
  runId: string;
  request: VerifyRequest;
  state: 'planning' | 'running' | 'pausing' | 'paused' | 'stopping' | 'ended';
  outcome: VerifyOutcome;
  /** What stands, in words. */
  summary: string;
  tables: VerifiedTable[];
  /** Absent in reports of before there were any. */
  stores?: VerifiedStore[];
  /** Rows that were compared; of Redis stores, keys. */
  rows: number;
  differing: number;
  repaired: number;
  undecided: number;
  rowsPerSecond: number;
  /** Milliseconds until the end, by the servers' estimates of their tables; null when it cannot be told. */
  etaMs: number | null;
  error: { code: string; message: string } | null;
  startedAt: string;
  endedAt: string | null;
}

/** Of a table that was not begun. */
export const UNTOUCHED: TableProgress = {
  cursor: null,
  done: false,
  chunks: 0,
  reread: 0,
  rows: 0,
  differing: 0,
  repaired: 0,
  unowned: 0,
  undecided: 0,
  undecidedReason: null,
  differences: [],
  cut: false,
  notComparable: null,
  activeMs: 0,
};

export const VERIFY_COMMANDS = ['pause', 'resume', 'stop'] as const;
export type VerifyCommand = (typeof VERIFY_COMMANDS)[number];
