import type { Cluster } from './client/cluster.js';
import type { Api } from './client/connection.js';
import { byLeader, fetch, listOffsets } from './client/data-api.js';
import type { FetchAnswer, Fetched, PartitionRef } from './client/data-api.js';
import { check } from './client/protocol-errors.js';
import type { TopicMetadata } from './client/metadata-api.js';
import { RecordCursor, readBatches } from './client/record-batch.js';
import { CommittedOnly } from './committed-only.js';

const FETCH_BYTES = 2 ** 22;
/** A broker answers so late when there is nothing yet. */
export const WAIT_MS = 500;

/** With the node that leads it. */
export type LedPartition = PartitionRef & { leader: number; leaderEpoch: number };

/** All partitions of these topics. */
export function ledPartitions(topics: readonly TopicMetadata[]): LedPartition[] {
  return topics.flatMap(({ name, partitions }) =>
    partitions.map(({ partition, leader }) => ({ topic: name, partition, leader, leaderEpoch: -1 })),
  );
}

/** @param committed up to where all transactions are decided (LSO), instead of to the end */
export async function offsetAt(
  cluster: Cluster,
  leader: number,
  { topic, partition }: PartitionRef,
  at: 'earliest' | 'latest',
  committed: boolean,
): Promise<number> {
  const [found] = await cluster.call(
    leader,
    listOffsets([{ topic, partition, leaderEpoch: -1 }], at, committed),
  );
  check(found!.error, `the offsets of ${topic}-${partition}`);
  return found!.offset;
}

/** The same of many partitions, one request to each leader. @returns in their order */
export async function offsetsAt(
  cluster: Cluster,
  partitions: readonly LedPartition[],
  at: 'earliest' | 'latest',
  committed: boolean,
): Promise<number[]> {
  const answers = [...byLeader(partitions)].map(([leader, of]) =>
    cluster.call(leader, listOffsets(of, at, committed)),
  );
  const found = (await Promise.all(answers)).flat();
  return partitions.map(({ topic, partition }) => {
    const one = found.find((listed) => listed.topic === topic && listed.partition === partition)!;
    check(one.error, `the offsets of ${topic}-${partition}`);
    return one.offset;
  });
}

/** Fetches once for all of these readers of one cluster, one request to each leader. */
export async function fetchAll(
  cluster: Cluster,
  readers: readonly CommittedReader[],
  onRecord: (reader: CommittedReader, cursor: RecordCursor) => void,
): Promise<void> {
  const answers = [...byLeader(readers)].map(async ([leader, of]) => {
    const { partitions } = await cluster.call(leader, request(of, WAIT_MS));
    for (const got of partitions) {
      const reader = of.find(({ ref }) => ref.topic === got.topic && ref.partition === got.partition)!;
      reader.take(got, (cursor) => onRecord(reader, cursor));
    }
  });
  await Promise.all(answers);
}

function request(readers: readonly CommittedReader[], maxWaitMs: number): Api<FetchAnswer> {
  const partitions = readers.map(({ ref: { topic, partition }, offset }) => ({
    ...{ topic, partition, offset, leaderEpoch: -1, maxBytes: FETCH_BYTES },
  }));
  return fetch(partitions, {
    ...{ readCommitted: true, maxWaitMs, maxBytes: FETCH_BYTES, forgotten: [] },
    session: { id: 0, epoch: -1 },
  });
}

/** Reads the committed records of one partition, a fetch at a time. */
export class CommittedReader {
  private readonly cursor = new RecordCursor();
  private readonly committed = new CommittedOnly();

  /** @param offset the next one to be read */
  constructor(
    private readonly cluster: Cluster,
    readonly leader: number,
    readonly ref: PartitionRef,
    public offset: number,
    private readonly maxWaitMs: number,
  ) {}

  /**
   * The cursor stands at each record while `onRecord` runs, which may end it by `true`.
   * @returns whether it was ended
   */
  async fetch(onRecord: (cursor: RecordCursor) => boolean | void): Promise<boolean> {
    const { partitions } = await this.cluster.call(this.leader, request([this], this.maxWaitMs));
    return this.take(partitions[0]!, onRecord);
  }

  /** What a broker has answered for this partition; as of `fetch`. */
  take(got: Fetched, onRecord: (cursor: RecordCursor) => boolean | void): boolean {
    const { cursor, committed } = this;
    const name = `${this.ref.topic}-${this.ref.partition}`;
    check(got.error, `reading ${name}`);
    committed.expect(got.aborted);
    for (const batch of readBatches(got.records, name)) {
      if (committed.holds(batch)) {
        cursor.open(batch);
        while (cursor.next()) if (cursor.offset >= this.offset && onRecord(cursor) === true) return true;
      }
      this.offset = batch.lastOffset + 1;
    }
    return false;
  }
}
