import { CompressionTypes } from 'kafkajs';
import { createHash, randomBytes } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import { Catalog } from '../../replicators/kafka/catalog.js';
import { initialiseKafkaLink } from '../../replicators/kafka/initialise.js';
import {
  differences,
  kafkaLinkConfig,
  kafkaSettled,
  readPartition,
  runKafkaLink,
  startKafkaPair,
} from '../support/kafka-replication.js';
import type { KafkaPair, KafkaSide, RunningKafkaLink } from '../support/kafka-replication.js';
import { kafkaTool } from '../support/kafka.js';
import { until } from '../support/replication.js';

let pair: KafkaPair;
let directory: string;
const running: RunningKafkaLink[] = [];

beforeAll(async () => {
  directory = await mkdtemp(path.join(tmpdir(), 'interlock-kafka-copy-'));
  pair = await startKafkaPair({
    'log.cleaner.backoff.ms': '200',
    'message.max.bytes': '20000000',
    'log.cleaner.dedupe.buffer.size': '33554432',
  });
});
afterEach(async () => {
  await Promise.all(running.splice(0).map((link) => link.stop()));
});
afterAll(async () => {
  await pair?.stop();
  await rm(directory, { recursive: true, force: true });
});

const run = async (...args: Parameters<typeof runKafkaLink>): Promise<RunningKafkaLink> => {
  const link = await runKafkaLink(...args);
  running.push(link);
  return link;
};
const create = (side: KafkaSide, topic: string, numPartitions = 1, configs: Record<string, string> = {}) =>
  side.admin.createTopics({
    topics: [
      {
        topic,
        numPartitions,
        configEntries: Object.entries(configs).map(([name, value]) => ({ name, value })),
      },
    ],
  });
const values = async (side: KafkaSide, topic: string): Promise<(string | null)[]> =>
  (await readPartition(side, topic)).map(({ value }) => value);

