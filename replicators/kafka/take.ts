import { isInterlockError } from '../../src/errors.js';
import { readCheckpoint } from './checkpoint.js';
import type { Cluster } from './client/cluster.js';
import { TransactionalProducer } from './client/producer.js';
import type { ProducerIdentity } from './client/transaction-api.js';
import { TRANSACTION_TIMEOUT_MS, transactionalId } from './initialise.js';

export interface Taker {
  link: string;
  /** This process: it writes that into the checkpoint. */
  holder: string;
  /** What it took last. */
  held: ProducerIdentity | undefined;
}

/**
 * Takes a link's transactional id: what another process had open with it is undone. Only when nobody else has claimed the link since this
 * process held it: two that take it back from each other would do so for ever.
 * @throws InterlockError HeldByOther
 */
export async function takeLink(
  target: Cluster,
  { link, holder, held }: Taker,
): Promise<TransactionalProducer> {
  const id = transactionalId(link);
  try {
    return await TransactionalProducer.take(target, id, TRANSACTION_TIMEOUT_MS, held);
  } catch (error) {
    if (held === undefined || !isInterlockError(error, 'HeldByOther')) throw error;
    // A coordinator that has undone a transaction that took too long fences its producer, too: then nobody else has claimed the link.
    const { checkpoint } = await readCheckpoint(target, link);
    if (checkpoint?.holder !== holder) throw error;
    return TransactionalProducer.take(target, id, TRANSACTION_TIMEOUT_MS);
  }
}
