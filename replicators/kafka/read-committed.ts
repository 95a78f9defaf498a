import type { Cluster } from './client/cluster.js';
import { fetch, listOffsets } from './client/data-api.js';
import type { PartitionRef } from './client/data-api.js';
import { check } from './client/protocol-errors.js';
import { RecordCursor, readBatches } from './client/record-batch.js';
import { CommittedOnly } from './committed-only.js';

const FETCH_BYTES = 2 ** 22;

interface Bounds {
  /** Node id. */
  leader: number;
  /** The first offset that is there, and the one behind the last transaction that is decided. */
  earliest: number;
  end: number;
}

export async function boundsOf(cluster: Cluster, leader: number, ref: PartitionRef): Promise<Bounds> {
  const of = [{ ...ref, leaderEpoch: -1 }];
  const [[earliest], [end]] = await Promise.all([
    cluster.call(leader, listOffsets(of, 'earliest', true)),
    cluster.call(leader, listOffsets(of, 'latest', true)),
  ]);
  for (const found of [earliest, end]) check(found!.error, `the offsets of ${ref.topic}-${ref.partition}`);
  return { leader, earliest: earliest!.offset, end: end!.offset };
}

/** Committed records from `from` on, up to `end`; the cursor stands at each while `onRecord` runs, which may end it by `true`. */
export async function readCommitted(
  cluster: Cluster,
  ref: PartitionRef,
  { leader, end }: Pick<Bounds, 'leader' | 'end'>,
  from: number,
  onRecord: (cursor: RecordCursor) => boolean | void,
): Promise<void> {
  const cursor = new RecordCursor();
  const committed = new CommittedOnly();
  const name = `${ref.topic}-${ref.partition}`;
  for (let offset = from; offset < end;) {
    const { partitions } = await cluster.call(
      leader,
      fetch([{ ...ref, leaderEpoch: -1, offset, maxBytes: FETCH_BYTES }], {
        ...{ readCommitted: true, maxWaitMs: 500, maxBytes: FETCH_BYTES, forgotten: [] },
        session: { id: 0, epoch: -1 },
      }),
    );
    const got = partitions[0]!;
    check(got.error, `reading ${name}`);
    committed.expect(got.aborted);
    for (const batch of readBatches(got.records, name)) {
      if (committed.holds(batch)) {
        cursor.open(batch);
        while (cursor.next()) {
          if (cursor.offset < offset || cursor.offset >= end) continue;
          if (onRecord(cursor) === true) return;
        }
      }
      offset = batch.lastOffset + 1;
    }
  }
}
