import { expect, it } from 'vitest';
import type { Cluster } from '../../replicators/kafka/client/cluster.js';
import type { CommittedOffset } from '../../replicators/kafka/client/groups-api.js';
import { GroupTranslator } from '../../replicators/kafka/groups.js';
import { SourcePartition } from '../../replicators/kafka/source-partition.js';

const GROUPS = ['first', 'second', 'third'];

/** Each group is coordinated by a node of its own: the index of its name. */
function cluster(answers: Record<string, (node: number) => unknown>): Cluster {
  return {
    nodes: async () => [0],
    coordinator: async (_kind: string, group: string) => GROUPS.indexOf(group),
    call: async (node: number, { name }: { name: string }) => answers[name]!(node),
  } as unknown as Cluster;
}

function partition(number: number, copied: boolean): SourcePartition {
  const made = new SourcePartition('dc-a', 'orders', number, 'dc-a.orders', { offset: 10, leaderEpoch: 0 });
  if (copied) made.index.add({ first: 0, last: 9, base: 100, count: 10 });
  return made;
}

it('a group that cannot be asked, and a copy that nobody leads, keep no other position back', async () => {
  const committed = (number: number): CommittedOffset => {
    return { topic: 'orders', partition: number, offset: 5, leaderEpoch: -1, metadata: '' };
  };
  const commits: number[] = [];
  const source = cluster({ ListGroups: () => GROUPS, OffsetFetch: () => [committed(1), committed(0)] });
  const target = cluster({
    OffsetFetch: (node) => {
      if (node === 0) throw new Error('the coordinator is down');
      return [];
    },
    OffsetCommit: (node) => (commits.push(node), [{ topic: 'dc-a.orders', partition: 0, error: 0 }]),
    ListOffsets: () => {
      throw new Error('there is no node -1');
    },
  });
  const partitions = [
    { partition: partition(0, true), leader: 0 },
    { partition: partition(1, false), leader: -1 },
  ];
  const groups = new GroupTranslator(
    'kafka/main:dc-a>dc-b',
    'dc-a',
    source,
    target,
    (_, at) => partitions[at],
  );
  await groups.round();
  expect(commits).toEqual([1, 2]);
  expect(groups.positions.map(({ group, partition: at, translated }) => [group, at, translated])).toEqual([
    ['second', 1, null],
    ['second', 0, 105],
    ['third', 1, null],
    ['third', 0, 105],
  ]);
  expect(groups.lastError).toContain('the coordinator is down');
  await expect(groups.look()).rejects.toThrow('the coordinator is down');
});
