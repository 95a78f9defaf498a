import { randomUUID } from 'node:crypto';
import { setTimeout as wait } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { Context } from '@temporalio/activity';
import { QueryNotRegisteredError } from '@temporalio/client';
import type { WorkflowHandle, WorkflowStartOptions } from '@temporalio/client';
import type { TestWorkflowEnvironment } from '@temporalio/testing';
import { DefaultLogger, Runtime, Worker, bundleWorkflowCode } from '@temporalio/worker';
import type { WorkflowBundle } from '@temporalio/worker';
import { DEFAULT_POLICIES } from '../../workflows/contract.js';
import type {
  ControlActivities,
  DatacenterActivities,
  SwitchPolicies,
  SwitchReport,
  SwitchRequest,
  SwitchStatus,
} from '../../workflows/contract.js';
import { realTimeEnvironment, timeSkippingEnvironment } from '../support/temporal.js';
import { World } from './model.js';
import type { ActivityName } from './model.js';
import { skip } from './skipped-time.js';

export const QUEUE = 'switchover-test';
const QUIET_POLLS = 3;
const STEP_MS = 500;

/** One Temporal with a worker, on which many switchovers of many worlds run one after the other. */
export class Bench {
  private count = 0;
  private readonly worlds = new Map<string, World>();
  private readonly workers: { worker: Worker; ended: Promise<void> }[] = [];

  private constructor(
    readonly env: TestWorkflowEnvironment,
    private readonly bundle: WorkflowBundle,
    /** Real time: nothing skips, the driver only waits. */
    private readonly skips: boolean,
  ) {}

  static async create(time: 'skipping' | 'real' = 'skipping'): Promise<Bench> {
    try {
      Runtime.install({
        logger: new DefaultLogger('ERROR'),
        telemetryOptions: { logging: { filter: 'off' } },
      });
    } catch {
      // Another bench of this process has installed it.
    }
    const path = fileURLToPath(new URL('../../workflows/index.ts', import.meta.url));
    const bundle = await bundleWorkflowCode({ workflowsPath: path, logger: new DefaultLogger('ERROR') });
    const env = await (time === 'skipping' ? timeSkippingEnvironment() : realTimeEnvironment());
    const bench = new Bench(env, bundle, time === 'skipping');
    await bench.work(QUEUE);
    return bench;
  }

  /** Another worker, on a queue. */
  async work(taskQueue: string): Promise<() => Promise<void>> {
    const worker = await Worker.create({
      connection: this.env.nativeConnection,
      taskQueue,
      workflowBundle: this.bundle,
      activities: this.activities(),
      shutdownForceTime: '2 s',
      stickyQueueScheduleToStartTimeout: '200 ms',
    });
    const entry = { worker, ended: worker.run() };
    this.workers.push(entry);
    return async () => {
      this.workers.splice(this.workers.indexOf(entry), 1);
      worker.shutdown();
      await entry.ended;
    };
  }

  /** The first worker is lost, another one comes when `meanwhile` is over. */
  async replaceWorker(meanwhile?: () => Promise<void>): Promise<void> {
    const [lost] = this.workers.splice(0, 1);
    lost!.worker.shutdown();
    await lost!.ended;
    await meanwhile?.();
    await this.work(QUEUE);
  }

  async close(): Promise<void> {
    for (const { worker } of this.workers) worker.shutdown();
    await Promise.all(this.workers.map(({ ended }) => ended));
    await this.env.teardown();
  }

  world(): World {
    const world = new World(`t${++this.count}`, this.env);
    this.worlds.set(world.workflowId, world);
    return world;
  }

  /** Two topologies of the same stores: `other`'s runs act in `world`. */
  share(world: World, other: World): void {
    this.worlds.set(other.workflowId, world);
  }

  get queue(): string {
    return QUEUE;
  }

  start(world: World, change: Change = {}, options: Timeouts = {}): Promise<Run> {
    return this.startAs(world, world.workflowId, change, options);
  }

  /** Under another workflow id, in the same world. */
  async startAs(world: World, workflowId: string, change: Change = {}, options: Timeouts = {}): Promise<Run> {
    this.worlds.set(workflowId, world);
    const { policies, ...request } = change;
    const input: SwitchRequest = {
      topology: world.topology,
      scope: 'cn-east/0-1',
      from: 'dc-a',
      to: 'dc-b',
      reason: 'test',
      startedBy: 'tester',
      taskQueues: { 'dc-a': QUEUE, 'dc-b': QUEUE },
      policies: { ...DEFAULT_POLICIES, drainTimeoutMs: 30_000, ...policies },
      ...request,
    };
    const handle = await this.env.client.workflow.start('switchover', {
      workflowId,
      taskQueue: QUEUE,
      args: [input],
      // A task that a lost worker had taken comes again after this.
      workflowTaskTimeout: '2 s',
      ...options,
    });
    return this.run(world, handle.firstExecutionRunId, workflowId);
  }

