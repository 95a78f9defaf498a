import {
  ActivityFailure,
  ApplicationFailure,
  CancellationScope,
  CancelledFailure,
  ActivityCancellationType,
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
import type { ReplicatorActivities } from '../activities/replicator.js';
import type { LinkStatus } from '../replicators/core/contract.js';

export interface ReplicatorInput {
  /** `mysql/main:dc-a>dc-b`. */
  link: string;
  /** Of the target DC's workers. */
  taskQueue: string;
  /** For a link without a checkpoint: `now` or a position of the source. */
  from?: string;
  discardCheckpoint?: boolean;
  /** For a link without a checkpoint: copy its tables from the live source. */
  copy?: boolean;
  maxRowsPerSecond?: number;
  /** Of the run before, when the history had become long. */
  carried?: Pick<ReplicatorView, 'state' | 'lastStatus' | 'lastError'>;
}

export type ReplicatorState = 'initialising' | 'running' | 'pausing' | 'paused' | 'failed' | 'stopped';

/** Query `status`. While the link runs, its live status is in the heartbeat of the activity. */
export interface ReplicatorView {
  link: string;
  state: ReplicatorState;
  /** What it was when the activity ended last. */
  lastStatus: LinkStatus | null;
  lastError: { code: string; message: string } | null;
  /** What an operator should do; null when nothing. */
  next: string | null;
}

export type ReplicatorCommand = 'pause' | 'resume' | 'stop';
const COMMANDS: Record<ReplicatorCommand, string> = {
  pause: 'Pause; what is committed stays.',
  resume: 'Go on from the checkpoint.',
  stop: 'End the link; its checkpoint stays.',
};

/** Update `resync`: tables to copy again, all when null. */
export interface ResyncRequest {
  tables: string[] | null;
  maxRowsPerSecond?: number;
}

/** Errors that another attempt cannot mend. */
const FINAL = ['LinkStopped', 'HeldByOther', 'NeedsOperator', 'Refused', 'BadInput'];

/**
 * The life of one link: makes its checkpoint, runs it as one long activity, and waits, paused or failed, for a person. It holds no position:
 * that is in the target. Ends by `stop`, by a cancel, or when the link could not even be initialised.
 */
export async function replicator(input: ReplicatorInput): Promise<ReplicatorView> {
  const life = new Replicator(input);
  setHandler(defineQuery<ReplicatorView>('status'), () => life.view());
  setHandler(
    defineUpdate<string, [ResyncRequest]>('resync'),
    (request: ResyncRequest) => life.takeResync(request),
    {
      description: 'Copy tables again.',
      validator: (request: ResyncRequest) => {
        const refusal = life.refusal('resume') ?? life.refusalOfResync(request);
        if (refusal !== null) throw ApplicationFailure.nonRetryable(refusal, 'Refused');
      },
    },
  );
  for (const [command, description] of Object.entries(COMMANDS) as [ReplicatorCommand, string][]) {
    setHandler(defineSignal(command), () => void life.take(command), { description });
    setHandler(defineUpdate<string>(command), () => life.take(command), {
      description,
      validator: () => {
        const refusal = life.refusal(command);
        if (refusal !== null) throw ApplicationFailure.nonRetryable(refusal, 'Refused');
      },
    });
  }
  CancellationScope.current().cancelRequested.catch(() => void life.take('stop'));
  return CancellationScope.nonCancellable(async () => {
    await life.run();
    await condition(allHandlersFinished);
    return life.view();
  });
}

class Replicator {
  private state: ReplicatorState;
  private wanted: 'running' | 'paused' | 'stopped';
  private lastStatus: LinkStatus | null;
  private lastError: { code: string; message: string } | null;
  private scope: CancellationScope | undefined;
  private resync: ResyncRequest | null = null;
  private resyncError: { code: string; message: string } | null = null;
  private wantedBefore: 'running' | 'paused' | 'stopped' = 'running';
  private readonly activities;

  constructor(private readonly input: ReplicatorInput) {
    const carried = input.carried;
    this.state = carried?.state ?? 'initialising';
    this.wanted = carried?.state === 'paused' || carried?.state === 'failed' ? 'paused' : 'running';
    this.lastStatus = carried?.lastStatus ?? null;
    this.lastError = carried?.lastError ?? null;
    const { taskQueue } = input;
    const retry = {
      initialInterval: '200 ms',
      backoffCoefficient: 2,
      maximumInterval: '2 s',
      nonRetryableErrorTypes: FINAL,
    };
    const { initialiseLink } = proxyActivities<ReplicatorActivities>({
      taskQueue,
      startToCloseTimeout: '60 s',
      retry,
    });
    // Unlimited in time. A worker that is gone is noticed by the heartbeat, and the link goes on in another process.
    const { runLink } = proxyActivities<ReplicatorActivities>({
      taskQueue,
      startToCloseTimeout: '3650 days',
      heartbeatTimeout: '4 s',
      cancellationType: ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
      retry,
    });
    this.activities = { initialiseLink, runLink };
  }

  view(): ReplicatorView {
    const { link } = this.input;
    const { state, lastStatus, lastError } = this;
    return { link, state, lastStatus, lastError, next: this.next() };
  }

  private next(): string | null {
    const { link } = this.input;
    if (this.state === 'paused') return `interlock replicate resume ${link}`;
    // Going on at the checkpoint meets the same hole again.
    if (this.state === 'failed' && this.lastStatus?.state === 'resync-required')
      return `interlock replicate resync ${link}`;
    if (this.state === 'failed') return `mend what the error says, then: interlock replicate resume ${link}`;
    return null;
  }

  refusal(command: ReplicatorCommand): string | null {
    if (this.wanted === 'stopped' && command !== 'stop') return `${this.input.link} is stopping`;
    if (command === 'pause' && this.state === 'failed')
      return `${this.input.link} has failed and does not run`;
    return null;
  }

  refusalOfResync(request: Partial<ResyncRequest> | undefined): string | null {
    const tables = request?.tables;
    const named =
      Array.isArray(tables) && tables.length > 0 && tables.every((name) => typeof name === 'string');
    if (tables !== null && !named) return 'tables: expected names (schema.table), or null for all';
    return this.resync === null ? null : `${this.input.link} is ordering a resync`;
  }

  take(command: ReplicatorCommand): string {
    const { link } = this.input;
    if (this.refusal(command) !== null) return this.refusal(command)!;
    this.wanted = command === 'pause' ? 'paused' : command === 'resume' ? 'running' : 'stopped';
    // Hazard: an initialisation that a pause cancels would be skipped by the resume, and `from` with it. It ends first.
    const ends = this.state === 'initialising' ? command === 'stop' : this.wanted !== 'running';
    if (ends && this.scope !== undefined) {
      if (this.state === 'running') this.enter('pausing');
      this.scope.cancel();
    }
    if (command === 'resume') return `${link} resumes from its checkpoint.`;
    return command === 'pause' ? `${link} pauses.` : `${link} stops; its checkpoint stays.`;
  }

  /** Answers when the copy is ordered; fails, and the link goes on as it was, when it cannot be. */
  async takeResync(request: ResyncRequest): Promise<string> {
    const { link } = this.input;
    if (this.resync !== null)
      throw ApplicationFailure.nonRetryable(`${link} is ordering a resync`, 'Refused');
    this.resync = request;
    this.wantedBefore = this.wanted;
    // The tables are ordered while nothing runs: an attempt reads its orders when it begins.
    this.wanted = 'running';
    if (this.state === 'running') {
      this.enter('pausing');
      this.scope?.cancel();
    }
    await condition(() => this.resync === null);
    const error = this.resyncError;
    if (error !== null) throw ApplicationFailure.nonRetryable(error.message, error.code);
    const what = request.tables === null ? 'all its tables' : request.tables.join(', ');
    return `${link} copies ${what} again.`;
  }

  private async orderResync(request: ResyncRequest): Promise<void> {
    const { tables, maxRowsPerSecond } = request;
    this.resyncError = null;
    try {
      await this.activities.initialiseLink({
        link: this.input.link,
        resync: { tables },
        ...(maxRowsPerSecond !== undefined && { maxRowsPerSecond }),
      });
    } catch (error) {
      this.resyncError = errorOf(error);
      if (!this.stopAsked()) this.wanted = this.wantedBefore;
    }
    this.resync = null;
  }

  async run(): Promise<void> {
    if (this.state === 'initialising') await this.initialise();
    while (this.wanted !== 'stopped') {
      if (this.resync !== null) await this.orderResync(this.resync);
      else if (this.wanted === 'paused') {
        if (this.state !== 'failed') this.enter('paused');
        await condition(
          () => this.wanted !== 'paused' || this.resync !== null || workflowInfo().continueAsNewSuggested,
        );
      } else await this.carry();
      if (!this.stopAsked() && workflowInfo().continueAsNewSuggested) await this.again();
    }
    this.enter('stopped');
  }

  /** A link that cannot even begin fails as a workflow, so that `start` with other flags is the next thing to do. */
  private async initialise(): Promise<void> {
    this.enter('initialising');
    const { link, from, discardCheckpoint, copy, maxRowsPerSecond } = this.input;
    const scope = (this.scope = new CancellationScope());
    try {
      await scope.run(() =>
        this.activities.initialiseLink({
          link,
          ...(from !== undefined && { from }),
          ...(discardCheckpoint !== undefined && { discardCheckpoint }),
          ...(copy !== undefined && { copy }),
          ...(maxRowsPerSecond !== undefined && { maxRowsPerSecond }),
        }),
      );
    } catch (error) {
      if (!isCancellation(error)) {
        const { code, message } = errorOf(error);
        throw ApplicationFailure.nonRetryable(message, code);
      }
    } finally {
      this.scope = undefined;
    }
  }

  private async carry(): Promise<void> {
    this.lastError = null;
    this.enter('running');
    const scope = (this.scope = new CancellationScope());
    try {
      this.lastStatus = await scope.run(() => this.activities.runLink({ link: this.input.link }));
    } catch (error) {
      if (isCancellation(error)) {
        // A link that stands still needs its source's binlog all the same: its status says from where on.
        this.lastStatus = statusOf(error) ?? this.lastStatus;
        this.enter('paused');
        return;
      }
      this.lastError = errorOf(error);
      this.lastStatus = statusOf(error) ?? this.lastStatus;
      // Hazard: going on by itself would meet the same change again, or skip it. A person decides.
      if (!this.stopAsked()) this.wanted = 'paused';
      this.enter('failed');
    } finally {
      this.scope = undefined;
    }
  }

  private stopAsked(): boolean {
    return this.wanted === 'stopped';
  }

  private async again(): Promise<void> {
    await condition(allHandlersFinished);
    const { state, lastStatus, lastError } = this;
    const { link, taskQueue } = this.input;
    await continueAsNew<typeof replicator>({ link, taskQueue, carried: { state, lastStatus, lastError } });
  }

  private enter(state: ReplicatorState): void {
    this.state = state;
    const words: Record<ReplicatorState, string> = {
      initialising: `Looks at both sides of ${this.input.link}.`,
      running: `Carries changes. Lag, position and rates are in the heartbeat of the activity runLink.`,
      pausing: 'Pauses: waits until the running batch is committed.',
      paused: `Paused. Next: ${this.next() ?? ''}`,
      failed: `**Stopped on an error** (${this.lastError?.code ?? ''}): ${this.lastError?.message ?? ''}\n\nNext: ${this.next() ?? ''}`,
      stopped: 'Stopped. The checkpoint stays in the target.',
    };
    setCurrentDetails(words[state]);
  }
}

function failureOf(error: unknown): ApplicationFailure | undefined {
  const cause = error instanceof ActivityFailure ? error.cause : error;
  return cause instanceof ApplicationFailure ? cause : undefined;
}

function errorOf(error: unknown): { code: string; message: string } {
  const failure = failureOf(error);
  if (failure) return { code: failure.type ?? 'Internal', message: failure.message };
  if (error instanceof ActivityFailure)
    return { code: 'Unavailable', message: error.cause?.message ?? error.message };
  throw error;
}

function statusOf(error: unknown): LinkStatus | undefined {
  const cause = error instanceof ActivityFailure ? error.cause : error;
  if (!(cause instanceof ApplicationFailure) && !(cause instanceof CancelledFailure)) return undefined;
  const details = cause.details?.[0] as { status?: LinkStatus } | undefined;
  return details?.status ?? undefined;
}
