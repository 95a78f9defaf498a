import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Cluster } from '../../../replicators/kafka/client/cluster.js';
import { listOffsets } from '../../../replicators/kafka/client/data-api.js';
import type { Fetched, FetchPartition } from '../../../replicators/kafka/client/data-api.js';
import { fetchById } from '../../../replicators/kafka/client/fetch-by-id.js';
import type { WithId } from '../../../replicators/kafka/client/fetch-by-id.js';
import { check } from '../../../replicators/kafka/client/protocol-errors.js';
import { BatchBuilder, RecordCursor, readBatches } from '../../../replicators/kafka/client/record-batch.js';
import { TransactionalProducer } from '../../../replicators/kafka/client/producer.js';
import { createTopics } from '../../../replicators/kafka/client/topics-api.js';
import { CommittedOnly } from '../../../replicators/kafka/committed-only.js';
import { startTestKafka } from '../../support/kafka.js';
import type { TestKafka } from '../../support/kafka.js';

const REST_MS_PER_PARTITION = 0.005;
/** Until what a contestant copies into is there. */
const OPEN_MS = 300_000;
/** Of a broker to a reader, on a machine that is busy. */
const ANSWER_MS = 60_000;

/** Two brokers and what fills and reads them. */
export class KafkaRig {
  private servers: TestKafka[] = [];
  private clusters: Cluster[] = [];
  directory = '';

  async up(): Promise<void> {
    this.directory = await mkdtemp(path.join(tmpdir(), 'interlock-bench-kafka-'));
    const settings = {
      'log.retention.check.interval.ms': '3600000',
      // A machine that is busy must not make a broker lead nothing for a while.
      'broker.session.timeout.ms': '60000',
      'max.incremental.fetch.session.cache.slots': '100',
    };
    this.servers = await Promise.all([
      startTestKafka({ settings, heapMb: 512 }),
      startTestKafka({ settings, heapMb: 512 }),
    ]);
    this.clusters = this.servers.map(({ address }) => new Cluster({ brokers: [address] }));
  }

  get from(): string {
    return this.servers[0]!.address;
  }

  get to(): string {
    return this.servers[1]!.address;
  }

  get source(): Cluster {
    return this.clusters[0]!;
  }

  get target(): Cluster {
    return this.clusters[1]!;
  }

