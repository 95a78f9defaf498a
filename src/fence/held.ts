import { Router, unitsOf } from '../routing/rules.js';
import type { Holder } from '../routing/rules.js';
import type { DcId, UnitId } from '../routing/units.js';
import type { DcStores } from './connect.js';
import { newest } from './init.js';

/** Units that are write-disabled in a store of `from`, or in the rules in force. */
export interface Held {
  units: UnitId[];
  /** The DC where they are write-disabled: the old owner. */
  from: DcId;
  to: DcId;
  holder: Holder | null;
}

/** Everything that is write-disabled now, by DC and holder, as the stores of all DCs say. Errors: Unavailable. */
export async function findHeldUnits(stores: ReadonlyMap<DcId, DcStores>): Promise<Held[]> {
  const groups = new Map<string, { from: DcId; holder: Holder | null; units: Set<UnitId> }>();
  const seen = new Set<UnitId>();
  const add = (from: DcId, holder: Holder | null, unit: UnitId): void => {
    const key = `${from}\n${holder?.workflowId ?? ''}\n${holder?.runId ?? ''}`;
    const group = groups.get(key) ?? { from, holder, units: new Set<UnitId>() };
    groups.set(key, group);
    group.units.add(unit);
    seen.add(unit);
  };
  const all = [...stores.values()];
  const rows = await Promise.all(
    all.map(async (dc) => ({
      dc: dc.dc,
      states: (await Promise.all(dc.all.map((fence) => fence.states()))).flat(),
    })),
  );
  for (const { dc, states } of rows) {
    for (const row of states) if (row.state === 'write_disabled') add(dc, row.holder, row.unit);
  }
  // A fence whose document was announced and whose rows were never changed: gateways hold, and no row says so.
  const current = newest(await Promise.all(all.map((dc) => dc.rules.current())));
  if (current !== undefined) {
    const router = new Router(current.rules);
    for (const unit of unitsOf(current.rules)) {
      const { owner, state } = router.assignmentOf(unit)!;
      if (state === 'write_disabled' && !seen.has(unit)) add(owner, current.rules.holder, unit);
    }
  }
  return [...groups.values()].map(({ from, holder, units }) => ({
    from,
    to: all.find((dc) => dc.dc !== from)!.dc,
    holder,
    units: [...units].sort(),
  }));
}
