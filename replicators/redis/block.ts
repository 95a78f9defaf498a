import type { UnitId } from '../../src/routing/units.js';
import type { StreamPlace } from './checkpoint.js';
import { encodeCommand } from './connection.js';
import type { Marker } from './markers.js';
import type { QuarantineRecord } from './quarantine.js';
import { CommandReader } from './resp/command-reader.js';
import type { Bytes, StreamCommand } from './resp/command-reader.js';
import { PIECE_BYTES, Spool, SpooledBytes } from './spool.js';

interface Range {
  data: Bytes;
  start: number;
  end: number;
  /** Of `end` in the source's stream; null: these bytes are of the link's own making. */
  endOffset: number | null;
  /** See `addParts`. */
  isFixed?: true;
}

export interface Picked {
  command: StreamCommand;
  /** Of its last byte in the source's stream; null: it is of the link's own making. */
  offset: number | null;
  db: number;
}

/** So many commands back, what gave a key its value is found when a later one gives it a short life. */
const RECENT = 64;

/** A command that gives a key another end of its life. */
export interface Prolonged {
  db: number;
  key: Buffer;
  /** Its number among the commands. */
  at: number;
}

/**
 * Commands for the target, as the bytes that came from the source: those that follow each other there go on as one slice.
 */
export class CommandBytes {
  count = 0;
  bytes = 0;
  /** What its parts keep in memory: the chunks that they are slices of. */
  heldBytes = 0;
  private ranges: Range[] = [];
  prolonged: Prolonged[] = [];
  private readonly recent: ({ command: StreamCommand; db: number; at: number } | undefined)[] = [];
  private recentCount = 0;
  /** That the commands so far leave selected. */
  private selected = 0;

  add(command: StreamCommand, db: number): void {
    this.select(db);
    const { data, start, end, endOffset } = command;
    const last = this.ranges[this.ranges.length - 1];
    if (
      last !== undefined &&
      last.end === start &&
      last.data === data &&
      last.endOffset === endOffset - (end - start)
    ) {
      last.end = end;
      last.endOffset = endOffset;
    } else {
      if (data instanceof Buffer && last?.data !== data) this.heldBytes += data.length;
      this.ranges.push({ data, start, end, endOffset });
    }
    this.count += 1;
    this.bytes += end - start;
    this.note(command, db);
  }

  /** Of the command that was added last. */
  prolongs(key: Buffer, db: number): void {
    this.prolonged.push({ db, key, at: this.count - 1 });
  }

  /** Of the link's own making: not among `latest`. */
  addRaw(raw: Buffer, db: number): void {
    this.select(db);
    this.own(raw);
    this.count += 1;
  }

  /** As `addRaw`: a command of `name` with some of another's arguments, by their numbers in rising order. */
  addArguments(name: string, command: StreamCommand, indexes: readonly number[], db: number): void {
    this.select(db);
    this.own(Buffer.from(`*${indexes.length + 1}\r\n$${name.length}\r\n${name}\r\n`));
    const { data } = command;
    for (let i = 0; i < indexes.length;) {
      const first = i;
      do i += 1;
      while (i < indexes.length && indexes[i] === indexes[i - 1]! + 1);
      const { start, end } = command.range(indexes[first]!, indexes[i - 1]!);
      this.ranges.push({ data, start, end, endOffset: null });
      this.bytes += end - start;
    }
    if (data instanceof Buffer) this.heldBytes += data.length;
    this.count += 1;
  }

  /** Behind what is there. `other` began with database 0 selected. */
  merge(other: CommandBytes): void {
    if (other.count === 0) return;
    this.select(0);
    for (const range of other.ranges) this.ranges.push(range);
    for (const one of other.prolonged) this.prolonged.push({ ...one, at: this.count + one.at });
    this.count += other.count;
    this.bytes += other.bytes;
    this.heldBytes += other.heldBytes;
    this.selected = other.selected;
    this.recentCount = 0;
  }

  /** The last commands that were added, the latest first. */
  *latest(): Generator<{ command: StreamCommand; db: number }> {
    for (let i = this.recentCount - 1; i >= Math.max(0, this.recentCount - RECENT); i--)
      if (this.recent[i % RECENT] !== undefined) yield this.recent[i % RECENT]!;
  }

