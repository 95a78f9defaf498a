import {
  ApplicationFailure,
  CancellationScope,
  allHandlersFinished,
  condition,
  defineQuery,
  defineSignal,
  defineUpdate,
  isCancellation,
  patched,
  setHandler,
  sleep,
  workflowInfo,
} from '@temporalio/workflow';
import type { BaselineReached } from '../replicators/core/contract.js';
import type { Rules } from '../src/routing/rules.js';
import { QUERIES, SETTLED, SIGNALS } from './contract.js';
import type {
  Check,
  GatewayTotals,
  SwitchPlan,
  SwitchReport,
  SwitchRequest,
  SwitchStatus,
} from './contract.js';
import { glancing, looking, waiting } from './switchover-activities.js';
import { Aborted, Refusal, isTimeout, stepError } from './switchover-errors.js';
import type { StepError } from './switchover-errors.js';
import { HandOver, backoffMs } from './switchover-handover.js';
import type { Run } from './switchover-handover.js';
import { Logbook } from './switchover-logbook.js';
import { decide } from './switchover-machine.js';
import type { Request, SwitchEvent } from './switchover-machine.js';
import { checkRequest } from './switchover-request.js';

const baselineReached = defineSignal<[BaselineReached]>(SIGNALS.baselineReached);
const status = defineQuery<SwitchStatus>(QUERIES.status);
const report = defineQuery<SwitchReport>(QUERIES.report);
const settled = defineUpdate<SwitchStatus>(SETTLED);
/** What some servers write for no time-out. */
const TEN_YEARS_MS = 3_650 * 86_400_000;
const OPERATOR: Record<Exclude<Request, 'cancel'>, string> = {
  abort: 'Give up before the switch; the source opens again.',
  rollback: 'Move the units back, during the soak.',
  finish: 'End the soak; the move stays.',
  extend: 'Let the links drain for their time once more.',
};

/**
 * Moves the ownership of a scope's units from one data center to the other (nine steps, docs/switchover.md) and ends with the
 * report, whatever happened: its `outcome` says what stands. Fails only for input that can never be carried out.
 */
export async function switchover(request: SwitchRequest): Promise<SwitchReport> {
  const info = workflowInfo();
  // Hazard: a server-side time-out ends the run without its compensation, and the units stay fenced.
  const timeoutMs = Math.min(info.runTimeoutMs ?? Infinity, info.executionTimeoutMs ?? Infinity);
  if (timeoutMs < TEN_YEARS_MS) {
    throw badInput(
      'A switchover takes no workflow run or execution timeout: it would skip the compensation. Start it without.',
    );
  }
  const problem = checkRequest(request);
  if (problem) throw badInput(problem);
  const run = new Switchover(request);
  // Handlers are set before the first await: a signal that is there at the start is not lost.
  setHandler(status, () => run.log.status(), { description: 'Where it is, and what it waits for.' });
  setHandler(report, () => run.log.report, { description: 'All steps with times, figures and findings.' });
  setHandler(baselineReached, (signal) => run.handOver?.baselineReached(signal), {
    description: 'From a link, when it has committed a marker; not for people.',
  });
  const settle = async (): Promise<SwitchStatus> => {
    await condition(() => run.log.settled());
    return run.log.status();
  };
  setHandler(settled, settle, { description: 'Answers when nothing more happens by itself soon.' });
  for (const [name, description] of Object.entries(OPERATOR) as [Exclude<Request, 'cancel'>, string][]) {
    setHandler(defineSignal(name), () => void run.ask(name), { description });
    setHandler(defineUpdate<string>(name), () => run.ask(name).text, {
      description,
      validator: () => {
        const decision = decide(run.log.phase, name);
        if (!decision.accepted) throw ApplicationFailure.nonRetryable(decision.refusal, 'Refused');
      },
    });
  }
  CancellationScope.current().cancelRequested.catch(() => void run.ask('cancel'));
  // Everything runs shielded: Temporal's cancel is a request like the others, and never ends a compensation.
  return CancellationScope.nonCancellable(async () => {
    const result = await run.run();
    await condition(allHandlersFinished);
    return result;
  });
}

