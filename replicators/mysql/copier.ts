import { setTimeout as sleep } from 'node:timers/promises';
import type { Connection, RowDataPacket } from 'mysql2/promise';
import { InterlockError } from '../../src/errors.js';
import type { CopyProgress } from '../core/contract.js';
import { keyOf, sameRow } from './batch.js';
import type { RowNet, TableBatch } from './batch.js';
import type { Carried } from './carried.js';
import type { Catalog } from './catalog.js';
import { keyValues, readRows, readable } from './chunk-reader.js';
import type { ReadableTable } from './chunk-reader.js';
import { policyOf } from './conflicts.js';
import { exactDocuments } from './copied-documents.js';
import { copyProgress, progressStatement } from './copy-plan.js';
import type { CopyTable } from './copy-plan.js';
import { laterOnes } from './latest.js';
import type { LinkConfig } from './link-config.js';
import type { Literal } from './literal.js';
import type { Ownership } from './ownership.js';
import type { Flavour } from './position.js';
import type { Mismatch } from './row-check.js';
import { inserted, replacing } from './statements.js';
import type { Statement } from './statements.js';
import type { RowChange, SourceTransaction } from './transaction.js';

/** Rows of one table that were read between two watermarks, with what has to be known to write them at the second one. */
export interface Chunk {
  table: CopyTable;
  rows: Literal[][];
  /** The keys from which and up to which it goes; null: from the beginning, to the end. */
  after: Literal[] | null;
  upTo: Literal[] | null;
  /** Keys that were changed between the watermarks: the stream has them, newer. */
  changed: ReadonlySet<string>;
  ownerOf: ReturnType<Ownership['snapshot']>;
  /** Of its rows: what is to be written for a document whose text does not say all of it, by column. */
  exact: Map<Literal[], Map<number, Literal>>;
}

type ReadChunk = Omit<Chunk, 'changed' | 'ownerOf'> & { seq: number };

/** What a chunk does to the target. */
export interface ChunkEffect {
  statements: Statement[];
  /** How far the table is then, for the same transaction. */
  progress: string;
  next: Pick<CopyTable, 'counts' | 'lastKey'>;
  done: boolean;
}

export interface CopierOptions {
  link: string;
  generation: number;
  /** Of the target. */
  flavour: Flavour;
  /** Reads rows of the source, and writes watermarks into its stream. */
  source: Connection;
  /** Reads what the target has. */
  target: Connection;
  sourceCatalog: Catalog;
  targetCatalog: Catalog;
  ownership: Ownership;
  policies: Pick<LinkConfig, 'conflicts' | 'winsTies'>;
  carried: Carried;
  tables: CopyTable[];
}

const FIRST_ROWS = 2_000;
const MOST_ROWS = 20_000;
const FEWEST_ROWS = 100;
const CHUNK_BYTES = 4 * 1024 * 1024;
/** A chunk is written between changes that wait behind it: this is what they may have to wait. */
const CHUNK_MS = 200;

/**
 * Copies tables from a live source, without locks (the idea of Netflix's DBLog). A chunk is read by primary key between two watermarks that are
 * written into the source's own stream. Where the stream meets the second one, all changes before it have been applied, and rows that were changed
 * between the two are left to the stream; so the rest of the chunk is exactly what the source had at that place.
 *
 * Hazard: the binlog's order must be the order in which changes become visible; `binlog_order_commits` is looked at before.
 */
export class Copier {
  private readonly readable = new Map<string, ReadableTable>();
  private seq = 0;
  /** The table of the watermarks that are being written. */
  private reading: CopyTable | undefined;
  /** Its second watermark is on its way. */
  private waiting: ReadChunk | undefined;
  private window: { seq: number; name: string; changed: Set<string> } | undefined;
  private written: (() => void) | undefined;
  private rowsPerChunk = FIRST_ROWS;
  private progressNow: CopyProgress | null = null;
  private readonly samples: { at: number; rows: number }[] = [];

  /** Tables of which the target has some rows and not others. */
  readonly unfinished: Set<string>;

  constructor(private readonly options: CopierOptions) {
    this.unfinished = new Set(options.tables.map(({ name }) => name));
  }

