/** Jones' polynomial, as Redis uses it: reflected, no initial value, no final xor. In two halves: a BigInt for each byte would be a hundred times slower. */
const POLYNOMIAL_LOW = 0xac4bc9b5;
const POLYNOMIAL_HIGH = 0x95ac9329;
const SLICES = 8;

/** `TABLE[2 * (256 * slice + byte)]` is the low half, the next one the high half. */
const TABLE = makeTable();

function makeTable(): Int32Array {
  const table = new Int32Array(2 * 256 * SLICES);
  for (let byte = 0; byte < 256; byte += 1) {
    let low = byte;
    let high = 0;
    for (let bit = 0; bit < 8; bit += 1) {
      const carry = low & 1;
      low = (low >>> 1) | (high << 31);
      high >>>= 1;
      if (carry === 1) {
        low ^= POLYNOMIAL_LOW;
        high ^= POLYNOMIAL_HIGH;
      }
    }
    table[2 * byte] = low;
    table[2 * byte + 1] = high;
  }
  for (let index = 256; index < 256 * SLICES; index += 1) {
    const low = table[2 * (index - 256)]!;
    const high = table[2 * (index - 256) + 1]!;
    const base = 2 * (low & 255);
    table[2 * index] = ((low >>> 8) | (high << 24)) ^ table[base]!;
    table[2 * index + 1] = (high >>> 8) ^ table[base + 1]!;
  }
  return table;
}

/** A running CRC64: eight bytes at a time. */
export class Crc64 {
  low = 0;
  high = 0;

  reset(): this {
    this.low = 0;
    this.high = 0;
    return this;
  }

  update(data: Uint8Array, from = 0, to = data.length): this {
    let { low, high } = this;
    let at = from;
    for (const last = to - 7; at < last; at += 8) {
      const a = ((low ^ data[at]!) & 255) * 2 + 3584;
      const b = (((low >>> 8) ^ data[at + 1]!) & 255) * 2 + 3072;
      const c = (((low >>> 16) ^ data[at + 2]!) & 255) * 2 + 2560;
      const d = ((low >>> 24) ^ data[at + 3]!) * 2 + 2048;
      const e = ((high ^ data[at + 4]!) & 255) * 2 + 1536;
      const f = (((high >>> 8) ^ data[at + 5]!) & 255) * 2 + 1024;
      const g = (((high >>> 16) ^ data[at + 6]!) & 255) * 2 + 512;
      const h = ((high >>> 24) ^ data[at + 7]!) * 2;
      low = TABLE[a]! ^ TABLE[b]! ^ TABLE[c]! ^ TABLE[d]! ^ TABLE[e]! ^ TABLE[f]! ^ TABLE[g]! ^ TABLE[h]!;
      high =
        TABLE[a + 1]! ^
        TABLE[b + 1]! ^
        TABLE[c + 1]! ^
        TABLE[d + 1]! ^
        TABLE[e + 1]! ^
        TABLE[f + 1]! ^
        TABLE[g + 1]! ^
        TABLE[h + 1]!;
    }
    for (; at < to; at += 1) {
      const base = 2 * ((low ^ data[at]!) & 255);
      low = ((low >>> 8) | (high << 24)) ^ TABLE[base]!;
      high = (high >>> 8) ^ TABLE[base + 1]!;
    }
    this.low = low;
    this.high = high;
    return this;
  }

  /** The eight bytes that Redis puts behind what was summed. */
  writeTo(target: Buffer, at: number): void {
    target.writeInt32LE(this.low, at);
    target.writeInt32LE(this.high, at + 4);
  }

  /** Whether the eight bytes at `at` are this sum. */
  isAt(data: Buffer, at: number): boolean {
    return data.readInt32LE(at) === this.low && data.readInt32LE(at + 4) === this.high;
  }
}
