import { randomInt } from 'node:crypto';
import type { Connection, RowDataPacket } from 'mysql2/promise';
import { InterlockError, messageOf } from '../../src/errors.js';
import { NOBODY } from '../core/contract.js';
import type { BaselineReached, LinkStatus } from '../core/contract.js';
import { StatusTracker } from '../core/status.js';
import { TableFilter } from '../core/table-filter.js';
import { Applier, heldByOther } from './applier.js';
import { Batch, BatchMismatch } from './batch.js';
import { readCatalog } from './catalog.js';
import type { Catalog, CatalogTable } from './catalog.js';
import { connectReader } from './chunk-reader.js';
import { Copier } from './copier.js';
import { copyProgress, unfinished } from './copy-plan.js';
import { readCheckpoint, readLinkUnits, takeGeneration } from './checkpoint.js';
import type { Checkpoint } from './checkpoint.js';
import { passDdl } from './ddl.js';
import { preflightLink } from './initialise.js';
import type { LinkConfig } from './link-config.js';
import { Ownership } from './ownership.js';
import { contains, parsePosition } from './position.js';
import type { MysqlPosition } from './position.js';
import { queueBudget } from './queue-budget.js';
import {
  collationCharsets,
  connect,
  connectTarget,
  executedPosition,
  serverIdentity,
  takeLock,
} from './session.js';
import { judgeLater, restOf } from './spooled-transaction.js';
import { BinlogStream } from './stream.js';
import type { StopPoint } from './stop-points.js';
import { LOCK_ERRORS, isUnavailable, targetUnavailable } from './target-errors.js';
import type { SqlError } from './target-errors.js';
import { isEmpty } from './transaction.js';
import type { MarkerEvent, RowChange, SourceTransaction } from './transaction.js';

export interface LinkEvents {
  onStatus: (status: LinkStatus) => void;
  /** After the commit that contains the marker. */
  onMarker: (baseline: BaselineReached, to: { workflowId: string; runId: string }) => void;
}

const BATCH_ROWS = 5_000;
const BATCH_BYTES = 4 * 1024 * 1024;
const SILENCE_MS = 5_000;
const STATUS_MS = 500;
/** From the first connection to the stream. */
const OPENING_MS = 60_000;
const BACKOFF_MS = { first: 100, most: 5_000 };

/**
 * One directed replicator, as attempts: each takes the next generation of the checkpoint, streams from there and applies, until the
 * source or the target is lost; then the next attempt begins at the checkpoint. What is in memory is never needed again.
 */
export class Link {
  private readonly config: LinkConfig;
  private readonly events: LinkEvents;
  private readonly stopAt: (point: StopPoint) => void;
  private readonly tracker: StatusTracker;
  private attempt: Attempt | undefined;
  private cut: (error: InterlockError) => void = () => undefined;
  /** The generation that this link took last. */
  private held: number | undefined;
  /** The next generation was asked for, and the answer has not come: it may be taken. */
  private taking = false;

  constructor(config: LinkConfig, events: LinkEvents, stopAt: (point: StopPoint) => void) {
    this.config = config;
    this.events = events;
    this.stopAt = stopAt;
    this.tracker = new StatusTracker(config.link);
  }

  status(): LinkStatus {
    return this.tracker.snapshot(this.attempt?.lagMs() ?? 0);
  }

  /**
   * Runs until `signal` is aborted (returns) or the link has to stop (throws an InterlockError that is not retryable; it is retryable
   * when only a new run can tell who holds the link).
   * Lost connections are mended here, without limit: only an operator knows when a server will not come back.
   */
  async run(signal: AbortSignal): Promise<void> {
    const timer = setInterval(() => this.events.onStatus(this.status()), STATUS_MS);
    let backoff = BACKOFF_MS.first;
    try {
      while (!signal.aborted) {
        const startedAt = Date.now();
        try {
          await this.once(signal);
        } catch (error) {
          this.tracker.failed(error);
          if (!(error instanceof InterlockError) || !error.retryable || error instanceof TakeOverUnknown) {
            if (this.tracker.state !== 'diverged' && this.tracker.state !== 'resync-required')
              this.tracker.state = 'failed';
            throw error;
          }
          this.tracker.state = 'starting';
          this.events.onStatus(this.status());
          if (Date.now() - startedAt > 10_000) backoff = BACKOFF_MS.first;
          await pause(backoff, signal);
          backoff = Math.min(backoff * 2, BACKOFF_MS.most);
        }
      }
      this.tracker.state = 'stopped';
    } finally {
      clearInterval(timer);
      this.events.onStatus(this.status());
    }
  }