/** `interlock switch plan`: step 1 alone. Changes nothing. */
export async function planSwitch(request: SwitchRequest): Promise<SwitchPlan> {
  const problem = checkRequest(request);
  if (problem) throw badInput(problem);
  try {
    return await looking.makePlan.executeWithOptions({ summary: `Plan ${request.scope}` }, [request]);
  } catch (error) {
    const { code, message } = stepError(error);
    throw ApplicationFailure.nonRetryable(message, code);
  }
}

function badInput(message: string): ApplicationFailure {
  return ApplicationFailure.nonRetryable(message, 'BadInput');
}

class Switchover implements Run {
  readonly log: Logbook;
  readonly holder;
  readonly policies;
  readonly taskQueues;
  readonly reason: string;
  handOver: HandOver | undefined;
  private abortAsked = false;
  private scope: CancellationScope | undefined;
  private readonly wasReset: boolean;
  private behindReset = false;
  private resetChecks = 0;
  private lastEpoch = 0;

  constructor(private readonly request: SwitchRequest) {
    const { workflowId, runId, originalExecutionRunId } = workflowInfo();
    this.holder = { workflowId, runId };
    this.wasReset = runId !== originalExecutionRunId;
    this.policies = request.policies;
    this.taskQueues = request.taskQueues;
    this.reason = request.reason;
    this.log = new Logbook(request, this.holder);
  }

  async run(): Promise<SwitchReport> {
    let plan: SwitchPlan;
    let move: HandOver;
    try {
      await this.mend();
      plan = await this.plan();
      this.event('planned');
      move = await this.prepare(plan);
    } catch (error) {
      return this.giveUp(stepError(error));
    }
    const before = await this.totals();
    const result = await move.move();
    if (!result.moved) {
      this.event('undone');
      this.log.fail(result.error);
      const aborted = result.error.code === 'Aborted';
      const why = aborted ? 'Aborted' : `Failed: ${result.error.message}`;
      const words = `${why}. All units are open in ${plan.from} again.`;
      return this.end(aborted ? 'aborted' : 'compensated', words, before);
    }
    await this.confirmAndCheck(move);
    this.event('moved');
    return this.soak(plan, move, before);
  }

  /** An operator's request, or Temporal's cancel. The machine decides; the answer is in words. */
  ask(request: Request): { accepted: boolean; text: string } {
    const { phase } = this.log;
    const decision = decide(phase, request);
    if (!decision.accepted) {
      this.log.say(
        `${this.log.report.summary.replace(/ \[.*\]$/, '')} [${request} was refused: ${decision.refusal}]`,
      );
      return { accepted: false, text: decision.refusal };
    }
    this.log.phase = decision.phase;
    const aborts = request === 'abort' || (request === 'cancel' && decide(phase, 'abort').accepted);
    if (aborts) {
      this.abortAsked = true;
      this.scope?.cancel();
    }
    // What was aborted before is over; from here on an abort is the rollback's, also before rollBack() has begun.
    if (request === 'rollback') this.abortAsked = false;
    if (request === 'extend') this.handOver?.extend();
    this.log.say(decision.say);
    return { accepted: true, text: decision.say };
  }

  event(event: SwitchEvent): void {
    const decision = decide(this.log.phase, event);
    if (!decision.accepted) throw new Error(`Switchover: ${event} refused: ${decision.refusal}`);
    this.log.phase = decision.phase;
  }

  aborting(): boolean {
    return this.abortAsked;
  }

  /**
   * Hazard: what the run did before the point to which it was reset is replayed as it was done, by a run that had not been reset:
   * a look at the run's ids alone decides otherwise there, and the run is stuck. `patched` is false for what is replayed without its
   * mark (each look has its own), and leaves one from there on.
   */
  forgets(): boolean {
    if (this.wasReset && !this.behindReset) this.behindReset = patched(`reset ${++this.resetChecks}`);
    return this.behindReset;
  }

  async interruptible<T>(run: () => Promise<T>): Promise<T> {
    if (this.abortAsked) throw new Aborted('aborted');
    const scope = new CancellationScope();
    this.scope = scope;
    try {
      return await scope.run(run);
    } catch (error) {
      if (isCancellation(error) && this.abortAsked) throw new Aborted('aborted');
      throw error;
    } finally {
      this.scope = undefined;
    }
  }

  nextEpoch(floor: number): number {
    this.lastEpoch = Math.max(floor, this.lastEpoch + 1);
    return this.lastEpoch;
  }

