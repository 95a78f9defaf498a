import type { Cluster } from './client/cluster.js';
import { fetch, listOffsets } from './client/data-api.js';
import type { PartitionRef } from './client/data-api.js';
import { check } from './client/protocol-errors.js';
import { RecordCursor, readBatches } from './client/record-batch.js';
import { CommittedOnly } from './committed-only.js';

const FETCH_BYTES = 2 ** 22;
/** A broker answers so late when there is nothing yet. */
export const WAIT_MS = 500;

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

/** Reads the committed records of one partition, a fetch at a time. */
export class CommittedReader {
  private readonly cursor = new RecordCursor();
  private readonly committed = new CommittedOnly();

  /** @param offset the next one to be read */
  constructor(
    private readonly cluster: Cluster,
    private readonly leader: number,
    private readonly ref: PartitionRef,
    public offset: number,
    private readonly maxWaitMs: number,
  ) {}

  /**
   * The cursor stands at each record while `onRecord` runs, which may end it by `true`.
   * @returns whether it was ended
   */
  async fetch(onRecord: (cursor: RecordCursor) => boolean | void): Promise<boolean> {
    const { cursor, committed, maxWaitMs } = this;
    const { topic, partition } = this.ref;
    const name = `${topic}-${partition}`;
    const { partitions } = await this.cluster.call(
      this.leader,
      fetch([{ topic, partition, leaderEpoch: -1, offset: this.offset, maxBytes: FETCH_BYTES }], {
        ...{ readCommitted: true, maxWaitMs, maxBytes: FETCH_BYTES, forgotten: [] },
        session: { id: 0, epoch: -1 },
      }),
    );
    const got = partitions[0]!;
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

/** Committed records from `from` on, up to `end`; as of `CommittedReader.fetch`. */
export async function readCommitted(
  cluster: Cluster,
  ref: PartitionRef,
  { leader, end }: { leader: number; end: number },
  from: number,
  onRecord: (cursor: RecordCursor) => boolean | void,
): Promise<void> {
  const reader = new CommittedReader(cluster, leader, ref, from, WAIT_MS);
  const upTo = (cursor: RecordCursor): boolean | void => cursor.offset < end && onRecord(cursor);
  while (reader.offset < end) if (await reader.fetch(upTo)) return;
}
