import { InterlockError } from '../../src/errors.js';
import type { HandOver } from '../../src/kafka/hand-over.js';
import type { DcId } from '../../src/routing/units.js';
import { checkpointPartition } from './checkpoint.js';
import type { CheckpointTail } from './checkpoint-tail.js';
import type { Cluster } from './client/cluster.js';
import { offsetsAt } from './read-committed.js';
import type { LedPartition } from './read-committed.js';

export interface UncopiedQuestion {
  /** From the old owner's cluster to the new one's. */
  link: string;
  from: { dc: DcId; cluster: Cluster };
  checkpoints: CheckpointTail;
}

interface Range {
  group: string;
  topic: string;
  partition: number;
  from: number;
  to: number;
}

/**
 * Hazard: a link that began at now has no copies of what was there before. Where a group has not handled that, the new owner never would, and nothing would say so.
 * @throws InterlockError Refused
 */
export async function requireCopied(
  { link, from, checkpoints }: UncopiedQuestion,
  groups: readonly { group: string; topic: string; value: readonly HandOver[] }[],
): Promise<void> {
  // All is handled: nothing of the link has to be known, and units are fenced meanwhile.
  const isAnyLeft = groups.some(({ value }) => value.some(({ stages }) => stages.length > 0));
  if (!isAnyLeft) return;
  const positions = (await checkpoints.read(link, checkpointPartition(link)))?.positions;
  const suspects = groups.flatMap(({ group, topic, value }) =>
    value.flatMap((handOver) =>
      handOver.stages
        .filter(({ origin }) => origin === from.dc)
        .flatMap(({ to }) => Object.entries(to))
        .map(([key, end]): Range => {
          const partition = Number(key);
          const begun = positions?.get(`${topic}-${partition}`)?.begun ?? 0;
          const first = handOver.from[from.dc]?.[partition] ?? 0;
          return { group, topic, partition, from: first, to: Math.min(begun, end) };
        }),
    ),
  );
  const ranges = await stillThere(
    from.cluster,
    suspects.filter((range) => range.from < range.to),
  );
  const [worst] = ranges.sort((a, b) => b.to - b.from - (a.to - a.from));
  if (worst === undefined) return;
  const { group, topic, partition } = worst;
  throw new InterlockError(
    'Refused',
    `group ${group} has not handled ${topic}-${partition} from ${worst.from} up to ${worst.to}, and ${link} has no copy of that: it began at ${worst.to}. Wait until the group has handled it at ${from.dc} (interlock kafka groups), then move again`,
    { details: { link, group, topic, partition, from: worst.from, to: worst.to } },
  );
}

/** What retention has removed meanwhile, nobody can handle any more. */
async function stillThere(cluster: Cluster, ranges: readonly Range[]): Promise<Range[]> {
  if (ranges.length === 0) return [];
  const { topics } = await cluster.metadata([...new Set(ranges.map(({ topic }) => topic))]);
  const led = ranges.map(({ topic, partition }): LedPartition => {
    const found = topics
      .find(({ name }) => name === topic)
      ?.partitions.find((p) => p.partition === partition);
    return { topic, partition, leader: found?.leader ?? -1, leaderEpoch: -1 };
  });
  const earliest = await offsetsAt(cluster, led, 'earliest', false);
  return ranges
    .map((range, i) => ({ ...range, from: Math.max(range.from, earliest[i]!) }))
    .filter((range) => range.from < range.to);
}
