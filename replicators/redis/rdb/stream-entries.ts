import { listpackElements } from './packed.js';

export interface StreamId {
  ms: bigint;
  seq: bigint;
}

export const STREAM_ID_BYTES = 16;

const DELETED = 1;
const SAME_FIELDS = 2;

export function idText(id: StreamId): string {
  return `${id.ms}-${id.seq}`;
}

export function readId(data: Buffer, at = 0): StreamId {
  return { ms: data.readBigUInt64BE(at), seq: data.readBigUInt64BE(at + 8) };
}

/**
 * The entries of a node of a stream, without the deleted ones; null when the bytes are no node. A node begins with its first entry's fields, which
 * others that have the same do not repeat; ids are differences to the `master`.
 */
export function streamEntries(master: Buffer, listpack: Buffer): { id: StreamId; fields: Buffer[] }[] | null {
  const elements = listpackElements(listpack);
  if (elements === null || master.length !== STREAM_ID_BYTES) return null;
  const base = readId(master);
  const reader = new ElementReader(elements);
  const count = reader.integer() + reader.integer();
  const names = reader.take(Number(reader.integer()));
  reader.integer();
  const entries: { id: StreamId; fields: Buffer[] }[] = [];
  for (let index = 0n; index < count && !reader.broken; index += 1n) {
    const flags = Number(reader.integer());
    const id = { ms: sum(base.ms, reader.integer()), seq: sum(base.seq, reader.integer()) };
    const fields =
      (flags & SAME_FIELDS) === 0
        ? reader.take(2 * Number(reader.integer()))
        : reader.take(names.length).flatMap((value, at) => [names[at]!, value]);
    reader.integer();
    if ((flags & DELETED) === 0) entries.push({ id, fields });
  }
  return reader.broken || !reader.atEnd ? null : entries;
}

/** Differences are saved as signed numbers of 64 bits, and added without a sign. */
function sum(base: bigint, difference: bigint): bigint {
  return BigInt.asUintN(64, base + difference);
}

class ElementReader {
  broken = false;
  private at = 0;

  constructor(private readonly elements: readonly Buffer[]) {}

  get atEnd(): boolean {
    return this.at === this.elements.length;
  }

  integer(): bigint {
    const text = this.elements[this.at++]?.toString('latin1') ?? '';
    if (/^-?\d{1,20}$/.test(text)) return BigInt(text);
    this.broken = true;
    return 0n;
  }

  take(count: number): Buffer[] {
    if (!(count >= 0 && this.at + count <= this.elements.length)) {
      this.broken = true;
      return [];
    }
    this.at += count;
    return this.elements.slice(this.at - count, this.at);
  }
}
