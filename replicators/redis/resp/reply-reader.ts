import { InterlockError } from '../../../src/errors.js';
import { Accumulator } from './accumulator.js';

const QUEUED = Buffer.from('QUEUED');
const CR = 0x0d;
const LF = 0x0a;
const MAX_LINE_BYTES = 64 * 1024;
const MAX_BULK_BYTES = 512 * 1024 * 1024;
const MAX_ELEMENTS = 2 ** 31 - 1;
/** EXEC of commands that answer with arrays of arrays has 4. */
const MAX_DEPTH = 32;

/** An error that the server answered with: a value like others, as it is one element of what EXEC answers. */
export class ReplyError {
  constructor(readonly message: string) {}

  /** `WRONGTYPE`, `OOM`, `READONLY`, `EXECABORT`, … */
  get code(): string {
    return /^[A-Z]+/.exec(this.message)?.[0] ?? 'ERR';
  }
}

/** What a server answers in RESP2: a string is a simple one (`OK`, `QUEUED`), a Buffer a bulk string, a bigint an integer beyond 2^53. */
export type Reply = string | number | bigint | Buffer | null | ReplyError | Reply[];

interface OpenArray {
  values: Reply[];
  left: number;
}

/** Reads RESP2 replies, whatever the chunking. What is no reply is an InterlockError with the offset of the byte. */
export class ReplyReader {
  private readonly pending = new Accumulator();
  private base = 0;
  private readonly open: OpenArray[] = [];
  private expected = 0;
  /** Of a string that is read over: bytes that have not come. */
  private left = 0;
  private lastError = new ReplyError('');

  /** @param skipsStrings what EXEC answers may be long: strings in arrays are read over, with null in their place */
  constructor(private readonly skipsStrings = false) {}

  /** The replies that are complete with this chunk, in order. The chunk must not be written to afterwards. */
  push(chunk: Buffer): Reply[] {
    const { pending } = this;
    if (this.left > 0) {
      const over = Math.min(this.left, chunk.length);
      this.left -= over;
      this.base += over;
      chunk = chunk.subarray(over);
    }
    pending.append(chunk, this.expected);
    const replies: Reply[] = [];
    if (pending.end < this.expected) return replies;
    let at = 0;
    for (;;) {
      const next = this.one(at, replies);
      if (next < 0) break;
      at = next;
    }
    this.base += at;
    this.pending.keep(at);
    return replies;
  }

  /** Reads the element at `at`; where the next one begins, or -1 when this one is not complete. */
  private one(at: number, replies: Reply[]): number {
    const { data, end } = this.pending;
    const lineEnd = this.line(at);
    if (lineEnd < 0) return -1;
    const next = lineEnd + 2;
    switch (data[at]!) {
      case 0x2b: // +
        this.add(simple(data, at + 1, lineEnd), replies);
        return next;
      case 0x2d: // -
        this.add(this.error(data.toString('utf8', at + 1, lineEnd)), replies);
        return next;
      case 0x3a: // :
        this.add(this.integer(at, lineEnd), replies);
        return next;
      case 0x24: {
        const length = this.length(at, lineEnd, MAX_BULK_BYTES);
        if (length < 0) {
          this.add(null, replies);
          return next;
        }
        const stop = next + length;
        if (this.skipsStrings && this.open.length > 0) {
          this.add(null, replies);
          this.left = Math.max(0, stop + 2 - end);
          return Math.min(stop + 2, end);
        }
        if (stop + 2 > end) {
          this.expected = stop + 2 - at;
          return -1;
        }
        if (data[stop] !== CR || data[stop + 1] !== LF) {
          throw this.bad(stop, 'a string that is longer than was said');
        }
        this.add(data.subarray(next, stop), replies);
        return stop + 2;
      }
      case 0x2a: {
        const count = this.length(at, lineEnd, MAX_ELEMENTS);
        if (count <= 0) this.add(count < 0 ? null : [], replies);
        else if (this.open.length === MAX_DEPTH) throw this.bad(at, `arrays more than ${MAX_DEPTH} deep`);
        else this.open.push({ values: [], left: count });
        return next;
      }
      default:
        throw this.bad(at, `byte ${data[at]!} where a reply begins`);
    }
  }

  /** Where the line that begins at `at` has its `\r`; -1 when it is not complete. */
  private line(at: number): number {
    const { data, end } = this.pending;
    let stop = at + 1;
    while (stop < end && data[stop] !== CR) stop += 1;
    if (stop - at > MAX_LINE_BYTES) throw this.bad(at, `a line of more than ${MAX_LINE_BYTES} bytes`);
    if (stop + 1 >= end) {
      this.expected = end - at + 1;
      return -1;
    }
    if (data[stop + 1] !== LF) throw this.bad(stop, 'a line that does not end in \\r\\n');
    return stop;
  }

  private add(value: Reply, replies: Reply[]): void {
    for (;;) {
      const array = this.open.at(-1);
      if (array === undefined) {
        replies.push(value);
        return;
      }
      array.values.push(value);
      array.left -= 1;
      if (array.left > 0) return;
      this.open.pop();
      value = array.values;
    }
  }

  /** A million commands may be refused with the same words. */
  private error(message: string): ReplyError {
    if (this.lastError.message !== message) this.lastError = new ReplyError(message);
    return this.lastError;
  }

  private integer(at: number, lineEnd: number): number | bigint {
    const { data } = this.pending;
    const negative = data[at + 1] === 0x2d;
    const from = negative ? at + 2 : at + 1;
    if (from === lineEnd || lineEnd - from > 19) throw this.bad(at, 'an integer that is no number');
    let value = 0;
    for (let digitAt = from; digitAt < lineEnd; digitAt += 1) {
      const digit = data[digitAt]! - 0x30;
      if (digit < 0 || digit > 9) throw this.bad(at, 'an integer that is no number');
      value = value * 10 + digit;
    }
    if (Number.isSafeInteger(value)) return negative ? -value : value;
    return BigInt(data.toString('latin1', at + 1, lineEnd));
  }

  /** Of a string or an array; -1: null. */
  private length(at: number, lineEnd: number, limit: number): number {
    const value = this.integer(at, lineEnd);
    if (typeof value === 'bigint' || value < -1 || value > limit) throw this.bad(at, `a length of ${value}`);
    return value;
  }

  private bad(at: number, what: string): InterlockError {
    const offset = this.base + at;
    return new InterlockError(
      'Unavailable',
      `the server's answers are broken at byte ${offset} of the connection: ${what}; connect again`,
      { retryable: true, details: { offset } },
    );
  }
}

/** Most answers of a batch are `OK` and `QUEUED`: no new string for each. */
function simple(data: Buffer, from: number, to: number): string {
  if (to - from === 2 && data[from] === 0x4f && data[from + 1] === 0x4b) return 'OK';
  if (to - from === 6 && data.compare(QUEUED, 0, 6, from, to) === 0) return 'QUEUED';
  return data.toString('utf8', from, to);
}
