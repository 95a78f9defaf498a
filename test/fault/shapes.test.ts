import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import mysql from 'mysql2/promise';
import type { ResultSetHeader, RowDataPacket } from 'mysql2/promise';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { readJournal } from '../../infra/demo/load/journal.js';
import type { WriteRecord } from '../../infra/demo/load/journal.js';
import { usersOf } from '../../infra/demo/load/users.js';
import { DemoRig, rootOf } from '../../infra/demo/rig.js';
import type { RigOptions } from '../../infra/demo/rig.js';
import { COUPON_UNIT } from '../../infra/demo/schema.sql.js';
import { labKill, labStart } from '../../infra/lab/lab.js';
import { DATACENTERS } from '../../infra/lab/options.js';
import type { ReleaseResult } from '../../src/fence/release.js';
import { messageOf } from '../../src/errors.js';
import { withTemporal } from '../../src/cli/temporal-client.js';
import { Router, unitsOf } from '../../src/routing/rules.js';
import type { Rules } from '../../src/routing/rules.js';
import { bucketOf, bucketUnit, segmentUnit } from '../../src/routing/units.js';
import { createInterlock } from '../../src/sdk/index.js';
import type { Interlock } from '../../src/sdk/index.js';
import type { SwitchPlan, SwitchReport, SwitchStatus } from '../../workflows/contract.js';

/** Labs of other shapes than the default, scopes of other kinds than buckets, and what operators type beside the straight way. */
const RATE = 20;
const DEADLINE = { timeout: 60_000, interval: 100 };
const OTHER: Record<string, string> = { 'dc-a': 'dc-b', 'dc-b': 'dc-a' };

type Failure = { error: { code: string; message: string; details: Record<string, unknown> } };
type FenceStatus = {
  epoch: number;
  unreachable: string[];
  findings: { kind: string; units: string[]; owner: string }[];
};
type Listed = { runId: string; outcome: string; scope: string; from: string; to: string };

/** A lab for the tests of the describe block around it. */
function lab(options: Omit<RigOptions, 'directory' | 'rate'>): Lab {
  const here = new Lab();
  beforeAll(async () => {
    here.root = await mkdtemp(path.join(tmpdir(), 'interlock-shape-'));
    await mkdir(path.join(here.root, 'stops'));
    process.env['INTERLOCK_STOP_DIR'] = path.join(here.root, 'stops');
    here.rig = await DemoRig.up({ ...options, directory: path.join(here.root, 'lab'), rate: RATE });
    await here.rig.load.start();
  }, 180_000);
  afterAll(async () => {
    delete process.env['INTERLOCK_STOP_DIR'];
    await here.rig?.down();
    await rm(here.root, { recursive: true, force: true });
  }, 60_000);
  return here;
}

class Lab {
  root!: string;
  rig!: DemoRig;

  get directory(): string {
    return this.rig.options.directory;
  }

  async query<T>(dc: string, store: string, sql: string, values: unknown[] = []): Promise<T[]> {
    const { topology, lab } = this.rig;
    const connection = await mysql.createConnection(rootOf(topology, dc, lab.env, store));
    try {
      const [rows] = await connection.query<RowDataPacket[]>(sql, values);
      return rows as unknown as T[];
    } finally {
      await connection.end();
    }
  }

  /** `unit state owner epoch` of every unit of a store. */
  async unitStates(dc: string, store: string): Promise<string[]> {
    const rows = await this.query<{ line: string }>(
      dc,
      store,
      `SELECT CONCAT_WS(' ', unit, state, owner, epoch) AS line FROM interlock.unit_state ORDER BY unit`,
    );
    return rows.map(({ line }) => String(line));
  }

  /** Everything that says who owns what: to see that nothing has changed. */
  async ownership(): Promise<unknown> {
    const states: Record<string, string[]> = {};
    for (const dc of DATACENTERS) {
      for (const store of this.stores()) states[`${dc} ${store}`] = await this.unitStates(dc, store);
    }
    const { document } = await this.rig.cli<{ hash: string; datacenters: unknown }>(['rules', 'show']);
    return { states, hash: document.hash, datacenters: document.datacenters };
  }

