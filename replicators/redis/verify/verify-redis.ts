import { InterlockError } from '../../../src/errors.js';
import { Crc64 } from '../rdb/crc64.js';
import { Comparison, SHORT_LIVED } from './comparison.js';
import { writeAnew } from './repair.js';
import type { KeyOwner } from './repair.js';
import { LinkBehind, Settlement } from './settlement.js';
import type { AwaitMarker, Proven } from './settlement.js';
import { Side } from './side.js';
import type { VerifiedSide } from './side.js';
import { NOTHING_COMPARED } from './verification.js';
import type { KeyDifference, RedisVerifyProgress, VerifyMode } from './verification.js';
import { shown } from './values.js';

export interface VerifyRedisOptions {
  source: VerifiedSide;
  target: VerifiedSide;
  mode: VerifyMode;
  /** Of `sample`: the share of the keys, 0 to 1; the same keys each time. */
  sample?: number;
  /** Which keys the links carry, and are asked for; all when absent. Keys of Interlock are never compared. */
  carried?: (db: number, key: Buffer) => boolean;
  /** Absolute times of expiry may be so far apart. */
  expiryToleranceMs?: number;
  /** Keys that live shorter are left out by the links: one that one side lacks is no difference. */
  minTtlMs?: number;
  /** How often a key that differs is looked at, when it is written in the meantime. */
  rounds?: number;
  awaitMarker: AwaitMarker;
  ownerOf: (db: number, key: Buffer) => KeyOwner;
  /** What differs is written anew by its owner. */
  repair?: boolean;
  /** So many differences, of so many characters as JSON, are kept; the rest is counted. */
  keep?: number;
  keepLength?: number;
  /** Keys that are asked of SCAN at a time. */
  batchKeys?: number;
  /** After each batch: all that is decided up to `cursor`. */
  onProgress?: (progress: RedisVerifyProgress) => void;
  signal: AbortSignal;
}

const CONTROL_KEYS = Buffer.from('interlock:');
/** Data sets that are other altogether are not proven key by key to their end. */
const MOST_DIFFERING = 10_000;

/**
 * Compares the keys of two servers between which links run, while they are written, from `from` on until it is done, `sliceMs` have passed or the
 * signal is aborted; answers how far it is. Whatever ends it, the last answer or `onProgress` is where another one goes on: at the batch it was at.
 * @throws InterlockError Unavailable (retryable) when a server does not answer, Refused when one does not let it read, BadInput
 */
export async function verifyRedis(
  options: VerifyRedisOptions,
  from: RedisVerifyProgress = NOTHING_COMPARED,
  sliceMs = Infinity,
): Promise<RedisVerifyProgress> {
  const { mode, sample } = options;
  if (mode === 'sample' && !(sample !== undefined && sample > 0 && sample <= 1)) {
    throw new InterlockError(
      'BadInput',
      `sample: ${String(sample)} is no share of the keys (above 0, up to 1)`,
      {
        details: { field: 'sample', value: sample },
      },
    );
  }
  return new Verifier(options, from, sliceMs).run();
}

class Verifier {
  private readonly sides: readonly [Side, Side];
  private readonly comparison: Comparison;
  private readonly settlement: Settlement;
  private databases: Map<number, number>[] = [];

  constructor(
    private readonly options: VerifyRedisOptions,
    private progress: RedisVerifyProgress,
    private readonly sliceMs: number,
  ) {
    const {
      source,
      target,
      mode,
      expiryToleranceMs = 1_000,
      minTtlMs = 3_000,
      awaitMarker,
      rounds = 5,
    } = options;
    this.sides = [new Side(source, options.signal), new Side(target, options.signal)];
    this.comparison = new Comparison(this.sides, { mode, expiryToleranceMs, minTtlMs });
    this.settlement = new Settlement(this.sides, this.comparison, awaitMarker, rounds);
  }

  async run(): Promise<RedisVerifyProgress> {
    try {
      await this.compare();
    } catch (error) {
      if (error instanceof LinkBehind) this.advance({ done: true, notComparable: error.message });
      else if (!this.options.signal.aborted) throw error;
    }
    return this.progress;
  }

  private async compare(): Promise<void> {
    const { options } = this;
    this.databases = await Promise.all(this.sides.map((side) => side.open()));
    const estimated = this.databases.flatMap((one) => [...one.values()]).reduce((sum, keys) => sum + keys, 0);
    const changed = this.changedServer();
    if (changed !== undefined) return this.advance({ done: true, notComparable: changed });
    if (this.progress.estimated === 0) this.advance({ estimated });
    // A batch is never cut by the slice: one that takes longer would never come to its end.
    const end = performance.now() + this.sliceMs;
    while (!this.progress.done && !options.signal.aborted) {
      const began = performance.now();
      await this.batch();
      this.advance({ activeMs: this.progress.activeMs + performance.now() - began });
      options.onProgress?.(this.progress);
      if (performance.now() >= end) return;
    }
  }

  /**
   * Hazard: a server that was restarted, or another one in its place, orders its keys otherwise: SCAN goes on at the cursor of before and leaves keys
   * out; and what was compared before may be lost there. A connection outlives neither, so that it is enough to look when it is made.
   */
  private changedServer(): string | undefined {
    const [source, target] = this.sides;
    const before = this.progress.servers;
    if (before === null) {
      this.advance({ servers: [source.runId, target.runId] });
      return undefined;
    }
    const at = this.sides.findIndex(({ runId }, index) => runId !== before[index]);
    if (at === -1) return undefined;
    const { dc, runId } = this.sides[at]!;
    return `another server answers in ${dc} than when the comparison began (run ${runId}, before ${before[at]}: it was restarted, or a replica was promoted): what was compared before counts no longer; verify again`;
  }

