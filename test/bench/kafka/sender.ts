import { setTimeout as sleep } from 'node:timers/promises';
import { Kafka, Partitioners, logLevel } from 'kafkajs';
import type { Producer } from 'kafkajs';

const FILLER = 'x'.repeat(160);

/** An application that writes events at a steady rate, each sent at once; a client that we did not write. */
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

  /** Sends the records with the numbers from `from` up to `to`, spread over all partitions; their values are `number time filler`. */
  async send(topics: readonly string[], partitions: number, from: number, to: number): Promise<void> {
    const sent: Promise<unknown>[] = [];
    const begun = performance.now();
    for (let number = from; number < to;) {
      const due = Math.min(to, from + Math.floor(((performance.now() - begun) * this.rate) / 1000));
      for (; number < due; number++) {
        const spread = Math.abs(number) * 7919;
        const topic = topics[spread % topics.length]!;
        const partition = Math.floor(spread / topics.length) % partitions;
        const value = `${number} ${performance.now()} ${FILLER}`;
        sent.push(this.producer.send({ topic, messages: [{ value, partition }] }));
      }
      await sleep(1);
    }
    await Promise.all(sent);
  }

  async close(): Promise<void> {
    await this.producer.disconnect();
  }
}
