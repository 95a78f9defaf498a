import type { UnitId } from '../../src/routing/units.js';
import type { StreamPlace } from './checkpoint.js';
import { encodeCommand } from './connection.js';
import type { QuarantineRecord } from './quarantine.js';
import { CommandReader } from './resp/command-reader.js';
import type { StreamCommand } from './resp/command-reader.js';

interface Range {
  data: Buffer;
  start: number;
  end: number;
  /** Of `end` in the source's stream; null: these bytes are of the link's own making. */
  endOffset: number | null;
}

/** So many commands back, what gave a key its value is found when a later one gives it a short life. */
const RECENT = 64;

/**
 * Commands for the target, as the bytes that came from the source: those that follow each other there go on as one slice.
 */
export class CommandBytes {
  count = 0;
  bytes = 0;
  private ranges: Range[] = [];
  private readonly recent: ({ command: StreamCommand; db: number } | undefined)[] = [];
  private recentCount = 0;
  /** That the commands so far leave selected. */
  private selected = 0;

  add(command: StreamCommand, db: number): void {
    this.select(db);
    const { data, start, end, endOffset } = command;
    const last = this.ranges[this.ranges.length - 1];
    if (last !== undefined && last.end === start && last.data === data) {
      last.end = end;
      last.endOffset = endOffset;
    } else this.ranges.push({ data, start, end, endOffset });
    this.count += 1;
    this.bytes += end - start;
    this.note(command, db);
  }

  /** Of the link's own making: not among `latest`. */
  addRaw(raw: Buffer, db: number): void {
    this.select(db);
    this.ranges.push({ data: raw, start: 0, end: raw.length, endOffset: null });
    this.count += 1;
    this.bytes += raw.length;
  }

  /** Behind what is there. `other` began with database 0 selected. */
  merge(other: CommandBytes): void {
    if (other.count === 0) return;
    this.select(0);
    this.ranges.push(...other.ranges);
    this.count += other.count;
    this.bytes += other.bytes;
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
    this.recent[this.recentCount++ % RECENT] = { command, db };
  }

  /** What `latest` says of a key is no longer what was done. */
  forget(key: Buffer, db: number): void {
    for (const [i, one] of this.recent.entries())
      if (one !== undefined && one.db === db && one.command.argc > 1 && one.command.arg(1).equals(key))
        this.recent[i] = undefined;
  }

  /** Lets go of all bytes; `latest` stays. */
  drop(): void {
    this.ranges = [];
    this.count = 0;
    this.bytes = 0;
    this.selected = 0;
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
      return;
    }
  }

  /**
   * Takes out what is not kept. Only for commands of the link's own making: they have no offsets.
   * @returns how many
   */
  retain(keeps: (command: StreamCommand) => boolean): number {
    const reader = new CommandReader();
    const before = this.count;
    const ranges: Range[] = [];
    for (const { data, start, end } of this.ranges)
      for (const command of reader.push(data.subarray(start, end))) {
        if (keeps(command)) {
          ranges.push({ data: command.data, start: command.start, end: command.end, endOffset: null });
          continue;
        }
        this.count -= 1;
        this.bytes -= command.bytes;
      }
    this.ranges = ranges;
    return before - this.count;
  }

  /** Bytes that are whole commands together. */
  addParts(parts: readonly Buffer[], count: number, db: number): void {
    this.select(db);
    for (const data of parts) {
      this.ranges.push({ data, start: 0, end: data.length, endOffset: null });
      this.bytes += data.length;
    }
    this.count += count;
  }

  /** The command number `index`, with what the source's stream says of it. */
  at(index: number): { command: StreamCommand; offset: number | null; db: number } {
    const reader = new CommandReader();
    let left = index;
    let db = 0;
    let read = 0;
    for (const { data, start, end, endOffset } of this.ranges) {
      read += end - start;
      for (const command of reader.push(data.subarray(start, end))) {
        if (left === 0) {
          const offset = endOffset === null ? null : endOffset - (read - command.endOffset);
          return { command, offset, db };
        }
        if (endOffset === null && command.name === 'select') db = Number(command.arg(1).toString('latin1'));
        left -= 1;
      }
    }
    throw new Error(`a block has no command number ${index}`);
  }

  /** Database 0 is selected again behind them: the auxiliary key lies there. */
  take(): { parts: Buffer[]; count: number } {
    this.select(0);
    return {
      parts: this.ranges.map(({ data, start, end }) => data.subarray(start, end)),
      count: this.count,
    };
  }

  private select(db: number): void {
    if (this.selected === db) return;
    this.selected = db;
    const raw = encodeCommand(['SELECT', db]);
    this.ranges.push({ data: raw, start: 0, end: raw.length, endOffset: null });
    this.count += 1;
    this.bytes += raw.length;
  }
}

export interface Marker {
  id: string;
  workflowId: string;
  runId: string;
}

/** What the source has sent, up to a place where it may be cut, as one transaction of the target. */
export class Block {
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

  /** Whether the target has to be told. */
  get hasEffect(): boolean {
    return (
      this.commands.count > 0 ||
      this.units.size > 0 ||
      this.unitsCleared ||
      this.markers.length > 0 ||
      this.records.length > 0 ||
      this.settled.length > 0 ||
      this.log.length > 0
    );
  }
}
