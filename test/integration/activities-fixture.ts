import { ApplicationFailure } from '@temporalio/common';
import { MockActivityEnvironment } from '@temporalio/testing';
import { DefaultLogger } from '@temporalio/worker';
import { expect } from 'vitest';
import { CONTROL_TABLES } from '../../src/fence/control-schema.js';
import mysql from 'mysql2/promise';
import type { Connection } from 'mysql2/promise';
import type { LinkStatus } from '../../replicators/core/contract.js';
import { MarkerArrivals } from '../../replicators/core/marker-arrivals.js';
import { createControlActivities } from '../../activities/control.js';
import { createDatacenterActivities } from '../../activities/datacenter.js';
import type { ControlDeps, RuleCenter } from '../../activities/dependencies.js';
import { InterlockError } from '../../src/errors.js';
import { openAllStores } from '../../src/fence/connect.js';
import type { DcStores } from '../../src/fence/connect.js';
import { initialise } from '../../src/fence/init.js';
import { silentLogger } from '../../src/observability/logger.js';
import type { Holder, Rules } from '../../src/routing/rules.js';
import { Router, withAssignments } from '../../src/routing/rules.js';
import type { DcId, UnitId } from '../../src/routing/units.js';
import { initialRules } from '../../src/topology/derive.js';
import { validateTopology } from '../../src/topology/load.js';
import type { Topology } from '../../src/topology/schema.js';
import type { ControlActivities, DatacenterActivities, StepInput } from '../../workflows/contract.js';
import { startTestMysql } from '../support/mysql.js';
import type { TestMysql } from '../support/mysql.js';

/** A rule center that keeps what it is told in memory, and can be down. */
export class FakeRuleCenter implements RuleCenter {
  down = false;
  /** Answers never come while this is set. */
  silent = false;
  current: Rules | undefined;
  readonly published: number[] = [];

  constructor(readonly dc: DcId) {}

  async publish(rules: Rules, { signal }: { signal?: AbortSignal } = {}) {
    await this.reach(signal);
    this.published.push(rules.epoch);
    if (this.current === undefined || rules.epoch > this.current.epoch) this.current = rules;
    return [{ dc: this.dc, gateway: 'g1', epoch: rules.epoch, ok: true, detail: '' }];
  }

  async gateways(signal?: AbortSignal) {
    await this.reach(signal);
    const counts = { held: 0, heldTotal: 3, refusedTotal: 2, failedTotal: 1, forwardedTotal: 0 };
    const epoch = this.current?.epoch ?? null;
    return [
      { gateway: 'g1', epoch, hash: null, ok: true, detail: '', ...counts, unavailableMs: 7, requests: {} },
    ];
  }

  async instances(signal?: AbortSignal) {
    await this.reach(signal);
    return [];
  }

  async owns(of: UnitId | { userId: string }) {
    const unit = typeof of === 'string' ? of : of.userId;
    const assignment = new Router(this.current!).assignmentOf(unit)!;
    const { owner, state } = assignment;
    return { owns: owner === this.dc && state === 'open', unit, owner, state, epoch: this.current!.epoch };
  }

  async health(): Promise<never> {
    throw new Error('not asked');
  }

  private async reach(signal?: AbortSignal): Promise<void> {
    if (this.down)
      throw new InterlockError('Unavailable', `rule center of ${this.dc} is down`, { retryable: true });
    if (this.silent) {
      await new Promise((_resolve, reject) =>
        signal?.addEventListener('abort', () => reject(signal.reason as Error)),
      );
    }
  }
}

export interface ActivitiesFixture {
  /** Of the workers of both DCs. */
  markers: MarkerArrivals;
  topology: Topology;
  servers: Record<DcId, TestMysql>;
  stores: Map<DcId, DcStores>;
  ruleCenters: Map<DcId, FakeRuleCenter>;
  links: Map<string, LinkStatus>;
  closedRuns: Set<string>;
  dc: Record<DcId, DatacenterActivities>;
  control: ControlActivities;
  /** A client that holds a unit's row, as a fenced transaction does, and does nothing more. */
  pausedClient: (dc: DcId, unit: UnitId) => Promise<Connection>;
  /** Deletes all and initialises again. */
  reset: () => Promise<void>;
  stop: () => Promise<void>;
}

const QUIET = new DefaultLogger('ERROR', () => undefined);

/** Runs an activity as a worker does. */
export async function run<A extends unknown[], R>(
  activity: (...args: A) => Promise<R>,
  ...args: A
): Promise<R> {
  return new MockActivityEnvironment(undefined, { logger: QUIET }).run<A, R, typeof activity>(
    activity,
    ...args,
  );
}

/** The ApplicationFailure of a promise that must fail with this type. */
export async function failure(promise: Promise<unknown>, type: string): Promise<ApplicationFailure> {
  const error = await promise.then(
    () => undefined,
    (e: unknown) => e,
  );
  expect(error).toBeInstanceOf(ApplicationFailure);
  expect((error as ApplicationFailure).type).toBe(type);
  return error as ApplicationFailure;
}

export const RUN: Holder = { workflowId: 'switchover/test', runId: 'run-1' };

