import { fileURLToPath } from 'node:url';
import type { TestWorkflowEnvironment } from '@temporalio/testing';
import { DefaultLogger, Worker, bundleWorkflowCode } from '@temporalio/worker';
import { Context } from '@temporalio/activity';
import { ApplicationFailure } from '@temporalio/common';
import type { WorkflowHandle } from '@temporalio/client';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { ReplicatorActivities } from '../../activities/replicator.js';
import type { replicator } from '../../workflows/replicator.js';
import type { ReplicatorState } from '../../workflows/replicator.js';
import { until } from '../support/replication.js';
import { timeSkippingEnvironment } from '../support/temporal.js';

const QUEUE = 'replicator-test';
const LINK = 'mysql/main:dc-a>dc-b';

describe('the life of a link', () => {
  let env: TestWorkflowEnvironment;
  let worker: Worker;
  let ended: Promise<void>;
  let count = 0;
  /** Of the test that runs. */
  let initialised: (string | undefined)[];
  let runs: number;
  let purged: boolean;
  let release: () => void;
  let released: Promise<void>;

  const activities: ReplicatorActivities = {
    async initialiseLink({ from, resync }) {
      if (resync !== undefined) {
        initialised.push(`resync ${resync.tables?.join() ?? 'all'}`);
        if (resync.tables?.includes('no.such') === true)
          throw ApplicationFailure.nonRetryable('--tables: no.such: not carried', 'BadInput');
        return { position: '', created: false };
      }
      const { cancelled } = Context.current();
      await Promise.race([released, cancelled]);
      initialised.push(from);
      return { position: '', created: true };
    },
    async runLink() {
      runs += 1;
      if (purged && runs === 1)
        throw ApplicationFailure.create({
          ...{ nonRetryable: true, type: 'NeedsOperator', message: 'the binlog is purged' },
          details: [{ status: { state: 'resync-required' } }],
        });
      const context = Context.current();
      const beat = setInterval(() => context.heartbeat(), 100);
      try {
        return await context.cancelled;
      } finally {
        clearInterval(beat);
      }
    },
  };

  beforeAll(async () => {
    env = await timeSkippingEnvironment();
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
    initialised = [];
    runs = 0;
    purged = false;
    released = new Promise((resolve) => (release = resolve));
  });

  const start = (): Promise<WorkflowHandle<typeof replicator>> =>
    env.client.workflow.start<typeof replicator>('replicator', {
      taskQueue: QUEUE,
      workflowId: `replicator-${++count}`,
      args: [{ link: LINK, taskQueue: QUEUE, from: 'now' }],
    });
  const state = async (handle: WorkflowHandle): Promise<ReplicatorState> =>
    (await handle.query<{ state: ReplicatorState }>('status')).state;

  it('a pause while it initialises waits for that, and the resume goes on with what was initialised', async () => {
    const handle = await start();
    await handle.executeUpdate('pause');
    expect(await state(handle)).toBe('initialising');
    release();
    await until(async () => (await state(handle)) === 'paused', 'the link is paused');
    expect(initialised).toEqual(['now']);
    expect(runs).toBe(0);
    await handle.executeUpdate('resume');
    await until(() => runs === 1, 'the link runs');
    await handle.executeUpdate('stop');
    expect((await handle.result()).state).toBe('stopped');
  });

  it('a stop while it initialises ends it', async () => {
    const handle = await start();
    await handle.executeUpdate('stop');
    // It may have begun: then it is waited for.
    release();
    expect((await handle.result()).state).toBe('stopped');
    expect(runs).toBe(0);
  });

  it('a resync is ordered while the link does not run, and then it runs', async () => {
    const handle = await start();
    release();
    await until(() => runs === 1, 'the link runs');
    const answer = await handle.executeUpdate<string, [unknown]>('resync', { args: [{ tables: ['a.b'] }] });
    expect(answer).toBe(`${LINK} copies a.b again.`);
    await until(() => runs === 2, 'the link runs again');
    expect(initialised).toEqual(['now', 'resync a.b']);

    // Paused, it resumes with it.
    await handle.executeUpdate('pause');
    await until(async () => (await state(handle)) === 'paused', 'the link is paused');
    await handle.executeUpdate('resync', { args: [{ tables: null }] });
    await until(() => runs === 3, 'the link runs again');
    await handle.executeUpdate('stop');
    await handle.result();
    expect(initialised).toEqual(['now', 'resync a.b', 'resync all']);
  });

  it('a resync that cannot be ordered says why, and leaves the link as it was', async () => {
    const handle = await start();
    release();
    await until(() => runs === 1, 'the link runs');
    const bad = (tables: unknown) =>
      handle.executeUpdate('resync', { args: [{ tables }] }).then(
        () => 'accepted',
        (error: Error & { cause?: Error }) => error.cause?.message ?? error.message,
      );
    expect(await bad('shop.wallet')).toMatch(/^tables: expected names/);
    expect(await bad(['no.such'])).toMatch(/no.such: not carried/);
    await until(() => runs === 2, 'the link runs again');
    await handle.executeUpdate('pause');
    await until(async () => (await state(handle)) === 'paused', 'the link is paused');
    expect(await bad(['no.such'])).toMatch(/no.such: not carried/);
    await until(async () => (await state(handle)) === 'paused', 'the link is paused still');
    expect(runs).toBe(2);
    await handle.executeUpdate('stop');
    await handle.result();
  });

  it('a link that can only be copied again says so, not to resume', async () => {
    purged = true;
    const handle = await start();
    release();
    await until(async () => (await state(handle)) === 'failed', 'the link has failed');
    expect((await handle.query<{ next: string }>('status')).next).toBe(`interlock replicate resync ${LINK}`);
    await handle.executeUpdate('resync', { args: [{ tables: null }] });
    await until(() => runs === 2, 'the link runs');
    expect((await handle.query<{ next: string | null }>('status')).next).toBeNull();
    await handle.executeUpdate('stop');
    await handle.result();
  });
});
