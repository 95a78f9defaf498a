import { InterlockError } from '../../src/errors.js';
import type { Cluster } from './client/cluster.js';
import { fetch } from './client/data-api.js';
import type { Fetched, PartitionRef } from './client/data-api.js';
import { KafkaError } from './client/protocol-errors.js';
import type { SourcePartition } from './source-partition.js';

const MAX_WAIT_MS = 500;
const FETCH_BYTES = 4 * 2 ** 20;
const PARTITION_BYTES = 2 ** 20;
/** What a broker answers at the latest, after its wait. */
const ANSWER_MS = 10_000;
const NO_SESSION = 70;
const WRONG_EPOCH = 71;

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
  private forgotten: PartitionRef[] = [];
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
      this.forgotten.push({ topic: partition.topic, partition: partition.partition });
    }
    this.partitions = [...partitions];
    this.byName = new Map(partitions.map((partition) => [partition.name, partition]));
  }

  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await this.events.room();
      if (signal.aborted) return;
      await this.once();
    }
  }

  private async once(): Promise<void> {
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
    const answer = await connection.call(
      fetch(
        changed.map((p) => ({
          topic: p.topic,
          partition: p.partition,
          offset: p.fetchOffset,
          leaderEpoch: p.leaderEpoch,
          maxBytes: PARTITION_BYTES,
        })),
        {
          readCommitted: true,
          maxWaitMs: MAX_WAIT_MS,
          maxBytes: FETCH_BYTES,
          session: this.session,
          forgotten,
        },
      ),
      ANSWER_MS,
    );
    if (answer.error === NO_SESSION || answer.error === WRONG_EPOCH) {
      // The broker has evicted it, for another's sake.
      this.session = { id: 0, epoch: 0 };
      return;
    }
    if (answer.error !== 0) throw new KafkaError(answer.error, `reading from broker ${this.node}`);
    this.session =
      answer.sessionId === 0
        ? { id: 0, epoch: 0 }
        : { id: answer.sessionId, epoch: isNew ? 1 : (this.session.epoch % (2 ** 31 - 1)) + 1 };
    for (const fetched of answer.partitions) {
      const partition = this.byName.get(`${fetched.topic}-${fetched.partition}`);
      if (partition === undefined) continue;
      if (fetched.error !== 0) throw new FetchRefused(partition, fetched.error);
      this.events.onFetched(partition, fetched);
    }
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
