import type { DcId, UnitId } from '../routing/units.js';
import type { HandOver } from './hand-over.js';

/** What a DC keeps of one partition of a topic, of its own or of the other DC's copy. Offsets are those of the origin. */
export interface PartitionState {
  /** The epoch of the last hand-over that was taken over; 0: none. */
  adopted: number;
  /** All units but those of `apart` are handled up to here; null in a copy: of those there is nothing to handle. */
  position: number | null;
  /** Units that are handled up to another place. */
  apart: { position: number; units: UnitId[] }[];
  /** Records of this range that are not handled by their unit's position may have been, by a process that could not say so. */
  doubtful: Range | null;
  /** The same for the member that has written the state: while it lives, it knows. Without it: an SDK that has it in `doubtful`. */
  attempt?: Range | null;
  /** Ranges that were passed without their records, the latest last: what was there of them is not there any more. */
  gaps?: Range[];
}

/** From the first up to, and without, the last. */
export type Range = readonly [from: number, to: number];

/** So many are kept. */
const GAPS = 10;

export type Decision = 'skip' | 'hold' | 'handle';

/**
 * How far one partition is handled. One pass reads it from `start` on. A unit that may not be handled now (not open here, or an earlier stage of it is
 * not finished) is put apart where its record was met, and read again from there later: the others go on.
 */
export class PartitionProgress {
  adopted = 0;
  private position: number;
  private readonly apart = new Map<UnitId, number>();
  /** Records before the next one to be read are not handled: they need another pass. */
  private behind = new Set<UnitId>();
  doubtful: Range | null = null;
  private gaps: readonly Range[] = [];
  /** The next offset that this pass reads; null: no pass. */
  cursor: number | null = null;

  constructor(
    readonly origin: DcId,
    readonly partition: number,
    /** Of this DC's own topic. */
    readonly isLocal: boolean,
    from = 0,
  ) {
    this.position = isLocal ? from : Infinity;
  }

  positionOf(unit: UnitId): number {
    return this.apart.get(unit) ?? this.position;
  }

  get unitsApart(): IterableIterator<UnitId> {
    return this.apart.keys();
  }

  /** Takes the place of what was known; a pass has to begin anew. */
  load(state: PartitionState): void {
    this.adopted = state.adopted;
    this.position = state.position ?? Infinity;
    this.apart.clear();
    for (const { position, units } of state.apart) for (const unit of units) this.apart.set(unit, position);
    this.doubtful = doubtfulOf(state);
    this.gaps = state.gaps ?? [];
    this.cursor = null;
  }

  /** @param attempt what is handled before the next state: doubtful for who reads this one when the process is gone */
  state(attempt: Range | null = null): PartitionState {
    const groups = new Map<number, UnitId[]>();
    for (const [unit, position] of this.apart) groups.set(position, [...(groups.get(position) ?? []), unit]);
    return {
      adopted: this.adopted,
      position: this.position === Infinity ? null : this.position,
      apart: [...groups].map(([position, units]) => ({ position, units: units.sort() })),
      doubtful: this.doubtful,
      attempt,
      ...(this.gaps.length > 0 && { gaps: [...this.gaps] }),
    };
  }

  /** Takes over where the units' records are handled up to; a pass has to begin anew then. */
  adopt({ epoch, units, stages, from: origins, doubtful }: HandOver): void {
    const { origin, partition } = this;
    // A partition of our own that is newer than the hand-over: all of it is new.
    const from = origins[origin]?.[partition] ?? 0;
    const isLeft = stages.some((stage) => stage.origin === origin && from < (stage.to[partition] ?? 0));
    for (const unit of units) {
      if (this.isLocal || isLeft) this.apart.set(unit, from);
      else this.apart.delete(unit);
    }
    this.doubtful = hull(this.doubtful, doubtful[origin]?.[partition] ?? null);
    this.adopted = epoch;
    this.cursor = null;
  }

  /** @returns where a pass begins; null: there is nothing to read */
  start(isRunnable: (unit: UnitId) => boolean): number | null {
    let from = this.position;
    for (const [unit, position] of this.apart) if (position < from && isRunnable(unit)) from = position;
    this.cursor = from === Infinity ? null : from;
    this.behind = new Set([...this.apart].filter(([, position]) => position < from).map(([unit]) => unit));
    return this.cursor;
  }

  /** A unit that was put apart may be handled now: a new pass has to begin. */
  needsPass(isRunnable: (unit: UnitId) => boolean): boolean {
    if (this.cursor === null) return [...this.apart.keys()].some(isRunnable) || this.isLocal;
    for (const unit of this.behind) if (isRunnable(unit)) return true;
    return false;
  }

  /** What to do with the record that is read now. @param may it is open here, and what comes before it is handled */
  decide(offset: number, unit: UnitId, may: () => boolean): Decision {
    if (offset < this.positionOf(unit)) return 'skip';
    // Hazard: what comes behind a record that was held is never handled before it.
    if (!this.behind.has(unit) && may()) return 'handle';
    if (!this.behind.has(unit)) {
      this.apart.set(unit, offset);
      this.behind.add(unit);
    }
    return 'hold';
  }

  /** Records of it were met, or are still to be, that this pass does not handle. */
  isBehind(unit: UnitId): boolean {
    return this.behind.has(unit);
  }

  /** Notes that the records of a range are not there. */
  leave(range: Range): void {
    this.gaps = [...this.gaps, range].slice(-GAPS);
  }

  /** These may have been handled, by somebody who could not say so. */
  doubt(range: Range): void {
    this.doubtful = hull(this.doubtful, range);
  }

  isDoubtful(offset: number): boolean {
    return this.doubtful !== null && this.doubtful[0] <= offset && offset < this.doubtful[1];
  }

  /**
   * Everything before `next` was read, and decided on: of a unit that is not behind, nothing before it is left.
   * @param limitOf in a copy: up to where a unit has to be handled
   */
  passed(next: number, limitOf: (unit: UnitId) => number): void {
    for (const [unit, position] of this.apart) {
      if (this.behind.has(unit)) continue;
      if (position < next) this.apart.set(unit, next);
      if (!this.isLocal && this.positionOf(unit) >= limitOf(unit)) this.apart.delete(unit);
    }
    if (this.position < next) this.position = next;
    for (const [unit, position] of this.apart) if (position === this.position) this.apart.delete(unit);
    this.cursor = next;
    const least = Math.min(this.position, ...this.apart.values());
    if (this.doubtful !== null && this.doubtful[1] <= least) this.doubtful = null;
  }
}

/** For everybody but the member that has written it. */
function doubtfulOf({ doubtful, attempt = null }: PartitionState): Range | null {
  return hull(doubtful, attempt);
}

function hull(a: Range | null, b: Range | null): Range | null {
  if (a === null || b === null) return a ?? b;
  return [Math.min(a[0], b[0]), Math.max(a[1], b[1])];
}