  private async once(signal: AbortSignal): Promise<void> {
    const opened = new Sessions();
    const leave = queueBudget.join();
    const cut = new Promise<never>((_resolve, reject) => (this.cut = reject));
    const deadline = setTimeout(() => {
      if (this.tracker.state === 'starting')
        this.disconnect(`a server has not answered in ${OPENING_MS} ms while the link starts`);
    }, OPENING_MS);
    try {
      // Hazard: a query whose connection is destroyed is never answered.
      await Promise.race([this.open(opened, signal), cut]);
    } catch (error) {
      if (error instanceof InterlockError) throw error;
      // A server that shuts down, or that still undoes what the attempt before had open (its lock is waited for in vain), answers with an error.
      const { fatal, errno } = error as SqlError;
      const lost =
        fatal === true ||
        (errno !== undefined && (isUnavailable(error as SqlError) || LOCK_ERRORS.has(errno)));
      throw new InterlockError(lost ? 'Unavailable' : 'Internal', (error as Error).message, {
        cause: error,
        retryable: lost,
      });
    } finally {
      clearTimeout(deadline);
      leave();
      this.attempt = undefined;
      opened.close();
    }
  }

  /** Ends the attempt whatever it waits for: its sessions go, with what they had open. */
  disconnect(why: string): void {
    this.cut(new InterlockError('Unavailable', why, { retryable: true }));
  }

  /** @param opened takes the connections, for the caller to close */
  private async open(opened: Sessions, signal: AbortSignal): Promise<void> {
    const { source: sourceServer, target: targetServer, link } = this.config;
    const target = opened.add(await connectTarget(targetServer));
    await this.requireHeld(target);
    await takeLock(target, link);
    const source = opened.add(await connect(sourceServer));
    await preflightLink(this.config, source, target);
    this.taking = true;
    const checkpoint = await takeGeneration(target, link, this.held);
    this.taking = false;
    if (checkpoint === undefined) {
      await this.requireHeld(target);
      throw new InterlockError(
        'Refused',
        `${link} has no checkpoint; run: interlock replicate start ${link} --from now`,
      );
    }
    this.held = checkpoint.generation;
    await checkLineage(this.config, source, checkpoint);
    this.attempt = new Attempt(
      this.config,
      this.events,
      this.stopAt,
      this.tracker,
      source,
      target,
      checkpoint,
    );
    await this.attempt.run(signal);
  }

  /**
   * A link that lost its connection while another process took over must not take it back: the two would end each other's sessions for
   * ever. Only a new run (a new activity attempt) may take a generation that is not its own.
   */
  private async requireHeld(target: Connection): Promise<void> {
    if (this.held === undefined) return;
    const found = await readCheckpoint(target, this.config.link);
    if (found?.generation === this.held) return;
    // Hazard: the generation may be this link's own, its answer lost: as final, nobody would run the link.
    if (this.taking) throw new TakeOverUnknown(this.config.link);
    throw heldByOther(this.config.link);
  }
}

/** The connections of an attempt. One that comes when the attempt has ended must not go on as a second one. */
class Sessions {
  private readonly connections: Connection[] = [];
  private closed = false;

  add(connection: Connection): Connection {
    this.connections.push(connection);
    if (this.closed) {
      connection.destroy();
      throw new InterlockError('Unavailable', 'the attempt has ended', { retryable: true });
    }
    return connection;
  }

  close(): void {
    this.closed = true;
    for (const connection of this.connections) connection.destroy();
  }
}

/** Ends the run, but not the link: the next run takes a generation of its own. */
class TakeOverUnknown extends InterlockError {
  constructor(link: string) {
    super(
      'Unavailable',
      `${link}: the answer to its take-over was lost, and the generation is not the one it held; a new attempt takes the link over`,
      { retryable: true, details: { link } },
    );
  }
}

