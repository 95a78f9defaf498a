import type { Cursor } from './row-image.js';

/** Events that a transaction begins with. Layouts: libbinlogevents/include/control_events.h and statement_events.h of MySQL 8.0. */

const SID_BYTES = 16;
const BEGIN = Buffer.from('BEGIN');

/** Reads the GTIDs of a stream: nearly all are of one server. */
export class GtidReader {
  private readonly sid = Buffer.alloc(SID_BYTES);
  private uuid = uuidOf(this.sid);

  /** @param cursor at the body of a GTID event */
  read({ buffer, at }: Cursor): string {
    const sidAt = at + 1;
    if (buffer.compare(this.sid, 0, SID_BYTES, sidAt, sidAt + SID_BYTES) !== 0) {
      buffer.copy(this.sid, 0, sidAt, sidAt + SID_BYTES);
      this.uuid = uuidOf(this.sid);
    }
    return `${this.uuid}:${buffer.readUIntLE(sidAt + SID_BYTES, 6)}`;
  }
}

/** Its number is one that JavaScript holds. */
export function isPlainGtid({ buffer, at }: Cursor): boolean {
  return buffer.readUInt16LE(at + 1 + SID_BYTES + 6) === 0;
}

/** The body is of a query event, and the statement is BEGIN, which says nothing more. */
export function isBegin({ buffer, at, end }: Cursor): boolean {
  const from = end - BEGIN.length;
  const statement = at + 13 + buffer[at + 8]! + 1 + buffer.readUInt16LE(at + 11);
  return statement === from && BEGIN.compare(buffer, from, end) === 0;
}

function uuidOf(sid: Buffer): string {
  return sid.toString('hex').replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-');
}
