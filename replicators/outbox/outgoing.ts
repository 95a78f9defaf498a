import { BatchBuilder } from '../kafka/client/record-batch.js';
import type { Outgoing, TransactionalProducer } from '../kafka/client/producer.js';
import type { OutboxEvent } from './outbox-row.js';
import type { TopicMap } from './topic-map.js';

/** A broker takes a batch of 1 MiB by default; one event may have nearly as much. */
const BATCH_BYTES = 512 * 1024;
const FIRST_BYTES = 16 * 1024;

/** Events of one Kafka transaction, gathered into batches by partition, in their order. */
export class OutgoingEvents {
  private readonly batches = new Map<string, Outgoing>();

  constructor(
    private readonly producer: TransactionalProducer,
    private readonly topics: TopicMap,
  ) {}

  async add(event: OutboxEvent, timestamp: number): Promise<void> {
    const place = await this.topics.placeOf(event.topic, event.key);
    const key = `${place.topic}-${place.partition}`;
    const bytes = bytesOf(event);
    const full = this.batches.get(key);
    if (full !== undefined && full.builder.size + bytes > BATCH_BYTES) await this.send();
    let batch = this.batches.get(key);
    if (batch === undefined) {
      batch = { ...place, builder: new BatchBuilder(FIRST_BYTES) };
      this.batches.set(key, batch);
    }
    batch.builder.add(timestamp, event.key, event.value, event.headers);
  }

  async send(): Promise<void> {
    const batches = [...this.batches.values()];
    this.batches.clear();
    await this.producer.send(batches);
  }
}

function bytesOf({ key, value, headers }: OutboxEvent): number {
  const parts = [key, value ?? Buffer.alloc(0), ...headers.flat()];
  return parts.reduce((sum, { length }) => sum + length, 0);
}
