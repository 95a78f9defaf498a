import { fileURLToPath } from 'node:url';
import { Context } from '@temporalio/activity';
import { WorkflowUpdateFailedError } from '@temporalio/client';
import type { WorkflowHandle } from '@temporalio/client';
import { ApplicationFailure } from '@temporalio/common';
import { TestWorkflowEnvironment } from '@temporalio/testing';
import { DefaultLogger, Worker, bundleWorkflowCode } from '@temporalio/worker';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { temporalComponent } from '../../infra/components/temporal.js';
import type { Difference, TableProgress } from '../../replicators/core/verification.js';
import { NOTHING_COMPARED } from '../../replicators/redis/verify/verification.js';
import type { KeyDifference, RedisVerifyProgress } from '../../replicators/redis/verify/verification.js';
import type { verification } from '../../workflows/verification.js';
import type {
  PlannedTable,
  VerificationActivities,
  VerifiedStore,
  VerifyReport,
  VerifyRequest,
  VerifyStoreInput,
  VerifyTableInput,
} from '../../workflows/verification-contract.js';
import { until } from '../support/replication.js';
import { timeSkippingEnvironment } from '../support/temporal.js';

const QUEUE = 'verification-test';
const REQUEST: VerifyRequest = {
  ...{ topology: 'test', tables: [], scope: null, repair: false, keep: 20, startedBy: 'test' },
};
const DIFFERENCE: Difference = {
  ...{ key: { id: '1' }, unit: 'cn-east/1', owner: 'dc-a', repaired: false },
  images: { 'dc-a': { id: '1', n: '1' }, 'dc-b': null },
};

const KEY_DIFFERENCE: KeyDifference = {
  ...{ db: 0, key: '"k"', keyHex: '6b', what: 'value', detail: 'the string differs' },
  ...{ unit: null, owner: null, repaired: false },
};

