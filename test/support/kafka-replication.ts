import { Kafka, logLevel } from 'kafkajs';
import type { Admin, Producer } from 'kafkajs';
import type { BaselineReached, LinkStatus } from '../../replicators/core/contract.js';
import { Cluster } from '../../replicators/kafka/client/cluster.js';
import { fetch, listOffsets } from '../../replicators/kafka/client/data-api.js';
import { RecordCursor, readBatches } from '../../replicators/kafka/client/record-batch.js';
import { CommittedOnly } from '../../replicators/kafka/committed-only.js';
import type { KafkaAddress } from '../../replicators/kafka/client/connection.js';
import { initialiseKafkaLink } from '../../replicators/kafka/initialise.js';
import { KafkaLink } from '../../replicators/kafka/link.js';
import type { KafkaLinkConfig } from '../../replicators/kafka/link-config.js';
import { writeMarker } from '../../replicators/kafka/markers.js';
import { ORIGIN_KEY, parseOrigin } from '../../replicators/kafka/origin.js';
import type { Origin } from '../../replicators/kafka/origin.js';
import { startTestKafka } from './kafka.js';
import type { TestKafka } from './kafka.js';
import { started, until } from './replication.js';

export interface KafkaSide {
  server: TestKafka;
  /** A client that we did not write. */
  kafka: Kafka;
  admin: Admin;
  producer: Producer;
}

export interface KafkaPair {
  a: KafkaSide;
  b: KafkaSide;
  stop: () => Promise<void>;
}

/** Two brokers, as dc-a and dc-b. */
export async function startKafkaPair(
  settings: Record<string, string> = {},
  started?: TestKafka[],
): Promise<KafkaPair> {
  const servers =
    started ?? (await Promise.all([startTestKafka({ settings }), startTestKafka({ settings })]));
  const sides = servers.map((server) => {
    const kafka = new Kafka({
      clientId: 'test',
      brokers: [server.address],
      logLevel: logLevel.NOTHING,
      retry: { initialRetryTime: 20, retries: 30 },
    });
    return { server, kafka, admin: kafka.admin(), producer: kafka.producer() };
  });
  await Promise.all(sides.flatMap(({ admin, producer }) => [admin.connect(), producer.connect()]));
  const [a, b] = sides as [KafkaSide, KafkaSide];
  return {
    a,
    b,
    stop: async () => {
      await Promise.allSettled(
        sides.flatMap(({ admin, producer }) => [admin.disconnect(), producer.disconnect()]),
      );
      await Promise.all(servers.map((server) => server.stop()));
    },
  };
}

export function kafkaLinkConfig(
  pair: KafkaPair,
  from: 'a' | 'b',
  name: string,
  overrides: Partial<KafkaLinkConfig> = {},
): KafkaLinkConfig {
  const to = from === 'a' ? 'b' : 'a';
  return {
    link: `kafka/${name}:dc-${from}>dc-${to}`,
    from: `dc-${from}`,
    to: `dc-${to}`,
    source: { brokers: [pair[from].server.address] },
    target: { brokers: [pair[to].server.address] },
    include: [`${name}*`],
    exclude: [],
    onGap: 'stop',
    ...overrides,
  };
}

export interface RunningKafkaLink {
  link: KafkaLink;
  config: KafkaLinkConfig;
  markers: { baseline: BaselineReached; to: { workflowId: string; runId: string } }[];
  status: () => LinkStatus;
  ended: Promise<unknown>;
  stop: () => Promise<unknown>;
}

