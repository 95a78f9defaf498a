import type { Api } from './connection.js';
import { byTopic } from './data-api.js';
import type { PartitionRef } from './data-api.js';
import { check } from './protocol-errors.js';

export interface CommittedOffset extends PartitionRef {
  offset: number;
  leaderEpoch: number;
  metadata: string;
}

/** The groups that one broker coordinates. */
export function listGroups(): Api<string[]> {
  return {
    key: 16,
    version: 2,
    name: 'ListGroups',
    write: () => undefined,
    read: (r) => {
      r.throttle();
      check(r.int16(), 'listing groups');
      const groups = r.array(() => [r.string(), r.string()] as const);
      // Connect and others keep other things than positions.
      return groups.filter(([, type]) => type === 'consumer' || type === '').map(([group]) => group);
    },
  };
}

export interface DescribedGroup {
  /** `Dead`: the coordinator does not know it. */
  state: string;
  /** Client ids, and the addresses that they have joined from. */
  members: string[];
}

export function describeGroup(group: string): Api<DescribedGroup> {
  return {
    key: 15,
    version: 2,
    name: 'DescribeGroups',
    write: (w) => void w.array([group], (name) => w.string(name)),
    read: (r) => {
      r.throttle();
      const [found] = r.array(() => {
        check(r.int16(), `looking at group ${group}`);
        r.string();
        const state = r.string();
        r.string();
        r.string();
        const members = r.array(() => {
          r.string();
          const [client, host] = [r.string(), r.string()];
          r.bytes();
          r.bytes();
          return `${client}@${host.replace(/^\//, '')}`;
        });
        return { state, members };
      });
      return found ?? { state: 'Dead', members: [] };
    },
  };
}

/** All that a group has committed. */
export function fetchOffsets(group: string): Api<CommittedOffset[]> {
  return {
    key: 9,
    version: 5,
    name: 'OffsetFetch',
    write: (w) => void w.string(group).int32(-1),
    read: (r) => {
      r.throttle();
      const found: CommittedOffset[] = [];
      r.array(() => {
        const topic = r.string();
        r.array(() => {
          const [partition, offset, leaderEpoch] = [r.int32(), r.int64(), r.int32()];
          const metadata = r.string();
          const error = r.int16();
          // Hazard: kafkajs commits -2 (earliest) or -1 (latest) for a partition in which it was out of range: no position.
          if (error === 0 && offset >= 0) found.push({ topic, partition, offset, leaderEpoch, metadata });
        });
      });
      check(r.int16(), `the positions of group ${group}`);
      return found;
    },
  };
}

/** Commits positions for a group that has no members; a coordinator refuses it for one that has. @returns the errors, by partition */
export function commitOffsets(
  group: string,
  offsets: readonly CommittedOffset[],
): Api<(PartitionRef & { error: number })[]> {
  return {
    key: 8,
    version: 7,
    name: 'OffsetCommit',
    write: (w) => {
      w.string(group).int32(-1).string('').string(null);
      w.array(byTopic(offsets), ([topic, of]) => {
        w.string(topic).array(of, (o) =>
          w.int32(o.partition).int64(o.offset).int32(o.leaderEpoch).string(o.metadata),
        );
      });
    },
    read: (r) => {
      r.throttle();
      return r
        .array(() => {
          const topic = r.string();
          return r.array(() => ({ topic, partition: r.int32(), error: r.int16() }));
        })
        .flat();
    },
  };
}