  /** What an earlier run left between two owners comes first: this run could not fence it, and nobody may write it. */
  private async mend(): Promise<void> {
    const held = await this.interruptible(() =>
      looking.findHeld.executeWithOptions(
        { summary: 'Look for units that an earlier run left write-disabled' },
        [{ topology: this.request.topology, holder: this.holder }],
      ),
    );
    for (const { units, from, to, holder, holderClosed } of held) {
      const who = holder ? `run ${holder.runId} of ${holder.workflowId}` : 'an unknown holder';
      const what = `${units.length} units of ${from} (${units.slice(0, 3).join(', ')}${units.length > 3 ? ', …' : ''}) are held by ${who}`;
      if (!holderClosed) {
        throw new Refusal({
          code: 'NeedsOperator',
          message: `${what}, which is not closed. Run \`interlock fence status\`, then \`interlock fence release\`.`,
        });
      }
      this.log.say(`${what}, which is closed: mending.`);
      const scope = { from, to, units, links: [], base: await this.rules(units) };
      await new HandOver(this, scope, { holder }).mend();
    }
  }

  private async rules(units: string[]): Promise<Rules> {
    const input = { units, holder: this.holder };
    return (await looking.nextEpoch.executeWithOptions({ summary: 'Rules in force' }, [input])).rules;
  }

  // Step 1.
  private async plan(): Promise<SwitchPlan> {
    const { request } = this;
    const plan = await this.log.step(
      'plan',
      `Planning ${request.scope}: ${request.from} → ${request.to}.`,
      (detail) =>
        this.interruptible(async () => {
          const made = await looking.makePlan.executeWithOptions({ summary: `Plan ${request.scope}` }, [
            request,
          ]);
          if (request.planHash !== undefined && request.planHash !== made.hash) {
            throw new Refusal({
              code: 'Refused',
              message: `The world has changed since plan ${request.planHash} was made; it is ${made.hash} now. Run \`interlock switch plan\` again.`,
            });
          }
          refuseUnless(made.checks);
          detail(`${made.diff.join('; ')} (plan ${made.hash})`);
          return made;
        }),
    );
    Object.assign(this.log.report, { planHash: plan.hash, diff: plan.diff, unitCount: plan.units.length });
    return plan;
  }

  // Steps 2 and 3, and the epochs, so that the window needs none of them.
  private async prepare(plan: SwitchPlan): Promise<HandOver> {
    const { from, to, units, links, rules } = plan;
    const wholeDc = plan.scope === `dc:${from}`;
    const handOver = new HandOver(this, { from, to, units, links, base: rules, wholeDc });
    this.handOver = handOver;
    await this.log.step('preflight', `Checking ${from} and ${to}.`, (detail) =>
      this.interruptible(async () => {
        const checks = await Promise.all(
          [from, to].map((dc) =>
            answerOf(
              dc,
              looking.preflight.executeWithOptions(
                { taskQueue: this.taskQueues[dc]!, summary: `Preflight of ${dc}` },
                [{ dc, plan }],
              ),
            ),
          ),
        );
        refuseUnless(checks.flat());
        detail(`${checks.flat().length} checks`);
      }),
    );
    await this.log.step(
      'catch-up',
      `Waiting for the links ${from} → ${to} to be less than ${this.policies.lagLimitMs} ms behind.`,
      (detail) =>
        this.interruptible(async () => {
          const caughtUp = await waiting.catchUp.executeWithOptions(
            {
              taskQueue: this.taskQueues[to]!,
              scheduleToCloseTimeout: this.policies.catchUpTimeoutMs,
              summary: `Catch up ${links.length} links ${from} → ${to}`,
            },
            [{ links: links.map((l) => l.link), lagLimitMs: this.policies.lagLimitMs }],
          );
          detail(caughtUp.map((l) => `${l.link} ${l.lagMs} ms`).join(', '));
        }),
    );
    const next = await this.interruptible(() =>
      looking.nextEpoch.executeWithOptions({ summary: 'Epochs of fence and switch' }, [
        { units, holder: this.holder },
      ]),
    );
    if (next.rules.epoch !== rules.epoch) {
      throw new Refusal({
        code: 'Refused',
        message: `The rules changed from epoch ${rules.epoch} to ${next.rules.epoch} since the plan was made. Start again.`,
      });
    }
    if (this.abortAsked) throw new Aborted('aborted');
    handOver.allocate(next.epoch, next.rules);
    return handOver;
  }

