import { InterlockError, isInterlockError, messageOf } from '../errors.js';
import { canonicalJson, sha256 } from '../routing/hash.js';
import { switchRules } from '../routing/plan.js';
import type { Holder, Rules } from '../routing/rules.js';
import type { DcId } from '../routing/units.js';
import type { DcStores } from './connect.js';
import { diagnose } from './diagnosis.js';
import type { Diagnosis, Finding } from './diagnosis.js';
import type { FenceStore } from './fence-store.js';
import type { BlockerPolicy, FenceBudget, UnitChange } from './types.js';
import type { UnitFence } from './unit-fence.js';

export interface ReleaseOptions {
  /** Names this release in the rows: `{ workflowId: 'fence-release', runId: <unique> }`. */
  holder: Holder;
  /** Who releases, and why: kept with the rules. */
  reason: string;
  /** The operator's word that the DC that does not answer is fenced; kept with the rules. */
  assertTargetFenced?: string;
  /** What happens to transactions that hold a unit's lock past the budget. */
  blockers: BlockerPolicy;
  say: (line: string) => void;
}

export interface ReleaseResult {
  released: {
    text: string;
    owner: DcId | null;
    epoch: number;
    how: 're-opened' | 'rolled forward' | 'rules published' | 'turned on' | 'turned off';
  }[];
  /** The rules in force afterwards. */
  rules: Rules;
  unreachable: DcId[];
}

/** Late operations of a dead run and other releases may come in between: each round looks again. */
const ROUNDS = 10;
/** What transactions in flight are given to end by themselves, in each store. */
const BUDGET_MS = 2_000;

/**
 * Brings every unit into one data center, from what both DCs' stores say and without Temporal: what is write-disabled opens again
 * where it is, after the other DC's rows were raised above every late switch; what the other DC has opened is completed there.
 *
 * Errors: NeedsOperator (a DC does not answer and `assertTargetFenced` is not given; a unit is open in both), FenceBudgetExceeded (`blockers` is
 * give-up, or a prepared XA transaction holds a lock), Unavailable, Internal.
 */
export async function release(
  stores: ReadonlyMap<DcId, DcStores>,
  options: ReleaseOptions,
): Promise<ReleaseResult> {
  const released: ReleaseResult['released'] = [];
  for (let round = 1; ; round++) {
    const diagnosis = await diagnose(stores);
    refuseWhatIsNotProven(diagnosis, options);
    const finding = diagnosis.findings[0];
    try {
      if (finding === undefined) {
        if (await levelRules(stores, diagnosis)) {
          released.push({
            text: 'the rules in force',
            owner: null,
            epoch: diagnosis.current!.rules.epoch,
            how: 'rules published',
          });
        }
        if (diagnosis.current === undefined) throw nothingKnown(diagnosis);
        for (const { fence, how } of await mendReadOnly(stores, diagnosis, options.say)) {
          const epoch = diagnosis.current.rules.epoch;
          released.push({ text: `read_only of ${fence.name}`, owner: null, epoch, how });
        }
        return { released, rules: diagnosis.current.rules, unreachable: diagnosis.unreachable };
      }
      const how = await mend(stores, diagnosis, finding, options);
      options.say(`${finding.text}: ${how} in ${finding.owner} at epoch ${diagnosis.nextEpoch}`);
      released.push({ text: finding.text, owner: finding.owner, epoch: diagnosis.nextEpoch, how });
    } catch (error) {
      const overtaken =
        isInterlockError(error) &&
        ['StaleEpoch', 'EpochConflict', 'AlreadySwitched', 'HeldByOther'].includes(error.code);
      if (!overtaken || round >= ROUNDS) throw error;
      options.say(`overtaken by another operation, looking again: ${error.message}`);
    }
    if (round >= ROUNDS * 10) {
      throw new InterlockError(
        'Internal',
        `not at rest after ${round} rounds: see \`interlock fence status\``,
      );
    }
  }
}

