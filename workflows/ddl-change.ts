import {
  ActivityCancellationType,
  ActivityFailure,
  ApplicationFailure,
  CancellationScope,
  defineQuery,
  isCancellation,
  proxyActivities,
  setCurrentDetails,
  setHandler,
  workflowInfo,
} from '@temporalio/workflow';
import type { ErrorCode } from '../src/errors.js';
import { QUERIES } from './contract.js';
import type {
  DdlActivities,
  DdlPlan,
  DdlPlanActivities,
  DdlReport,
  DdlRequest,
  DdlStepView,
  PlannedDdl,
} from './ddl-contract.js';

const DECIDED: ErrorCode[] = ['BadInput', 'Refused', 'NeedsOperator'];
const retry = {
  initialInterval: '500 ms',
  backoffCoefficient: 2,
  maximumInterval: '10 s',
  nonRetryableErrorTypes: DECIDED,
};

const planning = proxyActivities<DdlPlanActivities>({
  startToCloseTimeout: '10 m',
  scheduleToCloseTimeout: '30 m',
  heartbeatTimeout: '10 s',
  retry: { ...retry, maximumAttempts: 5 },
});

type Proxies = ReturnType<typeof proxyActivities<DdlActivities>>;

/** What a DC does, on its own task queue. A worker that is lost comes back: only an operator knows when it will not, and cancels. */
function datacenter(taskQueue: string): { short: Proxies; long: Proxies } {
  return {
    short: proxyActivities<DdlActivities>({ taskQueue, startToCloseTimeout: '60 s', retry }),
    // An index on a large table takes hours; a worker that is lost is noticed by the heartbeat.
    long: proxyActivities<DdlActivities>({
      ...{ taskQueue, startToCloseTimeout: '7 days', heartbeatTimeout: '10 s', retry },
      // A statement that runs is not taken back: its end is waited for.
      cancellationType: ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
    }),
  };
}

/**
 * Runs statements on every DC, each once: expand on all, then contract. What is executed where is in the stores; a run that was ended is carried on
 * by another one with the same statements.
 */
export async function ddlChange(request: DdlRequest): Promise<DdlReport> {
  const run = new DdlChange(request);
  setHandler(defineQuery<DdlReport>(QUERIES.status), () => run.report(), {
    description: 'Where each statement is.',
  });
  return run.run();
}

class DdlChange {
  private readonly startedAt = workflowInfo().startTime.toISOString();
  private readonly changeId = workflowInfo().runId;
  private state: DdlReport['state'] = 'planning';
  private outcome: DdlReport['outcome'] = 'running';
  private plan: DdlPlan = { steps: [], queues: {}, warnings: [] };
  private views: DdlStepView[] = [];
  private error: DdlReport['error'] = null;
  private endedAt: string | null = null;

  constructor(private readonly request: DdlRequest) {}

  report(): DdlReport {
    return {
      workflowId: workflowInfo().workflowId,
      ...{ changeId: this.changeId, state: this.state, outcome: this.outcome, summary: this.summary() },
      ...{ steps: this.views, warnings: this.plan.warnings, error: this.error },
      ...{ startedAt: this.startedAt, endedAt: this.endedAt },
    };
  }

  async run(): Promise<DdlReport> {
    try {
      this.plan = await planning.planDdl.executeWithOptions({ summary: 'Rehearse on every store' }, [
        this.request,
      ]);
      this.views = this.plan.steps.map(viewOf);
      if (this.request.dryRun) this.outcome = 'planned';
      else await this.carryOut();
    } catch (error) {
      this.outcome = isCancellation(error) ? 'stopped' : 'failed';
      this.error = isCancellation(error) ? null : errorOf(error);
    }
    this.endedAt = new Date().toISOString();
    this.enter('ended');
    return this.report();
  }

