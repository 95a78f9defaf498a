import { randomUUID } from 'node:crypto';
import { InterlockError, isInterlockError } from '../../src/errors.js';
import {
  CHECKPOINTS,
  checkpointPartition,
  claimBatch,
  ensureCheckpointTopic,
  leaderOf,
  readCheckpoint,
} from './checkpoint.js';
import type { Cluster } from './client/cluster.js';
import { TransactionalProducer } from './client/producer.js';
import type { ProducerIdentity } from './client/transaction-api.js';

const CLAIM_MS = 10_000;
/** Of a transaction that nobody ends. */
const TRANSACTION_TIMEOUT_MS = 60_000;

export function transactionalId(link: string): string {
  return `interlock.link.${link}`;
}

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

/** Takes a link for nobody, to write its first checkpoint: a process that runs it ends by this. */
export async function takeFromAll(target: Cluster, link: string): Promise<TransactionalProducer> {
  await claimLink(target, link, '');
  return TransactionalProducer.take(target, transactionalId(link), TRANSACTION_TIMEOUT_MS);
}

/** The hold of one process on a link. */
export class LinkHold {
  private readonly holder = randomUUID();
  private claimed = false;
  /** What was taken last. */
  private held: ProducerIdentity | undefined;

  constructor(private readonly link: string) {}

  /**
   * Takes the link's transactional id: what another process had open with it is undone.
   * @throws InterlockError HeldByOther: another process has claimed the link since
   */
  async take(target: Cluster): Promise<TransactionalProducer> {
    // Once: two processes that claim a link from each other would do so for ever.
    if (!this.claimed) await claimLink(target, this.link, this.holder);
    this.claimed = true;
    const producer = await this.takeId(target);
    this.held = producer.identity;
    return producer;
  }

  /** @param claimedBy as it is once the id was taken */
  requireClaim(claimedBy: string | undefined): void {
    if (claimedBy === this.holder) return;
    throw new InterlockError('HeldByOther', `another process has claimed ${this.link}; this one ends`, {
      details: { link: this.link },
    });
  }

  private async takeId(target: Cluster): Promise<TransactionalProducer> {
    const id = transactionalId(this.link);
    try {
      return await TransactionalProducer.take(target, id, TRANSACTION_TIMEOUT_MS, this.held);
    } catch (error) {
      if (this.held === undefined || !isInterlockError(error, 'HeldByOther')) throw error;
      // A coordinator that has undone a transaction that took too long fences its producer, too: then nobody else has claimed the link.
      const { claimedBy } = await readCheckpoint(target, this.link);
      if (claimedBy !== this.holder) throw error;
      return TransactionalProducer.take(target, id, TRANSACTION_TIMEOUT_MS);
    }
  }
}
