import { InterlockError } from '../../src/errors.js';
import type { LinkEvents, LinkKind, RunnableLink } from '../core/contract.js';
import { parseLinkId } from '../core/contract.js';
import type { LinkConfig } from './configure.js';

type Open = (config: never, events: LinkEvents, stopAt: (point: string) => void) => Promise<RunnableLink>;

/** Loaded when the first link of a kind runs: a thread pays for no client that it does not need. */
const OPEN: Record<LinkKind, Open> = {
  mysql: async (...given) => new (await import('../mysql/link.js')).Link(...given),
  kafka: async (...given) => new (await import('../kafka/link.js')).KafkaLink(...given),
  redis: async (...given) => new (await import('../redis/link.js')).RedisLink(...given),
  outbox: async (...given) => new (await import('../outbox/relay.js')).OutboxRelay(...given),
};

/** The link of a configuration, ready to run. */
export async function openLink(
  config: LinkConfig,
  events: LinkEvents,
  stopAt: (point: string) => void,
): Promise<RunnableLink> {
  return OPEN[kindOf(config.link)](config as never, events, stopAt);
}

/** @throws InterlockError BadInput: no link id */
export function kindOf(link: string): LinkKind {
  const id = parseLinkId(link);
  if (id === undefined)
    throw new InterlockError('BadInput', `${JSON.stringify(link)} is no link id, as mysql/main:dc-a>dc-b is`);
  return id.kind;
}
