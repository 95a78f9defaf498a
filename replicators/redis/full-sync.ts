import { InterlockError } from '../../src/errors.js';
import type { CopyProgress } from '../core/contract.js';
import type { Pace } from '../core/pace.js';
import type { StatusTracker } from '../core/status.js';
import { pause } from '../core/pause.js';
import { UnitsMoved } from './applier.js';
import type { Applied, Applier } from './applier.js';
import { Block } from './block.js';
import { copyKey, pairs } from './checkpoint.js';
import type { RedisCheckpoint } from './checkpoint.js';
import { firstKeyOf } from './commands.js';
import { RedisConnection } from './connection.js';
import { isControl } from './judge.js';
import type { Judge } from './judge.js';
import { KeySet } from './key-set.js';
import type { RedisLinkConfig } from './link-config.js';
import { UNITS_KEY } from './ownership.js';
import { printable } from './quarantine.js';
import type { QuarantineRecord } from './quarantine.js';
import type { Argument, DecodedValue, RdbEvent, UndecodableValue } from './rdb/events.js';
import { readRdb } from './rdb/read-rdb.js';
import type { RestorableValue } from './rdb/restorable-value.js';
import type { Replica, Resync } from './replica.js';
import type { StreamCommand } from './resp/command-reader.js';
import { CommandWriter } from './resp/command-writer.js';
import { Spool, SpooledBytes } from './spool.js';
import { longestArgument, stringBytes, tooLarge } from './target-limits.js';
import type { TargetLimits } from './target-limits.js';

const BLOCK_KEYS = 2_000;
const BLOCK_BYTES = 1024 * 1024;
/** A value that is larger is given to the target piece by piece. */
const RAW_LIMIT_BYTES = 4 * 1024 * 1024;

/** Of the commands of a copy, those without a key. */
const NO_KEY = new Set(['select', 'function']);

/** With so many keys that were not copied, those that have ended since are forgotten. */
const LEFT_OUT_AT_ONCE = 10_000;
/** The source's clock is known no better. */
const CLOCK_MS = 1_000;

const RENAME = Buffer.from('RENAME');
const CRLF = Buffer.from('\r\n');

/** The key of one of the commands that a copy consists of. */
export function keyOfCopy(command: StreamCommand): Buffer | null {
  if (NO_KEY.has(command.name)) return null;
  return command.name === 'rename' ? command.arg(2) : firstKeyOf(command);
}

export interface FullSyncParts {
  config: RedisLinkConfig;
  replica: Replica;
  resync: Resync;
  applier: Applier;
  /** For questions. */
  target: RedisConnection;
  judge: Judge;
  tracker: StatusTracker;
  pace: Pace | null;
  limits: TargetLimits;
  /** Also remove what the source owns and does not have. */
  prune: boolean;
  sourceNow: () => number;
  /** For so long the source may say nothing. */
  silenceMs: number;
  /** Resolves when the source has sent something, or is gone. */
  wait: () => Promise<void>;
  /** Rejects when the attempt has failed. */
  failed: Promise<never>;
  signal: AbortSignal;
}

/**
 * Writes the source's RDB to the target: what begins a link, and what mends one whose source no longer has what it needs. A crash begins it again: the
 * checkpoint says `syncing` until the last block.
 */
export class FullSync {
  private writer = new CommandWriter();
  private block = new Block();
  private count = 0;
  private db = 0;
  /** The value that comes in pieces now expires too soon, or is left to the other side. */
  private skipsValue = false;
  /** Where values of several pieces are made: nobody sees one until it has its name. */
  private readonly pieceKey: Buffer;
  private readonly pieceDatabases = new Set<number>();
  /** Keys of `block` of which it has pieces. */
  private piecesOf = new Set<string>();
  /** Keys that live too short to be copied, and may be made to live longer. */
  private leftOut: { db: number; key: Buffer; expireAtMs: number }[] = [];
  private mostLeftOut = LEFT_OUT_AT_ONCE;
  private readonly spool = new Spool('a large element of a value cannot be kept');
  private inFlight: Promise<void> = Promise.resolve();
  /** What the target's units were when `judge` read them, and when the keys of `block` began to be judged. */
  private unitsDigest = '';
  private judgedBy = '';
  private readonly seen: KeySet | null;
  private readonly startedAt = Date.now();
  private readonly progress: CopyProgress = {
    tables: 1,
    tablesDone: 0,
    table: 'db0',
    estimatedRows: 0,
    comparedRows: 0,
    writtenRows: 0,
    removedRows: 0,
    keptRows: 0,
    rowsPerSecond: 0,
    etaSeconds: null,
  };