/** A checkpoint that the source has not executed belongs to another history: applying from there would mix two. */
async function checkLineage(config: LinkConfig, source: Connection, checkpoint: Checkpoint): Promise<void> {
  const { flavour } = config.source;
  const position = parsePosition(flavour, checkpoint.position);
  const executed = await executedPosition(source, flavour);
  if (!contains(parsePosition(flavour, executed), position)) {
    throw new InterlockError(
      'NeedsOperator',
      `${config.link} has applied ${checkpoint.position}, which ${config.from} (now at ${executed}) does not have: it was restored or failed over to a server that lacks it. Reconcile the data, then: interlock replicate start ${config.link} --from POSITION --discard-checkpoint`,
      { details: { link: config.link, state: 'diverged', checkpoint: checkpoint.position, executed } },
    );
  }
  if (flavour !== 'mysql') return;
  const [rows] = await source.query<RowDataPacket[]>('SELECT @@GLOBAL.gtid_purged AS purged');
  const purged = String((rows[0] as { purged: string }).purged);
  if (!contains(position, parsePosition(flavour, purged))) {
    throw new InterlockError(
      'NeedsOperator',
      `${config.link} is at ${checkpoint.position}, but ${config.from} has purged its binlog beyond that (${purged.replace(/\s+/g, '')}). Copy what is missing: interlock replicate resync ${config.link}`,
      { details: { link: config.link, state: 'resync-required', checkpoint: checkpoint.position } },
    );
  }
}

/** One attempt: a generation, a stream, a queue, an applier. */
class Attempt {
  private readonly queue: SourceTransaction[] = [];
  private head = 0;
  private wake: (() => void) | undefined;
  private failure: InterlockError | undefined;
  private catalog: Catalog = new Map();
  private readonly filter: TableFilter;
  private applier!: Applier;
  /** Everything that was applied or dropped, in order. */
  private readonly position: MysqlPosition;
  private executed: MysqlPosition;
  private behindSince: number | undefined;
  private looking = false;
  private copier: Copier | undefined;
  /** Tables that are being copied; the copier takes them out. */
  private copied: ReadonlySet<string> = new Set();

  constructor(
    private readonly config: LinkConfig,
    private readonly events: LinkEvents,
    private readonly stopAt: (point: StopPoint) => void,
    private readonly tracker: StatusTracker,
    private readonly source: Connection,
    private readonly target: Connection,
    private readonly checkpoint: Checkpoint,
  ) {
    this.filter = new TableFilter(config.include, config.exclude);
    this.position = parsePosition(config.source.flavour, checkpoint.position);
    this.executed = this.position.clone();
  }

  private makeApplier(): Applier {
    const { config, checkpoint, copied } = this;
    return new Applier({
      connection: this.target,
      flavour: config.target.flavour,
      link: config.link,
      generation: checkpoint.generation,
      seq: checkpoint.seq,
      marker: checkpoint.marker,
      stopAt: this.stopAt,
      copied,
    });
  }

  async run(signal: AbortSignal): Promise<void> {
    const { config, tracker, checkpoint } = this;
    tracker.generation = checkpoint.generation;
    tracker.position = checkpoint.position;
    tracker.lastMarker = checkpoint.marker;
    this.catalog = await readCatalog(this.target, this.filter);
    const ownership = new Ownership(
      config.from,
      config.mapping,
      config.tables,
      await readLinkUnits(this.target, config.link),
    );
    const readers: Connection[] = [];
    try {
      this.copier = await this.makeCopier(ownership, readers);
      this.copied = this.copier?.unfinished ?? this.copied;
      this.applier = this.makeApplier();
      await this.stream(signal, ownership);
    } finally {
      for (const reader of readers) reader.destroy();
    }
  }

  /** Tables that are still to be copied, if there are any. `readers` takes its connections. */
  private async makeCopier(ownership: Ownership, readers: Connection[]): Promise<Copier | undefined> {
    const { config, checkpoint, filter } = this;
    this.tracker.copy = await copyProgress(this.target, config.link);
    const tables = await unfinished(this.target, config.link);
    if (tables.length === 0) return undefined;
    const source = await connectReader(config.source);
    readers.push(source);
    const target = await connectReader(config.target);
    readers.push(target);
    return new Copier({
      link: config.link,
      generation: checkpoint.generation,
      flavour: config.target.flavour,
      source,
      target,
      sourceCatalog: await readCatalog(this.source, filter),
      targetCatalog: this.catalog,
      ownership,
      tables,
    });
  }