  /** Temporal's reset: the run ends, and another one goes on from behind one of its completed workflow tasks. */
  async reset(run: Run, task: 'first' | 'last' | number): Promise<Run> {
    const { events } = await run.handle.fetchHistory();
    const completed = (events ?? []).filter((event) => event.workflowTaskCompletedEventAttributes);
    const finished = task === 'first' ? completed[0] : task === 'last' ? completed.at(-1) : completed[task];
    const { workflowService, options } = this.env.client;
    const { runId } = await workflowService.resetWorkflowExecution({
      namespace: options.namespace,
      workflowExecution: { workflowId: run.world.workflowId, runId: run.runId },
      reason: 'test',
      requestId: randomUUID(),
      workflowTaskFinishEventId: finished!.eventId!,
    });
    return this.run(run.world, runId);
  }

  run(world: World, runId: string, workflowId = world.workflowId): Run {
    const handle = this.env.client.workflow.getHandle(workflowId, runId);
    return new Run(this.env, world, handle, runId, this.skips);
  }

  private activities(): DatacenterActivities & ControlActivities {
    const route = (name: ActivityName) => (input: never) => {
      const { workflowExecution } = Context.current().info;
      const world = this.worlds.get(workflowExecution!.workflowId);
      if (!world) throw new Error(`no world for ${workflowExecution!.workflowId}`);
      return (world.activities[name] as (input: never) => Promise<unknown>)(input);
    };
    const world = new World('names', this.env);
    const names = Object.keys(world.activities) as ActivityName[];
    return Object.fromEntries(names.map((n) => [n, route(n)])) as unknown as DatacenterActivities &
      ControlActivities;
  }
}

type Timeouts = Pick<WorkflowStartOptions, 'workflowRunTimeout' | 'workflowExecutionTimeout'>;
export type Change = Partial<Omit<SwitchRequest, 'policies'>> & { policies?: Partial<SwitchPolicies> };

/** One run, driven: time passes only when nothing happens any more. */
export class Run {
  constructor(
    private readonly env: TestWorkflowEnvironment,
    readonly world: World,
    readonly handle: WorkflowHandle,
    readonly runId: string,
    private readonly skips: boolean,
  ) {}

  /** The test server answers a query of a run that has not had its first turn by the handlers that are not there yet. */
  async status(): Promise<SwitchStatus> {
    for (let attempt = 0; ; attempt++) {
      try {
        return await this.handle.query<SwitchStatus>('status');
      } catch (error) {
        if (!(error instanceof QueryNotRegisteredError) || attempt > 500) throw error;
        await wait(10);
      }
    }
  }

  /** Lets the run go on until `until`; fails when it takes more than an hour of its own time. */
  async drive(until: (status: SwitchStatus) => boolean, limitMs = 3_600_000): Promise<SwitchStatus> {
    let quiet = 0;
    let calls = -1;
    let seen = '';
    let passedMs = 0;
    let stepMs = STEP_MS;
    for (;;) {
      if (this.world.calls.length !== calls || this.world.pending > 0) {
        calls = this.world.calls.length;
        quiet = 0;
        stepMs = STEP_MS;
        await wait(4);
        continue;
      }
      const status = await this.status();
      if (until(status)) return status;
      const now = JSON.stringify(status);
      if (now !== seen) quiet = 0;
      seen = now;
      if (++quiet < QUIET_POLLS || !this.skips) {
        await wait(this.skips ? 4 : 20);
        passedMs += this.skips ? 0 : 20;
      } else {
        await skip(this.env, stepMs);
        passedMs += stepMs;
        stepMs = Math.min(stepMs * 2, 10_000);
      }
      if (passedMs > limitMs) {
        throw new Error(
          `does not get there: ${JSON.stringify(status, null, 1)}\n${this.world.calls.join(' ')}`,
        );
      }
    }
  }

  /** Until the soak begins, or the end. */
  async settle(): Promise<SwitchStatus> {
    return this.drive((s) => s.awaiting === 'rollback-or-finish' || s.outcome !== 'running');
  }

  /** The report, when the run has ended by itself (the soak passes). */
  async end(): Promise<SwitchReport> {
    await this.drive((s) => s.outcome !== 'running' && this.world.pending === 0);
    return (await this.handle.result()) as SwitchReport;
  }

  update(name: string): Promise<string> {
    return this.handle.executeUpdate<string, []>(name);
  }
}