  // Step 8, the confirmations, and step 9. The units have moved: what fails here is told, and undoes nothing.
  private async confirmAndCheck(handOver: HandOver): Promise<void> {
    const { from, to, units, epoch } = handOver;
    await this.log.step(
      'cancel-write-disable',
      `Confirming epoch ${epoch} at gateways and instances.`,
      async (detail) => {
        for (let round = 0; ; round++) {
          const answers = await Promise.all([to, from].map((dc) => this.confirm(dc, epoch)));
          handOver.note(answers.flat());
          const names = handOver.unconfirmed.map((g) => `${g.gateway} of ${g.dc} (${g.detail})`).join(', ');
          detail(names ? `not confirmed: ${names}` : 'all confirmed');
          if (!names || this.policies.unconfirmed === 'report') break;
          this.log.need('confirm', `Epoch ${epoch} is not confirmed by ${names}.`);
          await sleep(backoffMs(round));
        }
        this.log.met('confirm');
      },
    );
    await this.log.step('post-checks', 'Checking through the gateways.', async (detail) => {
      const answers = await Promise.all(
        [to, from].map((dc) => this.postCheck({ dc, owner: to, units, epoch })),
      );
      const bad = answers.flat().filter((c) => !c.ok);
      detail(bad.length === 0 ? `${answers.flat().length} checks` : describe(bad));
      if (bad.length > 0) this.log.need('post-checks', `The units have moved, but: ${describe(bad)}`);
      else this.log.met('post-checks');
    });
  }

  private async confirm(dc: string, epoch: number) {
    const { confirmTimeoutMs: timeoutMs } = this.policies;
    try {
      const options = {
        taskQueue: this.taskQueues[dc]!,
        scheduleToCloseTimeout: timeoutMs + 10_000,
        summary: `Confirm epoch ${epoch} in ${dc}`,
      };
      return await waiting.confirm.executeWithOptions(options, [{ dc, epoch, timeoutMs }]);
    } catch (error) {
      return [{ dc, gateway: 'all', epoch: null, ok: false, detail: stepError(error).message }];
    }
  }

  private async postCheck(input: {
    dc: string;
    owner: string;
    units: string[];
    epoch: number;
  }): Promise<Check[]> {
    try {
      const options = { taskQueue: this.taskQueues[input.dc]!, summary: `Post-checks in ${input.dc}` };
      return await looking.postCheck.executeWithOptions(options, [input]);
    } catch (error) {
      return [{ name: `post-checks of ${input.dc}`, ok: false, detail: stepError(error).message }];
    }
  }

  private async soak(plan: SwitchPlan, move: HandOver, before: Totals): Promise<SwitchReport> {
    const { from, to } = plan;
    let note = '';
    for (;;) {
      const soak = this.log.begin(
        'soak',
        `${note}Moved to ${to}. \`rollback\` moves back, \`finish\` ends the soak.`,
      );
      this.log.soakEndsAt = new Date(Date.now() + this.policies.soakMs).toISOString();
      await this.count(before);
      await this.record();
      const asked = await condition(() => this.log.phase !== 'soaking', this.policies.soakMs);
      // Hazard: cancel and the end of the time in one task: the time is over, and the phase is no longer soaking.
      if (!asked && this.log.phase === 'soaking') this.event('soak-over');
      this.log.close(soak, true);
      this.log.soakEndsAt = null;
      if (this.log.phase === 'ended')
        return this.end('done', `${note}Done: ${plan.diff.join('; ')}.`, before);
      const failed = await this.rollBack(plan, move);
      if (!failed)
        return this.end('rolled-back', `Rolled back: all units are open in ${from} again.`, before);
      this.log.fail(failed);
      note = `The rollback was ${failed.code === 'Aborted' ? 'aborted' : `not carried out (${failed.message})`}. `;
    }
  }

  /** The same flow, reversed; answers why not when the units stay. */
  private async rollBack(plan: SwitchPlan, move: HandOver): Promise<StepError | undefined> {
    this.log.flow = 'rollback';
    try {
      let back: HandOver;
      try {
        back = await this.prepare(await this.planBack(plan));
      } catch (error) {
        this.event('rollback-refused');
        return stepError(error);
      }
      const result = await back.move();
      if (!result.moved) {
        this.event('rollback-undone');
        return result.error;
      }
      await this.confirmAndCheck(back);
      this.event('moved-back');
      return undefined;
    } finally {
      this.handOver = move;
      this.log.flow = this.log.phase === 'ended' ? 'rollback' : 'move';
      this.abortAsked = false;
    }
  }

