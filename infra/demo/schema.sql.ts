import { outboxTable } from '../../src/sdk/index.js';

/**
 * The tables of the demo's application, a small shop: coupons from a central inventory, wallets owned by user.
 *
 * Every row stores who wrote it last: `request_id`, `dc`, `unit` and the `epoch` of the fenced transaction, so that a checker can
 * hold each row against the ownership in the same binlog. Ledgers (`coupon_deduction`, `wallet_entry`) have auto-increment keys and
 * no unique request id on purpose: a request that was carried out twice must show up as two rows and not be hidden by a key. Keys of
 * the two DCs cannot collide (auto_increment_increment 2, offsets 1 and 2). What keeps a request from being carried out
 * twice is `coupon_request` and `wallet_request`, written first in the same transaction.
 */
export const SHOP_SCHEMA = 'shop';

/** A coupon or wallet that is not there yet counts as having this. */
export const OPENING_STOCK = 1_000_000_000;
export const OPENING_BALANCE = 1_000_000;

/** The unit of the central inventory. */
export const COUPON_UNIT = 'central:coupon-inventory';
export const COUPON_CENTRAL = 'coupon-inventory';

const ID = 'VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL';
const NAME = 'VARCHAR(63) CHARACTER SET ascii COLLATE ascii_bin NOT NULL';
const WRITTEN_BY = `
    request_id ${ID},
    dc ${NAME},
    unit VARCHAR(128) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    epoch BIGINT UNSIGNED NOT NULL,
    written_at DATETIME(6) NOT NULL`;

export interface ShopTable {
  name: string;
  primaryKey: readonly string[];
  /** As in the topology's `tables`. */
  routing: { userId: string; region: string } | { central: string };
  create: string;
}

/** The shop's events by kind: each change of a wallet, or of a coupon, has its number. */
export const EVENTS = {
  wallet: { topic: 'wallets', outbox: 'wallet_events', columns: ['region', 'user_id'] },
  coupon: { topic: 'coupons', outbox: 'coupon_events', columns: ['coupon'] },
} as const;
export type EventKind = keyof typeof EVENTS;
export const EVENT_PARTITIONS = 4;

const ROUTED = { userId: 'user_id', region: 'region' };
const CENTRAL = { central: COUPON_CENTRAL };

export const SHOP_TABLES: readonly ShopTable[] = [
  {
    name: 'coupon_inventory',
    primaryKey: ['coupon'],
    routing: CENTRAL,
    create: `CREATE TABLE IF NOT EXISTS shop.coupon_inventory (
    coupon ${ID} PRIMARY KEY,
    remaining BIGINT NOT NULL,${WRITTEN_BY}
  ) ENGINE=InnoDB`,
  },
  {
    name: 'coupon_request',
    primaryKey: ['request_id'],
    routing: CENTRAL,
    create: `CREATE TABLE IF NOT EXISTS shop.coupon_request (${WRITTEN_BY},
    PRIMARY KEY (request_id)
  ) ENGINE=InnoDB`,
  },
  {
    name: 'coupon_deduction',
    primaryKey: ['id'],
    routing: CENTRAL,
    create: `CREATE TABLE IF NOT EXISTS shop.coupon_deduction (
    id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
    coupon ${ID},
    user_id ${ID},
    quantity INT NOT NULL,${WRITTEN_BY},
    KEY (request_id)
  ) ENGINE=InnoDB`,
  },
  {
    name: 'wallet',
    primaryKey: ['region', 'user_id'],
    routing: ROUTED,
    create: `CREATE TABLE IF NOT EXISTS shop.wallet (
    region ${NAME},
    user_id ${ID},
    balance BIGINT NOT NULL,${WRITTEN_BY},
    PRIMARY KEY (region, user_id)
  ) ENGINE=InnoDB`,
  },
  {
    name: 'wallet_request',
    primaryKey: ['request_id', 'step'],
    routing: ROUTED,
    create: `CREATE TABLE IF NOT EXISTS shop.wallet_request (
    step ENUM('transfer','debit','credit') NOT NULL,
    region ${NAME},
    user_id ${ID},${WRITTEN_BY},
    PRIMARY KEY (request_id, step)
  ) ENGINE=InnoDB`,
  },
  {
    name: 'wallet_entry',
    primaryKey: ['id'],
    routing: ROUTED,
    create: `CREATE TABLE IF NOT EXISTS shop.wallet_entry (
    id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
    leg ENUM('debit','credit') NOT NULL,
    region ${NAME},
    user_id ${ID},
    amount BIGINT NOT NULL,${WRITTEN_BY},
    KEY (request_id)
  ) ENGINE=InnoDB`,
  },
  {
    // The promise of a transfer's second half, made in the transaction of the first.
    name: 'wallet_outbox',
    primaryKey: ['request_id'],
    routing: ROUTED,
    create: `CREATE TABLE IF NOT EXISTS shop.wallet_outbox (
    state ENUM('pending','done') NOT NULL,
    region ${NAME},
    user_id ${ID},
    to_region ${NAME},
    to_user_id ${ID},
    amount BIGINT NOT NULL,${WRITTEN_BY},
    PRIMARY KEY (request_id),
    KEY (state)
  ) ENGINE=InnoDB`,
  },
  ...eventTables('wallet', `\n    region ${NAME},\n    user_id ${ID},`, ROUTED),
  ...eventTables('coupon', `\n    coupon ${ID},`, CENTRAL),
];