  /** One of `latest`, whatever became of it here. */
  note(command: StreamCommand, db: number): void {
    this.recent[this.recentCount++ % RECENT] = { command, db, at: this.count - 1 };
  }

  /** What `latest` says of a key is no longer what was done. */
  forget(key: Buffer, db: number): void {
    for (const [i, one] of this.recent.entries())
      if (one !== undefined && one.db === db && one.command.argc > 1 && one.command.arg(1).equals(key))
        this.recent[i] = undefined;
  }

  /** What comes next does not follow these commands: the target's own come in between. */
  forgetLatest(): void {
    this.recentCount = 0;
  }

  /** Lets go of all bytes; `latest` stays. */
  drop(): void {
    this.ranges = [];
    this.prolonged = [];
    this.count = 0;
    this.bytes = 0;
    this.heldBytes = 0;
    this.selected = 0;
  }

  /** Moves what is in memory to the disk. There are no `latest` then: `remove` would not find them. */
  spill(spool: Spool): void {
    const ranges: Range[] = [];
    for (const range of this.ranges) {
      const { data, start, end, endOffset } = range;
      if (!(data instanceof Buffer)) {
        ranges.push(range);
        continue;
      }
      const at = spool.append(data.subarray(start, end));
      const last = ranges[ranges.length - 1];
      const length = end - start;
      const follows =
        last?.data === spool &&
        last.end === at &&
        (endOffset === null ? last.endOffset === null : last.endOffset === endOffset - length);
      if (follows) Object.assign(last, { end: at + length, endOffset });
      else ranges.push({ data: spool, start: at, end: at + length, endOffset });
    }
    this.ranges = ranges;
    this.heldBytes = 0;
    this.recentCount = 0;
  }

  /** Takes out one of `latest`. */
  remove(command: StreamCommand): void {
    const { data, start, end } = command;
    for (let i = this.ranges.length - 1; i >= 0; i--) {
      const range = this.ranges[i]!;
      if (range.data !== data || range.start > start || range.end < end) continue;
      const parts = [
        { data, start: range.start, end: start, endOffset: command.endOffset - (end - start) },
        { data, start: end, end: range.end, endOffset: range.endOffset },
      ].filter((part) => part.end > part.start);
      this.ranges.splice(i, 1, ...parts);
      this.bytes -= end - start;
      this.count -= 1;
      const removed = this.recent.find((one) => one?.command === command)!.at;
      for (const one of this.recent) if (one !== undefined && one.at > removed) one.at -= 1;
      this.prolonged = this.prolonged.filter(({ at: number }) => number !== removed);
      for (const one of this.prolonged) if (one.at > removed) one.at -= 1;
      return;
    }
  }

  /** Takes out what is not kept. Only for commands of the link's own making: they have no offsets. */
  retain(keeps: (command: StreamCommand) => boolean): void {
    const reader = new CommandReader();
    const ranges: Range[] = [];
    for (const range of this.ranges) {
      if (range.isFixed) {
        ranges.push(range);
        continue;
      }
      const { data, start, end } = range;
      for (const command of reader.push(data.subarray(start, end))) {
        if (keeps(command)) {
          ranges.push({ data: command.data, start: command.start, end: command.end, endOffset: null });
          continue;
        }
        this.count -= 1;
        this.bytes -= command.bytes;
      }
    }
    this.ranges = ranges;
  }

  /** Bytes that are whole commands together. @param isFixed `retain` keeps them */
  addParts(parts: readonly (Buffer | SpooledBytes)[], count: number, db: number, isFixed = false): void {
    this.select(db);
    for (const part of parts) {
      const range: Range =
        part instanceof SpooledBytes
          ? { data: part.spool, start: part.start, end: part.end, endOffset: null }
          : { data: part, start: 0, end: part.length, endOffset: null };
      if (isFixed) range.isFixed = true;
      this.ranges.push(range);
      this.bytes += part.length;
    }
    this.count += count;
  }

