/** Three bytes become 264 at most. */
const MAX_EXPANSION = 88;
/** The longest that one instruction writes. */
const MAX_RUN = 264;
/** How far back an instruction reaches. */
const HISTORY_BYTES = 8192;

/** Where expanding is. `broken`: an instruction that cannot be. */
interface State {
  source: Buffer;
  from: number;
  target: Buffer;
  at: number;
  broken: boolean;
}

/** Carries out whole instructions until `source` is used up, or `stopAt` bytes of `target` are written. */
function expand(state: State, stopAt: number): void {
  const { source, target } = state;
  const end = source.length;
  const room = target.length;
  let { from, at } = state;
  while (from < end && at < stopAt) {
    const control = source[from]!;
    if (control < 32) {
      const run = control + 1;
      if (from + run >= end) break;
      if (at + run > room) {
        state.broken = true;
        break;
      }
      for (let index = 1; index <= run; index += 1) target[at++] = source[from + index]!;
      from += run + 1;
      continue;
    }
    let run = control >> 5;
    let next = from + 1;
    if (run === 7) {
      if (next >= end) break;
      run += source[next++]!;
    }
    if (next >= end) break;
    let reference = at - ((control & 31) << 8) - source[next]! - 1;
    const stop = at + run + 2;
    if (reference < 0 || stop > room) {
      state.broken = true;
      break;
    }
    // It may reach into what it writes itself: byte by byte.
    while (at < stop) target[at++] = target[reference++]!;
    from = next + 1;
  }
  state.from = from;
  state.at = at;
}

/** The `length` bytes that were compressed with LZF; null when `source` is not that. */
export function decompress(source: Buffer, length: number): Buffer | null {
  // What is allocated is bounded by what has arrived, not by what is declared.
  if (length > MAX_EXPANSION * source.length) return null;
  const state = { source, from: 0, target: Buffer.allocUnsafe(length), at: 0, broken: false };
  expand(state, Infinity);
  return !state.broken && state.from === source.length && state.at === length ? state.target : null;
}

/** Decompresses a long string piece by piece: neither form of it is in memory as a whole. */
export class Decompressor {
  private readonly state: State;
  /** Of `state.target`: where the piece begins, behind what instructions may reach back to. */
  private begin = 0;

  constructor(private readonly pieceBytes: number) {
    const target = Buffer.allocUnsafeSlow(HISTORY_BYTES + pieceBytes + MAX_RUN);
    this.state = { source: Buffer.alloc(0), from: 0, target, at: 0, broken: false };
  }

  /** More of the compressed bytes. */
  push(bytes: Buffer): void {
    const { state } = this;
    const left = state.source.subarray(state.from);
    state.source = left.length === 0 ? bytes : Buffer.concat([left, bytes]);
    state.from = 0;
  }

  /** A piece of exactly `pieceBytes`; null when more has to be pushed for it; 'broken' when the bytes are not LZF. */
  next(): Buffer | null | 'broken' {
    const { state } = this;
    expand(state, this.begin + this.pieceBytes);
    if (state.broken) return 'broken';
    if (state.at < this.begin + this.pieceBytes) return null;
    return this.cut(this.pieceBytes);
  }

  /** What is left at the end; 'broken' when the last instruction is not whole. */
  rest(): Buffer | 'broken' {
    const { state } = this;
    return state.from === state.source.length ? this.cut(state.at - this.begin) : 'broken';
  }

  private cut(bytes: number): Buffer {
    const { state } = this;
    const piece = Buffer.from(state.target.subarray(this.begin, this.begin + bytes));
    const end = this.begin + bytes;
    const keepFrom = Math.max(0, end - HISTORY_BYTES);
    state.target.copyWithin(0, keepFrom, state.at);
    state.at -= keepFrom;
    this.begin = end - keepFrom;
    return piece;
  }
}
