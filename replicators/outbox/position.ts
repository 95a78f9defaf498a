import type { Cluster } from '../kafka/client/cluster.js';
import type { TransactionalProducer } from '../kafka/client/producer.js';
import { CHECKPOINTS, checkpointBatches, checkpointPartition, readCheckpoint } from '../kafka/checkpoint.js';
import type { MarkerEvent } from '../mysql/transaction.js';

/** How far a relay has come; written in the Kafka transaction that holds the events. */
export interface RelayPosition {
  generation: number;
  /** A relay has gone on from it. */
  started: boolean;
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
): Promise<{ found: RelayPosition | undefined; leader: number; claimedBy: string | undefined }> {
  const { checkpoint, ...about } = await readCheckpoint(cluster, link);
  if (checkpoint === undefined) return { found: undefined, ...about };
  const { generation, started, sourceCluster, marker, position } = checkpoint as typeof checkpoint &
    Pick<RelayPosition, 'started' | 'position'>;
  return { found: { generation, started, position, source: sourceCluster, marker }, ...about };
}

/** @param leader of the partition that keeps it; see `readPosition` */
export async function sendPosition(
  producer: TransactionalProducer,
  link: string,
  leader: number,
  to: RelayPosition,
): Promise<void> {
  const { generation, started, position, source, marker } = to;
  const about = { generation, started, sourceCluster: source, marker, position };
  const at = { topic: CHECKPOINTS, partition: checkpointPartition(link), leader };
  for (const builder of checkpointBatches(link, about, [])) await producer.send([{ ...at, builder }]);
}
