import { InterlockError, messageOf } from '../errors.js';
import { Router, unitsOf } from '../routing/rules.js';
import type { Holder, Rules } from '../routing/rules.js';
import { formatBuckets, groupUnits } from '../routing/scope.js';
import type { DcId, UnitId } from '../routing/units.js';
import type { DcStores } from './connect.js';
import { newest } from './init.js';
import type { ReadOnlyView } from './read-only.js';
import type { StoredRules } from './rules-store.js';
import type { UnitState } from './types.js';
import type { UnitFence } from './unit-fence.js';

/** What was read from one store; `problem` is set when it did not answer. */
export interface StoreView {
  dc: DcId;
  kind: UnitFence['kind'];
  store: string;
  control: boolean;
  server: string | null;
  problem: string | null;
  counts: { open: number; write_disabled: number; remote: number };
  /** Units that were asserted on another server, or (Redis) have no state: the SDK refuses their writes until they are re-asserted. */
  foreign: number;
  /** `read_only` of the server, and whether Interlock wants it; null: not read. */
  readOnly: ReadOnlyView | null;
}

export type FindingKind =
  /** Write-disabled, and nobody else has opened them: to be opened again where they are. */
  | 'held'
  /** Open in the new owner, not yet handed over everywhere: to be completed. */
  | 'half-switched'
  /** Not open anywhere, not write-disabled either: to be opened where the highest epoch says. */
  | 'ownerless'
  /** Open as they should be; the rules in force say otherwise, or another store of the owner does. */
  | 'inconsistent'
  /** Open in both data centers. Must not happen; a person has to decide. */
  | 'open-in-both'
  /** The other data center does not answer: nobody knows whether it has opened them. */
  | 'unknown';

/** Units that are not in a good state, and what would mend them. */
export interface Finding {
  kind: FindingKind;
  units: UnitId[];
  /** `cn-east buckets 0–99` */
  text: string;
  /** Who shall have them when it is mended. */
  owner: DcId;
  other: DcId;
  holder: Holder | null;
  /** Highest epoch of these rows. */
  epoch: number;
}

export interface Diagnosis {
  stores: StoreView[];
  rules: { dc: DcId; epoch: number | null; hash: string | null }[];
  /** The rules of the highest epoch; undefined when none could be read. */
  current: StoredRules | undefined;
  findings: Finding[];
  /** Above every epoch that was seen. */
  nextEpoch: number;
  unreachable: DcId[];
}

interface DcView {
  dc: DcId;
  /** undefined: does not answer. */
  rows: Map<string, Map<UnitId, UnitState>> | undefined;
  control: string;
  /** MySQL store → identity of the server that answers. */
  servers: ReadonlyMap<string, string>;
}

/**
 * Reads who may write what from the stores of both DCs, without Temporal, and names what is not as it should be. A DC that does not
 * answer is reported, not an error. Errors: EpochConflict (rules of one epoch differ), NoRules.
 */
export async function diagnose(stores: ReadonlyMap<DcId, DcStores>): Promise<Diagnosis> {
  const views: StoreView[] = [];
  const dcs: DcView[] = [];
  const rules: { dc: DcId; stored: StoredRules | undefined; read: boolean }[] = [];
  for (const one of await Promise.all([...stores.values()].map(readDc))) {
    views.push(...one.views);
    dcs.push(one.dc);
    rules.push(one.rules);
  }
  const unreachable = dcs.filter(({ rows }) => rows === undefined).map(({ dc }) => dc);
  const current = newest(rules.map(({ stored }) => stored));
  if (current === undefined && unreachable.length === 0) {
    throw new InterlockError('NoRules', 'there are no rules yet: run `interlock rules init`');
  }
  for (const view of views) {
    // A unit without a state is of no other server: in Redis states can be lost while the server lives.
    if (view.kind !== 'redis' || view.problem !== null || current === undefined) continue;
    const { open, write_disabled: disabled, remote } = view.counts;
    view.foreign += Math.max(0, unitsOf(current.rules).length - open - disabled - remote);
  }
  const epochs = dcs.flatMap(({ rows }) =>
    [...(rows?.values() ?? [])].flatMap((byUnit) => [...byUnit.values()].map((row) => row.epoch)),
  );
  return {
    stores: views,
    rules: rules.map(({ dc, stored }) => ({
      dc,
      epoch: stored?.rules.epoch ?? null,
      hash: stored?.hash ?? null,
    })),
    current,
    findings: current === undefined ? [] : findingsOf(dcs, current.rules),
    nextEpoch: epochs.reduce((a, b) => Math.max(a, b), current?.rules.epoch ?? 0) + 1,
    unreachable,
  };
}

