import { BUCKETS, bucketOf, bucketUnit, centralUnit, parseUnit, segmentUnit } from './units.js';
import type { DcId, RoutingKey, UnitId } from './units.js';

/** `write_disabled`: fenced at `owner`, gateways hold its unsafe requests. */
export type AssignmentState = 'open' | 'write_disabled';

export interface Assignment {
  owner: DcId;
  state: AssignmentState;
}

/** Buckets `from` to `to`, both included. */
export interface BucketRange extends Assignment {
  from: number;
  to: number;
}

export interface Segment extends Assignment {
  /** User ids, sorted, no duplicates. */
  members: string[];
}

/** One Temporal workflow run. */
export interface Holder {
  workflowId: string;
  runId: string;
}

/**
 * The rules of a topology at one epoch: users → units → owners. Immutable; a change is a new document with a higher epoch.
 * Ranges of a region are sorted, disjoint, cover 0–999, and neighbours differ (normalised).
 */
export interface Rules {
  format: 1;
  topology: string;
  epoch: number;
  /** Version of the user → unit mapping as a whole; raised when segment members, a user's region or the hash change. */
  mappingVersion: number;
  /** Mapping version of the units whose membership changed after version 1; all others have 1. */
  unitMappingVersions: Record<UnitId, number>;
  defaultRegion: string;
  regions: Record<string, BucketRange[]>;
  segments: Record<string, Segment>;
  central: Record<string, Assignment>;
  /** The switchover run that holds the write-disabled units; null when none is. */
  holder: Holder | null;
  reason: string;
}

export interface Route extends Assignment {
  unit: UnitId;
  epoch: number;
  mappingVersion: number;
}

/** Rules compiled for lookups: build once per epoch, use per request. */
export class Router {
  readonly rules: Rules;
  private readonly segmentOfUser = new Map<string, string>();
  private readonly owners = new Map<string, BucketRange[]>();

  constructor(rules: Rules) {
    this.rules = rules;
    for (const name of Object.keys(rules.segments).sort()) {
      for (const member of rules.segments[name]!.members) {
        if (!this.segmentOfUser.has(member)) this.segmentOfUser.set(member, name);
      }
    }
    for (const [region, ranges] of Object.entries(rules.regions)) {
      const byBucket = new Array<BucketRange>(BUCKETS);
      for (const range of ranges) byBucket.fill(range, range.from, range.to + 1);
      this.owners.set(region, byBucket);
    }
  }

  get epoch(): number {
    return this.rules.epoch;
  }

  /** The unit of a routing key; undefined when its region is not routed. Segments win over region and bucket. */
  unitOf(key: RoutingKey): UnitId | undefined {
    const segment = this.segmentOfUser.get(key.userId);
    if (segment !== undefined) return segmentUnit(segment);
    const region = key.region ?? this.rules.defaultRegion;
    if (!this.owners.has(region)) return undefined;
    return bucketUnit(region, bucketOf(key.userId));
  }

  /** Owner and state of a unit; undefined when the rules do not have it. */
  assignmentOf(unit: UnitId): Assignment | undefined {
    const parsed = parseUnit(unit);
    if (parsed === undefined) return undefined;
    if (parsed.kind === 'segment') return own(this.rules.segments, parsed.name);
    if (parsed.kind === 'central') return own(this.rules.central, parsed.name);
    return this.owners.get(parsed.region)?.[parsed.bucket];
  }

  /** The mapping version that a store's row of `unit` must have for this router's mapping to be the right one. */
  mappingVersionOf(unit: UnitId): number {
    return this.rules.unitMappingVersions[unit] ?? 1;
  }

  routeUnit(unit: UnitId): Route | undefined {
    const assignment = this.assignmentOf(unit);
    if (assignment === undefined) return undefined;
    const { owner, state } = assignment;
    return { unit, owner, state, epoch: this.epoch, mappingVersion: this.mappingVersionOf(unit) };
  }

  route(key: RoutingKey): Route | undefined {
    const unit = this.unitOf(key);
    return unit === undefined ? undefined : this.routeUnit(unit);
  }
}

function own<T>(record: Record<string, T>, key: string): T | undefined {
  return Object.hasOwn(record, key) ? record[key] : undefined;
}

/** All units of the rules, in a stable order. */
export function unitsOf(rules: Rules): UnitId[] {
  const units: UnitId[] = [];
  for (const region of Object.keys(rules.regions).sort()) {
    for (let bucket = 0; bucket < BUCKETS; bucket++) units.push(bucketUnit(region, bucket));
  }
  for (const name of Object.keys(rules.segments).sort()) units.push(segmentUnit(name));
  for (const name of Object.keys(rules.central).sort()) units.push(centralUnit(name));
  return units;
}

/** Sorts ranges and joins neighbours with the same owner and state. */
export function normaliseRanges(ranges: BucketRange[]): BucketRange[] {
  const sorted = [...ranges].sort((a, b) => a.from - b.from);
  const joined: BucketRange[] = [];
  for (const range of sorted) {
    const last = joined.at(-1);
    if (last && last.to + 1 === range.from && last.owner === range.owner && last.state === range.state) {
      last.to = range.to;
    } else {
      joined.push({ from: range.from, to: range.to, owner: range.owner, state: range.state });
    }
  }
  return joined;
}

/** The rules with other assignments for some units; epoch, reason and holder come from `header`. */
export function withAssignments(
  rules: Rules,
  changes: ReadonlyMap<UnitId, Assignment>,
  header: { epoch: number; reason: string; holder: Holder | null },
): Rules {
  const router = new Router(rules);
  const regions: Record<string, BucketRange[]> = {};
  for (const region of Object.keys(rules.regions)) {
    const ranges: BucketRange[] = [];
    for (let bucket = 0; bucket < BUCKETS; bucket++) {
      const unit = bucketUnit(region, bucket);
      const { owner, state } = changes.get(unit) ?? router.assignmentOf(unit)!;
      ranges.push({ from: bucket, to: bucket, owner, state });
    }
    regions[region] = normaliseRanges(ranges);
  }
  const segments: Record<string, Segment> = {};
  for (const [name, segment] of Object.entries(rules.segments)) {
    segments[name] = { ...segment, ...changes.get(segmentUnit(name)) };
  }
  const central: Record<string, Assignment> = {};
  for (const [name, assignment] of Object.entries(rules.central)) {
    central[name] = { ...assignment, ...changes.get(centralUnit(name)) };
  }
  return { ...rules, regions, segments, central, ...header };
}
