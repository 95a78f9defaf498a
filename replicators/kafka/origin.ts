/** The header by which a record says where it comes from: `<dc>/<topic>/<partition>/<offset>`. */
export const ORIGIN = 'interlock-origin';
export const ORIGIN_KEY = Buffer.from(ORIGIN);

export interface Origin {
  dc: string;
  topic: string;
  partition: number;
  offset: number;
}

export function parseOrigin(value: Buffer | null | undefined): Origin | undefined {
  const parts = /^([^/]+)\/([^/]+)\/(\d+)\/(\d+)$/.exec(value?.toString() ?? '');
  if (parts === null) return undefined;
  return { dc: parts[1]!, topic: parts[2]!, partition: Number(parts[3]), offset: Number(parts[4]) };
}

const MOST_DIGITS = 16;

/** The header of the records of one partition: all but the offset stays. */
export class OriginHeader {
  /** As it is in a record, up to `length`. */
  readonly bytes: Buffer;
  length = 0;
  private readonly prefix: Buffer;
  private readonly valueAt = 1 + ORIGIN_KEY.length;
  /** Bytes of the value's length. */
  private width = 0;

  constructor(dc: string, topic: string, partition: number) {
    this.prefix = Buffer.from(`${dc}/${topic}/${partition}/`);
    this.bytes = Buffer.alloc(this.valueAt + 2 + this.prefix.length + MOST_DIGITS);
    this.bytes[0] = ORIGIN_KEY.length * 2;
    ORIGIN_KEY.copy(this.bytes, 1);
  }

  set(offset: number): void {
    let digits = 1;
    for (let most = 10; offset >= most && digits < MOST_DIGITS; most *= 10) digits++;
    const zigzag = (this.prefix.length + digits) * 2;
    const width = zigzag < 0x80 ? 1 : 2;
    if (width !== this.width) {
      this.width = width;
      this.prefix.copy(this.bytes, this.valueAt + width);
    }
    this.bytes[this.valueAt] = width === 1 ? zigzag : (zigzag & 0x7f) | 0x80;
    if (width === 2) this.bytes[this.valueAt + 1] = zigzag >>> 7;
    const from = this.valueAt + width + this.prefix.length;
    this.length = from + digits;
    let rest = offset;
    for (let at = this.length - 1; at >= from; at--) {
      const next = Math.floor(rest / 10);
      this.bytes[at] = 48 + rest - next * 10;
      rest = next;
    }
  }
}
