import type { Kafka } from 'kafkajs';
import { producerTransactionalId } from '../../kafka/transactional-id.js';
import type { DcId } from '../../routing/units.js';
import type { RulesSource } from '../rules-source.js';
import { FencedConsumer } from './consumer.js';
import type { ConsumerOptions } from './consumer.js';
import { FencedProducer } from './producer.js';
import type { ProducerOptions } from './producer.js';

export interface FencedKafkaParts {
  dc: DcId;
  application: string;
  instance: string;
  rules: RulesSource;
}

/** The Kafka of this DC behind the fence. Get it by `interlock.kafka(kafka)`. */
export class FencedKafka {
  private made: FencedProducer | undefined;

  constructor(
    private readonly kafka: Kafka,
    private readonly parts: FencedKafkaParts,
  ) {}

  /**
   * The instance's producer: one per process and cluster, as two with one transactional id would end each other. Later calls answer the first
   * one, whatever their options.
   */
  producer(options: ProducerOptions = {}): FencedProducer {
    const { application, instance, dc, rules } = this.parts;
    const transactionalId = producerTransactionalId(application, instance);
    this.made ??= new FencedProducer({ kafka: this.kafka, dc, transactionalId, rules, options });
    return this.made;
  }

  /** A member of a group that follows the owners of its records' units. `start` it, and `stop` it. */
  consumer(options: ConsumerOptions): FencedConsumer {
    const { dc, application, instance, rules } = this.parts;
    const holder = { application, instance };
    return new FencedConsumer({ kafka: this.kafka, dc, holder, rules, options });
  }
}
