import type { KafkaLinkStatus } from '../core/contract.js';
import type { LinkLag } from '../core/status.js';
import type { GroupTranslator } from './groups.js';
import type { SourcePartition } from './source-partition.js';

/** A status travels in every heartbeat. */
const SHOWN = 32;
const WORST = 20;

export function summary(parts: string[]): string {
  if (parts.length <= SHOWN) return parts.join(' ');
  return `${parts.slice(0, SHOWN).join(' ')} and ${parts.length - SHOWN} more`;
}

/** How far a link is behind. Times by the monotonic clock. */
export function lagOf(
  partitions: Iterable<SourcePartition>,
  since: { begunAt: number; movedAt: number; checkpointAgeMs: number },
): LinkLag {
  const now = performance.now();
  let oldest = now;
  let records = 0;
  for (const { behindSince, highWatermark, position } of partitions) {
    if (behindSince !== undefined && behindSince < oldest) oldest = behindSince;
    records += Math.max(0, highWatermark - position);
    // Not told yet where it ends: nobody knows that there is nothing.
    if (highWatermark < 0) [records, oldest] = [records + 1, Math.min(oldest, since.begunAt)];
  }
  const lagMs = records === 0 ? 0 : Math.max(1, Math.round(now - oldest));
  return {
    lagMs,
    // How many bytes the source has behind what was read, it does not say.
    lagBytes: records === 0 ? 0 : null,
    stalledMs: lagMs === 0 ? 0 : Math.round(now - Math.max(since.movedAt, oldest)),
    checkpointAgeMs: Math.round(since.checkpointAgeMs),
    binlog: null,
  };
}

/** What the status says of topics and groups, beside what all links say. */
export function linkReport(
  partitions: readonly SourcePartition[],
  groups: GroupTranslator,
  found: Pick<KafkaLinkStatus, 'stuck' | 'deleted' | 'gaps' | 'late' | 'tornTransactions'>,
): KafkaLinkStatus {
  const now = performance.now();
  const behind = partitions
    .map(({ topic, partition, position, highWatermark: end, behindSince }) => ({
      topic,
      partition,
      position,
      end,
      lagRecords: Math.max(0, end - position),
      lagMs: behindSince === undefined ? 0 : Math.round(now - behindSince),
    }))
    .filter(({ lagRecords }) => lagRecords > 0)
    .sort((a, b) => b.lagRecords - a.lagRecords);
  const count = (state: string): number => groups.positions.filter((p) => p.state === state).length;
  return {
    topics: new Set(partitions.map(({ topic }) => topic)).size,
    partitions: partitions.length,
    lagRecords: behind.reduce((sum, { lagRecords }) => sum + lagRecords, 0),
    behind: behind.slice(0, WORST),
    ...found,
    groupPositions: {
      translated: count('translated'),
      own: count('own'),
      active: count('active'),
      error: groups.lastError,
    },
  };
}
