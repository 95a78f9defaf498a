import { InterlockError } from '../../../src/errors.js';
import { Crc64 } from './crc64.js';
import { decompress } from './lzf.js';

/** `proto-max-bulk-len` of a server that is not configured otherwise: no string of a value is longer. */
const MAX_STRING_BYTES = 512 * 1024 * 1024;

/** Thrown (one and the same) by a read that runs out of bytes; `missing` of the window says how many there are to come at least. */
class NeedMore extends Error {}
export const NEED_MORE = new NeedMore('more bytes are needed');

/**
 * The part of the file that is in memory. Reads are synchronous and take from `pos` on; one that runs out of bytes throws NEED_MORE, and is done again,
 * from its start, once `fill` has brought them.
 */
export class Window {
  data: Buffer = Buffer.alloc(0);
  pos = 0;
  /** Bytes that the read that threw NEED_MORE lacks. */
  missing = 1;
  /** Of all bytes before `summed`. */
  readonly crc = new Crc64();
  private summed = 0;
  /** Offset in the file of `data[0]`. */
  private base = 0;
  private readonly chunks: AsyncIterator<Buffer>;

  constructor(chunks: AsyncIterable<Buffer>) {
    this.chunks = chunks[Symbol.asyncIterator]();
  }

  /** In the file. */
  get offset(): number {
    return this.base + this.pos;
  }

  get available(): number {
    return this.data.length - this.pos;
  }

  /** Forgets what is before `pos` and brings at least `bytes` more, or what there is. */
  async fill(bytes: number): Promise<void> {
    this.sum();
    const parts = this.pos === this.data.length ? [] : [this.data.subarray(this.pos)];
    let brought = 0;
    while (brought < bytes) {
      const next = await this.chunks.next();
      if (next.done === true) break;
      parts.push(next.value);
      brought += next.value.length;
    }
    if (brought === 0) {
      throw this.corrupt(
        this.base + this.data.length,
        'it ends here, in the middle of a value or before its end mark',
      );
    }
    this.base += this.pos;
    this.data = parts.length === 1 ? parts[0]! : Buffer.concat(parts);
    this.summed = this.pos = 0;
  }

  /** Takes what is before `pos` into the checksum. */
  sum(): void {
    this.crc.update(this.data, this.summed, this.pos);
    this.summed = this.pos;
  }

  async close(): Promise<void> {
    await this.chunks.return?.();
  }

  need(bytes: number): void {
    const missing = bytes - (this.data.length - this.pos);
    if (missing <= 0) return;
    this.missing = missing;
    throw NEED_MORE;
  }

  byte(): number {
    if (this.pos === this.data.length) this.need(1);
    return this.data[this.pos++]!;
  }

  skip(bytes: number): void {
    this.need(bytes);
    this.pos += bytes;
  }

  take(bytes: number): Buffer {
    this.need(bytes);
    this.pos += bytes;
    return this.data.subarray(this.pos - bytes, this.pos);
  }

  /** A length, or a count. */
  length(): number {
    const first = this.byte();
    if (first < 0x40) return first;
    if (first < 0x80) return ((first & 0x3f) << 8) | this.byte();
    return this.longLength(first);
  }

  /** A 64-bit number that is saved as a length. */
  number(): bigint {
    if (this.pos < this.data.length && this.data[this.pos] === 0x81) {
      this.need(9);
      this.pos += 9;
      return this.data.readBigUInt64BE(this.pos - 8);
    }
    return BigInt(this.length());
  }

  milliseconds(): bigint {
    return this.take(8).readBigInt64LE();
  }

  skipString(): void {
    const first = this.byte();
    if (first < 0x40) this.skip(first);
    else if (first < 0xc0) {
      this.pos -= 1;
      this.skip(this.stringLength());
    } else if (first === 0xc3) {
      const compressed = this.stringLength();
      this.length();
      this.skip(compressed);
    } else this.skip(integerBytes(first) ?? this.badEncoding(first));
  }

  /** A string, as the bytes that it means. */
  string(): Buffer {
    const first = this.byte();
    if (first < 0x40) return this.take(first);
    if (first < 0xc0) {
      this.pos -= 1;
      return this.take(this.stringLength());
    }
    if (first === 0xc3) {
      const compressed = this.stringLength();
      const length = this.stringLength();
      const at = this.pos;
      const taken = this.take(compressed);
      return decompress(taken, length) ?? this.bad('a compressed string that is broken', at);
    }
    const bytes = integerBytes(first) ?? this.badEncoding(first);
    this.need(bytes);
    this.pos += bytes;
    return Buffer.from(String(this.data.readIntLE(this.pos - bytes, bytes)), 'latin1');
  }

  /** How long the string is that comes next; where the window stands does not change. */
  nextStringBytes(): number {
    const start = this.pos;
    try {
      const first = this.byte();
      if (first === 0xc3) this.length();
      else if (first >= 0xc0) return 0;
      else this.pos = start;
      return this.stringLength();
    } finally {
      this.pos = start;
    }
  }

  /** Length of what follows, which will be taken as one. */
  stringLength(): number {
    const at = this.pos;
    const length = this.length();
    if (length > MAX_STRING_BYTES) return this.bad(`a string of ${length} bytes, more than any`, at);
    return length;
  }

  private longLength(first: number): number {
    if (first === 0x80) return this.take(4).readUInt32BE();
    if (first !== 0x81) return this.bad(`byte ${first} where a length begins`, this.pos - 1);
    const at = this.pos - 1;
    const length = Number(this.take(8).readBigUInt64BE());
    return Number.isSafeInteger(length) ? length : this.bad(`a length of ${length}`, at);
  }

  private badEncoding(first: number): never {
    return this.bad(`byte ${first} where a string begins`, this.pos - 1);
  }

  /** @throws InterlockError that names the byte of the file; `at` counts in `data` */
  bad(what: string, at = this.pos): never {
    throw this.corrupt(this.base + at, what);
  }

  /** The same; `offset` counts in the file. */
  badAt(what: string, offset: number): never {
    throw this.corrupt(offset, what);
  }

  private corrupt(offset: number, what: string): InterlockError {
    return new InterlockError(
      'Unavailable',
      `the source's RDB file is broken at byte ${offset}: ${what}; synchronise again, and look at the source's log`,
      { retryable: true, details: { offset } },
    );
  }
}

function integerBytes(first: number): number | null {
  return first === 0xc0 ? 1 : first === 0xc1 ? 2 : first === 0xc2 ? 4 : null;
}
