import { afterAll, beforeAll, expect, it } from 'vitest';
import { readCheckpoint } from '../../replicators/kafka/checkpoint.js';
import { initialiseKafkaLink } from '../../replicators/kafka/initialise.js';
import { kafkaLinkConfig, startKafkaPair, withCluster } from '../support/kafka-replication.js';
import type { KafkaPair } from '../support/kafka-replication.js';

let pair: KafkaPair;

beforeAll(async () => {
  pair = await startKafkaPair({ 'message.max.bytes': '300000' });
});
afterAll(async () => {
  await pair?.stop();
});

it('the positions of a link may be more than a broker takes in a batch', async () => {
  const partitions = 900;
  const topic = `t-many-${'x'.repeat(230)}`;
  await pair.a.admin.createTopics({ topics: [{ topic, numPartitions: partitions }], timeout: 60_000 });
  const config = kafkaLinkConfig(pair, 'a', 't-many');
  await expect
    .poll(
      () =>
        initialiseKafkaLink(config, { from: 'now' }).then(
          () => 'done',
          ({ retryable, message }: { retryable?: boolean; message: string }) =>
            retryable === true ? 'later' : message,
        ),
      { timeout: 60_000 },
    )
    .not.toBe('later');
  const { checkpoint } = await withCluster(config.target, (target) => readCheckpoint(target, config.link));
  expect(checkpoint?.positions.filter((at) => at.topic === topic)).toHaveLength(partitions);
});
