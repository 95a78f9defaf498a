import { InterlockError } from '../../../src/errors.js';
import type { Spool } from '../spool.js';
import { Accumulator } from './accumulator.js';
import { LargeCommand } from './large-command.js';

const ASTERISK = 0x2a;
const DOLLAR = 0x24;
const CR = 0x0d;
const LF = 0x0a;

/** `proto-max-bulk-len` of a server that is not configured otherwise. */
const MAX_BULK_BYTES = 512 * 1024 * 1024;
/** Of one command with all its arguments; a Buffer takes no more than 4 GB. */
const MAX_COMMAND_BYTES = 1024 * 1024 * 1024;
const MAX_ARGUMENTS = 2 ** 31 - 1;
/** A command that is larger is not gathered in memory, where there is a disk for it. */
const LARGE_BYTES = 4 * 1024 * 1024;
/** Digits of the largest number that a header may hold. */
const MAX_DIGITS = 10;

/** Bytes in memory, or on the worker's disk. */
export type Bytes = Buffer | Spool;

/**
 * One command of a stream. Its bytes are a slice of what arrived: commands that follow one another in `data` are forwarded with one slice from the
 * `start` of the first to the `end` of the last. Arguments are cut out only when they are asked for.
 */
export class StreamCommand {
  constructor(
    readonly data: Bytes,
    readonly start: number,
    readonly end: number,
    /** How many arguments, with the name. */
    readonly argc: number,
    /** Bytes of the stream up to the end of this command, since the reader was made: what the replication offset counts. */
    readonly endOffset: number,
    /** Where the arguments begin and end, from `start`: two numbers each, from `at`. Shared by the commands of a batch. */
    private readonly places: readonly number[],
    private readonly at: number,
  ) {}

  arg(index: number): Buffer {
    const at = this.at + 2 * index;
    return this.data.subarray(this.start + this.places[at]!, this.start + this.places[at + 1]!);
  }

  argBytes(index: number): number {
    const at = this.at + 2 * index;
    return this.places[at + 1]! - this.places[at]!;
  }

  /** Where arguments `from` to `to`, with their lengths, lie in `data`. */
  range(from: number, to: number): { start: number; end: number } {
    const { start, places } = this;
    const end = (index: number): number => start + places[this.at + 2 * index + 1]! + 2;
    return { start: end(from - 1), end: end(to) };
  }

  get args(): Buffer[] {
    return Array.from({ length: this.argc }, (_, index) => this.arg(index));
  }

  /** The command's name, in lower case. */
  get name(): string {
    const at = this.at;
    return this.data
      .toString('latin1', this.start + this.places[at]!, this.start + this.places[at + 1]!)
      .toLowerCase();
  }

  get raw(): Buffer {
    return this.data.subarray(this.start, this.end);
  }

  get bytes(): number {
    return this.end - this.start;
  }
}

/**
 * Reads the commands that a master sends to its replica: arrays of bulk strings, and `\n` between them to keep the connection alive. Any chunking
 * gives the same commands. What is no command is an InterlockError with the offset of the byte; the reader is of no use after it.
 */
export class CommandReader {
  private readonly pending = new Accumulator();
  /** Offset of the first byte of `pending.data`. */
  private base = 0;
  private places: number[] = [];
  /** The command under way: where its places begin, how many arguments it has (-1: not known yet), where reading goes on, from its start. */
  private at = 0;
  private argc = -1;
  private next = 0;
  /** Bytes that the command under way has at least. */
  private expected = 0;
  private large: LargeCommand | null = null;

  /** @param spool takes the bytes of large commands; null: they stay in memory */
  constructor(
    private readonly spool: Spool | null = null,
    private readonly limits = {
      bulkBytes: MAX_BULK_BYTES,
      commandBytes: MAX_COMMAND_BYTES,
      largeBytes: LARGE_BYTES,
    },
  ) {}

  /** Bytes of complete commands and of keep-alives so far. */
  get offset(): number {
    return this.base;
  }

  /** Bytes of a command that is not complete. */
  get pendingBytes(): number {
    return this.large?.bytes ?? this.pending.end;
  }

  /** The commands that are complete with this chunk. The chunk must not be written to afterwards. */
  push(chunk: Buffer): StreamCommand[] {
    const { pending } = this;
    const commands: StreamCommand[] = [];
    let rest = this.large === null ? chunk : this.pushLarge(chunk, commands);
    // What the chunks before began is completed with no more than it needs: what follows is read where it lies.
    while (pending.end > 0 && rest.length > 0) {
      const missing = Math.max(this.expected - pending.end, 1);
      pending.append(rest.subarray(0, missing), this.expected);
      rest = rest.subarray(missing);
      if (pending.end >= this.expected) this.read(commands);
      if (this.large !== null) rest = this.pushLarge(rest, commands);
    }
    if (rest.length > 0) {
      pending.append(rest);
      this.read(commands);
    }
    return commands;
  }

