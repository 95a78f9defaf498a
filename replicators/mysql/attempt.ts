import { randomInt } from 'node:crypto';
import type { Connection, RowDataPacket } from 'mysql2/promise';
import { InterlockError, messageOf } from '../../src/errors.js';
import { NOBODY } from '../core/contract.js';
import type { LinkEvents } from '../core/contract.js';
import { Pace } from '../core/pace.js';
import { StatusTracker } from '../core/status.js';
import type { LinkLag } from '../core/status.js';
import { Applier } from './applier.js';
import type { Rest } from './applier.js';
import { Backlog } from './backlog.js';
import type { Work, WorkLimits } from './backlog.js';
import { Batch } from './batch.js';
import { BinlogFiles, fileNumber } from './binlog-place.js';
import { Carried } from './carried.js';
import { connectReader } from './chunk-reader.js';
import { Copier } from './copier.js';
import type { ChunkEffect } from './chunk-effect.js';
import type { Chunk } from './copier.js';
import { copyProgress, tablesWithRows, unfinished } from './copy-plan.js';
import { checkpointAgeMs, readLinkUnits } from './checkpoint.js';
import type { Checkpoint } from './checkpoint.js';
import { passDdl } from './ddl.js';
import { LeftOut } from './left-out.js';
import { cutFor } from './large-values.js';
import type { Cut } from './large-values.js';
import type { LinkConfig } from './link-config.js';
import { LinkSchema } from './link-schema.js';
import { Ownership } from './ownership.js';
import { pause } from '../core/pause.js';
import { contains, parsePosition, pass } from './position.js';
import type { MysqlPosition } from './position.js';
import { OtherDirection } from './other-direction.js';
import { SlowStatement } from './patience.js';
import type { Patience } from './patience.js';
import { queueBudget } from './queue-budget.js';
import { collationCharsets, executedPosition, maxAllowedPacket, serverIdentity } from './session.js';
import { slowOrGone } from './slow-target.js';
import { Settler } from './settler.js';
import { batchOf, judgeLater, restOf } from './spooled-transaction.js';
import { BinlogStream } from './stream.js';
import type { StopAt } from '../core/stop-points.js';
import {
  ChangeRefused,
  PastTheFence,
  RecordChanged,
  RowsDiffer,
  isUnavailable,
  targetUnavailable,
} from './target-errors.js';
import type { SqlError } from './target-errors.js';
import type { MarkerEvent, SourceTransaction } from './transaction.js';

const BATCH_ROWS = 5_000;
const BATCH_BYTES = 4 * 1024 * 1024;
/** From here on it is worth while to make the next batch before the target has answered. */
const AHEAD_BYTES = 64 * 1024;
const SILENCE_MS = 5_000;

/** One attempt: a generation, a stream, a queue, an applier. */
export class Attempt {
  private readonly backlog: Backlog;
  /** Made while the one before is being written. */
  private next: Work | undefined;
  private wake: (() => void) | undefined;
  private failure: InterlockError | undefined;
  private readonly carried: Carried;
  private readonly schema: LinkSchema;
  private readonly pace: Pace;
  private applier!: Applier;
  /** Everything that was applied or dropped, in order. */
  private position: MysqlPosition;
  private executed: MysqlPosition;
  private behindSince: number | undefined;
  private readonly files: BinlogFiles;
  private readonly leftOut = new LeftOut();
  private stream: BinlogStream | undefined;
  private movedAt = Date.now();
  private checkpointAt: number | undefined;
  /** When the source was looked at last and all that it had was applied. */
  private currentAt: number | undefined;
  /** The source was looked at. */
  hasLooked = false;
  private looking = false;
  private settler!: Settler;
  private ordersDue = false;
  /** Transactions of a batch: halved until the one that does not fit stands alone. */
  private most = Infinity;
  private copier: Copier | undefined;
  /** Tables that are being copied; the copier takes them out. */
  private copied: ReadonlySet<string> = new Set();
  /** By what the target takes. */
  private cut!: Cut;

  constructor(
    private readonly config: LinkConfig,
    private readonly events: LinkEvents,
    private readonly stopAt: StopAt,
    private readonly tracker: StatusTracker,
    private readonly source: Connection,
    private readonly target: Connection,
    private readonly checkpoint: Checkpoint,
    private readonly patience: Patience,
  ) {
    this.carried = new Carried(config);
    this.schema = new LinkSchema(config, this.carried, { source, target });
    this.pace = new Pace(config.throttle ?? {});
    this.backlog = new Backlog({
      tableOf: (table) => this.schema.tableOf(table),
      standsAlone: (transaction) => this.standsAlone(transaction),
    });
    this.position = parsePosition(config.source.flavour, checkpoint.position);
    this.executed = this.position.clone();
    // Which one it is shows when it goes alone.
    if (patience.slow !== undefined) this.most = 1;
    this.files = new BinlogFiles(source);
  }

