import { FenceStore } from '../../src/fence/fence-store.js';
import type { UnitStateName } from '../../src/fence/types.js';
import { bucketOf } from '../../src/routing/units.js';
import { normaliseRanges } from '../../src/routing/rules.js';
import type { Rules } from '../../src/routing/rules.js';
import type mysql from 'mysql2/promise';
import type { Flavour } from '../../infra/mysql-server.js';
import { startTestMysql } from '../support/mysql.js';
import type { TestMysql } from '../support/mysql.js';

export function testRules(epoch = 1, changes: Partial<Rules> = {}): Rules {
  return {
    format: 1,
    topology: 'test',
    epoch,
    mappingVersion: 1,
    unitMappingVersions: {},
    defaultRegion: 'cn-east',
    regions: {
      'cn-east': normaliseRanges([{ from: 0, to: 999, owner: 'dc-a', state: 'open' }]),
      'cn-west': normaliseRanges([{ from: 0, to: 999, owner: 'dc-b', state: 'open' }]),
    },
    segments: {},
    central: { coupons: { owner: 'dc-a', state: 'open' } },
    holder: null,
    reason: 'test',
    ...changes,
  };
}

/** A user id of the bucket; the n-th one. */
export function userIn(bucket: number, n = 0): string {
  for (let i = 0; ; i++) {
    if (bucketOf(`u${i}`) === bucket && n-- === 0) return `u${i}`;
  }
}

export interface FencedServer {
  server: TestMysql;
  /** Root, for looking and for breaking things. */
  admin: mysql.Pool;
  fence: FenceStore;
  /** Changes one unit's state as a switchover would, at the next epoch; answers the epoch. */
  set: (unit: string, state: UnitStateName, owner?: string) => Promise<number>;
  /** A pool of an account that may do what an application may: DML on its schema, SELECT on unit_state. */
  pool: (options?: mysql.PoolOptions) => mysql.Pool;
  stop: () => Promise<void>;
}

/** A server of dc-a with the control schema, and `app.t(id, v)`. */
export async function startFencedServer(flavour: Flavour, dc = 'dc-a'): Promise<FencedServer> {
  const server = await startTestMysql(flavour);
  const admin = server.pool({ multipleStatements: true });
  const fence = new FenceStore({ dc, store: 'main', pool: admin, flavour });
  await fence.ensureSchema();
  await fence.addMissing(testRules());
  await admin.query('CREATE DATABASE app');
  await admin.query('CREATE TABLE app.t (id INT PRIMARY KEY, v BIGINT NOT NULL, epoch BIGINT NULL)');
  await admin.query(
    `CREATE USER 'app'@'127.0.0.1' IDENTIFIED ${flavour === 'mysql' ? 'WITH mysql_native_password ' : ''}BY 'app'`,
  );
  await admin.query(
    "GRANT SELECT, INSERT, UPDATE, DELETE, EXECUTE, CREATE, DROP, LOCK TABLES ON app.* TO 'app'@'127.0.0.1'",
  );
  await admin.query("GRANT SELECT ON interlock.unit_state TO 'app'@'127.0.0.1'");
  return {
    server,
    admin,
    fence,
    set: async (unit, state, owner) => {
      const epoch = (await fence.highestEpoch()) + 1;
      const change = { units: [unit], to: state, epoch, holder: { workflowId: 'test', runId: 'test' } };
      await fence.change(
        { ...change, owner: owner ?? (state === 'remote' ? (dc === 'dc-a' ? 'dc-b' : 'dc-a') : dc) },
        { budgetMs: 10_000, blockers: 'give-up' },
      );
      return epoch;
    },
    pool: (options) => server.pool({ user: 'app', password: 'app', connectionLimit: 5, ...options }),
    stop: () => server.stop(),
  };
}

/** Connections of a promise pool that are in use: a leak when it is not 0 at the end. */
export function inUse(pool: mysql.Pool): number {
  const core = (
    pool as unknown as { pool: { _allConnections: { length: number }; _freeConnections: { length: number } } }
  ).pool;
  return core._allConnections.length - core._freeConnections.length;
}
