import type { DcId } from '../../../src/routing/units.js';
import { SHORT_LIVED } from './comparison.js';
import type { Comparison, Unlike } from './comparison.js';
import type { Side } from './side.js';

/** So many keys are watched and proven together. */
const GROUP_KEYS = 64;

/**
 * Writes a marker into the store of `from`, and waits until the link from there has brought it, and so all before it, to the other side. False: it
 * has not in the time that the caller gives it. Where nothing is carried from `from`, there is nothing to wait for: true.
 */
export type AwaitMarker = (from: DcId) => Promise<boolean>;

export interface Proven {
  key: Buffer;
  unlike: Unlike;
}

export interface Settled {
  /** Neither side has written the key while all that was under way arrived, and they differ. */
  proven: Proven[];
  shortLived: number;
  /** Keys that are written all the while. */
  undecided: number;
}

/** Without its links, nothing that differs can be decided. */
export class LinkBehind extends Error {
  constructor() {
    super('a link did not bring a marker to the other side in time; look at interlock replicate status');
  }
}

/**
 * Decides keys that differed at first sight.
 *
 * Hazard: a key may differ because a write is on its way, or because the two sides were not read at one moment. Guard: both sides WATCH it, it is read,
 * markers pass both ways, and EXEC says whether anything has written it on either side since: if not, what was read is what both have, and nothing of
 * it is under way.
 */
export class Settlement {
  constructor(
    private readonly sides: readonly [Side, Side],
    private readonly comparison: Comparison,
    private readonly awaitMarker: AwaitMarker,
    /** How often a key is looked at that is written in the meantime. */
    private readonly rounds: number,
  ) {}

  async settle(db: number, keys: readonly Buffer[]): Promise<Settled> {
    const settled: Settled = { proven: [], shortLived: 0, undecided: 0 };
    // Most are on their way: they need no watching.
    await this.pass();
    const { left } = await this.unlike(db, keys, settled);
    for (let at = 0; at < left.length; at += GROUP_KEYS) {
      await this.prove(db, left.slice(at, at + GROUP_KEYS), this.rounds, settled);
    }
    return settled;
  }

  /** All that either side has written so far is on the other. @throws LinkBehind */
  async pass(): Promise<void> {
    const passed = await Promise.all(this.sides.map((side) => this.awaitMarker(side.dc)));
    if (!passed.every(Boolean)) throw new LinkBehind();
  }

  /** Those that still differ, each with what. */
  private async unlike(
    db: number,
    keys: readonly Buffer[],
    settled: Settled,
  ): Promise<{ left: Buffer[]; proven: Proven[] }> {
    const found = await this.comparison.compare(db, keys);
    const proven: Proven[] = [];
    for (const [index, unlike] of found.entries()) {
      if (unlike === SHORT_LIVED) settled.shortLived += 1;
      else if (unlike !== null) proven.push({ key: keys[index]!, unlike });
    }
    return { left: proven.map(({ key }) => key), proven };
  }

  private async prove(db: number, keys: readonly Buffer[], rounds: number, settled: Settled): Promise<void> {
    const { sides } = this;
    await Promise.all(sides.map((side) => side.ask(db, [['UNWATCH'], ['WATCH', ...keys]])));
    const { left, proven } = await this.unlike(db, keys, settled);
    if (left.length === 0) return;
    await this.pass();
    const executed = await Promise.all(sides.map((side) => side.ask(db, [['MULTI'], ['EXEC']])));
    if (executed.every(([, answer]) => answer !== null)) {
      settled.proven.push(...proven);
      return;
    }
    // One that is written does not keep the others from being decided.
    if (left.length > 1) {
      const half = Math.ceil(left.length / 2);
      await this.prove(db, left.slice(0, half), rounds, settled);
      await this.prove(db, left.slice(half), rounds, settled);
    } else if (rounds > 1) await this.prove(db, left, rounds - 1, settled);
    else settled.undecided += 1;
  }
}