  private async stream(signal: AbortSignal, ownership: Ownership): Promise<void> {
    const { config, tracker, checkpoint } = this;
    await this.noteSourceServer();
    if (this.copier === undefined) await this.repeatMarker();
    const stream = new BinlogStream({
      ...config.source,
      position: checkpoint.position,
      // Above what servers are numbered with; two streams with one number would end each other.
      serverId: randomInt(2 ** 31, 2 ** 32 - 1),
      filter: this.filter,
      reading: {
        charsets: await collationCharsets(this.source, config.source.flavour),
        jsonAsText: config.target.flavour === 'mariadb',
      },
      byteBudget: queueBudget.share,
      silenceMs: SILENCE_MS,
      onTransaction: (transaction) => {
        // In stream order: ownership is what the source had said up to here, however far applying is behind.
        if (!transaction.foreign) {
          try {
            judgeLater(transaction, ownership, (violation) => this.atPosition(violation));
            transaction.violation ??= ownership.read(transaction);
          } catch (error) {
            transaction.violation = error as InterlockError;
          }
          this.copier?.see(transaction);
        }
        this.queue.push(transaction);
        this.stopAt('after-read');
        this.notify();
      },
      watches: (table) => this.copier?.watches(table) === true,
      onSpooled: (changes) => this.copier?.notice(changes),
      onError: (error) => this.fail(error),
    });
    // An idle link asks its target nothing: it must hear that its session is gone (server down, another attempt took over).
    this.target.on('error', (error: Error) => this.fail(targetUnavailable(error)));
    this.target.on('end', () => this.fail(targetUnavailable(new Error('the session was ended'))));
    const onAbort = (): void => this.notify();
    signal.addEventListener('abort', onAbort, { once: true });
    const poll = setInterval(() => {
      void this.lookAtSource();
      void this.lookAtTarget();
    }, 1000);
    try {
      this.stopAt('before-read');
      await stream.start();
      await this.lookAtSource();
      tracker.state = this.copier === undefined ? 'streaming' : 'copying';
      tracker.lastError = null;
      this.events.onStatus(tracker.snapshot(this.lagMs()));
      this.copier?.run(signal).then(
        () => this.showCopy(),
        (error: unknown) => this.fail(copyFailed(config.link, error)),
      );
      await this.applyUntil(signal, stream);
    } finally {
      clearInterval(poll);
      signal.removeEventListener('abort', onAbort);
      stream.stop();
      for (const { spool } of this.queue) spool?.discard();
    }
  }

  /** 0 when everything that the source has is applied; else the age of the oldest change that is not. */
  lagMs(): number {
    const now = Date.now();
    const oldest = this.queue[this.head];
    if (oldest !== undefined) {
      // The binlog's clock has whole seconds: only a difference that they can show counts.
      const bySource = now - oldest.sourceTime - 1000;
      return Math.max(now - oldest.arrivedAt, bySource > 1000 ? bySource : 0, 1);
    }
    return this.behindSince === undefined ? 0 : Math.max(now - this.behindSince, 1);
  }

  private fail(error: InterlockError): void {
    this.failure ??= error;
    this.notify();
  }

  private notify(): void {
    this.wake?.();
    this.wake = undefined;
  }

  private async applyUntil(signal: AbortSignal, stream: BinlogStream): Promise<void> {
    while (!signal.aborted) {
      if (this.head === this.queue.length) {
        this.queue.length = 0;
        this.head = 0;
        // What had arrived whole is applied before a lost stream ends the attempt.
        if (this.failure) throw this.failure;
        await new Promise<void>((resolve) => (this.wake = resolve));
        continue;
      }
      await this.step(stream);
      if (this.head > 10_000) {
        this.queue.splice(0, this.head);
        this.head = 0;
      }
    }
  }

