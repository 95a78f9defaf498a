import { whole } from './decoding.js';
import type { Decoding } from './decoding.js';
import { Decompressor } from './lzf.js';
import type { Pieces } from './pieces.js';
import type { Window } from './window.js';

/** So much of a compressed string is taken at a time. */
const COMPRESSED_BYTES = 64 * 1024;

/** SET with the first part of the string, APPEND with the others: neither it nor its compressed form is in memory as a whole. */
export function* stringCommands(window: Window, pieces: Pieces): Decoding {
  let command = 'SET';
  function* part(bytes: Buffer): Decoding {
    if (pieces.full) yield pieces.take();
    pieces.command(command, bytes);
    command = 'APPEND';
  }
  const first = yield* whole(window, () => {
    window.need(1);
    return window.data[window.pos]!;
  });
  if (first === 0xc3) return yield* compressed(window, pieces.limitBytes, part);
  if (first > 0xc3) window.bad(`byte ${first} where a string begins`);
  if (first >= 0xc0) return yield* part(yield* whole(window, () => window.string()));
  let left = yield* whole(window, () => window.length());
  do {
    const bytes = Math.min(left, pieces.limitBytes);
    yield* part(yield* whole(window, () => window.take(bytes)));
    left -= bytes;
  } while (left > 0);
}

function* compressed(window: Window, pieceBytes: number, part: (bytes: Buffer) => Decoding): Decoding {
  const start = window.offset;
  const broken = (): never => window.badAt('a compressed string that is broken', start);
  const sizes = yield* whole(window, () => {
    window.byte();
    return { compressed: window.length(), length: window.length() };
  });
  let left = sizes.compressed;
  const decompressor = new Decompressor(pieceBytes);
  let done = 0;
  while (left > 0) {
    const bytes = Math.min(left, COMPRESSED_BYTES);
    decompressor.push(yield* whole(window, () => window.take(bytes)));
    left -= bytes;
    for (;;) {
      const piece = decompressor.next();
      if (piece === 'broken') return broken();
      if (piece === null) break;
      done += piece.length;
      if (done > sizes.length) return broken();
      yield* part(piece);
    }
  }
  const rest = decompressor.rest();
  if (rest === 'broken' || done + rest.length !== sizes.length) return broken();
  if (rest.length > 0) yield* part(rest);
}
