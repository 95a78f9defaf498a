import { setTimeout as sleep } from 'node:timers/promises';
import type { Cluster } from './client/cluster.js';
import { unavailable } from './client/connection.js';
import { CommittedReader, fetchAll, ledPartitions, offsetsAt, WAIT_MS } from './read-committed.js';
import type { LedPartition } from './read-committed.js';

const POLL_MS = 5;

/** By topic and partition. */
export type LastRecords = Record<string, Record<number, number>>;

/**
 * Behind the last record of each partition of some topics, with what is open there now. Not the end of the log: a consumer never gets to a control record
 * that is there. Where retention has removed all that was, the start of the log: the last one was before it, and a copy may still have it. Hazard: up to the last decided offset only, a record would be missed that lies behind another producer's open transaction.
 * @param deadline by the monotonic clock: what is open has to be decided by then
 * @throws Unavailable: it is not
 */
export async function behindLastRecords(
  cluster: Cluster,
  topics: readonly string[],
  deadline: number,
): Promise<LastRecords> {
  const found: LastRecords = Object.fromEntries(topics.map((topic) => [topic, {}]));
  if (topics.length === 0) return found;
  // For all of them one request at a time: a broker answers those of a connection one after the other.
  const partitions = ledPartitions((await cluster.metadata(topics)).topics);
  const earliest = await offsetsAt(cluster, partitions, 'earliest', false);
  const ends = await offsetsAt(cluster, partitions, 'latest', false);
  await decided(cluster, partitions, ends, deadline);
  // Hazard: a group that has not handled what retention has removed here is owed it from the copy. Where that lacks it, too, its end says so.
  partitions.forEach(({ topic, partition }, i) => (found[topic]![partition] = earliest[i]!));
  let left = partitions.map((of, i) => ({ of, earliest: earliest[i]!, end: ends[i]! }));
  for (let back = 10; left.length > 0; back *= 10) {
    const ended = new Map<CommittedReader, number>();
    for (const { of, earliest: first, end } of left)
      ended.set(new CommittedReader(cluster, of.leader, of, Math.max(first, end - back), WAIT_MS), end);
    for (;;) {
      const due = [...ended].filter(([{ offset }, end]) => offset < end).map(([reader]) => reader);
      if (due.length === 0) break;
      await fetchAll(cluster, due, (reader, { offset }) => {
        const { topic, partition } = reader.ref;
        if (offset < ended.get(reader)!) found[topic]![partition] = offset + 1;
      });
    }
    left = left.filter(
      ({ of: { topic, partition }, earliest: first, end }) =>
        found[topic]![partition] === first && end - back > first,
    );
  }
  return found;
}

/** Returns when all transactions that are open before these ends are committed or undone. */
async function decided(
  cluster: Cluster,
  partitions: readonly LedPartition[],
  ends: readonly number[],
  deadline: number,
): Promise<void> {
  for (;;) {
    const stable = await offsetsAt(cluster, partitions, 'latest', true);
    const open = partitions.find((_, i) => stable[i]! < ends[i]!);
    if (open === undefined) return;
    if (performance.now() > deadline)
      throw unavailable(
        `${open.topic}-${open.partition}: a transaction is open, and hides what lies behind it: see \`interlock replicate status\``,
      );
    await sleep(POLL_MS);
  }
}
