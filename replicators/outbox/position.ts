import type { Cluster } from '../kafka/client/cluster.js';
import type { TransactionalProducer } from '../kafka/client/producer.js';
import { CHECKPOINTS, checkpointBatch, checkpointPartition, readCheckpoint } from '../kafka/checkpoint.js';
import type { MarkerEvent } from '../mysql/transaction.js';

/** How far a relay has come; written in the Kafka transaction that holds the events. */
export interface RelayPosition {
  generation: number;
  /** The process that took this generation. */
  holder: string;
  /** GTIDs of the store: everything of it is relayed. */
  position: string;
  /** The store that the position is of (server_uuid). */
  source: string;
  /** The last one that a switchover waits for: a relay that died before it could say so says it again. */
  marker: MarkerEvent | null;
}

/** What was committed last. The transactional id is taken before: nothing of the relay is open. */
export async function readPosition(
  cluster: Cluster,
  link: string,
): Promise<{ found: RelayPosition | undefined; leader: number }> {
  const { checkpoint, leader } = await readCheckpoint(cluster, link);
  if (checkpoint === undefined) return { found: undefined, leader };
  const { generation, holder, sourceCluster, marker, position } = checkpoint as typeof checkpoint & {
    position: string;
  };
  return { found: { generation, holder, position, source: sourceCluster, marker }, leader };
}

/** @param leader of the partition that keeps it; see `readPosition` */
export async function sendPosition(
  producer: TransactionalProducer,
  link: string,
  leader: number,
  to: RelayPosition,
): Promise<void> {
  const { generation, holder, position, source, marker } = to;
  const about = { generation, holder, sourceCluster: source, marker, position };
  const builder = checkpointBatch(link, about, generation, []);
  await producer.send([{ topic: CHECKPOINTS, partition: checkpointPartition(link), leader, builder }]);
}