  /** Returns when every table is copied. What it throws ends the attempt; the next one goes on behind the last chunk. */
  async run(signal: AbortSignal): Promise<void> {
    const { tables, link, target } = this.options;
    this.progressNow = await copyProgress(target, link);
    for (const table of tables) {
      this.rowsPerChunk = await this.firstRows(this.shapeOf(table.name));
      let chunk = await this.read(table, table.lastKey);
      while (!signal.aborted) {
        const began = performance.now();
        const written = this.handOver(chunk);
        await this.watermark(chunk.seq, 'high');
        // The next one is read while this one is written.
        const last = chunk.upTo === null;
        const [next] = await Promise.all([last ? null : this.read(table, chunk.upTo), written]);
        if (next === null) break;
        this.adapt(chunk.rows, performance.now() - began);
        await throttle(table.maxRowsPerSecond, chunk.rows.length, began, signal);
        chunk = next;
      }
      if (signal.aborted) return;
    }
  }

  progress(): CopyProgress | null {
    return this.progressNow;
  }

  /** Every transaction of the source, in the order of its stream. */
  see(transaction: SourceTransaction): void {
    const { watermark } = transaction;
    const { link, generation, ownership } = this.options;
    this.notice(transaction.changes);
    // Those of an attempt that is gone name a generation of before.
    if (watermark?.link !== link || watermark.generation !== generation) return;
    if (watermark.edge === 'low') {
      const { name } = this.reading!;
      this.window = { seq: watermark.seq, name, changed: new Set() };
    } else if (this.waiting?.seq === watermark.seq && this.window?.seq === watermark.seq) {
      transaction.chunk = { ...this.waiting, changed: this.window.changed, ownerOf: ownership.snapshot() };
      this.window = undefined;
      this.waiting = undefined;
    }
  }

  /** Whether a chunk of this table is being read: `notice` has to be told of its changes. */
  watches(table: string): boolean {
    return this.window?.name === table;
  }

  notice(changes: readonly RowChange[]): void {
    if (this.window === undefined) return;
    const { name, changed } = this.window;
    for (const { table, before, after } of changes) {
      if (table.name !== name) continue;
      if (before !== null) changed.add(keyOf(table, before));
      if (after !== null) changed.add(keyOf(table, after));
    }
  }

  /**
   * Hazard: a chunk that is read by a definition of before lacks the values of a new column. Chunks that were read behind the statement have not been
   * met yet; the next attempt reads them by the new definition. @throws InterlockError Unavailable
   */
  requireSame(now: Catalog): void {
    for (const name of this.unfinished) {
      const [was, is] = [this.options.sourceCatalog, now].map((catalog) => columnsOf(catalog, name));
      if (was === is) continue;
      throw new InterlockError(
        'Unavailable',
        `${this.options.link}: the definition of ${name} has changed while it is copied; going on at its last chunk`,
        { retryable: true, details: { link: this.options.link, table: name } },
      );
    }
  }

  private async read(table: CopyTable, after: Literal[] | null): Promise<ReadChunk> {
    const shape = this.shapeOf(table.name);
    const limit = this.rowsPerChunk;
    const seq = ++this.seq;
    this.reading = table;
    await this.watermark(seq, 'low');
    const from = this.options.sourceCatalog.get(table.name)!.sql;
    const rows = await readRows(this.options.source, shape, { after, upTo: null, limit, from });
    const upTo = rows.length < limit ? null : keyValues(shape, rows.at(-1)!);
    return { seq, table, rows, after, upTo, exact: await this.exactOf(table, shape, rows) };
  }

  /** MariaDB has documents as text, as they are printed. */
  private async exactOf(
    { name }: CopyTable,
    shape: ReadableTable,
    rows: Literal[][],
  ): Promise<ReadChunk['exact']> {
    const { source, sourceCatalog, flavour } = this.options;
    if (flavour === 'mariadb') return new Map();
    return exactDocuments(source, sourceCatalog.get(name)!, shape, rows);
  }

