import type { Cluster } from './client/cluster.js';
import { fetch, listOffsets } from './client/data-api.js';
import { check } from './client/protocol-errors.js';
import { RecordCursor, readBatches } from './client/record-batch.js';
import { CommittedOnly } from './committed-only.js';
import { ORIGIN_KEY, parseOrigin } from './origin.js';

export interface CopyPartition {
  /** Of the source. */
  dc: string;
  topic: string;
  partition: number;
  copy: string;
  /** Of the copy: node id. */
  leader: number;
}

interface Found {
  /** Of the copy. */
  offset: number;
  /** Of the original. */
  original: number;
}

/**
 * Where in the copy the first record is whose original is at `offset` or later: looked up by the origins in the records, which ascend. All
 * that is before `offset` must be copied.
 */
export async function offsetInCopy(target: Cluster, of: CopyPartition, offset: number): Promise<number> {
  const ref = { topic: of.copy, partition: of.partition, leaderEpoch: -1 };
  const bound = async (at: 'earliest' | 'latest'): Promise<number> => {
    const [found] = await target.call(of.leader, listOffsets([ref], at, true));
    check(found!.error, `the offsets of ${of.copy}-${of.partition}`);
    return found!.offset;
  };
  let low = await bound('earliest');
  let high = await bound('latest');
  // What is at `low` and before it has an earlier original; what is at `high` and behind it has not.
  while (low < high) {
    const middle = Math.floor((low + high) / 2);
    const found = await firstAt(target, of, middle, high);
    if (found === undefined || found.original >= offset) high = middle;
    else low = found.offset + 1;
  }
  return low;
}

/** The first copy of a record of ours at `from` or behind it, and before `to`. */
async function firstAt(
  target: Cluster,
  of: CopyPartition,
  from: number,
  to: number,
): Promise<Found | undefined> {
  const cursor = new RecordCursor();
  for (let offset = from; offset < to;) {
    const { partitions } = await target.call(
      of.leader,
      fetch([{ topic: of.copy, partition: of.partition, leaderEpoch: -1, offset, maxBytes: 1 }], {
        readCommitted: true,
        maxWaitMs: 100,
        maxBytes: 1,
        session: { id: 0, epoch: -1 },
        forgotten: [],
      }),
    );
    const got = partitions[0]!;
    check(got.error, `reading ${of.copy}-${of.partition}`);
    const committed = new CommittedOnly();
    committed.expect(got.aborted);
    const batches = readBatches(got.records, of.copy);
    if (batches.length === 0) return undefined;
    for (const batch of batches) {
      if (committed.holds(batch)) {
        cursor.open(batch);
        while (cursor.next()) {
          if (cursor.offset < from) continue;
          if (cursor.offset >= to) return undefined;
          const origin = parseOrigin(cursor.header(ORIGIN_KEY));
          if (origin?.dc !== of.dc || origin.topic !== of.topic || origin.partition !== of.partition)
            continue;
          return { offset: cursor.offset, original: origin.offset };
        }
      }
      offset = batch.lastOffset + 1;
    }
  }
  return undefined;
}
