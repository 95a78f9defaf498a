import { GrowingOutput, damaged } from './output.js';

/** What Java's stream puts before its blocks; others write one block alone. */
const XERIAL = Buffer.from([0x82, 0x53, 0x4e, 0x41, 0x50, 0x50, 0x59, 0]);
const XERIAL_HEADER = XERIAL.length + 8;

/** Snappy (https://github.com/google/snappy/blob/main/format_description.txt). */
export function unsnappy(bytes: Buffer): Buffer {
  const out = new GrowingOutput(bytes.length * 4);
  if (bytes.length < XERIAL_HEADER || bytes.compare(XERIAL, 0, XERIAL.length, 0, XERIAL.length) !== 0) {
    block(bytes, out);
    return out.done();
  }
  for (let at = XERIAL_HEADER; at < bytes.length;) {
    const size = bytes.readInt32BE(at);
    block(bytes.subarray(at + 4, at + 4 + size), out);
    at += 4 + size;
  }
  return out.done();
}

function block(bytes: Buffer, out: GrowingOutput): void {
  let at = 0;
  let length = 0;
  for (let factor = 1; ; factor *= 128) {
    const byte = bytes[at++]!;
    length += (byte & 0x7f) * factor;
    if (byte < 0x80) break;
  }
  const end = out.length + length;
  while (at < bytes.length) {
    const tag = bytes[at++]!;
    if ((tag & 3) === 0) {
      let count = tag >>> 2;
      if (count >= 60) {
        const more = count - 59;
        count = bytes.readUIntLE(at, more);
        at += more;
      }
      out.append(bytes, at, at + count + 1);
      at += count + 1;
    } else if ((tag & 3) === 1) {
      out.repeat(((tag & 0xe0) << 3) | bytes[at++]!, ((tag >>> 2) & 7) + 4, 'Snappy');
    } else {
      const wide = (tag & 3) === 2 ? 2 : 4;
      const distance = bytes.readUIntLE(at, wide);
      at += wide;
      out.repeat(distance, (tag >>> 2) + 1, 'Snappy');
    }
  }
  if (out.length !== end) throw damaged('Snappy', 'it is not as long as it says');
}
