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
  /** Of this topic; one of the same name that is made later has another (KIP-516). null: the cluster gives none. */
  id: string | null;
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

const NO_ID = Buffer.alloc(16);

/** @param topics null: all */
export function metadata(topics: readonly string[] | null): Api<Metadata> {
  return {
    key: 3,
    version: 12,
    flexible: true,
    name: 'Metadata',
    write: (w) => {
      if (topics === null) w.uvarint(0);
      else w.compactArray(topics, (topic) => w.raw(NO_ID).compactString(topic).tags());
      // Not created by asking; without what this account may do.
      w.bool(false).bool(false).tags();
    },
    read: (r) => {
      r.throttle();
      const brokers = new Map(
        r.compactArray(() => {
          const id = r.int32();
          const address = `${r.compactString()}:${r.int32()}`;
          r.compactString();
          r.tags();
          return [id, address] as const;
        }),
      );
      const clusterId = r.compactString();
      const controller = r.int32();
      const found = r.compactArray(() => {
        const [error, name, id, internal] = [r.int16(), r.compactString(), r.take(16), r.bool()];
        const partitions = r.compactArray(() => {
          const [code, partition, leader, leaderEpoch] = [r.int16(), r.int32(), r.int32(), r.int32()];
          for (let lists = 0; lists < 3; lists++) r.compactArray(() => r.int32());
          r.tags();
          return { error: code, partition, leader, leaderEpoch };
        });
        r.int32();
        r.tags();
        return { error, name, id: id.equals(NO_ID) ? null : id.toString('base64url'), internal, partitions };
      });
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
      r.throttle();
      const code = r.int16();
      check(code, `the coordinator of ${of} ${key}`, r.nullableString());
      return r.int32();
    },
  };
}
