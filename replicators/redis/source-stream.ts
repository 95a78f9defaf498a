import { Block, CommandBytes } from './block.js';
import { randomUUID } from 'node:crypto';
import { InterlockError } from '../../src/errors.js';
import { NOBODY } from '../core/contract.js';
import { LINK_KEY_PREFIX } from './checkpoint.js';
import type { StreamPlace } from './checkpoint.js';
import { otherDatabase, readsOthers } from './commands.js';
import type { CommandSpec, CommandTable } from './commands.js';
import { encodeCommand } from './connection.js';
import { isControl } from './judge.js';
import type { Judge, KeyVerdict } from './judge.js';
import type { RedisLinkConfig } from './link-config.js';
import { MARKER_BYTES, MARKER_KEY, PASSAGE_KEY, markerOf } from './markers.js';
import type { Marker } from './markers.js';
import type { MendedKey, Mends } from './mends.js';
import { writeMended } from './mended-value.js';
import { UNITS_KEY } from './ownership.js';
import type { Ownership } from './ownership.js';
import { printable, recordOf } from './quarantine.js';
import type { QuarantineReason } from './quarantine.js';
import type { StreamCommand } from './resp/command-reader.js';
import { CommandWriter } from './resp/command-writer.js';
import type { ShortLived } from './short-lived.js';
import { Spool } from './spool.js';
import { tooLarge } from './target-limits.js';
import type { TargetLimits } from './target-limits.js';

const REPAIR = '`interlock verify redis --repair` finds what differs and mends it';

/** Of a transaction, so much is in memory. */
const UNIT_BYTES = 8 * 1024 * 1024;
/** Conflicts that the policy decides are logged; a flood of them must not become one on the target. */
const LOGGED_PER_BLOCK = 100;

export interface StreamCounts {
  /** Of the source, without those of the other side. */
  commands: number;
  transactions: number;
  /** Blocks of the other side. */
  foreign: number;
  /** Commands that a filter or the policy for keys without a unit left out. */
  filtered: number;
  /** Deletions of units that the source did not own. */
  lateDeletions: number;
  conflicts: number;
}

export function noCounts(): StreamCounts {
  return { commands: 0, transactions: 0, foreign: 0, filtered: 0, lateDeletions: 0, conflicts: 0 };
}

/** What an attempt before has left. */
export interface StreamBegin {
  /** Up to here everything is applied: what is read before it is only remembered. */
  appliedTo: number;
  /** From here on nobody has noted what the target answered: see `RedisCheckpoint`. */
  answersFrom: number;
  heldMarker: Marker | null;
}

/**
 * The source's commands in their order, as blocks for the target. A transaction of the source (a script's effects are one) is never split; those of
 * the other side, which begin with a link's auxiliary key, are left out.
 */
export class SourceStream {
  block: Block;
  readonly counts = noCounts();
  /** A GETACK has come: the source wants to know how far it is. */
  wantsAck = false;
  /** That the source's stream has selected. */
  private db: number;
  /** The commands of a transaction that has not ended. */
  private unit: CommandBytes | null = null;
  private unitRows = 0;
  private isForeign = false;
  private unitBegins = false;
  /** What of a transaction is too large for memory. */
  private readonly spool = new Spool('a large transaction cannot be kept');
  private lastId = { id: '', times: 0 };
  /** Markers that wait for keys that are wrong on the target, with their places. */
  private readonly held: { marker: Marker; at: number }[] = [];
  /** Blocks that prolong keys, and whose answers have not come. */
  private readonly unanswered: { start: StreamPlace; end: number }[] = [];
  /** The mark of values that were asked for is here: they are written before anything behind it. */
  private isAtMark = false;
  /** Where the reader's offsets begin. */
  readonly base: number;

  constructor(
    private readonly config: RedisLinkConfig,
    private readonly table: CommandTable,
    private readonly judge: Judge,
    private readonly ownership: Ownership,
    private readonly shortLived: ShortLived,
    from: StreamPlace,
    readonly target: TargetLimits,
    private readonly mends: Mends,
    private readonly begin: StreamBegin = { appliedTo: from.offset, answersFrom: Infinity, heldMarker: null },
    /** What the target refused to take before EXEC: offset in the source's stream → its words. */
    private readonly refused: ReadonlyMap<number, string> = new Map(),
  ) {
    if (begin.heldMarker !== null) this.held.push({ marker: begin.heldMarker, at: begin.appliedTo });
    this.db = from.db;
    this.base = from.offset;
    this.block = new Block(from);
  }