  constructor(private readonly parts: FullSyncParts) {
    this.seen = parts.prune ? new KeySet() : null;
    this.pieceKey = Buffer.from(copyKey(parts.config.link));
    parts.tracker.copy = this.progress;
  }

  /** @returns when all is sent; the caller writes the block that says that the link streams. */
  async run(): Promise<void> {
    try {
      await this.copy();
    } finally {
      this.spool.close();
    }
  }

  private async copy(): Promise<void> {
    const { replica, wait, limits, applier } = this.parts;
    const { spool, pieceKey } = this;
    applier.watchUnits();
    const form = await replica.rdbForm(this.parts.silenceMs);
    const chunks = replica.rdb(form, wait);
    // A copy that was broken off may have left one.
    this.removePieces(Array.from({ length: limits.databases }, (_, db) => db));
    const rawLimitBytes = Math.min(RAW_LIMIT_BYTES, limits.argumentBytes / 2, limits.transactionBytes / 4);
    const options = { rawLimitBytes, targetRdbVersion: limits.rdbVersion, spool, pieceKey };
    const blockBytes = Math.min(BLOCK_BYTES, limits.transactionBytes / 4);
    for await (const events of readRdb(chunks, options)) {
      for (const event of events) {
        this.take(event);
        if (this.count >= BLOCK_KEYS || this.writer.bytes + this.block.commands.bytes >= blockBytes)
          await this.flush();
      }
      if (this.parts.signal.aborted)
        throw new InterlockError('Unavailable', 'the link stops', { retryable: true });
    }
    this.removePieces(this.pieceDatabases);
    await this.flush();
    if (this.seen !== null) await this.removeOthers(this.seen);
    await Promise.race([this.inFlight, this.parts.failed]);
    // What the target refused of the last block.
    await this.flush();
    await Promise.race([this.inFlight, this.parts.failed]);
    this.progress.tablesDone = 1;
    this.progress.table = null;
    this.progress.etaSeconds = 0;
  }

  /** Of what was not copied, what has not ended since. */
  leftOutAlive(): { db: number; key: Buffer; expireAtMs: number }[] {
    const now = this.parts.sourceNow();
    return this.leftOut.filter(({ expireAtMs }) => expireAtMs > now - CLOCK_MS);
  }

  private take(event: RdbEvent): void {
    const { progress } = this;
    switch (event.kind) {
      case 'aux':
      case 'module-aux':
      case 'end':
        return;
      case 'resize':
        progress.estimatedRows += event.keys;
        return;
      case 'select':
        this.seal();
        this.db = event.db;
        progress.table = `db${event.db}`;
        return;
      case 'function':
        this.writer.command('FUNCTION', 'LOAD', 'REPLACE', event.code);
        this.count += 1;
        return;
      case 'undecodable':
        this.takeUndecodable(event);
        return;
      case 'value':
      case 'commands':
        this.takeValue(event);
    }
  }

  /** The target keeps what it has of the key: the source has it too. */
  private takeUndecodable({ db, key, reason }: UndecodableValue): void {
    const { judge } = this.parts;
    if (!judge.filter.carriesDatabase(db) || judge.copyVerdict(key) !== 'carried') return;
    this.seen?.add(db, key);
    this.putAside(printable(key), reason);
  }

