import { InterlockError } from '../../../../src/errors.js';

/** More than a batch can hold: what says that it is larger is damaged, or an attack. */
const MOST = 512 * 2 ** 20;

export function damaged(codec: string, why: string): InterlockError {
  return new InterlockError('LinkStopped', `a batch that is compressed by ${codec} cannot be read: ${why}`);
}

/** What is decompressed, with the window that later bytes repeat from. */
export class GrowingOutput {
  private buffer: Buffer;
  length = 0;

  constructor(size: number) {
    this.buffer = Buffer.allocUnsafe(Math.max(size, 1024));
  }

  private need(bytes: number): void {
    const wanted = this.length + bytes;
    if (wanted <= this.buffer.length) return;
    if (wanted > MOST) throw damaged('its producer', `it is larger than ${MOST} bytes`);
    const larger = Buffer.allocUnsafe(Math.max(wanted, this.buffer.length * 2));
    this.buffer.copy(larger, 0, 0, this.length);
    this.buffer = larger;
  }

  append(from: Uint8Array, start: number, end: number): void {
    if (end > from.length) throw damaged('its producer', 'it is cut');
    this.need(end - start);
    this.buffer.set(from.subarray(start, end), this.length);
    this.length += end - start;
  }

  /** Bytes that were there before; they may reach into what they write. */
  repeat(distance: number, count: number, codec: string): void {
    if (distance <= 0 || distance > this.length) throw damaged(codec, 'it repeats what it does not have');
    this.need(count);
    const { buffer, length } = this;
    if (distance >= count) buffer.copyWithin(length, length - distance, length - distance + count);
    else for (let i = length; i < length + count; i++) buffer[i] = buffer[i - distance]!;
    this.length += count;
  }

  done(): Buffer {
    return this.buffer.subarray(0, this.length);
  }
}
