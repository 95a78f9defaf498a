/** What an application imports: `import { createInterlock } from 'interlock'`. */
export { createInterlock, Interlock } from './interlock.js';
export type { HttpOptions, InterlockOptions } from './interlock.js';
export { InterlockError, isInterlockError } from '../errors.js';
export type { ErrorCode } from '../errors.js';
export type { ConsumedRecord, ConsumerOptions, FencedConsumer } from './kafka/consumer.js';
export type { FencedKafka } from './kafka/kafka.js';
export type { FencedProducer, ProducerOptions } from './kafka/producer.js';
export { Outbox } from './kafka/outbox.js';
export type { CleanOptions, NewEvent, OutboxOptions } from './kafka/outbox.js';
export { outboxTable } from '../kafka/outbox-table.js';
export { FencedMysql } from './mysql/store.js';
export type { TransactionOptions } from './mysql/store.js';
export type { FencedTransaction } from './mysql/transaction.js';
export type { MysqlPool } from './mysql/session.js';
export { FixedRules, RuleCenterRules } from './rules-source.js';
export type { RulesSource } from './rules-source.js';
export type { Target } from './target.js';
export type { RoutingKey } from '../routing/units.js';
