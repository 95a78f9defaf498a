import { createHash } from 'node:crypto';
import { InterlockError } from '../../../src/errors.js';
import type { Cluster } from '../client/cluster.js';
import { fetch, listOffsets } from '../client/data-api.js';
import { check } from '../client/protocol-errors.js';
import { RecordCursor, readBatches } from '../client/record-batch.js';
import { CommittedOnly } from '../committed-only.js';

const FETCH_BYTES = 4 * 2 ** 20;
const FETCH_WAIT_MS = 500;
const OUT_OF_RANGE = 1;

export interface Place {
  topic: string;
  partition: number;
  /** Node id. */
  leader: number;
}

/** Walks the committed records of a partition in [from, to), some at a time. @param take what is kept of a record; undefined: nothing */
export async function* committedRecords<T>(
  cluster: Cluster,
  place: Place,
  from: number,
  to: number,
  take: (cursor: RecordCursor) => T | undefined,
): AsyncGenerator<T[]> {
  const { topic, partition, leader } = place;
  const name = `${topic}-${partition}`;
  const cursor = new RecordCursor();
  const committed = new CommittedOnly();
  for (let offset = from; offset < to;) {
    const { partitions } = await cluster.call(
      leader,
      fetch([{ topic, partition, leaderEpoch: -1, offset, maxBytes: FETCH_BYTES }], {
        ...{ readCommitted: true, maxWaitMs: FETCH_WAIT_MS, maxBytes: FETCH_BYTES },
        ...{ session: { id: 0, epoch: -1 }, forgotten: [] },
      }),
    );
    const got = partitions[0]!;
    if (got.error === OUT_OF_RANGE) {
      throw new InterlockError(
        'Refused',
        `${name}: records at ${offset} were removed while they were read; verify again`,
        { retryable: true },
      );
    }
    check(got.error, `reading ${name}`);
    committed.expect(got.aborted);
    const found: T[] = [];
    for (const batch of readBatches(got.records, name)) {
      if (batch.baseOffset >= to) break;
      if (committed.holds(batch)) {
        cursor.open(batch);
        while (cursor.next()) {
          if (cursor.offset < offset || cursor.offset >= to) continue;
          const taken = take(cursor);
          if (taken !== undefined) found.push(taken);
        }
      }
      offset = Math.max(offset, batch.lastOffset + 1);
    }
    yield found;
    // A compaction leaves nothing where there was something: then the end is what the broker says.
    if (got.records.length === 0 && got.lastStableOffset >= to) return;
  }
}

/** Of time, key, value and headers; without the last `originBytes` of the headers, which a copy has more. */
export function contentHash(cursor: RecordCursor, originBytes: number): Buffer {
  const hash = createHash('sha1');
  hash.update(`${cursor.timestamp} `);
  hash.update(cursor.bytes.subarray(cursor.bodyFrom, cursor.bodyTo));
  hash.update(cursor.bytes.subarray(cursor.headersFrom, cursor.headersTo - originBytes));
  return hash.digest();
}

/** Where a partition begins, and where what is decided of it ends. */
export async function boundsOf(
  cluster: Cluster,
  { topic, partition, leader }: Place,
): Promise<{ earliest: number; stable: number }> {
  const ref = { topic, partition, leaderEpoch: -1 };
  const ask = async (at: 'earliest' | 'latest'): Promise<number> => {
    const [found] = await cluster.call(leader, listOffsets([ref], at, true));
    check(found!.error, `the offsets of ${topic}-${partition}`);
    return found!.offset;
  };
  return { earliest: await ask('earliest'), stable: await ask('latest') };
}
