import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { Context } from '@temporalio/activity';
import type { WorkflowHandle } from '@temporalio/client';
import { ApplicationFailure, CancelledFailure } from '@temporalio/common';
import { Worker } from '@temporalio/worker';
import type { WorkflowBundle } from '@temporalio/worker';
import type { ReplicatorActivities } from '../../activities/replicator.js';
import type { DdlActivities, DdlPlanActivities, DdlRequest } from '../../workflows/ddl-contract.js';
import type { SwitchOutcome } from '../../workflows/contract.js';
import type { ReplicatorInput, ReplicatorView } from '../../workflows/replicator.js';
import type {
  VerificationActivities,
  VerifyReport,
  VerifyRequest,
} from '../../workflows/verification-contract.js';
import { Bench } from '../workflow/harness.js';
import type { Run } from '../workflow/harness.js';
import type { World } from '../workflow/model.js';
import { historyToJson } from './history-json.js';

export const HISTORIES = fileURLToPath(new URL('./histories', import.meta.url));

/** Runs that end by themselves or are ended here; the harness's world has two units and two stores. */
const SWITCHOVERS: Record<string, (bench: Bench, world: World) => Promise<Run>> = {
  async done(bench, world) {
    const run = await bench.start(world);
    await run.settle();
    await run.update('finish');
    return run;
  },
  async 'done-signal-lost'(bench, world) {
    world.links = 'signal-lost';
    return bench.start(world);
  },
  async 'done-signal-late'(bench, world) {
    world.links = 'stuck';
    const run = await bench.start(world, { policies: { drainTimeout: 'extend', drainTimeoutMs: 5_000 } });
    await run.drive((s) => s.awaiting === 'extend-or-abort');
    await run.update('extend');
    await run.drive((s) => s.awaiting === 'extend-or-abort');
    await world.unstick();
    return run;
  },
  async 'done-switch-in-doubt'(bench, world) {
    // As many attempts as the window gives: the target's epoch decides.
    world.fault('switchTarget', 'answer-lost', 5);
    return bench.start(world);
  },
  async 'compensated-drain-timeout'(bench, world) {
    world.links = 'stuck';
    return bench.start(world);
  },
  async 'compensated-switch-refused'(bench, world) {
    world.fault('switchTarget', 'refuses');
    return bench.start(world);
  },
  async aborted(bench, world) {
    world.links = 'stuck';
    const run = await bench.start(world);
    await run.drive((s) => s.awaiting === 'drain');
    await run.update('abort');
    return run;
  },
  async 'rolled-back'(bench, world) {
    const run = await bench.start(world);
    await run.settle();
    await run.update('rollback');
    return run;
  },
  async 'done-quick'(bench, world) {
    world.quick = true;
    return bench.start(world);
  },
  async 'done-quick-in-doubt'(bench, world) {
    world.quick = true;
    world.fault('switchWhenDrained', 'answer-lost');
    return bench.start(world);
  },
  async 'rolled-back-quick'(bench, world) {
    world.quick = true;
    const run = await bench.start(world);
    await run.settle();
    await run.update('rollback');
    return run;
  },
  async refused(bench, world) {
    world.badChecks.set('preflight', 'no InnoDB');
    return bench.start(world);
  },
};

/**
 * Records every history again, into `histories/<outcome>[-<what happened>].json`, from runs on skipped time. Fails when a run does not end
 * as its name says.
 */
export async function record(bundle: WorkflowBundle): Promise<void> {
  mkdirSync(HISTORIES, { recursive: true });
  const bench = await Bench.create();
  try {
    for (const [name, play] of Object.entries(SWITCHOVERS)) {
      const world = bench.world();
      const run = await play(bench, world);
      const { outcome } = await run.end();
      if (outcomeOf(name) !== outcome || world.violations.length > 0)
        throw new Error(`${name} ended as ${outcome}: ${world.violations.join('; ')}`);
      await save(name, run.handle);
    }
    await recordReplicator(bench, bundle);
    await recordVerification(bench, bundle);
    await recordDdl(bench, bundle);
  } finally {
    await bench.close();
  }
}

const OUTCOMES = ['done', 'compensated', 'aborted', 'rolled-back', 'refused'] satisfies SwitchOutcome[];

/** By the name of a history; undefined when it is not one of a switchover. */
export function outcomeOf(name: string): (typeof OUTCOMES)[number] | undefined {
  return OUTCOMES.find((outcome) => name === outcome || name.startsWith(`${outcome}-`));
}

