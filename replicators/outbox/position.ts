import { InterlockError } from '../../src/errors.js';
import { Cluster } from '../kafka/client/cluster.js';
import { TransactionalProducer } from '../kafka/client/producer.js';
import type { ProducerIdentity } from '../kafka/client/transaction-api.js';
import {
  CHECKPOINTS,
  checkpointBatch,
  checkpointPartition,
  ensureCheckpointTopic,
  readCheckpoint,
} from '../kafka/checkpoint.js';
import { connect, executedPosition, serverIdentity } from '../mysql/session.js';
import { parsePosition } from '../mysql/position.js';
import type { MarkerEvent } from '../mysql/transaction.js';
import type { RelayConfig } from './relay-config.js';

/** How far a relay has come; written in the Kafka transaction that holds the events. */
export interface RelayPosition {
  generation: number;
  /** GTIDs of the store: everything of it is relayed. */
  position: string;
  /** The store that the position is of (server_uuid). */
  source: string;
  /** The last one that a switchover waits for: a relay that died before it could say so says it again. */
  marker: MarkerEvent | null;
}

const TRANSACTION_MS = 60_000;

/** @param held what this process took last: another process that has taken it since keeps it */
export function takeRelay(
  cluster: Cluster,
  relay: string,
  held?: ProducerIdentity,
): Promise<TransactionalProducer> {
  return TransactionalProducer.take(cluster, `interlock-${relay}`, TRANSACTION_MS, held);
}

/** What was committed last. The transactional id is taken before: nothing of the relay is open. */
export async function readPosition(
  cluster: Cluster,
  relay: string,
): Promise<{ found: RelayPosition | undefined; leader: number }> {
  const { checkpoint, leader } = await readCheckpoint(cluster, relay);
  if (checkpoint === undefined) return { found: undefined, leader };
  const { generation, sourceCluster, marker, position } = checkpoint as typeof checkpoint & {
    position: string;
  };
  return {
    found: {
      generation,
      position,
      source: sourceCluster,
      marker,
    },
    leader,
  };
}

/** @param leader of the partition that keeps it; see `readPosition` */
export async function sendPosition(
  producer: TransactionalProducer,
  relay: string,
  leader: number,
  to: RelayPosition,
): Promise<void> {
  const { generation, position, source, marker } = to;
  const about = { generation, holder: '', sourceCluster: source, marker, position };
  const builder = checkpointBatch(relay, about, generation, []);
  await producer.send([{ topic: CHECKPOINTS, partition: checkpointPartition(relay), leader, builder }]);
}

/**
 * The first position of a relay. `now`: events of later transactions are relayed, so it is done before the application writes the first one.
 * @throws InterlockError Refused: it has one already, and `discard` is not said; BadInput: no position
 */
export async function initialiseRelay(
  config: RelayConfig,
  options: { from: string; discard?: boolean },
): Promise<RelayPosition> {
  const { relay, source: server } = config;
  const source = await connect(server);
  const cluster = new Cluster(config.target);
  try {
    const position =
      options.from === 'now'
        ? await executedPosition(source, server.flavour)
        : parsePosition(server.flavour, options.from).toString();
    await ensureCheckpointTopic(cluster);
    const producer = await takeRelay(cluster, relay);
    const { found, leader } = await readPosition(cluster, relay);
    // One that no relay has started from: a repeat of an initialisation whose answer was lost.
    if (found !== undefined && found.generation > 0 && options.discard !== true) {
      throw new InterlockError(
        'Refused',
        `${relay} has a position already (${found.position}); start it without --from to go on there, or discard the position: what is between the two is relayed twice, or never`,
        { details: { relay, position: found.position } },
      );
    }
    const first: RelayPosition = {
      generation: found === undefined ? 0 : found.generation + 1,
      position,
      source: await serverIdentity(source, server.flavour),
      marker: null,
    };
    await sendPosition(producer, relay, leader, first);
    await producer.commit();
    return first;
  } finally {
    source.destroy();
    cluster.close();
  }
}