  stores(): string[] {
    return Object.keys(this.rig.topology.datacenters['dc-a']!.stores.mysql);
  }

  /** Fence status, the rules of both DCs and the rows of every store say that each unit is open at its owner, at one epoch, and nowhere else. */
  async expectOwners(ownerOf: (unit: string) => string): Promise<void> {
    const { document: status } = await this.rig.cli<FenceStatus>(['fence', 'status']);
    expect(status.findings).toEqual([]);
    const { document: shown } = await this.rig.cli<{ rules: Rules; datacenters: { epoch: number }[] }>([
      'rules',
      'show',
    ]);
    expect(shown.datacenters.map(({ epoch }) => epoch)).toEqual([status.epoch, status.epoch]);
    const router = new Router(shown.rules);
    const units = unitsOf(shown.rules);
    const want = (dc: string): string[] =>
      units.map((unit) => `${unit} ${ownerOf(unit) === dc ? 'open' : 'remote'} ${ownerOf(unit)}`).sort();
    const assigned = units.map((unit) => `${unit} ${router.assignmentOf(unit)!.owner}`);
    expect(assigned).toEqual(units.map((unit) => `${unit} ${ownerOf(unit)}`));
    const epochs = new Map<string, string>();
    for (const dc of DATACENTERS) {
      for (const store of this.stores()) {
        const rows = (await this.unitStates(dc, store)).map((line) => line.split(' '));
        const seen = rows.map(([unit, state, owner]) => `${unit} ${state} ${owner}`).sort();
        expect(seen, `${dc} ${store}`).toEqual(want(dc));
        for (const [unit, , , epoch] of rows) {
          expect(epochs.get(unit!) ?? epoch, `epoch of ${unit} in ${dc} ${store}`).toBe(epoch);
          epochs.set(unit!, epoch!);
        }
      }
    }
  }

  /** The data centers whose servers are read_only. */
  async readOnly(): Promise<string[]> {
    const on = [];
    for (const dc of DATACENTERS) {
      for (const store of this.stores()) {
        const [row] = await this.query<{ value: number }>(dc, store, 'SELECT @@global.read_only AS value');
        if (row!.value === 1) on.push(dc);
      }
    }
    return on;
  }

  /** Waits for a write of these keys, sent from now on, that `dc` acknowledges. */
  async served(dc: string, of: (write: WriteRecord) => boolean): Promise<void> {
    const since = Date.now();
    await this.rig.load.start();
    await expect
      .poll(async () => {
        await this.rig.load.settle();
        const writes = await readJournal(this.rig.journal, { live: true });
        return writes.some(
          (write) => write.sentAt >= since && write.status === 'acked' && write.servedBy === dc && of(write),
        );
      }, DEADLINE)
      .toBe(true);
  }

  /** Every write so far, against both databases. The load is paused afterwards. */
  async check(): Promise<void> {
    const { report } = await this.rig.check();
    expect(report.findings).toEqual([]);
    expect(report.converged).toBe(true);
    expect(report.ackedWrites).toBeGreaterThan(0);
    expect(report.auditedRows).toBeGreaterThan(0);
  }

  async report(runId: string): Promise<SwitchReport> {
    return (await this.rig.cli<SwitchReport>(['switch', 'report', runId])).document;
  }

  /** Stops the workers at a point while `during` runs; it begins when one has got there. */
  async stoppedAt<T>(
    point: string,
    begin: () => Promise<T>,
    during: (begun: T) => Promise<void>,
  ): Promise<T> {
    const file = path.join(this.root, 'stops', point);
    await writeFile(file, '');
    try {
      const begun = await begin();
      await expect.poll(() => existsSync(`${file}.reached`), { ...DEADLINE, interval: 5 }).toBe(true);
      await during(begun);
      return begun;
    } finally {
      await rm(file, { force: true });
      await rm(`${file}.reached`, { force: true });
    }
  }
}

const MOVED = 100;
const bucketIn = (unit: string, region: string, below: number): boolean =>
  unit.startsWith(`${region}/`) && Number(unit.slice(region.length + 1)) < below;
const home = (unit: string): string => (unit.startsWith('cn-west/') ? 'dc-b' : 'dc-a');
const walletOf =
  (region: string, below: number) =>
  (write: WriteRecord): boolean =>
    write.kind === 'transfer' && write.region === region && bucketOf(write.userId) < below;