  /** What is read was applied by an attempt before. */
  get isRereading(): boolean {
    return this.block.endOffset < this.begin.appliedTo;
  }

  /** Nothing of a transaction is under way: the block may be written. */
  get isWhole(): boolean {
    return this.unit === null;
  }

  /** Nothing more may come into this block: what was put aside has to be seen first, or a value is to be written at this place. */
  get isCut(): boolean {
    if (this.unit !== null) return false;
    return this.isAtMark || (this.config.onQuarantine === 'stop' && this.block.records.length > 0);
  }

  /**
   * The block so far; the next command begins a new one.
   * @throws InterlockError LinkStopped: the target would close the connection at it, again and again
   */
  takeBlock(): Block {
    const { block, target, config } = this;
    const { bytes } = block.commands;
    if (bytes > target.transactionBytes)
      throw new InterlockError(
        'LinkStopped',
        `${config.link} stopped at ${block.start.offset}: a transaction of the source has ${bytes} bytes, and the target takes ${target.transactionBytes} (client-query-buffer-limit). CONFIG SET it in ${config.to} as in ${config.from}, then start the link: it goes on with that transaction`,
        { details: { link: config.link, bytes } },
      );
    block.rereadFrom = this.shortLived.oldest();
    if (block.commands.prolonged.length > 0)
      this.unanswered.push({ start: block.start, end: block.endOffset });
    block.answersFrom = this.unanswered[0]?.start ?? null;
    block.heldMarker = this.held.at(-1)?.marker ?? null;
    this.block = new Block({ offset: block.endOffset, db: block.db });
    return block;
  }

  /** Frees the disk. */
  close(): void {
    this.spool.close();
  }

  take(command: StreamCommand): void {
    if (this.isRereading) this.reread(command);
    else this.takeNext(command);
  }

  /**
   * Hazard: what an attempt before has left out was in its memory only; a command that makes such a key live longer would find nothing on the target.
   * Guard: it is read again into memory. Time has passed: more may be left out now than then, so what is in memory is removed from the target.
   */
  private reread(command: StreamCommand): void {
    const counts = { ...this.counts };
    this.takeNext(command);
    Object.assign(this.counts, counts);
    if (this.unit !== null) return;
    const { endOffset, db, start, commands } = this.block;
    const isLast = !this.isRereading;
    commands.release();
    commands.drop();
    this.block = isLast ? new Block({ offset: endOffset, db }) : new Block(start, commands);
    Object.assign(this.block, { endOffset, db });
    if (!isLast) return;
    this.answered(endOffset);
    for (const { key, db: itsDb } of this.shortLived.all()) {
      if (this.judge.keyVerdict(key, true) === 'carried')
        this.block.commands.addRaw(encodeCommand(['UNLINK', key]), itsDb);
      else this.shortLived.gone(key, itsDb);
    }
  }

  private takeNext(command: StreamCommand): void {
    const name = command.name;
    switch (name) {
      case 'select':
        this.db = Number(command.arg(1).toString('latin1'));
        break;
      case 'ping':
        break;
      case 'replconf':
        this.wantsAck ||= command.argc > 1 && command.arg(1).toString('latin1').toLowerCase() === 'getack';
        break;
      case 'multi':
        this.unit = new CommandBytes();
        this.unitRows = 0;
        this.unitBegins = true;
        break;
      case 'exec':
        this.endUnit();
        break;
      default:
        if (!this.isForeign) this.takeWrite(name, command);
        else if (!this.shortLived.isEmpty) this.takeForeign(name, command);
    }
    if (this.unit !== null) {
      if (this.unit.heldBytes > UNIT_BYTES) this.unit.spill(this.spool);
      return;
    }
    this.block.endOffset = this.base + command.endOffset;
    this.block.db = this.db;
    if (this.isAtMark) this.mend();
  }

  /** Everything up to `offset` is applied, and `mends` has what the target's answers said. */
  answered(offset: number): void {
    const { unanswered, block, mends } = this;
    while (unanswered[0] !== undefined && unanswered[0].end <= offset) unanswered.shift();
    block.mendsDue.push(...mends.takeFresh());
    while (this.held[0] !== undefined && this.held[0].at <= offset && mends.oldest >= this.held[0].at)
      block.markers.push(this.held.shift()!.marker);
  }

