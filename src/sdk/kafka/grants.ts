import type { Router } from '../../routing/rules.js';
import type { DcId, UnitId } from '../../routing/units.js';
import { isWritable } from './writable.js';

/**
 * Which units a member may handle: those that the rules give it now, and that it had by every rules document since the last one whose hand-overs it has
 * read. Rules that only take units away need no hand-over: a fence costs nothing here.
 */
export class Grants {
  /** All hand-overs that belong to these rules are read. */
  private read: Router | undefined;
  private since: Router[] = [];

  constructor(private readonly dc: DcId) {}

  /** Every document, in the order of their epochs. */
  learned(router: Router): void {
    this.since.push(router);
    this.collapse();
  }

  /** What was in the topic of the hand-overs when these rules were known is read. */
  readUpTo(router: Router): void {
    if (this.read !== undefined && this.read.epoch >= router.epoch) return;
    this.read = router;
    this.since = this.since.filter(({ epoch }) => epoch > router.epoch);
    this.collapse();
  }

  /** Hand-overs have to be read before all that the rules give is allowed. */
  get isDue(): boolean {
    return this.read === undefined || this.since.length > 0;
  }

  allows(unit: UnitId): boolean {
    const { read, since, dc } = this;
    return (
      read !== undefined &&
      isWritable(unit, read, dc) &&
      since.every((router) => isWritable(unit, router, dc))
    );
  }

  private collapse(): void {
    while (this.read !== undefined && this.since.length > 0) {
      const next = this.since[0]!;
      if (next.epoch > this.read.epoch) {
        if (givesMore(this.read, next, this.dc)) return;
        this.read = next;
      }
      this.since.shift();
    }
  }
}

/** Whether a DC may write a unit by the second rules that it may not by the first. */
export function givesMore(first: Router, second: Router, dc: DcId): boolean {
  const [before, after] = [first.rules, second.rules];
  // The same unit may be that of other users.
  if (before.mappingVersion !== after.mappingVersion) return true;
  const has = (one: { owner: DcId; state: string } | undefined): boolean =>
    one?.owner === dc && one.state === 'open';
  for (const [region, ranges] of Object.entries(after.regions)) {
    // Ranges are normalised: what is covered, is so by one.
    const covered = (before.regions[region] ?? []).filter(has);
    for (const { from, to } of ranges.filter(has))
      if (!covered.some((range) => range.from <= from && to <= range.to)) return true;
  }
  return (['segments', 'central'] as const).some((kind) =>
    Object.entries(after[kind]).some(([name, unit]) => has(unit) && !has(before[kind][name])),
  );
}