describe('a Kafka link', () => {
  it('copies what is there and what comes, and goes on where it was', async () => {
    await create(pair.a, 't-copy', 3);
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
    await expect(initialiseKafkaLink(config, { from: 'now' })).rejects.toMatchObject({ code: 'Refused' });
  });

  it('keeps empty, missing and large keys and values, and what a compaction has left', async () => {
    await create(pair.a, 't-odd', 1, {
      'max.message.bytes': '12000000',
      'message.timestamp.after.max.ms': String(2n ** 63n - 1n),
    });
    await create(pair.a, 't-odd-compacted', 1, {
      'cleanup.policy': 'compact',
      'segment.ms': '200',
      'min.cleanable.dirty.ratio': '0.01',
    });
    const large = Buffer.alloc(10 * 2 ** 20);
    for (let i = 0; i < large.length; i++) large[i] = (i * 31 + (i >>> 9)) & 0xff;
    await pair.a.producer.send({
      topic: 't-odd',
      messages: [
        { key: '', value: '', timestamp: '0' },
        { key: null, value: null, timestamp: '12345' },
        { key: 'large', value: large, headers: { empty: '', other: 'x' } },
        { key: Buffer.alloc(70_000, 'k'), value: 'after', timestamp: '4102444800000' },
      ],
    });
    await pair.a.producer.send({
      topic: 't-odd',
      compression: CompressionTypes.GZIP,
      messages: [{ key: 'packed', value: Buffer.alloc(8 * 2 ** 20, 'z') }],
    });
    for (let round = 0; round < 3; round++) {
      await pair.a.producer.send({
        topic: 't-odd-compacted',
        messages: Array.from({ length: 50 }, (_, i) => ({ key: `k${i % 5}`, value: `${round} ${i}` })),
      });
      await new Promise((resolve) => setTimeout(resolve, 250));
    }
    await until(
      async () => (await readPartition(pair.a, 't-odd-compacted')).length < 100,
      'the topic is compacted',
      60_000,
    );
    const link = await run(kafkaLinkConfig(pair, 'a', 't-odd'), 'earliest');
    await kafkaSettled(link);
    expect(await differences(pair, 'a', 't-odd', 1)).toEqual({ records: 5, wrong: [] });
    // The copy is compacted too, when its broker gets to it: each key's last record counts.
    const [original, copy] = await Promise.all([
      readPartition(pair.a, 't-odd-compacted'),
      readPartition(pair.b, 'dc-a.t-odd-compacted'),
    ]);
    const last = (records: typeof original) => new Map(records.map((r) => [r.key, r.value]));
    expect(last(copy)).toEqual(last(original));
    const origins = copy.map(({ origin }) => origin!.offset);
    expect(origins).toEqual([...new Set(origins)].sort((a, b) => a - b));
  });

  it('makes no batch larger than the topic takes', async () => {
    await create(pair.a, 't-small', 1, { 'max.message.bytes': '10000' });
    for (const compression of [CompressionTypes.None, CompressionTypes.GZIP])
      for (let i = 0; i < 20; i++)
        await pair.a.producer.send({
          topic: 't-small',
          compression,
          messages: Array.from({ length: 60 }, (_, n) => ({
            key: `${i} ${n}`,
            // What hardly can be compressed.
            value: createHash('sha512').update(`${i} ${n}`).digest('base64'),
          })),
        });
    const link = await run(kafkaLinkConfig(pair, 'a', 't-small'), 'earliest');
    await kafkaSettled(link);
    expect(await differences(pair, 'a', 't-small', 1)).toEqual({ records: 2400, wrong: [] });
  });

  it('reads what other clients have compressed, and is read by them', async () => {
    const kinds = ['snappy', 'lz4', 'zstd', 'gzip'];
    for (const kind of kinds) await create(pair.a, `t-packed-${kind}`);
    await Promise.all(
      kinds.map(async (kind) => {
        const file = path.join(directory, `${kind}.properties`);
        await writeFile(file, `compression.type=${kind}\nbatch.size=100000\nlinger.ms=200\n`);
        const output = await kafkaTool('VerifiableProducer', [
          ...['--bootstrap-server', pair.a.server.address, '--topic', `t-packed-${kind}`],
          ...['--max-messages', '3000', '--value-prefix', '7', '--producer.config', file],
        ]);
        expect(output).toContain('"acked":3000');
      }),
    );
    const link = await run(kafkaLinkConfig(pair, 'a', 't-packed'), 'earliest');
    await kafkaSettled(link);
    for (const kind of kinds)
      expect(await differences(pair, 'a', `t-packed-${kind}`, 1)).toEqual({ records: 3000, wrong: [] });
    const committed = path.join(directory, 'committed.properties');
    await writeFile(committed, 'isolation.level=read_committed\n');
    const consumed = await kafkaTool('VerifiableConsumer', [
      ...['--bootstrap-server', pair.b.server.address, '--topic', 'dc-a.t-packed-zstd'],
      ...['--group-id', 'verify', '--max-messages', '3000', '--reset-policy', 'earliest'],
      ...['--consumer.config', committed],
    ]);
    const counts = [...consumed.matchAll(/"records_consumed".*?"count":(\d+)/g)].map(([, n]) => Number(n));
    expect(counts.reduce((sum, n) => sum + n, 0)).toBe(3000);
  });

  it('copies a large record that another codec makes smaller than its own', async () => {
    await create(pair.a, 't-dense', 1, { 'max.message.bytes': '700000' });
    // What repeats itself so far apart Zstandard finds, and gzip does not.
    const part = randomBytes(450_000).toString('base64');
    const file = path.join(directory, 'dense');
    await writeFile(file, part.repeat(3));
    await kafkaTool('ProducerPerformance', [
      ...['--topic', 't-dense', '--num-records', '1', '--throughput', '-1', '--payload-file', file],
      ...['--producer-props', `bootstrap.servers=${pair.a.server.address}`, 'compression.type=zstd'],
      ...['max.request.size=10000000', 'buffer.memory=30000000', 'acks=all'],
    ]);
    const link = await run(kafkaLinkConfig(pair, 'a', 't-dense'), 'earliest', null);
    await kafkaSettled(link);
    expect(await differences(pair, 'a', 't-dense', 1)).toEqual({ records: 1, wrong: [] });
    expect((await values(pair.b, 'dc-a.t-dense'))[0]).toHaveLength(part.length * 3);
  });

  it('copies on while brokers take their time to say what topics they have', async () => {
    await create(pair.a, 't-slow-look');
    await run(kafkaLinkConfig(pair, 'a', 't-slow-look'));
    const answers: (() => void)[] = [];
    const look = vi
      .spyOn(Catalog.prototype, 'follow')
      .mockImplementation(() => new Promise((resolve) => answers.push(() => resolve([]))));
    try {
      await until(() => answers.length > 0, 'it looks for topics');
      await pair.a.producer.send({ topic: 't-slow-look', messages: [{ value: 'meanwhile' }] });
      await until(
        async () => (await values(pair.b, 'dc-a.t-slow-look')).length === 1,
        'the record is copied',
      );
    } finally {
      look.mockRestore();
      for (const answer of answers) answer();
    }
  });

  it('copies in both directions without a loop, whatever the topics are called', async () => {
    for (const side of [pair.a, pair.b]) {
      await create(side, 't-both');
      await create(side, 't-same');
      await side.producer.send({ topic: 't-both', messages: [{ value: `of ${side.server.port}` }] });
      await side.producer.send({ topic: 't-same', messages: [{ value: `of ${side.server.port}` }] });
    }
    const links = [];
    for (const from of ['a', 'b'] as const) {
      links.push(await run(kafkaLinkConfig(pair, from, 't-both', { include: ['*t-both'] }), 'earliest'));
      links.push(await run(kafkaLinkConfig(pair, from, 't-same', { naming: '{topic}' }), 'earliest'));
    }
    // Twice: what has gone round comes back after the first time.
    for (let round = 0; round < 2; round++) for (const link of links) await kafkaSettled(link);
    const [ofA, ofB] = [`of ${pair.a.server.port}`, `of ${pair.b.server.port}`];
    expect(await values(pair.b, 'dc-a.t-both')).toEqual([ofA]);
    expect(await values(pair.a, 'dc-b.t-both')).toEqual([ofB]);
    for (const side of [pair.a, pair.b]) {
      expect((await values(side, 't-same')).sort()).toEqual([ofA, ofB].sort());
      const topics = await side.admin.listTopics();
      expect(topics.filter((topic) => /dc-.*dc-/.test(topic))).toEqual([]);
    }
    expect(links.map((link) => link.status().droppedForeign)).toEqual([0, 1, 0, 1]);
  });

  it('takes only what its patterns say, and drops a record of foreign origin in a topic of its own', async () => {
    for (const topic of ['t-some-yes', 't-some-no', 't-other']) await create(pair.a, topic);
    const config = kafkaLinkConfig(pair, 'a', 't-some', { exclude: ['*-no'] });
    const link = await run(config, 'earliest');
    await pair.a.producer.send({
      topic: 't-some-yes',
      messages: [
        { value: 'ours' },
        { value: 'theirs', headers: { 'interlock-origin': 'dc-b/else/0/7' } },
        { value: 'last' },
      ],
    });
    await kafkaSettled(link);
    expect(await values(pair.b, 'dc-a.t-some-yes')).toEqual(['ours', 'last']);
    const topics = await pair.b.admin.listTopics();
    expect(topics.filter((topic) => /t-some-no|t-other/.test(topic))).toEqual([]);
    expect(link.status()).toMatchObject({ droppedForeign: 1, rows: 2 });
  });

  it('follows new topics, partitions and settings, and says which topic is gone', async () => {
    await create(pair.a, 't-new', 1, { 'retention.ms': '7200000' });
    const link = await run(kafkaLinkConfig(pair, 'a', 't-new'), 'earliest');
    const setting = async (name: string): Promise<string | undefined> => {
      const { resources } = await pair.b.admin.describeConfigs({
        includeSynonyms: false,
        resources: [{ type: 2, name: 'dc-a.t-new', configNames: [name] }],
      });
      return resources[0]?.configEntries[0]?.configValue;
    };
    expect(await setting('retention.ms')).toBe('7200000');
    await create(pair.a, 't-new-later', 2);
    await pair.a.producer.send({ topic: 't-new-later', messages: [{ value: 'early', partition: 1 }] });
    await pair.a.admin.createPartitions({ topicPartitions: [{ topic: 't-new', count: 3 }] });
    await pair.a.producer.send({ topic: 't-new', messages: [{ value: 'wide', partition: 2 }] });
    await pair.a.admin.alterConfigs({
      validateOnly: false,
      resources: [{ type: 2, name: 't-new', configEntries: [{ name: 'retention.ms', value: '3600000' }] }],
    });
    await kafkaSettled(link);
    expect((await differences(pair, 'a', 't-new-later', 2)).wrong).toEqual([]);
    expect(await differences(pair, 'a', 't-new', 3)).toEqual({ records: 1, wrong: [] });
    await until(async () => (await setting('retention.ms')) === '3600000', 'the setting is followed', 30_000);
    await pair.a.admin.deleteTopics({ topics: ['t-new-later'] });
    await until(
      () => link.status().kafka?.deleted.includes('t-new-later') === true,
      'the deletion is reported',
      30_000,
    );
    expect(await pair.b.admin.listTopics()).toContain('dc-a.t-new-later');
    expect(link.status().state).toBe('streaming');
  });
});