describe('two MySQL stores per data center', () => {
  const here = lab({ shape: { stores: 2 } });
  const writers: SecondStoreWriter[] = [];
  afterAll(() => Promise.all(writers.map((writer) => writer.close())));

  test('both are fenced, drained and handed over, there and back', async () => {
    const { rig } = here;
    const users = usersOf('cn-east').byBucket.slice(0, MOVED).flat();
    const atHome = new SecondStoreWriter(here, 'dc-a', users);
    writers.push(atHome);
    await atHome.some();
    const moved = await rig.switchover(`cn-east:${MOVED / 10}%`, 'dc-a', 'dc-b');
    expect(moved.outcome, moved.summary).toBe('done');
    // It wrote on until the second store itself refused it; all that was acknowledged has been drained.
    expect(await atHome.refused()).toMatch(/WriteDisabled|NotOwner/);
    expect(await atHome.missingIn('dc-b')).toEqual([]);
    await here.expectOwners((unit) => (bucketIn(unit, 'cn-east', MOVED) ? 'dc-b' : home(unit)));

    const away = new SecondStoreWriter(here, 'dc-b', users);
    writers.push(away);
    await away.some();
    await here.served('dc-b', walletOf('cn-east', MOVED));
    const back = await rig.rollback();
    expect(back.outcome, back.summary).toBe('rolled-back');
    expect(await away.refused()).toMatch(/WriteDisabled|NotOwner/);
    expect(await away.missingIn('dc-a')).toEqual([]);
    await here.expectOwners(home);

    const report = await here.report(back.runId);
    for (const { flow, from, to, baselines } of report.flows) {
      expect(baselines.map(({ link }) => link).sort(), flow).toEqual([
        `mysql/main:${from}>${to}`,
        `mysql/orders:${from}>${to}`,
        `redis/cache:${from}>${to}`,
      ]);
      for (const { position, drainMs } of baselines) {
        expect(position).not.toBe('');
        expect(drainMs).not.toBeNull();
      }
      // Positions of three servers: one that stands for two would be no baseline of the second.
      expect(new Set(baselines.map(({ position }) => position)).size, flow).toBe(3);
    }
    expect(report.flows.map(({ flow }) => flow)).toEqual(['move', 'rollback']);
    for (const dc of DATACENTERS) {
      expect(await here.unitStates(dc, 'orders')).toEqual(await here.unitStates(dc, 'main'));
    }
    await here.check();
    // Every gateway and every instance confirmed: nothing was waited for in vain.
    expect(report.flows.flatMap(({ unconfirmed }) => unconfirmed)).toEqual([]);
  });
});

/** Writes into the second store of a DC, one transaction at a time, until it is refused. */
class SecondStoreWriter {
  readonly acked: string[] = [];
  private readonly ended: Promise<string>;
  private readonly interlock: Interlock;

  constructor(
    private readonly here: Lab,
    private readonly dc: string,
    users: readonly string[],
  ) {
    const site = here.rig.topology.datacenters[dc]!;
    this.interlock = createInterlock({ dc, application: 'shop', ruleCenter: site.ruleCenter.url });
    this.ended = this.run(users);
    this.ended.catch(() => undefined);
  }

  private async run(users: readonly string[]): Promise<string> {
    const { topology, lab: info } = this.here.rig;
    const site = topology.datacenters[this.dc]!;
    const { host, port } = site.stores.mysql['orders']!;
    const password = info.env['INTERLOCK_LAB_MYSQL_APP_PASSWORD']!;
    const pool = mysql.createPool({ host, port, user: 'app', password, connectionLimit: 1 });
    try {
      await this.interlock.ready();
      const orders = this.interlock.mysql(pool, { store: 'orders' });
      for (let n = 0; ; n++) {
        const userId = users[n % users.length]!;
        const id = `${this.dc}-${n}`;
        await orders.transaction({ region: 'cn-east', userId }, (tx) =>
          tx.query<ResultSetHeader>(
            `INSERT INTO shop.wallet_request (step, region, user_id, request_id, dc, unit, epoch, written_at)
             VALUES ('debit', 'cn-east', ?, ?, ?, ?, ?, NOW(6))`,
            [userId, id, this.dc, bucketUnit('cn-east', bucketOf(userId)), tx.epoch],
          ),
        );
        this.acked.push(id);
        await new Promise((resolve) => setTimeout(resolve, 10));
      }
    } catch (error) {
      return (error as { code?: string }).code ?? messageOf(error);
    } finally {
      await pool.end();
    }
  }

