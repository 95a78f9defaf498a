import type { Kafka, KafkaMessage } from 'kafkajs';
import type { RecordKey, StoredState } from '../../src/kafka/consumer-records.js';

interface Payload {
  topic: string;
  partition: number;
}
interface Read {
  batch: Payload & { fetchedOffset: string; messages: KafkaMessage[]; lastOffset: () => string };
  resolveOffset: () => void;
  heartbeat: () => Promise<void>;
  isRunning: () => boolean;
}
type EachBatch = (fetched: Read) => Promise<void>;
type EachMessage = (read: { message: { key: Buffer; value: Buffer | null } }) => Promise<void>;
interface Stored {
  key: string;
  /** null: a tombstone. */
  value: string | null;
}

const EVENTS = { GROUP_JOIN: 'join', REBALANCING: 'rebalancing', END_BATCH_PROCESS: 'end' };

/** A member of the group: the test is its coordinator, and what it fetches from. */
export class FakeMember {
  readonly listeners = new Map<string, (event: { payload: unknown }) => void>();
  eachBatch: EachBatch | undefined;
  readonly seeks: number[] = [];
  /** Names of partitions. */
  readonly reading = new Set<string>();

  assign(memberAssignment: Record<string, number[]>): void {
    this.listeners.get(EVENTS.GROUP_JOIN)!({ payload: { memberAssignment } });
  }

  rebalance(): void {
    this.listeners.get(EVENTS.REBALANCING)!({ payload: {} });
  }

  /** Records from an offset on, each of a key. */
  give(
    topic: string,
    partition: number,
    from: number,
    keys: readonly string[],
    heartbeat = () => Promise.resolve(),
  ): Promise<void> {
    const messages = keys.map((key, i): KafkaMessage => {
      const offset = String(from + i);
      return { key: Buffer.from(key), value: null, timestamp: '0', attributes: 0, offset, headers: {} };
    });
    return this.eachBatch!({
      batch: {
        ...{ topic, partition, fetchedOffset: String(from), messages },
        lastOffset: () => String(from + keys.length - 1),
      },
      resolveOffset: () => undefined,
      heartbeat,
      isRunning: () => true,
    });
  }
}

/** What kafkajs is to the consumers of the SDK, in memory: one group, `interlock.consumers`, and transactional ids that fence. */
export class FakeKafka {
  /** In the order in which their consumers were made. */
  readonly members: FakeMember[] = [];
  readonly stored: Stored[] = [];
  private readonly readers: EachMessage[] = [];
  private readonly holders = new Map<string, object>();

  get kafka(): Kafka {
    const fake = {
      consumer: ({ groupId }: { groupId: string }) =>
        groupId.startsWith('interlock-reader-') ? this.reader() : this.member(),
      producer: ({ transactionalId }: { transactionalId: string }) => this.producer(transactionalId),
      admin: () => ADMIN,
    };
    return fake as unknown as Kafka;
  }

  /** @param value null: a tombstone */
  write(key: RecordKey, value: unknown): void {
    this.append([{ key: JSON.stringify(key), value: value === null ? null : JSON.stringify(value) }]);
  }

  /** Of a partition, as it was committed last. */
  state(topic: string, partition: number): StoredState | undefined {
    const found = this.stored.findLast(({ key }) => {
      const [kind, , of, , number] = JSON.parse(key) as RecordKey;
      return kind === 'state' && of === topic && number === partition;
    });
    return found?.value == null ? undefined : (JSON.parse(found.value) as StoredState);
  }

  private append(records: readonly Stored[]): void {
    this.stored.push(...records);
    for (const reader of this.readers) for (const record of records) void reader(asMessage(record));
  }

  private reader() {
    return {
      ...CONNECTION,
      run: async ({ eachMessage }: { eachMessage: EachMessage }) => {
        this.readers.push(eachMessage);
        for (const record of this.stored) await eachMessage(asMessage(record));
      },
    };
  }

  private member() {
    const member = new FakeMember();
    this.members.push(member);
    return {
      ...CONNECTION,
      events: EVENTS,
      on: (event: string, listener: (event: { payload: unknown }) => void) =>
        void member.listeners.set(event, listener),
      run: async ({ eachBatch }: { eachBatch: EachBatch }) => void (member.eachBatch = eachBatch),
      seek: ({ offset }: { offset: string }) => void member.seeks.push(Number(offset)),
      pause: (all: { topic: string; partitions: number[] }[]) => {
        for (const name of namesOf(all)) member.reading.delete(name);
      },
      resume: (all: { topic: string; partitions: number[] }[]) => {
        for (const name of namesOf(all)) member.reading.add(name);
      },
    };
  }

  private producer(id: string) {
    const life = {};
    return {
      connect: async () => void this.holders.set(id, life),
      disconnect: async () => undefined,
      transaction: async () => {
        const written: Stored[] = [];
        return {
          abort: async () => undefined,
          sendBatch: async ({ topicMessages }: { topicMessages: { messages: Stored[] }[] }) => {
            for (const { messages } of topicMessages) written.push(...messages);
          },
          commit: async () => {
            if (this.holders.get(id) !== life)
              throw Object.assign(new Error('fenced'), { type: 'PRODUCER_FENCED' });
            this.append(written);
          },
        };
      },
    };
  }
}

const CONNECTION = {
  connect: () => Promise.resolve(),
  subscribe: () => Promise.resolve(),
  disconnect: () => Promise.resolve(),
};
const ADMIN = {
  ...CONNECTION,
  createTopics: () => Promise.resolve(true),
  fetchTopicMetadata: () =>
    Promise.resolve({
      topics: [{ partitions: Array.from({ length: 8 }, (_, partitionId) => ({ partitionId, leader: 0 })) }],
    }),
  fetchOffsets: () => Promise.resolve([]),
  fetchTopicOffsets: () => Promise.resolve([]),
};

function asMessage({ key, value }: Stored): { message: { key: Buffer; value: Buffer | null } } {
  return { message: { key: Buffer.from(key), value: value === null ? null : Buffer.from(value) } };
}

function namesOf(all: readonly { topic: string; partitions: number[] }[]): string[] {
  return all.flatMap(({ topic, partitions }) => partitions.map((partition) => `${topic}-${partition}`));
}