  private makeApplier(): Applier {
    const { config, checkpoint, copied, cut, patience } = this;
    const policies = Object.entries(this.carried.byTargetName(config.conflicts));
    return new Applier({
      latest: new Map(
        policies.flatMap(([table, policy]) => (typeof policy === 'object' ? [[table, policy.latest]] : [])),
      ),
      winsTies: config.winsTies,
      connection: this.target,
      flavour: config.target.flavour,
      link: config.link,
      generation: checkpoint.generation,
      seq: checkpoint.seq,
      marker: checkpoint.marker,
      stopAt: this.stopAt,
      copied,
      filled: this.copier?.filled ?? copied,
      takesOver: async (mismatches) => (await this.copier?.takesOver(mismatches)) === true,
      cut,
      answerMs: patience.answerMs,
    });
  }

  async run(signal: AbortSignal): Promise<void> {
    const { config, tracker, checkpoint } = this;
    tracker.generation = checkpoint.generation;
    tracker.position = checkpoint.position;
    tracker.lastMarker = checkpoint.marker;
    this.cut = cutFor(await maxAllowedPacket(this.target));
    await this.schema.read();
    const units = await readLinkUnits(this.target, config.link);
    const ownership = new Ownership(config.from, config.mapping, config.tables, units);
    const readers: { destroy: () => void }[] = [];
    try {
      this.copier = await this.makeCopier(ownership, readers);
      this.copied = this.copier?.unfinished ?? this.copied;
      this.applier = this.makeApplier();
      this.settler = new Settler({
        config,
        policies: this.carried.byTargetName(config.conflicts),
        target: this.target,
        generation: checkpoint.generation,
        applier: this.applier,
        cut: this.cut,
        ownership,
        schema: this.schema,
        tracker,
        copying: this.copier,
        patience: this.patience,
      });
      await this.settler.read();
      await this.carry(signal, ownership);
    } finally {
      for (const reader of readers) reader.destroy();
    }
  }

  /** Tables that are still to be copied, if there are any. `readers` takes its connections. */
  private async makeCopier(
    ownership: Ownership,
    readers: { destroy: () => void }[],
  ): Promise<Copier | undefined> {
    const { config, checkpoint, schema, carried, cut } = this;
    this.tracker.copy = await copyProgress(this.target, config.link);
    const tables = await unfinished(this.target, config.link);
    if (tables.length === 0) return undefined;
    schema.requireEqual(tables.map(({ name }) => name));
    const source = await connectReader(config.source);
    readers.push(source);
    const target = await connectReader(config.target);
    readers.push(target);
    const otherDirection = new OtherDirection(config);
    readers.push(otherDirection);
    return new Copier({
      link: config.link,
      generation: checkpoint.generation,
      flavour: config.target.flavour,
      cut,
      source,
      target,
      carried,
      sourceCatalog: schema.source,
      targetCatalog: schema.target,
      ownership,
      policies: { ...config, conflicts: carried.byTargetName(config.conflicts) },
      tables,
      withRows: await tablesWithRows(target, tables, schema.target),
      otherDirection,
    });
  }

