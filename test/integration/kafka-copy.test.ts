import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import {
  differences,
  kafkaLinkConfig,
  kafkaSettled,
  runKafkaLink,
  startKafkaPair,
} from '../support/kafka-replication.js';
import type { KafkaPair, RunningKafkaLink } from '../support/kafka-replication.js';

let pair: KafkaPair;
const running: RunningKafkaLink[] = [];

beforeAll(async () => {
  pair = await startKafkaPair();
});
afterEach(async () => {
  await Promise.all(running.splice(0).map((link) => link.stop()));
});
afterAll(async () => {
  await pair?.stop();
});

const run = async (...args: Parameters<typeof runKafkaLink>): Promise<RunningKafkaLink> => {
  const link = await runKafkaLink(...args);
  running.push(link);
  return link;
};

describe('a Kafka link', () => {
  it('copies what is there and what comes, and goes on where it was', async () => {
    await pair.a.admin.createTopics({ topics: [{ topic: 't-copy', numPartitions: 3 }] });
    const send = (from: number, count: number): Promise<unknown> =>
      pair.a.producer.send({
        topic: 't-copy',
        messages: Array.from({ length: count }, (_, i) => ({
          key: (from + i) % 7 === 0 ? null : `k${(from + i) % 10}`,
          value: (from + i) % 11 === 0 ? null : `value ${from + i}`,
          headers: { n: String(from + i) },
        })),
      });
    await send(0, 500);
    const config = kafkaLinkConfig(pair, 'a', 't-copy');
    const first = await run(config, 'earliest');
    await send(500, 500);
    await kafkaSettled(first);
    expect(await differences(pair, 'a', 't-copy', 3)).toEqual({ records: 1000, wrong: [] });
    await first.stop();
    await send(1000, 200);
    const second = await run(config, null);
    await kafkaSettled(second);
    expect(await differences(pair, 'a', 't-copy', 3)).toEqual({ records: 1200, wrong: [] });
    expect(second.status().generation).toBe(first.status().generation + 1);
    expect(second.status().rows).toBe(200);
  });
});