  private async batch(): Promise<void> {
    const { progress, options } = this;
    const { db, side } = progress;
    const scanning = this.sides[side === 'source' ? 0 : 1];
    const present = this.databases[side === 'source' ? 0 : 1]!;
    if (!present.has(db)) return this.nextDatabase({});
    const [reply] = await scanning.ask(db, [['SCAN', progress.cursor, 'COUNT', options.batchKeys ?? 1_000]]);
    const [cursor, found] = reply as [Buffer, Buffer[]];
    const keys = await this.chosen(db, found);
    const first = await this.comparison.compare(db, keys);
    const unlike = keys.filter((_, index) => first[index] !== null && first[index] !== SHORT_LIVED);
    const settled = unlike.length === 0 ? null : await this.settlement.settle(db, unlike);
    const differences = settled === null ? [] : await this.differences(db, settled.proven);
    const shortLived = first.filter((one) => one === SHORT_LIVED).length + (settled?.shortLived ?? 0);
    const counted = this.progress;
    const next: Partial<RedisVerifyProgress> = {
      scanned: counted.scanned + found.length,
      compared: counted.compared + keys.length,
      again: counted.again + unlike.length,
      shortLived: counted.shortLived + shortLived,
      undecided: counted.undecided + (settled?.undecided ?? 0),
      differing: counted.differing + differences.length,
      repaired: counted.repaired + differences.filter(({ repaired }) => repaired).length,
      unowned: counted.unowned + differences.filter(({ owner }) => owner === null).length,
      differences: this.kept(differences),
    };
    if (options.repair !== true && next.differing! > MOST_DIFFERING)
      this.advance({ ...next, done: true, cut: true });
    else if (cursor.toString() === '0') this.nextDatabase(next);
    else this.advance({ ...next, cursor: cursor.toString() });
  }

  /** Of those that SCAN gave (some twice): the ones that are to be compared; of the target's, those that the source does not have. */
  private async chosen(db: number, found: readonly Buffer[]): Promise<Buffer[]> {
    const { options, progress } = this;
    const once = [...new Map(found.map((key) => [key.toString('latin1'), key])).values()];
    const wanted = once.filter(
      (key) =>
        !key.subarray(0, CONTROL_KEYS.length).equals(CONTROL_KEYS) &&
        (options.mode !== 'sample' || shareOf(key) < options.sample!) &&
        (options.carried?.(db, key) ?? true),
    );
    if (progress.side === 'source') return wanted;
    const exists = await this.sides[0].ask(
      db,
      wanted.map((key) => ['EXISTS', key]),
    );
    return wanted.filter((_, index) => exists[index] === 0);
  }

  private nextDatabase(next: Partial<RedisVerifyProgress>): void {
    const { side, db } = this.progress;
    const index = side === 'source' ? 0 : 1;
    const later = [...this.databases[index]!.keys()].filter((one) => one > db).sort((a, b) => a - b);
    if (later[0] !== undefined) this.advance({ ...next, db: later[0], cursor: '0' });
    else if (index === 0) this.advance({ ...next, side: 'target', db: 0, cursor: '0' });
    else this.advance({ ...next, done: true, cursor: '0' });
  }

  private async differences(db: number, proven: readonly Proven[]): Promise<KeyDifference[]> {
    const { options } = this;
    const differences = proven.map(({ key, unlike }): KeyDifference => {
      const { unit, owner } = options.ownerOf(db, key);
      return { db, key: shown(key), keyHex: key.toString('hex'), ...unlike, unit, owner, repaired: false };
    });
    if (options.repair !== true) return differences;
    const written: number[] = [];
    for (const [index, difference] of differences.entries()) {
      const side = this.sides.find(({ dc }) => dc === difference.owner);
      const refusal =
        side === undefined
          ? 'nobody owns it: mend it by hand'
          : await writeAnew(side, db, proven[index]!.key, difference.unit);
      if (refusal === undefined) written.push(index);
      else difference.notRepaired = refusal;
    }
    if (written.length === 0) return differences;
    await this.settlement.pass();
    const after = await this.comparison.compare(
      db,
      written.map((index) => proven[index]!.key),
    );
    for (const [at, index] of written.entries()) {
      const difference = differences[index]!;
      difference.repaired = after[at] === null || after[at] === SHORT_LIVED;
      if (difference.repaired) continue;
      difference.notRepaired =
        'its owner wrote it anew, and it differs still: verify again, and look at the conflicts of the link';
    }
    return differences;
  }

  /** A key may be longer than a report can carry: it is counted then, and not kept. */
  private kept(found: readonly KeyDifference[]): KeyDifference[] {
    const { keep = 100, keepLength = Infinity } = this.options;
    const kept = [...this.progress.differences];
    let length = JSON.stringify(kept).length;
    for (const difference of found) {
      const more = JSON.stringify(difference).length + 1;
      if (kept.length >= keep || length + more > keepLength) continue;
      kept.push(difference);
      length += more;
    }
    return kept;
  }

  private advance(next: Partial<RedisVerifyProgress>): void {
    this.progress = { ...this.progress, ...next };
  }
}

const crc = new Crc64();

/** 0 to 1, evenly, by the key alone. */
function shareOf(key: Buffer): number {
  crc.reset().update(key);
  return (crc.high >>> 0) / 2 ** 32;
}
