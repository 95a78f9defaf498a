import type { CommandWriter } from '../resp/command-writer.js';
import { Crc64 } from './crc64.js';
import type { RedisType } from './types.js';
import { RDB } from './types.js';

/** RDB version and CRC64. */
const FOOTER_BYTES = 10;
/** RDB version of the first Redis that surely knows SET … PXAT: 7.0; 6.2 has the version of 5.0. */
const PXAT_SINCE = 10;
/** One byte for each format. */
const TYPE_BYTES = Array.from({ length: 256 }, (_, type) => Buffer.of(type));

const crc = new Crc64();

export interface KeyAttributes {
  db: number;
  key: Buffer;
  /** Unix time; null: it does not expire. */
  expireAtMs: number | null;
  /** Seconds since the last access; saved with an LRU policy only. */
  idle: number | null;
  /** Saved with an LFU policy only. */
  freq: number | null;
}

/** A value as it stands in the RDB file, ready for RESTORE: nothing of it was decoded. */
export class RestorableValue implements KeyAttributes {
  readonly kind = 'value';
  readonly db: number;
  readonly key: Buffer;
  readonly expireAtMs: number | null;
  readonly idle: number | null;
  readonly freq: number | null;

  constructor(
    attributes: KeyAttributes,
    readonly type: RedisType,
    /** The format's number in the file. */
    readonly rdbType: number,
    /** The bytes that follow the key. */
    readonly body: Buffer,
    /** That the payload states: not newer than what the target takes. */
    private readonly rdbVersion: number,
  ) {
    this.db = attributes.db;
    this.key = attributes.key;
    this.expireAtMs = attributes.expireAtMs;
    this.idle = attributes.idle;
    this.freq = attributes.freq;
  }

  /** What DUMP would answer: format, value, RDB version, CRC64. */
  get payload(): Buffer {
    return Buffer.concat([TYPE_BYTES[this.rdbType]!, this.body, this.footer()]);
  }

  /** The string itself, where the file has it as it is; null: encoded (compressed, a number), or no string. */
  get plain(): Buffer | null {
    if (this.rdbType !== RDB.STRING) return null;
    const first = this.body[0]!;
    if (first >= 0xc0) return null;
    return this.body.subarray(first < 0x40 ? 1 : first < 0x80 ? 2 : first === 0x80 ? 5 : 9);
  }

  private footer(): Buffer {
    const footer = Buffer.allocUnsafe(FOOTER_BYTES);
    footer.writeUInt16LE(this.rdbVersion, 0);
    crc.reset().update(TYPE_BYTES[this.rdbType]!).update(this.body).update(footer, 0, 2).writeTo(footer, 2);
    return footer;
  }

  /** Writes the command that makes the key on the target what it was on the source, whatever it is there: RESTORE, or SET where that does. */
  writeTo(writer: CommandWriter): void {
    const expire = this.expireAtMs;
    const plain = this.idle === null && this.freq === null ? this.plain : null;
    if (plain !== null && (expire === null || this.rdbVersion >= PXAT_SINCE)) {
      writer
        .begin(expire === null ? 3 : 5)
        .argument('SET')
        .argument(this.key)
        .argument(plain);
      if (expire !== null) writer.argument('PXAT').argument(Math.max(expire, 1));
      return;
    }
    const attributes =
      this.idle !== null ? ['IDLETIME', this.idle] : this.freq !== null ? ['FREQ', this.freq] : [];
    writer
      .begin(6 + attributes.length)
      .argument('RESTORE')
      .argument(this.key)
      .argument(expire === null ? 0 : Math.max(expire, 1))
      .bulk([TYPE_BYTES[this.rdbType]!, this.body, this.footer()])
      .argument('REPLACE')
      .argument('ABSTTL');
    for (const attribute of attributes) writer.argument(attribute);
  }
}
