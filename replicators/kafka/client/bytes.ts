/** Writes what Kafka's protocol is made of (https://kafka.apache.org/protocol); grows as needed. */
export class Writer {
  private buffer: Buffer;
  private at = 0;

  constructor(size = 256) {
    this.buffer = Buffer.allocUnsafe(size);
  }

  get length(): number {
    return this.at;
  }

  private need(bytes: number): void {
    if (this.at + bytes <= this.buffer.length) return;
    const larger = Buffer.allocUnsafe(Math.max(this.buffer.length * 2, this.at + bytes));
    this.buffer.copy(larger, 0, 0, this.at);
    this.buffer = larger;
  }

  int8(value: number): this {
    this.need(1);
    this.at = this.buffer.writeInt8(value, this.at);
    return this;
  }

  int16(value: number): this {
    this.need(2);
    this.at = this.buffer.writeInt16BE(value, this.at);
    return this;
  }

  int32(value: number): this {
    this.need(4);
    this.at = this.buffer.writeInt32BE(value, this.at);
    return this;
  }

  /** A safe integer: Kafka's offsets do not reach 2^53. */
  int64(value: number): this {
    this.need(8);
    this.at = this.buffer.writeInt32BE(Math.floor(value / 2 ** 32), this.at);
    this.at = this.buffer.writeUInt32BE(((value % 2 ** 32) + 2 ** 32) % 2 ** 32, this.at);
    return this;
  }

  bool(value: boolean): this {
    return this.int8(value ? 1 : 0);
  }

  string(value: string | null): this {
    if (value === null) return this.int16(-1);
    const bytes = Buffer.byteLength(value);
    this.int16(bytes).need(bytes);
    this.at += this.buffer.write(value, this.at);
    return this;
  }

  bytes(value: Buffer): this {
    return this.int32(value.length).raw(value);
  }

  raw(value: Buffer): this {
    this.need(value.length);
    value.copy(this.buffer, this.at);
    this.at += value.length;
    return this;
  }

  array<T>(items: readonly T[], write: (item: T) => void): this {
    this.int32(items.length);
    for (const item of items) write(item);
    return this;
  }

  /** Unsigned, as the compact forms of newer versions have their lengths. */
  uvarint(value: number): this {
    let rest = value >>> 0;
    while (rest > 0x7f) {
      // As a signed byte.
      this.int8(((rest & 0x7f) | 0x80) - 256);
      rest >>>= 7;
    }
    return this.int8(rest);
  }

  compactString(value: string | null): this {
    if (value === null) return this.uvarint(0);
    const bytes = Buffer.from(value);
    return this.uvarint(bytes.length + 1).raw(bytes);
  }

  compactArray<T>(items: readonly T[], write: (item: T) => void): this {
    this.uvarint(items.length + 1);
    for (const item of items) write(item);
    return this;
  }

  /** No tagged fields. */
  tags(): this {
    return this.uvarint(0);
  }

  /** What was written; valid until more is. */
  done(): Buffer {
    return this.buffer.subarray(0, this.at);
  }
}

/** Reads the same. Buffers that it gives are views of what it reads. */
export class Reader {
  at = 0;
  /** What the answer says of a quota: for so long the broker reads nothing more from the connection. */
  throttleMs = 0;

  constructor(readonly buffer: Buffer) {}

  get left(): number {
    return this.buffer.length - this.at;
  }

  int8(): number {
    return this.buffer.readInt8(this.at++);
  }

  int16(): number {
    this.at += 2;
    return this.buffer.readInt16BE(this.at - 2);
  }

  int32(): number {
    this.at += 4;
    return this.buffer.readInt32BE(this.at - 4);
  }

  int64(): number {
    this.at += 8;
    return this.buffer.readInt32BE(this.at - 8) * 2 ** 32 + this.buffer.readUInt32BE(this.at - 4);
  }

  bool(): boolean {
    return this.int8() !== 0;
  }

  string(): string {
    return this.nullableString() ?? '';
  }

  nullableString(): string | null {
    const length = this.int16();
    return length < 0 ? null : this.take(length).toString();
  }

  bytes(): Buffer | null {
    const length = this.int32();
    return length < 0 ? null : this.take(length);
  }

  take(length: number): Buffer {
    this.at += length;
    return this.buffer.subarray(this.at - length, this.at);
  }

  throttle(): void {
    this.throttleMs = this.int32();
  }

  array<T>(read: () => T): T[] {
    const items: T[] = [];
    for (let count = this.int32(); count > 0; count--) items.push(read());
    return items;
  }

  uvarint(): number {
    let value = 0;
    for (let shift = 0; ; shift += 7) {
      const byte = this.buffer[this.at++]!;
      value |= (byte & 0x7f) << shift;
      if (byte < 0x80) return value >>> 0;
    }
  }

  compactString(): string {
    const length = this.uvarint();
    return length === 0 ? '' : this.take(length - 1).toString();
  }

  compactArray<T>(read: () => T): T[] {
    const items: T[] = [];
    for (let count = this.uvarint(); count > 1; count--) items.push(read());
    return items;
  }

  tags(): void {
    for (let count = this.uvarint(); count > 0; count--) {
      this.uvarint();
      this.take(this.uvarint());
    }
  }
}
