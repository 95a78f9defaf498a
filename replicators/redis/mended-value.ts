import type { MendedValue } from './mends.js';
import { RestorableValue } from './rdb/restorable-value.js';
import { formatOf } from './rdb/types.js';
import type { CommandWriter } from './resp/command-writer.js';

/** Behind the value in what DUMP answers: RDB version, CRC64. */
const FOOTER_BYTES = 10;

/**
 * Writes the command that makes a key what it was at the source.
 * @param rdbVersion the newest that the target takes
 * @returns false: the target has no such format
 */
export function writeMended(
  writer: CommandWriter,
  { db, key, payload, expireAtMs }: MendedValue,
  rdbVersion: number,
): boolean {
  if (payload === null) {
    writer.command('UNLINK', key);
    return true;
  }
  const rdbType = payload[0]!;
  const format = formatOf(rdbType);
  if (format === undefined || format.since > rdbVersion) return false;
  const version = Math.min(payload.readUInt16LE(payload.length - FOOTER_BYTES), rdbVersion);
  const body = payload.subarray(1, payload.length - FOOTER_BYTES);
  const attributes = { db, key, expireAtMs, idle: null, freq: null };
  new RestorableValue(attributes, format.type, rdbType, body, version).writeTo(writer);
  return true;
}