  /** Writes the values that were asked for, at their mark. */
  mend(): void {
    const { mends, shortLived, block, target, judge } = this;
    const { values } = mends;
    if (!this.isAtMark || values === undefined) return;
    this.isAtMark = false;
    const writer = new CommandWriter();
    for (const value of values) {
      const { key, db, payload } = value;
      const isDraining = this.held.length > 0;
      if (db >= target.databases || !judge.carriesValue(key, db, payload === null, isDraining)) continue;
      // What is left out of it is still to come.
      if (mends.isLeftOut(key, db)) shortLived.gone(key, db);
      else if (shortLived.has(key, db)) continue;
      block.commands.forget(key, db);
      const written = writeMended(writer, value, target);
      if (typeof written === 'number') block.commands.addParts(writer.take(), written, db);
      else this.unmended(value, written);
    }
    block.mendsDone.push(...mends.settle());
  }

  /** The values that were asked for do not come: they are asked for again. */
  askAgain(): void {
    this.isAtMark = false;
    this.mends.putBack();
  }

  /** They never come. */
  abandon(why: string): void {
    this.isAtMark = false;
    const names = this.mends.settle();
    this.block.mendsDone.push(...names);
    this.unmended(null, `${names.length} keys were to be taken from the source again: ${why}`);
  }

  /** A key cannot be mended: a person has to look. */
  unmended(key: { db: number; key: Buffer } | null, detail: string, whatToDo = REPAIR): void {
    const { block } = this;
    block.unmended.push({
      id: `${block.endOffset}-unmended-${randomUUID()}`,
      reason: 'unmended',
      detail: `${detail}; ${whatToDo}`,
      command: 'restore',
      key: key === null ? null : printable(key.key),
      unit: key === null ? null : (this.judge.unitOf(key.key) ?? null),
      db: key?.db ?? 0,
      bytes: null,
    });
  }

  private endUnit(): void {
    const { unit, block } = this;
    this.unit = null;
    if (this.isForeign) this.isForeign = false;
    else {
      block.commands.merge(unit!);
      if (this.unitRows > 0) {
        block.transactions += 1;
        this.counts.transactions += 1;
      }
    }
  }

  private takeWrite(name: string, command: StreamCommand): void {
    const spec = this.table.of(name);
    if (this.db === 0 && this.isAuxiliary(spec, command)) {
      if (this.unit === null || this.unitBegins) {
        this.counts.foreign += 1;
        this.isForeign = this.unit !== null;
        this.block.commands.forgetLatest();
        return;
      }
    }
    this.unitBegins = false;
    if (spec.kind === 'cache') return;
    if (spec.kind === 'whole') return this.takeWhole(name, command);
    if (this.db >= this.target.databases && this.judge.filter.carriesDatabase(this.db))
      return this.record(
        'refused',
        command,
        this.firstKey(spec, command),
        `the target has no database ${this.db}`,
      );
    if (this.refused.size > 0) {
      const words = this.refused.get(this.base + command.endOffset);
      if (words !== undefined) return this.record('refused', command, this.firstKey(spec, command), words);
    }
    if (!this.judge.filter.carriesDatabase(this.db) && !this.isOurs(spec, command)) {
      // The target does not have what the source moves or copies into a database that is carried.
      if (spec.kind === 'across' && this.judge.filter.carriesDatabase(otherDatabase(command) ?? this.db))
        return this.record('split', command, this.firstKey(spec, command));
      this.counts.filtered += 1;
      return;
    }
    switch (spec.kind) {
      case 'keyless':
      case 'unknown':
        if (!this.judge.filter.carriesCommand(name)) this.counts.filtered += 1;
        else if (spec.kind === 'unknown') this.record('unknown-command', command, null);
        else if (this.isTooLarge(spec, command)) return;
        else if (name === 'function') this.takeFunction(command);
        else this.carry(command);
        return;
      case 'across':
        return this.takeAcross(name, spec, command);
      case 'write':
      case 'delete':
        this.takeKeys(name, spec, command);
    }
  }

  /** The target may have functions of its own: what would take them all away leaves them there. */
  private takeFunction(command: StreamCommand): void {
    const word = (index: number): string => command.arg(index).toString('latin1').toLowerCase();
    const what = word(1);
    if (what === 'flush') this.counts.filtered += 1;
    else if (what === 'restore' && command.argc > 3 && word(3) === 'flush')
      this.carryAs(command, encodeCommand(['FUNCTION', 'RESTORE', command.arg(2), 'REPLACE']));
    else this.carry(command);
  }