  private takeValue(event: RestorableValue | DecodedValue): void {
    const { progress } = this;
    const { judge, config, sourceNow, limits, tracker } = this.parts;
    const { key, db, expireAtMs } = event;
    const isFirst = event.kind === 'value' || event.first;
    if (isFirst) progress.comparedRows += 1;
    if (!judge.filter.carriesDatabase(db)) {
      if (isFirst) tracker.filtered! += 1;
      return;
    }
    if (db >= limits.databases) {
      if (isFirst) this.putAside(printable(key), `the target has no database ${db}`);
      return;
    }
    const verdict = judge.copyVerdict(key);
    if (verdict === 'filtered' && isFirst && !isControl(key)) tracker.filtered! += 1;
    if (verdict === 'other-side' && (isFirst || !this.skipsValue)) progress.keptRows += 1;
    if (verdict !== 'carried') {
      this.skipsValue = true;
      return;
    }
    // The first piece of a value decides for all: the time of expiry is the last one's.
    if (isFirst) this.skipsValue = expireAtMs !== null && expireAtMs - sourceNow() < config.minTtlMs;
    if (this.skipsValue) {
      if (!isFirst) return;
      this.leftOut.push({ db, key: Buffer.from(key), expireAtMs: expireAtMs! });
      if (this.leftOut.length >= this.mostLeftOut) {
        this.leftOut = this.leftOutAlive();
        this.mostLeftOut = Math.max(LEFT_OUT_AT_ONCE, 2 * this.leftOut.length);
      }
      this.writer.command('UNLINK', key);
      this.count += 1;
      return;
    }
    if (isFirst) {
      this.seen?.add(db, key);
      progress.writtenRows += 1;
    }
    if (event.kind === 'value') {
      event.writeTo(this.writer);
      this.count += 1;
      return;
    }
    const refusal = this.tooLarge(event);
    if (refusal !== null) {
      // What was made of it is not given its name: the target keeps what it has.
      this.skipsValue = true;
      progress.writtenRows -= 1;
      this.putAside(printable(key), refusal);
      return;
    }
    for (const command of event.commands) this.writeCommand(command, key);
    this.seal();
  }

  /** Why the target cannot take this piece, and so not the value; null: it can. */
  private tooLarge(piece: DecodedValue): string | null {
    const { limits } = this.parts;
    this.stringBytes = (piece.first ? 0 : this.stringBytes) + stringBytes(piece);
    const most = Math.max(this.stringBytes, longestArgument(piece));
    return most > limits.argumentBytes ? tooLarge(most, limits) : null;
  }
  private stringBytes = 0;

  /** What makes a value of several pieces stays in the block, whoever owns its key by then: only that it gets its name does not. */
  private writeCommand(command: readonly Argument[], key: Buffer): void {
    const [name, first] = command;
    const isPiece = first === this.pieceKey && !(name as Buffer).equals(RENAME);
    if (isPiece !== this.writesPiece) this.seal();
    this.writesPiece = isPiece;
    if (isPiece) {
      this.pieceDatabases.add(this.db);
      this.piecesOf.add(printable(key));
    }
    if (command.every((one): one is Buffer => !(one instanceof SpooledBytes))) {
      this.writer.command(...command);
      this.count += 1;
      return;
    }
    this.seal();
    this.block.commands.addParts(partsOf(command), 1, this.db, true);
  }
  private writesPiece = false;

  private removePieces(databases: Iterable<number>): void {
    this.seal();
    const { db } = this;
    for (this.db of databases) {
      this.writer.command('UNLINK', this.pieceKey);
      this.count += 1;
      this.seal();
    }
    this.db = db;
  }

  /** What the writer has becomes a part of the block. */
  private seal(): void {
    if (this.count > 0)
      this.block.commands.addParts(this.writer.take(), this.count, this.db, this.writesPiece);
    this.count = 0;
    this.writesPiece = false;
  }

  /** Sends the block when the one before is on its way. */
  private async flush(): Promise<void> {
    this.seal();
    const { block, parts } = this;
    if (!block.hasEffect) return;
    this.block = new Block();
    block.endOffset = parts.resync.offset;
    block.rows = block.commands.count;
    const waitMs = parts.pace?.waitMs(block.rows, block.commands.bytes, performance.now()) ?? 0;
    if (waitMs > 0) await pause(waitMs, parts.signal);
    const { resync, prune } = parts;
    const { judgedBy, piecesOf } = this;
    this.piecesOf = new Set();
    this.judgedBy = this.unitsDigest;
    await Promise.race([this.inFlight, parts.failed]);
    const fields: Partial<RedisCheckpoint> = { phase: 'syncing', replid: resync.replid, prune };
    this.inFlight = this.write(block, fields, judgedBy).then(({ refusals, unread }) => {
      for (const { record } of refusals) {
        const isPiece = record.key === copyKey(this.parts.config.link);
        this.putAside(isPiece ? [...piecesOf].join(', ') : record.key, record.detail!);
      }
      if (unread?.isNamed) this.block.settled.push(unread.id);
      parts.tracker.rows += block.rows;
      this.showRate();
    });
    this.inFlight.catch(() => undefined);
  }

