import { CompressionTypes } from 'kafkajs';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { KafkaLinkConfig } from '../../replicators/kafka/link-config.js';
import type { ComparedPartition } from '../../replicators/kafka/verify/report.js';
import { verifyKafkaLink } from '../../replicators/kafka/verify/verifier.js';
import {
  kafkaLinkConfig,
  runKafkaLink,
  removeRecords,
  startKafkaPair,
  initialiseTestLink,
} from '../support/kafka-replication.js';
import { until } from '../support/replication.js';
import type { KafkaPair } from '../support/kafka-replication.js';

const T0 = 1_700_000_000_000;
let pair: KafkaPair;

beforeAll(async () => {
  pair = await startKafkaPair();
});
afterAll(async () => {
  await pair?.stop();
});

const verify = async (config: KafkaLinkConfig, waitMs = 60_000): Promise<ComparedPartition[]> =>
  (await verifyKafkaLink(config, { waitMs, keep: 20 })).flatMap(({ partitions }) => partitions);
const found = (partitions: ComparedPartition[]) =>
  partitions.flatMap(({ differences }) => differences.map(({ kind, offset }) => `${kind} ${offset ?? '–'}`));

/** A topic, and a copy of it that is written by hand: `copies` are its records' offsets at the source. */
async function planted(
  name: string,
  policy: string,
  records: { key: string; value: string | null; aborted?: boolean }[],
  copies: { origin: number | null; key: string; value: string | null }[],
): Promise<KafkaLinkConfig> {
  const config = kafkaLinkConfig(pair, 'a', name);
  const configEntries = [{ name: 'cleanup.policy', value: policy }];
  await pair.a.admin.createTopics({ topics: [{ topic: name, numPartitions: 1, configEntries }] });
  await pair.b.admin.createTopics({ topics: [{ topic: `dc-a.${name}`, numPartitions: 1 }] });
  for (const [i, { key, value, aborted }] of records.entries()) {
    const messages = [{ key, value, timestamp: String(T0 + i) }];
    if (aborted !== true) {
      await pair.a.producer.send({ topic: name, messages });
      continue;
    }
    const producer = pair.a.kafka.producer({ transactionalId: `undone-${name}`, maxInFlightRequests: 1 });
    await producer.connect();
    const transaction = await producer.transaction();
    await transaction.send({ topic: name, messages });
    await transaction.abort();
    await producer.disconnect();
    // The end of the transaction is a record, too, and comes after the answer.
    const ended = async () => Number((await pair.a.admin.fetchTopicOffsets(name))[0]!.high) === i + 2;
    await until(ended, 'the transaction is undone');
  }
  for (const { origin, key, value } of copies) {
    const headers = origin === null ? {} : { 'interlock-origin': `dc-a/${name}/0/${origin}` };
    await pair.b.producer.send({
      topic: `dc-a.${name}`,
      messages: [{ key, value, headers, timestamp: String(T0 + (origin ?? 0)) }],
    });
  }
  await initialiseTestLink(config, 'now');
  return config;
}

test('finds nothing under live writes, with transactions, tombstones, compression and records of the other side', async () => {
  const config = kafkaLinkConfig(pair, 'a', 'live');
  await pair.a.admin.createTopics({ topics: [{ topic: 'live', numPartitions: 2 }] });
  const link = await runKafkaLink(config, 'earliest');
  let writing = true;
  let sent = 0;
  const write = async (): Promise<void> => {
    const producer = pair.a.kafka.producer({ transactionalId: 'live', maxInFlightRequests: 1 });
    await producer.connect();
    for (let i = 0; writing; i++) {
      const transaction = await producer.transaction();
      const messages = Array.from({ length: 40 }, (_, n) => ({
        key: `k${n}`,
        value: n % 7 === 0 ? null : `v${i}-${n}`,
        headers: n % 3 === 0 ? { h: `${n}` } : n === 5 ? { 'interlock-origin': 'dc-b/x/0/1' } : {},
      }));
      await transaction.send({ topic: 'live', messages, compression: CompressionTypes.GZIP });
      await (i % 5 === 4 ? transaction.abort() : transaction.commit());
      sent += 40;
    }
    await producer.disconnect();
  };
  const writer = write();
  for (let i = 0; i < 3; i++) {
    const before = sent;
    await until(async () => Promise.resolve(sent > before + 80), 'something is written in between');
    const partitions = await verify(config);
    expect(found(partitions)).toEqual([]);
    expect(partitions.map(({ undecided, differing }) => [undecided, differing])).toEqual([
      [null, 0],
      [null, 0],
    ]);
    const records = partitions.reduce((sum, one) => sum + one.records, 0);
    // 39 of 40 are not foreign, 4 of 5 transactions are committed.
    expect(records).toBeGreaterThanOrEqual(Math.floor((before / 200) * 4 * 39) - 200);
    for (const { ranges } of partitions)
      for (const { records: count, copies, hash, copyHash } of ranges)
        expect([count, hash]).toEqual([copies, copyHash]);
  }
  expect(sent).toBeGreaterThan(80);
  writing = false;
  await writer;
  await link.stop();
  await pair.a.producer.send({ topic: 'live', messages: [{ value: 'later', partition: 0 }] });
  const [first] = await verify(config, 500);
  expect(first!.undecided).toMatch(/the link has come to \d+ of \d+/);
  expect(first!.differences).toEqual([]);
});

