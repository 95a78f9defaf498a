import { InterlockError } from '../../src/errors.js';
import { ensureCheckpointTopic } from '../kafka/checkpoint.js';
import { Cluster } from '../kafka/client/cluster.js';
import { takeFromAll } from '../kafka/claim.js';
import { parsePosition } from '../mysql/position.js';
import { connect, executedPosition, serverIdentity } from '../mysql/session.js';
import { readPosition, sendPosition } from './position.js';
import type { RelayPosition } from './position.js';
import type { RelayConfig } from './relay-config.js';

/**
 * The first position of a relay, or the one that it has. `now`: events of later transactions are relayed, so it is done before the application
 * writes the first one.
 * @throws InterlockError Refused: it has one already and `discardCheckpoint` is not said, or it has none and `from` is not; BadInput: no position
 */
export async function initialiseRelay(
  config: RelayConfig,
  { from, discardCheckpoint = false }: { from?: string; discardCheckpoint?: boolean },
): Promise<{ position: string; created: boolean }> {
  const { link } = config;
  const cluster = new Cluster(config.target);
  try {
    await ensureCheckpointTopic(cluster);
    if (from !== undefined) return await begin(cluster, config, from, discardCheckpoint);
    const { found } = await readPosition(cluster, link);
    if (found !== undefined) return { position: found.position, created: false };
    throw new InterlockError(
      'Refused',
      `${link} has no position in ${config.dc}'s Kafka. To relay what is written from now on: --from now; or --from the GTID position of the last event that Kafka has`,
      { details: { link } },
    );
  } finally {
    cluster.close();
  }
}

async function begin(
  cluster: Cluster,
  { link, source: server }: RelayConfig,
  from: string,
  discard: boolean,
): Promise<{ position: string; created: boolean }> {
  const source = await connect(server);
  try {
    const position =
      from === 'now'
        ? await executedPosition(source, server.flavour)
        : parsePosition(server.flavour, from).toString();
    const producer = await takeFromAll(cluster, link);
    const { found, leader } = await readPosition(cluster, link);
    // One that no relay has started from: a repeat of an initialisation whose answer was lost.
    if (found !== undefined && found.started && !discard) {
      throw new InterlockError(
        'Refused',
        `${link} has a position already (${found.position}); start it without --from to go on there, or add --discard-checkpoint to forget it: what is between the two is relayed twice, or never`,
        { details: { link, position: found.position } },
      );
    }
    const first: RelayPosition = {
      generation: (found?.generation ?? -1) + 1,
      started: false,
      position,
      source: await serverIdentity(source, server.flavour),
      marker: null,
    };
    await sendPosition(producer, link, leader, first);
    await producer.commit();
    return { position, created: true };
  } finally {
    source.destroy();
  }
}
