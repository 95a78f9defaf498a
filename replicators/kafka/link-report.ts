import type { KafkaLinkStatus } from '../core/contract.js';
import type { GroupTranslator } from './groups.js';
import type { SourcePartition } from './source-partition.js';

/** A status travels in every heartbeat. */
const SHOWN = 32;
const WORST = 20;

export function summary(parts: string[]): string {
  if (parts.length <= SHOWN) return parts.join(' ');
  return `${parts.slice(0, SHOWN).join(' ')} and ${parts.length - SHOWN} more`;
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