test('finds what is missing, extra, twice, of other content, and of nobody', async () => {
  const records = Array.from({ length: 12 }, (_, i) => ({
    ...{ key: `k${i}`, value: `v${i}` },
    aborted: i === 10,
  }));
  const copy = (origin: number, value = `v${origin}`) => ({ origin, key: `k${origin}`, value });
  const config = await planted('planted', 'delete', records, [
    ...[copy(1), copy(2), copy(4), copy(5, 'changed'), copy(6), copy(7), copy(8), copy(9), copy(10)],
    ...[copy(4), { origin: null, key: 'x', value: 'y' }],
    // Behind the aborted record and the end of its transaction.
    { origin: 12, key: 'k11', value: 'v11' },
  ]);
  const [partition] = await verify(config);
  expect(found([partition!]).sort()).toEqual(
    // Offset 12 has the time of the twelfth record, 11, and the copy that of 12: content.
    ['content 12', 'content 5', 'extra 10', 'missing 3', 'stranger –', 'twice 4'].sort(),
  );
  expect(partition).toMatchObject({ from: 1, to: 13, before: 1, differing: 6, undecided: null });
  const [range] = partition!.ranges;
  expect(range!.hash).not.toEqual(range!.copyHash);
  expect(partition!.offsets).toEqual({ first: [1, 0], last: [12, 11] });
});

test('an empty copy is not equal to a source that has records', async () => {
  const config = kafkaLinkConfig(pair, 'a', 'emptied');
  await pair.a.admin.createTopics({ topics: [{ topic: 'emptied', numPartitions: 1 }] });
  await pair.a.producer.send({ topic: 'emptied', messages: [{ value: 'before' }] });
  const link = await runKafkaLink(config, 'now');
  await pair.a.producer.send({ topic: 'emptied', messages: [{ value: 'one' }, { value: 'two' }] });
  expect(found(await verify(config))).toEqual([]);
  await link.stop();
  await removeRecords(pair.b, 'dc-a.emptied', -1);
  const [removed] = await verify(config, 0);
  expect(removed!.undecided).toMatch(/dc-a\.emptied-0 is empty, and its records before \d+ were removed/);
  await pair.b.admin.deleteTopics({ topics: ['dc-a.emptied'] });
  const made = () => pair.b.admin.createTopics({ topics: [{ topic: 'dc-a.emptied' }] }).catch(() => false);
  await until(made, 'the copy is made anew');
  const [anew] = await verify(config, 0);
  expect([anew!.from, anew!.before]).toEqual([1, 1]);
  expect(found([anew!])).toEqual(['missing 1', 'missing 2']);
});

test('a compacted topic is compared by the latest record of each key', async () => {
  const records = [
    { key: 'a', value: '1' },
    { key: 'b', value: '1' },
    { key: 'a', value: '2' },
    { key: 'b', value: null },
  ];
  const equal = await planted('compacted', 'compact', records, [
    { origin: 0, key: 'a', value: '1' },
    { origin: 2, key: 'a', value: '2' },
  ]);
  expect(found(await verify(equal))).toEqual([]);
  const old = await planted('outdated', 'compact', records, [
    { origin: 0, key: 'a', value: '1' },
    { origin: 1, key: 'b', value: '1' },
  ]);
  expect(found(await verify(old))).toEqual(['missing 2', 'missing 3']);
});
