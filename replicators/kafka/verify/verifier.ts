import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { InterlockError, messageOf } from '../../../src/errors.js';
import { NOBODY } from '../../core/contract.js';
import { checkpointPartition } from '../checkpoint.js';
import type { PartitionPosition } from '../checkpoint.js';
import { CheckpointTail } from '../checkpoint-tail.js';
import { Cluster } from '../client/cluster.js';
import type { TopicMetadata } from '../client/metadata-api.js';
import { describeConfigs } from '../client/topics-api.js';
import type { KafkaLinkConfig } from '../link-config.js';
import { endOffsets, writeMarker } from '../markers.js';
import { TopicFilter } from '../topic-filter.js';
import { comparePartition } from './partition.js';
import type { ComparedPartition, ComparedTopic } from './report.js';

const POLL_MS = 100;

export interface VerifyOptions {
  /** Topics of the source; all that the link carries when absent. */
  topics?: TopicFilter;
  /** How long the link has to pass what the source holds now. */
  waitMs: number;
  /** Differences that are shown, of each partition. */
  keep: number;
  onProgress?: (line: string) => void;
}

/**
 * Compares what a link carries, record by record, under live writes: up to where the source ends when it begins. The link says by a marker when it has
 * passed that. What has no position by then is compared as far as the link has come, and is undecided. Changes nothing.
 */
export async function verifyKafkaLink(
  config: KafkaLinkConfig,
  { topics: only, waitMs, keep, onProgress = () => undefined }: VerifyOptions,
): Promise<ComparedTopic[]> {
  const source = new Cluster(config.source);
  const target = new Cluster(config.target);
  const filter = new TopicFilter(config);
  try {
    const topics = (await source.metadata(null)).topics.filter(
      ({ name, error, internal }) =>
        error === 0 && !internal && filter.carries(name) && (only?.carries(name) ?? true),
    );
    const ends = await endOffsets(
      source,
      topics.flatMap(({ name, partitions }) => partitions.map((p) => ({ ...p, topic: name }))),
    );
    const positions = await passed(config, { source, target }, ends, waitMs);
    const compared: ComparedTopic[] = [];
    for (const topic of topics.sort((a, b) => (a.name < b.name ? -1 : 1))) {
      const copy = filter.copyOf(topic.name);
      const of = { config, source, target, topic, copy, positions, ends, keep };
      const partitions = await compareTopic(of);
      const records = partitions.reduce((sum, { records: count }) => sum + count, 0);
      onProgress(`${config.link}: ${topic.name}, ${records} records compared`);
      compared.push({ link: config.link, topic: topic.name, copy, partitions });
    }
    return compared;
  } finally {
    source.close();
    target.close();
  }
}

/** How far the link has come: all of `ends`, or as far as it gets in the time. Its marker makes it write that down. */
async function passed(
  config: KafkaLinkConfig,
  { source, target }: { source: Cluster; target: Cluster },
  ends: ReadonlyMap<string, number>,
  waitMs: number,
): Promise<ReadonlyMap<string, PartitionPosition>> {
  const tail = new CheckpointTail(target);
  await writeMarker(source, { id: `verify-${randomUUID()}`, workflowId: NOBODY, runId: NOBODY });
  const deadline = performance.now() + waitMs;
  for (;;) {
    const checkpoint = await tail.read(config.link, checkpointPartition(config.link));
    if (checkpoint === undefined) {
      throw new InterlockError(
        'Refused',
        `${config.link} was never started; run: interlock replicate start '${config.link}' --from now`,
        { details: { link: config.link } },
      );
    }
    const { positions } = checkpoint;
    const missing = [...ends].some(([name, end]) => end > 0 && (positions.get(name)?.offset ?? 0) < end);
    if (!missing || performance.now() > deadline) return positions;
    await sleep(POLL_MS);
  }
}

interface TopicPair {
  config: KafkaLinkConfig;
  source: Cluster;
  target: Cluster;
  topic: TopicMetadata;
  copy: string;
  positions: ReadonlyMap<string, PartitionPosition>;
  ends: ReadonlyMap<string, number>;
  keep: number;
}

async function compareTopic(pair: TopicPair): Promise<ComparedPartition[]> {
  const { config, source, target, topic, copy, positions, ends, keep } = pair;
  const copies = (await target.metadata([copy])).topics[0];
  const compacted = await isCompacted(source, topic.name);
  const compared: ComparedPartition[] = [];
  for (const { partition, leader } of [...topic.partitions].sort((a, b) => a.partition - b.partition)) {
    const name = `${topic.name}-${partition}`;
    const end = ends.get(name) ?? 0;
    const to = Math.min(end, positions.get(name)?.offset ?? 0);
    const there = copies?.partitions.find((one) => one.partition === partition);
    const behind =
      to < end ? `the link has come to ${to} of ${end}: is it running? interlock replicate status` : null;
    try {
      if (there === undefined) {
        const undecided = end === 0 ? null : `${copy} has no partition ${partition} in ${config.to}`;
        compared.push(nothing(partition, to, compacted, undecided));
        continue;
      }
      const result = await comparePartition(
        { source, target },
        {
          dc: config.from,
          source: { topic: topic.name, partition, leader },
          copy: { topic: copy, partition, leader: there.leader },
          ...{ begun: positions.get(name)?.begun, to, compacted, keep },
        },
      );
      compared.push({ ...result, undecided: result.undecided ?? behind });
    } catch (error) {
      compared.push(nothing(partition, to, compacted, messageOf(error)));
    }
  }
  return compared;
}

function nothing(
  partition: number,
  to: number,
  compacted: boolean,
  undecided: string | null,
): ComparedPartition {
  const counts = { records: 0, copies: 0, before: 0, ranges: [], offsets: null };
  return { partition, from: null, to, compacted, ...counts, differing: 0, differences: [], undecided };
}

async function isCompacted(cluster: Cluster, topic: string): Promise<boolean> {
  const [described] = await cluster.onController(describeConfigs([topic]));
  if (described?.error !== undefined) throw described.error;
  const policy = described?.configs.find(({ name }) => name === 'cleanup.policy')?.value;
  return policy?.includes('compact') === true;
}
