import { InterlockError } from '../../src/errors.js';
import type { MendedValue } from './mends.js';
import { decodeValue } from './rdb/decode.js';
import type { Argument } from './rdb/events.js';
import { RestorableValue } from './rdb/restorable-value.js';
import { formatOf } from './rdb/types.js';
import { Window } from './rdb/window.js';
import type { CommandWriter } from './resp/command-writer.js';
import { longestArgument, stringBytes, tooLarge } from './target-limits.js';
import type { TargetLimits } from './target-limits.js';

/** Behind the value in what DUMP answers: RDB version, CRC64. */
const FOOTER_BYTES = 10;

/**
 * Writes the commands that make a key what it was at the source: RESTORE, or, where the target does not take that, what the value consists of.
 * @returns how many there are; a text: why the target cannot have the value
 */
export function writeMended(
  writer: CommandWriter,
  value: MendedValue,
  limits: TargetLimits,
): number | string {
  const { db, key, payload, expireAtMs } = value;
  if (payload === null) {
    writer.command('UNLINK', key);
    return 1;
  }
  const rdbType = payload[0]!;
  const format = formatOf(rdbType);
  if (format === undefined) return 'nobody knows the format of its value';
  const open = { db, key, expireAtMs, idle: null, freq: null, type: format.type, rdbType };
  if (format.since > limits.rdbVersion || payload.length > limits.argumentBytes) {
    const commands = decoded(payload, open, limits);
    if (typeof commands === 'string') return commands;
    for (const command of commands) writer.command(...(command as Buffer[]));
    return commands.length;
  }
  const version = Math.min(payload.readUInt16LE(payload.length - FOOTER_BYTES), limits.rdbVersion);
  const body = payload.subarray(1, payload.length - FOOTER_BYTES);
  new RestorableValue(open, format.type, rdbType, body, version).writeTo(writer);
  return 1;
}

function decoded(
  payload: Buffer,
  value: Parameters<typeof decodeValue>[1],
  limits: TargetLimits,
): Argument[][] | string {
  const window = new Window(NO_MORE);
  window.data = payload;
  window.pos = 1;
  const options = { targetRdbVersion: limits.rdbVersion, spool: null, pieceKey: null };
  const commands: Argument[][] = [];
  let text = 0;
  try {
    for (const piece of decodeValue(window, value, { ...options, rawLimitBytes: limits.argumentBytes / 2 })) {
      if (piece === undefined) return 'its value is cut off';
      if (piece.kind === 'undecodable') return piece.reason;
      text += stringBytes(piece);
      const most = Math.max(text, longestArgument(piece));
      if (most > limits.argumentBytes) return tooLarge(most, limits);
      commands.push(...piece.commands);
    }
  } catch (error) {
    if (!(error instanceof InterlockError)) throw error;
    return `its value cannot be read: ${error.message}`;
  }
  return commands;
}

/** All is in the window. */
const NO_MORE: AsyncIterable<Buffer> = {
  [Symbol.asyncIterator]: () => ({ next: async () => Promise.resolve({ done: true, value: undefined }) }),
};
