import type { StuckPartition } from '../core/contract.js';
import type { Cluster } from './client/cluster.js';
import { byLeader } from './client/data-api.js';
import { describeProducers, listTransactions } from './client/open-transactions-api.js';
import type { SourcePartition } from './source-partition.js';

/** An open transaction hides what follows it from everyone who reads committed records; for so long that is usual. */
const USUAL_MS = 10_000;
const SHOWN = 10;

/** Partitions that a transaction of the source holds up, and whose it is. */
export async function stuckPartitions(
  source: Cluster,
  partitions: Iterable<SourcePartition>,
): Promise<StuckPartition[]> {
  const now = performance.now();
  const stuck = [...partitions]
    .filter(
      ({ stuckSince, leader }) => stuckSince !== undefined && leader >= 0 && now - stuckSince > USUAL_MS,
    )
    .slice(0, SHOWN);
  if (stuck.length === 0) return [];
  const open = (
    await Promise.all([...byLeader(stuck)].map(([leader, of]) => source.call(leader, describeProducers(of))))
  ).flat();
  const names = new Map<bigint, string>();
  const producers = [...new Set(open.map(({ producerId }) => producerId))];
  for (const node of producers.length === 0 ? [] : await source.nodes())
    for (const [id, name] of await source.call(node, listTransactions(producers))) names.set(id, name);
  return stuck.map(({ topic, partition, lastStableOffset, highWatermark, stuckSince }) => {
    const first = open
      .filter((o) => o.topic === topic && o.partition === partition)
      .sort((a, b) => a.startOffset - b.startOffset)[0];
    return {
      topic,
      partition,
      lastStableOffset,
      hiddenRecords: highWatermark - lastStableOffset,
      stuckMs: Math.round(now - stuckSince!),
      producerId: first === undefined ? null : String(first.producerId),
      transactionalId: (first && names.get(first.producerId)) ?? null,
    };
  });
}
