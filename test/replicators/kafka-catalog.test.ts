import { expect, it } from 'vitest';
import { Catalog } from '../../replicators/kafka/catalog.js';
import type { Cluster } from '../../replicators/kafka/client/cluster.js';
import type { TopicMetadata } from '../../replicators/kafka/client/metadata-api.js';
import { TopicFilter } from '../../replicators/kafka/topic-filter.js';

const topic = (name: string): TopicMetadata => ({
  ...{ name, id: null, error: 0, internal: false },
  partitions: [0, 1].map((partition) => ({ partition, error: 0, leader: 1, leaderEpoch: 0 })),
});

/** A cluster that answers by the name of the request. */
function cluster(topics: TopicMetadata[], answers: Record<string, () => unknown>): Cluster {
  const call = async ({ name }: { name: string }): Promise<unknown> => answers[name]!();
  return {
    metadata: async () => ({ topics }),
    onController: call,
    call: (_node: number, api: { name: string }) => call(api),
  } as unknown as Cluster;
}

it('does not take a copy for made before its leader knows that it leads it', async () => {
  // Leader not known yet, then not leading yet; a moment later the one partition, then both.
  const errors = [
    [3, 3],
    [6, 6],
    [0, 6],
    [0, 0],
  ];
  const copies: TopicMetadata[] = [];
  const source = cluster([topic('orders')], {
    DescribeConfigs: () => [{ topic: 'orders', error: undefined, configs: [] }],
  });
  const target = cluster(copies, {
    CreateTopics: () => (copies.push(topic('dc-a.orders')), []),
    ListOffsets: () =>
      errors.shift()!.map((error, partition) => ({ topic: 'dc-a.orders', partition, error, offset: 0 })),
  });
  const filter = new TopicFilter({ from: 'dc-a', to: 'dc-b', include: ['*'], exclude: [] });
  const carried = await new Catalog(source, target, filter, () => undefined).follow();
  expect(carried.map(({ copy }) => copy.name)).toEqual(['dc-a.orders']);
  expect(errors).toEqual([]);
});