/** Asks again while a broker says that it cannot answer yet: a topic that is new has no leader at once, a coordinator may be loading. */
export async function patiently<T>(ask: () => Promise<T>): Promise<T> {
  const deadline = Date.now() + 60_000;
  for (;;) {
    try {
      return await ask();
    } catch (error) {
      const { retryable, retriable } = error as { retryable?: boolean; retriable?: boolean };
      if ((retryable !== true && retriable !== true) || Date.now() > deadline) throw error;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
}

export function initialiseTestLink(config: KafkaLinkConfig, from: 'now' | 'earliest'): Promise<void> {
  return patiently(() => initialiseKafkaLink(config, { from }));
}

export async function runKafkaLink(
  config: KafkaLinkConfig,
  from: 'now' | 'earliest' | null = 'now',
  waitFor: LinkStatus['state'] | null = 'streaming',
): Promise<RunningKafkaLink> {
  if (from !== null) await initialiseTestLink(config, from);
  const markers: RunningKafkaLink['markers'] = [];
  const link = new KafkaLink(
    config,
    { onStatus: () => undefined, onMarker: (baseline, to) => markers.push({ baseline, to }) },
    () => undefined,
  );
  const running: RunningKafkaLink = { link, config, markers, status: () => link.status(), ...started(link) };
  if (waitFor !== null)
    await until(
      () => link.status().state === waitFor,
      `${config.link} is ${waitFor}`,
      60_000,
      () => JSON.stringify(link.status()),
    );
  return running;
}

export async function withCluster<T>(
  address: KafkaAddress,
  work: (cluster: Cluster) => Promise<T>,
): Promise<T> {
  const cluster = new Cluster(address);
  try {
    return await work(cluster);
  } finally {
    cluster.close();
  }
}

let markerCount = 0;

export async function writeTestMarker(config: KafkaLinkConfig): Promise<string> {
  const id = `m-${process.pid}-${++markerCount}`;
  await withCluster(config.source, (source) =>
    writeMarker(source, { id, workflowId: 'switchover/test', runId: 'run' }),
  );
  return id;
}

/** Waits until the link has reached a marker that is written now: all that the source had is copied. */
export async function kafkaSettled(running: RunningKafkaLink, timeoutMs = 60_000): Promise<void> {
  const id = await writeTestMarker(running.config);
  await Promise.race([
    until(
      () => running.markers.some((m) => m.baseline.markerId === id),
      `${running.config.link} reaches marker ${id}`,
      timeoutMs,
      () => JSON.stringify(running.status()),
    ),
    running.ended.then((error) => {
      throw error instanceof Error ? error : new Error(`${running.config.link} ended`);
    }),
  ]);
}

/** DeleteRecords of the protocol, of partition 0: what retention does, at once. @param before -1: all of them */
export async function removeRecords(side: KafkaSide, topic: string, before: number): Promise<void> {
  const cluster = new Cluster({ brokers: [side.server.address] });
  try {
    const [[error]] = (await cluster.onController({
      key: 21,
      version: 1,
      name: 'DeleteRecords',
      write: (w) => {
        w.int32(1).string(topic).int32(1).int32(0).int64(before).int32(10_000);
      },
      read: (r) => {
        r.throttle();
        return r.array(() => {
          r.string();
          return r.array(() => {
            r.int32();
            r.int64();
            return r.int16();
          });
        });
      },
    })) as [[number]];
    if (error !== 0) throw new Error(`DeleteRecords of ${topic}-0 before ${before}: ${error}`);
  } finally {
    cluster.close();
  }
}

export interface ReadRecord {
  offset: number;
  timestamp: number;
  key: string | null;
  /** Bytes as latin1; null: a tombstone. */
  value: string | null;
  headers: number;
  origin: Origin | undefined;
}

/** Every committed record of a partition, read by the wire. */
export async function readPartition(side: KafkaSide, topic: string, partition = 0): Promise<ReadRecord[]> {
  const cluster = new Cluster({ brokers: [side.server.address] });
  try {
    const found = (await cluster.metadata([topic])).topics[0];
    const leader = found?.partitions.find((p) => p.partition === partition)?.leader;
    if (leader === undefined) return [];
    const ref = { topic, partition, leaderEpoch: -1 };
    const [latest] = await cluster.call(leader, listOffsets([ref], 'latest', true));
    const [earliest] = await cluster.call(leader, listOffsets([ref], 'earliest', true));
    const records: ReadRecord[] = [];
    const cursor = new RecordCursor();
    const committed = new CommittedOnly();
    for (let offset = earliest!.offset; offset < latest!.offset;) {
      const answer = await cluster.call(
        leader,
        fetch([{ ...ref, offset, maxBytes: 2 ** 22 }], {
          readCommitted: true,
          maxWaitMs: 500,
          maxBytes: 2 ** 23,
          session: { id: 0, epoch: -1 },
          forgotten: [],
        }),
      );
      committed.expect(answer.partitions[0]!.aborted);
      for (const batch of readBatches(answer.partitions[0]!.records, topic)) {
        if (committed.holds(batch)) {
          cursor.open(batch);
          while (cursor.next()) {
            if (cursor.offset < offset) continue;
            records.push({
              offset: cursor.offset,
              timestamp: cursor.timestamp,
              key: cursor.key()?.toString('latin1') ?? null,
              value: cursor.value()?.toString('latin1') ?? null,
              headers: cursor.headers,
              origin: parseOrigin(cursor.header(ORIGIN_KEY)),
            });
          }
        }
        offset = batch.lastOffset + 1;
      }
    }
    return records;
  } finally {
    cluster.close();
  }
}

/** What differs between a topic and its copy: nothing missing, nothing twice, nothing out of order. */
export async function differences(
  pair: KafkaPair,
  from: 'a' | 'b',
  topic: string,
  partitions: number,
  copy = `dc-${from}.${topic}`,
): Promise<{ records: number; wrong: string[] }> {
  const wrong: string[] = [];
  let records = 0;
  for (let partition = 0; partition < partitions; partition++) {
    const source = await readPartition(pair[from], topic, partition);
    const copied = await readPartition(pair[from === 'a' ? 'b' : 'a'], copy, partition);
    records += copied.length;
    if (source.length !== copied.length)
      wrong.push(`${topic}-${partition}: ${source.length} records, ${copied.length} copied`);
    for (let i = 0; i < Math.min(source.length, copied.length) && wrong.length < 10; i++) {
      const [s, c] = [source[i]!, copied[i]!];
      const origin = { dc: `dc-${from}`, topic, partition, offset: s.offset };
      const same =
        JSON.stringify(c.origin) === JSON.stringify(origin) &&
        s.key === c.key &&
        s.value === c.value &&
        s.timestamp === c.timestamp &&
        s.headers + 1 === c.headers;
      if (!same) wrong.push(`${topic}-${partition} at ${s.offset}: ${cut(s)} is ${cut(c)}`);
    }
  }
  return { records, wrong };
}

function cut(record: ReadRecord): string {
  return JSON.stringify({ ...record, value: record.value?.slice(0, 40) ?? null });
}