  /** For the stream to take at the second watermark. Settles when it is written. */
  private handOver(chunk: ReadChunk): Promise<void> {
    this.waiting = chunk;
    return new Promise((resolve) => (this.written = resolve));
  }

  private async watermark(seq: number, edge: 'low' | 'high'): Promise<void> {
    const { source, link, generation } = this.options;
    await source.query(
      `INSERT INTO interlock.copy_watermark (link, generation, seq, edge) VALUES (?, ?, ?, ?)
       ON DUPLICATE KEY UPDATE generation = VALUES(generation), seq = VALUES(seq), edge = VALUES(edge)`,
      [link, generation, seq, edge],
    );
  }

  /** What the chunk has to do, given what the target has in its place now. Only this link writes there what the source owns. */
  async effectOf(chunk: Chunk): Promise<ChunkEffect> {
    const { target, targetCatalog, link, flavour } = this.options;
    const { table, changed, ownerOf } = chunk;
    const shape = this.shapeOf(table.name);
    const { source } = shape;
    const keeps = this.options.carried.rowTest(table.name, source.columns);
    const there = await readRows(target, shape, { after: chunk.after, upTo: chunk.upTo, limit: null });
    const onTarget = new Map(there.map((row) => [keyOf(source, row), row]));
    const batch: TableBatch = {
      source,
      target: targetCatalog.get(table.name)!,
      rows: new Map(),
      log: null,
      inOrder: false,
    };
    const counts = { ...table.counts };
    /** Rows that the target lacks, or has otherwise. */
    const differing: (Mismatch & { owner: ReturnType<typeof ownerOf> })[] = [];
    for (const row of chunk.rows) {
      counts.compared++;
      if (keeps?.(row) === false) continue;
      const key = keyOf(source, row);
      const current = onTarget.get(key) ?? null;
      onTarget.delete(key);
      if (changed.has(key) || sameRow(current, row)) continue;
      const owner = ownerOf(source, row);
      if (current === null && owner === 'other' && table.purpose !== 'fill') continue;
      differing.push({ table: batch, row: { key, before: current, after: row }, current, owner });
    }
    const winners = await this.winners(table, differing);
    const winning = differing.filter((_, i) => winners[i] === 'source');
    for (const { row } of winning) row.after = withExact(row.after!, chunk.exact.get(row.after!));
    counts.kept += differing.filter((_, i) => winners[i] === 'target').length;
    const insert = winning.filter(({ current }) => current === null).map(({ row }) => row);
    const replace = winning.filter(({ current }) => current !== null).map(({ row }) => row);
    const remove: RowNet[] = [];
    if (table.purpose === 'resync') {
      for (const [key, row] of onTarget) {
        if (!changed.has(key) && keeps?.(row) !== false && ownerOf(source, row) === 'source')
          remove.push({ key, before: row, after: null });
      }
    }
    counts.written += insert.length + replace.length;
    counts.removed += remove.length;
    const done = chunk.upTo === null;
    const next = { counts, lastKey: chunk.upTo ?? table.lastKey };
    return {
      next,
      // What goes first frees unique values.
      statements: [
        ...replacing(batch, [...remove, ...replace], flavour),
        ...inserted(batch, insert, flavour),
      ],
      progress: progressStatement(link, { ...table, ...next }, done),
      done,
    };
  }

  /** By the policy of the table; what the target lacks is no conflict, but for a row that was deleted there later. */
  private async winners(
    { name, purpose }: CopyTable,
    rows: readonly (Mismatch & { owner: 'source' | 'other' | 'unrouted' })[],
  ): Promise<('source' | 'target')[]> {
    const { policies, target } = this.options;
    const policy = policyOf(policies.conflicts, name, rows[0]?.owner === 'unrouted');
    if (typeof policy === 'object') {
      const winners = await laterOnes(target, policy.latest, policies.winsTies, rows);
      // A resync is to bring back what was deleted on the target.
      return winners.map((winner, i) =>
        purpose === 'resync' && rows[i]!.current === null ? 'source' : winner,
      );
    }
    return rows.map(({ current, owner }) => {
      if (current === null || policy === 'source-wins') return 'source';
      return policy === 'owner-wins' && owner === 'source' ? 'source' : 'target';
    });
  }

