import type { KeyRouting } from '../../src/routing/redis-keys.js';
import type { DcId } from '../../src/routing/units.js';
import type { RedisAddress } from '../../src/topology/redis-address.js';
import type { Throttle } from '../core/pace.js';

/** Which commands are carried. A list that is absent, or empty, is no filter; what is excluded wins. */
export interface RedisFilters {
  /** Patterns of keys, as in KEYS: `session:*`. */
  includeKeys?: string[];
  excludeKeys?: string[];
  includeDatabases?: number[];
  excludeDatabases?: number[];
  /** Names of commands: `publish`. */
  includeCommands?: string[];
  excludeCommands?: string[];
}

/** How a user is mapped to a unit, without owners. */
export interface UserMapping {
  defaultRegion: string;
  regions: string[];
  segments: Record<string, string[]>;
}

/** A write to a unit that the source does not own: left out; applied; kept aside. Each is counted. */
export type RedisConflictPolicy = 'owner-wins' | 'source-wins' | 'quarantine';

/** A key that no pattern gives a unit: carried; carried but for deletions, as one that is declared to be nobody's. */
export type UnmappedPolicy = 'apply' | 'ignore-deletes';

/** All that a link's thread needs; plain data, passwords resolved. */
export interface RedisLinkConfig {
  /** `redis/cache:dc-a>dc-b`. */
  link: string;
  from: DcId;
  to: DcId;
  source: RedisAddress;
  target: RedisAddress;
  filters: RedisFilters;
  /** Whose a key is: the topology's `keys`. Without any, keys have no units. */
  keys: KeyRouting[];
  mapping: UserMapping;
  /** Keys that would live shorter are left out; 0: none. */
  minTtlMs: number;
  conflicts: RedisConflictPolicy;
  unmapped: UnmappedPolicy;
  /** When a command is refused by the target, or must not be carried (FLUSHALL): the link stops, or puts it aside and goes on. */
  onQuarantine: 'stop' | 'go-on';
  /** When the source no longer has what comes behind the checkpoint: the link stops, or copies all again. */
  onGap: 'stop' | 'resync';
  /** `maxRowsPerSecond` counts commands. */
  throttle?: Throttle;
  /** How much may wait on the worker's disk while the target takes the copy; beyond that the source's own limits count. */
  spoolBytes: number;
}

/** What a topology that says nothing gets. */
export const REDIS_LINK_DEFAULTS = {
  filters: {},
  keys: [],
  minTtlMs: 3000,
  conflicts: 'owner-wins',
  unmapped: 'apply',
  onQuarantine: 'stop',
  onGap: 'stop',
  spoolBytes: 16 * 1024 ** 3,
} as const satisfies Partial<RedisLinkConfig>;