async function readDc(one: DcStores): Promise<{
  views: StoreView[];
  dc: DcView;
  rules: { dc: DcId; stored: StoredRules | undefined; read: boolean };
}> {
  const views: StoreView[] = [];
  const rows = new Map<string, Map<UnitId, UnitState>>();
  const servers = new Map<string, string>();
  await Promise.all(
    one.all.map(async (fence) => {
      const view: StoreView = {
        dc: one.dc,
        kind: fence.kind,
        store: fence.store,
        control: fence === one.control,
        server: null,
        problem: null,
        counts: { open: 0, write_disabled: 0, remote: 0 },
        foreign: 0,
        readOnly: null,
      };
      views.push(view);
      try {
        const [states, server] = await Promise.all([fence.states(), fence.identity()]);
        // Not part of the proof of who owns what: a store of before this version has no record of it.
        if (fence.kind === 'mysql')
          view.readOnly = await one
            .fence(fence.store)
            .readOnly.view()
            .catch(() => null);
        view.server = server;
        if (fence.kind === 'mysql') servers.set(fence.name, server);
        for (const row of states) view.counts[row.state]++;
        view.foreign = states.filter((row) => row.server !== server).length;
        rows.set(fence.name, new Map(states.map((row) => [row.unit, row])));
      } catch (error) {
        view.problem = messageOf(error);
      }
    }),
  );
  // All stores of a DC or none: half of the truth proves nothing.
  const complete = views.every(({ problem }) => problem === null);
  const stored = complete ? await one.rules.current() : undefined;
  return {
    views: views.sort((a, b) => (`${a.kind}/${a.store}` < `${b.kind}/${b.store}` ? -1 : 1)),
    dc: { dc: one.dc, rows: complete ? rows : undefined, control: one.control.name, servers },
    rules: { dc: one.dc, stored, read: complete },
  };
}

function findingsOf(dcs: readonly DcView[], rules: Rules): Finding[] {
  const router = new Router(rules);
  const groups = new Map<string, Finding>();
  for (const unit of unitsOf(rules)) {
    const found = findingOf(unit, dcs, router);
    if (found === undefined) continue;
    const key = JSON.stringify([found.kind, found.owner, found.holder]);
    const group = groups.get(key) ?? { ...found, units: [], text: '', epoch: 0 };
    groups.set(key, group);
    group.units.push(unit);
    group.epoch = Math.max(group.epoch, found.epoch);
  }
  const findings = [...groups.values()];
  for (const finding of findings) {
    finding.units.sort();
    finding.text = describeUnits(finding.units);
  }
  return findings;
}

function findingOf(
  unit: UnitId,
  dcs: readonly DcView[],
  router: Router,
): Omit<Finding, 'units' | 'text'> | undefined {
  const known = dcs.filter(({ rows }) => rows !== undefined);
  const controlRow = (dc: DcView): UnitState | undefined => dc.rows!.get(dc.control)!.get(unit);
  const allRows = known.flatMap((dc) =>
    [...dc.rows!.values()].flatMap((byUnit) => {
      const row = byUnit.get(unit);
      return row === undefined ? [] : [{ dc: dc.dc, row }];
    }),
  );
  // Rows of another server are no writer's permission, and in MySQL nothing that can be changed: they have to be re-asserted first.
  const foreign = known.some((dc) =>
    [...dc.rows!].some(([store, byUnit]) => {
      const row = byUnit.get(unit);
      return row !== undefined && dc.servers.has(store) && row.server !== dc.servers.get(store);
    }),
  );
  if (foreign) return undefined;
  const epoch = allRows.reduce((highest, { row }) => Math.max(highest, row.epoch), 0);
  const held = allRows.filter(({ row }) => row.state === 'write_disabled');
  const holder = held.find(({ row }) => row.holder !== null)?.row.holder ?? null;
  const otherOf = (dc: DcId): DcId => dcs.find((one) => one.dc !== dc)!.dc;
  const make = (kind: FindingKind, owner: DcId): Omit<Finding, 'units' | 'text'> => ({
    kind,
    owner,
    other: otherOf(owner),
    holder,
    epoch,
  });

  const open = known.filter((dc) => controlRow(dc)?.state === 'open').map(({ dc }) => dc);
  if (open.length > 1) return make('open-in-both', router.assignmentOf(unit)!.owner);
  const owner = open[0];
  if (known.length < dcs.length) {
    // Only one data center answers. What it has open is fine; what it has write-disabled may be open in the other.
    return held.length > 0 ? make('unknown', held[0]!.dc) : undefined;
  }
  if (owner !== undefined) {
    const wrong = allRows.some(({ dc, row }) => row.state !== (dc === owner ? 'open' : 'remote'));
    if (wrong) return make(held.some(({ dc }) => dc !== owner) ? 'half-switched' : 'inconsistent', owner);
    const assigned = router.assignmentOf(unit)!;
    if (assigned.owner !== owner || assigned.state !== 'open') return make('inconsistent', owner);
    return undefined;
  }
  const fencedAt = known.find((dc) => controlRow(dc)?.state === 'write_disabled') ?? undefined;
  if (fencedAt !== undefined) return make('held', fencedAt.dc);
  const latest = known
    .flatMap((dc) => controlRow(dc) ?? [])
    .reduce<UnitState | undefined>(
      (best, row) => (best === undefined || row.epoch > best.epoch ? row : best),
      undefined,
    );
  // No row at all: `rules init` has not been run for this unit.
  return latest === undefined ? undefined : make('ownerless', latest.owner);
}

/** `cn-east buckets 0–99, segment:vip` */
export function describeUnits(units: readonly UnitId[]): string {
  const { buckets, named } = groupUnits(units);
  return [
    ...[...buckets].map(
      ([region, list]) => `${region} ${list.length === 1 ? 'bucket' : 'buckets'} ${formatBuckets(list)}`,
    ),
    ...named,
  ].join(', ');
}