function refuseWhatIsNotProven(diagnosis: Diagnosis, options: ReleaseOptions): void {
  const twice = diagnosis.findings.find(({ kind }) => kind === 'open-in-both');
  if (twice !== undefined) {
    throw new InterlockError(
      'NeedsOperator',
      `${twice.text} is open in both data centers. Stop the writers of one, compare the data, then close it there by hand`,
      { details: { units: twice.units } },
    );
  }
  const unknown = diagnosis.findings.find(({ kind }) => kind === 'unknown');
  if (unknown !== undefined && options.assertTargetFenced === undefined) {
    throw new InterlockError(
      'NeedsOperator',
      `${unknown.other} does not answer: it cannot be proven that it has not opened ${unknown.text}. Make sure that nothing writes there ` +
        '(stop its MySQL and Redis, gateways and applications), then say so: `interlock fence release --assert-target-fenced "REASON"`',
      { details: { units: unknown.units, unreachable: diagnosis.unreachable } },
    );
  }
}

async function mend(
  stores: ReadonlyMap<DcId, DcStores>,
  diagnosis: Diagnosis,
  finding: Finding,
  options: ReleaseOptions,
): Promise<'re-opened' | 'rolled forward'> {
  const epoch = diagnosis.nextEpoch;
  const { owner, other, units, holder } = finding;
  const asserted =
    finding.kind === 'unknown' ? `; ${other} asserted fenced: ${options.assertTargetFenced}` : '';
  const rules = switchRules(diagnosis.current!.rules, units, owner, epoch, `${options.reason}${asserted}`);
  const at = (dc: DcId) => stores.get(dc)!;
  const change = (fence: UnitFence): UnitChange => ({
    units,
    to: fence.dc === owner ? 'open' : 'remote',
    owner,
    epoch,
    holder: options.holder,
    ...(holder === null ? {} : { takeOverFrom: holder }),
    ...(fence === at(fence.dc).control ? { rules } : {}),
  });
  const budget: FenceBudget = { budgetMs: BUDGET_MS, blockers: options.blockers };
  const others = (dc: DcId): readonly UnitFence[] => at(dc).all.filter((fence) => fence !== at(dc).control);
  if (finding.kind === 'half-switched') {
    await at(owner).control.change(change(at(owner).control), budget);
    for (const fence of others(owner)) await fence.change(change(fence), budget);
    for (const fence of at(other).all) await fence.change(change(fence), budget);
    return 'rolled forward';
  }
  if (finding.kind !== 'unknown') {
    // The proof is made under the locks of the other DC's control rows: raise fails with AlreadySwitched when one is open.
    await at(other).control.raise(change(at(other).control), budget);
    for (const fence of others(other)) await fence.change(change(fence), budget);
  }
  for (const fence of at(owner).all) {
    if (finding.kind === 'held' || finding.kind === 'unknown') await fence.reopen(change(fence), budget);
    else await fence.change(change(fence), budget);
  }
  return 're-opened';
}

/** Both control stores get the rules in force; a release or a switchover may have ended between the two. */
async function levelRules(stores: ReadonlyMap<DcId, DcStores>, diagnosis: Diagnosis): Promise<boolean> {
  let changed = false;
  for (const [dc, one] of stores) {
    if (diagnosis.current === undefined || diagnosis.unreachable.includes(dc)) continue;
    if ((await one.rules.publish(diagnosis.current.rules)).changed) changed = true;
  }
  return changed;
}

/** A fence of a whole data center that died before its commit, or a restarted server: `read_only` is not as it should be. */
async function mendReadOnly(
  stores: ReadonlyMap<DcId, DcStores>,
  { unreachable }: Diagnosis,
  say: (line: string) => void,
): Promise<{ fence: FenceStore; how: 'turned on' | 'turned off' }[]> {
  const mended = [];
  for (const [dc, one] of stores) {
    if (unreachable.includes(dc)) continue;
    for (const fence of one.fences.values()) {
      try {
        const how = await fence.mendReadOnly();
        if (how !== undefined) mended.push({ fence, how });
      } catch (error) {
        say(`${messageOf(error)}; run \`interlock fence release\` again`);
      }
    }
  }
  return mended;
}

function nothingKnown(diagnosis: Diagnosis): InterlockError {
  return new InterlockError(
    'Unavailable',
    `no data center answers: ${diagnosis.stores.map(({ problem }) => problem).join('; ')}`,
    { retryable: true },
  );
}

/** A short name of a release, for the rows: unique enough, and readable. */
export function releaseHolder(startedBy: string, at: Date): Holder {
  const runId = sha256(canonicalJson([startedBy, at.toISOString(), process.pid])).slice(0, 16);
  return { workflowId: 'fence-release', runId: `${at.toISOString()} ${runId}`.slice(0, 64) };
}
