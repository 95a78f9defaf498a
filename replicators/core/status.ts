import { InterlockError } from '../../src/errors.js';
import type { BinlogNeed, CopyProgress, KafkaLinkStatus, LinkState, LinkStatus } from './contract.js';

const RATE_WINDOW_MS = 5000;

/** Rows of so many tables are counted by name; those of the others together. */
const TABLES_COUNTED = 200;
const OTHER_TABLES = 'other';

/** How far a link is behind its source, now. */
export interface LinkLag {
  lagMs: number;
  lagBytes: number | null;
  stalledMs: number;
  checkpointAgeMs: number | null;
  binlog: BinlogNeed | null;
}

/** Counts what a link does; `snapshot` is what its heartbeat carries. */
export class StatusTracker {
  private readonly link: string;
  state: LinkState = 'starting';
  generation = 0;
  position = '';
  sourcePosition = '';
  rows = 0;
  transactions = 0;
  rowsRead = 0;
  transactionsRead = 0;
  droppedForeign = 0;
  conflicts = 0;
  quarantined = 0;
  conflictsRecorded = 0;
  lastMarker: string | null = null;
  copy: CopyProgress | null = null;
  lastError: LinkStatus['lastError'] = null;
  kafka: KafkaLinkStatus | undefined;
  mends: number | undefined;
  filtered: number | undefined;
  lateDeletions: number | undefined;
  /** Rows applied, by table. */
  private readonly tables = new Map<string, number>();
  private readonly samples: ({ at: number } & Counts)[] = [];

  constructor(link: string) {
    this.link = link;
  }

  failed(error: unknown): void {
    const known = error instanceof InterlockError ? error : undefined;
    this.lastError = {
      code: known?.code ?? 'Internal',
      message: error instanceof Error ? error.message : String(error),
      ...(Array.isArray(known?.details['differing']) && { tables: known.details['differing'] as string[] }),
    };
    const state = known?.details['state'];
    if (state === 'diverged' || state === 'resync-required' || state === 'gap') this.state = state;
  }

  /** Rows that were applied, each with its table; mostly many of one table follow each other. */
  countRows(rows: readonly { table: { name: string } }[]): void {
    let from = 0;
    for (let i = 1; i <= rows.length; i++) {
      if (i < rows.length && rows[i]!.table === rows[from]!.table) continue;
      this.count(rows[from]!.table.name, i - from);
      from = i;
    }
  }

  /** Rows (or records) of one table (or topic) that were applied. */
  count(name: string, rows: number): void {
    const counted = this.tables.has(name) || this.tables.size < TABLES_COUNTED ? name : OTHER_TABLES;
    this.tables.set(counted, (this.tables.get(counted) ?? 0) + rows);
  }

  tableRows(): Record<string, number> {
    return Object.fromEntries(this.tables);
  }

  snapshot(lag: LinkLag): LinkStatus {
    const now = Date.now();
    const { rows, transactions, rowsRead, transactionsRead } = this;
    this.samples.push({ at: now, rows, transactions, rowsRead, transactionsRead });
    while (this.samples.length > 2 && this.samples[1]!.at < now - RATE_WINDOW_MS) this.samples.shift();
    const first = this.samples[0]!;
    const seconds = Math.max(now - first.at, 1) / 1000;
    const rate = (of: keyof Counts): number => Math.round((this[of] - first[of]) / seconds);
    return {
      link: this.link,
      state: this.state,
      generation: this.generation,
      position: this.position,
      sourcePosition: this.sourcePosition,
      ...lag,
      rows,
      transactions,
      rowsPerSecond: rate('rows'),
      transactionsPerSecond: rate('transactions'),
      rowsRead,
      transactionsRead,
      rowsReadPerSecond: rate('rowsRead'),
      transactionsReadPerSecond: rate('transactionsRead'),
      droppedForeign: this.droppedForeign,
      conflicts: this.conflicts,
      quarantined: this.quarantined,
      conflictsRecorded: this.conflictsRecorded,
      lastMarker: this.lastMarker,
      copy: this.copy,
      lastError: this.lastError,
      ...(this.kafka !== undefined && { kafka: this.kafka }),
      ...(this.mends !== undefined && { mends: this.mends }),
      ...(this.filtered !== undefined && { filtered: this.filtered }),
      ...(this.lateDeletions !== undefined && { lateDeletions: this.lateDeletions }),
      updatedAt: new Date(now).toISOString(),
    };
  }
}

type Counts = Record<'rows' | 'transactions' | 'rowsRead' | 'transactionsRead', number>;
