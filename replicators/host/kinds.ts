import { InterlockError } from '../../src/errors.js';
import type { LinkEvents, LinkKind, RunnableLink } from '../core/contract.js';
import { parseLinkId } from '../core/contract.js';
import type { StopAt } from '../core/stop-points.js';
import type { LinkConfig } from './configure.js';

type Make = new (config: never, events: LinkEvents, stopAt: StopAt) => RunnableLink;

/** Loaded when the first link of a kind runs, or before by `loadKinds`: a thread pays for no client that it does not need. */
const LOAD: Record<LinkKind, () => Promise<Make>> = {
  mysql: async () => (await import('../mysql/link.js')).Link,
  kafka: async () => (await import('../kafka/link.js')).KafkaLink,
  redis: async () => (await import('../redis/link.js')).RedisLink,
  outbox: async () => (await import('../outbox/relay.js')).OutboxRelay,
};

export async function loadKinds(kinds: readonly LinkKind[]): Promise<void> {
  await Promise.all(kinds.map((kind) => LOAD[kind]()));
}

/** The link of a configuration, ready to run. */
export async function openLink(
  config: LinkConfig,
  events: LinkEvents,
  stopAt: StopAt,
): Promise<RunnableLink> {
  const Kind = await LOAD[kindOf(config.link)]();
  return new Kind(config as never, events, stopAt);
}

/** @throws InterlockError BadInput: no link id */
export function kindOf(link: string): LinkKind {
  const id = parseLinkId(link);
  if (id === undefined)
    throw new InterlockError('BadInput', `${JSON.stringify(link)} is no link id, as mysql/main:dc-a>dc-b is`);
  return id.kind;
}
