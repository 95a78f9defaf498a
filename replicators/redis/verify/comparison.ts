import type { Reply } from '../resp/reply-reader.js';
import type { Command, Side } from './side.js';
import type { VerifyMode } from './verification.js';
import { PART_BYTES, both, lengthCommand, partsDifference, wholeCommand, wholeDifference } from './values.js';

/** Values that are read whole, together. */
const GROUP_BYTES = 8 * PART_BYTES;

export interface Unlike {
  what: 'missing' | 'type' | 'length' | 'value' | 'expiry';
  detail: string;
}

/** One key lives too short to be carried: one side lacks it, and the other soon does. */
export const SHORT_LIVED = 'short-lived';

export interface ComparisonOptions {
  mode: VerifyMode;
  expiryToleranceMs: number;
  /** Keys that live shorter are left out by the links. */
  minTtlMs: number;
}

interface Facts {
  type: string;
  expireAtMs: number | null | undefined;
  length: number;
  bytes: number;
}

const NONE = 'none';

/** Compares keys of both sides as they are at this moment. */
export class Comparison {
  constructor(
    private readonly sides: readonly [Side, Side],
    private readonly options: ComparisonOptions,
  ) {}

  /** For each key: null when it is the same on both sides (or on neither), else what is not. */
  async compare(db: number, keys: readonly Buffer[]): Promise<(Unlike | typeof SHORT_LIVED | null)[]> {
    const [left, right] = this.sides;
    const [a, b] = await Promise.all([this.types(left, db, keys), this.types(right, db, keys)]);
    const results = await Promise.all(
      keys.map(async (key, index) => this.presence(db, key, a[index]!, b[index]!)),
    );
    const { mode } = this.options;
    const open = keys.flatMap((_, index) =>
      results[index] === null && a[index] !== NONE && mode !== 'existence' ? [index] : [],
    );
    const [ours, theirs] = await Promise.all([
      this.facts(left, db, keys, a, open),
      this.facts(right, db, keys, b, open),
    ]);
    const values: number[] = [];
    for (const index of open) {
      results[index] = this.factsDifference(ours.get(index)!, theirs.get(index)!);
      if (results[index] === null && mode !== 'length') values.push(index);
    }
    const sizes = values.map((index) => ({ index, ...larger(ours.get(index)!, theirs.get(index)!) }));
    await this.values(db, keys, sizes, results);
    return results;
  }

  private async types(side: Side, db: number, keys: readonly Buffer[]): Promise<string[]> {
    const replies = await side.ask(
      db,
      keys.map((key) => ['TYPE', key]),
    );
    return replies.map(String);
  }

  private async presence(
    db: number,
    key: Buffer,
    a: string,
    b: string,
  ): Promise<Unlike | typeof SHORT_LIVED | null> {
    if (a === b) return null;
    const [left, right] = this.sides;
    if (a !== NONE && b !== NONE) {
      return { what: 'type', detail: `${a} in ${left.dc}, ${b} in ${right.dc}` };
    }
    const [has, lacks] = a === NONE ? [right, left] : [left, right];
    const life = await has.lifeLeft(db, key);
    if (life !== null && life < this.options.minTtlMs) return SHORT_LIVED;
    return { what: 'missing', detail: `${lacks.dc} does not have it, ${has.dc} has a ${a === NONE ? b : a}` };
  }

  /** Of the keys at `open`. */
  private async facts(
    side: Side,
    db: number,
    keys: readonly Buffer[],
    types: readonly string[],
    open: readonly number[],
  ): Promise<Map<number, Facts>> {
    const expiries = await side.expiries(
      db,
      open.map((index) => keys[index]!),
    );
    const commands = open.flatMap((index): Command[] => [
      lengthCommand(types[index]!, keys[index]!) ?? ['EXISTS', keys[index]!],
      ['MEMORY', 'USAGE', keys[index]!],
    ]);
    const replies = await side.ask(db, commands);
    return new Map(
      open.map((index, at) => {
        const [length, bytes] = [replies[2 * at]!, replies[2 * at + 1]!].map(Number);
        return [index, { type: types[index]!, expireAtMs: expiries[at], length: length!, bytes: bytes! }];
      }),
    );
  }

  private factsDifference(a: Facts, b: Facts): Unlike | null {
    const [left, right] = this.sides;
    if (a.length !== b.length) {
      const what = 'length';
      return { what, detail: `length ${a.length} in ${left.dc}, ${b.length} in ${right.dc}` };
    }
    const apart = Math.abs((a.expireAtMs ?? -Infinity) - (b.expireAtMs ?? -Infinity));
    if (a.expireAtMs === b.expireAtMs || apart <= this.options.expiryToleranceMs) return null;
    const when = ({ expireAtMs }: Facts): string =>
      typeof expireAtMs === 'number' ? `expires at ${new Date(expireAtMs).toISOString()}` : 'does not expire';
    return { what: 'expiry', detail: `${when(a)} in ${left.dc}, ${when(b)} in ${right.dc}` };
  }

  /** Small values are read in groups, long ones part by part. */
  private async values(
    db: number,
    keys: readonly Buffer[],
    sizes: readonly (Facts & { index: number })[],
    results: (Unlike | typeof SHORT_LIVED | null)[],
  ): Promise<void> {
    let group: { index: number; type: string; command: Command }[] = [];
    let bytes = 0;
    const readGroup = async (): Promise<void> => {
      const [a, b] = await both(
        this.sides,
        db,
        group.map(({ command }) => command),
      );
      for (const [at, { index, type }] of group.entries())
        results[index] = this.wholeValues(type, a[at]!, b[at]!);
      group = [];
      bytes = 0;
    };
    for (const size of sizes) {
      const key = keys[size.index]!;
      const command = wholeCommand(size.type, key);
      if (command === undefined || size.bytes > PART_BYTES) {
        const where = await partsDifference(this.sides, db, key, size.type, size);
        if (where !== null) results[size.index] = { what: 'value', detail: `${where} differs` };
        continue;
      }
      group.push({ index: size.index, type: size.type, command });
      bytes += size.bytes;
      if (bytes > GROUP_BYTES) await readGroup();
    }
    await readGroup();
  }

  private wholeValues(type: string, a: Reply, b: Reply): Unlike | null {
    const where = wholeDifference(type, a, b);
    return where === null ? null : { what: 'value', detail: `${where} differs` };
  }
}

function larger(a: Facts, b: Facts): Facts {
  return a.bytes >= b.bytes ? a : b;
}
