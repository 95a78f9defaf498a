import { expect, it } from 'vitest';
import type { Cluster } from '../../replicators/kafka/client/cluster.js';
import { fenceAll } from '../../replicators/kafka/fence-producers.js';

it('asks for the transactional ids when every coordinator is there', async () => {
  const asked: string[] = [];
  const leaders = [-1, -1, 1];
  const cluster = {
    metadata: ([topic]: string[]) => {
      asked.push(topic!);
      return Promise.resolve({ topics: [{ partitions: [{ partition: 7, leader: leaders.shift()! }] }] });
    },
    nodes: () => {
      asked.push('ids');
      return Promise.resolve([]);
    },
  };
  expect(await fenceAll(cluster as unknown as Cluster, () => true)).toEqual([]);
  expect(asked).toEqual([...Array<string>(3).fill('__transaction_state'), 'ids']);
});
