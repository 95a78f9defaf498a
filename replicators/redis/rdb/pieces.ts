import { SpooledBytes } from '../spool.js';
import type { OpenValue } from './entry-reader.js';
import type { Argument, DecodedValue } from './events.js';

/** A piece is never larger, however large a value may be sent whole. */
const MAX_PIECE_BYTES = 1024 * 1024;
/** One command holds the target up for as long as it takes. */
const COMMAND_BYTES = 64 * 1024;
const COMMAND_ARGUMENTS = 1024;
/** What a command and an argument take besides their bytes. */
const OVERHEAD_BYTES = 16;

/** The commands that make a value, cut into pieces. Where they are cut depends on the value alone, not on how it arrived. */
export class Pieces {
  readonly limitBytes: number;
  private commands: Argument[][] = [];
  private bytes = 0;
  private first = true;
  private isSpooled = false;
  /** The command that more elements are added to, and its size. */
  private adding: { name: string; command: Argument[]; bytes: number } | null = null;

  constructor(
    private readonly value: OpenValue,
    rawLimitBytes: number,
    private readonly pieceKey: Buffer | null = null,
  ) {
    this.limitBytes = Math.max(1, Math.min(rawLimitBytes, MAX_PIECE_BYTES));
  }

  /** A piece has gathered: it is to be taken before more is added. */
  get full(): boolean {
    return this.bytes >= this.limitBytes;
  }

  get empty(): boolean {
    return this.first && this.commands.length === 0;
  }

  /** `name key args…` */
  command(name: string, ...args: (Argument | string)[]): void {
    this.push([name, this.value.key, ...args]);
  }

  /** `XGROUP what key args…` */
  xgroup(what: string, ...args: (Buffer | string)[]): void {
    this.push(['XGROUP', what, this.value.key, ...args]);
  }

  private push(words: (Argument | string)[]): void {
    const command = words.map((word) => (typeof word === 'string' ? Buffer.from(word) : word));
    this.commands.push(command);
    this.isSpooled ||= isSpooled(command);
    this.bytes += size(command);
    this.adding = null;
  }

  /** An element of a collection: added to the command before, while that is of the same name and not too long. */
  element(name: string, ...args: Argument[]): void {
    const { adding } = this;
    const bytes = size(args);
    if (
      adding === null ||
      adding.name !== name ||
      adding.bytes >= COMMAND_BYTES ||
      adding.command.length >= COMMAND_ARGUMENTS
    ) {
      if (this.empty) this.command('UNLINK');
      this.command(name, ...args);
      this.adding = { name, command: this.commands.at(-1)!, bytes };
      return;
    }
    adding.command.push(...args);
    this.isSpooled ||= isSpooled(args);
    adding.bytes += bytes;
    this.bytes += bytes;
  }

  /** What has gathered. The last piece also sets the time to live. */
  take(last = false): DecodedValue {
    const { db, key, type, expireAtMs } = this.value;
    if (this.pieceKey !== null && (!this.first || !last || this.isSpooled)) this.nameBy(this.pieceKey, last);
    if (last && expireAtMs !== null) this.command('PEXPIREAT', String(Math.max(expireAtMs, 1)));
    const piece: DecodedValue = {
      ...{ kind: 'commands', db, key, type, expireAtMs },
      ...{ commands: this.commands, first: this.first, last },
    };
    this.commands = [];
    this.bytes = 0;
    this.first = false;
    this.adding = null;
    return piece;
  }

  /** The commands are of `pieceKey`; the last ones give the value its own name. */
  private nameBy(pieceKey: Buffer, last: boolean): void {
    const { key } = this.value;
    for (const command of this.commands)
      for (let i = 1; i < 3; i += 1) if (command[i] === key) command[i] = pieceKey;
    if (!last) return;
    // What RENAME replaces, it frees at once, and everything waits.
    this.command('UNLINK');
    this.commands.push([Buffer.from('RENAME'), pieceKey, key]);
  }
}

function isSpooled(args: readonly Argument[]): boolean {
  return args.some((arg) => arg instanceof SpooledBytes);
}

function size(args: readonly Argument[]): number {
  let bytes = 0;
  for (const arg of args) bytes += arg.length + OVERHEAD_BYTES;
  return bytes;
}
