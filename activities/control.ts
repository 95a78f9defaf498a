import { InterlockError, messageOf } from '../src/errors.js';
import type { DcStores } from '../src/fence/connect.js';
import { sameHolder } from '../src/fence/guard.js';
import { newest } from '../src/fence/init.js';
import { findHeldUnits } from '../src/fence/held.js';
import type { Holder } from '../src/routing/rules.js';
import type { ControlActivities, HeldUnits, SwitchReport } from '../workflows/contract.js';
import type { ControlDeps } from './dependencies.js';
import { allOrForemost, withFailures } from './failures.js';
import { makePlan } from './plan.js';

/** The activities of the control task queue. They reach both DCs and change no unit. */
export function createControlActivities(deps: ControlDeps): ControlActivities {
  const all = [...deps.stores.values()];

  return withFailures<ControlActivities>({
    makePlan: (request) => makePlan(deps, request),

    async nextEpoch({ units, holder }) {
      const epochs = await allOrForemost(
        all.flatMap((dc) => [dc.rules.highestEpoch(), ...dc.all.map((fence) => fence.highestEpoch())]),
      );
      const stored = newest(await allOrForemost(all.map((dc) => dc.rules.current())));
      if (stored === undefined)
        throw new InterlockError('NoRules', 'there are no rules yet: run `interlock rules init`');
      const other = await otherHolder(all, units, holder);
      const closed = other !== undefined && (await deps.isClosed(other)) ? { takeOverFrom: other } : {};
      return { epoch: Math.max(...epochs) + 1, rules: stored.rules, ...closed };
    },

    async findHeld({ holder }) {
      const held = await findHeldUnits(deps.stores);
      const result: HeldUnits[] = [];
      for (const one of held) {
        const own = sameHolder(one.holder, holder);
        const holderClosed = !own && (one.holder === null || (await deps.isClosed(one.holder)));
        result.push({ ...one, holderClosed });
      }
      return result;
    },

    async recordReport(report) {
      const kept = await Promise.allSettled(all.map((dc) => keepReport(dc, report)));
      if (kept.some(({ status }) => status === 'fulfilled')) return;
      const reasons = kept.map((one) => (one.status === 'rejected' ? messageOf(one.reason) : ''));
      throw new InterlockError('Unavailable', `no control store took the report: ${reasons.join('; ')}`, {
        retryable: true,
      });
    },
  });
}

/** The holder of these units that is not `holder`; more than one cannot be taken over at once: the first by store and unit. */
async function otherHolder(
  all: readonly DcStores[],
  units: readonly string[],
  holder: Holder,
): Promise<Holder | undefined> {
  const states = await allOrForemost(all.flatMap((dc) => dc.all.map((fence) => fence.states(units))));
  for (const row of states.flat()) {
    if (row.state === 'write_disabled' && row.holder !== null && !sameHolder(row.holder, holder))
      return row.holder;
  }
  return undefined;
}

async function keepReport(dc: DcStores, report: SwitchReport): Promise<void> {
  const document = JSON.stringify(report);
  await dc.control.pool.query(
    `INSERT INTO interlock.report (run_id, document, created_at) VALUES (?, ?, UTC_TIMESTAMP(6))
     ON DUPLICATE KEY UPDATE document = VALUES(document)`,
    [report.runId, document],
  );
}