  /**
   * The commands of these numbers (in rising order), with what the source's stream says of each.
   * @param spool takes those that are large
   */
  *pick(indexes: Iterable<number>, spool: Spool): Generator<Picked> {
    const wanted = indexes[Symbol.iterator]();
    let next = wanted.next();
    const reader = new CommandReader(spool);
    let index = 0;
    let db = 0;
    let read = 0;
    for (const range of this.ranges) {
      const { endOffset } = range;
      read += range.end - range.start;
      for (const piece of pieces(range))
        for (const command of reader.push(piece)) {
          if (next.done === true) return;
          if (index === next.value) {
            yield { command, offset: endOffset === null ? null : endOffset - (read - command.endOffset), db };
            next = wanted.next();
          }
          if (endOffset === null && command.name === 'select') db = Number(command.arg(1).toString('latin1'));
          index += 1;
        }
    }
  }

  /** The bytes, in order. Database 0 is selected again behind them: the auxiliary key lies there. */
  take(): { parts: (Buffer | SpooledBytes)[]; count: number } {
    this.select(0);
    return {
      parts: this.ranges.map(({ data, start, end }) =>
        data instanceof Spool ? new SpooledBytes(data, start, end) : data.subarray(start, end),
      ),
      count: this.count,
    };
  }

  /** They are on the target: their place on the disk is given back. */
  release(): void {
    for (const { data, end } of this.ranges) if (data instanceof Spool) data.release(end);
  }

  private select(db: number): void {
    if (this.selected === db) return;
    this.selected = db;
    this.own(encodeCommand(['SELECT', db]));
    this.count += 1;
  }

  private own(raw: Buffer): void {
    this.ranges.push({ data: raw, start: 0, end: raw.length, endOffset: null });
    this.bytes += raw.length;
    this.heldBytes += raw.length;
  }
}

function* pieces({ data, start, end }: Range): Generator<Buffer> {
  if (data instanceof Buffer) yield data.subarray(start, end);
  else
    for (let at = start; at < end; at += PIECE_BYTES)
      yield data.subarray(at, Math.min(at + PIECE_BYTES, end));
}

const MOST_RECORD_BYTES = 4 * 1024 * 1024;
/** Of one, without its command. */
const RECORD_BYTES = 256;

/** What the source has sent, up to a place where it may be cut, as one transaction of the target. */
export class Block {
  /** Of the commands in `records`. */
  recordBytes = 0;
  /** The source's, that are applied with it. */
  rows = 0;
  transactions = 0;
  readonly rowsByDb = new Map<number, number>();
  /** Everything up to here is in this block or was left out. */
  endOffset: number;
  /** Selected in the source's stream behind `endOffset`. */
  db: number;
  /** As in the checkpoint. */
  rereadFrom: StreamPlace | null = null;
  /** null: the unit is gone. */
  readonly units = new Map<UnitId, string | null>();
  unitsCleared = false;
  readonly markers: Marker[] = [];
  readonly records: QuarantineRecord[] = [];
  readonly log: QuarantineRecord[] = [];
  /** Records that do not stop the link: keys that could not be mended. */
  readonly unmended: QuarantineRecord[] = [];
  /** Names of keys that have to be mended, and of those that are: see `Mends`. */
  readonly mendsDue: Buffer[] = [];
  readonly mendsDone: Buffer[] = [];
  /** Those of before are of no account: all was copied. */
  mendsCleared = false;
  /** As in the checkpoint. */
  answersFrom: StreamPlace | null = null;
  heldMarker: Marker | null = null;
  /** Ids of records that `records` replaces. */
  readonly settled: string[] = [];

  /** @param start what was read before is in the blocks before */
  constructor(
    readonly start: StreamPlace = { offset: 0, db: 0 },
    readonly commands = new CommandBytes(),
  ) {
    this.endOffset = start.offset;
    this.db = start.db;
  }

  /** Hazard: a transaction may have any number of them. Guard: with so many, the others are without the command's bytes. */
  record(record: QuarantineRecord): void {
    if (this.recordBytes > MOST_RECORD_BYTES) record.bytes = null;
    this.recordBytes += RECORD_BYTES + (record.bytes?.length ?? 0);
    this.records.push(record);
  }

  /** Whether the target has to be told. */
  get hasEffect(): boolean {
    return (
      this.commands.count > 0 ||
      this.units.size > 0 ||
      this.unitsCleared ||
      this.markers.length > 0 ||
      this.records.length > 0 ||
      this.settled.length > 0 ||
      this.unmended.length > 0 ||
      this.mendsDue.length > 0 ||
      this.mendsDone.length > 0 ||
      this.log.length > 0
    );
  }
}
