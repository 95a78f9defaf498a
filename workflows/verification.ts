import {
  ActivityCancellationType,
  ActivityFailure,
  ApplicationFailure,
  CancellationScope,
  allHandlersFinished,
  condition,
  continueAsNew,
  defineQuery,
  defineSignal,
  defineUpdate,
  isCancellation,
  proxyActivities,
  setCurrentDetails,
  setHandler,
  workflowInfo,
} from '@temporalio/workflow';
import type { ErrorCode } from '../src/errors.js';
import { QUERIES } from './contract.js';
import { UNTOUCHED, VERIFY_COMMANDS } from './verification-contract.js';
import type {
  VerificationActivities,
  VerifiedStore,
  VerifiedTable,
  VerifyCommand,
  VerifyPlan,
  VerifyReport,
  VerifyRequest,
} from './verification-contract.js';
import { figuresOf, inWords, isTable, nameOf, outcomeOf, summaryOf } from './verification-figures.js';
import type { Verified } from './verification-figures.js';

export interface VerificationInput extends VerifyRequest {
  /** Of the run before, when the history had become long. */
  carried?: Pick<VerifyReport, 'startedAt' | 'tables' | 'stores' | 'runId'> & {
    units: VerifyPlan['units'];
    paused: boolean;
  };
}

const DECIDED: ErrorCode[] = ['BadInput', 'Refused', 'NoRules', 'NeedsOperator'];
const retry = {
  initialInterval: '500 ms',
  backoffCoefficient: 2,
  maximumInterval: '5 s',
  nonRetryableErrorTypes: DECIDED,
};

const looking = proxyActivities<VerificationActivities>({
  startToCloseTimeout: '60 s',
  scheduleToCloseTimeout: '5 m',
  retry: { ...retry, maximumAttempts: 5 },
});

/** A slice takes seconds, and a chunk whose link is behind longer. A process that is lost is noticed by the heartbeat. */
const comparing = proxyActivities<VerificationActivities>({
  startToCloseTimeout: '15 m',
  heartbeatTimeout: '10 s',
  cancellationType: ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
  retry: { ...retry, maximumAttempts: 30 },
});

/** Characters of differences in a report: far below what Temporal takes as one payload (2 MB), whatever their bytes. */
const REPORT_LENGTH = 400_000;

const OPERATOR: Record<VerifyCommand, string> = {
  pause: 'Stop comparing; it goes on from here.',
  resume: 'Go on where it was paused.',
  stop: 'End it; what was compared is reported.',
};

/**
 * Compares the tables, or the Redis stores, that links carry, one after the other, in slices of some seconds: between them it can be paused, and
 * its status is what was compared. Ends with a report, whatever happened.
 */
export async function verification(input: VerificationInput): Promise<VerifyReport> {
  const run = new Verification(input);
  setHandler(defineQuery<VerifyReport>(QUERIES.status), () => run.status(), {
    description: 'How far each table or store is; without what differs.',
  });
  setHandler(defineQuery<VerifyReport>(QUERIES.report), () => run.report(), {
    description: 'The same, with what differs.',
  });
  for (const command of VERIFY_COMMANDS) {
    const description = OPERATOR[command];
    setHandler(defineSignal(command), () => void run.take(command), { description });
    setHandler(defineUpdate<string>(command), () => run.take(command), {
      description,
      validator: () => {
        const refusal = run.refusal(command);
        if (refusal !== null) throw ApplicationFailure.nonRetryable(refusal, 'Refused');
      },
    });
  }
  CancellationScope.current().cancelRequested.catch(() => void run.take('stop'));
  return CancellationScope.nonCancellable(async () => {
    const report = await run.run();
    await condition(allHandlersFinished);
    return report;
  });
}

class Verification {
  private readonly request: VerifyRequest;
  private readonly startedAt: string;
  private readonly runId: string;
  private wanted: 'running' | 'paused' | 'stopped';
  private state: VerifyReport['state'] = 'planning';
  private tables: VerifiedTable[];
  private stores: VerifiedStore[];
  private units: VerifyPlan['units'];
  private error: VerifyReport['error'] = null;
  private endedAt: string | null = null;
  private scope: CancellationScope | undefined;

  constructor({ carried, ...request }: VerificationInput) {
    this.request = request;
    this.startedAt = carried?.startedAt ?? workflowInfo().startTime.toISOString();
    this.runId = carried?.runId ?? workflowInfo().runId;
    this.wanted = carried?.paused === true ? 'paused' : 'running';
    this.tables = carried?.tables ?? [];
    this.stores = carried?.stores ?? [];
    this.units = carried?.units ?? null;
  }

  report(): VerifyReport {
    const { request, state, tables, stores, all, error, startedAt, endedAt } = this;
    const ended = state === 'ended';
    const outcome = ended ? outcomeOf(all, error, this.wanted === 'stopped') : 'running';
    return {
      workflowId: workflowInfo().workflowId,
      runId: this.runId,
      request,
      state,
      outcome,
      summary: summaryOf(outcome, state, all, error),
      tables,
      stores,
      ...figuresOf(all),
      error,
      startedAt,
      endedAt,
    };
  }

