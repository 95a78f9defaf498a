import { Cluster } from '../../../replicators/kafka/client/cluster.js';
import { isKafkaError } from '../../../replicators/kafka/client/protocol-errors.js';
import { createTopics } from '../../../replicators/kafka/client/topics-api.js';
import { ensure } from '../../components/component.js';
import { kafkaComponent } from '../../components/kafka.js';
import { kafkaAnswers, prepareKafkaBroker } from '../../kafka-broker.js';
import { DATACENTERS, KAFKA_STORES } from '../options.js';
import type { LabDc } from '../options.js';
import { processPart } from '../part.js';
import type { LabContext, Part } from '../part.js';
import { wanPort } from './wan.js';

/** Of the Java heap: what a broker of a few topics needs. */
const HEAP_MB = 256;
const TOPIC_ALREADY_EXISTS = 36;

export function kafkaNames(lab: Pick<LabContext, 'state'>): string[] {
  return KAFKA_STORES.slice(0, lab.state.shape.kafka);
}

export function kafkaPort(dc: LabDc, store: string): string {
  return `${dc}.kafka.${store}`;
}

/**
 * Where the wide-area proxy leads to. Hazard: a broker tells its clients where it is, and these go on there, past the proxy. Guard: a listener of
 * its own, which tells the proxy's address.
 */
export function kafkaRemotePort(dc: LabDc, store: string): string {
  return `${kafkaPort(dc, store)}.remote`;
}

function controllerPort(dc: LabDc, store: string): string {
  return `${kafkaPort(dc, store)}.controller`;
}

/** What a broker listens on. */
export function kafkaPorts(lab: Pick<LabContext, 'state'>, dc: LabDc, store: string): string[] {
  return [
    ...[kafkaPort(dc, store), controllerPort(dc, store)],
    ...(lab.state.shape.rttMs > 0 ? [kafkaRemotePort(dc, store)] : []),
  ];
}

/** Those of the workload; one that is there stays. */
async function makeTopics(port: number, topics: Record<string, number>): Promise<void> {
  const cluster = new Cluster({ brokers: [`127.0.0.1:${port}`] });
  try {
    const wanted = Object.entries(topics).map(([name, partitions]) => ({ name, partitions, configs: {} }));
    for (const { error } of await cluster.onController(createTopics(wanted)))
      if (error !== undefined && !isKafkaError(error, TOPIC_ALREADY_EXISTS)) throw error as Error;
  } finally {
    cluster.close();
  }
}

/** The broker of one store: a Kafka of one node that is its own controller. */
export function kafkaPart(lab: LabContext, dc: LabDc, store: string): Part {
  const name = `${dc}-kafka-${store}`;
  const port = lab.port(kafkaPort(dc, store));
  const reader = DATACENTERS.find((other) => other !== dc)!;
  const remote = kafkaRemotePort(dc, store);
  return processPart(lab, {
    name,
    kind: 'kafka',
    dc,
    dependsOn: [],
    address: `127.0.0.1:${port}`,
    ports: kafkaPorts(lab, dc, store),
    command: async () => {
      const { libs } = await ensure(kafkaComponent, lab.progress);
      return prepareKafkaBroker({
        ...{ libs, port, heapMb: HEAP_MB },
        directory: lab.files.part(name),
        controllerPort: lab.port(controllerPort(dc, store)),
        ...(lab.state.shape.rttMs > 0 && {
          remote: { port: lab.port(remote), advertisedPort: lab.port(wanPort(reader, remote)) },
        }),
      });
    },
    probe: () => kafkaAnswers(port),
    afterReady: () => makeTopics(port, lab.state.workload.topics ?? {}),
    readyTimeoutMs: 120_000,
  });
}