/** Two servers, each store `main` of a DC, and the Redis `cache` that is given; the rule centers and links are fakes. */
export async function startActivities(
  flavour: 'mysql' | 'mariadb',
  redis?: Record<DcId, { port: number }>,
): Promise<ActivitiesFixture> {
  const [a, b] = await Promise.all([
    startTestMysql(flavour, { offset: 1 }),
    startTestMysql(flavour, { offset: 2 }),
  ]);
  const servers: Record<DcId, TestMysql> = { 'dc-a': a, 'dc-b': b };
  process.env['INTERLOCK_TEST_PASSWORD'] = a.password;
  const secret = { env: 'INTERLOCK_TEST_PASSWORD' };
  let port = 1;
  const nobody = () => `http://127.0.0.1:${port++}`;
  const datacenter = (dc: DcId) => ({
    domain: `${dc}.test`,
    taskQueue: dc,
    ruleCenter: { url: nobody(), token: secret },
    gateways: { g1: { url: nobody(), admin: nobody(), token: secret } },
    stores: {
      mysql: {
        main: {
          host: '127.0.0.1',
          port: servers[dc]!.port,
          user: 'root',
          password: secret,
          flavour,
          control: true,
        },
      },
      ...(redis !== undefined && { redis: { cache: { host: '127.0.0.1', port: redis[dc]!.port } } }),
    },
    applications: {},
  });
  const topology = validateTopology({
    version: 1,
    name: 'test',
    temporal: { address: '127.0.0.1:9' },
    defaultRegion: 'cn-east',
    datacenters: { 'dc-a': datacenter('dc-a'), 'dc-b': datacenter('dc-b') },
    regions: { 'cn-east': { home: 'dc-a' }, 'cn-west': { home: 'dc-b' } },
    tables: { 'app.entry': { userId: 'user_id' } },
    links: [
      { store: 'mysql/main', include: ['app.*'] },
      ...(redis === undefined ? [] : [{ store: 'redis/cache' }]),
    ],
  });
  const stores = openAllStores(topology, () => a.password);
  const ruleCenters = new Map(Object.keys(topology.datacenters).map((dc) => [dc, new FakeRuleCenter(dc)]));
  const links = new Map<string, LinkStatus>();
  const closedRuns = new Set<string>();
  const paused: Connection[] = [];
  const markers = new MarkerArrivals();
  const shared: ControlDeps = {
    topology,
    stores,
    kafka: new Map(),
    ruleCenters,
    readLinkStatus: async (link) => links.get(link),
    isClosed: async (holder) => closedRuns.has(holder.runId),
    log: silentLogger(),
  };
  const fixture: ActivitiesFixture = {
    topology,
    servers,
    stores,
    ruleCenters,
    links,
    closedRuns,
    markers,
    dc: Object.fromEntries(
      Object.keys(topology.datacenters).map((dc) => [
        dc,
        createDatacenterActivities({ ...shared, dc, markers }),
      ]),
    ),
    control: createControlActivities(shared),
    pausedClient: async (dc, unit) => {
      const { host, port, user, password } = servers[dc]!;
      const client = await mysql.createConnection({ host, port, user, password });
      client.on('error', () => undefined);
      paused.push(client);
      await client.query('START TRANSACTION');
      await client.query('SELECT state FROM interlock.unit_state WHERE unit = ? LOCK IN SHARE MODE', [unit]);
      return client;
    },
    reset: async () => {
      for (const client of paused.splice(0)) client.destroy();
      for (const one of stores.values()) {
        for (const table of Object.keys(CONTROL_TABLES)) {
          await one.control.pool.query(`DELETE FROM interlock.${table}`).catch(() => undefined);
        }
      }
      for (const ruleCenter of ruleCenters.values()) {
        Object.assign(ruleCenter, {
          down: false,
          silent: false,
          deaf: false,
          current: initialRules(topology),
        });
        ruleCenter.published.length = 0;
      }
      closedRuns.clear();
      links.clear();
      for (const link of ['mysql/main:dc-a>dc-b', 'mysql/main:dc-b>dc-a']) links.set(link, streaming(link));
      await initialise(stores, initialRules(topology), () => undefined);
    },
    stop: async () => {
      for (const client of paused.splice(0)) client.destroy();
      await Promise.all([...stores.values()].map((one) => one.close()));
      await Promise.all([a.stop(), b.stop()]);
    },
  };
  for (const server of [a, b]) {
    const pool = server.pool();
    await pool.query('CREATE DATABASE app');
    await pool.query(
      'CREATE TABLE app.entry (id BIGINT AUTO_INCREMENT PRIMARY KEY, user_id VARCHAR(64)) ENGINE=InnoDB',
    );
  }
  return fixture;
}

export function streaming(link: string): LinkStatus {
  return {
    link,
    state: 'streaming',
    generation: 1,
    position: '',
    sourcePosition: '',
    lagMs: 0,
    lagBytes: 0,
    rows: 0,
    transactions: 0,
    rowsPerSecond: 0,
    transactionsPerSecond: 0,
    rowsRead: 0,
    transactionsRead: 0,
    rowsReadPerSecond: 0,
    transactionsReadPerSecond: 0,
    checkpointAgeMs: 0,
    stalledMs: 0,
    binlog: null,
    droppedForeign: 0,
    conflicts: 0,
    quarantined: 0,
    conflictsRecorded: 0,
    lastMarker: null,
    copy: null,
    lastError: null,
    updatedAt: new Date().toISOString(),
  };
}

/** The input of a step that moves `units` from dc-a to dc-b. */
export function step(
  base: Rules,
  units: UnitId[],
  epoch: number,
  as: { owner: DcId; state: 'open' | 'write_disabled' },
  holder: Holder = RUN,
): StepInput {
  const rules = withAssignments(base, new Map(units.map((unit) => [unit, as])), {
    epoch,
    reason: 'test',
    holder: as.state === 'open' ? null : holder,
  });
  return {
    from: 'dc-a',
    to: 'dc-b',
    units,
    epoch,
    holder,
    rules,
    fenceBudgetMs: 1_000,
    blockers: 'kill',
  };
}