  /** Some writes are acknowledged. */
  async some(): Promise<void> {
    const ended = this.ended.then((how) => Promise.reject(new Error(`${this.dc}: the writer ended: ${how}`)));
    await Promise.race([ended, expect.poll(() => this.acked.length, DEADLINE).toBeGreaterThan(10)]);
  }

  /** Hazard: a closed instance has its lease for 10 s more, and a switchover waits for it. Guard: not before the switchover has ended. */
  async close(): Promise<void> {
    await this.interlock.close();
  }

  /** The code of the refusal that ended it. */
  refused(): Promise<string> {
    return this.ended;
  }

  /** What was acknowledged and is not in the second store of `dc`. */
  async missingIn(dc: string): Promise<string[]> {
    const rows = await this.here.query<{ id: string }>(
      dc,
      'orders',
      'SELECT request_id AS id FROM shop.wallet_request WHERE dc = ?',
      [this.dc],
    );
    const there = new Set(rows.map(({ id }) => id));
    return this.acked.filter((id) => !there.has(id));
  }
}

describe('MariaDB', () => {
  const here = lab({ shape: { mysql: 'mariadb' } });

  test('10 % of a region there and back', async () => {
    const { rig } = here;
    expect((await here.query<{ v: string }>('dc-a', 'main', 'SELECT VERSION() AS v'))[0]!.v).toMatch(
      /MariaDB/,
    );
    await here.served('dc-a', walletOf('cn-east', MOVED));
    const moved = await rig.switchover('cn-east:10%', 'dc-a', 'dc-b');
    expect(moved.outcome, moved.summary).toBe('done');
    await here.served('dc-b', walletOf('cn-east', MOVED));
    await here.expectOwners((unit) => (bucketIn(unit, 'cn-east', MOVED) ? 'dc-b' : home(unit)));
    await here.check();
    await rig.load.start();
    const back = await rig.rollback();
    expect(back.outcome, back.summary).toBe('rolled-back');
    await here.served('dc-a', walletOf('cn-east', MOVED));
    await here.expectOwners(home);
    await here.check();
  });
});