  /**
   * Writes a block when the one before is done. Hazard: a unit opens on the target while the copy runs, and what was read of it here is older than
   * what its owner writes there. Guard: the target's units are watched with the checkpoint; when they have changed, EXEC does nothing, and
   * the keys of what is open now are taken out.
   */
  async write(block: Block, fields: Partial<RedisCheckpoint>, judgedBy = this.judgedBy): Promise<Applied> {
    const { applier, judge, failed } = this.parts;
    for (;;) {
      await Promise.race([applier.ready(), failed]);
      if (applier.unitsDigest !== judgedBy) {
        judgedBy = applier.unitsDigest;
        if (judgedBy !== this.unitsDigest) await this.readUnits(judgedBy);
        const kept = new Set<string>();
        block.commands.retain((command) => {
          const key = keyOfCopy(command);
          if (key === null || !judge.isOpenOnTarget(key)) return true;
          kept.add(key.toString('latin1'));
          return false;
        });
        this.progress.keptRows += kept.size;
      }
      try {
        return await Promise.race([applier.apply(block, fields).done, failed]);
      } catch (error) {
        if (!(error instanceof UnitsMoved)) throw error;
      }
    }
  }

  /** @param digest of a state that is not newer: a newer one fails the next EXEC */
  private async readUnits(digest: string): Promise<void> {
    const { judge, target } = this.parts;
    const states = pairs(await target.call('HGETALL', UNITS_KEY));
    judge.openOnTarget = new Set(
      states.filter(([, state]) => state.startsWith('open:')).map(([unit]) => unit),
    );
    this.unitsDigest = digest;
  }

  private putAside(key: string | null, detail: string): void {
    const record: QuarantineRecord = {
      id: `${this.parts.resync.offset}-sync-${this.progress.comparedRows}-${this.block.records.length}`,
      reason: 'refused',
      detail,
      command: 'restore',
      key,
      unit: null,
      db: this.db,
      bytes: null,
    };
    this.block.record(record);
  }

  private showRate(): void {
    const { progress } = this;
    const seconds = Math.max(Date.now() - this.startedAt, 1) / 1000;
    progress.rowsPerSecond = Math.round(progress.comparedRows / seconds);
    const left = progress.estimatedRows - progress.comparedRows;
    progress.etaSeconds =
      progress.rowsPerSecond > 0 ? Math.ceil(Math.max(left, 0) / progress.rowsPerSecond) : null;
  }

  /**
   * Keys of the target that the source owns and does not have: they were deleted while the link could not see it. They have to go before the stream goes on: a
   * command on one would add to what is old.
   */
  private async removeOthers(seen: KeySet): Promise<void> {
    const { config, judge, limits } = this.parts;
    const scanner = await RedisConnection.open(config.target, 'interlock-scan');
    try {
      for (let db = 0; db < limits.databases; db++) {
        if (!judge.filter.carriesDatabase(db)) continue;
        await scanner.call('SELECT', db);
        this.db = db;
        let cursor = '0';
        do {
          const reply = (await Promise.race([
            scanner.call('SCAN', cursor, 'COUNT', 1000),
            this.parts.failed,
          ])) as [Buffer, Buffer[]];
          cursor = reply[0].toString();
          for (const key of reply[1]) {
            if (seen.has(db, key) || !judge.isSources(key)) continue;
            this.writer.command('UNLINK', key);
            this.count += 1;
            this.progress.removedRows += 1;
          }
          if (this.count >= BLOCK_KEYS) await this.flush();
        } while (cursor !== '0');
        this.seal();
      }
      await this.flush();
    } finally {
      scanner.destroy();
    }
  }
}

/** The command as the bytes of a request. */
function partsOf(command: readonly Argument[]): Argument[] {
  const parts: Argument[] = [Buffer.from(`*${command.length}\r\n`)];
  for (const argument of command) parts.push(Buffer.from(`$${argument.length}\r\n`), argument, CRLF);
  return parts;
}
