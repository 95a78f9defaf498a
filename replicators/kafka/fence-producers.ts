import { setTimeout as sleep } from 'node:timers/promises';
import type { Member } from '../../src/kafka/consumer-records.js';
import { parseProducerId } from '../../src/kafka/transactional-id.js';
import type { Cluster } from './client/cluster.js';
import { describeTransactions, listTransactions } from './client/open-transactions-api.js';
import { TransactionalProducer } from './client/producer.js';
import { KafkaError, isKafkaError } from './client/protocol-errors.js';

/** A mark: an id that is `Empty` with this time-out was taken here, and by nobody since. No producer or consumer of the SDK gives it. */
const FENCED_MS = 15_007;
const AT_ONCE = 8;
const LOADING_MS = 30_000;
const COORDINATOR_LOAD_IN_PROGRESS = 14;
const COORDINATOR_NOT_AVAILABLE = 15;
const TRANSACTIONS = '__transaction_state';

/** Takes a transactional id: what a process has open with it is undone, and Kafka refuses what that process sends later. */
export async function fenceProducer(cluster: Cluster, transactionalId: string): Promise<void> {
  await TransactionalProducer.take(cluster, transactionalId, FENCED_MS);
}

/**
 * Fences every producer of the SDK that this cluster knows, but those of instances that have acknowledged the fence. For a switchover: after the
 * fence's epoch was published to the rule center of the cluster's DC, and before the baseline. Kafka's own list is asked and not the leases: a
 * process that was paused has no lease any more, and wakes up. A producer that begins after the list was made asks for the rules after that.
 * Fencing one again changes nothing; one whose units are not concerned takes its id again by itself.
 * @param hasAcknowledged a living lease with the fence's epoch, or a higher one
 * @returns the transactional ids that were fenced now
 */
export function fenceProducers(
  cluster: Cluster,
  hasAcknowledged: (instance: Member) => boolean,
): Promise<string[]> {
  return fenceAll(cluster, (id) => isProducerOf(id, (instance) => !hasAcknowledged(instance)));
}

/** Whether a transactional id is of the SDK's producer of an instance for which this holds. */
export function isProducerOf(transactionalId: string, isWanted: (instance: Member) => boolean): boolean {
  const producer = parseProducerId(transactionalId);
  return producer !== undefined && isWanted(producer);
}

/**
 * Takes every transactional id that is wanted and can write. One that is fenced already stays so: what it takes goes by those that were taken since
 * the last fence, and not by all that there ever were.
 */
export async function fenceAll(cluster: Cluster, isWanted: (id: string) => boolean): Promise<string[]> {
  const wanted = await unfenced(cluster, isWanted);
  const left = [...wanted];
  const worker = async (): Promise<void> => {
    for (let id = left.pop(); id !== undefined; id = left.pop()) await fenceProducer(cluster, id);
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  return wanted.sort();
}

async function unfenced(cluster: Cluster, isWanted: (id: string) => boolean): Promise<string[]> {
  const deadline = performance.now() + LOADING_MS;
  for (;;) {
    try {
      await requireAllCoordinators(cluster);
      const lists = (await cluster.nodes()).map(async (node) => {
        const ids = [...(await cluster.call(node, listTransactions([]))).values()].filter(isWanted);
        if (ids.length === 0) return [];
        const states = await cluster.call(node, describeTransactions(ids));
        const fenced = new Set(
          states.flatMap(({ transactionalId, state, timeoutMs }) =>
            state === 'Empty' && timeoutMs === FENCED_MS ? [transactionalId] : [],
          ),
        );
        return ids.filter((id) => !fenced.has(id));
      });
      return [...new Set((await Promise.all(lists)).flat())];
    } catch (error) {
      // A coordinator that still reads its log would leave some out.
      if (
        !isKafkaError(error, COORDINATOR_LOAD_IN_PROGRESS, COORDINATOR_NOT_AVAILABLE) ||
        performance.now() > deadline
      )
        throw error;
      await sleep(50);
    }
  }
}

/** Hazard: ids whose coordinator is down are in no list, and a producer that has one writes on when it is back. */
async function requireAllCoordinators(cluster: Cluster): Promise<void> {
  const [topic] = (await cluster.metadata([TRANSACTIONS])).topics;
  // Where nobody has had a transaction, there is no such topic.
  const down = topic?.partitions.find(({ leader }) => leader < 0);
  if (down !== undefined)
    throw new KafkaError(
      COORDINATOR_NOT_AVAILABLE,
      `${TRANSACTIONS}-${down.partition} has no leader: who has a transactional id of it cannot be fenced`,
    );
}
