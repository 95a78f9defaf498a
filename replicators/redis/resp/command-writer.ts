/** Strings from this length on are sent as they are, not copied to where the others are gathered. */
const LARGE_BYTES = 32 * 1024;
const PAGE_BYTES = 64 * 1024;

/** Encodes commands for a socket: small ones are gathered, large strings and bytes of others are passed on. */
export class CommandWriter {
  private page = Buffer.allocUnsafeSlow(PAGE_BYTES);
  /** Of the page: `from` is where what is not in `parts` begins. */
  private from = 0;
  private at = 0;
  private parts: Buffer[] = [];
  private partBytes = 0;

  /** Bytes that `take` would give. */
  get bytes(): number {
    return this.partBytes + this.at - this.from;
  }

  command(...args: (Buffer | string | number)[]): this {
    this.begin(args.length);
    for (const arg of args) this.argument(arg);
    return this;
  }

  /** A command of `argc` arguments, which the caller adds. */
  begin(argc: number): this {
    this.line(0x2a, argc);
    return this;
  }

  argument(value: Buffer | string | number): this {
    if (typeof value !== 'object') {
      const text = typeof value === 'string' ? value : String(value);
      const bytes = Buffer.byteLength(text);
      if (bytes > LARGE_BYTES) return this.argument(Buffer.from(text));
      this.line(0x24, bytes);
      this.room(bytes + 2);
      this.at += this.page.write(text, this.at);
      this.end();
      return this;
    }
    this.line(0x24, value.length);
    this.raw(value);
    this.room(2);
    this.end();
    return this;
  }

  /** An argument that is given in parts. */
  bulk(parts: readonly Buffer[]): this {
    this.line(
      0x24,
      parts.reduce((sum, part) => sum + part.length, 0),
    );
    for (const part of parts) this.raw(part);
    this.room(2);
    this.end();
    return this;
  }

  /** Bytes that are RESP already. They must not be written to afterwards. */
  raw(bytes: Buffer): this {
    if (bytes.length > LARGE_BYTES) {
      this.seal();
      this.parts.push(bytes);
      this.partBytes += bytes.length;
      return this;
    }
    this.room(bytes.length);
    bytes.copy(this.page, this.at);
    this.at += bytes.length;
    return this;
  }

  /** All that was written since the last time, in order. */
  take(): Buffer[] {
    this.seal();
    const { parts } = this;
    this.parts = [];
    this.partBytes = 0;
    return parts;
  }

  private line(mark: number, value: number): void {
    this.room(24);
    const { page } = this;
    page[this.at] = mark;
    if (value < 10) {
      page[this.at + 1] = 0x30 + value;
      this.at += 2;
    } else {
      this.at += 1;
      this.at += page.write(String(value), this.at, 'latin1');
    }
    this.end();
  }

  private end(): void {
    this.page[this.at] = 0x0d;
    this.page[this.at + 1] = 0x0a;
    this.at += 2;
  }

  private room(bytes: number): void {
    if (this.at + bytes <= this.page.length) return;
    this.seal();
    this.page = Buffer.allocUnsafeSlow(PAGE_BYTES);
    this.from = this.at = 0;
  }

  private seal(): void {
    if (this.at === this.from) return;
    this.parts.push(this.page.subarray(this.from, this.at));
    this.partBytes += this.at - this.from;
    this.from = this.at;
  }
}
