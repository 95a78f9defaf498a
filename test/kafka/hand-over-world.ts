import { GroupProgress } from '../../src/kafka/hand-over.js';
import type { HandOver } from '../../src/kafka/hand-over.js';
import { settledBy } from '../../src/kafka/consumer-records.js';
import type { StoredState } from '../../src/kafka/consumer-records.js';
import type { PartitionProgress, Range } from '../../src/kafka/partition-progress.js';

export type Act =
  | { kind: 'produce'; user: number }
  | {
      kind: 'consume';
      dc: number;
      origin: number;
      partition: number;
      records: number;
      /** What becomes of it: committed at the end; not yet; or its member dies before that. */
      end: 'commit' | 'later' | 'crash';
      /** Records behind the last one that are announced, too. */
      ahead: number;
      /** Between its records, the copy of the other DC is consumed too. */
      interleaves: boolean;
    }
  | { kind: 'crash'; dc: number; member: number }
  | {
      kind: 'switch';
      units: number[];
      outcome: 'done' | 'abort-early' | 'abort-late';
      /** The old owner's consumers commit, and say that they have stopped; else they are fenced, and what they have not committed is lost. */
      acknowledges: boolean;
    };

interface Entry {
  offset: number;
  unit: string;
  /** The ownership of its unit in which it was written. */
  era: number;
  id: string;
}

const DCS = ['dc-a', 'dc-b'] as const;
const PARTITIONS = [0, 1];
const UNITS = ['u0', 'u1', 'u2', 'u3'];

/** Two data centers with a topic of two partitions each, copied both ways, and a group of two members in each. */
export class World {
  readonly problems: string[] = [];
  private readonly logs = new Map<string, Entry[]>();
  private readonly owner = new Map(UNITS.map((unit, i) => [unit, DCS[i % 2]!]));
  private readonly era = new Map(UNITS.map((unit) => [unit, 0]));
  private readonly fenced = new Set<string>();
  private epoch = 1;
  private count = 0;
  private readonly stored = new Map<string, Map<string, StoredState>>(DCS.map((dc) => [dc, new Map()]));
  private readonly handOvers = new Map<string, HandOver[][]>(DCS.map((dc) => [dc, []]));
  /** Of each DC, two. */
  private readonly members = new Map<string, [GroupProgress, GroupProgress]>();
  private readonly handled = new Map<string, number>();
  /** By DC and partition: what its member may handle without a commit. */
  private readonly announced = new Map<string, Range | null>();
  /** A member that had something announced has died, or was fenced. */
  private isAnyLost = false;

  constructor() {
    for (const dc of DCS) {
      for (const partition of PARTITIONS) this.logs.set(`${dc}/${partition}`, []);
      this.members.set(dc, [this.begin(dc), this.begin(dc)]);
    }
  }

  perform(act: Act): void {
    switch (act.kind) {
      case 'produce':
        return this.produce(UNITS[act.user % 4]!, act.user >> 2);
      case 'consume':
        return void this.consume(
          ...([DCS[act.dc]!, DCS[act.origin]!, act.partition, act.records] as const),
          ...([act.end, act.interleaves, act.ahead] as const),
        );
      case 'crash':
        return this.crash(DCS[act.dc]!, act.member);
      case 'switch':
        return this.switch(act);
    }
  }

  private produce(unit: string, partition: number): void {
    if (this.fenced.has(unit)) return;
    const log = this.logs.get(`${this.owner.get(unit)!}/${partition}`)!;
    // Control records and compaction leave gaps.
    const offset = (log.at(-1)?.offset ?? -1) + 1 + (this.count % 3);
    log.push({ offset, unit, era: this.era.get(unit)!, id: `${unit} #${this.count++}` });
  }

