import { InterlockError } from '../../src/errors.js';
import { pause } from '../core/pause.js';
import type { Cluster } from './client/cluster.js';
import { fetch } from './client/data-api.js';
import type { Fetched, PartitionRef } from './client/data-api.js';
import { fetchById } from './client/fetch-by-id.js';
import type { WithId } from './client/fetch-by-id.js';
import { KafkaError } from './client/protocol-errors.js';
import type { SourcePartition } from './source-partition.js';

const MAX_WAIT_MS = 500;
/**
 * A request that waits costs the broker a look at all its partitions for each record that one of them gets. While records come, it is asked
 * now and then instead: of many partitions more seldom.
 */
const REST_MS_PER_PARTITION = 0.01;
const FETCH_BYTES = 4 * 2 ** 20;
const PARTITION_BYTES = 2 ** 20;
/** What a broker answers at the latest, after its wait. */
const ANSWER_MS = 10_000;
const SESSION_UNKNOWN = 70;
const WRONG_EPOCH = 71;
const OTHER_TOPIC_ID = 106;

export interface FetcherEvents {
  /** Returns when there is room for more. */
  onFetched: (partition: SourcePartition, fetched: Fetched) => void;
  room: () => Promise<void>;
}

/**
 * Reads the partitions that one broker leads, one request after the other, in a fetch session: after the first request only what has changed
 * is said, by both sides (KIP-227).
 */
export class Fetcher {
  private session = { id: 0, epoch: 0 };
  /** What the broker knows of: the offset that it was told last. */
  private readonly told = new Map<SourcePartition, number>();
  private forgotten: WithId<PartitionRef>[] = [];
  /** Id → name; undefined: the broker gives its topics none. */
  private topics: Map<string, string> | undefined;
  private partitions: SourcePartition[] = [];
  private byName = new Map<string, SourcePartition>();

  constructor(
    private readonly cluster: Cluster,
    private readonly node: number,
    private readonly events: FetcherEvents,
  ) {}

  setPartitions(partitions: SourcePartition[]): void {
    const kept = new Set(partitions);
    for (const partition of this.told.keys()) {
      if (kept.has(partition)) continue;
      this.told.delete(partition);
      const { topic, topicId } = partition;
      this.forgotten.push({ topic, partition: partition.partition, topicId: topicId ?? '' });
    }
    // Hazard: the broker would forget one that has come back: it adds first, and removes then.
    this.forgotten = this.forgotten.filter(
      ({ topic, topicId, partition }) =>
        !partitions.some(
          (one) => one.topic === topic && one.partition === partition && (one.topicId ?? '') === topicId,
        ),
    );
    const hadIds = this.topics !== undefined;
    const haveIds = partitions.every(({ topicId }) => topicId !== null);
    this.topics = haveIds ? new Map(partitions.map(({ topicId, topic }) => [topicId!, topic])) : undefined;
    if (hadIds !== haveIds) this.session = { id: 0, epoch: 0 };
    this.partitions = [...partitions];
    this.byName = new Map(partitions.map((partition) => [partition.name, partition]));
  }

  async run(signal: AbortSignal): Promise<void> {
    let maxWaitMs = MAX_WAIT_MS;
    while (!signal.aborted) {
      await this.events.room();
      if (signal.aborted) return;
      const hasRecords = await this.once(maxWaitMs, signal);
      const restMs = hasRecords ? Math.floor(this.partitions.length * REST_MS_PER_PARTITION) : 0;
      maxWaitMs = restMs === 0 ? MAX_WAIT_MS : 0;
      if (restMs > 0) await pause(restMs, signal);
    }
  }

  /** @returns whether any records have come */
  private async once(maxWaitMs: number, signal: AbortSignal): Promise<boolean> {
    const isNew = this.session.epoch === 0;
    if (isNew) {
      this.told.clear();
      // Hazard: what does not fit is left out, and without a session the broker begins with the first one each time.
      this.partitions.push(...this.partitions.splice(0, 1));
    }
    const changed = this.partitions.filter((p) => this.told.get(p) !== p.fetchOffset);
    for (const partition of changed) this.told.set(partition, partition.fetchOffset);
    const forgotten = isNew ? [] : this.forgotten;
    this.forgotten = [];
    const connection = await this.cluster.broker(this.node, 'fetch');
    const asked = changed.map(({ topic, topicId, partition, fetchOffset: offset, leaderEpoch }) => ({
      ...{ topic, topicId: topicId ?? '', partition, offset, leaderEpoch, maxBytes: PARTITION_BYTES },
    }));
    const { session, topics } = this;
    const options = { readCommitted: true, maxWaitMs, maxBytes: FETCH_BYTES, session, forgotten };
    const answer = await connection.call(
      topics === undefined ? fetch(asked, options) : fetchById(asked, options, topics),
      ANSWER_MS,
    );
    // Hazard: what comes late is of a broker that does not lead them any more, and others have been read since.
    if (signal.aborted) return false;
    if ([SESSION_UNKNOWN, WRONG_EPOCH, OTHER_TOPIC_ID].includes(answer.error)) {
      // The broker has evicted it, for another's sake.
      this.session = { id: 0, epoch: 0 };
      return false;
    }
    if (answer.error !== 0) throw new KafkaError(answer.error, `reading from broker ${this.node}`);
    this.session =
      answer.sessionId === 0
        ? { id: 0, epoch: 0 }
        : { id: answer.sessionId, epoch: isNew ? 1 : (this.session.epoch % (2 ** 31 - 1)) + 1 };
    let hasRecords = false;
    for (const fetched of answer.partitions) {
      hasRecords ||= fetched.records.length > 0;
      const partition = this.byName.get(`${fetched.topic}-${fetched.partition}`);
      if (partition === undefined) continue;
      if (fetched.error !== 0) throw new FetchRefused(partition, fetched.error);
      this.events.onFetched(partition, fetched);
    }
    return hasRecords;
  }
}

/** A broker does not give the records of a partition that were asked for. */
export class FetchRefused extends InterlockError {
  constructor(
    readonly partition: SourcePartition,
    readonly number: number,
  ) {
    const error = new KafkaError(number, `reading ${partition.name} at ${partition.fetchOffset}`);
    super(error.code, error.message, { retryable: error.retryable, details: error.details, cause: error });
  }
}
