import { existsSync, statSync } from 'node:fs';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import mysql from 'mysql2/promise';
import type { RowDataPacket } from 'mysql2/promise';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { DemoRig, rootOf } from '../../infra/demo/rig.js';
import { labDown, labKill, labStart } from '../../infra/lab/lab.js';
import { LabFiles } from '../../infra/lab/state.js';
import { isAlive, readPidFile } from '../../infra/processes.js';
import type { SwitchReport, SwitchStatus } from '../../workflows/contract.js';

/**
 * Parts are killed at named points of a switchover under load; afterwards they are started again. Every switchover ends done or
 * compensated, and the checker finds nothing. One lab for all cases; the moved buckets go there and back.
 */
const MOVED = 'cn-east/0-99';
const OTHER: Record<string, string> = { 'dc-a': 'dc-b', 'dc-b': 'dc-a' };

describe('parts die during a switchover under load', () => {
  let root: string;
  let stops: string;
  let rig: DemoRig;
  let owner = 'dc-a';

  beforeAll(async () => {
    root = await mkdtemp(path.join(tmpdir(), 'interlock-fault-'));
    stops = path.join(root, 'stops');
    await mkdir(stops);
    process.env['INTERLOCK_STOP_DIR'] = stops;
    rig = await DemoRig.up({ directory: path.join(root, 'lab'), rate: 20 });
  }, 180_000);
  afterAll(async () => {
    delete process.env['INTERLOCK_STOP_DIR'];
    await rig?.down();
    await rm(root, { recursive: true, force: true });
  }, 60_000);

  const directory = (): string => rig.options.directory;
  const reached = (point: string): Promise<void> =>
    expect
      .poll(() => existsSync(path.join(stops, `${point}.reached`)), { timeout: 90_000, interval: 5 })
      .toBe(true);
  const disarm = async (point: string): Promise<void> => {
    await rm(path.join(stops, point), { force: true });
    await rm(path.join(stops, `${point}.reached`), { force: true });
  };
  const start = (more: string[] = []): Promise<SwitchStatus> => {
    const args = ['switch', 'start', '--scope', MOVED, '--from', owner, '--to', OTHER[owner]!];
    return rig
      .cli<SwitchStatus>([...args, '--reason', 'fault test', ...more], [0, 1, 3])
      .then(({ document }) => document);
  };
  /** Ends the soak, sees how the switchover ended, and checks every write so far. */
  const conclude = async (status: SwitchStatus): Promise<SwitchReport> => {
    if (status.awaiting === 'rollback-or-finish') await rig.finish();
    const { document: report } = await rig.cli<SwitchReport>(['switch', 'report', status.runId]);
    expect(['done', 'compensated'], report.summary).toContain(report.outcome);
    if (report.outcome === 'done') owner = OTHER[owner]!;
    const { report: check } = await rig.check();
    expect(check.findings).toEqual([]);
    expect(check.ackedWrites).toBeGreaterThan(0);
    return report;
  };

  /** The Redis of a data center was killed: its history is another now, and an operator has all of it copied again. */
  const copiedAgain = async (dc: string): Promise<void> => {
    const link = `redis/cache:${dc}>${OTHER[dc]!}`;
    const next = async (): Promise<string | null> =>
      (await rig.cli<{ links: { next: string | null }[] }>(['replicate', 'status', link], [0, 3])).document
        .links[0]!.next;
    await expect.poll(next, { timeout: 90_000 }).toBe(`interlock replicate resync ${link}`);
    await rig.cli(['replicate', 'resync', link]);
  };

  // {source} and {target} stand for the data centers of the case.
  const FENCED = ['after-writeDisable', 'before-switchWhenDrained'];
  const SWITCHED = ['after-switchWhenDrained'];
  // The target's rows are locked, and what the source said of its fence is known; they are committed, and nobody knows.
  const COMMITTING = ['before-quickSwitchCommit'];
  const COMMITTED = ['after-quickSwitchCommit'];
  test.each<{ points: string[]; kill: string; outcome?: 'done' }>([
    { points: FENCED, kill: '{source}-worker' },
    { points: FENCED, kill: '{source}-rule-center' },
    { points: FENCED, kill: '{source}-gateway-1' },
    { points: FENCED, kill: '{source}-mysql-main' },
    { points: FENCED, kill: '{target}-worker' },
    { points: FENCED, kill: '{target}-mysql-main' },
    { points: FENCED, kill: '{source}-redis-cache' },
    { points: FENCED, kill: '{target}-redis-cache' },
    { points: COMMITTING, kill: '{source}-worker' },
    { points: COMMITTING, kill: '{source}-mysql-main' },
    { points: COMMITTING, kill: '{target}-worker' },
    { points: COMMITTING, kill: '{target}-mysql-main' },
    { points: COMMITTED, kill: '{source}-worker', outcome: 'done' },
    { points: COMMITTED, kill: '{source}-mysql-main', outcome: 'done' },
    { points: COMMITTED, kill: '{target}-worker', outcome: 'done' },
    { points: COMMITTED, kill: '{target}-mysql-main', outcome: 'done' },
    { points: SWITCHED, kill: '{target}-worker', outcome: 'done' },
    { points: SWITCHED, kill: '{target}-rule-center', outcome: 'done' },
    { points: SWITCHED, kill: '{target}-gateway-1', outcome: 'done' },
    { points: SWITCHED, kill: '{target}-mysql-main', outcome: 'done' },
    { points: SWITCHED, kill: '{source}-mysql-main', outcome: 'done' },
    { points: SWITCHED, kill: '{source}-redis-cache', outcome: 'done' },
    { points: SWITCHED, kill: '{target}-redis-cache', outcome: 'done' },
  ])('kill -9 of $kill at $points', async ({ points, kill, outcome }) => {
    const part = kill.replace('{source}', owner).replace('{target}', OTHER[owner]!);
    await rig.load.start();
    for (const point of points) await writeFile(path.join(stops, point), '');
    const switching = start();
    switching.catch(() => undefined);
    try {
      for (const point of points) await reached(point);
      // The target has switched by itself, and nobody was asked to; or it has not, and the source is fenced.
      const isOpen = points === SWITCHED || points === COMMITTED;
      expect(await movedStates(OTHER[owner]!)).toEqual([isOpen ? 'open' : 'remote']);
      // Nothing is handed over before the switch is answered.
      if (points !== SWITCHED) expect(await movedStates(owner)).toEqual(['write_disabled']);
      await labKill(part, { directory: directory() });
    } finally {
      for (const point of points) await disarm(point);
    }
    await labStart(part, { directory: directory() });
    if (part.endsWith('-redis-cache')) await copiedAgain(part.replace('-redis-cache', ''));
    const report = await conclude(await switching);
    // Behind the point of no return there is one way.
    if (outcome !== undefined) expect(report.outcome).toBe(outcome);
  });

  test('SIGSTOP of an application instance with a transaction open, across the switch', async () => {
    const source = owner;
    const part = `${source}-shop-1`;
    await rig.load.start();
    await stopInTransaction(part, source);
    try {
      const status = await start(['--fence-budget', '300ms', '--blockers', 'kill']);
      await labKill(part, { directory: directory(), signal: 'SIGCONT' });
      const report = await conclude(status);
      expect(report.outcome).toBe('done');
      // It held a fence lock when it was stopped: the fence met it and killed its transaction.
      expect(report.flows.flatMap((flow) => flow.blockers).some((blocker) => blocker.killed)).toBe(true);
    } finally {
      await labKill(part, { directory: directory(), signal: 'SIGCONT' }).catch(() => undefined);
    }
  });

  test('what is kept runs on without this process, until `lab down`', async () => {
    await rig.keep();
    const size = () => statSync(rig.journal).size;
    const before = size();
    await expect.poll(size, { timeout: 30_000 }).toBeGreaterThan(before);
    const load = readPidFile(new LabFiles(directory()).pid('load'))!;
    expect(isAlive(load)).toBe(true);
    await labDown({ directory: directory() });
    expect(isAlive(load)).toBe(false);
  });

  /** The states that the moving units have in a data center. */
  async function movedStates(dc: string): Promise<string[]> {
    const root = await mysql.createConnection(rootOf(rig.topology, dc, rig.lab.env));
    try {
      const [rows] = await root.query<RowDataPacket[]>(
        "SELECT DISTINCT state FROM interlock.unit_state WHERE unit REGEXP '^cn-east/[0-9]{1,2}$'",
      );
      return rows.map((row) => String(row['state']));
    } finally {
      await root.end();
    }
  }

  /** Stops the instance at a moment at which a transaction of it holds the lock of a unit that will move. */
  async function stopInTransaction(part: string, dc: string): Promise<void> {
    const root = await mysql.createConnection(rootOf(rig.topology, dc, rig.lab.env));
    const moving = async (): Promise<number> => {
      const [rows] = await root.query<RowDataPacket[]>(
        `SELECT COUNT(*) AS n FROM performance_schema.data_locks
         WHERE object_schema = 'interlock' AND object_name = 'unit_state' AND lock_mode LIKE 'S%'
           AND lock_data REGEXP '^.cn-east/[0-9]{1,2}.$'`,
      );
      return Number(rows[0]!['n']);
    };
    const pass = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
    try {
      for (let tries = 0; tries < 40; tries++) {
        // Wallets are locked, so that the transactions of both instances get no further than their unit's lock and this.
        await root.query('START TRANSACTION');
        await root.query('SELECT COUNT(*) FROM shop.wallet FOR UPDATE');
        while ((await moving()) < 3) await pass(10);
        await labKill(part, { directory: directory(), signal: 'SIGSTOP' });
        await root.query('ROLLBACK');
        // The other instance ends its own.
        await pass(500);
        if ((await moving()) > 0) return;
        await labKill(part, { directory: directory(), signal: 'SIGCONT' });
        await pass(500);
      }
      throw new Error(`${part} was never caught with a transaction of the moving units open`);
    } finally {
      await root.end();
    }
  }
});