  /** The next batch: everything that waits, up to the budget, up to a marker, a statement or a violation. */
  private async step(stream: BinlogStream): Promise<void> {
    let batch = new Batch();
    let last = this.head;
    let bytes = 0;
    const dropped: SourceTransaction[] = [];
    for (; last < this.queue.length; last++) {
      const transaction = this.queue[last]!;
      if (isEmpty(transaction)) {
        bytes += transaction.bytes;
        if (transaction.foreign) dropped.push(transaction);
        continue;
      }
      const { violation, ddl, chunk, spool } = transaction;
      if (violation !== null || ddl !== null || chunk !== null || spool !== null) {
        if (!batch.isEmpty) break;
        if (violation !== null) throw this.atPosition(violation);
        if (ddl !== null) await this.passStatement(transaction);
      }
      if (
        !batch.isEmpty &&
        (batch.rowCount + transaction.changes.length > BATCH_ROWS ||
          batch.bytes + transaction.bytes > BATCH_BYTES)
      ) {
        break;
      }
      try {
        batch.add(transaction, (change) => this.tableOf(change));
      } catch (error) {
        if (!(error instanceof BatchMismatch)) throw error;
        // Something else wrote a row in between (the other side, whose transactions are dropped): the target decides, on its own.
        batch = this.without(transaction, batch);
        if (!batch.isEmpty) break;
        throw new InterlockError(
          'LinkStopped',
          `${this.config.link} stopped in ${transaction.gtid}: its changes do not follow from each other`,
          { details: { link: this.config.link, position: transaction.gtid } },
        );
      }
      bytes += transaction.bytes;
      if (transaction.markers.length > 0 || ddl !== null || chunk !== null || spool !== null) {
        last++;
        break;
      }
    }
    const { tracker } = this;
    for (let i = this.head; i < last; i++) {
      const { gtid, preparedGtid } = this.queue[i]!;
      this.position.add(gtid);
      if (preparedGtid !== null) this.position.add(preparedGtid);
    }
    const chunk = batch.transactions.at(-1)?.chunk ?? null;
    const effect = chunk === null ? undefined : await this.copier!.effectOf(chunk);
    const spooled = batch.transactions.at(-1);
    const spool = spooled?.spool ?? null;
    const rest = spool === null ? undefined : restOf(spooled!, spool, (change) => this.tableOf(change));
    const needsWrite =
      effect !== undefined ||
      rest !== undefined ||
      batch.transactions.some((t) => t.changes.length + t.units.length + t.markers.length > 0);
    if (needsWrite) await this.applier.apply(batch, this.position.toString(), effect, rest);
    if (spool !== null) {
      tracker.rows += spool.rows;
      spool.discard();
    }
    if (effect !== undefined) {
      this.copier!.committed(chunk!, effect);
      this.showCopy();
    }
    this.head = last;
    stream.release(bytes);
    tracker.droppedForeign += dropped.length;
    tracker.rows += batch.rowCount;
    tracker.transactions += batch.transactions.length;
    tracker.position = this.position.toString();
    // Hazard: to a switchover a marker says that all before it is here, and rows that were not copied yet are not.
    if (this.copied.size === 0)
      for (const marker of batch.transactions.flatMap((t) => t.markers)) this.reached(marker);
    if (this.behindSince !== undefined && contains(this.position, this.executed))
      this.behindSince = undefined;
  }

  private showCopy(): void {
    const { tracker, copier } = this;
    if (copier === undefined) return;
    tracker.copy = copier.progress() ?? tracker.copy;
    if (copier.unfinished.size === 0 && tracker.state === 'copying') tracker.state = 'streaming';
  }

  /** The batch again, without the transaction that broke it. */
  private without(transaction: SourceTransaction, broken: Batch): Batch {
    const batch = new Batch();
    for (const one of broken.transactions) {
      if (one !== transaction) batch.add(one, (change) => this.tableOf(change));
    }
    return batch;
  }

  private async passStatement(transaction: SourceTransaction): Promise<void> {
    const { config, source, target } = this;
    const { gtid, ddl } = transaction;
    const behind = this.position.clone();
    behind.add(gtid);
    const catalog = await passDdl(config, this.filter, source, target, ddl!, gtid, behind.toString());
    if (catalog !== null) this.catalog = catalog;
  }

