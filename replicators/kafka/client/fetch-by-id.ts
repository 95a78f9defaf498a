import type { Api } from './connection.js';
import { byTopic } from './data-api.js';
import type { Fetched, FetchAnswer, FetchOptions, FetchPartition, PartitionRef } from './data-api.js';

const NOTHING = Buffer.alloc(0);

/** With the id of its topic. */
export type WithId<P> = P & { topicId: string };

/**
 * Fetch by the topics' ids (KIP-516; brokers from 3.1 on). Hazard: by names, the hashes of topics that are named alike lie side by side in the table
 * that the broker has of a session, and each record moves most of it: of 800 partitions that is all that a core can do.
 * @param topics id → topic, of all that the session has
 */
export function fetchById(
  partitions: readonly WithId<FetchPartition>[],
  options: Omit<FetchOptions, 'forgotten'> & { forgotten: readonly WithId<PartitionRef>[] },
  topics: ReadonlyMap<string, string>,
): Api<FetchAnswer> {
  return {
    key: 1,
    version: 13,
    flexible: true,
    name: 'Fetch',
    write: (w) => {
      w.int32(-1).int32(options.maxWaitMs).int32(1).int32(options.maxBytes);
      w.int8(options.readCommitted ? 1 : 0);
      w.int32(options.session.id).int32(options.session.epoch);
      w.compactArray(byTopic(partitions), ([, of]) => {
        w.raw(Buffer.from(of[0]!.topicId, 'base64url'));
        w.compactArray(of, (p) => {
          w.int32(p.partition).int32(p.leaderEpoch).int64(p.offset).int32(-1).int64(-1);
          w.int32(p.maxBytes).tags();
        }).tags();
      });
      w.compactArray(byTopic(options.forgotten), ([, of]) => {
        w.raw(Buffer.from(of[0]!.topicId, 'base64url'));
        w.compactArray(of, (p) => w.int32(p.partition)).tags();
      });
      w.compactString('').tags();
    },
    read: (r) => {
      r.throttle();
      const [error, sessionId] = [r.int16(), r.int32()];
      const found: Fetched[] = [];
      r.compactArray(() => {
        const topic = topics.get(r.take(16).toString('base64url')) ?? '';
        r.compactArray(() => {
          const [partition, code] = [r.int32(), r.int16()];
          const [highWatermark, lastStableOffset, logStartOffset] = [r.int64(), r.int64(), r.int64()];
          const aborted = r.compactArray(() => {
            const one = { producerId: r.take(8).readBigInt64BE(0), firstOffset: r.int64() };
            r.tags();
            return one;
          });
          r.int32();
          const length = r.uvarint();
          const records = length <= 1 ? NOTHING : r.take(length - 1);
          r.tags();
          found.push({
            ...{ topic, partition, error: code, highWatermark, lastStableOffset, logStartOffset, aborted },
            records,
          });
        });
        r.tags();
      });
      r.tags();
      return { error, sessionId, partitions: found };
    },
  };
}
