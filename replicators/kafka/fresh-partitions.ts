import type { DcId } from '../../src/routing/units.js';
import type { CarriedTopic } from './catalog.js';
import { firstPosition } from './checkpoint.js';
import type { Cluster } from './client/cluster.js';
import { byLeader, listOffsets } from './client/data-api.js';
import type { PartitionMetadata } from './client/metadata-api.js';
import { check } from './client/protocol-errors.js';
import { SourcePartition } from './source-partition.js';

export type FreshPartition = PartitionMetadata & { topic: CarriedTopic };

/** Partitions that a link has no position of: from the first record that is there. One that nobody leads now is left for later. */
export async function beginAtEarliest(
  dc: DcId,
  source: Cluster,
  fresh: readonly FreshPartition[],
): Promise<SourcePartition[]> {
  const begun: SourcePartition[] = [];
  for (const [leader, of] of byLeader(fresh.filter((one) => one.leader >= 0))) {
    const refs = of.map((one) => ({ ...one, topic: one.topic.source.name }));
    const offsets = await source.call(leader, listOffsets(refs, 'earliest', false));
    for (const { partition, leaderEpoch, topic } of of) {
      const { name, id } = topic.source;
      const at = offsets.find((one) => one.topic === name && one.partition === partition)!;
      check(at.error, `the beginning of ${name}-${partition}`);
      const position = firstPosition(name, partition, at.offset, id);
      const made = new SourcePartition(dc, name, partition, topic.copy.name, position);
      begun.push(Object.assign(made, { leader, leaderEpoch, maxBatchBytes: topic.maxBatchBytes }));
    }
  }
  return begun;
}