  private async carryOut(): Promise<void> {
    const { steps } = this.plan;
    this.enter('announcing');
    try {
      // Before anything runs anywhere: a link that meets a statement must know that its other side will have it, too.
      await this.everywhere(steps, (dc, own) =>
        this.dc(dc).short.announceDdl.executeWithOptions({ summary: `Announce in ${dc}` }, [
          { changeId: this.changeId, dc, steps: own },
        ]),
      );
      this.enter('running');
      for (const [i, step] of steps.entries()) {
        for (const { dc } of step.targets) await this.execute(i, step, dc);
        await this.settle([step], i + 1, 'done');
      }
      this.outcome = 'done';
    } finally {
      // Links must not wait for what nobody carries on.
      if (this.outcome !== 'done')
        await CancellationScope.nonCancellable(() => this.settle(steps, null, 'failed'));
    }
  }

  private async execute(i: number, step: PlannedDdl, dc: string): Promise<void> {
    const view = this.views[i]!.targets.find((one) => one.dc === dc)!;
    view.state = 'running';
    this.enter('running');
    try {
      const { changeId } = this;
      const { found, algorithm } = await this.dc(dc).long.runDdl.executeWithOptions(
        { summary: `${step.statement.slice(0, 120)} (${dc} mysql/${step.store})` },
        [{ ...{ changeId, dc, step }, seq: i + 1, store: step.store }],
      );
      Object.assign(view, { state: found ? 'found' : 'executed', algorithm });
    } catch (error) {
      if (!isCancellation(error)) Object.assign(view, { state: 'failed', error: errorOf(error).message });
      throw error;
    }
  }

  private async settle(steps: PlannedDdl[], seq: number | null, state: 'done' | 'failed'): Promise<void> {
    const { changeId } = this;
    await this.everywhere(steps, (dc, own) =>
      this.dc(dc).short.settleDdl.executeWithOptions({ summary: `Record it in ${dc}: ${state}` }, [
        { ...{ changeId, dc, seq, state }, stores: [...new Set(own.map(({ store }) => store))] },
      ]),
    );
  }

  private async everywhere(
    steps: PlannedDdl[],
    work: (dc: string, own: PlannedDdl[]) => Promise<void>,
  ): Promise<void> {
    await Promise.all(Object.keys(this.plan.queues).map((dc) => work(dc, steps)));
  }

  private dc(name: string): ReturnType<typeof datacenter> {
    return datacenter(this.plan.queues[name]!);
  }

  private summary(): string {
    const targets = this.views.flatMap((view) => view.targets);
    const done = targets.filter(({ state }) => state === 'executed' || state === 'found').length;
    const count = `${done} of ${targets.length} executions`;
    switch (this.outcome) {
      case 'planned':
        return `Planned: ${this.views.length} statements, ${targets.length} executions.`;
      case 'done':
        return `Done: ${this.views.length} statements are on every side.`;
      case 'failed':
        return `Failed, ${count} are done: ${this.error?.message ?? ''}`;
      case 'stopped':
        return `Stopped, ${count} are done; run it again to go on.`;
      case 'running':
        return this.state === 'planning' ? 'Rehearsing the statements.' : `Under way: ${count}.`;
    }
  }

  private enter(state: DdlReport['state']): void {
    this.state = state;
    setCurrentDetails(
      [
        this.summary(),
        ...this.views.map(
          ({ statement, store, targets }) =>
            `- ${statement.replace(/\s+/g, ' ').slice(0, 120)} (mysql/${store}): ${targets.map((one) => `${one.dc} ${one.state}`).join(', ')}`,
        ),
      ].join('\n'),
    );
  }
}

function viewOf({ number, statement, table, store, phase, targets }: PlannedDdl): DdlStepView {
  return {
    ...{ number, statement, table, store, phase },
    targets: targets.map(({ dc, already, algorithm }) => ({
      ...{ dc, algorithm, error: null },
      state: already ? 'found' : 'waiting',
    })),
  };
}

function errorOf(error: unknown): { code: string; message: string } {
  const cause = error instanceof ActivityFailure ? error.cause : error;
  if (cause instanceof ApplicationFailure) return { code: cause.type ?? 'Internal', message: cause.message };
  return { code: 'Unavailable', message: cause instanceof Error ? cause.message : String(cause) };
}
