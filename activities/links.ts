import { parseLinkId } from '../replicators/core/contract.js';
import type { LinkId } from '../replicators/core/contract.js';
import { InterlockError } from '../src/errors.js';
import type { DcStores } from '../src/fence/connect.js';
import type { UnitFence } from '../src/fence/unit-fence.js';
import type { DcId } from '../src/routing/units.js';
import type { PlanLink } from '../workflows/contract.js';
import type { ReadLinkStatus } from './dependencies.js';

/** A link as a plan shows it: its status, and the generation of its checkpoint in the target. A link that does not run has state `stopped`. */
export async function planLink(
  link: string,
  stores: ReadonlyMap<DcId, DcStores>,
  readStatus: ReadLinkStatus,
): Promise<PlanLink> {
  const id = parseLinkId(link);
  const target = id === undefined ? undefined : stores.get(id.to);
  if (id === undefined || target === undefined) {
    throw new InterlockError('BadInput', `${JSON.stringify(link)} is no link of this topology`);
  }
  const [status, checkpoints] = await Promise.all([
    readStatus(link),
    targetOf(id, target).checkpointMarkers([link]),
  ]);
  const checkpoint = checkpoints[0];
  return {
    link,
    store: storeOf(id),
    generation: checkpoint?.generation ?? 0,
    state: status?.state ?? 'stopped',
    lagMs: status?.lagMs ?? 0,
    position: status?.position ?? checkpoint?.position ?? '',
  };
}

/** A store as plans name it: `main` of MySQL, `redis/cache`. */
export function storeOf({ kind, store }: { kind: string; store: string }): string {
  return kind === 'mysql' ? store : `${kind}/${store}`;
}

/** The store into which a link applies. @throws InterlockError BadInput: the data center has no such store */
export function targetOf({ kind, store }: LinkId, stores: DcStores): UnitFence {
  const fence = stores.all.find((one) => one.kind === kind && one.store === store);
  if (fence === undefined)
    throw new InterlockError('BadInput', `${stores.dc} has no ${kind} store ${JSON.stringify(store)}`);
  return fence;
}