describe('MySQL with 10 ms between the data centers', () => {
  const SEGMENT = 'vip';
  // Users that the load writes as, of many buckets: they win over their buckets.
  const members = usersOf('cn-east').byBucket.slice(800).flat();
  const here = lab({
    shape: { rttMs: 10 },
    segments: { [SEGMENT]: { home: 'dc-a', members } },
  });
  const ofSegment = (write: WriteRecord): boolean =>
    write.kind === 'transfer' && members.includes(write.userId);
  const ofBucketBehindSegment = (write: WriteRecord): boolean =>
    write.kind === 'transfer' && write.region === 'cn-east' && !members.includes(write.userId);
  const ofCoupons = (write: WriteRecord): boolean => write.kind === 'deduction';

  const scopes: {
    scope: string;
    moves: (unit: string) => boolean;
    of: Record<string, (write: WriteRecord) => boolean>;
  }[] = [
    {
      scope: 'dc:dc-a',
      moves: (unit) => home(unit) === 'dc-a',
      of: { segment: ofSegment, coupons: ofCoupons, buckets: ofBucketBehindSegment },
    },
    {
      scope: `segment:${SEGMENT}`,
      moves: (unit) => unit === segmentUnit(SEGMENT),
      of: { segment: ofSegment },
    },
    { scope: COUPON_UNIT, moves: (unit) => unit === COUPON_UNIT, of: { coupons: ofCoupons } },
  ];
  test.each(scopes)('$scope moves, alone, and back', async ({ scope, moves, of }) => {
    const { rig } = here;
    await rig.load.start();
    for (const keys of Object.values(of)) await here.served('dc-a', keys);
    const moved = await rig.switchover(scope, 'dc-a', 'dc-b');
    expect(moved.outcome, moved.summary).toBe('done');
    for (const keys of Object.values(of)) await here.served('dc-b', keys);
    await here.expectOwners((unit) => (moves(unit) ? 'dc-b' : home(unit)));
    expect(await here.readOnly()).toEqual(scope === 'dc:dc-a' ? ['dc-a'] : []);
    const back = await rig.rollback();
    expect(back.outcome, back.summary).toBe('rolled-back');
    expect(await here.readOnly()).toEqual([]);
    for (const keys of Object.values(of)) await here.served('dc-a', keys);
    await here.expectOwners(home);
    await here.check();
  });

  const start = <T>(scope: string, from: string, more: string[] = [], expected = [0]) =>
    here.rig.cli<T>(
      ['switch', 'start', '--scope', scope, '--from', from, '--to', OTHER[from]!, ...more],
      expected,
    );
  const plan = (scope: string, from: string) =>
    here.rig
      .cli<SwitchPlan>(['switch', 'plan', '--scope', scope, '--from', from, '--to', OTHER[from]!])
      .then(({ document }) => document);
  const inRange = (unit: string): boolean => bucketIn(unit, 'cn-west', 10);

  test('a start with its plan’s hash runs; with a hash of before, it is refused and changes nothing', async () => {
    await here.rig.load.start();
    const stale = await plan('cn-west/10-19', 'dc-b');
    const fresh = await plan('cn-west/0-9', 'dc-b');
    expect(fresh.units).toHaveLength(10);
    expect(fresh.hash).not.toBe(stale.hash);
    const { document: moved } = await start<SwitchStatus>('cn-west/0-9', 'dc-b', ['--plan', fresh.hash]);
    expect(moved.awaiting).toBe('rollback-or-finish');
    expect((await here.report(moved.runId)).planHash).toBe(fresh.hash);
    await here.expectOwners((unit) => (inRange(unit) ? 'dc-a' : home(unit)));
    expect((await here.rig.rollback()).outcome).toBe('rolled-back');

    const before = await here.ownership();
    const { document: refused } = await start<SwitchStatus>(
      'cn-west/10-19',
      'dc-b',
      ['--plan', stale.hash],
      [1],
    );
    expect(refused.outcome).toBe('refused');
    expect(refused.summary).toContain(`The world has changed since plan ${stale.hash}`);
    expect(refused.summary).toContain((await plan('cn-west/10-19', 'dc-b')).hash);
    expect(await here.ownership()).toEqual(before);
  });

  test('--detach answers while the run is under way; a second start is refused and names it; list has it', async () => {
    const { rig } = here;
    await rig.load.start();
    const { runId } = await here.stoppedAt(
      'before-preflight',
      async () => {
        // The run cannot get to its soak: a start that waited would not answer with an id alone.
        const { document } = await start<{ workflowId: string; runId: string }>('cn-west/0-9', 'dc-b', [
          '--detach',
        ]);
        expect(document.workflowId).toBe('switchover/lab');
        return document;
      },
      async (first) => {
        const { document: second } = await start<Failure>('cn-east/0-9', 'dc-a', [], [1]);
        expect(second.error.code).toBe('Refused');
        expect(second.error.message).toContain(`run ${first.runId} (cn-west/0-9`);
        expect(second.error.details['runId']).toBe(first.runId);
        const { document: listed } = await rig.cli<Listed[]>(['switch', 'list']);
        expect(listed[0]).toMatchObject({
          ...{ runId: first.runId, outcome: 'running', scope: 'cn-west/0-9', from: 'dc-b', to: 'dc-a' },
        });
      },
    );
    await expect
      .poll(async () => (await rig.cli<SwitchStatus>(['switch', 'status'])).document.awaiting, DEADLINE)
      .toBe('rollback-or-finish');
    await here.expectOwners((unit) => (inRange(unit) ? 'dc-a' : home(unit)));
    await rig.rollback();
    const { document: listed } = await rig.cli<Listed[]>(['switch', 'list', '--limit', '1']);
    expect(listed).toMatchObject([{ runId, outcome: 'rolled-back', scope: 'cn-west/0-9' }]);
    await here.expectOwners(home);
    await here.check();
  });

  test('fence release with nothing to release changes nothing', async () => {
    const before = await here.ownership();
    const { document } = await here.rig.cli<ReleaseResult>(['fence', 'release']);
    expect(document.released).toEqual([]);
    expect(await here.ownership()).toEqual(before);
  });

  test('fence release with the target’s mysqld dead: exit code 3 without an operator’s word, which is kept', async () => {
    const { rig } = here;
    const HALF = 500;
    const ofHalf = (write: WriteRecord): boolean =>
      walletOf('cn-east', HALF)(write) && !members.includes(write.userId);
    await rig.load.start();
    await here.served('dc-a', ofHalf);
    const writeDisabled = async (): Promise<number> => {
      const rows = await here.unitStates('dc-a', 'main');
      return rows.filter((line) => line.includes(' write_disabled ')).length;
    };
    await here.stoppedAt(
      'before-switchWhenDrained',
      async () =>
        (await start<{ workflowId: string; runId: string }>('cn-east:50%', 'dc-a', ['--detach'])).document,
      async ({ workflowId, runId }) => {
        await expect.poll(writeDisabled, DEADLINE).toBe(HALF);
        await labKill('dc-b-mysql-main', { directory: here.directory });
        await withTemporal(rig.topology, (client) =>
          client.workflow.getHandle(workflowId, runId).terminate('fault test'),
        );
      },
    );
    const fenced = await here.unitStates('dc-a', 'main');
    expect(fenced.filter((line) => line.includes(' write_disabled '))).toHaveLength(HALF);
    const { document: status } = await rig.cli<FenceStatus>(['fence', 'status'], [3]);
    expect(status.unreachable).toEqual(['dc-b']);
    expect(status.findings).toMatchObject([{ kind: 'unknown', owner: 'dc-a' }]);
    expect(status.findings[0]!.units).toHaveLength(HALF);

    const { document: refused } = await rig.cli<Failure>(['fence', 'release'], [3]);
    expect(refused.error.code).toBe('NeedsOperator');
    expect(refused.error.message).toContain('--assert-target-fenced');
    expect(await here.unitStates('dc-a', 'main')).toEqual(fenced);

    const WORDS = 'rack 12 is powered off';
    const { document: released } = await rig.cli<ReleaseResult & { epoch: number }>([
      ...['fence', 'release', '--assert-target-fenced', WORDS],
    ]);
    expect(released.released).toMatchObject([{ owner: 'dc-a', how: 're-opened', epoch: released.epoch }]);
    // Clients have their units again, with dc-b still down.
    await here.served('dc-a', ofHalf);
    const [kept] = await here.query<{ epoch: number; reason: string }>(
      'dc-a',
      'main',
      'SELECT epoch, reason FROM interlock.rules ORDER BY epoch DESC LIMIT 1',
    );
    expect(kept).toMatchObject({ epoch: released.epoch });
    expect(kept!.reason).toContain(WORDS);
    // docs/fence.md sends an operator here for these words, at a time when dc-b is down.
    const { document: shown } = await rig.cli<{ rules: Rules; datacenters: { problem: string | null }[] }>(
      ['rules', 'show'],
      [3],
    );
    expect(shown.rules.reason).toContain(WORDS);
    expect(shown.datacenters.map(({ problem }) => problem)).toEqual([null, expect.stringContaining('dc-b')]);

    await labStart('dc-b-mysql-main', { directory: here.directory });
    const { document: mended } = await rig.cli<ReleaseResult>(['fence', 'release']);
    expect(mended.released.filter(({ how }) => how !== 'rules published')).toEqual([]);
    const owners = async (): Promise<string[]> => {
      const { document } = await rig.cli<{ rules: Rules; datacenters: { epoch: number }[] }>([
        'rules',
        'show',
      ]);
      expect(document.rules.reason).toContain(WORDS);
      return document.datacenters.map(({ epoch }) => String(epoch));
    };
    expect(await owners()).toEqual([String(released.epoch), String(released.epoch)]);
    const { document: healed } = await rig.cli<FenceStatus>(['fence', 'status']);
    expect(healed.findings).toEqual([]);
    await here.served('dc-b', walletOf('cn-west', 1000));
    await here.check();
  });
});
