import type { WantedOutbox } from '../../src/topology/derive.js';
import { mysqlAddress } from '../../src/topology/mysql-address.js';
import type { SecretReference, Topology } from '../../src/topology/schema.js';
import { formatLinkId } from '../core/contract.js';
import { kafkaAddress } from '../kafka/configure.js';
import type { RelayConfig } from './relay-config.js';

/** The configuration of an outbox's relay in one data center. @throws InterlockError BadInput: a certificate cannot be read */
export function outboxRelayConfig(
  topology: Topology,
  wanted: WantedOutbox,
  secret: (reference: SecretReference) => string,
): RelayConfig {
  const { store, from: dc, kafka, tables } = wanted;
  const { stores } = topology.datacenters[dc]!;
  const server = stores.mysql[store]!;
  return {
    ...{ link: formatLinkId(wanted), dc, tables },
    source: { ...mysqlAddress(server, secret), flavour: server.flavour },
    target: kafkaAddress(stores.kafka[kafka]!, secret),
  };
}
