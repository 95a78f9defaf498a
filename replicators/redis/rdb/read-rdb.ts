import { decodeValue } from './decode.js';
import type { DecodeOptions } from './decode.js';
import { EntryReader } from './entry-reader.js';
import type { OpenValue } from './entry-reader.js';
import type { RdbEvent } from './events.js';
import type { Spool } from '../spool.js';
import { NEWEST_RDB_VERSION } from './types.js';
import { Window } from './window.js';

export interface RdbOptions {
  /**
   * A value whose saved form is larger is given as commands, in pieces of about this size (1 MB at most). It bounds what is in memory of one value, but
   * for a key, for one node of a stream, and for 32 bytes for each pending entry of one consumer group; without a `spool`, for one element of a collection.
   */
  rawLimitBytes: number;
  /** Takes elements of a collection that are larger than a piece. */
  spool?: Spool;
  /** A key of the target's where values of several pieces are made. */
  pieceKey?: Buffer;
  /** What the target takes (`rdbVersionOf` its version): what it does not know is given as commands. */
  targetRdbVersion?: number;
  /** `all`: every value is given as commands, for a target that takes no RESTORE. */
  decode?: 'where-needed' | 'all';
}

/**
 * Reads an RDB file (versions 5 to 12, with its end and nothing behind it) as it arrives. What has been read is given in batches, about one for each
 * chunk; nothing is read ahead of what is pulled. The buffers in it are slices of the chunks, which must not be written to.
 * The formats are those of `rdb.c` of Redis 7.4.
 * @throws InterlockError that names the byte where the file is broken, ends too early, or has what cannot be read
 */
export async function* readRdb(
  chunks: AsyncIterable<Buffer>,
  options: RdbOptions,
): AsyncGenerator<RdbEvent[]> {
  const window = new Window(chunks);
  const { rawLimitBytes, targetRdbVersion = NEWEST_RDB_VERSION, decode = 'where-needed' } = options;
  const { spool = null, pieceKey = null } = options;
  const entries = new EntryReader(window, { rawLimitBytes, targetRdbVersion, decode });
  try {
    for (;;) {
      const events: RdbEvent[] = [];
      const stop = entries.read(events);
      if (events.length > 0) yield events;
      if (stop === 'end') return;
      if (stop === 'more') await window.fill(window.missing);
      else yield* pieces(window, stop, { rawLimitBytes, targetRdbVersion, spool, pieceKey });
    }
  } finally {
    await window.close();
  }
}

/** The value at which the entries have stopped, piece by piece. */
async function* pieces(window: Window, value: OpenValue, options: DecodeOptions): AsyncGenerator<RdbEvent[]> {
  for (const piece of decodeValue(window, value, options)) {
    if (piece === undefined) await window.fill(window.missing);
    else yield [piece];
  }
}
