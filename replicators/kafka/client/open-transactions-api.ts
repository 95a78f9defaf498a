import type { Api } from './connection.js';
import { byTopic } from './data-api.js';
import type { PartitionRef } from './data-api.js';
import { check } from './protocol-errors.js';

export interface OpenTransaction extends PartitionRef {
  producerId: bigint;
  startOffset: number;
  /** Of its last record, as the producer has it. */
  lastTimestamp: number;
}

/** The transactions that are open in partitions that a broker leads. */
export function describeProducers(partitions: readonly PartitionRef[]): Api<OpenTransaction[]> {
  return {
    key: 61,
    version: 0,
    flexible: true,
    name: 'DescribeProducers',
    write: (w) => {
      w.compactArray(byTopic(partitions), ([topic, of]) => {
        w.compactString(topic).compactArray(of, (p) => w.int32(p.partition));
        w.tags();
      });
      w.tags();
    },
    read: (r) => {
      r.throttle();
      const open: OpenTransaction[] = [];
      r.compactArray(() => {
        const topic = r.compactString();
        r.compactArray(() => {
          const partition = r.int32();
          const error = r.int16();
          check(error, `the producers of ${topic}-${partition}`, r.compactString());
          r.compactArray(() => {
            const producerId = r.take(8).readBigInt64BE(0);
            r.int32();
            r.int32();
            const lastTimestamp = r.int64();
            r.int32();
            const startOffset = r.int64();
            r.tags();
            if (startOffset >= 0) open.push({ topic, partition, producerId, startOffset, lastTimestamp });
          });
          r.tags();
        });
        r.tags();
      });
      return open;
    },
  };
}

export interface TransactionState {
  transactionalId: string;
  /** As Kafka names it: `Empty` is one that was taken, and began nothing since. */
  state: string;
  /** Who took it last gave this. */
  timeoutMs: number;
}

/** How transactional ids that one broker coordinates stand; those that it does not know are left out. */
export function describeTransactions(transactionalIds: readonly string[]): Api<TransactionState[]> {
  return {
    key: 65,
    version: 0,
    flexible: true,
    name: 'DescribeTransactions',
    write: (w) => {
      w.compactArray(transactionalIds, (id) => w.compactString(id));
      w.tags();
    },
    read: (r) => {
      r.int32();
      const known: TransactionState[] = [];
      r.compactArray(() => {
        const error = r.int16();
        const transactionalId = r.compactString();
        const state = r.compactString();
        const timeoutMs = r.int32();
        r.int64();
        r.take(8 + 2);
        r.compactArray(() => {
          r.compactString();
          r.compactArray(() => r.int32());
          r.tags();
        });
        r.tags();
        if (error === 0) known.push({ transactionalId, state, timeoutMs });
      });
      r.tags();
      return known;
    },
  };
}

/** The transactional ids that one broker coordinates, by producer; of these producers, or of all when none is named. */
export function listTransactions(producerIds: readonly bigint[]): Api<Map<bigint, string>> {
  return {
    key: 66,
    version: 0,
    flexible: true,
    name: 'ListTransactions',
    write: (w) => {
      w.compactArray([] as string[], (state) => w.compactString(state));
      w.compactArray(producerIds, (id) => {
        const bytes = Buffer.allocUnsafe(8);
        bytes.writeBigInt64BE(id);
        w.raw(bytes);
      });
      w.tags();
    },
    read: (r) => {
      r.throttle();
      check(r.int16(), 'listing transactions');
      r.compactArray(() => r.compactString());
      return new Map(
        r.compactArray(() => {
          const transactionalId = r.compactString();
          const producerId = r.take(8).readBigInt64BE(0);
          r.compactString();
          r.tags();
          return [producerId, transactionalId] as const;
        }),
      );
    },
  };
}