describe.each(['skipped time', 'short histories'] as const)('a verification, %s', (kind) => {
  let env: TestWorkflowEnvironment;
  let worker: Worker;
  let ended: Promise<void>;
  let count = 0;
  /** Of the test that runs. */
  let tables: (Partial<PlannedTable> & { table: string })[];
  let planError: Error | undefined;
  let asked: VerifyTableInput[];
  let stores: VerifiedStore[];
  let askedStores: VerifyStoreInput[];
  let compareStore: (input: VerifyStoreInput) => Promise<RedisVerifyProgress>;
  let recorded: VerifyReport[];
  let recordFails: boolean;
  let compare: (input: VerifyTableInput) => Promise<TableProgress>;

  const step = (input: VerifyTableInput, change: Partial<TableProgress> = {}): TableProgress => {
    const { chunks, rows } = input.progress;
    return {
      ...input.progress,
      chunks: chunks + 1,
      rows: rows + 10,
      cursor: [String(rows + 10)],
      activeMs: 5,
      ...change,
    };
  };
  /** Compares until it is cancelled, and answers how far it is. */
  const untilCancelled = async (input: VerifyTableInput): Promise<TableProgress> => {
    const beat = setInterval(() => Context.current().heartbeat(), 100);
    await Context.current().cancelled.catch(() => undefined);
    clearInterval(beat);
    return step(input);
  };

  const activities: VerificationActivities = {
    async planVerification() {
      if (planError) throw planError;
      const planned = { store: 'main', links: ['mysql/main:dc-a>dc-b'], estimatedRows: 100, obstacle: null };
      return { tables: tables.map((one) => ({ ...planned, ...one })), stores, units: null };
    },
    async compareTable(input) {
      asked.push(input);
      return compare(input);
    },
    async compareStore(input) {
      askedStores.push(input);
      return compareStore(input);
    },
    async recordVerification(report) {
      recorded.push(report);
      if (recordFails) throw ApplicationFailure.nonRetryable('no such table', 'Internal');
    },
  };

  beforeAll(async () => {
    if (kind === 'skipped time') env = await timeSkippingEnvironment();
    else {
      const found = await temporalComponent.find();
      const executable = { type: 'existing-path', path: found!.binary } as const;
      // A history is long after a few slices.
      const extraArgs = ['--dynamic-config-value', 'limit.historyCount.suggestContinueAsNew=30'];
      env = await TestWorkflowEnvironment.createLocal({ server: { executable, extraArgs } });
    }
    worker = await Worker.create({
      connection: env.nativeConnection,
      taskQueue: QUEUE,
      workflowBundle: await bundleWorkflowCode({
        workflowsPath: fileURLToPath(new URL('../../workflows/index.ts', import.meta.url)),
        logger: new DefaultLogger('ERROR'),
      }),
      activities,
      shutdownForceTime: '2 s',
    });
    ended = worker.run();
  });
  afterAll(async () => {
    worker.shutdown();
    await ended;
    await env.teardown();
  });
  beforeEach(() => {
    tables = [{ table: 'shop.wallet' }, { table: 'shop.coupon' }];
    planError = undefined;
    stores = [];
    asked = [];
    askedStores = [];
    compareStore = async ({ progress }) => ({ ...progress, done: true });
    recorded = [];
    recordFails = false;
    compare = async (input) => step(input, { done: true });
  });

  const start = async (request = REQUEST): Promise<WorkflowHandle<typeof verification>> => {
    const workflowId = `verify/${++count}`;
    await env.client.workflow.start<typeof verification>('verification', {
      taskQueue: QUEUE,
      workflowId,
      args: [request],
    });
    return env.client.workflow.getHandle(workflowId);
  };
  const status = (handle: WorkflowHandle): Promise<VerifyReport> => handle.query<VerifyReport>('status');

  it('hands each slice what the one before it answered, and reports what was compared', async () => {
    compare = async (input) => step(input, { done: input.progress.chunks === 2 });
    const report = await (await start()).result();
    expect(asked.map(({ table, progress }) => `${table} ${progress.cursor?.join() ?? '-'}`)).toEqual([
      ...['shop.wallet -', 'shop.wallet 10', 'shop.wallet 20'],
      ...['shop.coupon -', 'shop.coupon 10', 'shop.coupon 20'],
    ]);
    expect(report).toMatchObject({ outcome: 'equal', state: 'ended', rows: 60, differing: 0, error: null });
    expect(recorded).toEqual([report]);
  });

  it('pauses with what was compared, resumes there, and stops', async () => {
    compare = untilCancelled;
    const handle = await start();
    await until(() => asked.length === 1, 'it compares');
    expect(await handle.executeUpdate('pause')).toContain('pauses');
    await until(async () => (await status(handle)).state === 'paused', 'it is paused');
    expect(await status(handle)).toMatchObject({ outcome: 'running', rows: 10 });
    expect(asked).toHaveLength(1);
    await handle.executeUpdate('resume');
    await until(() => asked.length === 2, 'it goes on');
    expect(asked[1]!.progress.cursor).toEqual(['10']);
    await expect(handle.executeUpdate('resume')).rejects.toThrow(WorkflowUpdateFailedError);
    await handle.executeUpdate('stop');
    const report = await handle.result();
    expect(report).toMatchObject({ outcome: 'stopped', rows: 20 });
    expect(asked.map(({ table }) => table)).toEqual(['shop.wallet', 'shop.wallet']);
  });

  it('takes a cancel as a stop, and says what it has found', async () => {
    compare = async (input) => ({
      ...(await untilCancelled(input)),
      differing: 1,
      differences: [DIFFERENCE],
    });
    const handle = await start();
    await until(() => asked.length === 1, 'it compares');
    await handle.cancel();
    const report = await handle.result();
    expect(report).toMatchObject({ outcome: 'different', differing: 1, state: 'ended' });
    expect(report.tables[0]!.progress.differences).toEqual([DIFFERENCE]);
  });

  it('a table that cannot be compared keeps no other from it, and is not called equal', async () => {
    tables.push({ table: 'shop.odd', obstacle: 'no primary key' });
    compare = async (input) => {
      if (input.table === 'shop.wallet') throw ApplicationFailure.nonRetryable('no MD5', 'Refused');
      return step(input, { done: true });
    };
    const report = await (await start()).result();
    expect(report).toMatchObject({ outcome: 'failed', rows: 10 });
    expect(report.tables.map(({ progress }) => progress.notComparable)).toEqual([
      'no MD5',
      null,
      'no primary key',
    ]);
    expect(asked.map(({ table }) => table)).toEqual(['shop.wallet', 'shop.coupon']);
  });

  it('input that names nothing ends it with its error; a report that no store takes is its result all the same', async () => {
    planError = ApplicationFailure.nonRetryable('--scope: no such region', 'BadInput');
    recordFails = true;
    const report = await (await start()).result();
    expect(report).toMatchObject({
      outcome: 'failed',
      error: { code: 'BadInput', message: '--scope: no such region' },
    });
    expect(asked).toEqual([]);
  });

  it('compares Redis stores in slices, each with what the request says and what is left of the report', async () => {
    tables = [];
    const store = { links: ['redis/cache:dc-a>dc-b'], progress: { ...NOTHING_COMPARED, estimated: 40 } };
    stores = [
      { ...store, store: 'cache' },
      { ...store, store: 'session' },
    ];
    compareStore = async ({ store: name, progress: { scanned, compared, ...progress } }) => ({
      ...{ ...progress, scanned: scanned + 20, compared: compared + 10, activeMs: progress.activeMs + 5 },
      ...(name === 'session' && {
        notComparable: 'a link is paused',
        differing: 1,
        differences: [KEY_DIFFERENCE],
      }),
      done: scanned === 20 || name === 'session',
    });
    const redis = { stores: [], mode: 'length', expiryToleranceMs: 7 } as const;
    const handle = await start({ ...REQUEST, redis: { ...redis, stores: [] }, keep: 3 });
    const report = await handle.result();
    expect(askedStores.map(({ store: name, progress }) => `${name} ${progress.scanned}`)).toEqual([
      'cache 0',
      'cache 20',
      'session 0',
    ]);
    expect(askedStores[1]).toMatchObject({ redis, units: null, repair: false, keep: 3, keepLength: 400_000 });
    expect(report).toMatchObject({ outcome: 'different', rows: 30, differing: 1, tables: [], etaMs: 0 });
    expect(report.summary).toBe(
      'Different: 30 keys of 2 of 2 stores compared, 1 differ, 1 store not comparable.',
    );
    expect(report.stores![1]!.progress.differences).toEqual([KEY_DIFFERENCE]);
    expect((await status(handle)).stores![1]!.progress.differences).toEqual([]);
    expect(recorded).toEqual([report]);
  });

  it('a store that cannot be compared is not called equal, and keeps no other from it', async () => {
    tables = [];
    stores = ['cache', 'session'].map((store) => ({ store, links: [], progress: NOTHING_COMPARED }));
    compareStore = async ({ store, progress }) => {
      if (store === 'cache') throw ApplicationFailure.nonRetryable('NOPERM', 'Refused');
      return { ...progress, done: true };
    };
    const redis = { stores: [], mode: 'full', expiryToleranceMs: 0 } as const;
    const report = await (await start({ ...REQUEST, redis: { ...redis, stores: [] } })).result();
    expect(report.outcome).toBe('failed');
    expect(report.stores!.map(({ progress }) => progress.notComparable)).toEqual(['NOPERM', null]);
  });

  it('gives a table what the tables before it have left of the report', async () => {
    const large = { ...DIFFERENCE, images: { 'dc-a': { text: 'x'.repeat(1_000) }, 'dc-b': null } };
    compare = async (input) => step(input, { done: true, differing: 1, differences: [large] });
    const handle = await start();
    const report = await handle.result();
    expect(asked[0]!.keepLength - asked[1]!.keepLength).toBe(JSON.stringify([large]).length);
    expect(report.outcome).toBe('different');
    expect((await status(handle)).tables[0]!.progress.differences).toEqual([]);
  });

  it.runIf(kind === 'short histories')(
    'goes on in a new run when its history is long, also paused',
    async () => {
      compare = async (input) => step(input, { done: input.progress.chunks === 19 });
      stores = [{ store: 'cache', links: [], progress: NOTHING_COMPARED }];
      compareStore = async ({ progress }) => {
        const compared = progress.compared + 1;
        return { ...progress, compared, done: compared === 20 };
      };
      const handle = await start();
      const first = (await handle.describe()).runId;
      const report = await handle.result();
      expect((await env.client.workflow.getHandle(handle.workflowId).describe()).runId).not.toBe(first);
      expect(report).toMatchObject({ outcome: 'equal', rows: 420, runId: first });
      expect(askedStores).toHaveLength(20);
    },
  );
});
