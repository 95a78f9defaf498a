import type { Connection, Pool, RowDataPacket } from 'mysql2/promise';
import mysql from 'mysql2/promise';
import { FenceStore } from '../../src/fence/fence-store.js';
import { RulesStore } from '../../src/fence/rules-store.js';
import type { UnitChange } from '../../src/fence/types.js';
import type { Holder, Rules } from '../../src/routing/rules.js';
import { withAssignments } from '../../src/routing/rules.js';
import type { UnitId } from '../../src/routing/units.js';
import { startTestMysql } from '../support/mysql.js';
import type { TestMysql } from '../support/mysql.js';

export const RUN_1: Holder = { workflowId: 'switchover/test', runId: 'run-1' };
export const RUN_2: Holder = { workflowId: 'switchover/test', runId: 'run-2' };

/** Rules of two regions at epoch 1: `cn-east` is dc-a's, `cn-west` dc-b's. */
export function testRules(): Rules {
  return {
    format: 1,
    topology: 'test',
    epoch: 1,
    mappingVersion: 1,
    unitMappingVersions: {},
    defaultRegion: 'cn-east',
    regions: {
      'cn-east': [{ from: 0, to: 999, owner: 'dc-a', state: 'open' }],
      'cn-west': [{ from: 0, to: 999, owner: 'dc-b', state: 'open' }],
    },
    segments: { vip: { owner: 'dc-a', state: 'open', members: ['u1'] } },
    central: {},
    holder: null,
    reason: 'test',
  };
}

/** The same rules at another epoch. */
export function rulesAt(epoch: number, reason = 'test'): Rules {
  return withAssignments(testRules(), new Map(), { epoch, reason, holder: null });
}

export function buckets(count: number, from = 0, region = 'cn-east'): UnitId[] {
  return Array.from({ length: count }, (_, i) => `${region}/${from + i}`);
}

export interface FenceFixture {
  server: TestMysql;
  pool: Pool;
  fence: FenceStore;
  rules: RulesStore;
  /** A new connection of an application; ended by `stop`. */
  connect: () => Promise<Connection>;
  /** Locks a unit as a fenced transaction does, in an open transaction; its state, or the errno of the conflict. */
  lockShared: (connection: Connection, unit: UnitId) => Promise<string | number>;
  reset: () => Promise<void>;
  stop: () => Promise<void>;
}

/** One server that plays store `main` of `dc`. */
export async function startFence(flavour: 'mysql' | 'mariadb', dc = 'dc-a'): Promise<FenceFixture> {
  const server = await startTestMysql(flavour);
  const pool = server.pool({ connectionLimit: 10, timezone: 'Z', multipleStatements: true });
  const fence = new FenceStore({ dc, store: 'main', pool, flavour });
  const rules = new RulesStore(fence.name, pool, flavour);
  const connections: Connection[] = [];
  await fence.ensureSchema();
  await pool.query('CREATE DATABASE app');
  await pool.query(
    'CREATE TABLE app.entry (id BIGINT AUTO_INCREMENT PRIMARY KEY, unit VARCHAR(64), note VARCHAR(64)) ENGINE=InnoDB',
  );
  const share = flavour === 'mysql' ? 'FOR SHARE NOWAIT' : 'LOCK IN SHARE MODE NOWAIT';
  return {
    server,
    pool,
    fence,
    rules,
    connect: async () => {
      const connection = await mysql.createConnection({
        host: server.host,
        port: server.port,
        user: server.user,
        password: server.password,
      });
      connection.on('error', () => undefined);
      connections.push(connection);
      return connection;
    },
    lockShared: async (connection, unit) => {
      try {
        const [rows] = await connection.query<RowDataPacket[]>(
          `SELECT state FROM interlock.unit_state WHERE unit = ? ${share}`,
          [unit],
        );
        return String(rows[0]?.['state']);
      } catch (error) {
        return (error as { errno: number }).errno;
      }
    },
    reset: async () => {
      for (const connection of connections.splice(0)) connection.destroy();
      await pool.query('DELETE FROM interlock.unit_state');
      await pool.query('DELETE FROM interlock.marker');
      await pool.query('DELETE FROM interlock.rules');
      await pool.query('DELETE FROM app.entry');
      await rules.publish(testRules());
      await fence.addMissing(testRules());
    },
    stop: async () => {
      for (const connection of connections.splice(0)) connection.destroy();
      await server.stop();
    },
  };
}

export function fenceChange(
  units: UnitId[],
  epoch: number,
  holder = RUN_1,
  more: Partial<UnitChange> = {},
): UnitChange {
  return { units, to: 'write_disabled', owner: 'dc-a', epoch, holder, ...more };
}

export function openChange(
  units: UnitId[],
  epoch: number,
  holder = RUN_1,
  more: Partial<UnitChange> = {},
): UnitChange {
  return { units, to: 'open', owner: 'dc-a', epoch, holder, ...more };
}

export function remoteChange(
  units: UnitId[],
  epoch: number,
  holder = RUN_1,
  more: Partial<UnitChange> = {},
): UnitChange {
  return { units, to: 'remote', owner: 'dc-b', epoch, holder, ...more };
}
