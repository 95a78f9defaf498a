import { setTimeout as sleep } from 'node:timers/promises';
import { Kafka, Partitioners, logLevel } from 'kafkajs';
import type { Message, Producer } from 'kafkajs';

const FILLER = 'x'.repeat(160);
const IN_FLIGHT = 5;

/** An application that writes events at a steady rate, as they come; a client that we did not write. */
export class Sender {
  private constructor(
    private readonly producer: Producer,
    private readonly rate: number,
  ) {}

  static async open(broker: string, rate: number): Promise<Sender> {
    const kafka = new Kafka({ clientId: 'bench', brokers: [broker], logLevel: logLevel.NOTHING });
    const producer = kafka.producer({ createPartitioner: Partitioners.DefaultPartitioner });
    await producer.connect();
    return new Sender(producer, rate);
  }

  /**
   * Sends the records with the numbers from `from` up to `to`, spread over all partitions; their values are `number time filler`. What is due at
   * once goes as one request, and no more than some requests wait: a machine that is busy makes them larger, and nothing queues before it is sent.
   */
  async send(topics: readonly string[], partitions: number, from: number, to: number): Promise<void> {
    const waiting = new Set<Promise<unknown>>();
    const begun = performance.now();
    for (let number = from; number < to;) {
      while (waiting.size >= IN_FLIGHT) await Promise.race(waiting);
      const due = Math.min(to, from + Math.floor(((performance.now() - begun) * this.rate) / 1000));
      const messages = new Map<string, Message[]>();
      for (; number < due; number++) {
        const spread = Math.abs(number) * 7919;
        const topic = topics[spread % topics.length]!;
        const partition = Math.floor(spread / topics.length) % partitions;
        const message = { value: `${number} ${performance.now()} ${FILLER}`, partition };
        messages.set(topic, [...(messages.get(topic) ?? []), message]);
      }
      if (messages.size > 0) {
        const topicMessages = [...messages].map(([topic, of]) => ({ topic, messages: of }));
        const sent: Promise<unknown> = this.producer
          .sendBatch({ topicMessages })
          .finally(() => waiting.delete(sent));
        waiting.add(sent);
      }
      await sleep(1);
    }
    await Promise.all(waiting);
  }

  async close(): Promise<void> {
    await this.producer.disconnect();
  }
}
