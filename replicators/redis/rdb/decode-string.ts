import { whole } from './decoding.js';
import type { Decoding } from './decoding.js';
import type { Argument } from './events.js';
import { Decompressor } from './lzf.js';
import { SpooledBytes } from '../spool.js';
import type { Spool } from '../spool.js';
import type { Pieces } from './pieces.js';
import type { Window } from './window.js';

type Parts = Generator<Buffer | undefined, void>;

/** So much of a compressed string is taken at a time. */
const COMPRESSED_BYTES = 64 * 1024;

/** SET with the first part of the string, APPEND with the others. */
export function* stringCommands(window: Window, pieces: Pieces): Decoding {
  let command = 'SET';
  for (const part of parts(window, pieces.limitBytes)) {
    if (part === undefined) {
      yield undefined;
      continue;
    }
    if (pieces.full) yield pieces.take();
    pieces.command(command, part);
    command = 'APPEND';
  }
}

/** An element of a collection; with a `spool`, one of more than `mostBytes` lies there. */
export function* element(window: Window, spool: Spool | null, mostBytes: number): Decoding<Argument> {
  if (spool === null || (yield* whole(window, () => window.nextStringBytes())) <= mostBytes)
    return yield* whole(window, () => window.string());
  const start = spool.end;
  for (const part of parts(window, mostBytes)) {
    if (part === undefined) yield undefined;
    else spool.append(part);
  }
  return new SpooledBytes(spool, start, spool.end);
}

/** The string, in parts: neither it nor its compressed form is in memory as a whole. Undefined: the window has to be filled. */
function* parts(window: Window, mostBytes: number): Parts {
  const first = yield* whole(window, () => {
    window.need(1);
    return window.data[window.pos]!;
  });
  if (first === 0xc3) return yield* compressed(window, mostBytes);
  if (first > 0xc3) window.bad(`byte ${first} where a string begins`);
  if (first >= 0xc0) {
    yield yield* whole(window, () => window.string());
    return;
  }
  let left = yield* whole(window, () => window.length());
  do {
    const bytes = Math.min(left, mostBytes);
    yield yield* whole(window, () => window.take(bytes));
    left -= bytes;
  } while (left > 0);
}

function* compressed(window: Window, pieceBytes: number): Parts {
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
      yield piece;
    }
  }
  const rest = decompressor.rest();
  if (rest === 'broken' || done + rest.length !== sizes.length) return broken();
  if (rest.length > 0) yield rest;
}
