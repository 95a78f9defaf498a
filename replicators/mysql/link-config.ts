import type { DcId } from '../../src/routing/units.js';
import type { ConflictPolicy, TableRouting } from '../../src/topology/schema.js';
import type { Throttle } from '../core/pace.js';
import type { CarriedConfig } from './carried.js';
import type { Mapping } from './row-units.js';
import type { ServerAddress } from './session.js';

/** All that a link's thread needs; plain data, passwords resolved. */
export interface LinkConfig extends CarriedConfig {
  /** `mysql/main:dc-a>dc-b`. */
  link: string;
  from: DcId;
  to: DcId;
  source: ServerAddress;
  target: ServerAddress;
  /** How much is applied at most; what is more waits at the source. */
  throttle?: Throttle;
  tables: Record<string, TableRouting>;
  mapping: Mapping;
  /** By `schema.table`; see the topology. */
  conflicts: Record<string, ConflictPolicy>;
  onQuarantine: 'stop' | 'go-on';
  /** Of rows that are equally late, the source's stays. */
  winsTies: boolean;
  /** So long the target may take for a statement before it is given up for the first time; default: a minute. */
  answerMs?: number;
}
