import { InterlockError } from '../../src/errors.js';
import {
  CHECKPOINTS,
  checkpointPartition,
  claimBatch,
  ensureCheckpointTopic,
  leaderOf,
} from './checkpoint.js';
import type { Cluster } from './client/cluster.js';
import { TransactionalProducer } from './client/producer.js';

const CLAIM_MS = 10_000;

/**
 * Says who shall have a link; of several, the last one. Hazard: a process that was fenced cannot tell one that has taken the link from a
 * coordinator that has undone an old transaction. Guard: this is committed before the link's transactional id is taken, so it finds it.
 */
export async function claimLink(target: Cluster, link: string, holder: string): Promise<void> {
  await ensureCheckpointTopic(target);
  const partition = checkpointPartition(link);
  const leader = await leaderOf(target, partition);
  const producer = await TransactionalProducer.take(target, `interlock.claim.${link}`, CLAIM_MS);
  await producer.send([{ topic: CHECKPOINTS, partition, leader, builder: claimBatch(link, holder) }]);
  await producer.commit();
}

export function claimedByOther(link: string): InterlockError {
  return new InterlockError('HeldByOther', `another process has claimed ${link}; this one ends`, {
    details: { link },
  });
}
