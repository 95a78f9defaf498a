import type { WantedRedisLink } from '../../src/topology/derive.js';
import { userMapping } from '../../src/topology/derive.js';
import { redisAddress } from '../../src/topology/redis-address.js';
import type { SecretReference, Topology } from '../../src/topology/schema.js';
import { formatLinkId } from '../core/contract.js';
import { REDIS_LINK_DEFAULTS } from './link-config.js';
import type { RedisLinkConfig } from './link-config.js';

/** The configuration of a Redis link of the topology. */
export function redisLinkConfig(
  topology: Topology,
  wanted: WantedRedisLink,
  secret: (reference: SecretReference) => string,
): RedisLinkConfig {
  const { store, from, to, include, exclude, throttle } = wanted;
  const { databases, excludeDatabases, includeCommands, excludeCommands } = wanted;
  const { minTtlMs, conflicts, unmapped, onQuarantine, onGap } = wanted;
  const server = (dc: string): RedisLinkConfig['source'] =>
    redisAddress(topology.datacenters[dc]!.stores.redis[store]!, secret);
  return {
    ...REDIS_LINK_DEFAULTS,
    ...{ link: formatLinkId(wanted), from, to, source: server(from), target: server(to) },
    filters: {
      includeKeys: include,
      excludeKeys: exclude,
      ...(databases !== undefined && { includeDatabases: databases }),
      ...(excludeDatabases !== undefined && { excludeDatabases }),
      ...(includeCommands !== undefined && { includeCommands }),
      excludeCommands,
    },
    keys: topology.keys,
    mapping: userMapping(topology),
    ...{ minTtlMs, conflicts, unmapped, onQuarantine, onGap },
    ...(throttle !== undefined && { throttle }),
  };
}
