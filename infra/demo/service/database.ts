import type { NewEvent } from '../../../src/sdk/index.js';
import type { EventKind } from '../schema.sql.js';

/** What the shop needs of its database: fenced transactions and reads. Implemented on the SDK in `sdk-database.ts`. */
export type ShopKey = { userId: string; region: string } | { central: string };

export interface ShopTransaction {
  /** Epoch under which the transaction's units are owned; every row stores it. */
  readonly epoch: number;
  query<T = unknown>(sql: string, values?: unknown[]): Promise<T>;
  /** Writes an event that is sent when the transaction commits; undefined where there is no Kafka. */
  emit?: (kind: EventKind, event: NewEvent) => Promise<void>;
}

export interface ShopDatabase {
  /** The unit of a key, as the rules in force say. */
  unitOf(key: ShopKey): string;
  /** True when this DC may write the unit, as far as is known here; the transaction decides. */
  ownsUnit(unit: string): boolean;
  /** Runs `work` in one transaction in which `key`'s unit is locked against a fence. Throws InterlockError. */
  transaction<T>(key: ShopKey, work: (tx: ShopTransaction) => Promise<T>): Promise<T>;
  read<T = unknown>(sql: string, values?: unknown[]): Promise<T>;
}
