import mysql from 'mysql2/promise';
import type { Pool } from 'mysql2/promise';
import { InterlockError } from '../errors.js';
import type { DcId } from '../routing/units.js';
import type { MysqlStore, SecretReference, Topology } from '../topology/schema.js';
import { mysqlAddress, mysqlConnectionOptions } from '../topology/mysql-address.js';
import { redisAddress } from '../topology/redis-address.js';
import { FenceStore } from './fence-store.js';
import { openRedis } from './redis-client.js';
import { RedisFence } from './redis-fence.js';
import { RulesStore } from './rules-store.js';
import type { UnitFence } from './unit-fence.js';

/** Gives the value of a secret reference; `resolveSecret` of src/topology/load.ts is one. */
export type Secrets = (reference: SecretReference) => string;

const CONNECTIONS = 6;
const CONNECT_TIMEOUT_MS = 3_000;

/** The stores of one DC in which units are fenced, connected on first use. */
export interface DcStores {
  dc: DcId;
  /** The MySQL stores, by their name in the topology. */
  fences: ReadonlyMap<string, FenceStore>;
  pools: ReadonlyMap<string, Pool>;
  /** The Redis stores, by name. */
  redis: ReadonlyMap<string, RedisFence>;
  /** The unit states of every store, `control` first. */
  all: readonly UnitFence[];
  /** The store that holds the rules; one of `fences`. */
  control: FenceStore;
  rules: RulesStore;
  /** The fence of a MySQL store. Errors: BadInput when the DC has no such store. */
  fence(store: string): FenceStore;
  close(): Promise<void>;
}

/** Clients of every store of a DC, for Interlock's own account. Nothing is connected yet. Errors: BadInput (DC, secret). */
export function openStores(topology: Topology, dc: DcId, secrets: Secrets): DcStores {
  const datacenter = Object.hasOwn(topology.datacenters, dc) ? topology.datacenters[dc] : undefined;
  if (datacenter === undefined) {
    throw new InterlockError(
      'BadInput',
      `data center ${JSON.stringify(dc)} is not in topology ${topology.name}`,
    );
  }
  const pools = new Map<string, Pool>();
  const fences = new Map<string, FenceStore>();
  let control: FenceStore | undefined;
  for (const [store, settings] of Object.entries(datacenter.stores.mysql)) {
    const pool = openPool(settings, secrets);
    const fence = new FenceStore({ dc, store, pool, flavour: settings.flavour });
    pools.set(store, pool);
    fences.set(store, fence);
    if (settings.control) control = fence;
  }
  if (control === undefined) {
    throw new InterlockError(
      'BadInput',
      `datacenters.${dc}.stores.mysql: one store must have \`control: true\``,
    );
  }
  const redis = openRedisFences(topology, dc, secrets);
  const others = [...fences.values()].filter((fence) => fence !== control);
  return {
    ...{ dc, fences, pools, redis, control },
    all: [control, ...others, ...redis.values()],
    rules: new RulesStore(control.name, control.pool, control.flavour),
    fence: (store) => {
      const fence = fences.get(store);
      if (fence === undefined)
        throw new InterlockError('BadInput', `${dc} has no MySQL store ${JSON.stringify(store)}`);
      return fence;
    },
    close: async () => {
      for (const { client } of redis.values()) client.disconnect();
      await Promise.allSettled([...pools.values()].map((pool) => pool.end()));
    },
  };
}

/** The Redis stores of a DC, by name. Nothing is connected yet. */
export function openRedisFences(topology: Topology, dc: DcId, secrets: Secrets): Map<string, RedisFence> {
  return new Map(
    Object.entries(topology.datacenters[dc]!.stores.redis).map(([store, settings]) => [
      store,
      new RedisFence(dc, store, openRedis(redisAddress(settings, secrets), 'interlock')),
    ]),
  );
}

/** A pool for Interlock's own account of one store. */
export function openPool(store: MysqlStore, secrets: Secrets): Pool {
  return mysql.createPool({
    ...mysqlConnectionOptions(mysqlAddress(store, secrets)),
    connectionLimit: CONNECTIONS,
    connectTimeout: CONNECT_TIMEOUT_MS,
    charset: 'utf8mb4',
    timezone: 'Z',
    // A fence sends its statements in two messages. Every value passes `format`.
    multipleStatements: true,
    // A connection that idles must not be closed before a fence needs it.
    idleTimeout: 24 * 3_600_000,
  });
}

/** The stores of every DC of a topology, by DC. */
export function openAllStores(topology: Topology, secrets: Secrets): Map<DcId, DcStores> {
  return new Map(Object.keys(topology.datacenters).map((dc) => [dc, openStores(topology, dc, secrets)]));
}