/** `schema.table` */
export const SHOP_OUTBOXES = Object.values(EVENTS).map(({ outbox }) => `${SHOP_SCHEMA}.${outbox}`);

/**
 * What is told of events: how many were written of each key (`_emitted`), up to which they were handled (`_seen`), and each time that one
 * was (`_handled`).
 */
function eventTables(kind: EventKind, columns: string, routing: ShopTable['routing']): ShopTable[] {
  const primaryKey = EVENTS[kind].columns;
  const counts = (name: string): ShopTable => ({
    ...{ name, primaryKey, routing },
    create: `CREATE TABLE IF NOT EXISTS shop.${name} (${columns}
    seq BIGINT UNSIGNED NOT NULL,${WRITTEN_BY},
    PRIMARY KEY (${primaryKey.join(', ')})
  ) ENGINE=InnoDB`,
  });
  const handled: ShopTable = {
    name: `${kind}_handled`,
    primaryKey: ['id'],
    routing,
    create: `CREATE TABLE IF NOT EXISTS shop.${kind}_handled (
    id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,${columns}
    step ${NAME},
    seq BIGINT UNSIGNED NOT NULL,
    seq_before BIGINT UNSIGNED NOT NULL,
    redelivered TINYINT NOT NULL,${WRITTEN_BY},
    KEY (request_id)
  ) ENGINE=InnoDB`,
  };
  return [counts(`${kind}_emitted`), counts(`${kind}_seen`), handled];
}

/** Statements that make the schema; run them in both DCs before the links start. */
export const SHOP_DDL: readonly string[] = [
  'CREATE DATABASE IF NOT EXISTS shop CHARACTER SET utf8mb4',
  ...SHOP_TABLES.map((table) => table.create),
  ...SHOP_OUTBOXES.map((table) => outboxTable(table).replace('CREATE TABLE', 'CREATE TABLE IF NOT EXISTS')),
];

/** The `tables` of a topology for this schema. */
export function shopTables(): Record<string, { userId: string; region: string } | { central: string }> {
  return {
    ...Object.fromEntries(SHOP_TABLES.map((table) => [`${SHOP_SCHEMA}.${table.name}`, table.routing])),
    [`${SHOP_SCHEMA}.${EVENTS.wallet.outbox}`]: ROUTED,
    [`${SHOP_SCHEMA}.${EVENTS.coupon.outbox}`]: CENTRAL,
  };
}

/** The application entry of a topology: where the routing key of a shop request is. */
export const SHOP_APPLICATION = {
  paths: ['/'],
  routingKey: {
    userId: [{ path: '/wallets/:userId/*' }, { path: '/wallets/:userId' }, { header: 'x-user-id' }],
    region: [{ header: 'x-region' }, { query: 'region' }],
  },
  central: { '/coupons': COUPON_UNIT },
};
