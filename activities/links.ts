import { parseLinkId } from '../replicators/core/contract.js';
import type { LinkId } from '../replicators/core/contract.js';
import { InterlockError } from '../src/errors.js';
import type { DcStores } from '../src/fence/connect.js';
import type { LinkCheckpoint, UnitFence } from '../src/fence/unit-fence.js';
import type { PlanLink } from '../workflows/contract.js';
import type { ControlDeps } from './dependencies.js';
import { kafkaMember } from './kafka-baseline.js';

type LinkDeps = Pick<ControlDeps, 'stores' | 'kafka' | 'readLinkStatus'>;

/** A link as a plan shows it: its status, and the generation of its checkpoint in the target. A link that does not run has state `stopped`. */
export async function planLink(link: string, deps: LinkDeps): Promise<PlanLink> {
  const id = linkOf(link, deps);
  const [status, checkpoint] = await Promise.all([deps.readLinkStatus(link), checkpointOf(link, deps)]);
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

/** What the target of a link says of it; undefined: it was never started. */
export async function checkpointOf(link: string, deps: LinkDeps): Promise<LinkCheckpoint | undefined> {
  const id = linkOf(link, deps);
  const target = kafkaMember(deps, id.to, link) ?? targetOf(id, deps.stores.get(id.to)!);
  return (await target.checkpointMarkers([link]))[0];
}

/** @throws InterlockError BadInput: no link of the topology's data centers */
function linkOf(link: string, { stores }: LinkDeps): LinkId {
  const id = parseLinkId(link);
  if (id !== undefined && stores.has(id.to)) return id;
  throw new InterlockError('BadInput', `${JSON.stringify(link)} is no link of this topology`);
}

/** The store into which a link applies. @throws InterlockError BadInput: the data center has no such store */
function targetOf({ kind, store }: LinkId, stores: DcStores): UnitFence {
  const fence = stores.all.find((one) => one.kind === kind && one.store === store);
  if (fence === undefined)
    throw new InterlockError('BadInput', `${stores.dc} has no ${kind} store ${JSON.stringify(store)}`);
  return fence;
}

/** Whether a link is one of this store's. */
export function isOf(link: string, { kind, store }: UnitFence): boolean {
  const id = parseLinkId(link);
  return id?.kind === kind && id.store === store;
}
