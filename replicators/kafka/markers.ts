import { InterlockError } from '../../src/errors.js';
import { NOBODY } from '../core/contract.js';
import type { Cluster } from './client/cluster.js';
import { byLeader, listOffsets, produce } from './client/data-api.js';
import type { PartitionRef } from './client/data-api.js';
import { KafkaError, check, isKafkaError } from './client/protocol-errors.js';
import { BatchBuilder, RecordCursor } from './client/record-batch.js';
import { createTopics } from './client/topics-api.js';
import type { QueuedBatch } from './source-partition.js';

/** A topic of the source: whoever reads a marker in it takes the end of all others after that. */
export const MARKERS = 'interlock.markers';

export interface MarkerRecord {
  id: string;
  workflowId: string;
  runId: string;
}

/** A baseline under way: the end of every partition, taken after the marker was read. Without a marker: only a part of the topic to be passed. */
export interface Baseline {
  marker: MarkerRecord | null;
  /** Of the markers' own partition. */
  next: number;
  leaderEpoch: number;
  /** undefined: not taken yet. */
  ends: Map<string, number> | undefined;
}

const cursor = new RecordCursor();

/** The markers in what was read of their topic, each with where the topic is after it; at last, where it is after all of it. */
export function markersIn(queued: QueuedBatch): Baseline[] {
  const { next, leaderEpoch } = queued;
  const end: Baseline = { marker: null, next, leaderEpoch, ends: undefined };
  const found: Baseline[] = [];
  if (queued.batch === null) return [end];
  cursor.open(queued.batch);
  while (cursor.next()) {
    const value = cursor.value();
    if (value === null) continue;
    const { id, workflowId, runId } = JSON.parse(value.toString()) as MarkerRecord;
    found.push({
      marker: { id, workflowId, runId },
      next: cursor.offset + 1,
      leaderEpoch,
      ends: undefined,
    });
  }
  return found.at(-1)?.next === next ? found : [...found, end];
}

export function isForNobody(marker: MarkerRecord): boolean {
  return marker.workflowId === NOBODY;
}

/** Where each partition ends now, with what is not decided yet. */
export async function endOffsets(
  source: Cluster,
  partitions: Iterable<PartitionRef & { leader: number; leaderEpoch: number }>,
): Promise<Map<string, number>> {
  const ends = new Map<string, number>();
  await Promise.all(
    [...byLeader(partitions)].map(async ([leader, of]) => {
      for (const { topic, partition, error, offset } of await source.call(
        leader,
        listOffsets(of, 'latest', false),
      )) {
        check(error, `the end of ${topic}-${partition}`);
        ends.set(`${topic}-${partition}`, offset);
      }
    }),
  );
  return ends;
}

export async function ensureMarkerTopic(source: Cluster): Promise<void> {
  const found = (await source.metadata([MARKERS])).topics[0];
  if (found?.error === 0) return;
  const [created] = await source.onController(
    createTopics([{ name: MARKERS, partitions: 1, configs: { 'retention.ms': '86400000' } }]),
  );
  if (created?.error !== undefined && !isKafkaError(created.error, 36)) throw created.error;
}

const WRITE_MS = 6_000;
const OF_NO_TRANSACTION = { producerId: -1n, producerEpoch: -1, baseSequence: -1 };

/**
 * Writes a marker into the source; after the fence, so that every record that was acknowledged before it lies before the ends that a link
 * takes when it reads the marker. The topic is there once a link was initialised. Of no transaction: who reads it needs not wait for a commit. One that
 * is written twice is reached twice.
 * @returns where it is: `interlock.markers-0:<offset>`
 */
export async function writeMarker(source: Cluster, marker: MarkerRecord): Promise<string> {
  const topic = (await source.metadata([MARKERS])).topics[0];
  if (topic === undefined || topic.error !== 0) {
    throw new InterlockError(
      'Refused',
      `${MARKERS} cannot be written: ${new KafkaError(topic?.error ?? 3, MARKERS).message}; a link that starts makes it`,
      { retryable: true },
    );
  }
  const builder = new BatchBuilder(512);
  builder.add(Date.now(), Buffer.from(marker.id), Buffer.from(JSON.stringify(marker)));
  const batch = builder.finish(OF_NO_TRANSACTION);
  const request = produce(null, [{ topic: MARKERS, partition: 0, batch }], WRITE_MS);
  const [written] = await source.call(topic.partitions[0]!.leader, request, WRITE_MS * 2);
  check(written!.error, `writing to ${MARKERS}`, written!.message);
  return `${MARKERS}-0:${written!.baseOffset}`;
}
