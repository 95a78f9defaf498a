import type { DcId } from '../../src/routing/units.js';
import type { Throttle } from '../core/pace.js';
import type { KafkaAddress } from './client/connection.js';

/** All that a link's thread needs; plain data, passwords resolved. */
export interface KafkaLinkConfig {
  /** `kafka/main:dc-a>dc-b`. */
  link: string;
  from: DcId;
  to: DcId;
  source: KafkaAddress;
  target: KafkaAddress;
  /** Topics of the source by name, with `*`. What begins with `interlock.` or `__` never is carried. */
  include: string[];
  exclude: string[];
  /** Name of a copy, with `{from}` and `{topic}`; `{from}.{topic}` where it is not said. */
  naming?: string;
  throttle?: Throttle;
  /** What to do when the source has removed records before they were copied: stop, or go on behind the gap. */
  onGap: 'stop' | 'go-on';
}