  private async carry(signal: AbortSignal, ownership: Ownership): Promise<void> {
    const { config, tracker, checkpoint } = this;
    await this.noteSourceServer();
    this.checkpointAt = Date.now() - (await checkpointAgeMs(this.target, config.link));
    if (this.copier === undefined) await this.repeatMarker();
    const stream = new BinlogStream({
      ...config.source,
      position: checkpoint.position,
      // Above what servers are numbered with; two streams with one number would end each other.
      serverId: randomInt(2 ** 31, 2 ** 32 - 1),
      filter: this.carried.sourceFilter,
      reading: {
        charsets: await collationCharsets(this.source, config.source.flavour),
        jsonAsText: config.target.flavour === 'mariadb',
        carried: this.carried,
      },
      byteBudget: queueBudget.share,
      silenceMs: SILENCE_MS,
      onTransaction: (transaction) => {
        // In stream order: ownership is what the source had said up to here, however far applying is behind.
        if (!transaction.foreign) {
          try {
            judgeLater(transaction, ownership, (violation) => this.atPosition(violation));
            transaction.notOwned = ownership.read(transaction);
          } catch (error) {
            transaction.violation ??= error as InterlockError;
          }
          this.copier?.see(transaction);
          tracker.transactionsRead += 1;
          tracker.rowsRead += transaction.changes.length;
        }
        this.backlog.push(transaction);
        this.stopAt('after-read');
        this.notify();
      },
      watches: (table) => this.copier?.watches(table) === true,
      onPassing: (changes) => this.copier?.notice(changes),
      onError: (error) => this.fail(error),
    });
    // An idle link asks its target nothing: it must hear that its session is gone (server down, another attempt took over).
    this.target.on('error', (error: Error) => this.fail(targetUnavailable(error)));
    this.target.on('end', () => this.fail(targetUnavailable(new Error('the session was ended'))));
    this.stream = stream;
    const onAbort = (): void => this.notify();
    signal.addEventListener('abort', onAbort, { once: true });
    const poll = setInterval(() => {
      void this.lookAtSource();
      void this.lookAtTarget();
      this.ordersDue ||= this.settler.isDue;
      if (this.ordersDue || this.leftOut.isDue(this.files.retentionMs)) this.notify();
    }, 1000);
    try {
      this.stopAt('before-read');
      await stream.start();
      await this.lookAtSource();
      tracker.state = this.copier === undefined ? 'streaming' : 'copying';
      // What is slow is tried again, for a long time perhaps: status goes on to say so.
      if (this.patience.slow === undefined) tracker.lastError = null;
      this.events.onStatus(tracker.snapshot(this.lag()), tracker.tableRows());
      this.copier?.run(signal).then(
        () => this.showCopy(),
        (error: unknown) => this.fail(copyFailed(config.link, error)),
      );
      await this.applyUntil(signal, stream);
    } finally {
      clearInterval(poll);
      signal.removeEventListener('abort', onAbort);
      stream.stop();
      for (const { spool } of this.backlog.all()) spool?.discard();
    }
  }

  lag(): LinkLag {
    const now = Date.now();
    const lagMs = this.lagMs();
    // What was read and is not applied is needed again after a crash.
    const oldest = earlier(this.backlog.oldest, this.stream?.held);
    const place = oldest?.start ?? this.stream?.reading.readTo ?? null;
    const needed = this.leftOut.oldest ?? oldest;
    const behindSince = this.backlog.oldest?.arrivedAt ?? this.behindSince ?? now;
    return {
      lagMs,
      lagBytes: lagMs === 0 ? 0 : this.files.bytesBehind(place),
      stalledMs: lagMs === 0 ? 0 : now - Math.max(this.movedAt, behindSince),
      checkpointAgeMs: this.checkpointAt === undefined ? null : now - this.checkpointAt,
      binlog: this.files.need(
        needed?.start ?? place,
        needed?.sourceTime ?? this.behindSince ?? this.currentAt ?? now,
      ),
    };
  }

  /** 0 when everything that the source has is applied; else the age of the oldest change that is not. */
  private lagMs(): number {
    const now = Date.now();
    const oldest = this.backlog.oldest;
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
    const { config } = this;
    while (!signal.aborted) {
      if (this.ordersDue) {
        this.ordersDue = false;
        this.looking = true;
        const tried = await this.settler
          .takeOrders(this.position.toString())
          .catch((error: unknown) =>
            this.unanswered(error, [this.settler.trying ?? this.position.toString()]),
          )
          .finally(() => (this.looking = false));
        if (tried) this.notSlow();
      }
      if (this.leftOut.isDue(this.files.retentionMs)) {
        await this.applier.apply(new Batch(), this.position.toString());
        this.written();
      }
      if (this.backlog.isEmpty) {
        // What had arrived whole is applied before a lost stream ends the attempt.
        if (this.failure) throw this.failure;
        // Hazard: the signal came while something above was awaited, and nothing would wake this. Guard: it is looked at where nothing comes in between.
        if (signal.aborted) return;
        await new Promise<void>((resolve) => (this.wake = resolve));
        continue;
      }
      const [rows, bytes] = await this.step(stream);
      const waitMs = config.throttle === undefined ? 0 : this.pace.waitMs(rows, bytes, performance.now());
      if (waitMs > 0) await pause(waitMs, signal);
    }
  }