  /** @param epoch of a fence whose units are to be handed over */
  private begin(dc: string, epoch?: number): GroupProgress {
    const group = new GroupProgress(dc);
    for (const handOvers of this.handOvers.get(dc)!) group.add(handOvers);
    for (const origin of DCS)
      for (const partition of PARTITIONS) this.loadInto(group, origin, partition, epoch);
    return group;
  }

  private crash(dc: string, member: number): void {
    for (const [origin, partition] of this.heldBy(member, dc)) {
      const name = `${dc} ${origin}/${partition}`;
      if (this.announced.get(name)) this.isAnyLost = true;
      this.announced.set(name, null);
    }
    this.members.get(dc)![member] = this.begin(dc);
  }

  private heldBy(member: number, dc: string): [origin: string, partition: number][] {
    return DCS.flatMap((origin) =>
      PARTITIONS.map((partition): [string, number] => [origin, partition]),
    ).filter(([origin, partition]) => (partition + (origin === dc ? 0 : 1)) % 2 === member);
  }

  /** The members of a DC commit what they have handled, and go on. */
  private settle(dc: string): void {
    for (const member of [0, 1]) {
      const group = this.members.get(dc)![member]!;
      for (const [origin, partition] of this.heldBy(member, dc)) {
        const progress = group.at(origin, partition);
        const { cursor } = progress;
        if (this.announced.get(`${dc} ${origin}/${partition}`))
          this.commit(group, progress, cursor === null ? null : [cursor, cursor + 2]);
      }
    }
  }

  private loadInto(group: GroupProgress, origin: string, partition: number, epoch = Infinity): void {
    const state = this.stored.get(group.dc)!.get(`${origin}/${partition}`);
    if (state !== undefined) group.at(origin, partition).load(settledBy(state, epoch));
    else group.at(origin, partition);
  }

  private memberOf(dc: string, origin: string, partition: number): GroupProgress {
    return this.members.get(dc)![(partition + (origin === dc ? 0 : 1)) % 2]!;
  }

  private commit(group: GroupProgress, progress: PartitionProgress, attempt: Range | null = null): void {
    const state = { ...progress.state(attempt), epoch: this.epoch };
    this.announced.set(`${group.dc} ${progress.origin}/${progress.partition}`, attempt);
    this.stored.get(group.dc)!.set(`${progress.origin}/${progress.partition}`, structuredClone(state));
    // The other member hears of it.
    for (const other of this.members.get(group.dc)!)
      if (other !== group) other.at(progress.origin, progress.partition).load(structuredClone(state));
  }

  /** @returns whether anything was read */
  private consume(
    dc: string,
    origin: string,
    partition: number,
    most: number,
    end: 'commit' | 'later' | 'crash',
    interleaves = false,
    ahead = 0,
  ): boolean {
    const group = this.memberOf(dc, origin, partition);
    const progress = group.at(origin, partition);
    const isActive = (unit: string): boolean => this.owner.get(unit) === dc && !this.fenced.has(unit);
    const isRunnable = (unit: string): boolean => {
      const at = progress.positionOf(unit);
      return isActive(unit) && group.isReleased(unit, origin, partition, at);
    };
    if (group.adopt(progress)) this.commit(group, progress);
    if (progress.needsPass(isRunnable)) progress.start(isRunnable);
    const from = progress.cursor;
    if (from === null) return false;
    const entries = this.logs.get(`${origin}/${partition}`)!.filter(({ offset }) => offset >= from);
    const batch = entries.slice(0, most);
    if (batch.length === 0) return false;
    const next = batch.at(-1)!.offset + 1;
    for (const entry of batch) {
      const { offset, unit } = entry;
      const may = (): boolean => isActive(unit) && group.isReleased(unit, origin, partition, offset);
      if (progress.decide(offset, unit, may) !== 'handle') continue;
      const announced = this.announced.get(`${dc} ${origin}/${partition}`);
      if (!announced || offset < announced[0] || offset >= announced[1]) {
        progress.passed(offset, (one) => group.limitOf(one, origin, partition));
        this.commit(group, progress, [offset, next + ahead]);
      }
      this.handle(dc, entry, `${origin}/${partition}`, progress.isDoubtful(offset));
      if (interleaves) {
        const other = origin === 'dc-a' ? 'dc-b' : 'dc-a';
        for (const p of PARTITIONS) this.consume(dc, other, p, 1, 'commit');
      }
    }
    progress.passed(next, (unit) => group.limitOf(unit, origin, partition));
    if (end === 'commit') this.commit(group, progress);
    else if (end === 'crash') this.crash(dc, this.members.get(dc)!.indexOf(group));
    else if (this.isAwaited(group, progress)) this.commit(group, progress);
    return true;
  }

