import type { Kafka, Message, Producer, RecordMetadata, TopicMessages } from 'kafkajs';
import { partitionOf } from '../../kafka/partitioner.js';
import type { RulesSource } from '../rules-source.js';

/** So long a transaction of an instance that is gone may keep readers of committed records waiting. */
const TRANSACTION_MS = 15_000;
/** The coordinator answers CONCURRENT_TRANSACTIONS while it ends the one before: that takes milliseconds. */
const RETRY = { initialRetryTime: 2, maxRetryTime: 1_000, retries: 12 };

/** What Kafka answers to a producer whose transactional id was taken since, or whose transaction it has undone. Nothing was committed. */
const FENCED = new Set([
  'INVALID_PRODUCER_EPOCH',
  'PRODUCER_FENCED',
  'INVALID_PRODUCER_ID_MAPPING',
  'INVALID_TXN_STATE',
]);
const FENCED_CODE = 90;

/** The commit was sent, and its answer did not come. */
export class CommitLost extends Error {}

/** One life of a transactional id: from the take to the first failure, after which nothing of it is used again. */
export class ProducerConnection {
  private constructor(private readonly producer: Producer) {}

  /**
   * Takes the transactional id, then asks for the rules. Hazard: a producer that a switchover has fenced, and that takes its id again, may know
   * only the rules from before. Guard: the rules are asked for after the take. They are published before the fence: either the answer has them,
   * or the fence is still to come and ends this life too.
   */
  static async open(kafka: Kafka, transactionalId: string, rules: RulesSource): Promise<ProducerConnection> {
    const connection = await ProducerConnection.take(kafka, transactionalId);
    try {
      await rules.confirm();
      return connection;
    } catch (error) {
      await connection.close().catch(() => undefined);
      throw error;
    }
  }

  /** Who takes an id has to ask for the rules after that, before it writes by them. */
  static async take(kafka: Kafka, transactionalId: string): Promise<ProducerConnection> {
    const producer = kafka.producer({
      transactionalId,
      idempotent: true,
      maxInFlightRequests: 1,
      transactionTimeout: TRANSACTION_MS,
      allowAutoTopicCreation: false,
      retry: RETRY,
      createPartitioner: steadyPartitioner,
    });
    try {
      await producer.connect();
      // Begins nothing at the coordinator, which hears of a transaction by its first partition.
      await (await producer.transaction()).abort();
      return new ProducerConnection(producer);
    } catch (error) {
      await producer.disconnect().catch(() => undefined);
      throw error;
    }
  }

  /** All or nothing. @throws CommitLost: nobody knows; anything else: nothing */
  async commit(topicMessages: TopicMessages[]): Promise<RecordMetadata[]> {
    const transaction = await this.producer.transaction();
    const written = await transaction.sendBatch({ topicMessages, acks: -1 });
    try {
      await transaction.commit();
    } catch (error) {
      if (isFenced(error)) throw error;
      throw new CommitLost('the commit was sent and not answered', { cause: error });
    }
    return written;
  }

  async close(): Promise<void> {
    await this.producer.disconnect();
  }
}

export function isFenced(error: unknown): boolean {
  for (let one = error; one instanceof Error; one = one.cause) {
    const { type, code } = one as { type?: string; code?: unknown };
    if ((type !== undefined && FENCED.has(type)) || code === FENCED_CODE) return true;
  }
  return false;
}

/**
 * Hazard: a request that is repeated asks anew. A message without a key, or of a topic that got partitions meanwhile, would go to another one, and both
 * get it. Guard: a message keeps its partition.
 */
export function steadyPartitioner(): (args: {
  topic: string;
  partitionMetadata: { partitionId: number }[];
  message: Message;
}) => number {
  const chosen = new WeakMap<Message, number>();
  let next = 0;
  return ({ partitionMetadata, message }) => {
    if (message.partition !== undefined) return message.partition;
    const count = partitionMetadata.length;
    let partition = chosen.get(message);
    if (partition === undefined) {
      const hasKey = message.key !== null && message.key !== undefined;
      partition = hasKey ? partitionOf(Buffer.from(message.key as Buffer), count) : next++ % count;
      chosen.set(message, partition);
    }
    return partition;
  };
}
