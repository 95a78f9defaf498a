import type { Api } from './connection.js';

export interface PartitionRef {
  topic: string;
  partition: number;
}

/** Groups what is said of partitions by topic, as the protocol wants it. */
export function byTopic<P extends PartitionRef>(of: readonly P[]): [string, P[]][] {
  const topics = new Map<string, P[]>();
  for (const item of of) {
    const found = topics.get(item.topic);
    if (found === undefined) topics.set(item.topic, [item]);
    else found.push(item);
  }
  return [...topics];
}

/** By the node that leads them. */
export function byLeader<P extends { leader: number }>(of: Iterable<P>): Map<number, P[]> {
  const leaders = new Map<number, P[]>();
  for (const item of of) {
    const found = leaders.get(item.leader);
    if (found === undefined) leaders.set(item.leader, [item]);
    else found.push(item);
  }
  return leaders;
}

export interface FetchPartition extends PartitionRef {
  offset: number;
  leaderEpoch: number;
  maxBytes: number;
}

export interface FetchOptions {
  readCommitted: boolean;
  maxWaitMs: number;
  maxBytes: number;
  /** id 0 and epoch 0 begin one; id 0 and epoch -1: without. */
  session: { id: number; epoch: number };
  forgotten: readonly PartitionRef[];
}

export interface Fetched extends PartitionRef {
  error: number;
  highWatermark: number;
  lastStableOffset: number;
  logStartOffset: number;
  /** Transactions that were undone: records of the producer from the offset on, up to its control record. */
  aborted: { producerId: bigint; firstOffset: number }[];
  records: Buffer;
}

export interface FetchAnswer {
  error: number;
  sessionId: number;
  partitions: Fetched[];
}

const NOTHING = Buffer.alloc(0);

export function fetch(partitions: readonly FetchPartition[], options: FetchOptions): Api<FetchAnswer> {
  return {
    key: 1,
    version: 11,
    name: 'Fetch',
    write: (w) => {
      w.int32(-1).int32(options.maxWaitMs).int32(1).int32(options.maxBytes);
      w.int8(options.readCommitted ? 1 : 0);
      w.int32(options.session.id).int32(options.session.epoch);
      w.array(byTopic(partitions), ([topic, of]) => {
        w.string(topic).array(of, (p) =>
          w.int32(p.partition).int32(p.leaderEpoch).int64(p.offset).int64(-1).int32(p.maxBytes),
        );
      });
      w.array(byTopic(options.forgotten), ([topic, of]) => {
        w.string(topic).array(of, (p) => w.int32(p.partition));
      });
      w.string('');
    },
    read: (r) => {
      r.throttle();
      const [error, sessionId] = [r.int16(), r.int32()];
      const found: Fetched[] = [];
      r.array(() => {
        const topic = r.string();
        r.array(() => {
          const [partition, code] = [r.int32(), r.int16()];
          const [highWatermark, lastStableOffset, logStartOffset] = [r.int64(), r.int64(), r.int64()];
          const aborted: Fetched['aborted'] = [];
          for (let count = r.int32(); count > 0; count--) {
            aborted.push({ producerId: r.take(8).readBigInt64BE(0), firstOffset: r.int64() });
          }
          r.int32();
          found.push({
            ...{ topic, partition, error: code, highWatermark, lastStableOffset, logStartOffset, aborted },
            records: r.bytes() ?? NOTHING,
          });
        });
      });
      return { error, sessionId, partitions: found };
    },
  };
}

export interface ListedOffset extends PartitionRef {
  error: number;
  offset: number;
  leaderEpoch: number;
}

/** @param committed up to where all transactions are decided (LSO), instead of to the end */
export function listOffsets(
  partitions: readonly (PartitionRef & { leaderEpoch: number })[],
  at: 'earliest' | 'latest',
  committed: boolean,
): Api<ListedOffset[]> {
  return {
    key: 2,
    version: 5,
    name: 'ListOffsets',
    write: (w) => {
      w.int32(-1).int8(committed ? 1 : 0);
      w.array(byTopic(partitions), ([topic, of]) => {
        w.string(topic).array(of, (p) =>
          w
            .int32(p.partition)
            .int32(p.leaderEpoch)
            .int64(at === 'earliest' ? -2 : -1),
        );
      });
    },
    read: (r) => {
      r.throttle();
      return r
        .array(() => {
          const topic = r.string();
          return r.array(() => {
            const [partition, error] = [r.int32(), r.int16()];
            r.int64();
            return { topic, partition, error, offset: r.int64(), leaderEpoch: r.int32() };
          });
        })
        .flat();
    },
  };
}

/** Where the log of a partition ends that was written under a leader epoch, or under the last one before it. */
export function offsetForLeaderEpoch(
  partitions: readonly (PartitionRef & { leaderEpoch: number; epoch: number })[],
): Api<ListedOffset[]> {
  return {
    key: 23,
    version: 3,
    name: 'OffsetForLeaderEpoch',
    write: (w) => {
      w.int32(-1);
      w.array(byTopic(partitions), ([topic, of]) => {
        w.string(topic).array(of, (p) => w.int32(p.partition).int32(p.leaderEpoch).int32(p.epoch));
      });
    },
    read: (r) => {
      r.throttle();
      return r
        .array(() => {
          const topic = r.string();
          return r.array(() => {
            const [error, partition] = [r.int16(), r.int32()];
            const leaderEpoch = r.int32();
            return { topic, partition, error, offset: r.int64(), leaderEpoch };
          });
        })
        .flat();
    },
  };
}

export interface ProducePartition extends PartitionRef {
  /** One record batch. */
  batch: Buffer;
}

export interface Produced extends PartitionRef {
  error: number;
  message: string | null;
  baseOffset: number;
}

/** @param transactionalId null: as part of no transaction */
export function produce(
  transactionalId: string | null,
  partitions: readonly ProducePartition[],
  timeoutMs: number,
): Api<Produced[]> {
  return {
    key: 0,
    version: 8,
    name: 'Produce',
    write: (w) => {
      w.string(transactionalId).int16(-1).int32(timeoutMs);
      w.array(byTopic(partitions), ([topic, of]) => {
        w.string(topic).array(of, (p) => w.int32(p.partition).bytes(p.batch));
      });
    },
    read: (r) => {
      const produced = r
        .array(() => {
          const topic = r.string();
          return r.array(() => {
            const [partition, error, baseOffset] = [r.int32(), r.int16(), r.int64()];
            r.int64();
            r.int64();
            r.array(() => {
              r.int32();
              r.nullableString();
            });
            return { topic, partition, error, baseOffset, message: r.nullableString() };
          });
        })
        .flat();
      r.throttle();
      return produced;
    },
  };
}
