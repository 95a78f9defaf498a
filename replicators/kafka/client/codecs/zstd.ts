import { GrowingOutput, damaged } from './output.js';
import { BackwardBits, fseTable, readFse, readHuffman, rleTable } from './zstd-entropy.js';
import type { FseTable, HuffmanTable } from './zstd-entropy.js';

const MAGIC = 0xfd2fb528;
const SKIPPED = 0x184d2a50;

/** What a block takes over from the one before. */
interface FrameState {
  huffman: HuffmanTable | undefined;
  lengths: FseTable | undefined;
  offsets: FseTable | undefined;
  matches: FseTable | undefined;
  recent: [number, number, number];
}

/** Frames of Zstandard (RFC 8878); without dictionaries, which Kafka does not use. Checksums are left to the batch's own. */
export function unzstd(bytes: Buffer): Buffer {
  const out = new GrowingOutput(bytes.length * 4);
  for (let at = 0; at < bytes.length;) {
    const magic = bytes.readUInt32LE(at);
    if ((magic & 0xfffffff0) >>> 0 === SKIPPED) at += 8 + bytes.readUInt32LE(at + 4);
    else if (magic === MAGIC) at = frame(bytes, at + 4, out);
    else throw damaged('Zstandard', 'it does not begin with the mark of a frame');
  }
  return out.done();
}

function frame(bytes: Buffer, from: number, out: GrowingOutput): number {
  const head = bytes[from]!;
  const single = (head & 0x20) !== 0;
  const sizeBytes = [single ? 1 : 0, 2, 4, 8][head >>> 6]!;
  const dictionaryBytes = [0, 1, 2, 4][head & 3]!;
  let at = from + 1 + (single ? 0 : 1) + dictionaryBytes + sizeBytes;
  const state: FrameState = {
    huffman: undefined,
    lengths: undefined,
    offsets: undefined,
    matches: undefined,
    recent: [1, 4, 8],
  };
  for (let last = false; !last;) {
    const block = bytes.readUIntLE(at, 3);
    at += 3;
    last = (block & 1) === 1;
    const [type, size] = [(block >>> 1) & 3, block >>> 3];
    if (type === 0) out.append(bytes, at, at + size);
    else if (type === 1) out.fill(bytes[at]!, size);
    else if (type === 2) compressed(bytes, at, at + size, out, state);
    else throw damaged('Zstandard', 'a block of no known kind');
    at += type === 1 ? 1 : size;
  }
  return at + ((head & 4) !== 0 ? 4 : 0);
}

function compressed(bytes: Buffer, from: number, to: number, out: GrowingOutput, state: FrameState): void {
  const [literals, at] = readLiterals(bytes, from, state);
  sequences(bytes, at, to, literals, out, state);
}

function readLiterals(bytes: Buffer, from: number, state: FrameState): [Uint8Array, number] {
  const head = bytes[from]!;
  const [type, format] = [head & 3, (head >>> 2) & 3];
  if (type < 2) {
    const width = [1, 2, 1, 3][format]!;
    const size = bytes.readUIntLE(from, width) >>> (width === 1 ? 3 : 4);
    const at = from + width;
    if (type === 0) return [bytes.subarray(at, at + size), at + size];
    return [new Uint8Array(size).fill(bytes[at]!), at + 1];
  }
  const width = [3, 3, 4, 5][format]!;
  const bits = [10, 10, 14, 18][format]!;
  const sizes = bytes.readUIntLE(from, width);
  const size = Math.floor(sizes / 16) % 2 ** bits;
  const packed = Math.floor(sizes / 2 ** (4 + bits));
  let at = from + width;
  const end = at + packed;
  if (type === 2) [state.huffman, at] = readHuffman(bytes, at);
  if (state.huffman === undefined) throw damaged('Zstandard', 'literals without their codes');
  const literals = new Uint8Array(size);
  if (format === 0) {
    huffmanStream(bytes, at, end, state.huffman, literals, 0, size);
    return [literals, end];
  }
  const part = (size + 3) >>> 2;
  let start = at + 6;
  for (let i = 0; i < 4; i++) {
    const stop = i === 3 ? end : start + bytes.readUInt16LE(at + i * 2);
    huffmanStream(bytes, start, stop, state.huffman, literals, i * part, Math.min((i + 1) * part, size));
    start = stop;
  }
  return [literals, end];
}

function huffmanStream(
  bytes: Uint8Array,
  from: number,
  to: number,
  { log, symbol, bits }: HuffmanTable,
  out: Uint8Array,
  start: number,
  end: number,
): void {
  const stream = new BackwardBits(bytes, from, to);
  for (let i = start; i < end; i++) {
    const code = stream.peek(log);
    out[i] = symbol[code]!;
    stream.left -= bits[code]!;
  }
  if (stream.left !== 0) throw damaged('Zstandard', 'a stream of literals does not end where it should');
}

