import { InterlockError } from '../errors.js';
import { Router, unitsOf } from './rules.js';
import type { Rules } from './rules.js';
import { BUCKETS, bucketUnit, centralUnit, parseUnit, segmentUnit } from './units.js';
import type { DcId, UnitId } from './units.js';

/** What a switchover moves. */
export type Scope =
  /** Everything that the data center owns. */
  | { kind: 'dc'; dc: DcId }
  | { kind: 'region'; region: string }
  /** So many of the region's 1000 buckets, as tenths of a per cent: the lowest-numbered ones that the source owns. */
  | { kind: 'share'; region: string; buckets: number }
  /** Buckets `first` to `last`, both included. */
  | { kind: 'range'; region: string; first: number; last: number }
  | { kind: 'segment'; name: string }
  | { kind: 'central'; name: string };

const FORMS = 'dc:dc-a, region:cn-east, cn-east:10%, cn-east/0-99, segment:vip or central:coupons';

/**
 * Parses a scope as typed. One bucket is `cn-east/42`; a share may have one decimal (`cn-east:0.1%`).
 * @throws InterlockError BadInput
 */
export function parseScope(text: string): Scope {
  const share = /^([a-z0-9][a-z0-9-]*):(\d{1,3}(?:\.\d)?)%$/.exec(text);
  if (share) {
    const buckets = Math.round(Number(share[2]) * (BUCKETS / 100));
    if (buckets < 1 || buckets > BUCKETS) throw bad(text, 'expected a share from 0.1% to 100%');
    return { kind: 'share', region: share[1]!, buckets };
  }
  const named = /^(dc|region|segment|central):([a-z0-9][a-z0-9-]*)$/.exec(text);
  if (named) {
    const name = named[2]!;
    const kind = named[1] as 'dc' | 'region' | 'segment' | 'central';
    if (kind === 'dc') return { kind, dc: name };
    return kind === 'region' ? { kind, region: name } : { kind, name };
  }
  const range = /^([a-z0-9][a-z0-9-]*)\/(\d{1,4})(?:-(\d{1,4}))?$/.exec(text);
  if (range) {
    const first = Number(range[2]);
    const last = range[3] === undefined ? first : Number(range[3]);
    if (last >= BUCKETS) throw bad(text, `expected buckets from 0 to ${BUCKETS - 1}`);
    if (first > last) throw bad(text, 'expected the lower bucket first');
    return { kind: 'range', region: range[1]!, first, last };
  }
  throw bad(text, `expected ${FORMS}`);
}

/** The shortest text that parses to `scope`. */
export function formatScope(scope: Scope): string {
  switch (scope.kind) {
    case 'dc':
      return `dc:${scope.dc}`;
    case 'region':
      return `region:${scope.region}`;
    case 'share':
      return `${scope.region}:${scope.buckets / (BUCKETS / 100)}%`;
    case 'range':
      return scope.first === scope.last
        ? `${scope.region}/${scope.first}`
        : `${scope.region}/${scope.first}-${scope.last}`;
    case 'segment':
      return `segment:${scope.name}`;
    case 'central':
      return `central:${scope.name}`;
  }
}

/**
 * The units of a scope that `from` owns, in the stable order of unitsOf. Units of the scope that another DC owns are left out: they are
 * where they should be, or not ours to move.
 * @throws InterlockError BadInput: the scope names nothing of the rules, `from` owns nothing of it, or it owns fewer buckets than the share.
 */
export function unitsOfScope(rules: Rules, scope: Scope, from: DcId): UnitId[] {
  const text = formatScope(scope);
  if (scope.kind === 'dc' && scope.dc !== from) {
    throw bad(text, `expected the data center that the units leave, ${from}`);
  }
  const router = new Router(rules);
  const owned = candidates(rules, scope).filter((unit) => router.assignmentOf(unit)!.owner === from);
  if (scope.kind === 'share') {
    if (owned.length < scope.buckets) {
      throw bad(
        text,
        `${from} owns ${owned.length} of the ${BUCKETS} buckets of ${scope.region}, fewer than ${scope.buckets}`,
      );
    }
    return owned.slice(0, scope.buckets);
  }
  if (owned.length === 0) throw bad(text, `nothing to move: ${from} owns no unit of it`);
  return owned;
}

/**
 * The units of a scope, whoever owns them; of a share, those that a switchover of it would move, from either data center. In the stable
 * order of unitsOf.
 * @throws InterlockError BadInput: the scope names nothing of the rules
 */
export function scopeUnits(rules: Rules, scope: Scope): UnitId[] {
  const router = new Router(rules);
  const all = candidates(rules, scope);
  if (scope.kind !== 'share' && scope.kind !== 'dc') return all;
  const owned = new Map<DcId, UnitId[]>();
  for (const unit of all) {
    const { owner } = router.assignmentOf(unit)!;
    owned.set(owner, [...(owned.get(owner) ?? []), unit]);
  }
  if (scope.kind === 'dc') return owned.get(scope.dc) ?? [];
  const moved = new Set([...owned.values()].flatMap((units) => units.slice(0, scope.buckets)));
  return all.filter((unit) => moved.has(unit));
}

function candidates(rules: Rules, scope: Scope): UnitId[] {
  switch (scope.kind) {
    case 'dc':
      return unitsOf(rules);
    case 'region':
    case 'share':
    case 'range': {
      known(rules.regions, scope.region, 'region', scope);
      const [first, last] = scope.kind === 'range' ? [scope.first, scope.last] : [0, BUCKETS - 1];
      return Array.from({ length: last - first + 1 }, (_, i) => bucketUnit(scope.region, first + i));
    }
    case 'segment':
      known(rules.segments, scope.name, 'segment', scope);
      return [segmentUnit(scope.name)];
    case 'central':
      known(rules.central, scope.name, 'central unit', scope);
      return [centralUnit(scope.name)];
  }
}

function known(record: Readonly<Record<string, unknown>>, name: string, what: string, scope: Scope): void {
  if (Object.hasOwn(record, name)) return;
  const names = Object.keys(record).sort().join(', ') || 'none';
  throw bad(formatScope(scope), `the rules have no ${what} ${name}; they have ${names}`);
}

function bad(scope: string, problem: string): InterlockError {
  return new InterlockError('BadInput', `scope ${JSON.stringify(scope)}: ${problem}`, {
    details: { field: 'scope', value: scope },
  });
}

/** Units by region (bucket numbers ascending), segments and central names: for renderings. */
export interface GroupedUnits {
  buckets: Map<string, number[]>;
  named: UnitId[];
}

export function groupUnits(units: Iterable<UnitId>): GroupedUnits {
  const buckets = new Map<string, number[]>();
  const named: UnitId[] = [];
  for (const unit of units) {
    const parsed = parseUnit(unit);
    if (parsed?.kind === 'bucket') {
      const list = buckets.get(parsed.region);
      if (list) list.push(parsed.bucket);
      else buckets.set(parsed.region, [parsed.bucket]);
    } else named.push(unit);
  }
  for (const list of buckets.values()) list.sort((a, b) => a - b);
  return { buckets: new Map([...buckets].sort(([a], [b]) => (a < b ? -1 : 1))), named: named.sort() };
}

/** `0–99, 120, 300–301` */
export function formatBuckets(sorted: readonly number[]): string {
  const parts: string[] = [];
  for (let i = 0; i < sorted.length;) {
    let j = i;
    while (j + 1 < sorted.length && sorted[j + 1] === sorted[j]! + 1) j++;
    parts.push(i === j ? String(sorted[i]) : `${sorted[i]}–${sorted[j]}`);
    i = j + 1;
  }
  return parts.join(', ');
}