  private takeAcross(name: string, spec: CommandSpec, command: StreamCommand): void {
    const to = otherDatabase(command);
    if (to === null || this.judge.filter.carriesDatabase(to)) return this.takeKeys(name, spec, command);
    const key = command.arg(1);
    const verdict = this.judge.keyVerdict(key, true);
    if (name === 'copy' || !this.judge.filter.carriesCommand(name)) this.counts.filtered += 1;
    else if (verdict !== 'carried') this.takeAlike(name, spec, command, verdict);
    // It leaves what is carried.
    else this.carryPart('UNLINK', command, this.shortLived.gone(key, this.db) ? [] : [1]);
  }

  /** The target has written these keys after what was left out of them: nothing that is older may come back over it. */
  private takeForeign(name: string, command: StreamCommand): void {
    for (const index of this.table.of(name).keysOf(command))
      this.shortLived.gone(command.arg(index), this.db);
  }

  private takeKeys(name: string, spec: CommandSpec, command: StreamCommand): void {
    if (!this.judge.filter.carriesCommand(name) && !this.isOurs(spec, command)) {
      this.counts.filtered += 1;
      return;
    }
    if (spec.prolongs && this.isRereading && this.base + command.endOffset > this.begin.answersFrom)
      this.mends.add(command.arg(1), this.db, this.begin.answersFrom);
    if (name === 'sort' && readsOthers(command)) return this.takeSort(name, spec, command);
    const verdict = this.judge.verdict(spec, command);
    if (verdict === 'mixed') return this.takeMixed(name, spec, command);
    this.takeAlike(name, spec, command, verdict);
  }

  /** Hazard: the target may not have the keys that SORT reads by pattern. Guard: what it stores is taken from the source. */
  private takeSort(name: string, spec: CommandSpec, command: StreamCommand): void {
    const stored = command.arg(spec.keysOf(command).at(-1)!);
    const verdict = this.judge.keyVerdict(stored, false);
    if (verdict === 'carried') this.leaveOut(command, [{ key: stored, db: this.db }]);
    else if (verdict !== 'not-owned') this.takeAlike(name, spec, command, verdict);
    else if (this.conflict(command, stored)) this.record('split', command, stored);
  }

  /** The keys that a command writes are taken from the source in its place. */
  private leaveOut(command: StreamCommand, keys: readonly MendedKey[]): void {
    this.count();
    // The attempt before has noted them.
    if (this.isRereading) return;
    const { mends, block } = this;
    for (const { key, db } of keys) {
      this.shortLived.gone(key, db);
      if (!mends.leaveOut(key, db, block.endOffset)) {
        this.record('split', command, key, 'too many keys are to be taken from the source again');
        break;
      }
    }
    block.mendsDue.push(...mends.takeFresh());
  }

  /** Whether the target does not have what the command needs; then its keys do not get it either. */
  private isLeftOut(name: string, spec: CommandSpec, command: StreamCommand): boolean {
    const { mends, db } = this;
    // What writes its keys anew, whatever was there, may be carried.
    if (mends.size === 0 || this.isRereading || spec.kind === 'delete' || name === 'mset') return false;
    const keys = spec.keysOf(command).map((index) => ({ key: command.arg(index), db }));
    if (spec.kind === 'across') keys.push({ key: keys.at(-1)!.key, db: otherDatabase(command) ?? db });
    if (!keys.some((one) => mends.isLeftOut(one.key, one.db))) return false;
    this.leaveOut(command, keys);
    return true;
  }

  private takeAlike(name: string, spec: CommandSpec, command: StreamCommand, verdict: KeyVerdict): void {
    switch (verdict) {
      case 'carried':
        if (this.isLeftOut(name, spec, command)) return;
        return this.carryKeys(name, spec, command);
      case 'control':
        return this.takeControl(name, command);
      case 'filtered':
      case 'unmapped':
        this.counts.filtered += 1;
        return;
      case 'late-deletion':
        this.counts.lateDeletions += 1;
        return;
      case 'not-owned':
        return this.takeConflict(name, spec, command);
    }
  }

  /** Hazard: at an argument above its limit, the target closes the connection; sent again, it does so for ever. Guard: it is put aside. */
  private isTooLarge(spec: CommandSpec, command: StreamCommand): boolean {
    const { target } = this;
    if (command.bytes <= target.argumentBytes) return false;
    let most = 0;
    for (let index = 0; index < command.argc; index++) most = Math.max(most, command.argBytes(index));
    if (most <= target.argumentBytes) return false;
    this.record('refused', command, this.firstKey(spec, command), tooLarge(most, target));
    return true;
  }

