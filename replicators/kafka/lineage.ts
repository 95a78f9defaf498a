import { InterlockError } from '../../src/errors.js';
import type { Cluster } from './client/cluster.js';
import { byLeader, offsetForLeaderEpoch } from './client/data-api.js';
import { check } from './client/protocol-errors.js';
import type { KafkaLinkConfig } from './link-config.js';
import type { SourcePartition } from './source-partition.js';

/**
 * A leader that was elected without the records that were copied (unclean election, a topic made anew) has written others at their offsets.
 * @throws NeedsOperator with state `diverged`
 */
export async function requireSameHistory(
  config: KafkaLinkConfig,
  source: Cluster,
  partitions: SourcePartition[],
): Promise<void> {
  const known = partitions.filter(({ positionEpoch, leader }) => positionEpoch >= 0 && leader >= 0);
  for (const [leader, of] of byLeader(known)) {
    const asked = of.map(({ topic, partition, leaderEpoch, positionEpoch: epoch }) => {
      return { topic, partition, leaderEpoch, epoch };
    });
    for (const { topic, partition, error, offset, leaderEpoch } of await source.call(
      leader,
      offsetForLeaderEpoch(asked),
    )) {
      const name = `${topic}-${partition}`;
      check(error, `the history of ${name}`);
      const { position, positionEpoch } = of.find((p) => p.name === name)!;
      // A leader that does not know the epoch of what was copied (-1, or an earlier one) never had it.
      if (leaderEpoch === positionEpoch && offset >= position) continue;
      throw diverged(config, name, position, Math.max(offset, 0));
    }
  }
}

/**
 * A topic that was deleted and made anew may have grown past what was copied: offsets and epochs do not tell the two apart, their ids do.
 * @throws NeedsOperator with state `diverged`
 */
export function requireSameTopic(
  config: KafkaLinkConfig,
  { name, position, topicId: copied }: SourcePartition,
  topicId: string | null,
): void {
  if (copied === null || topicId === null || copied === topicId) return;
  throw new InterlockError(
    'NeedsOperator',
    `${config.link} has copied ${name} up to ${position}, but ${config.from} has deleted the topic since and made it anew. ${mend(config)}`,
    { details: { link: config.link, state: 'diverged', partition: name, position, copied, topicId } },
  );
}

/** The copy was deleted at the target: what was copied into it is behind the position, and is not copied again. */
export function copyGone(config: KafkaLinkConfig, topic: string, copy: string): InterlockError {
  return new InterlockError(
    'NeedsOperator',
    `${config.link} has copied ${topic} into ${copy}, but ${config.to} does not have that topic any more. Create ${copy} by hand to go on without what it had, or leave ${topic} out`,
    { details: { link: config.link, state: 'diverged', topic, copy } },
  );
}

export function gap(config: KafkaLinkConfig, name: string, from: number, to: number): InterlockError {
  return new InterlockError(
    'NeedsOperator',
    `${config.link}: ${config.from} has removed ${name} from ${from} to ${to - 1} (${to - from} offsets) before it was copied. Start the link again with onGap: go-on to leave them out, or discard its checkpoint`,
    { details: { link: config.link, state: 'gap', partition: name, from, to } },
  );
}

export function diverged(config: KafkaLinkConfig, name: string, at: number, end: number): InterlockError {
  return new InterlockError(
    'NeedsOperator',
    `${config.link} has copied ${name} up to ${at}, but ${config.from} has it only up to ${end}: the topic was made anew, or the broker has lost records. ${mend(config)}`,
    { details: { link: config.link, state: 'diverged', partition: name, position: at, end } },
  );
}

function mend({ link }: KafkaLinkConfig): string {
  return `Reconcile the copy, then: interlock replicate start ${link} --from now --discard-checkpoint`;
}
