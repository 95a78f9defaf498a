import { compress } from './client/compression.js';
import { BatchBuilder, RecordCursor } from './client/record-batch.js';
import { ORIGIN_KEY } from './origin.js';
import type { QueuedBatch, SourcePartition } from './source-partition.js';

/** Larger ones save nothing. */
const BATCH_BYTES = 512 * 1024;
/** What a record takes beside its body: lengths, differences, the number of its headers. */
const RECORD_BYTES = 32;

export interface EncodedBatch {
  builder: BatchBuilder;
  encoded?: { codec: number; payload: Buffer };
  /** Source offsets of its first and last record. */
  first: number;
  last: number;
}

export interface Encoded {
  batches: EncodedBatch[];
  records: number;
  foreign: number;
}

const cursor = new RecordCursor();

/** Makes the batches of the copy, each record with the header of its origin; records of foreign origin are left out. */
export function encode(partition: SourcePartition, queued: readonly QueuedBatch[]): Encoded {
  const { origin, maxBatchBytes } = partition;
  const most = Math.min(BATCH_BYTES, maxBatchBytes);
  const batches: EncodedBatch[] = [];
  let current: EncodedBatch | undefined;
  let compressed = false;
  let [records, foreign] = [0, 0];
  let left = 0;
  let from = partition.reached;
  for (const { bytes } of queued) left += bytes;
  const finish = (): void => {
    if (current === undefined) return;
    if (compressed) {
      const { records: plain } = current.builder;
      const encoded = compress(plain);
      // Hazard: what does not get smaller gets larger, and the topic may not take that.
      if (encoded.payload.length < plain.length) current.encoded = encoded;
    }
    batches.push(current);
    current = undefined;
    compressed = false;
  };
  for (const { batch, bytes, next } of queued) {
    if (batch !== null) {
      cursor.open(batch);
      while (cursor.next()) {
        // A broker gives whole batches: one may begin before what was asked for.
        if (cursor.offset < from) continue;
        if (cursor.header(ORIGIN_KEY) !== undefined) {
          foreign += 1;
          continue;
        }
        origin.set(cursor.offset);
        const size = cursor.headersTo - cursor.bodyFrom + origin.length + RECORD_BYTES;
        if (current !== undefined && current.builder.size + size > most) finish();
        current ??= {
          builder: new BatchBuilder(Math.ceil(Math.min(Math.max(left * 1.5, size) + 256, most + 4096))),
          first: cursor.offset,
          last: cursor.offset,
        };
        current.builder.copy(cursor, origin.bytes, origin.length);
        current.last = cursor.offset;
        compressed ||= batch.codec !== 0;
        records += 1;
      }
    }
    left -= bytes;
    from = next;
  }
  finish();
  return { batches, records, foreign };
}
