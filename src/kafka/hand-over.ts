import type { DcId, UnitId } from '../routing/units.js';
import { PartitionProgress } from './partition-progress.js';
import type { Range } from './partition-progress.js';

/** Partition → offset. */
export type Offsets = Readonly<Record<number, number>>;

/** Records of a unit that were written while one DC owned it. */
export interface Stage {
  origin: DcId;
  /** By partition of the origin: behind the last record. A partition that is not here is handled up to there. */
  to: Offsets;
}

/** What the old owner of some units leaves to the new one, of one group and topic. */
export interface HandOver {
  /** Of the fence: a later one counts more. */
  epoch: number;
  units: UnitId[];
  /** To be handled one after the other, before what is written at the new owner from now on. */
  stages: Stage[];
  /** Up to where the units' records are handled: by origin and partition, offsets of the origin. */
  from: Readonly<Record<DcId, Offsets>>;
  /** Records that may have been handled already. */
  doubtful: Readonly<Record<DcId, Readonly<Record<number, Range>>>>;
}

/**
 * What one DC knows of one group and topic: the state of every partition, its own ones and the other DC's copies, and the hand-overs that came.
 *
 * Every unit has its stages in the order of real time; a record is handled when the stages before its own are. No two records can wait for each other:
 * a record only ever waits for older ones.
 */
export class GroupProgress {
  private readonly partitions = new Map<string, PartitionProgress>();
  private readonly handOvers: HandOver[] = [];
  private readonly latest = new Map<UnitId, HandOver>();

  constructor(readonly dc: DcId) {}

  /** @param from where a partition that was never read begins */
  at(origin: DcId, partition: number, from = 0): PartitionProgress {
    const key = `${origin}/${partition}`;
    let found = this.partitions.get(key);
    if (found === undefined) {
      found = new PartitionProgress(origin, partition, origin === this.dc, from);
      this.partitions.set(key, found);
    }
    return found;
  }

  get all(): IterableIterator<PartitionProgress> {
    return this.partitions.values();
  }

  /** @param handOvers all of one epoch: a partition takes them over at once */
  add(handOvers: readonly HandOver[]): void {
    if (this.handOvers.some(({ epoch }) => epoch === handOvers[0]?.epoch)) return;
    this.handOvers.push(...handOvers);
    this.handOvers.sort((a, b) => a.epoch - b.epoch);
    for (const handOver of handOvers) {
      for (const unit of handOver.units)
        if ((this.latest.get(unit)?.epoch ?? 0) <= handOver.epoch) this.latest.set(unit, handOver);
    }
  }

  /** As if the hand-overs of an epoch had never come; a partition that has taken them over stays as it is. */
  withdraw(epoch: number): void {
    const left = this.handOvers.filter((one) => one.epoch !== epoch);
    this.handOvers.splice(0);
    this.latest.clear();
    for (const each of new Set(left.map((one) => one.epoch)))
      this.add(left.filter((one) => one.epoch === each));
  }

  /** As if the partition had never been read. */
  forget(origin: DcId, partition: number): void {
    this.partitions.delete(`${origin}/${partition}`);
  }

  /** Takes all hand-overs over that the partition has not. @returns whether there were any */
  adopt(partition: PartitionProgress): boolean {
    const due = this.handOvers.filter(({ epoch }) => epoch > partition.adopted);
    for (const handOver of due) partition.adopt(handOver);
    return due.length > 0;
  }

  /** Whether what comes before a record in its unit's stages is handled. */
  isReleased(unit: UnitId, origin: DcId, partition: number, offset: number): boolean {
    const handOver = this.latest.get(unit);
    if (handOver === undefined) return origin === this.dc;
    const own = handOver.stages.findIndex(
      (stage) => stage.origin === origin && offset < (stage.to[partition] ?? 0),
    );
    // Behind the last stage of another DC there is nothing for this one.
    if (own < 0 && origin !== this.dc) return false;
    const before = own < 0 ? handOver.stages : handOver.stages.slice(0, own);
    return before.every((stage) => this.isHandled(unit, stage, handOver.epoch));
  }

  /** Up to where a partition has to be handled for a unit, by its stages. */
  limitOf(unit: UnitId, origin: DcId, partition: number): number {
    const stages = this.latest.get(unit)?.stages ?? [];
    return Math.max(0, ...stages.filter((s) => s.origin === origin).map(({ to }) => to[partition] ?? 0));
  }

  /** The units of which the hand-overs say that something is left in a partition. */
  owed(origin: DcId, partition: number): UnitId[] {
    const progress = this.at(origin, partition);
    return [...this.latest.keys()].filter(
      (unit) => progress.positionOf(unit) < this.limitOf(unit, origin, partition),
    );
  }

  private isHandled(unit: UnitId, { origin, to }: Stage, epoch: number): boolean {
    return Object.entries(to).every(([partition, offset]) => {
      const progress = this.at(origin, Number(partition));
      return progress.adopted >= epoch && progress.positionOf(unit) >= offset;
    });
  }

  /**
   * What the units' next owner has to know. All of this DC's partitions are there, as they were committed last, and nobody commits one any more.
   * @param ends of this DC's and of the next owner's own partitions: behind the last record, after the fence held
   */
  handOver(
    units: readonly UnitId[],
    epoch: number,
    next: DcId,
    ends: Readonly<Record<DcId, Offsets>>,
  ): HandOver[] {
    for (const partition of Object.keys(ends[this.dc]!)) this.at(this.dc, Number(partition));
    for (const partition of this.partitions.values()) this.adopt(partition);
    const doubtful: Record<DcId, Record<number, Range>> = {};
    for (const { origin, partition, doubtful: range } of this.partitions.values())
      if (range !== null) (doubtful[origin] ??= {})[partition] = range;
    const groups = new Map<string, HandOver>();
    for (const unit of units) {
      const { stages, from } = this.leftOf(unit, next, ends);
      const key = JSON.stringify([stages, from]);
      const group = groups.get(key);
      if (group === undefined) groups.set(key, { epoch, units: [unit], stages, from, doubtful });
      else group.units.push(unit);
    }
    return [...groups.values()];
  }

  private leftOf(
    unit: UnitId,
    next: DcId,
    ends: Readonly<Record<DcId, Offsets>>,
  ): Pick<HandOver, 'stages' | 'from'> {
    const stages = [...(this.latest.get(unit)?.stages ?? []), { origin: this.dc, to: ends[this.dc]! }];
    const left = stages
      .map(({ origin, to }) => ({ origin, to: this.unhandled(unit, origin, to) }))
      .filter(({ to }) => Object.keys(to).length > 0);
    const from: Record<DcId, Record<number, number>> = { [this.dc]: {}, [next]: {} };
    for (const partition of Object.keys(ends[this.dc]!).map(Number))
      from[this.dc]![partition] = this.at(this.dc, partition).positionOf(unit);
    // Of the copy, what is left; else all that is there already is handled, and what comes is new.
    for (const [partition, end] of Object.entries(ends[next]!).map(([p, end]) => [Number(p), end] as const))
      from[next]![partition] = Math.min(this.at(next, partition).positionOf(unit), end);
    return { stages: left, from };
  }

  private unhandled(unit: UnitId, origin: DcId, to: Offsets): Offsets {
    return Object.fromEntries(
      Object.entries(to).filter(
        ([partition, offset]) => this.at(origin, Number(partition)).positionOf(unit) < offset,
      ),
    );
  }
}
