import type { Connection, RowDataPacket } from 'mysql2/promise';
import { InterlockError } from '../../src/errors.js';
import type { CopyProgress } from '../core/contract.js';
import { pause } from '../core/pause.js';
import { anyImage, keyOf, sameRow } from './batch.js';
import type { Carried } from './carried.js';
import type { Catalog } from './catalog.js';
import { ChunkFate } from './chunk-fate.js';
import { keyValues, readRows, readable } from './chunk-reader.js';
import type { ReadableTable } from './chunk-reader.js';
import { effectOf } from './chunk-effect.js';
import type { ChunkEffect } from './chunk-effect.js';
import { ChunkPace } from './chunk-pace.js';
import { policyOf } from './conflicts.js';
import { behind } from './copied-range.js';
import { exactDocuments } from './copied-documents.js';
import { copyProgress } from './copy-plan.js';
import type { CopyPurpose, CopyTable } from './copy-plan.js';
import type { LinkConfig } from './link-config.js';
import { rowEffects } from './ddl-effects.js';
import type { Cut } from './large-values.js';
import type { Literal } from './literal.js';
import type { OtherDirection } from './other-direction.js';
import type { Ownership } from './ownership.js';
import type { Flavour } from './position.js';
import type { Mismatch } from './row-check.js';
import type { Statement } from './statements.js';
import { ChangeRefused, RowsDiffer } from './target-errors.js';
import type { RowChange, SourceTransaction } from './transaction.js';
import { DUPLICATE_KEY } from './unique-values.js';

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
  /** Rows that differed when it was read before, as they were on the target; null: it is read for the first time. */
  seen: ReadonlyMap<string, Literal[] | null> | null;
  fate: ChunkFate;
}

interface Window {
  seq: number;
  name: string;
  changed: Set<string>;
  isDisturbed: boolean;
}

type ReadChunk = Omit<Chunk, 'changed' | 'ownerOf'> & { seq: number };

export interface CopierOptions {
  link: string;
  generation: number;
  /** Of the target. */
  flavour: Flavour;
  cut: Cut;
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
  /** Those of them that have rows on the target. */
  withRows: ReadonlySet<string>;
  otherDirection: OtherDirection;
}

