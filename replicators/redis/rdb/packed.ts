/**
 * The packed forms of small collections: one string in the file that holds all elements. Each function gives the elements in their order, or null
 * when the bytes are not that form.
 */

const LISTPACK_HEADER_BYTES = 6;
const ZIPLIST_HEADER_BYTES = 10;
const END = 0xff;

function text(value: number | bigint): Buffer {
  return Buffer.from(String(value), 'latin1');
}

export function listpackElements(data: Buffer): Buffer[] | null {
  const elements: Buffer[] = [];
  let at = LISTPACK_HEADER_BYTES;
  if (data.length <= at || data.readUInt32LE(0) !== data.length) return null;
  while (data[at] !== END) {
    const first = data[at]!;
    let header = 1;
    let bytes = 0;
    let value: Buffer | null = null;
    // The widest header and number: what is read below is inside.
    if (at + 10 > data.length && !fits(data, at, first)) return null;
    if (first < 0x80) value = text(first);
    else if (first < 0xc0) bytes = first & 0x3f;
    else if (first < 0xe0) {
      value = text(((((first & 0x1f) << 8) | data[at + 1]!) << 19) >> 19);
      header = 2;
    } else if (first < 0xf0) {
      bytes = ((first & 0x0f) << 8) | data[at + 1]!;
      header = 2;
    } else if (first === 0xf0) {
      bytes = data.readUInt32LE(at + 1);
      header = 5;
    } else if (first <= 0xf3) {
      header = first - 0xf1 + 3;
      value = text(data.readIntLE(at + 1, header - 1));
    } else if (first === 0xf4) {
      value = text(data.readBigInt64LE(at + 1));
      header = 9;
    } else return null;
    const stop = at + header + bytes;
    if (stop >= data.length) return null;
    elements.push(value ?? data.subarray(at + header, stop));
    at = stop + backlenBytes(header + bytes);
    if (at >= data.length) return null;
  }
  return at === data.length - 1 ? elements : null;
}

/** Whether header and number of the element at `at` are inside of `data`. */
function fits(data: Buffer, at: number, first: number): boolean {
  const bytes =
    first < 0xc0
      ? 1
      : first < 0xf0
        ? 2
        : first === 0xf0
          ? 5
          : first <= 0xf3
            ? first - 0xf1 + 3
            : first === 0xf4
              ? 9
              : 1;
  return at + bytes < data.length;
}

/** Behind each element stands its length, for reading backwards. */
function backlenBytes(length: number): number {
  return length < 128 ? 1 : length < 16384 ? 2 : length < 2097152 ? 3 : length < 268435456 ? 4 : 5;
}

export function ziplistElements(data: Buffer): Buffer[] | null {
  const elements: Buffer[] = [];
  let at = ZIPLIST_HEADER_BYTES;
  if (data.length <= at || data.readUInt32LE(0) !== data.length) return null;
  while (data[at] !== END) {
    at += data[at] === 0xfe ? 5 : 1;
    if (at >= data.length) return null;
    const first = data[at]!;
    let header = 1;
    let bytes = 0;
    let value: Buffer | null = null;
    const numberBytes = first < 0xc0 ? 0 : (ZIPLIST_NUMBERS.get(first) ?? 0);
    if (at + Math.max(1, numberBytes + 1, first >> 6 === 1 ? 2 : first >> 6 === 2 ? 5 : 1) >= data.length)
      return null;
    if (first < 0x40) bytes = first;
    else if (first < 0x80) {
      bytes = ((first & 0x3f) << 8) | data[at + 1]!;
      header = 2;
    } else if (first < 0xc0) {
      bytes = data.readUInt32BE(at + 1);
      header = 5;
    } else if (numberBytes > 0) {
      value = text(numberBytes === 8 ? data.readBigInt64LE(at + 1) : data.readIntLE(at + 1, numberBytes));
      header = 1 + numberBytes;
    } else if (first >= 0xf1 && first <= 0xfd) value = text((first & 0x0f) - 1);
    else return null;
    const stop = at + header + bytes;
    if (stop >= data.length) return null;
    elements.push(value ?? data.subarray(at + header, stop));
    at = stop;
  }
  return at === data.length - 1 ? elements : null;
}

/** Bytes of the number behind each mark of a ziplist. */
const ZIPLIST_NUMBERS = new Map([
  [0xc0, 2],
  [0xd0, 4],
  [0xe0, 8],
  [0xf0, 3],
  [0xfe, 1],
]);

export function intsetElements(data: Buffer): Buffer[] | null {
  if (data.length < 8) return null;
  const width = data.readUInt32LE(0);
  const count = data.readUInt32LE(4);
  if ((width !== 2 && width !== 4 && width !== 8) || data.length !== 8 + width * count) return null;
  return Array.from({ length: count }, (_, index) => {
    const at = 8 + width * index;
    return text(width === 8 ? data.readBigInt64LE(at) : data.readIntLE(at, width));
  });
}

/** Fields and values, in turn. */
export function zipmapElements(data: Buffer): Buffer[] | null {
  const elements: Buffer[] = [];
  let at = 1;
  while (at < data.length && data[at] !== END) {
    const isValue = elements.length % 2 === 1;
    let length = data[at]!;
    at += 1;
    if (length === 0xfe) {
      if (at + 4 > data.length) return null;
      length = data.readUInt32LE(at);
      at += 4;
    }
    // Behind the length of a value stands how many bytes behind the value are not used.
    const unused = isValue ? (data[at++] ?? 0) : 0;
    if (at + length + unused >= data.length) return null;
    elements.push(data.subarray(at, at + length));
    at += length + unused;
  }
  return at === data.length - 1 && elements.length % 2 === 0 ? elements : null;
}
