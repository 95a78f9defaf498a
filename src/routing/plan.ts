import { InterlockError } from '../errors.js';
import { Router, unitsOf, withAssignments } from './rules.js';
import type { Assignment, Holder, Rules } from './rules.js';
import { formatBuckets, groupUnits } from './scope.js';
import { BUCKETS, parseUnit } from './units.js';
import type { DcId, UnitId } from './units.js';

/** One unit whose owner or state differs between two rules. */
export interface UnitDifference {
  unit: UnitId;
  before: Assignment | undefined;
  after: Assignment | undefined;
}

/** The units whose owner or state differs, in the stable order of unitsOf. */
export function diffRules(before: Rules, after: Rules): UnitDifference[] {
  const a = new Router(before);
  const b = new Router(after);
  const differences: UnitDifference[] = [];
  for (const unit of new Set([...unitsOf(before), ...unitsOf(after)])) {
    const left = a.assignmentOf(unit);
    const right = b.assignmentOf(unit);
    if (left?.owner === right?.owner && left?.state === right?.state) continue;
    differences.push({ unit, before: bare(left), after: bare(right) });
  }
  return differences;
}

/** Ranges and segments carry more than their assignment. */
function bare(assignment: Assignment | undefined): Assignment | undefined {
  return assignment && { owner: assignment.owner, state: assignment.state };
}

/**
 * A diff for people, one line per region and kind of change: `cn-east buckets 0–99: dc-a → dc-b (10.0 %)`. The share is that of the
 * region's buckets. A change of state alone reads `cn-east buckets 0–99: dc-a write-disabled (10.0 %)`.
 */
export function renderDiff(before: Rules, after: Rules): string[] {
  const byChange = new Map<string, UnitId[]>();
  for (const { unit, before: left, after: right } of diffRules(before, after)) {
    const change = changeText(left, right);
    const units = byChange.get(change);
    if (units) units.push(unit);
    else byChange.set(change, [unit]);
  }
  const lines: string[] = [];
  for (const [change, units] of byChange) {
    const { buckets, named } = groupUnits(units);
    for (const [region, list] of buckets) {
      const noun = list.length === 1 ? 'bucket' : 'buckets';
      lines.push(`${region} ${noun} ${formatBuckets(list)}: ${change} (${percent(list.length / BUCKETS)})`);
    }
    for (const unit of named) lines.push(`${nameOf(unit)}: ${change}`);
  }
  return lines.sort();
}

function changeText(before: Assignment | undefined, after: Assignment | undefined): string {
  if (before === undefined) return `new, ${after!.owner}`;
  if (after === undefined) return `removed, was ${before.owner}`;
  const fenced = after.state === 'write_disabled';
  if (before.owner === after.owner) return `${after.owner} ${fenced ? 'write-disabled' : 'open again'}`;
  return `${before.owner} → ${after.owner}${fenced ? ', write-disabled' : ''}`;
}

function nameOf(unit: UnitId): string {
  const parsed = parseUnit(unit);
  if (parsed === undefined || parsed.kind === 'bucket') return unit;
  return `${parsed.kind} ${parsed.name}`;
}

function percent(share: number): string {
  return `${(share * 100).toFixed(1)} %`;
}

/**
 * The rules in which `units` are write-disabled at their present owner.
 * @throws InterlockError StaleEpoch: `epoch` is not above that of `rules`. BadInput: a unit is not in the rules.
 */
export function fenceRules(
  rules: Rules,
  units: readonly UnitId[],
  epoch: number,
  holder: Holder,
  reason: string,
): Rules {
  const changes = change(rules, units, epoch, ({ owner }) => ({ owner, state: 'write_disabled' }));
  return withAssignments(rules, changes, { epoch, reason, holder });
}

/**
 * The rules in which `units` are open at `to`.
 * @throws InterlockError StaleEpoch, BadInput: as fenceRules.
 */
export function switchRules(
  rules: Rules,
  units: readonly UnitId[],
  to: DcId,
  epoch: number,
  reason: string,
): Rules {
  const changes = change(rules, units, epoch, () => ({ owner: to, state: 'open' }));
  return withAssignments(rules, changes, { epoch, reason, holder: remainingHolder(rules, changes) });
}

/**
 * The rules in which `units` are open at their present owner again.
 * @throws InterlockError StaleEpoch, BadInput: as fenceRules.
 */
export function reopenRules(rules: Rules, units: readonly UnitId[], epoch: number, reason: string): Rules {
  const changes = change(rules, units, epoch, ({ owner }) => ({ owner, state: 'open' }));
  return withAssignments(rules, changes, { epoch, reason, holder: remainingHolder(rules, changes) });
}

