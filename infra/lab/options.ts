import path from 'node:path';
import { InterlockError } from '../../src/errors.js';
import { interlockHome } from '../mysql-server.js';
import type { Flavour } from '../mysql-server.js';
import type { Topology } from '../../src/topology/schema.js';

/** What a lab is made of. Remembered in its state; `lab up` without flags takes what is there. */
export interface LabShape {
  mysql: Flavour;
  /** MySQL stores per DC: 1 = `main`; 2 = `main` and `orders`. */
  stores: number;
  /** Redis stores per DC: 0 = none; 1 = `cache`. */
  redis: number;
  /** Kafka stores per DC: 0 = none; 1 = `events`. */
  kafka: number;
  gatewaysPerDc: number;
  /** Round-trip time between the DCs in milliseconds; 0 = no proxy between them. */
  rttMs: number;
}

export const DEFAULT_SHAPE: LabShape = {
  ...{ mysql: 'mysql', stores: 1, redis: 1, kafka: 0 },
  ...{ gatewaysPerDc: 1, rttMs: 0 },
};

export const DATACENTERS = ['dc-a', 'dc-b'] as const;
export type LabDc = (typeof DATACENTERS)[number];
export const STORES = ['main', 'orders', 'ledger', 'stock'] as const;
export const REDIS_STORES = ['cache', 'session', 'limits', 'ranking'] as const;
export const KAFKA_STORES = ['events'] as const;

/** What runs on the lab: an application with its tables. The lab makes schemas and tables, reserves ports and declares it in the topology. */
export interface LabWorkload {
  /** Schemas to create in every store; the account `app` may read and write them. */
  schemas: string[];
  /** Executed in every store after the schemas are there, outside the binlog. Idempotent (`IF NOT EXISTS`). */
  ddl: string[];
  /**
   * Application → its instances per DC. With a `script` (a program below dist/) the lab runs them as parts, as
   * `node SCRIPT --application NAME --dc DC --instance N --port PORT --topology FILE`; without one it only reserves their ports.
   */
  instances: Record<string, { count: number; script?: string }>;
  /** Topology sections, as an operator would write them. */
  applications: Record<string, unknown>;
  tables: Topology['tables'];
  keys: Topology['keys'];
  central: Topology['central'];
  segments: Topology['segments'];
  /** Included in the links; default all. */
  include?: string[];
  /** Topic → partitions, created in every Kafka store. */
  topics?: Record<string, number>;
  /** Outbox tables of the store `main`, relayed when there is a Kafka store. */
  outboxes?: string[];
}

export const NO_WORKLOAD: LabWorkload = {
  schemas: [],
  ddl: [],
  instances: {},
  applications: {},
  tables: {},
  keys: [],
  central: {},
  segments: {},
};

/** Where a lab lives: `--state DIR`, $INTERLOCK_LAB, or `lab` under the set-up cache. */
export function labDirectory(given?: string): string {
  const directory = given ?? process.env['INTERLOCK_LAB'];
  return directory === undefined || directory === ''
    ? path.join(interlockHome(), 'lab')
    : path.resolve(directory);
}

/** Checks the numbers of a shape. @throws BadInput that names the flag */
export function checkShape(shape: LabShape): void {
  const bad = (flag: string, value: unknown, expected: string): never => {
    throw new InterlockError('BadInput', `--${flag}: expected ${expected}, got ${String(value)}`, {
      details: { field: flag },
    });
  };
  if (!['mysql', 'mariadb'].includes(shape.mysql)) bad('mysql', shape.mysql, 'mysql or mariadb');
  if (!Number.isInteger(shape.stores) || shape.stores < 1 || shape.stores > STORES.length) {
    bad('stores', shape.stores, `1 to ${STORES.length}`);
  }
  if (!Number.isInteger(shape.redis) || shape.redis < 0 || shape.redis > REDIS_STORES.length) {
    bad('redis', shape.redis, `0 to ${REDIS_STORES.length}`);
  }
  if (!Number.isInteger(shape.kafka) || shape.kafka < 0 || shape.kafka > KAFKA_STORES.length) {
    bad('kafka', shape.kafka, `0 to ${KAFKA_STORES.length}`);
  }
  if (!Number.isInteger(shape.gatewaysPerDc) || shape.gatewaysPerDc < 1 || shape.gatewaysPerDc > 8) {
    bad('gateways', shape.gatewaysPerDc, '1 to 8');
  }
  if (!Number.isFinite(shape.rttMs) || shape.rttMs < 0 || shape.rttMs > 10_000) {
    bad('rtt', shape.rttMs, 'a time from 0ms to 10s');
  }
}