  private carryKeys(name: string, spec: CommandSpec, command: StreamCommand): void {
    if (this.isTooLarge(spec, command)) return;
    const into = this.unit ?? this.block.commands;
    const { onlyKey } = spec;
    if (spec.kind === 'across') this.needAcross(spec, command, into);
    if (onlyKey !== 0) {
      const { start } = this.block;
      if (this.shortLived.carries(name, command, command.arg(onlyKey), this.db, into, start)) {
        this.carry(command);
        if (spec.prolongs) into.prolongs(command.arg(onlyKey), this.db);
      } else this.count();
      return;
    }
    const keys = spec.keysOf(command).map((index) => command.arg(index));
    if (spec.kind === 'delete') {
      const there = spec
        .keysOf(command)
        .filter((index) => !this.shortLived.gone(command.arg(index), this.db));
      if (there.length === keys.length) this.carry(command);
      else this.carryPart(name, command, there);
      return;
    }
    this.shortLived.need(keys, this.db, into);
    this.carry(command);
  }

  private needAcross(spec: CommandSpec, command: StreamCommand, into: CommandBytes): void {
    const keys = spec.keysOf(command).map((index) => command.arg(index));
    const written = keys.at(-1)!;
    const to = otherDatabase(command) ?? this.db;
    this.shortLived.need(keys, this.db, into);
    this.shortLived.need([written], to, into);
    into.forget(written, to);
  }

  /** What can be split is; the parts are judged alone. */
  private takeMixed(name: string, spec: CommandSpec, command: StreamCommand): void {
    const deletes = spec.kind === 'delete';
    const splits = deletes || name === 'mset' || name === 'msetnx';
    if (!splits) return this.record('split', command, this.firstKey(spec, command));
    if (this.isTooLarge(spec, command)) return;
    const parts: number[] = [];
    for (const index of spec.keysOf(command)) {
      const key = command.arg(index);
      const verdict = this.judge.keyVerdict(key, deletes);
      const args = deletes ? [index] : [index, index + 1];
      if (verdict === 'carried') {
        if (!deletes) this.shortLived.need([key], this.db, this.unit ?? this.block.commands);
        if (!deletes || !this.shortLived.gone(key, this.db)) parts.push(...args);
      } else if (verdict === 'late-deletion') this.counts.lateDeletions += 1;
      else if (verdict === 'not-owned') {
        if (this.conflict(command, key)) parts.push(...args);
      } else if (verdict === 'control') this.takeControl(name, command);
      else this.counts.filtered += 1;
    }
    this.carryPart(deletes ? name : 'MSET', command, parts);
  }

  private takeConflict(name: string, spec: CommandSpec, command: StreamCommand): void {
    const key = this.firstKey(spec, command)!;
    if (this.conflict(command, key)) this.carryKeys(name, spec, command);
  }

  /** @returns whether the write is carried although */
  private conflict(command: StreamCommand, key: Buffer): boolean {
    const { conflicts } = this.config;
    this.counts.conflicts += 1;
    const record = recordOf('not-owned', command, { db: this.db, key, unit: this.judge.unitOf(key) });
    record.id = this.idOf(command);
    if (conflicts === 'quarantine') this.block.record(record);
    else if (this.block.log.length < LOGGED_PER_BLOCK) this.block.log.push(record);
    return conflicts === 'source-wins';
  }

  private firstKey(spec: CommandSpec, command: StreamCommand): Buffer | null {
    const [index] = spec.keysOf(command);
    return index === undefined ? null : command.arg(index);
  }

  private record(
    reason: QuarantineReason,
    command: StreamCommand,
    key: Buffer | null,
    detail?: string,
  ): void {
    const record = recordOf(reason, command, { db: this.db, key, ...(detail !== undefined && { detail }) });
    record.id = this.idOf(command);
    this.block.record(record);
  }

  private idOf(command: StreamCommand): string {
    const id = String(this.base + command.endOffset);
    const times = this.lastId.id === id ? this.lastId.times + 1 : 0;
    this.lastId = { id, times };
    return times === 0 ? id : `${id}-${times}`;
  }

  private carry(command: StreamCommand): void {
    (this.unit ?? this.block.commands).add(command, this.db);
    this.count();
  }

