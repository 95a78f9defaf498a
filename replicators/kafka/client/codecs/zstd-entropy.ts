import { damaged } from './output.js';

/** Bits from the end of a stream to its beginning, as Zstandard writes them: the highest set bit of the last byte marks where they start. */
export class BackwardBits {
  /** Bits that are left; below 0 zeros are read. */
  left: number;

  constructor(
    private readonly bytes: Uint8Array,
    private readonly from: number,
    to: number,
  ) {
    const last = bytes[to - 1] ?? 0;
    if (to <= from || last === 0) throw damaged('Zstandard', 'a stream of bits has no end');
    this.left = (to - from) * 8 - 1 - Math.clz32(last) + 24;
  }

  read(count: number): number {
    this.left -= count;
    return this.at(this.left, count);
  }

  /** The next bits, and they stay. */
  peek(count: number): number {
    return this.at(this.left - count, count);
  }

  /** Up to 25 bits fit between two bytes' bounds; an offset may have 31. */
  private at(bit: number, count: number): number {
    if (count === 0) return 0;
    if (count > 24) return this.at(bit + 16, count - 16) * 65536 + this.at(bit, 16);
    if (bit < 0) {
      const there = count + bit;
      return there <= 0 ? 0 : (this.at(0, there) << -bit) >>> 0;
    }
    const byte = this.from + (bit >>> 3);
    const word =
      (this.bytes[byte]! |
        (this.bytes[byte + 1]! << 8) |
        (this.bytes[byte + 2]! << 16) |
        (this.bytes[byte + 3]! << 24)) >>>
      (bit & 7);
    return word & ((1 << count) - 1);
  }
}

export interface FseTable {
  log: number;
  symbol: Uint8Array;
  bits: Uint8Array;
  base: Uint16Array;
}

/** RFC 8878, 4.1.1: from the probabilities of the symbols (-1: less than one). */
export function fseTable(log: number, counts: readonly number[]): FseTable {
  const size = 1 << log;
  const symbol = new Uint8Array(size);
  const next = new Uint16Array(counts.length);
  let high = size - 1;
  counts.forEach((count, s) => {
    if (count === -1) {
      symbol[high--] = s;
      next[s] = 1;
    } else next[s] = count;
  });
  const step = (size >>> 1) + (size >>> 3) + 3;
  let position = 0;
  counts.forEach((count, s) => {
    for (let i = 0; i < count; i++) {
      symbol[position] = s;
      do position = (position + step) & (size - 1);
      while (position > high);
    }
  });
  const bits = new Uint8Array(size);
  const base = new Uint16Array(size);
  for (let state = 0; state < size; state++) {
    const x = next[symbol[state]!]!++;
    bits[state] = log - (31 - Math.clz32(x));
    base[state] = (x << bits[state]!) - size;
  }
  return { log, symbol, bits, base };
}

export function rleTable(symbol: number): FseTable {
  return { log: 0, symbol: Uint8Array.of(symbol), bits: Uint8Array.of(0), base: Uint16Array.of(0) };
}

/** RFC 8878, 4.1.1: the description of a table. @returns with where it ends */
export function readFse(bytes: Uint8Array, from: number, to: number, mostLog: number): [FseTable, number] {
  let bit = from * 8;
  const peek = (count: number): number => {
    const byte = bit >>> 3;
    const word =
      ((bytes[byte] ?? 0) | ((bytes[byte + 1] ?? 0) << 8) | ((bytes[byte + 2] ?? 0) << 16)) >>> (bit & 7);
    return word & ((1 << count) - 1);
  };
  const log = peek(4) + 5;
  bit += 4;
  if (log > mostLog) throw damaged('Zstandard', 'a table is too large');
  const counts: number[] = [];
  let left = (1 << log) + 1;
  while (left > 1 && bit < to * 8) {
    const width = 32 - Math.clz32(left);
    const small = (1 << width) - 1 - left;
    let value = peek(width);
    if ((value & ((1 << (width - 1)) - 1)) < small) {
      value &= (1 << (width - 1)) - 1;
      bit += width - 1;
    } else {
      if (value >= 1 << (width - 1)) value -= small;
      bit += width;
    }
    const count = value - 1;
    counts.push(count);
    left -= Math.abs(count);
    if (count !== 0) continue;
    for (;;) {
      const zeros = peek(2);
      bit += 2;
      for (let i = 0; i < zeros; i++) counts.push(0);
      if (zeros !== 3) break;
    }
  }
  if (left !== 1) throw damaged('Zstandard', 'a table does not add up');
  return [fseTable(log, counts), (bit + 7) >>> 3];
}

export interface HuffmanTable {
  log: number;
  symbol: Uint8Array;
  bits: Uint8Array;
}

/** RFC 8878, 4.2.1. @returns with where its description ends */
export function readHuffman(bytes: Uint8Array, from: number): [HuffmanTable, number] {
  const head = bytes[from]!;
  let weights: number[];
  let end: number;
  if (head >= 128) {
    const count = head - 127;
    weights = Array.from({ length: count }, (_, i) => {
      const pair = bytes[from + 1 + (i >>> 1)]!;
      return i % 2 === 0 ? pair >>> 4 : pair & 15;
    });
    end = from + 1 + ((count + 1) >>> 1);
  } else {
    end = from + 1 + head;
    weights = fseWeights(bytes, from + 1, end);
  }
  let sum = 0;
  for (const weight of weights) if (weight > 0) sum += 1 << (weight - 1);
  const log = 32 - Math.clz32(sum);
  // The last weight is what is missing to a power of two.
  weights.push(32 - Math.clz32((1 << log) - sum));
  const symbol = new Uint8Array(1 << log);
  const bits = new Uint8Array(1 << log);
  let at = 0;
  for (let weight = 1; weight <= log; weight++) {
    weights.forEach((own, s) => {
      if (own !== weight) return;
      const span = 1 << (weight - 1);
      symbol.fill(s, at, at + span);
      bits.fill(log + 1 - weight, at, at + span);
      at += span;
    });
  }
  if (at !== 1 << log) throw damaged('Zstandard', 'the codes of its literals do not add up');
  return [{ log, symbol, bits }, end];
}

function fseWeights(bytes: Uint8Array, from: number, to: number): number[] {
  const [table, at] = readFse(bytes, from, to, 7);
  const stream = new BackwardBits(bytes, at, to);
  const weights: number[] = [];
  const states = [stream.read(table.log), stream.read(table.log)];
  for (let turn = 0; ; turn = 1 - turn) {
    const state = states[turn]!;
    weights.push(table.symbol[state]!);
    states[turn] = table.base[state]! + stream.read(table.bits[state]!);
    if (stream.left < 0) {
      weights.push(table.symbol[states[1 - turn]!]!);
      return weights;
    }
  }
}
