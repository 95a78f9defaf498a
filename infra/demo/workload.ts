import type { LabWorkload } from '../lab/options.js';
import { SHOP_KEYS } from './service/visits.js';
import {
  COUPON_CENTRAL,
  EVENTS,
  EVENT_PARTITIONS,
  SHOP_APPLICATION,
  SHOP_DDL,
  SHOP_OUTBOXES,
  SHOP_SCHEMA,
  shopTables,
} from './schema.sql.js';

/** Instances of the shop in each DC. */
export const INSTANCES = 2;

/** The shop as the lab runs it: its schema in both DCs before the links start, two instances per DC, its sections of the topology. */
export const SHOP_WORKLOAD: LabWorkload = {
  schemas: [SHOP_SCHEMA],
  ddl: [...SHOP_DDL],
  instances: { shop: { count: INSTANCES, script: 'infra/demo/service/main.js' } },
  applications: { shop: SHOP_APPLICATION },
  keys: SHOP_KEYS,
  tables: shopTables(),
  central: { [COUPON_CENTRAL]: { home: 'dc-a' } },
  segments: {},
  include: [`${SHOP_SCHEMA}.*`],
  topics: Object.fromEntries(Object.values(EVENTS).map(({ topic }) => [topic, EVENT_PARTITIONS])),
  outboxes: [...SHOP_OUTBOXES],
};
