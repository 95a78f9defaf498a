import { InterlockError } from '../../src/errors.js';
import type { CopyProgress, LinkState, LinkStatus } from './contract.js';

const RATE_WINDOW_MS = 5000;

/** Counts what a link does; `snapshot` is what its heartbeat carries. */
export class StatusTracker {
  private readonly link: string;
  state: LinkState = 'starting';
  generation = 0;
  position = '';
  sourcePosition = '';
  rows = 0;
  transactions = 0;
  droppedForeign = 0;
  conflicts = 0;
  quarantined = 0;
  conflictsRecorded = 0;
  lastMarker: string | null = null;
  copy: CopyProgress | null = null;
  lastError: { code: string; message: string } | null = null;
  private readonly samples: { at: number; rows: number; transactions: number }[] = [];

  constructor(link: string) {
    this.link = link;
  }

  failed(error: unknown): void {
    const known = error instanceof InterlockError ? error : undefined;
    this.lastError = {
      code: known?.code ?? 'Internal',
      message: error instanceof Error ? error.message : String(error),
    };
    const state = known?.details['state'];
    if (state === 'diverged' || state === 'resync-required') this.state = state;
  }

  snapshot(lagMs: number): LinkStatus {
    const now = Date.now();
    this.samples.push({ at: now, rows: this.rows, transactions: this.transactions });
    while (this.samples.length > 2 && this.samples[1]!.at < now - RATE_WINDOW_MS) this.samples.shift();
    const first = this.samples[0]!;
    const seconds = Math.max(now - first.at, 1) / 1000;
    return {
      link: this.link,
      state: this.state,
      generation: this.generation,
      position: this.position,
      sourcePosition: this.sourcePosition,
      lagMs,
      rows: this.rows,
      transactions: this.transactions,
      rowsPerSecond: Math.round((this.rows - first.rows) / seconds),
      transactionsPerSecond: Math.round((this.transactions - first.transactions) / seconds),
      droppedForeign: this.droppedForeign,
      conflicts: this.conflicts,
      quarantined: this.quarantined,
      conflictsRecorded: this.conflictsRecorded,
      lastMarker: this.lastMarker,
      copy: this.copy,
      lastError: this.lastError,
      updatedAt: new Date(now).toISOString(),
    };
  }
}
