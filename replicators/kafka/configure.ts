import { certificatesOf } from '../../src/topology/certificates.js';
import type { DcId } from '../../src/routing/units.js';
import type { WantedKafkaLink } from '../../src/topology/derive.js';
import type { KafkaStore, SecretReference, Topology } from '../../src/topology/schema.js';
import { formatLinkId } from '../core/contract.js';
import type { KafkaAddress } from './client/connection.js';
import type { KafkaLinkConfig } from './link-config.js';
import { KafkaMember } from './member.js';

type Secrets = (reference: SecretReference) => string;

/** The configuration of a Kafka link of the topology. @throws InterlockError BadInput: a certificate cannot be read */
export function kafkaLinkConfig(
  topology: Topology,
  wanted: WantedKafkaLink,
  secret: Secrets,
): KafkaLinkConfig {
  const { store, from, to, include, exclude, naming, onGap, throttle } = wanted;
  const cluster = (dc: string): KafkaAddress =>
    kafkaAddress(topology.datacenters[dc]!.stores.kafka[store]!, secret);
  return {
    ...{ link: formatLinkId(wanted), from, to, source: cluster(from), target: cluster(to) },
    ...{ include, exclude, naming, onGap },
    ...(throttle !== undefined && { throttle }),
  };
}

/** The Kafka stores of every data center, by name; nothing is connected yet. */
export function openKafka(topology: Topology, secret: Secrets): Map<DcId, Map<string, KafkaMember>> {
  return new Map(
    Object.entries(topology.datacenters).map(([dc, { stores }]) => [
      dc,
      new Map(
        Object.entries(stores.kafka).map(([store, settings]) => [
          store,
          new KafkaMember(dc, store, kafkaAddress(settings, secret)),
        ]),
      ),
    ]),
  );
}

export function kafkaAddress({ brokers, tls, sasl }: KafkaStore, secret: Secrets): KafkaAddress {
  return {
    brokers,
    ...(tls !== undefined && {
      tls: {
        ...certificatesOf(tls),
        ...(tls.serverName !== undefined && { servername: tls.serverName }),
      },
    }),
    ...(sasl !== undefined && {
      sasl: { mechanism: sasl.mechanism, username: sasl.user, password: secret(sasl.password) },
    }),
  };
}
