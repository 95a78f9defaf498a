import { messageOf } from '../src/errors.js';
import type { Rules } from '../src/routing/rules.js';
import type { DcId } from '../src/routing/units.js';
import type { GatewayConfirmation } from '../workflows/contract.js';
import type { DatacenterDeps } from './dependencies.js';

/** Longer than a rule center waits for its slowest gateway. */
const ANNOUNCE_LIMIT_MS = 5_000;

/**
 * Hands a rules document to a DC's rule center, which pushes it to its gateways. Never fails: the stores are what is correct, and a
 * rule center polls its own; what did not confirm is named in the answer. `committed`: see RuleCenterClient.publish.
 */
export async function announce(
  deps: DatacenterDeps,
  dc: DcId,
  rules: Rules,
  { committed = false }: { committed?: boolean } = {},
): Promise<GatewayConfirmation[]> {
  try {
    const signal = AbortSignal.timeout(ANNOUNCE_LIMIT_MS);
    return await deps.ruleCenters.get(dc)!.publish(rules, { signal, committed });
  } catch (error) {
    deps.log.warn({ dc, epoch: rules.epoch, error: messageOf(error) }, 'rules not announced');
    return unconfirmed(deps, dc, `the rule center did not take epoch ${rules.epoch}: ${messageOf(error)}`);
  }
}

/** Every gateway of a DC as not confirmed. */
export function unconfirmed(deps: DatacenterDeps, dc: DcId, detail: string): GatewayConfirmation[] {
  return Object.keys(deps.topology.datacenters[dc]?.gateways ?? {}).map((gateway) => ({
    dc,
    gateway,
    epoch: null,
    ok: false,
    detail,
  }));
}

/** The result when it is there within `limitMs`, else undefined; the promise is left to itself then. */
export async function within<T>(promise: Promise<T>, limitMs: number): Promise<T | undefined> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<undefined>((resolve) => {
    timer = setTimeout(() => resolve(undefined), limitMs);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}