  status(): VerifyReport {
    const report = this.report();
    const bare = <T extends Verified>(one: T): T => ({
      ...one,
      progress: { ...one.progress, differences: [] },
    });
    return { ...report, tables: report.tables.map(bare), stores: this.stores.map(bare) };
  }

  refusal(command: VerifyCommand): string | null {
    if (this.state === 'ended') return 'The verification has ended.';
    if (this.wanted === 'stopped' && command !== 'stop') return 'The verification is stopping.';
    if (command === 'resume' && this.wanted === 'running') return 'The verification is not paused.';
    return null;
  }

  take(command: VerifyCommand): string {
    const refusal = this.refusal(command);
    if (refusal !== null) return refusal;
    this.wanted = command === 'pause' ? 'paused' : command === 'resume' ? 'running' : 'stopped';
    if (this.wanted !== 'running' && this.scope !== undefined) {
      this.enter(this.wanted === 'paused' ? 'pausing' : 'stopping');
      this.scope.cancel();
    }
    if (command === 'resume') return 'The verification goes on.';
    return command === 'pause'
      ? 'The verification pauses behind the chunk it is at.'
      : 'The verification stops.';
  }

  private get all(): Verified[] {
    return [...this.tables, ...this.stores];
  }

  async run(): Promise<VerifyReport> {
    if (this.all.length === 0) await this.plan();
    for (let next = this.next(); next !== undefined && !this.stopped(); next = this.next()) {
      if (this.wanted === 'paused') {
        this.enter('paused');
        await condition(() => this.wanted !== 'paused' || workflowInfo().continueAsNewSuggested);
      } else await this.slice(next);
      if (!this.stopped() && workflowInfo().continueAsNewSuggested) await this.again();
    }
    this.endedAt = new Date().toISOString();
    this.enter('ended');
    const report = this.report();
    // The report is in the result, too: a store that does not take it is no reason to lose it.
    await looking.recordVerification
      .executeWithOptions({ summary: 'Keep the report in the control stores' }, [report])
      .catch(() => undefined);
    return report;
  }

  private next(): Verified | undefined {
    return this.error === null ? this.all.find(({ progress }) => !progress.done) : undefined;
  }

  private stopped(): boolean {
    return this.wanted === 'stopped';
  }

  private async plan(): Promise<void> {
    this.enter('planning');
    try {
      const plan = await looking.planVerification.executeWithOptions({ summary: 'Find what to compare' }, [
        this.request,
      ]);
      this.units = plan.units;
      this.stores = plan.stores ?? [];
      this.tables = plan.tables.map((table) => ({
        ...table,
        progress:
          table.obstacle === null ? UNTOUCHED : { ...UNTOUCHED, done: true, notComparable: table.obstacle },
      }));
    } catch (error) {
      this.error = errorOf(error);
    }
  }

  private async slice(one: Verified): Promise<void> {
    this.enter('running');
    const scope = (this.scope = new CancellationScope());
    try {
      await scope.run(() => (isTable(one) ? this.compareTable(one) : this.compareStore(one)));
    } catch (error) {
      if (isCancellation(error)) return;
      const failed = { done: true, notComparable: errorOf(error).message };
      if (isTable(one)) one.progress = { ...one.progress, ...failed };
      else one.progress = { ...one.progress, ...failed };
    } finally {
      this.scope = undefined;
      this.enter(this.state);
    }
  }

  private async compareTable(one: VerifiedTable): Promise<void> {
    const { keep, repair } = this.request;
    const { table, links, progress } = one;
    one.progress = await comparing.compareTable.executeWithOptions(
      { summary: `Compare ${nameOf(one)}, ${inWords(one)}` },
      [{ table, links, units: this.units, repair, keep, keepLength: this.room(one), progress }],
    );
  }

  private async compareStore(one: VerifiedStore): Promise<void> {
    const { keep, repair, redis } = this.request;
    one.progress = await comparing.compareStore.executeWithOptions(
      { summary: `Compare ${nameOf(one)}, ${inWords(one)}` },
      [{ ...one, redis: redis!, units: this.units, repair, keep, keepLength: this.room(one) }],
    );
  }

  /** What the differences of one table or store may take of what a report can carry. */
  private room(one: Verified): number {
    const others = this.all.filter((other) => other !== one && other.progress.differences.length > 0);
    const used = others.reduce((sum, { progress }) => sum + JSON.stringify(progress.differences).length, 0);
    return Math.max(0, REPORT_LENGTH - used);
  }

  private async again(): Promise<void> {
    await condition(allHandlersFinished);
    const { startedAt, tables, stores, units, runId } = this;
    const paused = this.wanted === 'paused';
    await continueAsNew<typeof verification>({
      ...this.request,
      carried: { startedAt, tables, stores, units, runId, paused },
    });
  }

  private enter(state: VerifyReport['state']): void {
    this.state = state;
    const { summary } = this.report();
    const lines = this.all.map((one) => `- ${nameOf(one)}: ${inWords(one)}`);
    setCurrentDetails([summary, ...lines.slice(0, 200)].join('\n'));
  }
}

function errorOf(error: unknown): { code: string; message: string } {
  const cause = error instanceof ActivityFailure ? error.cause : error;
  if (cause instanceof ApplicationFailure) return { code: cause.type ?? 'Internal', message: cause.message };
  return { code: 'Unavailable', message: cause instanceof Error ? cause.message : String(cause) };
}
