import { InterlockError } from '../errors.js';
import { rulesHash } from '../routing/hash.js';
import type { Rules } from '../routing/rules.js';
import type { DcId } from '../routing/units.js';
import type { DcStores } from './connect.js';
import type { StoredRules } from './rules-store.js';

export interface InitResult {
  epoch: number;
  hash: string;
  /** What was done, per store; `written` counts the unit rows that were new. */
  stores: { store: string; server: string; written: number; rules: 'written' | 'kept' | null }[];
}

/**
 * Makes every store of all DCs ready: schema (MySQL), rules, unit states. Writes only what is missing: rules that are there win over
 * `initial`, and the newer of two DCs' rules over the older. Rows of another server identity are left to `reassert`.
 *
 * Errors: NeedsOperator (a Redis without states, all else is done); EpochConflict when two DCs have other rules of one epoch; Refused while units are write-disabled and rows are missing; Unavailable.
 */
export async function initialise(
  stores: ReadonlyMap<DcId, DcStores>,
  initial: Rules,
  say: (line: string) => void,
): Promise<InitResult> {
  const all = [...stores.values()];
  for (const dc of all) {
    for (const fence of dc.fences.values()) {
      await fence.ensureSchema();
      say(`${fence.name}: schema interlock is there`);
    }
  }
  const known = newest(await Promise.all(all.map(async (dc) => dc.rules.current())));
  const rules = known?.rules ?? initial;
  const hash = rulesHash(rules);
  const result: InitResult = { epoch: rules.epoch, hash, stores: [] };
  // Before the rules: once there are some, a Redis without states is one that has lost them.
  if (known === undefined)
    for (const dc of all) for (const fence of dc.redis.values()) await fence.addMissing(rules);
  const failures: unknown[] = [];
  for (const dc of all) {
    const published = await dc.rules.publish(rules);
    for (const fence of dc.all) {
      const added = await fence.addMissing(rules, true).catch((error: unknown) => void failures.push(error));
      if (added === undefined) continue;
      const { written, server } = added;
      result.stores.push({
        store: fence.name,
        server,
        written: written.length,
        rules: fence !== dc.control ? null : published.changed ? 'written' : 'kept',
      });
      say(
        `${fence.name}: ${written.length} unit rows written, rules of epoch ${rules.epoch} ${published.changed ? 'written' : 'kept'}`,
      );
    }
  }
  if (failures.length > 0) throw failures[0];
  return result;
}

/** The rules of the higher epoch. Errors: EpochConflict when documents of one epoch differ. */
export function newest(found: readonly (StoredRules | undefined)[]): StoredRules | undefined {
  let best: StoredRules | undefined;
  for (const one of found) {
    if (one === undefined) continue;
    if (best !== undefined && best.rules.epoch === one.rules.epoch && best.hash !== one.hash) {
      throw new InterlockError(
        'EpochConflict',
        `the data centers have different rules of epoch ${one.rules.epoch} (${best.hash.slice(0, 12)} and ${one.hash.slice(0, 12)})`,
        { details: { epoch: one.rules.epoch, hashes: [best.hash, one.hash] } },
      );
    }
    if (best === undefined || one.rules.epoch > best.rules.epoch) best = one;
  }
  return best;
}