  /** @returns what is behind the large command */
  private pushLarge(chunk: Buffer, commands: StreamCommand[]): Buffer {
    const large = this.large!;
    const taken = large.push(chunk);
    if (large.isComplete) {
      const { start, bytes, argc, places } = large;
      this.base += bytes;
      commands.push(new StreamCommand(this.spool!, start, start + bytes, argc, this.base, places, 0));
      this.large = null;
    }
    return chunk.subarray(taken);
  }

  private read(commands: StreamCommand[]): void {
    const { data, end } = this.pending;
    let start = 0;
    for (;;) {
      if (this.argc < 0) {
        while (start < end && data[start] === LF) start += 1;
        if (start === end) break;
        if (data[start] !== ASTERISK) throw this.notACommand(start, data[start]!, 'a command (*)');
        const count = this.header(start, 0);
        if (count < 0) break;
        if (count === 0 || count > MAX_ARGUMENTS) throw this.bad(start, `a command of ${count} arguments`);
        this.argc = count;
        this.at = this.places.length;
      }
      if (!this.arguments(start)) break;
      const stop = start + this.next;
      commands.push(new StreamCommand(data, start, stop, this.argc, this.base + stop, this.places, this.at));
      this.argc = -1;
      this.next = 0;
      start = stop;
    }
    this.keep(start);
  }

  /** Keeps what is not complete. Places of the command under way move to a list of its own: the old one belongs to the batch. */
  private keep(start: number): void {
    if (this.argc >= 0 && this.spool !== null && this.expected > this.limits.largeBytes)
      return this.keepOnDisk(this.spool, start);
    if (this.argc < 0) {
      this.places = [];
      this.next = 0;
    } else if (this.at > 0) {
      this.places = this.places.slice(this.at);
    }
    this.at = 0;
    this.expected = this.argc < 0 ? 0 : this.expected;
    this.base += start;
    this.pending.keep(start);
  }

  private keepOnDisk(spool: Spool, start: number): void {
    const { data, end } = this.pending;
    this.base += start;
    this.large = new LargeCommand(spool, this.limits, (at, what) => this.bad(at, what));
    this.large.push(data.subarray(start, end));
    this.pending.keep(end);
    this.places = [];
    this.at = this.next = this.expected = 0;
    this.argc = -1;
  }

  /** Reads on in the arguments of the command at `start`; true when it is complete. */
  private arguments(start: number): boolean {
    const { data, end } = this.pending;
    const { places } = this;
    while (places.length - this.at < 2 * this.argc) {
      const at = start + this.next;
      if (at >= end) {
        this.expected = this.next + 1;
        return false;
      }
      if (data[at] !== DOLLAR) throw this.notACommand(at, data[at]!, 'an argument ($)');
      const before = this.next;
      const length = this.header(start, before);
      if (length < 0) return false;
      const from = this.next;
      const to = from + length;
      this.next = before;
      if (length > this.limits.bulkBytes) throw this.bad(at, `an argument of ${length} bytes`);
      if (to + 2 > this.limits.commandBytes) throw this.bad(start, `a command of more than ${to} bytes`);
      if (start + to + 2 > end) {
        this.expected = to + 2;
        return false;
      }
      if (data[start + to] !== CR || data[start + to + 1] !== LF) {
        throw this.bad(start + to, 'an argument that is longer than was said');
      }
      places.push(from, to);
      this.next = to + 2;
    }
    return true;
  }

  /** The number of a `*n` or `$n` line at `start + from`; -1 when the line is not complete. Moves `next` behind it. */
  private header(start: number, from: number): number {
    const { data, end } = this.pending;
    let at = start + from + 1;
    let value = 0;
    const limit = Math.min(end, at + MAX_DIGITS);
    for (; at < limit; at += 1) {
      const digit = data[at]! - 0x30;
      if (digit < 0 || digit > 9) break;
      value = value * 10 + digit;
    }
    if (at + 1 >= end) {
      if (at < end && data[at] !== CR) throw this.notACommand(at, data[at]!, 'the end of a number (\\r)');
      this.expected = at + 2 - start;
      return -1;
    }
    if (at === start + from + 1 || data[at] !== CR || data[at + 1] !== LF) {
      throw this.bad(start + from, 'a length that is no number');
    }
    this.next = at + 2 - start;
    return value;
  }

  private notACommand(at: number, byte: number, expected: string): InterlockError {
    return this.bad(at, `byte ${byte} where ${expected} begins`);
  }

  private bad(at: number, what: string): InterlockError {
    const offset = this.base + at;
    return new InterlockError(
      'Unavailable',
      `the replication stream is broken at byte ${offset} since its start: ${what}; connect again`,
      { retryable: true, details: { offset } },
    );
  }
}
