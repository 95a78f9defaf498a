import { InterlockError } from '../../src/errors.js';
import {
  checkpointBatches,
  checkpointPartition,
  CHECKPOINTS,
  firstPosition,
  readCheckpoint,
} from './checkpoint.js';
import type { PartitionPosition } from './checkpoint.js';
import { takeFromAll } from './claim.js';
import { Cluster } from './client/cluster.js';
import { byLeader, listOffsets } from './client/data-api.js';
import { check } from './client/protocol-errors.js';
import type { KafkaLinkConfig } from './link-config.js';
import { MARKERS, ensureMarkerTopic } from './markers.js';
import { TopicFilter } from './topic-filter.js';

/**
 * The first checkpoint of a link: where it begins in every partition that the source has now. What comes later begins at its beginning.
 * @throws Refused when the link has a checkpoint that is not to be discarded
 */
export async function initialiseKafkaLink(
  config: KafkaLinkConfig,
  { from, discardCheckpoint = false }: { from: 'now' | 'earliest'; discardCheckpoint?: boolean },
): Promise<void> {
  const source = new Cluster(config.source);
  const target = new Cluster(config.target);
  try {
    await ensureMarkerTopic(source);
    const { link } = config;
    const producer = await takeFromAll(target, link);
    const { checkpoint: existing, leader } = await readCheckpoint(target, link);
    if (existing !== undefined && !discardCheckpoint) {
      throw new InterlockError(
        'Refused',
        `${link} has a checkpoint already (generation ${existing.generation}, ${existing.positions.length} partitions); start it without --from to go on there, or add --discard-checkpoint to forget it`,
        { details: { link } },
      );
    }
    const { positions, clusterId } = await firstPositions(source, config, from);
    const kept = new Set(positions.map(({ topic, partition }) => `${topic}-${partition}`));
    const forget = (existing?.positions ?? []).filter(
      ({ topic, partition }) => !kept.has(`${topic}-${partition}`),
    );
    const about = {
      generation: (existing?.generation ?? 0) + 1,
      sourceCluster: clusterId,
      marker: null,
    };
    const at = { topic: CHECKPOINTS, partition: checkpointPartition(link), leader };
    for (const builder of checkpointBatches(link, about, positions, forget))
      await producer.send([{ ...at, builder }]);
    await producer.commit();
  } finally {
    source.close();
    target.close();
  }
}

async function firstPositions(
  source: Cluster,
  config: KafkaLinkConfig,
  from: 'now' | 'earliest',
): Promise<{ positions: PartitionPosition[]; clusterId: string }> {
  const filter = new TopicFilter(config);
  const { topics, clusterId } = await source.metadata(null);
  const partitions = topics
    .filter(({ name, error }) => error === 0 && (name === MARKERS || filter.carries(name)))
    .flatMap(({ name, id, partitions: of }) => of.map((p) => ({ ...p, topic: name, topicId: id })));
  const leaderless = partitions.find(({ leader }) => leader < 0);
  if (leaderless !== undefined) {
    throw new InterlockError(
      'Unavailable',
      `${config.link}: ${leaderless.topic}-${leaderless.partition} of ${config.from} has no leader`,
      { retryable: true },
    );
  }
  const ids = new Map(partitions.map(({ topic, topicId }) => [topic, topicId]));
  const positions: PartitionPosition[] = [];
  for (const [leader, of] of byLeader(partitions)) {
    // Where all transactions are decided: one that is open now is copied whole.
    const ours = of.filter(({ topic }) => topic !== MARKERS);
    const markers = of.filter(({ topic }) => topic === MARKERS);
    for (const found of [
      ...(await source.call(leader, listOffsets(ours, from === 'now' ? 'latest' : 'earliest', true))),
      ...(await source.call(leader, listOffsets(markers, 'latest', true))),
    ]) {
      const { topic, partition, error, offset } = found;
      check(error, `the offsets of ${topic}-${partition}`);
      positions.push(firstPosition(topic, partition, offset, ids.get(topic) ?? null));
    }
  }
  return { positions, clusterId };
}
