import type { QueryResult } from 'mysql2';
import type { FencedMysql, Interlock } from '../../../src/sdk/index.js';
import { COUPON_UNIT } from '../schema.sql.js';
import type { Outboxes } from './events.js';
import type { ShopDatabase, ShopKey, ShopTransaction } from './database.js';

/** Deadlock victims were rolled back as a whole, and the shop's callbacks do nothing but their statements. */
const RETRIES = 4;

/** The shop's database on the SDK: every write in a fenced transaction, reads beside it. */
export class SdkShopDatabase implements ShopDatabase {
  constructor(
    private readonly interlock: Interlock,
    private readonly mysql: FencedMysql,
    private readonly outboxes?: Outboxes,
  ) {}

  unitOf(key: ShopKey): string {
    if ('central' in key) return COUPON_UNIT;
    const unit = this.interlock.rules.current()?.unitOf(key);
    if (unit === undefined) throw new ShopUnitUnknown(key.region);
    return unit;
  }

  ownsUnit(unit: string): boolean {
    return this.interlock.rules.current()?.assignmentOf(unit)?.owner === this.interlock.dc;
  }

  transaction<T>(key: ShopKey, work: (tx: ShopTransaction) => Promise<T>): Promise<T> {
    const { outboxes } = this;
    return this.mysql.transaction(
      key,
      (tx) =>
        work({
          epoch: tx.epoch,
          query: async <R>(sql: string, values?: unknown[]) =>
            (await tx.query<QueryResult>(sql, values))[0] as R,
          ...(outboxes && { emit: (kind, event) => outboxes[kind].add(tx, event) }),
        }),
      { retries: RETRIES },
    );
  }

  async read<T>(sql: string, values?: unknown[]): Promise<T> {
    return (await this.mysql.query<QueryResult>(sql, values))[0] as T;
  }
}

/** The region is not routed, or no rules are known yet. */
class ShopUnitUnknown extends Error {
  readonly statusCode = 422;

  constructor(region: string) {
    super(`region ${JSON.stringify(region)} is not routed`);
    this.name = 'ShopUnitUnknown';
  }
}
