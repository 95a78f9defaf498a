import { InterlockError } from '../../src/errors.js';
import { wantedLinks } from '../../src/topology/derive.js';
import type { WantedLink } from '../../src/topology/derive.js';
import type { SecretReference, Topology } from '../../src/topology/schema.js';
import { formatLinkId } from '../core/contract.js';
import { kafkaLinkConfig } from '../kafka/configure.js';
import type { KafkaLinkConfig } from '../kafka/link-config.js';
import { beginKafkaLink } from '../kafka/begin.js';
import { linkConfigOf as mysqlLinkConfig } from '../mysql/configure.js';
import { initialiseLink as initialiseMysqlLink } from '../mysql/initialise.js';
import type { LinkConfig as MysqlLinkConfig } from '../mysql/link-config.js';
import { redisLinkConfig } from '../redis/configure.js';
import { outboxRelayConfig } from '../outbox/configure.js';
import { initialiseRelay } from '../outbox/initialise.js';
import type { RelayConfig } from '../outbox/relay-config.js';
import { initialiseRedisLink } from '../redis/initialise.js';
import type { RedisLinkConfig } from '../redis/link-config.js';
import { problemOf } from './options.js';
import type { InitialiseOptions } from './options.js';

/** All that a link's thread needs, by its kind; plain data. */
export type LinkConfig = MysqlLinkConfig | RedisLinkConfig | KafkaLinkConfig | RelayConfig;

type Secrets = (reference: SecretReference) => string;

/** The links that the topology wants, by id. */
export function linkIds(topology: Topology): string[] {
  return wantedLinks(topology).map(formatLinkId);
}

/** A link of the topology. @throws InterlockError BadInput that names the links there are. */
export function wantedLink(topology: Topology, link: string): WantedLink {
  const wanted = wantedLinks(topology).find((one) => formatLinkId(one) === link);
  if (wanted !== undefined) return wanted;
  throw new InterlockError(
    'BadInput',
    `${JSON.stringify(link)} is not a link of topology ${topology.name}; expected one of ${linkIds(topology).join(', ')}`,
    { details: { field: 'link', value: link } },
  );
}

/** The configuration of one link. @throws InterlockError BadInput that names the links there are. */
export function linkConfigOf(topology: Topology, link: string, secret: Secrets): LinkConfig {
  const wanted = wantedLink(topology, link);
  switch (wanted.kind) {
    case 'mysql':
      return mysqlLinkConfig(topology, link, secret);
    case 'redis':
      return redisLinkConfig(topology, wanted, secret);
    case 'kafka':
      return kafkaLinkConfig(topology, wanted, secret);
    case 'outbox':
      return outboxRelayConfig(topology, wanted, secret);
  }
}

/** Makes the first checkpoint of a link, or finds the one it has. Idempotent. */
export async function initialiseLink(
  topology: Topology,
  link: string,
  options: InitialiseOptions,
  secret: Secrets,
): Promise<{ position: string; created: boolean }> {
  const wanted = wantedLink(topology, link);
  const problem = problemOf(wanted.kind, options);
  if (problem !== undefined) {
    const { field, message } = problem;
    throw new InterlockError('BadInput', `${link}: ${message}`, { details: { field } });
  }
  switch (wanted.kind) {
    case 'mysql':
      return initialiseMysqlLink(mysqlLinkConfig(topology, link, secret), options);
    case 'redis': {
      const { from, discardCheckpoint, copy, resync } = options;
      return initialiseRedisLink(redisLinkConfig(topology, wanted, secret), {
        ...(from !== undefined && { from: 'now' }),
        ...(discardCheckpoint !== undefined && { discardCheckpoint }),
        ...(copy !== undefined && { copy }),
        ...(resync !== undefined && { resync: true }),
      });
    }
    case 'kafka':
      return beginKafkaLink(kafkaLinkConfig(topology, wanted, secret), options);
    case 'outbox':
      return initialiseRelay(outboxRelayConfig(topology, wanted, secret), options);
  }
}