  async createTopics(names: string[], partitions: number): Promise<void> {
    for (let i = 0; i < names.length; i += 50) {
      const some = names.slice(i, i + 50).map((name) => ({ name, partitions, configs: {} }));
      for (const { error } of await this.source.onController(createTopics(some))) if (error) throw error;
    }
    for (;;) {
      const { topics } = await this.source.metadata(names);
      if (topics.every(({ error, partitions: of }) => error === 0 && of.every(({ leader }) => leader >= 0))) {
        const refs = topics.flatMap(({ name, partitions: of }) =>
          of.map((p) => ({ topic: name, partition: p.partition, leaderEpoch: -1 })),
        );
        const listed = await this.source.call(1, listOffsets(refs, 'latest', true));
        if (listed.every(({ error }) => error === 0)) return;
      }
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  /** Records of `bytes` bytes, spread over the partitions; the value of the record begins with its number. */
  async fill(topic: string, partitions: number, records: number, bytes: number): Promise<void> {
    const leader = (await this.source.metadata([topic])).topics[0]!.partitions[0]!.leader;
    const producer = await TransactionalProducer.take(this.source, `fill-${topic}`, 60_000);
    const perBatch = 1000;
    const filler = Buffer.alloc(bytes, 'interlock benchmark ');
    for (let done = 0, partition = 0; done < records; partition = (partition + 1) % partitions) {
      const builder = new BatchBuilder(perBatch * (bytes + 40));
      for (let i = 0; i < perBatch && done < records; i++, done++) {
        const value = Buffer.from(filler);
        value.write(`${done} `, 0);
        builder.add(Date.now(), null, value);
      }
      await producer.send([{ topic, partition, leader, builder }]);
    }
    await producer.commit();
  }

  async down(): Promise<void> {
    for (const cluster of this.clusters) cluster.close();
    await Promise.all(this.servers.map((server) => server.stop()));
    if (this.directory !== '') await rm(this.directory, { recursive: true, force: true });
  }
}

/** Reads the committed records of some topics as they come; the same reader for every contestant. */
export class Watcher {
  private readonly committed = new Map<string, CommittedOnly>();
  private readonly offsets = new Map<string, WithId<FetchPartition>>();
  /** Id → name. */
  private readonly topics = new Map<string, string>();
  private readonly told = new Map<string, number>();
  private session = { id: 0, epoch: 0 };
  private stopped = false;
  private readonly cursor = new RecordCursor();

  /** @param onRecord the cursor stands at the record */
  constructor(
    private readonly cluster: Cluster,
    private readonly onRecord: (topic: string, partition: number, cursor: RecordCursor) => void,
  ) {}

  /** Waits for the topics, and reads from their beginning. */
  async open(topics: string[], partitions: number): Promise<void> {
    const deadline = performance.now() + OPEN_MS;
    for (;;) {
      const found = (await this.cluster.metadata(topics)).topics;
      if (
        found.every(
          ({ error, partitions: of }) =>
            error === 0 && of.length === partitions && of.every((p) => p.leader >= 0),
        )
      ) {
        for (const { id, name } of found) this.topics.set(id!, name);
        break;
      }
      if (performance.now() > deadline)
        throw new Error(`not all of ${topics.length} topics (${topics[0]}, …) are there after ${OPEN_MS} ms`);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    for (const [topicId, topic] of this.topics)
      for (let partition = 0; partition < partitions; partition++)
        this.offsets.set(`${topic}-${partition}`, {
          ...{ topic, topicId },
          partition,
          offset: 0,
          leaderEpoch: -1,
          maxBytes: 2 ** 20,
        });
  }

  /** @param end the sum of the offsets to read up to; else it reads until it is stopped */
  async run(end = Number.POSITIVE_INFINITY): Promise<void> {
    const connection = await this.cluster.broker(1, 'watch');
    // Of many partitions: a request that waits costs the broker a look at all of them at each record, and it is to serve the contestants.
    const restMs = Math.floor(this.offsets.size * REST_MS_PER_PARTITION);
    const options = {
      ...{ readCommitted: true, maxWaitMs: restMs > 0 ? 0 : 500, maxBytes: 8 * 2 ** 20 },
      forgotten: [],
    };
    while (!this.stopped && this.position < end) {
      if (restMs > 0) await new Promise((resolve) => setTimeout(resolve, restMs));
      const isNew = this.session.epoch === 0;
      const changed = [...this.offsets.values()].filter(
        (p) => isNew || this.told.get(`${p.topic}-${p.partition}`) !== p.offset,
      );
      for (const p of changed) this.told.set(`${p.topic}-${p.partition}`, p.offset);
      const answer = await connection.call(
        fetchById(changed, { ...options, session: this.session }, this.topics),
        ANSWER_MS,
      );
      check(answer.error, 'watching');
      this.session =
        answer.sessionId === 0
          ? { id: 0, epoch: 0 }
          : { id: answer.sessionId, epoch: this.session.epoch + 1 };
      for (const fetched of answer.partitions) this.take(fetched);
    }
  }

  private take(fetched: Fetched): void {
    const key = `${fetched.topic}-${fetched.partition}`;
    const committed = this.committed.get(key) ?? new CommittedOnly();
    this.committed.set(key, committed);
    // A topic that is new is not led at once.
    if (fetched.error === 6) return void this.told.delete(key);
    check(fetched.error, key);
    committed.expect(fetched.aborted);
    const at = this.offsets.get(key)!;
    for (const batch of readBatches(fetched.records, key)) {
      if (committed.holds(batch)) {
        this.cursor.open(batch);
        while (this.cursor.next())
          if (this.cursor.offset >= at.offset) this.onRecord(fetched.topic, fetched.partition, this.cursor);
      }
      at.offset = batch.lastOffset + 1;
    }
  }

  private get position(): number {
    return [...this.offsets.values()].reduce((sum, { offset }) => sum + offset, 0);
  }

  stop(): void {
    this.stopped = true;
  }
}

/** The sum of where the partitions of a topic end, to who reads committed records, or to who reads all. */
export async function offsets(
  cluster: Cluster,
  topic: string,
  partitions: number,
  committed: boolean,
): Promise<number> {
  const found = (await cluster.metadata([topic])).topics[0];
  if (found?.error !== 0 || found.partitions.length < partitions) return 0;
  const refs = found.partitions.map((p) => ({ topic, partition: p.partition, leaderEpoch: -1 }));
  const listed = await cluster.call(
    found.partitions[0]!.leader,
    listOffsets(refs, 'latest', committed),
    ANSWER_MS,
  );
  return listed.reduce((sum, { offset }) => sum + Math.max(offset, 0), 0);
}