  /** Links may have been restarted and servers replaced since the move: the way back has a plan of its own. */
  private async planBack(plan: SwitchPlan): Promise<SwitchPlan> {
    const { planHash: _, ...request } = this.request;
    const { from, to } = plan;
    const words = `Planning the way back: ${to} → ${from}.`;
    return this.log.step('plan', words, (detail) =>
      this.interruptible(async () => {
        const back = { ...request, from: to, to: from, units: plan.units };
        const made = await looking.makePlan.executeWithOptions({ summary: `Plan the way back to ${from}` }, [
          back,
        ]);
        refuseUnless(made.checks);
        detail(made.diff.join('; '));
        return made;
      }),
    );
  }

  private async giveUp(error: StepError): Promise<SwitchReport> {
    this.event('refused');
    this.log.fail(error);
    if (error.code === 'NeedsOperator') {
      this.log.need('refused', error.message);
      return this.end('needs-operator', error.message);
    }
    const aborted = error.code === 'Aborted';
    return this.end(
      aborted ? 'aborted' : 'refused',
      aborted ? 'Aborted; nothing was changed.' : `Refused: ${error.message}`,
    );
  }

  private async end(
    outcome: SwitchReport['outcome'],
    summary: string,
    before?: Totals,
  ): Promise<SwitchReport> {
    if (before) await this.count(before);
    if (outcome === 'done' || outcome === 'rolled-back') {
      if (this.log.flow === 'rollback' || this.log.report.flows.length === 1) this.log.report.error = null;
    }
    this.log.end(outcome, summary);
    await this.record();
    return this.log.report;
  }

  private async totals(): Promise<Totals> {
    const { from, to } = this.request;
    const read = async (dc: string) => {
      const options = { taskQueue: this.taskQueues[dc]!, summary: `Counters of the gateways of ${dc}` };
      return glancing.gatewayTotals.executeWithOptions(options, [{ dc }]).catch(() => undefined);
    };
    return Promise.all([from, to].map(read));
  }

  /** Held, refused and failed requests since before the fence. A DC whose counters are missing on either side counts nothing. */
  private async count(before: Totals): Promise<void> {
    const after = await this.totals();
    const sum = { heldRequests: 0, refusedRequests: 0, failedRequests: 0, unavailableMs: 0 };
    let known = false;
    after.forEach((now, i) => {
      const then = before[i];
      if (!now || !then) return;
      known = true;
      for (const key of ['heldRequests', 'refusedRequests', 'failedRequests'] as const) {
        sum[key] += Math.max(0, now[key] - then[key]);
      }
      sum.unavailableMs = Math.max(sum.unavailableMs, now.unavailableMs - then.unavailableMs);
    });
    this.log.report.clients = known ? sum : null;
  }

  /** The report outlives the workflow's retention; a control store that is down does not keep a switchover from ending. */
  private async record(): Promise<void> {
    try {
      await looking.recordReport.executeWithOptions({ summary: 'Keep the report' }, [this.log.report]);
    } catch (error) {
      const failed = stepError(error);
      this.log.report.summary += ` (The report could not be kept in the control stores: ${failed.message})`;
    }
  }
}

/** Hazard: nobody polls the queue of a data center that is down, and a time-out alone does not say where to look. */
async function answerOf<T>(dc: string, call: Promise<T>): Promise<T> {
  try {
    return await call;
  } catch (error) {
    if (!isTimeout(error)) throw error;
    const { code, message } = stepError(error);
    throw new Refusal({
      code,
      message: `${message}: look at the worker of ${dc} (\`interlock worker --dc ${dc}\`)`,
    });
  }
}

type Totals = (GatewayTotals | undefined)[];

function refuseUnless(checks: readonly Check[]): void {
  const bad = checks.filter((c) => !c.ok);
  if (bad.length > 0) throw new Refusal({ code: 'Refused', message: describe(bad) });
}

function describe(checks: readonly Check[]): string {
  return checks.map((c) => `${c.name}: ${c.detail}`).join('; ');
}