const TRIES = 20;

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
  private window: Window | undefined;
  /**
   * Tables of which nothing has been read: what the stream has of them, their chunks will have. Hazard: a row of which something was left out
   * differs, and where the target's may stay, it would. Only those that become as the source's, whatever the target has. One that is filled and has
   * rows may have them of the stream, from an attempt that ended before its first chunk was written: what becomes of them must not be left out.
   */
  private readonly notBegun: Set<string>;
  /** By table: those whose rows take rows of it with them, by foreign keys that cascade. */
  private readonly ancestors: ReadonlyMap<string, ReadonlySet<string>>;
  /** Of the chunk that is being written. */
  private tries = 0;
  private obstructed = false;
  private mayBeOnItsWay: boolean | undefined;
  private readonly pace = new ChunkPace();
  /** How long the target took for the chunk that was written last. */
  private answeredMs = 0;
  private progressNow: CopyProgress | null = null;
  private readonly samples: { at: number; rows: number }[] = [];

  /** Tables of which the target has some rows and not others. */
  readonly unfinished: Set<string>;
  /** Of these, the ones that were empty there, and whose rows nobody has to decide on. */
  readonly filled: Set<string>;

  constructor(private readonly options: CopierOptions) {
    const { tables, sourceCatalog, policies, withRows } = options;
    this.unfinished = new Set(tables.map(({ name }) => name));
    const overwrites = ({ name, purpose }: CopyTable): boolean =>
      (purpose === 'fill' && !withRows.has(name)) ||
      (purpose === 'resync' && policies.conflicts[name] === 'source-wins');
    this.notBegun = new Set(
      tables.filter((table) => table.lastKey === null && overwrites(table)).map(({ name }) => name),
    );
    this.ancestors = new Map(tables.map(({ name }) => [name, ancestorsOf(sourceCatalog, name)]));
    // Parents first: where a child is written, its parent is there.
    tables.sort((a, b) => this.ancestors.get(a.name)!.size - this.ancestors.get(b.name)!.size);
    // By `latest`, a row that the target's applications have written meanwhile may be the one that stays.
    this.filled = new Set(
      tables.flatMap(({ name, purpose }) =>
        purpose === 'fill' && typeof policies.conflicts[name] !== 'object' ? [name] : [],
      ),
    );
  }

  /** Returns when every table is copied. What it throws ends the attempt; the next one goes on behind the last chunk. */
  async run(signal: AbortSignal): Promise<void> {
    const { tables, link, target } = this.options;
    this.progressNow = await copyProgress(target, link);
    for (const table of tables) {
      this.pace.begin(await this.rowBytes(table.name));
      let chunk = await this.read(table, table.lastKey);
      let began = performance.now();
      // Between two chunks, the target is left alone.
      let rests = table.maxRowsPerSecond !== null;
      while (!signal.aborted) {
        if (!chunk.fate.isAnnounced) await this.announce(chunk);
        // The next one is read while this one is written. Not before all of it has been made: both take this thread, and the target would wait.
        await Promise.race([chunk.fate.made, chunk.fate.written]);
        const [next, how] = await Promise.all([
          this.readBehind(chunk, { announced: !rests }),
          chunk.fate.written,
        ]);
        if (how === 'disturbed') {
          this.pace.shrink();
          chunk = await this.read(table, chunk.after);
          continue;
        }
        if (how !== null) {
          await this.options.otherDirection.passed(signal);
          chunk = await this.read(table, chunk.after, { upTo: chunk.upTo, seen: how });
          continue;
        }
        if (next === null) break;
        const { length } = chunk.rows;
        const tookMs = performance.now() - began;
        this.pace.adapt(length, bytesOf(chunk.rows), tookMs);
        const restMs = this.pace.restMs(length, table.maxRowsPerSecond, tookMs, this.answeredMs);
        rests = table.maxRowsPerSecond !== null || restMs > 0;
        await pause(restMs, signal);
        began = performance.now();
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
    const { ddl } = transaction;
    // Hazard: rows that a statement takes away are in no row event, and the chunk would bring them back. It is read again.
    if (ddl !== null && this.window !== undefined)
      this.window.isDisturbed ||= rowEffects(ddl.statement, ddl.schema).length > 0;
    if (this.notBegun.size > 0) {
      transaction.changes = transaction.changes.filter(
        (change) => !this.notBegun.has(change.table.name) || transaction.notOwned.includes(change),
      );
    }
    // Those of an attempt that is gone name a generation of before.
    if (watermark?.link !== link || watermark.generation !== generation) return;
    if (watermark.edge === 'low') {
      const { name } = this.reading!;
      this.window = { seq: watermark.seq, name, changed: new Set(), isDisturbed: false };
      this.notBegun.delete(name);
    } else if (this.waiting?.seq === watermark.seq && this.window?.seq === watermark.seq) {
      const { changed, isDisturbed } = this.window;
      if (isDisturbed) this.waiting.fate.settle('disturbed');
      else transaction.chunk = { ...this.waiting, changed, ownerOf: ownership.snapshot() };
      this.window = undefined;
      this.waiting = undefined;
    }
  }

  /** Whether a chunk of this table is being read: `notice` has to be told of its changes. */
  watches(table: string): boolean {
    return (
      this.window !== undefined &&
      (this.window.name === table || this.ancestors.get(this.window.name)!.has(table))
    );
  }

  notice(changes: readonly RowChange[]): void {
    if (this.window === undefined) return;
    const { name, changed } = this.window;
    const ancestors = this.ancestors.get(name)!;
    for (const { table, before, after } of changes) {
      // Hazard: the rows that go with a parent's are not in the stream, and the chunk would bring them back. It is read again.
      this.window.isDisturbed ||= before !== null && ancestors.has(table.name);
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

  /**
   * The next chunk of its table; null: it was the last one.
   * @param announced it goes to the stream at once, so that the target has it as soon as it has written this one
   */
  private async readBehind(
    { table, upTo, fate }: ReadChunk,
    { announced }: { announced: boolean },
  ): Promise<ReadChunk | null> {
    if (upTo === null) return null;
    const next = await this.read(table, upTo, undefined, fate);
    if (announced) await this.announce(next);
    return next;
  }

  /** @param again a chunk that was read before */
  private async read(
    table: CopyTable,
    after: Literal[] | null,
    again?: Pick<ReadChunk, 'upTo' | 'seen'>,
    before: ChunkFate | null = null,
  ): Promise<ReadChunk> {
    const shape = this.shapeOf(table.name);
    const limit = again === undefined ? this.pace.rows : null;
    const seq = ++this.seq;
    this.reading = table;
    await this.watermark(seq, 'low');
    const from = this.options.sourceCatalog.get(table.name)!.sql;
    const rows = await readRows(this.options.source, shape, {
      after,
      upTo: again?.upTo ?? null,
      limit,
      from,
    });
    const upTo =
      limit === null || rows.length < limit ? (again?.upTo ?? null) : keyValues(shape, rows.at(-1)!);
    const exact = await this.exactOf(table, shape, rows);
    const fate = new ChunkFate(before);
    return { seq, table, rows, after, upTo, exact, seen: again?.seen ?? null, fate };
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

  /** For the stream to take at the second watermark. */
  private async announce(chunk: ReadChunk): Promise<void> {
    this.waiting = chunk;
    chunk.fate.isAnnounced = true;
    await this.watermark(chunk.seq, 'high');
  }

  private async watermark(seq: number, edge: 'low' | 'high'): Promise<void> {
    const { source, link, generation } = this.options;
    await source.query(
      `INSERT INTO interlock.copy_watermark (link, generation, seq, edge) VALUES (?, ?, ?, ?)
       ON DUPLICATE KEY UPDATE generation = VALUES(generation), seq = VALUES(seq), edge = VALUES(edge)`,
      [link, generation, seq, edge],
    );
  }

  /**
   * What the chunk has to do, given what the target has in its place now; undefined: it is read again, or the one before it is.
   * @param gtid of the transaction that it is written with
   */
  async effectOf(chunk: Chunk, gtid: string): Promise<ChunkEffect | undefined> {
    const { link, flavour, cut, source, target, targetCatalog, carried, policies } = this.options;
    const { fate } = chunk;
    if (fate.isForfeit) return undefined;
    this.mayBeOnItsWay ??= await this.options.otherDirection.flows();
    const effect = await effectOf(chunk, {
      ...{ link, flavour, cut, source, target, carried, policies, gtid },
      mayBeOnItsWay: this.mayBeOnItsWay,
      obstructed: this.obstructed,
      shape: this.shapeOf(chunk.table.name),
      targetTable: targetCatalog.get(chunk.table.name)!,
    });
    if (!(effect instanceof Map)) {
      const { statements } = effect;
      return { ...effect, statements: { [Symbol.iterator]: () => telling(statements, fate) } };
    }
    fate.settle(effect);
    return undefined;
  }

  /** Rows were others under the lock than they had been read: the chunk's effect is made anew. Not for ever: somebody waits behind it. */
  mayTryAgain(error: unknown): boolean {
    const isTaken = error instanceof ChangeRefused && error.errno === DUPLICATE_KEY;
    this.obstructed ||= isTaken;
    return (isTaken || error instanceof RowsDiffer) && ++this.tries < TRIES;
  }

  /** Which of these rows are of tables that are being copied, and are not copied yet. */
  async notCopied(mismatches: readonly Mismatch[]): Promise<boolean[]> {
    const { tables, target, targetCatalog } = this.options;
    const answers = mismatches.map(() => false);
    for (const { name, lastKey } of tables) {
      if (!this.unfinished.has(name)) continue;
      const some = mismatches.flatMap(({ table, row }, i) =>
        table.source.name === name ? [{ table, row, i }] : [],
      );
      const keys = some.map(({ table, row }) => table.source.primaryKey.map((at) => anyImage(row)[at]!));
      const found = await behind(target, targetCatalog.get(name)!, keys, lastKey);
      some.forEach(({ i }, n) => (answers[i] = found[n]!));
    }
    return answers;
  }

  /** Whether rows that the stream changes, and that the target has otherwise, are not copied yet and become what the source has, whatever that was. */
  async takesOver(mismatches: readonly Mismatch[]): Promise<boolean> {
    const { policies, ownership } = this.options;
    const isPlain = mismatches.every(({ table: { source }, row, current }) => {
      if (row.change !== undefined || !this.unfinished.has(source.name)) return false;
      if (sameRow(current, row.after)) return true;
      const unit = ownership.unitOf(source, anyImage(row));
      const policy = policyOf(policies.conflicts, source.name, unit === null);
      if (current === null) return typeof policy !== 'object' || this.purposeOf(source.name) === 'resync';
      return policy === 'source-wins' || (policy === 'owner-wins' && unit !== null);
    });
    return isPlain && (await this.notCopied(mismatches)).every(Boolean);
  }

  copies(table: string): boolean {
    return this.unfinished.has(table);
  }

  purposeOf(table: string): CopyPurpose | undefined {
    return this.options.tables.find(({ name }) => name === table)?.purpose;
  }

  /** The chunk is committed. @param answeredMs how long the target took for it */
  committed({ table, rows, fate }: Chunk, { next, done }: ChunkEffect, answeredMs: number): void {
    Object.assign(table, next);
    this.answeredMs = answeredMs;
    if (done) {
      this.unfinished.delete(table.name);
      this.filled.delete(table.name);
    }
    this.tries = 0;
    this.obstructed = false;
    this.note(table, rows.length);
    fate.isWritten = true;
    fate.settle(null);
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

  /** What the server knows of the size of a table's rows. */
  private async rowBytes(name: string): Promise<number> {
    const [rows] = await this.options.source.query<RowDataPacket[]>(
      "SELECT avg_row_length AS bytes FROM information_schema.tables WHERE CONCAT(table_schema, '.', table_name) = ?",
      [this.options.carried.sourceName(name)],
    );
    return Number(rows[0]?.['bytes'] ?? 0);
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

function* telling(statements: Iterable<Statement>, fate: ChunkFate): Generator<Statement> {
  yield* statements;
  fate.tellMade();
}

/** The table itself, too, where its foreign key leads back to it. */
function ancestorsOf(catalog: Catalog, name: string): Set<string> {
  const found = new Set<string>();
  const open = [name];
  for (let next = open.pop(); next !== undefined; next = open.pop()) {
    const table = catalog.get(next);
    if (table?.inOrder !== true) continue;
    for (const { parent } of table.foreignKeys) {
      if (found.has(parent)) continue;
      found.add(parent);
      open.push(parent);
    }
  }
  return found;
}

function bytesOf(rows: readonly Literal[][]): number {
  let bytes = 0;
  for (const row of rows) for (const value of row) bytes += value.length;
  return bytes;
}

function columnsOf(catalog: Catalog, name: string): string {
  return JSON.stringify([...(catalog.get(name)?.columns.values() ?? [])]);
}
