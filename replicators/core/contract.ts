import type { DcId, UnitId } from '../../src/routing/units.js';

/** The kinds of links: of stores that are replicated, and the relays of outboxes. */
export const LINK_KINDS = ['mysql', 'redis', 'kafka', 'outbox'] as const;
export type LinkKind = (typeof LINK_KINDS)[number];

/** One directed replicator of one store pair: `mysql/orders:dc-a>dc-b`. The relay of an outbox stays in its data center: `outbox/orders:dc-a`. */
export interface LinkId {
  kind: LinkKind;
  store: string;
  from: DcId;
  to: DcId;
}

export function formatLinkId(link: LinkId): string {
  const { kind, store, from, to } = link;
  return kind === 'outbox' ? `${kind}/${store}:${from}` : `${kind}/${store}:${from}>${to}`;
}

/** Undefined when `text` is no link id. */
export function parseLinkId(text: string): LinkId | undefined {
  const parts = /^([a-z]+)\/([a-z0-9][a-z0-9-]*):([a-z0-9][a-z0-9-]*)(?:>([a-z0-9][a-z0-9-]*))?$/.exec(text);
  const kind = LINK_KINDS.find((one) => one === parts?.[1]);
  if (!parts || kind === undefined || (kind === 'outbox') !== (parts[4] === undefined)) return undefined;
  return { kind, store: parts[2]!, from: parts[3]!, to: parts[4] ?? parts[3]! };
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
  /** Applied source position (GTID set; Redis: replid:offset; Kafka: offsets); in memory it may be ahead of the checkpoint by dropped transactions only. */
  position: string;
  /** The source's executed position when last looked at. */
  sourcePosition: string;
  /**
   * 0 when everything that the source has is applied; else the age of the oldest change that is not. While the link is not connected: since
   * when it has not known that everything is applied.
   */
  lagMs: number;
  /**
   * Bytes of the source's stream (binlog, replication stream) behind the end of the last transaction that was applied or dropped, up to its end when
   * last looked at: what the link still has to read or to apply, with what it will drop. 0 when everything is applied; null: not known yet.
   */
  lagBytes: number | null;
  /** Rows (Redis: commands, Kafka: records) and transactions applied (committed on the target) since this attempt started, and per second over the last 5 s. */
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
  /** MySQL: what it still needs; null: not known yet, or a source without a binlog. */
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
  /** `tables`: it stopped as their definitions differ. */
  lastError: { code: string; message: string; tables?: string[] } | null;
  /** Of a Kafka link only. */
  kafka?: KafkaLinkStatus;
  /** Of a Redis link only: keys that are taken from the source again. No marker is told before they are. */
  mends?: number;
  /** Of a Redis link only, since its run began: commands of the source, and keys of a copy, that a filter or `unmapped: ignore-deletes` left out. */
  filtered?: number;
  /** Of a Redis link only, since its run began: deletions of units that the source did not own, which were left out. */
  lateDeletions?: number;
  /** ISO 8601. */
  updatedAt: string;
}

export interface KafkaLinkStatus {
  topics: number;
  partitions: number;
  /** Offsets between what is applied and the end of the source, in all partitions: records, and what stands for none. */
  lagRecords: number;
  /** The partitions that are behind most. */
  behind: {
    topic: string;
    partition: number;
    position: number;
    end: number;
    lagRecords: number;
    /** Since when there has been something to apply. */
    lagMs: number;
  }[];
  stuck: StuckPartition[];
  /** Topics that were copied and that the source does not have any more; their copies stay. */
  deleted: string[];
  /** What the source had removed before it was copied, the last 20. `to` is there again. */
  gaps: { topic: string; partition: number; from: number; to: number }[];
  /** Partitions whose first records were gone when the link first saw them: it began at `from`, since this attempt started. */
  late: { topic: string; partition: number; from: number }[];
  /** Source transactions that were not committed whole at the target: another one that was open among their records took too long. */
  tornTransactions: number;
  /** Positions of consumer groups, by what became of them. `error`: why the last round failed. */
  groupPositions: { translated: number; own: number; active: number; error: string | null };
}

/** A partition in which a transaction has been open for long: nobody who reads committed records sees what follows it. */
export interface StuckPartition {
  topic: string;
  partition: number;
  lastStableOffset: number;
  hiddenRecords: number;
  stuckMs: number;
  producerId: string | null;
  /** null: no coordinator knows it (a hanging transaction: see `kafka-transactions.sh`). */
  transactionalId: string | null;
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

/** What a link tells of itself. */
export interface LinkEvents {
  /** `tableRows`: rows applied since the link was started, by table; of commands by database, of records by topic. */
  onStatus: (status: LinkStatus, tableRows: Record<string, number>) => void;
  /** After the commit that contains the marker. */
  onMarker: (baseline: BaselineReached, to: { workflowId: string; runId: string }) => void;
}

/** A link of any kind, in its thread. */
export interface RunnableLink {
  /**
   * Runs until `signal` is aborted (returns) or the link has to stop (throws an InterlockError; retryable only when a new run can tell who holds
   * the link). Lost connections are mended inside, without limit.
   */
  run(signal: AbortSignal): Promise<void>;
  /** Ends the attempt whatever it waits for: its connections go. */
  disconnect(why: string): void;
}

/** In-band ownership: what the source's stream said of a unit. */
export interface SourceUnit {
  unit: UnitId;
  state: 'open' | 'write_disabled' | 'remote';
  owner: DcId;
  epoch: number;
}