  /** @returns rows and bytes that were applied */
  private async step(stream: BinlogStream): Promise<[number, number]> {
    const { tracker, backlog } = this;
    const work = this.next ?? backlog.gather(this.limits());
    this.next = undefined;
    const { batch, alone } = work;
    const position = this.position.clone();
    for (const transaction of backlog.of(work)) pass(position, transaction);
    if (alone !== null) await this.prepare(alone, batch);
    const chunk = alone?.chunk ?? null;
    const effect = chunk === null ? undefined : await this.effectOf(chunk, alone!.gtid);
    const spool = alone?.spool ?? null;
    const rest = spool === null ? undefined : restOf(alone!, spool, this.schema, this.config.link);
    const needsWrite =
      effect !== undefined ||
      rest !== undefined ||
      batch.transactions.some((t) => t.changes.length + t.units.length + t.markers.length > 0);
    const began = performance.now();
    if (needsWrite) {
      const gtids = batch.transactions.map(({ gtid }) => gtid);
      const written = await this.write(work, position.toString(), effect, rest).catch((error: unknown) =>
        this.unanswered(error, gtids, chunk),
      );
      if (!written) return [0, 0];
      this.written();
      this.notSlow();
    } else this.leftOut.add(backlog.oldest, work.bytes);
    this.position = position;
    if (spool !== null) {
      tracker.rows += spool.rows;
      spool.discard();
    }
    if (effect !== undefined) {
      this.copier!.committed(chunk!, effect, performance.now() - began);
      tracker.conflictsRecorded += effect.conflicts;
      if (effect.conflicts > 0) await this.settler.read();
      this.showCopy();
    }
    this.movedAt = Date.now();
    backlog.take(work);
    stream.release(work.bytes);
    tracker.droppedForeign += work.dropped;
    tracker.rows += batch.rowCount;
    tracker.transactions += batch.transactions.length;
    for (const { changes } of batch.transactions) tracker.countRows(changes);
    tracker.position = position.toString();
    // Hazard: to a switchover a marker says that all before it is here, and rows that were not copied yet are not.
    if (this.copied.size === 0)
      for (const marker of batch.transactions.flatMap((t) => t.markers)) this.reached(marker);
    if (this.behindSince !== undefined && contains(this.position, this.executed))
      this.behindSince = undefined;
    return [batch.rowCount + (chunk?.rows.length ?? 0), batch.bytes];
  }

  /** @throws the error, with what is known of it */
  private async unanswered(error: unknown, gtids: string[], chunk: Chunk | null = null): Promise<never> {
    const { config, target: session, patience, applier } = this;
    const { link, to: dc, target } = config;
    const what = applier.underWay;
    const known = await slowOrGone(error, { ...{ link, dc, target, session, what }, gtids });
    const slow = known instanceof InterlockError ? known.cause : undefined;
    // A chunk is nothing that could be kept aside.
    if (chunk !== null && slow instanceof SlowStatement && patience.isLast && !slow.waits)
      throw this.chunkRefused(slow, gtids[0]!);
    throw known;
  }

  private notSlow(): void {
    if (this.patience.slow === undefined) return;
    this.patience.passed();
    this.tracker.lastError = null;
  }

  /** The checkpoint has the position. */
  private written(): void {
    this.checkpointAt = Date.now();
    this.leftOut.clear();
  }

  private limits(): WorkLimits {
    return { ...this.pace.most(BATCH_ROWS, BATCH_BYTES), transactions: this.most };
  }

  /** Whether something else than its rows has to be looked at. */
  private standsAlone(transaction: SourceTransaction): boolean {
    const { violation, ddl, chunk, spool } = transaction;
    return (
      violation !== null ||
      ddl !== null ||
      chunk !== null ||
      spool !== null ||
      this.settler.concerns(transaction) ||
      this.schema.misfitOf(transaction) !== null
    );
  }

  /** What has to be so before a transaction that stands alone is written. */
  private async prepare(transaction: SourceTransaction, batch: Batch): Promise<void> {
    const { violation, ddl } = transaction;
    const { settler, schema } = this;
    if (violation !== null) throw this.atPosition(violation);
    if (ddl !== null) await this.passStatement(transaction);
    if (!settler.isDiscarded(transaction) && schema.misfitOf(transaction) !== null)
      await schema.settle(transaction);
    const changes = settler.isDiscarded(transaction) ? [] : transaction.changes;
    batchOf({ ...transaction, changes }, schema, this.config.link, batch);
  }

