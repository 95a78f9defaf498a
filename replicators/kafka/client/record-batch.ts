import { InterlockError } from '../../../src/errors.js';
import { decompress } from './compression.js';
import { crc32c } from './crc32c.js';

/** https://kafka.apache.org/documentation/#recordbatch */
const AT = {
  length: 8,
  leaderEpoch: 12,
  magic: 16,
  crc: 17,
  attributes: 21,
  lastOffsetDelta: 23,
  baseTimestamp: 27,
  maxTimestamp: 35,
  producerId: 43,
  producerEpoch: 51,
  baseSequence: 53,
  count: 57,
  records: 61,
} as const;

const LOG_APPEND_TIME = 0x08;
const TRANSACTIONAL = 0x10;
const CONTROL = 0x20;

/** A batch as a broker keeps it; its records are not looked at. */
export interface SourceBatch {
  baseOffset: number;
  /** Of the batch as it was written: records of it may have been compacted away. */
  lastOffset: number;
  leaderEpoch: number;
  transactional: boolean;
  control: boolean;
  producerId: bigint;
  producerEpoch: number;
  baseTimestamp: number;
  /** Of all its records, when the broker has stamped them; else null. */
  appendTime: number | null;
  maxTimestamp: number;
  count: number;
  codec: number;
  /** As it is on the wire. */
  payload: Buffer;
}

function int64(buffer: Buffer, at: number): number {
  return buffer.readInt32BE(at) * 2 ** 32 + buffer.readUInt32BE(at + 4);
}

/** The whole batches at the beginning of what a fetch brought; the last one may be cut, and is left out. @param what for errors */
export function readBatches(records: Buffer, what: string): SourceBatch[] {
  const batches: SourceBatch[] = [];
  for (let at = 0; records.length - at > AT.magic;) {
    const end = at + AT.leaderEpoch + records.readInt32BE(at + AT.length);
    if (end > records.length) break;
    if (records[at + AT.magic] !== 2) {
      throw new InterlockError(
        'LinkStopped',
        `${what}: offset ${int64(records, at)} is in message format ${records[at + AT.magic]}; a link reads format 2 (Kafka 0.11 and later). Leave the topic out, or rewrite it`,
      );
    }
    if (records.readUInt32BE(at + AT.crc) !== crc32c(records, at + AT.attributes, end)) {
      throw new InterlockError('Unavailable', `${what}: the batch at ${int64(records, at)} came damaged`, {
        retryable: true,
      });
    }
    const attributes = records.readInt16BE(at + AT.attributes);
    const baseOffset = int64(records, at);
    const maxTimestamp = int64(records, at + AT.maxTimestamp);
    batches.push({
      baseOffset,
      lastOffset: baseOffset + records.readInt32BE(at + AT.lastOffsetDelta),
      leaderEpoch: records.readInt32BE(at + AT.leaderEpoch),
      transactional: (attributes & TRANSACTIONAL) !== 0,
      control: (attributes & CONTROL) !== 0,
      producerId: records.readBigInt64BE(at + AT.producerId),
      producerEpoch: records.readInt16BE(at + AT.producerEpoch),
      baseTimestamp: int64(records, at + AT.baseTimestamp),
      appendTime: (attributes & LOG_APPEND_TIME) === 0 ? null : maxTimestamp,
      maxTimestamp,
      count: records.readInt32BE(at + AT.count),
      codec: attributes & 0x07,
      payload: records.subarray(at + AT.records, end),
    });
    at = end;
  }
  return batches;
}

/** The records of a batch, decompressed. */
export function recordsOf(batch: SourceBatch): Buffer {
  return batch.codec === 0 ? batch.payload : decompress(batch.codec, batch.payload);
}

/** Walks the records of a batch without making objects of them. */
export class RecordCursor {
  bytes: Buffer = Buffer.alloc(0);
  private at = 0;
  private left = 0;
  private base!: SourceBatch;
  offset = 0;
  timestamp = 0;
  /** Key and value with their lengths, and the headers without their count, as ranges of `bytes`. */
  bodyFrom = 0;
  bodyTo = 0;
  headers = 0;
  headersFrom = 0;
  headersTo = 0;

