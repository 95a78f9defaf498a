import { InterlockError } from '../../src/errors.js';
import { ensureCheckpointTopic, readCheckpoint } from './checkpoint.js';
import { Cluster } from './client/cluster.js';
import { initialiseKafkaLink } from './initialise.js';
import type { KafkaLinkConfig } from './link-config.js';

/**
 * Makes the first checkpoint of a link where it is told to begin; without that, finds the one it has.
 * @throws InterlockError Refused: there is none, or one is in the way
 */
export async function beginKafkaLink(
  config: KafkaLinkConfig,
  { from, discardCheckpoint = false }: { from?: string; discardCheckpoint?: boolean },
): Promise<{ position: string; created: boolean }> {
  if (from !== undefined) {
    await initialiseKafkaLink(config, { from: from === 'earliest' ? 'earliest' : 'now', discardCheckpoint });
    return { position: from, created: true };
  }
  const target = new Cluster(config.target);
  try {
    await ensureCheckpointTopic(target);
    const { checkpoint } = await readCheckpoint(target, config.link);
    if (checkpoint !== undefined)
      return { position: `${checkpoint.positions.length} partitions`, created: false };
  } finally {
    target.close();
  }
  throw new InterlockError(
    'Refused',
    `${config.link} has no checkpoint. To copy what there is: --from earliest; to begin at what comes: --from now`,
    { details: { link: config.link } },
  );
}