  /** @returns false: nothing is written, and fewer transactions are to be tried */
  private async write(
    work: Work,
    position: string,
    copy: ChunkEffect | undefined,
    rest: Rest | undefined,
  ): Promise<boolean> {
    const { applier, settler } = this;
    const { transactions } = work.batch;
    const [first] = transactions as [SourceTransaction, ...SourceTransaction[]];
    const isConcerned = settler.concerns(first);
    if (first.notOwned.length > 0 || (isConcerned && (rest === undefined || settler.isDecided(first)))) {
      await settler.settle(first, position);
      return true;
    }
    try {
      const requires = isConcerned ? settler.applies(first) : undefined;
      const overtaking = isConcerned ? await settler.overtakes(first) : undefined;
      const written = applier.apply(work.batch, position, {
        ...{ copy, rest, requires },
        beside: [...(copy?.records ?? []), ...(overtaking?.statements ?? [])],
      });
      this.lookAhead(work);
      await written;
      overtaking?.done();
      if (isConcerned) await settler.read();
      this.most = this.most > BATCH_ROWS ? Infinity : this.most * 2;
      return true;
    } catch (error) {
      this.next = undefined;
      if (error instanceof RecordChanged) {
        await settler.read();
        return false;
      }
      if (!(error instanceof RowsDiffer || error instanceof ChangeRefused || error instanceof PastTheFence))
        throw error;
      if (error instanceof ChangeRefused && (await this.schema.changedSince(error))) return false;
      if (copy !== undefined && this.copier!.mayTryAgain(error)) return false;
      if (copy !== undefined) throw this.chunkRefused(error, first.gtid);
    }
    if (transactions.length > 1) {
      this.most = Math.ceil(transactions.length / 2);
      return false;
    }
    await settler.settle(first, position);
    return true;
  }

  private async effectOf(chunk: Chunk, gtid: string): Promise<ChunkEffect | undefined> {
    try {
      return await this.copier!.effectOf(chunk, gtid);
    } catch (error) {
      if (error instanceof ChangeRefused) throw this.chunkRefused(error, gtid);
      throw error;
    }
  }

  private chunkRefused(error: Error, gtid: string): InterlockError {
    const { link } = this.config;
    return new InterlockError('LinkStopped', `${link} stopped while copying: ${error.message}`, {
      cause: error,
      details: { link, position: gtid, kind: 'refused' },
    });
  }

  /** While the target writes a batch, this thread makes the next one. */
  private lookAhead(work: Work): void {
    if (work.alone !== null || this.failure !== undefined) return;
    try {
      const next = this.backlog.gather(this.limits(), work);
      // A small one can wait for what comes meanwhile.
      if (next.alone !== null || next.batch.bytes < AHEAD_BYTES) return;
      this.applier.prepare(next.batch);
      this.next = next;
    } catch {
      // Whatever it is, it is met again in its turn; the batch that is under way has to be waited for.
      this.next = undefined;
    }
  }

  private showCopy(): void {
    const { tracker, copier } = this;
    if (copier === undefined) return;
    tracker.copy = copier.progress() ?? tracker.copy;
    if (copier.unfinished.size === 0 && tracker.state === 'copying') tracker.state = 'streaming';
  }

  private async passStatement(transaction: SourceTransaction): Promise<void> {
    const { config, source, target } = this;
    const { gtid, ddl } = transaction;
    const behind = this.position.clone();
    behind.add(gtid);
    await passDdl(config, this.carried, this.schema, source, target, ddl!, gtid, behind.toString());
    this.copier?.requireSame(this.schema.source);
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
        ...this.settler.open,
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
    if (this.looking || !this.backlog.isEmpty) return;
    this.looking = true;
    try {
      const bytes = await maxAllowedPacket(this.target, 'GLOBAL', SILENCE_MS);
      // What was refused as too large may go into a new session.
      if (bytes !== this.cut.packetBytes)
        throw new Error(`max_allowed_packet is ${bytes} now, and was ${this.cut.packetBytes}`);
    } catch (error) {
      this.fail(targetUnavailable(error));
    } finally {
      this.looking = false;
    }
  }

  private async lookAtSource(): Promise<void> {
    const { flavour } = this.config.source;
    try {
      const text = await executedPosition(this.source, flavour);
      this.executed = parsePosition(flavour, text);
      this.tracker.sourcePosition = text;
      if (contains(this.position, this.executed)) {
        this.behindSince = undefined;
        this.currentAt = Date.now();
      } else this.behindSince ??= Date.now();
      await this.files.look((this.backlog.oldest?.start ?? this.stream?.reading.readTo)?.file);
      this.hasLooked = true;
    } catch {
      // The stream's own watchdog ends the attempt when the source is gone.
      this.behindSince ??= Date.now();
    }
  }
}

function earlier(
  a: SourceTransaction | undefined,
  b: SourceTransaction | undefined,
): SourceTransaction | undefined {
  if (a?.start == null || b?.start == null) return a ?? b;
  const [left, right] = [a.start, b.start];
  const before =
    left.file === right.file ? left.at <= right.at : fileNumber(left.file) < fileNumber(right.file);
  return before ? a : b;
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