  open(batch: SourceBatch): void {
    this.base = batch;
    this.bytes = recordsOf(batch);
    this.at = 0;
    this.left = batch.count;
  }

  next(): boolean {
    if (this.left === 0) return false;
    this.left -= 1;
    const length = this.varint();
    const end = this.at + length;
    if (length <= 0 || end > this.bytes.length)
      throw new InterlockError('Internal', `the batch at ${this.base.baseOffset} cannot be read`);
    this.at += 1;
    const delta = this.varint();
    this.timestamp = this.base.appendTime ?? this.base.baseTimestamp + delta;
    this.offset = this.base.baseOffset + this.varint();
    this.bodyFrom = this.at;
    this.skip();
    this.skip();
    this.bodyTo = this.at;
    this.headers = this.varint();
    this.headersFrom = this.at;
    this.headersTo = end;
    this.at = end;
    return true;
  }

  private skip(): void {
    const length = this.varint();
    if (length > 0) this.at += length;
  }

  /** Signed, in zigzag; more than 32 bits for a timestamp's difference. */
  private varint(): number {
    const bytes = this.bytes;
    let byte = bytes[this.at++]!;
    let value = byte & 0x7f;
    if (byte >= 0x80) {
      byte = bytes[this.at++]!;
      value |= (byte & 0x7f) << 7;
      if (byte >= 0x80) {
        byte = bytes[this.at++]!;
        value |= (byte & 0x7f) << 14;
        let factor = 2 ** 21;
        while (byte >= 0x80) {
          byte = bytes[this.at++]!;
          value += (byte & 0x7f) * factor;
          factor *= 128;
        }
      }
    }
    return value % 2 === 0 ? value / 2 : -(value + 1) / 2;
  }

  key(): Buffer | null {
    return this.field(0);
  }

  value(): Buffer | null {
    return this.field(1);
  }

  private field(index: number): Buffer | null {
    const back = this.at;
    this.at = this.bodyFrom;
    if (index === 1) this.skip();
    const length = this.varint();
    const found = length < 0 ? null : this.bytes.subarray(this.at, this.at + length);
    this.at = back;
    return found;
  }

  /** The value of the last header of that name; undefined: there is none. */
  header(name: Buffer): Buffer | null | undefined {
    if (this.headers === 0) return undefined;
    const back = this.at;
    this.at = this.headersFrom;
    let found: Buffer | null | undefined;
    for (let i = 0; i < this.headers; i++) {
      const length = this.varint();
      const same =
        length === name.length && this.bytes.compare(name, 0, length, this.at, this.at + length) === 0;
      this.at += length;
      const valueLength = this.varint();
      if (same) found = valueLength < 0 ? null : this.bytes.subarray(this.at, this.at + valueLength);
      if (valueLength > 0) this.at += valueLength;
    }
    this.at = back;
    return found;
  }
}

function varintSize(value: number): number {
  let rest = value >= 0 ? value * 2 : -value * 2 - 1;
  let size = 1;
  for (; rest > 0x7f; rest = Math.floor(rest / 128)) size++;
  return size;
}

/** With its length; -1 is null. */
function fieldSize(bytes: number): number {
  return varintSize(bytes) + Math.max(bytes, 0);
}

export type Header = readonly [name: Buffer, value: Buffer];

export interface BatchIdentity {
  producerId: bigint;
  producerEpoch: number;
  baseSequence: number;
}

/** Makes one batch of a producer's transaction. A buffer of it is used for one batch only. */
export class BatchBuilder {
  private buffer: Buffer;
  private at: number = AT.records;
  private baseTimestamp = 0;
  private maxTimestamp = 0;
  count = 0;

  constructor(size: number) {
    this.buffer = Buffer.allocUnsafe(size);
  }

  /** Of the batch. */
  get size(): number {
    return this.at;
  }

  private begin(timestamp: number, bodyBytes: number): void {
    if (this.count === 0) this.baseTimestamp = this.maxTimestamp = timestamp;
    else if (timestamp > this.maxTimestamp) this.maxTimestamp = timestamp;
    const most = this.at + bodyBytes + 40;
    if (most <= this.buffer.length) return;
    const larger = Buffer.allocUnsafe(Math.max(most, Math.min(this.buffer.length * 2, 2 ** 20)));
    this.buffer.copy(larger, 0, 0, this.at);
    this.buffer = larger;
  }

