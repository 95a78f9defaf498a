import type { DcId } from '../../src/routing/units.js';
import type { KafkaAddress } from '../kafka/client/connection.js';
import type { ServerAddress } from '../mysql/session.js';

/** All that a relay's thread needs; plain data, passwords resolved. */
export interface RelayConfig {
  /** `outbox/<MySQL store>:<dc>` */
  link: string;
  dc: DcId;
  source: ServerAddress;
  /** Of the same data center. */
  target: KafkaAddress;
  /** `schema.table` of the store's outbox tables. */
  tables: string[];
}
