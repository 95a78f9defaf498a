import { parseLinkId } from '../replicators/core/contract.js';
import { InterlockError } from '../src/errors.js';
import type { DcStores } from '../src/fence/connect.js';
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
    target.fence(id.store).checkpointMarkers([link]),
  ]);
  const checkpoint = checkpoints[0];
  return {
    link,
    store: id.store,
    generation: checkpoint?.generation ?? 0,
    state: status?.state ?? 'stopped',
    lagMs: status?.lagMs ?? 0,
    position: status?.position ?? checkpoint?.position ?? '',
  };
}