function change(
  rules: Rules,
  units: readonly UnitId[],
  epoch: number,
  to: (assignment: Assignment) => Assignment,
): Map<UnitId, Assignment> {
  if (!Number.isSafeInteger(epoch) || epoch <= rules.epoch) {
    throw new InterlockError(
      'StaleEpoch',
      `epoch ${epoch} is not above ${rules.epoch}, that of the rules it changes`,
      {
        details: { epoch, current: rules.epoch },
      },
    );
  }
  const router = new Router(rules);
  const changes = new Map<UnitId, Assignment>();
  for (const unit of units) {
    const assignment = router.assignmentOf(unit);
    if (assignment === undefined) {
      throw new InterlockError(
        'BadInput',
        `unit ${JSON.stringify(unit)} is not in the rules of epoch ${rules.epoch}`,
        {
          details: { field: 'units', value: unit },
        },
      );
    }
    changes.set(unit, to(assignment));
  }
  return changes;
}

/** Hazard: opening some of a holder's units must not forget who holds the rest. */
function remainingHolder(rules: Rules, opened: ReadonlyMap<UnitId, Assignment>): Holder | null {
  if (rules.holder === null) return null;
  const router = new Router(rules);
  const held = unitsOf(rules).some(
    (unit) => router.assignmentOf(unit)!.state === 'write_disabled' && !opened.has(unit),
  );
  return held ? rules.holder : null;
}

/** What a data center owns, and how much of it is write-disabled now. */
export interface Share {
  owner: DcId;
  units: number;
  writeDisabled: number;
}

/** How the units are spread over the data centers. */
export interface BalanceReport {
  epoch: number;
  /** Every bucket counts the same, whatever its region. */
  dcs: (Share & { buckets: number; /** Of all buckets, 0 to 1. */ share: number })[];
  regions: Record<string, (Share & { share: number })[]>;
  segments: Record<string, Assignment & { members: number }>;
  central: Record<string, Assignment>;
}

export function balanceOf(rules: Rules): BalanceReport {
  const router = new Router(rules);
  const dcs = new Map<DcId, { units: number; writeDisabled: number; buckets: number }>();
  const regions: BalanceReport['regions'] = {};
  let buckets = 0;
  const count = new Map<string, Map<DcId, { units: number; writeDisabled: number }>>();
  for (const unit of unitsOf(rules)) {
    const { owner, state } = router.assignmentOf(unit)!;
    const parsed = parseUnit(unit)!;
    const dc = dcs.get(owner) ?? { units: 0, writeDisabled: 0, buckets: 0 };
    dcs.set(owner, dc);
    dc.units++;
    if (state === 'write_disabled') dc.writeDisabled++;
    if (parsed.kind !== 'bucket') continue;
    dc.buckets++;
    buckets++;
    const region = count.get(parsed.region) ?? new Map<DcId, { units: number; writeDisabled: number }>();
    count.set(parsed.region, region);
    const share = region.get(owner) ?? { units: 0, writeDisabled: 0 };
    region.set(owner, share);
    share.units++;
    if (state === 'write_disabled') share.writeDisabled++;
  }
  for (const [region, shares] of count) {
    regions[region] = [...shares]
      .map(([owner, s]) => ({ owner, ...s, share: s.units / BUCKETS }))
      .sort(byOwner);
  }
  return {
    epoch: rules.epoch,
    dcs: [...dcs]
      .map(([owner, s]) => ({ owner, ...s, share: buckets === 0 ? 0 : s.buckets / buckets }))
      .sort(byOwner),
    regions,
    segments: Object.fromEntries(
      Object.entries(rules.segments).map(([name, { owner, state, members }]) => [
        name,
        { owner, state, members: members.length },
      ]),
    ),
    central: Object.fromEntries(
      Object.entries(rules.central).map(([name, { owner, state }]) => [name, { owner, state }]),
    ),
  };
}

function byOwner(a: { owner: string }, b: { owner: string }): number {
  return a.owner < b.owner ? -1 : 1;
}

/** A balance report for people, one line per data center and region: `cn-east: dc-a 90.0 %, dc-b 10.0 %`. */
export function renderBalance(report: BalanceReport): string[] {
  const shares = (list: readonly { owner: string; share: number; writeDisabled: number }[]): string =>
    list
      .map(
        (s) =>
          `${s.owner} ${percent(s.share)}${s.writeDisabled > 0 ? ` (${s.writeDisabled} write-disabled)` : ''}`,
      )
      .join(', ');
  return [
    `all buckets: ${shares(report.dcs)}`,
    ...Object.entries(report.regions).map(([region, list]) => `${region}: ${shares(list)}`),
    ...Object.entries(report.segments).map(
      ([name, s]) =>
        `segment ${name}: ${s.owner}${s.state === 'write_disabled' ? ' (write-disabled)' : ''}, ${s.members} members`,
    ),
    ...Object.entries(report.central).map(
      ([name, s]) => `central ${name}: ${s.owner}${s.state === 'write_disabled' ? ' (write-disabled)' : ''}`,
    ),
  ];
}