/** RFC 8878, 3.1.1.3.2.1.1: what a code of a length begins with, and how many bits follow. */
function lengthCodes(
  plain: number,
  first: number,
  bits: readonly number[],
): { base: number[]; bits: number[] } {
  const base = Array.from({ length: plain }, (_, i) => i + first);
  let next = plain + first;
  for (const extra of bits) {
    base.push(next);
    next += 2 ** extra;
  }
  return { base, bits: [...new Array<number>(plain).fill(0), ...bits] };
}
const LITERAL_LENGTHS = lengthCodes(
  16,
  0,
  [1, 1, 1, 1, 2, 2, 3, 3, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16],
);
const MATCH_LENGTHS = lengthCodes(
  32,
  3,
  [1, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16],
);

const DEFAULT_LENGTHS = fseTable(
  6,
  [
    4, 3, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 3, 2, 1, 1, 1, 1, 1, -1, -1,
    -1, -1,
  ],
);
const DEFAULT_MATCHES = fseTable(
  6,
  [
    1, 4, 3, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1, -1,
  ],
);
const DEFAULT_OFFSETS = fseTable(
  5,
  [1, 1, 1, 1, 1, 1, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1],
);

function sequences(
  bytes: Buffer,
  from: number,
  to: number,
  literals: Uint8Array,
  out: GrowingOutput,
  state: FrameState,
): void {
  let at = from;
  let count = bytes[at++]!;
  if (count === 255) {
    count = bytes.readUInt16LE(at) + 0x7f00;
    at += 2;
  } else if (count >= 128) count = ((count - 128) << 8) + bytes[at++]!;
  if (count === 0) {
    out.append(literals, 0, literals.length);
    return;
  }
  const modes = bytes[at++]!;
  const table = (
    mode: number,
    standard: FseTable,
    before: FseTable | undefined,
    mostLog: number,
  ): FseTable => {
    if (mode === 0) return standard;
    if (mode === 1) return rleTable(bytes[at++]!);
    if (mode === 3) {
      if (before === undefined) throw damaged('Zstandard', 'a table that was never given');
      return before;
    }
    const [found, end] = readFse(bytes, at, to, mostLog);
    at = end;
    return found;
  };
  const lengths = (state.lengths = table(modes >>> 6, DEFAULT_LENGTHS, state.lengths, 9));
  const offsets = (state.offsets = table((modes >>> 4) & 3, DEFAULT_OFFSETS, state.offsets, 8));
  const matches = (state.matches = table((modes >>> 2) & 3, DEFAULT_MATCHES, state.matches, 9));
  const stream = new BackwardBits(bytes, at, to);
  let [length, offset, match] = [
    stream.read(lengths.log),
    stream.read(offsets.log),
    stream.read(matches.log),
  ];
  let taken = 0;
  const { recent } = state;
  for (let i = 0; i < count; i++) {
    const offsetCode = offsets.symbol[offset]!;
    const raw = 2 ** offsetCode + stream.read(offsetCode);
    const matchCode = matches.symbol[match]!;
    const matchLength = MATCH_LENGTHS.base[matchCode]! + stream.read(MATCH_LENGTHS.bits[matchCode]!);
    const lengthCode = lengths.symbol[length]!;
    const literalLength = LITERAL_LENGTHS.base[lengthCode]! + stream.read(LITERAL_LENGTHS.bits[lengthCode]!);
    const distance = distanceOf(raw, literalLength, recent);
    out.append(literals, taken, taken + literalLength);
    taken += literalLength;
    out.repeat(distance, matchLength, 'Zstandard');
    if (i === count - 1) break;
    length = lengths.base[length]! + stream.read(lengths.bits[length]!);
    match = matches.base[match]! + stream.read(matches.bits[match]!);
    offset = offsets.base[offset]! + stream.read(offsets.bits[offset]!);
  }
  if (stream.left !== 0) throw damaged('Zstandard', 'its sequences do not end where they should');
  out.append(literals, taken, literals.length);
}

/** RFC 8878, 3.1.1.5: the first three values stand for the distances that were used last. */
function distanceOf(raw: number, literalLength: number, recent: FrameState['recent']): number {
  if (raw > 3) {
    recent.unshift(raw - 3);
    recent.length = 3;
    return recent[0];
  }
  const index = raw - 1 + (literalLength === 0 ? 1 : 0);
  const distance = index === 3 ? recent[0] - 1 : recent[index]!;
  if (index > 0) {
    if (index > 1) recent[2] = recent[1];
    recent[1] = recent[0];
    recent[0] = distance;
  }
  return distance;
}
