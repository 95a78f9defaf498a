import { GrowingOutput, damaged } from './output.js';

const MAGIC = 0x184d2204;
const UNCOMPRESSED = 0x80000000;

/** Frames of LZ4 (https://github.com/lz4/lz4/blob/dev/doc/lz4_Frame_format.md). */
export function unlz4(bytes: Buffer): Buffer {
  const out = new GrowingOutput(bytes.length * 4);
  let at = 0;
  while (at < bytes.length) {
    if (bytes.readUInt32LE(at) !== MAGIC) throw damaged('LZ4', 'it does not begin with the mark of a frame');
    const flags = bytes[at + 4]!;
    at += 6 + ((flags & 0x08) !== 0 ? 8 : 0) + ((flags & 0x01) !== 0 ? 4 : 0) + 1;
    for (;;) {
      const head = bytes.readUInt32LE(at);
      at += 4;
      if (head === 0) break;
      const size = head % UNCOMPRESSED;
      if (head >= UNCOMPRESSED) out.append(bytes, at, at + size);
      else block(bytes, at, at + size, out);
      at += size + ((flags & 0x10) !== 0 ? 4 : 0);
    }
    if ((flags & 0x04) !== 0) at += 4;
  }
  return out.done();
}

function block(bytes: Buffer, from: number, to: number, out: GrowingOutput): void {
  let at = from;
  const more = (length: number): number => {
    for (;;) {
      const byte = bytes[at++]!;
      length += byte;
      if (byte !== 255) return length;
    }
  };
  while (at < to) {
    const token = bytes[at++]!;
    let literals = token >>> 4;
    if (literals === 15) literals = more(15);
    out.append(bytes, at, at + literals);
    at += literals;
    // The last sequence has no match.
    if (at >= to) return;
    const distance = bytes[at]! | (bytes[at + 1]! << 8);
    at += 2;
    let length = token & 15;
    if (length === 15) length = more(15);
    out.repeat(distance, length + 4, 'LZ4');
  }
}