  private tableOf(change: RowChange): CatalogTable {
    const table = this.catalog.get(change.table.name);
    if (table !== undefined) return table;
    throw new InterlockError(
      'LinkStopped',
      `${this.config.link}: ${change.table.name} does not exist on the target; create it there, then: interlock replicate resume ${this.config.link}`,
      { details: { link: this.config.link, table: change.table.name } },
    );
  }

  private atPosition(violation: InterlockError): InterlockError {
    return new InterlockError(violation.code, `${this.config.link} stopped: ${violation.message}`, {
      cause: violation,
      details: { ...violation.details, link: this.config.link },
    });
  }

  private reached(marker: MarkerEvent): void {
    if (marker.workflowId === NOBODY) return;
    const { tracker } = this;
    tracker.lastMarker = marker.id;
    this.stopAt('before-acknowledge');
    this.events.onMarker(
      {
        markerId: marker.id,
        link: this.config.link,
        conflicts: tracker.conflicts,
        quarantined: 0,
        position: this.position.toString(),
      },
      marker,
    );
    this.stopAt('after-acknowledge');
  }

  /** An attempt may end between the commit and the signal: the marker of the checkpoint is said again. */
  private async repeatMarker(): Promise<void> {
    const { marker } = this.checkpoint;
    if (marker === null) return;
    const [rows] = await this.source.query<RowDataPacket[]>(
      'SELECT workflow_id, run_id FROM interlock.marker WHERE id = ? AND created_at > UTC_TIMESTAMP(6) - INTERVAL 1 DAY',
      [marker],
    );
    const row = rows[0] as { workflow_id: string; run_id: string } | undefined;
    if (row !== undefined) this.reached({ id: marker, workflowId: row.workflow_id, runId: row.run_id });
  }

  private async noteSourceServer(): Promise<void> {
    const identity = await serverIdentity(this.source, this.config.source.flavour);
    if (identity === this.checkpoint.sourceServer) return;
    // Another server with the same history: positions go on, because they name transactions, not files.
    await this.target.query(
      'UPDATE interlock.link_checkpoint SET source_server = ? WHERE link = ? AND generation = ?',
      [identity, this.config.link, this.checkpoint.generation],
    );
  }

  /** While nothing is applied: a target behind a dead network does not say so by itself. */
  private async lookAtTarget(): Promise<void> {
    if (this.looking || this.head < this.queue.length) return;
    this.looking = true;
    const timer = setTimeout(() => {
      this.target.destroy();
      this.fail(targetUnavailable(new Error(`no answer in ${SILENCE_MS} ms`)));
    }, SILENCE_MS);
    try {
      await this.target.query('DO 0');
    } catch (error) {
      this.fail(targetUnavailable(error));
    } finally {
      clearTimeout(timer);
      this.looking = false;
    }
  }

  private async lookAtSource(): Promise<void> {
    const { flavour } = this.config.source;
    try {
      const text = await executedPosition(this.source, flavour);
      this.executed = parsePosition(flavour, text);
      this.tracker.sourcePosition = text;
      if (contains(this.position, this.executed)) this.behindSince = undefined;
      else this.behindSince ??= Date.now();
    } catch {
      // The stream's own watchdog ends the attempt when the source is gone.
      this.behindSince ??= Date.now();
    }
  }
}

function copyFailed(link: string, error: unknown): InterlockError {
  if (error instanceof InterlockError) return error;
  const known = error as SqlError;
  // A reader's connection is gone, or it was told to go: the next attempt goes on behind the last chunk.
  if (isUnavailable(known))
    return new InterlockError('Unavailable', `copying: ${messageOf(error)}`, {
      cause: error,
      retryable: true,
    });
  return new InterlockError('LinkStopped', `${link} stopped while copying: ${messageOf(error)}`, {
    cause: error,
    details: { link, errno: known.errno },
  });
}

async function pause(ms: number, signal: AbortSignal): Promise<void> {
  if (signal.aborted) return;
  await new Promise<void>((resolve) => {
    const done = (): void => {
      clearTimeout(timer);
      signal.removeEventListener('abort', done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal.addEventListener('abort', done, { once: true });
  });
}
