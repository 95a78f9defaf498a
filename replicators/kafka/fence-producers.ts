import { setTimeout as sleep } from 'node:timers/promises';
import { parseProducerId } from '../../src/kafka/transactional-id.js';
import { Cluster } from './client/cluster.js';
import type { KafkaAddress } from './client/connection.js';
import { listTransactions } from './client/open-transactions-api.js';
import { TransactionalProducer } from './client/producer.js';
import { isKafkaError } from './client/protocol-errors.js';

const TRANSACTION_MS = 15_000;
const AT_ONCE = 8;
const LOADING_MS = 30_000;
const COORDINATOR_LOAD_IN_PROGRESS = 14;

/** Takes a transactional id: what a process has open with it is undone, and Kafka refuses what that process sends later. */
export async function fenceProducer(address: KafkaAddress, transactionalId: string): Promise<void> {
  const cluster = new Cluster(address);
  try {
    await TransactionalProducer.take(cluster, transactionalId, TRANSACTION_MS);
  } finally {
    cluster.close();
  }
}

/**
 * Fences every producer of the SDK that this cluster knows, but those of instances that have acknowledged the fence. For a switchover: after the
 * fence's epoch was published to the rule center of the cluster's DC, and before the baseline. Kafka's own list is asked and not the leases: a
 * process that was paused has no lease any more, and wakes up. A producer that begins after the list was made asks for the rules after that.
 * Fencing one again changes nothing; one whose units are not concerned takes its id again by itself.
 * @param hasAcknowledged a living lease with the fence's epoch, or a higher one
 * @returns the transactional ids that were fenced
 */
export function fenceProducers(
  address: KafkaAddress,
  hasAcknowledged: (instance: { application: string; instance: string }) => boolean,
): Promise<string[]> {
  return fenceAll(address, (id) => {
    const producer = parseProducerId(id);
    return producer !== undefined && !hasAcknowledged(producer);
  });
}

/** Takes every transactional id that is wanted. */
export async function fenceAll(address: KafkaAddress, isWanted: (id: string) => boolean): Promise<string[]> {
  const cluster = new Cluster(address);
  try {
    const wanted = (await transactionalIds(cluster)).filter(isWanted);
    const left = [...wanted];
    const worker = async (): Promise<void> => {
      for (let id = left.pop(); id !== undefined; id = left.pop())
        await TransactionalProducer.take(cluster, id, TRANSACTION_MS);
    };
    await Promise.all(Array.from({ length: AT_ONCE }, worker));
    return wanted.sort();
  } finally {
    cluster.close();
  }
}

async function transactionalIds(cluster: Cluster): Promise<string[]> {
  const deadline = performance.now() + LOADING_MS;
  for (;;) {
    try {
      const lists = await Promise.all(
        (await cluster.nodes()).map((node) => cluster.call(node, listTransactions([]))),
      );
      return [...new Set(lists.flatMap((list) => [...list.values()]))];
    } catch (error) {
      // A coordinator that still reads its log would leave some out.
      if (!isKafkaError(error, COORDINATOR_LOAD_IN_PROGRESS) || performance.now() > deadline) throw error;
      await sleep(50);
    }
  }
}
