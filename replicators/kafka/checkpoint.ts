import { createHash } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { InterlockError } from '../../src/errors.js';
import type { KafkaLinkStatus } from '../core/contract.js';
import type { Cluster } from './client/cluster.js';
import { isKafkaError } from './client/protocol-errors.js';
import { BatchBuilder } from './client/record-batch.js';
import { createTopics } from './client/topics-api.js';
import type { MarkerRecord } from './markers.js';
import { CommittedReader, WAIT_MS, offsetAt } from './read-committed.js';

/** A compacted topic of the target: what a link has copied, written in the transactions that hold the copies. */
export const CHECKPOINTS = 'interlock.checkpoints';
const PARTITIONS = 8;
const SETTLE_MS = 120_000;
/** A broker takes 1 MiB by default; of many partitions there is more. */
const BATCH_BYTES = 256 * 1024;

export interface PartitionPosition {
  topic: string;
  partition: number;
  /** The next one to be read; not the last one that was copied: control records and compaction leave gaps. */
  offset: number;
  /** Of the leader that wrote the record before it; -1: not known. */
  leaderEpoch: number;
  /** Of the topic that was copied; absent where the cluster gives none, or where it was not kept yet. */
  topicId?: string;
  /** Where the link began; absent where it was not kept yet. */
  begun?: number;
}

/** Of a partition of which nothing was copied yet. */
export function firstPosition(
  topic: string,
  partition: number,
  offset: number,
  topicId: string | null,
): PartitionPosition {
  return { topic, partition, offset, leaderEpoch: -1, begun: offset, ...(topicId !== null && { topicId }) };
}

export interface LinkRecord {
  generation: number;
  /** Of the source: positions of one cluster say nothing about another. */
  sourceCluster: string;
  /** The last one that was reached. */
  marker: MarkerRecord | null;
  /** What was left out, the last of it. */
  gaps?: KafkaLinkStatus['gaps'];
}

export interface Checkpoint extends LinkRecord {
  positions: PartitionPosition[];
}

/** A key of the topic is `["<link>"]`, `["<link>","<topic>",<partition>]`, or `["claim","<link>"]`: see `claimLink`. */
type Key = [string] | [string, string, number] | [typeof CLAIM, string];
export const CLAIM = 'claim';

/** Two links in one partition of the topic would wait for each other's open transactions when they start. */
export function checkpointPartition(link: string): number {
  return createHash('sha256').update(link).digest().readUInt32BE(0) % PARTITIONS;
}

export async function ensureCheckpointTopic(target: Cluster): Promise<void> {
  const found = (await target.metadata([CHECKPOINTS])).topics[0];
  if (found?.error === 0) return;
  const [created] = await target.onController(
    createTopics([
      {
        name: CHECKPOINTS,
        partitions: PARTITIONS,
        // A link reads it from the beginning when it starts.
        configs: {
          'cleanup.policy': 'compact',
          'compression.type': 'producer',
          'segment.bytes': '16777216',
          'segment.ms': '600000',
          'min.cleanable.dirty.ratio': '0.2',
        },
      },
    ]),
  );
  // Another link was first.
  if (created?.error !== undefined && !isKafkaError(created.error, 36)) throw created.error;
  await leaderOf(target, 0);
}

export async function leaderOf(target: Cluster, partition: number): Promise<number> {
  const deadline = performance.now() + 30_000;
  for (;;) {
    const topic = (await target.metadata([CHECKPOINTS])).topics[0];
    const found = topic?.partitions.find((p) => p.partition === partition);
    if (found !== undefined && found.leader >= 0) return found.leader;
    if (performance.now() > deadline) {
      throw new InterlockError('Unavailable', `${CHECKPOINTS}-${partition} has no leader`, {
        retryable: true,
      });
    }
    await sleep(20);
  }
}

/**
 * What was committed last, and where the topic's partition is led. Nothing of the link may be open: its transactional id was taken before.
 * @returns undefined: the link was never started into this target
 */
export async function readCheckpoint(
  target: Cluster,
  link: string,
): Promise<{ checkpoint: Checkpoint | undefined; leader: number; claimedBy: string | undefined }> {
  const partition = checkpointPartition(link);
  const leader = await leaderOf(target, partition);
  const ref = { topic: CHECKPOINTS, partition };
  // Hazard: a transaction of another link that is open hides what follows it, our own last commit too. Guard: read up to the end, not to
  // where transactions are decided now.
  const end = await offsetAt(target, leader, ref, 'latest', false);
  const earliest = await offsetAt(target, leader, ref, 'earliest', false);
  const records = new Map<string, Buffer | null>();
  const deadline = performance.now() + SETTLE_MS;
  const reader = new CommittedReader(target, leader, ref, earliest, WAIT_MS);
  while (reader.offset < end) {
    await reader.fetch((cursor) => {
      const value = cursor.value();
      records.set(cursor.key()?.toString() ?? '', value === null ? null : Buffer.from(value));
    });
    if (performance.now() > deadline) {
      throw new InterlockError(
        'Unavailable',
        `${CHECKPOINTS}-${partition}: a transaction at ${reader.offset} has been open for ${SETTLE_MS} ms, and hides the checkpoint of ${link}`,
        { retryable: true },
      );
    }
  }
  const claim: Key = [CLAIM, link];
  const claimedBy = records.get(JSON.stringify(claim))?.toString();
  return { checkpoint: assemble(link, records), leader, claimedBy };
}

function assemble(link: string, records: Map<string, Buffer | null>): Checkpoint | undefined {
  let about: LinkRecord | undefined;
  const positions: PartitionPosition[] = [];
  for (const [text, value] of records) {
    const key = JSON.parse(text) as Key;
    if (key[0] !== link || value === null) continue;
    if (key.length === 1) {
      about = JSON.parse(value.toString()) as LinkRecord;
    } else if (key.length === 3) {
      const position = JSON.parse(value.toString()) as PartitionPosition;
      positions.push({ ...position, topic: key[1], partition: key[2] });
    }
  }
  return about === undefined ? undefined : { ...about, positions };
}

/** What a transaction writes beside the copies, in batches that a broker takes. `forget`: positions that are no longer of this link. */
export function checkpointBatches(
  link: string,
  about: LinkRecord,
  positions: Iterable<PartitionPosition>,
  forget: Iterable<{ topic: string; partition: number }> = [],
): BatchBuilder[] {
  const { generation } = about;
  const batches: BatchBuilder[] = [];
  const now = Date.now();
  const add = (key: Key, value: unknown): void => {
    let builder = batches.at(-1);
    if (builder === undefined || builder.size > BATCH_BYTES) batches.push((builder = new BatchBuilder(4096)));
    builder.add(now, keyOf(key), value === null ? null : Buffer.from(JSON.stringify(value)));
  };
  add([link], about);
  for (const { topic, partition, ...position } of positions)
    add([link, topic, partition], { ...position, generation });
  for (const { topic, partition } of forget) add([link, topic, partition], null);
  return batches;
}

export function claimBatch(link: string, holder: string): BatchBuilder {
  const builder = new BatchBuilder(256);
  builder.add(Date.now(), keyOf([CLAIM, link]), Buffer.from(holder));
  return builder;
}

function keyOf(key: Key): Buffer {
  return Buffer.from(JSON.stringify(key));
}