  /** Of a command of several keys, these arguments. */
  private carryPart(name: string, command: StreamCommand, indexes: readonly number[]): void {
    const into = this.unit ?? this.block.commands;
    if (indexes.length > 0) into.addArguments(name, command, indexes, this.db);
    into.note(command, this.db);
    this.count();
  }

  /** Another command in its place. */
  private carryAs(command: StreamCommand, raw: Buffer): void {
    const into = this.unit ?? this.block.commands;
    into.addRaw(raw, this.db);
    into.note(command, this.db);
    this.count();
  }

  private count(): void {
    const { block, db } = this;
    block.rows += 1;
    this.unitRows += 1;
    this.counts.commands += 1;
    block.rowsByDb.set(db, (block.rowsByDb.get(db) ?? 0) + 1);
    if (this.unit !== null) return;
    block.transactions += 1;
    this.counts.transactions += 1;
  }

  /** `SET interlock:link:…`: what a link writes first. */
  private isAuxiliary(spec: CommandSpec, command: StreamCommand): boolean {
    if (spec.onlyKey !== 1 || command.argc < 3) return false;
    const key = command.arg(1);
    return isControl(key) && key.toString('latin1', 0, LINK_KEY_PREFIX.length) === LINK_KEY_PREFIX;
  }

  /** FLUSHALL reaches every database, whichever is selected; SWAPDB those that it names. */
  private takeWhole(name: string, command: StreamCommand): void {
    const { filter } = this.judge;
    const databases =
      name === 'swapdb'
        ? command.args.slice(1).map((db) => Number(db.toString('latin1')))
        : name === 'flushdb'
          ? [this.db]
          : null;
    if (databases === null || databases.includes(0)) this.ownershipIsLost();
    const reaches = databases === null || databases.some((db) => filter.carriesDatabase(db));
    if (reaches && filter.carriesCommand(name)) this.record('whole-database', command, null);
    else this.counts.filtered += 1;
  }

  private isOurs(spec: CommandSpec, command: StreamCommand): boolean {
    return this.db === 0 && spec.keysOf(command).some((index) => isControl(command.arg(index)));
  }

  /** Interlock's own keys: what they say is taken in, and nothing is carried. */
  private takeControl(name: string, command: StreamCommand): void {
    if (this.db !== 0) return;
    const key = command.arg(1).toString('latin1');
    if (name === 'set' && (key === MARKER_KEY || key === PASSAGE_KEY)) {
      const marker = command.argBytes(2) > MARKER_BYTES ? null : markerOf(command.arg(2));
      if (marker !== null) this.takeMarker(marker, command);
      return;
    }
    const removes = name === 'del' || name === 'unlink';
    if (removes && command.args.slice(1).some((one) => one.toString('latin1') === UNITS_KEY))
      return this.ownershipIsLost();
    if (key !== UNITS_KEY) return;
    if (name === 'hset' || name === 'hmset') {
      for (let i = 2; i + 1 < command.argc; i += 2)
        this.setUnit(command.arg(i), command.arg(i + 1).toString());
    } else if (name === 'hsetnx') this.setUnit(command.arg(2), command.arg(3).toString());
    else if (name === 'hdel') {
      for (let i = 2; i < command.argc; i++) this.setUnit(command.arg(i), null);
    } else this.ownershipIsLost();
  }

  /** Hazard: a marker says that the target has all that was written before it. Guard: one waits until no key is known, or may yet be found, to be wrong. */
  private takeMarker(marker: Marker, command: StreamCommand): void {
    const { block, unit, mends, held } = this;
    if (this.isRereading) return;
    if (mends.meets(marker)) this.isAtMark = true;
    const mayBeWrong =
      held.length + mends.size + this.unanswered.length > 0 ||
      block.commands.prolonged.length + (unit?.prolonged.length ?? 0) > 0;
    if (marker.workflowId !== NOBODY && mayBeWrong) held.push({ marker, at: this.base + command.endOffset });
    else block.markers.push(marker);
  }

  private setUnit(field: Buffer, state: string | null): void {
    const unit = field.toString();
    if (unit.startsWith('#')) return;
    if (state === null) this.ownership.delete(unit);
    else this.ownership.set(unit, state);
    this.block.units.set(unit, state);
  }

  /** `interlock:units` is gone, or was written in a way that Interlock does not use: nobody owns anything until it is asserted again. */
  private ownershipIsLost(): void {
    this.ownership.clear();
    this.block.units.clear();
    this.block.unitsCleared = true;
  }
}
