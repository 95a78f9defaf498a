import type { DcId, UnitId } from '../../src/routing/units.js';

/** One directed replicator of one store pair. Its id is `mysql/orders:dc-a>dc-b`. */
export interface LinkId {
  kind: 'mysql';
  store: string;
  from: DcId;
  to: DcId;
}

export function formatLinkId(link: LinkId): string {
  return `${link.kind}/${link.store}:${link.from}>${link.to}`;
}

/** Undefined when `text` is no link id. */
export function parseLinkId(text: string): LinkId | undefined {
  const parts = /^(mysql)\/([a-z0-9][a-z0-9-]*):([a-z0-9][a-z0-9-]*)>([a-z0-9][a-z0-9-]*)$/.exec(text);
  if (!parts) return undefined;
  return { kind: 'mysql', store: parts[2]!, from: parts[3]!, to: parts[4]! };
}

export type LinkState =
  | 'starting'
  | 'copying'
  | 'streaming'
  | 'paused'
  | 'stopped'
  | 'failed'
  | 'diverged'
  | 'resync-required'
  | 'gap';

/** The heartbeat of a link's activity, and what `replicate status` shows. */
export interface LinkStatus {
  link: string;
  state: LinkState;
  generation: number;
  /** Applied source position (GTID set); in memory it may be ahead of the checkpoint by dropped transactions only. */
  position: string;
  /** The source's executed position when last looked at. */
  sourcePosition: string;
  /**
   * 0 when everything that the source has is applied; else the age of the oldest change that is not. While the link is not connected: since
   * when it has not known that everything is applied.
   */
  lagMs: number;
  /**
   * Bytes of the source's binlog behind the end of the last transaction that was applied or dropped, up to the end of the binlog when last looked
   * at: what the link still has to read or to apply, with what it will drop. 0 when everything is applied; null: not known yet.
   */
  lagBytes: number | null;
  /** Rows and transactions applied (committed on the target) since this attempt started, and per second over the last 5 s. */
  rows: number;
  transactions: number;
  rowsPerSecond: number;
  transactionsPerSecond: number;
  /** The same, as read from the source; without those of the other side, which are dropped. */
  rowsRead: number;
  transactionsRead: number;
  rowsReadPerSecond: number;
  transactionsReadPerSecond: number;
  /** Since the checkpoint was written last. It stands while the source has nothing to apply. null: not known yet. */
  checkpointAgeMs: number | null;
  /** For how long nothing was applied or dropped although there is something; 0: it moves, or there is nothing. */
  stalledMs: number;
  /** null: not known yet. */
  binlog: BinlogNeed | null;
  /** Source transactions dropped because they came from the other side. */
  droppedForeign: number;
  /** Rows on which the two sides differ, and transactions that are kept aside: a person has to decide. */
  conflicts: number;
  quarantined: number;
  /** All that were recorded since this attempt started, those too that the policy of their table decided. */
  conflictsRecorded: number;
  lastMarker: string | null;
  /** The initial copy or a resync; null when there was none. */
  copy: CopyProgress | null;
  lastError: { code: string; message: string } | null;
  /** ISO 8601. */
  updatedAt: string;
}

/** What of the source's binlog the link still needs, and how long the source keeps it. */
export interface BinlogNeed {
  /** The oldest file that is needed; null: not known yet. */
  file: string | null;
  /**
   * When the oldest change that is not applied was written (the source's clock); with none, when that was seen. ISO 8601. A server removes a file so
   * long after it was written to last: never before this, plus `retentionMs`.
   */
  neededSince: string;
  /** `binlog_expire_logs_seconds` or `expire_logs_days` of the source; 0: it removes nothing by itself. */
  retentionMs: number;
  /** The file is gone already: what is not read yet cannot be. */
  purged: boolean;
}

/** What a link that copies has done, and what is left. */
export interface CopyProgress {
  tables: number;
  tablesDone: number;
  /** The one under way. */
  table: string | null;
  /** By the server's statistics; never less than `comparedRows`. */
  estimatedRows: number;
  /** Rows of the source that were looked at; of them written on the target (the others were there). */
  comparedRows: number;
  writtenRows: number;
  /** Rows that a resync removed, as the source does not have them. */
  removedRows: number;
  /** Rows that differ and that the source does not own: as they were on the target. */
  keptRows: number;
  rowsPerSecond: number;
  etaSeconds: number | null;
}

/**
 * The `workflow_id` of a marker that is for nobody: it only makes the checkpoint move. A link keeps no such marker in its checkpoint, where
 * it would hide the baseline of a switchover, and tells nobody of it.
 */
export const NOBODY = '-';

/** Signal `baselineReached` to the switchover run named in the marker, sent after the target's commit. */
export interface BaselineReached {
  markerId: string;
  link: string;
  /** Open ones; not zero is not drained. */
  conflicts: number;
  quarantined: number;
  position: string;
}

/** In-band ownership: what the source's stream said of a unit. */
export interface SourceUnit {
  unit: UnitId;
  state: 'open' | 'write_disabled' | 'remote';
  owner: DcId;
  epoch: number;
}
