import { setTimeout as sleep } from 'node:timers/promises';
import type { Cluster } from './client/cluster.js';
import { unavailable } from './client/connection.js';
import type { PartitionMetadata } from './client/metadata-api.js';
import { offsetAt, readCommitted } from './read-committed.js';

const POLL_MS = 5;

/**
 * Behind the last record of each partition of a topic, with what is open there now. Not the end of its log: a consumer never gets to a control record
 * that is there. Hazard: up to the last decided offset only, a record would be missed that lies behind another producer's open transaction.
 * @param deadline by the monotonic clock: what is open has to be decided by then
 * @throws Unavailable: it is not
 */
export async function behindLastRecords(
  cluster: Cluster,
  topic: string,
  deadline: number,
): Promise<Record<number, number>> {
  const { partitions = [] } = (await cluster.metadata([topic])).topics[0] ?? {};
  const ends = partitions.map(
    async (of) => [of.partition, await behindLast(cluster, topic, of, deadline)] as const,
  );
  return Object.fromEntries(await Promise.all(ends));
}

async function behindLast(
  cluster: Cluster,
  topic: string,
  { partition, leader }: PartitionMetadata,
  deadline: number,
): Promise<number> {
  const ref = { topic, partition };
  const [earliest, end] = await Promise.all([
    offsetAt(cluster, leader, ref, 'earliest', false),
    offsetAt(cluster, leader, ref, 'latest', false),
  ]);
  while ((await offsetAt(cluster, leader, ref, 'latest', true)) < end) {
    if (performance.now() > deadline)
      throw unavailable(
        `${topic}-${partition}: a transaction is open, and hides what lies behind it: see \`interlock replicate status\``,
      );
    await sleep(POLL_MS);
  }
  let found = earliest;
  for (let back = 10; ; back *= 10) {
    const from = Math.max(earliest, end - back);
    await readCommitted(cluster, ref, { leader, end }, from, ({ offset }) => void (found = offset + 1));
    if (found > earliest || from === earliest) return found;
  }
}