  /** The chunk is committed. */
  committed({ table, rows }: Chunk, { next, done }: ChunkEffect): void {
    Object.assign(table, next);
    if (done) this.unfinished.delete(table.name);
    this.note(table, rows.length);
    this.written?.();
  }

  private shapeOf(name: string): ReadableTable {
    let shape = this.readable.get(name);
    if (shape === undefined) {
      const table = this.options.sourceCatalog.get(name);
      if (table === undefined) {
        throw new InterlockError(
          'LinkStopped',
          `${this.options.link}: ${name} was to be copied and is not at the source any more; run: interlock replicate resync ${this.options.link}`,
          { details: { link: this.options.link, table: name } },
        );
      }
      shape = readable({ ...table, sql: this.options.targetCatalog.get(name)!.sql });
      this.readable.set(name, shape);
    }
    return shape;
  }

  /** Before anything of a table was read: what the server knows of the size of its rows. */
  private async firstRows({ source: { name } }: ReadableTable): Promise<number> {
    const [rows] = await this.options.source.query<RowDataPacket[]>(
      "SELECT avg_row_length AS bytes FROM information_schema.tables WHERE CONCAT(table_schema, '.', table_name) = ?",
      [this.options.carried.sourceName(name)],
    );
    const bytes = Number(rows[0]?.['bytes'] ?? 0);
    return Math.max(1, Math.min(FIRST_ROWS, Math.floor(CHUNK_BYTES / Math.max(bytes, 1))));
  }

  private adapt(rows: Literal[][], tookMs: number): void {
    if (rows.length === 0) return;
    let bytes = 0;
    for (const row of rows) for (const value of row) bytes += value.length;
    const byTime = Math.max(FEWEST_ROWS, (rows.length * CHUNK_MS) / Math.max(tookMs, 1));
    const byBytes = CHUNK_BYTES / Math.max(bytes / rows.length, 1);
    this.rowsPerChunk = Math.max(1, Math.floor(Math.min(byTime, byBytes, this.rowsPerChunk * 2, MOST_ROWS)));
  }

  private note(table: CopyTable, read: number): void {
    const { tables } = this.options;
    const progress = this.progressNow!;
    const now = Date.now();
    const compared = tables.reduce((sum, one) => sum + one.counts.compared, 0);
    this.samples.push({ at: now, rows: compared });
    while (this.samples.length > 2 && this.samples[1]!.at < now - 5_000) this.samples.shift();
    const first = this.samples[0]!;
    const rowsPerSecond = Math.round(((compared - first.rows) * 1000) / Math.max(now - first.at, 1));
    const left = tables.reduce(
      (sum, one) =>
        sum + (this.unfinished.has(one.name) ? Math.max(0, one.estimated - one.counts.compared) : 0),
      0,
    );
    const total = (of: keyof CopyTable['counts']): number =>
      tables.reduce((sum, one) => sum + one.counts[of], 0);
    this.progressNow = {
      ...progress,
      tablesDone: progress.tables - this.unfinished.size,
      table: this.unfinished.has(table.name) ? table.name : null,
      comparedRows: progress.comparedRows + read,
      writtenRows: total('written'),
      removedRows: total('removed'),
      keptRows: total('kept'),
      rowsPerSecond,
      etaSeconds: rowsPerSecond > 0 ? Math.ceil(left / rowsPerSecond) : null,
    };
  }
}

function withExact(row: Literal[], exact: ReadonlyMap<number, Literal> | undefined): Literal[] {
  return exact === undefined ? row : row.map((value, at) => exact.get(at) ?? value);
}

function columnsOf(catalog: Catalog, name: string): string {
  return JSON.stringify([...(catalog.get(name)?.columns.values() ?? [])]);
}

async function throttle(
  maxRowsPerSecond: number | null,
  rows: number,
  began: number,
  signal: AbortSignal,
): Promise<void> {
  if (maxRowsPerSecond === null) return;
  const waitMs = (rows * 1000) / maxRowsPerSecond - (performance.now() - began);
  if (waitMs > 0) await sleep(waitMs, undefined, { signal }).catch(() => undefined);
}
