import { randomUUID } from 'node:crypto';
import type { Consumer, Kafka } from 'kafkajs';
import { InterlockError } from '../../errors.js';
import { CONSUMERS, CONSUMERS_CONFIG, CONSUMERS_PARTITIONS } from '../../kafka/consumer-records.js';
import type { RecordKey } from '../../kafka/consumer-records.js';

const MARK_MS = 60_000;
const CREATIONS = 20;
const CREATION_MS = 200;

/** Reads `interlock.consumers` of this DC, all of it and then what comes. */
export class ConsumerStates {
  private readonly marks = new Map<string, () => void>();
  private readonly reader: Consumer;
  /** By key, as JSON. */
  private readonly values = new Map<string, unknown>();

  constructor(
    private readonly kafka: Kafka,
    /** undefined: a tombstone, it is unknown again */
    private readonly onRecord: (key: RecordKey, value: unknown) => void,
  ) {
    this.reader = kafka.consumer({
      groupId: `interlock-reader-${randomUUID()}`,
      maxWaitTimeInMs: 500,
      allowAutoTopicCreation: false,
    });
  }

  async start(): Promise<void> {
    await this.createTopic();
    await this.reader.connect();
    await this.reader.subscribe({ topic: CONSUMERS, fromBeginning: true });
    await this.reader.run({
      autoCommit: false,
      eachMessage: async ({ message: { key, value } }) => {
        if (key === null) return;
        const text = key.toString();
        const parsed: unknown = value === null ? undefined : JSON.parse(value.toString());
        const of = JSON.parse(text) as RecordKey;
        if (of[0] === 'mark') {
          this.marks.get(parsed as string)?.();
          return;
        }
        if (parsed === undefined) this.values.delete(text);
        else this.values.set(text, parsed);
        this.onRecord(of, parsed);
      },
    });
  }

  private async createTopic(): Promise<void> {
    const configEntries = Object.entries(CONSUMERS_CONFIG).map(([name, value]) => ({ name, value }));
    const topics = [{ topic: CONSUMERS, numPartitions: CONSUMERS_PARTITIONS, configEntries }];
    const admin = this.kafka.admin();
    await admin.connect();
    try {
      for (let left = CREATIONS; ; left--) {
        try {
          await admin.createTopics({ topics });
          // Hazard: a partition without a leader yet, or that another member is making just now, would not be assigned to the reader.
          const found = await admin.fetchTopicMetadata({ topics: [CONSUMERS] });
          const { partitions } = found.topics[0]!;
          if (partitions.length === CONSUMERS_PARTITIONS && partitions.every(({ leader }) => leader >= 0))
            return;
          throw new InterlockError('Unavailable', `${CONSUMERS} has no leaders yet`, { retryable: true });
        } catch (error) {
          // kafkajs looks for the leaders at once, and a broker under load does not know them yet.
          if (left === 0) throw error;
          await new Promise((resolve) => setTimeout(resolve, CREATION_MS));
        }
      }
    } finally {
      await admin.disconnect();
    }
  }

  valueOf(key: RecordKey): unknown {
    return this.values.get(JSON.stringify(key));
  }

  /** Returns when everything has been read that was committed before `write`, which writes the mark. */
  async mark(write: (value: string) => Promise<unknown>): Promise<void> {
    const id = randomUUID();
    let timer: NodeJS.Timeout | undefined;
    const seen = new Promise<void>((resolve, reject) => {
      this.marks.set(id, resolve);
      timer = setTimeout(
        () =>
          reject(
            new InterlockError('Unavailable', `${CONSUMERS} was not read up to its end in ${MARK_MS} ms`, {
              retryable: true,
            }),
          ),
        MARK_MS,
      );
    });
    seen.catch(() => undefined);
    try {
      await write(JSON.stringify(id));
      await seen;
    } finally {
      clearTimeout(timer);
      this.marks.delete(id);
    }
  }

  async stop(): Promise<void> {
    await this.reader.disconnect();
  }
}
