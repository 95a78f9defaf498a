import type { DcId, UnitId } from '../routing/units.js';
import type { Holder, Rules } from '../routing/rules.js';

export type UnitStateName = 'open' | 'write_disabled' | 'remote';

/** One row of `interlock.unit_state`. */
export interface UnitState {
  unit: UnitId;
  state: UnitStateName;
  owner: DcId;
  epoch: number;
  mappingVersion: number;
  /** Identity of the server on which the state was asserted (server_uuid; MariaDB: server_uid). */
  server: string;
  holder: Holder | null;
}

/** One change of the states of some units in one store. Idempotent: carried out once, a repeat answers `unchanged`. */
export interface UnitChange {
  units: readonly UnitId[];
  to: UnitStateName;
  owner: DcId;
  /** Higher than the rows' epoch, or equal with the same content (a repeat). */
  epoch: number;
  /** The run that makes the change. Rows that are write_disabled by another run are refused, unless that is `takeOverFrom`. */
  holder: Holder;
  /** A run that the caller has seen closed in Temporal. */
  takeOverFrom?: Holder;
  /** Mapping versions to write for units whose membership changes. */
  mappingVersions?: Readonly<Record<UnitId, number>>;
  /** Written in the same transaction, behind the fence. */
  marker?: Marker;
  /** Inserted in the same transaction; control store only. */
  rules?: Rules;
  /** `write_disabled` only: `units` are all that the data center owns, and writers without the SDK are refused too (`read_only`). */
  readOnly?: boolean;
}

export interface Marker {
  id: string;
  workflowId: string;
  runId: string;
  epoch: number;
}

/** What to do with transactions that hold a unit's lock past the budget. */
export type BlockerPolicy = 'kill' | 'give-up';

export interface FenceBudget {
  /** Milliseconds that the change may wait for transactions in flight. */
  budgetMs: number;
  blockers: BlockerPolicy;
}

/** A transaction that keeps the fence waiting: who, since when, which statement. */
export interface Blocker {
  connectionId: number;
  user: string;
  host: string;
  /** ISO 8601, start of the transaction. */
  since: string;
  statement: string | null;
  killed: boolean;
}

export interface ChangeResult {
  /** false: the rows already had this content. */
  changed: boolean;
  /** gtid_executed (MySQL) or gtid_binlog_pos (MariaDB), read after the commit. */
  position: string;
  server: string;
  /** Blockers that were met (and killed, by policy). */
  blockers: Blocker[];
  waitedMs: number;
  /** Redis: units of which it has no state (it has lost its data): they stay closed there. */
  missing?: number;
}
