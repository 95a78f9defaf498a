import type { InterlockError } from '../../src/errors.js';
import type { SourceUnit } from '../core/contract.js';
import type { BinlogPlace } from './binlog-place.js';
import type { Chunk } from './copier.js';
import type { Literal } from './literal.js';
import type { SourceTable } from './source-table.js';
import type { Spool } from './spool.js';

/** One changed row, as full images. An update of the primary key has both. */
export interface RowChange {
  table: SourceTable;
  before: Literal[] | null;
  after: Literal[] | null;
  /** The source's session did not check foreign keys: nothing cascaded there. */
  unchecked: boolean;
}

/** `state` null: the row of the unit was removed, which means that nobody may write it there. */
export type UnitEvent = SourceUnit | { unit: string; state: null };

/** A link that copies reads a chunk between two of them (see copier.ts). */
export interface Watermark {
  link: string;
  generation: number;
  seq: number;
  edge: 'low' | 'high';
}

export interface MarkerEvent {
  id: string;
  workflowId: string;
  runId: string;
}

/** One committed transaction of the source. */
export interface SourceTransaction {
  gtid: string;
  /** The GTID of its XA PREPARE, when it was committed by XA COMMIT. The position may have it only together with `gtid`. */
  preparedGtid: string | null;
  /** Of an XA PREPARE of MariaDB, whose rows come with its XA COMMIT: the GTID before it in its domain (empty: none). */
  preparedBehind: string | null;
  /** ms since the epoch: the source's clock at the first event, and ours when it had arrived. */
  sourceTime: number;
  arrivedAt: number;
  /** Bytes on the wire. */
  bytes: number;
  /** Where it begins in the source's binlog, with what was left out before it; null: not known. */
  start: BinlogPlace | null;
  /** It began with a row of the transaction table: the other link wrote it. */
  foreign: boolean;
  changes: RowChange[];
  /** The changes after those of `changes`, when it is too large for memory. */
  spool: Spool | null;
  units: UnitEvent[];
  /** What the units of `units` were before, in the same order. */
  unitsBefore: UnitEvent[];
  markers: MarkerEvent[];
  watermark: Watermark | null;
  /** What is to be copied at this place of the stream. */
  chunk: Chunk | null;
  /** A statement that is not a row change, on data that may be carried. */
  ddl: { schema: string; statement: string } | null;
  /** Changes of units that the source did not own there: writes past the fence. */
  notOwned: RowChange[];
  /** Something that cannot be carried. The link stops when it gets there. */
  violation: InterlockError | null;
}

export function newTransaction(gtid: string, sourceTime: number): SourceTransaction {
  return {
    gtid,
    preparedGtid: null,
    preparedBehind: null,
    sourceTime,
    arrivedAt: 0,
    bytes: 0,
    start: null,
    foreign: false,
    changes: [],
    spool: null,
    units: [],
    unitsBefore: [],
    markers: [],
    watermark: null,
    chunk: null,
    ddl: null,
    notOwned: [],
    violation: null,
  };
}

/** Whether the target has to be written for it. Nothing else may write the target: see Applier. */
export function isEmpty(transaction: SourceTransaction): boolean {
  return (
    transaction.foreign ||
    (transaction.changes.length === 0 &&
      transaction.spool === null &&
      transaction.units.length === 0 &&
      transaction.markers.length === 0 &&
      transaction.chunk === null &&
      transaction.ddl === null &&
      transaction.violation === null)
  );
}