  /** The record at which the cursor stands, with one header more. @param header with its lengths */
  copy(cursor: RecordCursor, header: Buffer, headerBytes: number): void {
    const { timestamp, bodyFrom, bodyTo, headersFrom, headersTo } = cursor;
    this.begin(timestamp, bodyTo - bodyFrom + headersTo - headersFrom + headerBytes);
    const delta = timestamp - this.baseTimestamp;
    const headers = cursor.headers + 1;
    this.varint(
      1 +
        varintSize(delta) +
        varintSize(this.count) +
        (bodyTo - bodyFrom) +
        varintSize(headers) +
        (headersTo - headersFrom) +
        headerBytes,
    );
    this.buffer[this.at++] = 0;
    this.varint(delta);
    this.varint(this.count++);
    this.raw(cursor.bytes, bodyFrom, bodyTo);
    this.varint(headers);
    this.raw(cursor.bytes, headersFrom, headersTo);
    this.raw(header, 0, headerBytes);
  }

  add(timestamp: number, key: Buffer | null, value: Buffer | null, headers: readonly Header[] = []): void {
    const [keyBytes, valueBytes] = [key?.length ?? -1, value?.length ?? -1];
    const body =
      fieldSize(keyBytes) +
      fieldSize(valueBytes) +
      headers.reduce((sum, [name, of]) => sum + fieldSize(name.length) + fieldSize(of.length), 0);
    this.begin(timestamp, body);
    const delta = timestamp - this.baseTimestamp;
    this.varint(1 + varintSize(delta) + varintSize(this.count) + varintSize(headers.length) + body);
    this.buffer[this.at++] = 0;
    this.varint(delta);
    this.varint(this.count++);
    this.varint(keyBytes);
    if (key !== null) this.raw(key, 0, key.length);
    this.varint(valueBytes);
    if (value !== null) this.raw(value, 0, value.length);
    this.varint(headers.length);
    for (const part of headers.flat()) {
      this.varint(part.length);
      this.raw(part, 0, part.length);
    }
  }

  private raw(from: Buffer, start: number, end: number): void {
    if (end > start) from.copy(this.buffer, this.at, start, end);
    this.at += end - start;
  }

  private varint(value: number): void {
    let rest = value >= 0 ? value * 2 : -value * 2 - 1;
    while (rest > 0x7f) {
      this.buffer[this.at++] = (rest % 128) + 128;
      rest = Math.floor(rest / 128);
    }
    this.buffer[this.at++] = rest;
  }

  /**
   * @param identity without a producer id: of no transaction
   * @param encoded another form of the records, when it is smaller
   */
  finish(identity: BatchIdentity, encoded?: { codec: number; payload: Buffer }): Buffer {
    let batch = this.buffer.subarray(0, this.at);
    if (encoded !== undefined) batch = Buffer.concat([batch.subarray(0, AT.records), encoded.payload]);
    batch.writeInt32BE(0, 0);
    batch.writeInt32BE(0, 4);
    batch.writeInt32BE(batch.length - AT.leaderEpoch, AT.length);
    batch.writeInt32BE(-1, AT.leaderEpoch);
    batch[AT.magic] = 2;
    const transactional = identity.producerId < 0n ? 0 : TRANSACTIONAL;
    batch.writeInt16BE(transactional | (encoded?.codec ?? 0), AT.attributes);
    batch.writeInt32BE(this.count - 1, AT.lastOffsetDelta);
    batch.writeBigInt64BE(BigInt(this.baseTimestamp), AT.baseTimestamp);
    batch.writeBigInt64BE(BigInt(this.maxTimestamp), AT.maxTimestamp);
    batch.writeBigInt64BE(identity.producerId, AT.producerId);
    batch.writeInt16BE(identity.producerEpoch, AT.producerEpoch);
    batch.writeInt32BE(identity.baseSequence, AT.baseSequence);
    batch.writeInt32BE(this.count, AT.count);
    batch.writeUInt32BE(crc32c(batch, AT.attributes, batch.length), AT.crc);
    return batch;
  }

  get records(): Buffer {
    return this.buffer.subarray(AT.records, this.at);
  }
}