/** The life of a link: initialised, stopped on an error, resumed, paused, resumed, stopped. */
async function recordReplicator(bench: Bench, bundle: WorkflowBundle): Promise<void> {
  const taskQueue = 'replicator-test';
  let starts = 0;
  const activities: ReplicatorActivities = {
    initialiseLink: async () => ({ position: 'p', created: true }),
    async runLink() {
      if (++starts === 1) throw ApplicationFailure.nonRetryable('a change cannot be applied', 'LinkStopped');
      const { cancelled, cancellationSignal } = Context.current();
      const beat = setInterval(() => Context.current().heartbeat(), 100);
      cancellationSignal.addEventListener('abort', () => clearInterval(beat));
      await cancelled.catch(() => undefined);
      throw new CancelledFailure('stopped');
    },
  };
  const worker = await Worker.create({
    connection: bench.env.nativeConnection,
    taskQueue,
    workflowBundle: bundle,
    activities,
  });
  await worker.runUntil(async () => {
    const input: ReplicatorInput = { link: 'mysql/main:dc-a>dc-b', taskQueue, from: 'now' };
    const handle = await bench.env.client.workflow.start('replicator', {
      workflowId: 'replicator/t/mysql/main:dc-a>dc-b',
      taskQueue,
      args: [input],
    });
    const reaches = async (state: ReplicatorView['state']): Promise<void> => {
      while ((await handle.query<ReplicatorView>('status')).state !== state) await wait(20);
    };
    await reaches('failed');
    await handle.executeUpdate('resume');
    await reaches('running');
    await wait(500);
    await handle.executeUpdate('pause');
    await reaches('paused');
    await handle.signal('resume');
    await reaches('running');
    await wait(500);
    await handle.executeUpdate('stop');
    await handle.result();
    await save('replicator', handle);
  });
}

/** Two tables in slices: paused, resumed, one that cannot be compared. */
async function recordVerification(bench: Bench, bundle: WorkflowBundle): Promise<void> {
  const taskQueue = 'verification-test';
  let slices = 0;
  const planned = { store: 'main', links: ['mysql/main:dc-a>dc-b'], estimatedRows: 100, obstacle: null };
  const activities: VerificationActivities = {
    planVerification: async () => ({
      tables: ['shop.wallet', 'shop.coupon'].map((table) => ({ ...planned, table })),
      units: null,
    }),
    async compareTable({ table, progress }) {
      if (table === 'shop.coupon') throw ApplicationFailure.nonRetryable('no MD5', 'Refused');
      if (++slices === 1) {
        const beat = setInterval(() => Context.current().heartbeat(), 100);
        await Context.current().cancelled.catch(() => undefined);
        clearInterval(beat);
      }
      return { ...progress, chunks: slices, rows: 10 * slices, done: slices === 3 };
    },
    compareStore: () => Promise.reject(new Error('there are no stores')),
    recordVerification: async () => undefined,
  };
  const worker = await Worker.create({
    connection: bench.env.nativeConnection,
    taskQueue,
    workflowBundle: bundle,
    activities,
  });
  await worker.runUntil(async () => {
    const request: VerifyRequest = {
      ...{ topology: 't', tables: [], scope: null, repair: false, keep: 20, startedBy: 'recorder' },
    };
    const handle = await bench.env.client.workflow.start('verification', {
      workflowId: 'verify/t',
      taskQueue,
      args: [request],
    });
    const reaches = async (state: VerifyReport['state']): Promise<void> => {
      while ((await handle.query<VerifyReport>('status')).state !== state) await wait(20);
    };
    await reaches('running');
    await wait(500);
    await handle.executeUpdate('pause');
    await reaches('paused');
    await handle.signal('resume');
    await handle.result();
    await save('verification', handle);
  });
}

/** Two statements on two DCs: one runs, one fails on the second DC. */
async function recordDdl(bench: Bench, bundle: WorkflowBundle): Promise<void> {
  const taskQueue = 'ddl-test';
  const target = { already: false, algorithm: 'instant', before: '(id)', after: '(id, x)' } as const;
  const activities: DdlActivities & DdlPlanActivities = {
    planDdl: async ({ statements }) => ({
      steps: statements.map((statement, i) => ({
        ...{ number: i + 1, statement, table: 'shop.item', store: 'main', phase: 'expand', dropped: [] },
        targets: ['dc-a', 'dc-b'].map((dc) => ({ dc, ...target })),
      })),
      queues: { 'dc-a': taskQueue, 'dc-b': taskQueue },
      warnings: [],
    }),
    announceDdl: async () => undefined,
    async runDdl({ seq, dc }) {
      if (seq === 2 && dc === 'dc-b') throw ApplicationFailure.nonRetryable('Duplicate entry', 'Refused');
      return { algorithm: 'instant', found: false };
    },
    settleDdl: async () => undefined,
  };
  const worker = await Worker.create({
    connection: bench.env.nativeConnection,
    taskQueue,
    workflowBundle: bundle,
    activities,
  });
  await worker.runUntil(async () => {
    const request: DdlRequest = {
      ...{ topology: 't', stores: [], dryRun: false, startedBy: 'recorder' },
      statements: ['ALTER TABLE shop.item ADD x INT', 'ALTER TABLE shop.item ADD UNIQUE KEY one (x)'],
    };
    const handle = await bench.env.client.workflow.start('ddlChange', {
      workflowId: 'ddl/t',
      taskQueue,
      args: [request],
    });
    await handle.result();
    await save('ddl', handle);
  });
}

/** What names the machine and its folders: no history needs it to be replayed. */
function impersonal(key: string, value: unknown): unknown {
  if (key === 'identity') return 'recorder';
  return key === 'stackTrace' ? undefined : value;
}

/** One line per event. */
async function save(name: string, handle: WorkflowHandle): Promise<void> {
  const { events } = historyToJson(await handle.fetchHistory());
  const lines = events.map((event) => JSON.stringify(event, impersonal)).join(',\n');
  writeFileSync(path.join(HISTORIES, `${name}.json`), `{"events":[\n${lines}\n]}\n`);
}
