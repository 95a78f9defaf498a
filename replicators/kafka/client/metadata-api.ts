import type { Api } from './connection.js';
import { check } from './protocol-errors.js';

export interface Metadata {
  /** node id → `host:port` */
  brokers: Map<number, string>;
  clusterId: string;
  controller: number;
  topics: TopicMetadata[];
}

export interface TopicMetadata {
  name: string;
  /** 0, or why it cannot be used now. */
  error: number;
  internal: boolean;
  partitions: PartitionMetadata[];
}

export interface PartitionMetadata {
  partition: number;
  error: number;
  /** Node id; -1: none now. */
  leader: number;
  leaderEpoch: number;
}

/** @param topics null: all */
export function metadata(topics: readonly string[] | null): Api<Metadata> {
  return {
    key: 3,
    version: 7,
    name: 'Metadata',
    write: (w) => {
      if (topics === null) w.int32(-1);
      else w.array(topics, (topic) => w.string(topic));
      // Not created by asking.
      w.bool(false);
    },
    read: (r) => {
      r.int32();
      const brokers = new Map(
        r.array(() => {
          const id = r.int32();
          const address = `${r.string()}:${r.int32()}`;
          r.nullableString();
          return [id, address] as const;
        }),
      );
      const clusterId = r.string();
      const controller = r.int32();
      const found = r.array(() => ({
        error: r.int16(),
        name: r.string(),
        internal: r.bool(),
        partitions: r.array(() => {
          const [error, partition, leader, leaderEpoch] = [r.int16(), r.int32(), r.int32(), r.int32()];
          for (let lists = 0; lists < 3; lists++) r.array(() => r.int32());
          return { error, partition, leader, leaderEpoch };
        }),
      }));
      return { brokers, clusterId, controller, topics: found };
    },
  };
}

/** The broker that keeps a group's positions or a transactional id. */
export function findCoordinator(of: 'group' | 'transaction', key: string): Api<number> {
  return {
    key: 10,
    version: 2,
    name: 'FindCoordinator',
    write: (w) => void w.string(key).int8(of === 'group' ? 0 : 1),
    read: (r) => {
      r.int32();
      const code = r.int16();
      check(code, `the coordinator of ${of} ${key}`, r.nullableString());
      return r.int32();
    },
  };
}
