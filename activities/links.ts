import { formatLinkId, parseLinkId } from '../replicators/core/contract.js';
import type { LinkId } from '../replicators/core/contract.js';
import type { KafkaMember } from '../replicators/kafka/member.js';
import { InterlockError } from '../src/errors.js';
import type { DcStores } from '../src/fence/connect.js';
import type { LinkCheckpoint, UnitFence } from '../src/fence/unit-fence.js';
import { wantedOutboxes } from '../src/topology/derive.js';
import type { WantedOutbox } from '../src/topology/derive.js';
import type { Topology } from '../src/topology/schema.js';
import type { PlanLink } from '../workflows/contract.js';
import type { ControlDeps } from './dependencies.js';

type KafkaDeps = Pick<ControlDeps, 'topology' | 'kafka'>;
type LinkDeps = KafkaDeps & Pick<ControlDeps, 'stores' | 'readLinkStatus'>;

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

/** The Kafka store of a DC that a link, or the relay of an outbox, belongs to; undefined: it is a link of another kind. */
export function kafkaMember(
  { topology, kafka }: KafkaDeps,
  dc: string,
  link: string,
): KafkaMember | undefined {
  const id = parseLinkId(link);
  if (id?.kind !== 'kafka' && id?.kind !== 'outbox') return undefined;
  const store = id.kind === 'kafka' ? id.store : outboxOf(topology, id)?.kafka;
  const member = kafka.get(dc)?.get(store ?? '');
  if (member === undefined) throw new InterlockError('BadInput', `${dc} has no Kafka store for ${link}`);
  return member;
}

function outboxOf(topology: Topology, { store, from }: LinkId): WantedOutbox | undefined {
  return wantedOutboxes(topology, from).find((one) => one.store === store);
}

/** The relays of the outboxes of a DC. */
export function relaysOf(topology: Topology, dc: string): string[] {
  return wantedOutboxes(topology, dc).map(formatLinkId).sort();
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