  private isAwaited(group: GroupProgress, progress: PartitionProgress): boolean {
    const known = this.stored.get(group.dc)!.get(`${progress.origin}/${progress.partition}`);
    return JSON.stringify(progress.state().apart) !== JSON.stringify(known?.apart ?? []);
  }

  private handle(dc: string, entry: Entry, where: string, redelivered: boolean): void {
    const { unit, id, era, offset } = entry;
    if (this.owner.get(unit) !== dc || this.fenced.has(unit))
      this.problems.push(`${id} handled past its fence`);
    const times = this.handled.get(id) ?? 0;
    if (redelivered && !this.isAnyLost) this.problems.push(`${id} marked, and no member was lost`);
    this.handled.set(id, times + 1);
    if (times > 0) {
      if (!redelivered) this.problems.push(`${id} handled again unmarked`);
      return;
    }
    for (const [at, log] of this.logs) {
      for (const other of log) {
        if (other.unit !== unit || this.handled.has(other.id)) continue;
        if (other.era < era || (at === where && other.offset < offset))
          this.problems.push(`${id} of ${where} handled before ${other.id} of ${at}`);
      }
    }
  }

  private switch({ units, outcome, acknowledges }: Act & { kind: 'switch' }): void {
    const from = this.owner.get(UNITS[units[0]!]!)!;
    const next = from === 'dc-a' ? 'dc-b' : 'dc-a';
    const moved = units.map((i) => UNITS[i]!).filter((unit) => this.owner.get(unit) === from);
    const epoch = (this.epoch += 2);
    for (const unit of moved) this.fenced.add(unit);
    // Without a word every member is fenced, and begins anew at what was committed.
    if (acknowledges) this.settle(from);
    else for (const member of [0, 1]) this.crash(from, member);
    if (outcome !== 'abort-early') {
      const endOf = (dc: string): Record<number, number> =>
        Object.fromEntries(
          PARTITIONS.map((p) => [p, (this.logs.get(`${dc}/${p}`)!.at(-1)?.offset ?? -1) + 1]),
        );
      const ends = { [from]: endOf(from), [next]: endOf(next) };
      const left = structuredClone(this.begin(from, epoch).handOver(moved, epoch, next, ends));
      this.handOvers.get(next)!.push(left);
      for (const member of this.members.get(next)!) member.add(left);
    }
    if (outcome === 'done') {
      for (const unit of moved) {
        this.owner.set(unit, next);
        this.era.set(unit, this.era.get(unit)! + 1);
      }
    }
    for (const unit of moved) this.fenced.delete(unit);
  }

  /** Everybody reads what is left. */
  drain(atOnce: boolean): void {
    // Members commit now and then.
    for (const dc of DCS) this.settle(dc);
    for (let idle = 0; idle < 3; idle++) {
      for (const dc of DCS)
        for (const origin of DCS)
          for (const partition of PARTITIONS)
            while (this.consume(dc, origin, partition, atOnce ? 100 : 1, 'commit')) idle = 0;
    }
  }

  unhandled(): string[] {
    const entries = [...this.logs.values()].flat();
    return entries.filter(({ id }) => !this.handled.has(id)).map(({ id }) => id);
  }
}
