import type { Spool } from '../spool.js';

const CR = 0x0d;
const LF = 0x0a;
const ASTERISK = 0x2a;
const DOLLAR = 0x24;
/** Digits of the largest number that a header may hold. */
const MAX_DIGITS = 10;

type Bad = (at: number, what: string) => Error;

/** A command that is too large for memory: its bytes pass to the disk as they come, and only where its arguments lie is kept (two numbers each). */
export class LargeCommand {
  readonly start: number;
  argc = -1;
  readonly places: number[] = [];
  /** Bytes of the command so far. */
  bytes = 0;
  /** Of the argument under way, with its `\r\n`. */
  private left = 0;
  private value = 0;
  private digits = 0;
  /** In a header: its first byte, then digits, then `\n`. */
  private expects: 'mark' | 'digits' | 'line-feed' | 'argument' = 'mark';

  constructor(
    private readonly spool: Spool,
    private readonly limits: { bulkBytes: number; commandBytes: number },
    /** @param at in the command */
    private readonly bad: Bad,
  ) {
    this.start = spool.end;
  }

  get isComplete(): boolean {
    return this.argc >= 0 && this.places.length === 2 * this.argc && this.expects === 'mark';
  }

  /** Takes the next bytes up to the end of the command. @returns how many it took */
  push(chunk: Buffer): number {
    let at = 0;
    while (at < chunk.length && !this.isComplete)
      at = this.expects === 'argument' ? this.argument(chunk, at) : this.header(chunk, at);
    this.spool.append(chunk.subarray(0, at));
    this.bytes += at;
    return at;
  }

  private argument(chunk: Buffer, from: number): number {
    const to = Math.min(chunk.length, from + this.left);
    for (let behind = Math.max(from, from + this.left - 2); behind < to; behind += 1)
      if (chunk[behind] !== (behind === from + this.left - 2 ? CR : LF))
        throw this.bad(this.bytes + behind, 'an argument that is longer than was said');
    this.left -= to - from;
    if (this.left === 0) this.expects = 'mark';
    return to;
  }

  private header(chunk: Buffer, at: number): number {
    const byte = chunk[at]!;
    const place = this.bytes + at;
    if (this.expects === 'mark') {
      if (byte !== (this.argc < 0 ? ASTERISK : DOLLAR))
        throw this.bad(place, `byte ${byte} where an argument ($) begins`);
      this.expects = 'digits';
      this.value = this.digits = 0;
    } else if (this.expects === 'line-feed') {
      if (byte !== LF) throw this.bad(place, 'a length that is no number');
      this.headed(place + 1);
    } else if (byte >= 0x30 && byte <= 0x39 && this.digits < MAX_DIGITS) {
      this.value = this.value * 10 + byte - 0x30;
      this.digits += 1;
    } else if (byte === CR && this.digits > 0) this.expects = 'line-feed';
    else throw this.bad(place, 'a length that is no number');
    return at + 1;
  }

  private headed(behind: number): void {
    const { value } = this;
    this.expects = 'mark';
    if (this.argc < 0) {
      this.argc = value;
      return;
    }
    if (value > this.limits.bulkBytes) throw this.bad(behind, `an argument of ${value} bytes`);
    if (behind + value + 2 > this.limits.commandBytes)
      throw this.bad(0, `a command of more than ${behind + value} bytes`);
    this.places.push(behind, behind + value);
    this.left = value + 2;
    this.expects = 'argument';
  }
}
