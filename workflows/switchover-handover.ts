import { CancellationScope, condition, isCancellation, patched, sleep, uuid4 } from '@temporalio/workflow';
import { fenceRules, switchRules } from '../src/routing/plan.js';
import { Router } from '../src/routing/rules.js';
import type { Holder, Rules } from '../src/routing/rules.js';
import type { DcId, UnitId } from '../src/routing/units.js';
import type { BaselineReached } from '../replicators/core/contract.js';
import type {
  DatacenterActivities,
  FlowReport,
  GatewayConfirmation,
  HandOverResult,
  LinkMarker,
  StepInput,
  SwitchPolicies,
  SwitchResult,
  WriteDisableResult,
} from './contract.js';
import type { Logbook } from './switchover-logbook.js';
import type { SwitchEvent } from './switchover-machine.js';
import { fencing, glancing, lasting } from './switchover-activities.js';
import { Aborted, Refusal, isOvertaken, isUntaken, stepError } from './switchover-errors.js';
import type { StepError } from './switchover-errors.js';

/** The fall-back reads the checkpoints this long after the fence, in case a signal was lost; then ever more slowly. */
const FIRST_READ_MS = 1_000;
const SLOWEST_READ_MS = 10_000;
/**
 * Temporal ends a run whose history is too long, and the units stay fenced: what waits without limit asks ever more seldom, down to
 * this, which is good for weeks.
 */
const SLOWEST_MS = 600_000;
/** What a step behind the fence waits for blockers at most, so that its answer is there within the activities' time-outs. */
const LONGEST_STEP_BUDGET_MS = 5_000;
/** A wait without limit names itself to operators after this long. */
const LOUD_AFTER_MS = 10_000;
/** How long the links have, behind the fence's budget, to be so quick that the target switches without a turn of the workflow. */
const QUICK_DRAIN_MS = 1_000;
/** The links have reached the baseline: how long the target, which sees it by itself, is left to it. */
const QUICK_SWITCH_MS = 1_000;
/** How long the target is waited for before the source re-opens, when the target was never asked to open. */
const RAISE_FIRST_MS = 3_000;

/** What a hand-over needs from its run. */
export interface Run {
  readonly holder: Holder;
  readonly policies: SwitchPolicies;
  readonly taskQueues: Readonly<Record<DcId, string>>;
  readonly log: Logbook;
  /** The run was reset, and this is behind the point to which: it may have forgotten what it asked for. */
  forgets(): boolean;
  readonly reason: string;
  event(event: SwitchEvent): void;
  aborting(): boolean;
  /** Ends with Aborted as soon as somebody aborts. */
  interruptible<T>(run: () => Promise<T>): Promise<T>;
  /** Higher than every epoch that this run has used and than `floor`. */
  nextEpoch(floor: number): number;
}

/** One set of units on its way from one DC to the other: steps 4 to 8, and the way back out of each. */
export class HandOver {
  readonly from: DcId;
  readonly to: DcId;
  readonly units: UnitId[];
  readonly markers: LinkMarker[];
  private readonly wholeDc: boolean;
  private readonly report: FlowReport;
  private base: Rules;
  private fenceEpoch = 0;
  private switchEpoch = 0;
  private takeOverFrom: Holder | undefined;
  /** The target was asked to open: from then on only its answer tells whether it did. */
  private switchAsked = false;
  /** The answer to the switch that was asked for with the fence. `null`: it was not, or the target has not opened by it and will not. */
  private quick: Awaited<ReturnType<DatacenterActivities['switchWhenDrained']>> | 'pending' | 'unknown' =
    null;
  private fence: WriteDisableResult | undefined;
  /** ms since the epoch: the first attempt of the fence was sent. */
  private heldSince = 0;
  private switched: SwitchResult | undefined;
  private handed: HandOverResult | undefined;
  private readonly reached = new Map<string, BaselineReached & { atMs: number }>();
  private deadlineMs = 0;
  private floor = 0;
  private lastReadError = '';
  private readonly mending: boolean;

  constructor(
    private readonly run: Run,
    scope: {
      from: DcId;
      to: DcId;
      units: UnitId[];
      links: { link: string; store: string }[];
      base: Rules;
      /** The units are all that `from` owns. */
      wholeDc?: boolean;
    },
    mend?: { holder: Holder | null },
  ) {
    this.from = scope.from;
    this.to = scope.to;
    this.units = scope.units;
    this.base = scope.base;
    this.wholeDc = scope.wholeDc === true;
    this.mending = mend !== undefined;
    this.takeOverFrom = mend?.holder ?? undefined;
    this.switchAsked = this.mending;
    this.markers = scope.links.map(({ link, store }) => ({ link, store, markerId: uuid4() }));
    this.report = run.log.beginFlow(this.from, this.to, !this.mending);
  }

  /** The epochs of fence and switch, and the rules that they build on, are known before the window opens. */
  allocate(floor: number, base: Rules): void {
    this.base = base;
    this.report.fenceEpoch = this.fenceEpoch = this.run.nextEpoch(floor);
    this.report.switchEpoch = this.switchEpoch = this.run.nextEpoch(floor);
  }

  /** Signal `baselineReached`, or the fall-back's answer. A marker that this hand-over did not write is a stranger's: ignored. */
  baselineReached(signal: Partial<BaselineReached> | null | undefined, read = false): void {
    // A signal may come from anybody and hold anything: what is not a count is not zero.
    if (!isBaseline(signal)) return;
    const marker = this.markers.find((m) => m.markerId === signal.markerId && m.link === signal.link);
    if (!marker) return;
    const known = this.reached.get(signal.markerId);
    // A second signal of the same marker changes nothing; only a fresh look may take back a count.
    if (known && !read) return;
    this.reached.set(signal.markerId, { ...signal, atMs: known?.atMs ?? Date.now() });
    this.showLinks();
  }

  /** Moves the units, or puts all back as it was. Answers which of the two; never throws for a step that failed. */
  async move(): Promise<{ moved: true } | { moved: false; error: StepError }> {
    let failed: StepError | undefined;
    try {
      await this.writeDisable();
      await this.drain();
      await this.switchTarget();
    } catch (error) {
      failed = stepError(error);
    }
    const overtaken = failed ? isOvertaken(failed.code) : !(await this.complete());
    if (failed || overtaken) this.event('in-doubt');
    const moved = failed || overtaken ? await this.settle(failed, overtaken) : true;
    return moved
      ? { moved }
      : { moved, error: failed ?? { code: 'StaleEpoch', message: 'the units were moved by another run' } };
  }

  /** Opens again what a dead run left fenced, or completes what it switched. */
  async mend(): Promise<boolean> {
    return this.settle(undefined, true);
  }

  // Steps 4 and 5.
  private async writeDisable(): Promise<void> {
    const { run } = this;
    // Hazard: the fence applies and its answer is lost. The phase says "fenced" before anybody is asked to fence, so that every
    // way out from here passes settle().
    this.event('fence');
    this.showLinks();
    this.askQuickly();
    const words = `Write-disabling ${this.units.length} units in ${this.from} (epoch ${this.fenceEpoch}).`;
    this.fence = await run.log.step('write-disable', words, async (detail) => {
      const { fenceBudgetMs: budgetMs, drainTimeoutMs } = run.policies;
      const fence = await run.interruptible(() =>
        fencing.writeDisable.executeWithOptions(
          {
            taskQueue: this.queue(this.from),
            // With Kafka, the outboxes drain in this step.
            startToCloseTimeout: budgetMs + 10_000 + drainTimeoutMs,
            scheduleToCloseTimeout: budgetMs + 15_000 + drainTimeoutMs,
            heartbeatTimeout: budgetMs + 10_000,
            summary: `Hold writes of ${this.units.length} units in ${this.from}, fence them, write the markers`,
          },
          [
            {
              ...this.fenceStep(this.fenceEpoch),
              ...(this.wholeDc ? { readOnly: true } : {}),
              fenceBudgetMs: budgetMs,
              drainTimeoutMs,
              links: this.markers,
            },
          ],
        ),
      );
      detail(`epoch ${this.fenceEpoch}${this.wholeDc ? `, ${this.from} read_only` : ''}`);
      return fence;
    });
    // Its answer waits for the target's; the drain begins where the fence was made.
    const step = run.log.last();
    const askedAt = Date.parse(step.startedAt);
    this.heldSince =
      (this.fence.attempt ?? 1) > 1 ? askedAt : Math.min(this.fence.holdSentAt, this.fence.fencedAt);
    run.log.took(step, this.heldSince, this.fence.fencedAt);
    this.report.blockers = this.fence.blockers;
    this.report.baselines = this.fence.baselines.map(({ link, position }) => ({
      link,
      position,
      drainMs: null,
    }));
    this.event('fenced');
  }

  /**
   * Steps 6 and 7, asked for with the fence. Every answer but a switch leaves them to drain() and switchTarget(), at the same epoch: what
   * the target may have done then is done once.
   */
  private askQuickly(): void {
    if (!patched('switch-when-drained')) return;
    this.quick = 'pending';
    const waitMs = this.run.policies.fenceBudgetMs + QUICK_DRAIN_MS;
    const options = {
      taskQueue: this.queue(this.to),
      startToCloseTimeout: waitMs + 10_000,
      scheduleToCloseTimeout: waitMs + 15_000,
      // switchTarget is the other attempt.
      retry: { maximumAttempts: 1 },
      summary: `Open ${this.units.length} units in ${this.to} as soon as the links have reached the baseline`,
    };
    const input = { ...this.openStep(this.to, this.switchEpoch), links: this.markers, waitMs };
    fencing.switchWhenDrained
      .executeWithOptions(options, [input])
      .then((answer) => (this.quick = answer))
      // What no worker took was never begun.
      .catch((error: unknown) => (this.quick = isUntaken(error) ? null : 'unknown'));
  }

  /** The target has switched by itself. */
  private switchedQuickly(): (SwitchResult & { reachedAt: number }) | undefined {
    return typeof this.quick === 'string' ? undefined : (this.quick ?? undefined);
  }

  // Steps 5 and 6.
  private async drain(): Promise<void> {
    const { run } = this;
    const baseline = run.log.begin(
      'baseline',
      `Baseline written; waiting for ${this.markers.length} links to reach it.`,
    );
    run.log.close(baseline, true, this.report.baselines.map((b) => `${b.link} ${b.position}`).join('; '));
    const step = run.log.begin('drain', `Waiting for ${this.markers.length} links to reach the baseline.`);
    const startedMs = Date.now();
    this.deadlineMs = startedMs + run.policies.drainTimeoutMs;
    let reads = this.readCheckpoints(FIRST_READ_MS);
    try {
      for (;;) {
        if (run.aborting()) throw new Aborted('aborted while draining');
        if (this.switchedQuickly()) break;
        const dirty = this.dirty();
        if (dirty && run.policies.drainTimeout === 'abort') throw new Refusal(dirty);
        if (this.drained()) {
          if (this.quick !== 'pending') break;
          const answered = () => this.quick !== 'pending' || run.aborting();
          if (await condition(answered, QUICK_SWITCH_MS)) continue;
          break;
        }
        const expired = run.log.phase === 'drain-expired';
        if (!expired && Date.now() >= this.deadlineMs) {
          if (run.policies.drainTimeout === 'abort') throw new Refusal(this.undrained());
          this.event('drain-overdue');
          const cause = dirty ?? this.undrained();
          run.log.need(
            'drain',
            `${cause.message}. ${this.units.length} units stay write-disabled: \`interlock switch extend\` to wait on, \`interlock switch abort\` to give up.`,
          );
          continue;
        }
        const before = { phase: run.log.phase, deadlineMs: this.deadlineMs, counts: this.counts() };
        const changed = () =>
          run.aborting() ||
          this.drained() ||
          this.switchedQuickly() !== undefined ||
          this.counts() !== before.counts ||
          this.deadlineMs !== before.deadlineMs ||
          run.log.phase !== before.phase;
        if (expired) await condition(changed);
        else await condition(changed, Math.max(1, this.deadlineMs - Date.now()));
        if (this.deadlineMs !== before.deadlineMs) {
          // The operator who extends has often just mended a link whose signal is long gone.
          reads.cancel();
          reads = this.readCheckpoints(0);
        }
      }
    } catch (error) {
      run.log.close(step, false, stepError(error).message);
      throw error;
    } finally {
      reads.cancel();
      run.log.met('drain');
    }
    for (const { markerId, link } of this.markers) {
      const entry = this.report.baselines.find((b) => b.link === link);
      const atMs = this.switchedQuickly()?.reachedAt ?? this.reached.get(markerId)!.atMs;
      if (entry) entry.drainMs = Math.max(0, atMs - this.fence!.fencedAt);
    }
    const quick = this.switchedQuickly();
    run.log.close(step, true);
    if (quick) run.log.took(step, this.fence!.fencedAt, quick.reachedAt);
  }

  /** The operator's `extend`: the drain may take its time-out once more. */
  extend(): void {
    this.deadlineMs = Math.max(this.deadlineMs, Date.now()) + this.run.policies.drainTimeoutMs;
    this.run.log.met('drain');
  }

  // Step 7.
  private async switchTarget(): Promise<void> {
    const { run } = this;
    this.event('drained');
    const words = `Switching ${this.units.length} units to ${this.to} (epoch ${this.switchEpoch}). The point of no return.`;
    const switched = this.switchedQuickly();
    if (switched) {
      this.switched = switched;
      const step = run.log.begin('switch', words);
      run.log.close(step, true, 'with the fence');
      run.log.took(step, switched.reachedAt, switched.openAt);
      this.event('switched');
      return;
    }
    this.switchAsked = true;
    this.switched = await run.log.step('switch', words, () =>
      fencing.switchTarget.executeWithOptions(
        {
          taskQueue: this.queue(this.to),
          summary: `Open ${this.units.length} units in ${this.to}: the point of no return`,
        },
        [{ ...this.openStep(this.to, this.switchEpoch), links: this.markers }],
      ),
    );
    this.event('switched');
  }

  /**
   * Every end that is not a plain success: asks the target which it was, until both DCs are proven to be in one of the two good
   * states. True: the units are at the target. No limit (see `lasting`): giving up would leave units that nobody may write.
   */
  private async settle(failed: StepError | undefined, overtaken: boolean): Promise<boolean> {
    const { run } = this;
    const because = failed ? ` (${failed.message})` : '';
    const words = this.mayHaveSwitched()
      ? `Asking ${this.to} whether it opened${because}.`
      : `Opening ${this.units.length} units again in ${this.from}${because}.`;
    const entry = run.log.begin('compensate', words);
    for (let attempt = 0; ; attempt++) {
      // Hazard: epochs from the history of a reset run are old, and units may be held by a run that is closed by now.
      if (attempt > 0 || overtaken || run.forgets()) await this.refresh();
      const epoch = run.nextEpoch(this.floor);
      const raise = await this.raise(epoch);
      if (raise === 'already-switched') {
        this.event('already-switched');
        run.log.close(entry, true, `${this.to} had opened: rolling forward`);
        this.switchEpoch = epoch;
        this.switched = undefined;
        if (await this.complete()) {
          run.log.met('overtaken');
          return true;
        }
        this.event('in-doubt');
        await this.overtaken(attempt);
        continue;
      }
      if (raise === 'overtaken' || !(await this.reopen(epoch))) {
        await this.overtaken(attempt);
        continue;
      }
      run.log.met('overtaken');
      this.report.reopenEpoch = epoch;
      if (raise === 'unreachable') {
        run.log.say(
          `${this.from} is open again. ${this.to} does not answer; epoch ${epoch} has to be recorded there.`,
        );
        if ((await this.raise(epoch, true)) !== 'raised') continue;
      }
      run.log.close(entry, true, `open again in ${this.from} at epoch ${epoch}`);
      return false;
    }
  }

  /**
   * Compensation, first half: a late switch of this or a dead run then fails on the target's higher epoch. When the target was
   * never asked to open, a target that does not answer may be left for later: nothing is on its way that could open it. A run that
   * was reset, or that takes over, does not know that and waits.
   */
  private async raise(
    epoch: number,
    afterReopen = false,
  ): Promise<'raised' | 'already-switched' | 'overtaken' | 'unreachable'> {
    const may = !this.mayHaveSwitched() && !this.takeOverFrom && !afterReopen && !this.run.forgets();
    const options = may ? { scheduleToCloseTimeout: RAISE_FIRST_MS } : {};
    try {
      await this.patiently(
        this.to,
        `record epoch ${epoch} at ${this.to}`,
        () =>
          lasting.raiseTarget.executeWithOptions(
            {
              taskQueue: this.queue(this.to),
              summary: `Refuse late switches: raise ${this.to} to epoch ${epoch}`,
              ...options,
            },
            [this.openStep(this.from, epoch)],
          ),
        may,
      );
      return 'raised';
    } catch (error) {
      const { code } = stepError(error);
      if (code === 'AlreadySwitched') return 'already-switched';
      if (isOvertaken(code)) return 'overtaken';
      if (may && code === 'Unavailable') return 'unreachable';
      throw error;
    }
  }

  /** Compensation, second half. False: another attempt with a fresh epoch, the target asked again, has to decide. */
  private async reopen(epoch: number): Promise<boolean> {
    try {
      const gateways = await this.patiently(
        this.from,
        `open ${this.units.length} units again in ${this.from}`,
        () =>
          lasting.reopenSource.executeWithOptions(
            {
              taskQueue: this.queue(this.from),
              summary: `Open ${this.units.length} units again in ${this.from}`,
            },
            [this.openStep(this.from, epoch)],
          ),
      );
      this.note(gateways);
      this.run.log.met('owner');
      return true;
    } catch (error) {
      const { code } = stepError(error);
      if (isOvertaken(code)) return false;
      if (code !== 'AlreadySwitched') throw error;
      this.run.log.need(
        'owner',
        `${this.from} has handed ${this.units.length} units over and ${this.to} has not opened them: run \`interlock fence status\`, then \`interlock fence release\`.`,
      );
      this.switchAsked = true;
      return false;
    }
  }

  /** Behind the point of no return: forward only, without limit. False: overtaken, the target has to be asked again. */
  private async complete(): Promise<boolean> {
    const { run } = this;
    const entry = run.log.begin(
      'cancel-write-disable',
      `Handing over in ${this.from}, releasing held requests.`,
    );
    try {
      this.switched ??= await this.patiently(this.to, `open ${this.units.length} units in ${this.to}`, () =>
        lasting.switchTarget.executeWithOptions(
          { taskQueue: this.queue(this.to), summary: `Complete the switch in ${this.to}` },
          [this.openStep(this.to, this.switchEpoch)],
        ),
      );
      this.handed = await this.patiently(
        this.from,
        `hand ${this.units.length} units over in ${this.from}`,
        () =>
          lasting.handOverSource.executeWithOptions(
            {
              taskQueue: this.queue(this.from),
              summary: `Hand over in ${this.from}, release held requests to ${this.to}`,
            },
            [this.openStep(this.to, this.switchEpoch)],
          ),
      );
    } catch (error) {
      const failed = stepError(error);
      if (!isOvertaken(failed.code) && failed.code !== 'AlreadySwitched') throw error;
      run.log.close(entry, false, failed.message);
      return false;
    }
    this.note(this.switched.gateways);
    this.note(this.handed.gateways);
    this.report.switchEpoch = this.switchEpoch;
    if (this.fence) {
      const sourceRoutedAt = this.switched.sourceRoutedAt ?? this.handed.routedAt;
      const end = Math.max(this.switched.openAt, this.switched.routedAt, sourceRoutedAt);
      this.report.fencedMs = end - this.heldSince;
    }
    run.log.close(entry, true, this.report.fencedMs === null ? '' : `fenced for ${this.report.fencedMs} ms`);
    return true;
  }

  /** Somebody else writes higher epochs: once is a late operation, again and again is another hand on the same units. */
  private async overtaken(attempt: number): Promise<void> {
    if (attempt >= 3) {
      this.run.log.need(
        'overtaken',
        `Something else changes the ${this.units.length} units of this switchover: look at \`interlock fence status\`.`,
      );
    }
    await sleep(backoffMs(attempt));
  }

  private mayHaveSwitched(): boolean {
    return this.switchAsked || this.quick !== null;
  }

  private event(event: SwitchEvent): void {
    // A mend runs before the plan; the phase says so until it is done.
    if (!this.mending) this.run.event(event);
  }

  private queue(dc: DcId): string {
    return this.run.taskQueues[dc]!;
  }

  /** The step that fences the units at the source. */
  private fenceStep(epoch: number): StepInput {
    const { base, run } = this;
    const reason = this.reason('write-disable');
    return this.step(epoch, fenceRules(base, this.unitsInRules(), epoch, run.holder, reason));
  }

  /**
   * A step of a document in which the units are open at `owner`. Re-opening names the owner, too: whatever the rules in force say,
   * the rows that are opened are the source's.
   */
  private openStep(owner: DcId, epoch: number): StepInput {
    const reason = this.reason(owner === this.from ? 're-open' : 'switch');
    return this.step(epoch, switchRules(this.base, this.unitsInRules(), owner, epoch, reason));
  }

  private step(epoch: number, rules: Rules): StepInput {
    const { units, from, to, run, takeOverFrom } = this;
    const { fenceBudgetMs, blockers } = run.policies;
    return {
      from,
      to,
      units,
      epoch,
      holder: run.holder,
      ...(takeOverFrom ? { takeOverFrom } : {}),
      rules,
      fenceBudgetMs: Math.min(fenceBudgetMs, LONGEST_STEP_BUDGET_MS),
      blockers,
    };
  }

  private reason(what: string): string {
    return `${what} ${this.from} → ${this.to}: ${this.run.reason}`;
  }

  /** Hazard: a dead run's rows may name units that the rules no longer have. They are opened all the same. */
  private unitsInRules(): UnitId[] {
    const router = new Router(this.base);
    return this.units.filter((unit) => router.assignmentOf(unit) !== undefined);
  }

  /** A fresh epoch, the rules in force, and a closed run to take the units over from. */
  private async refresh(): Promise<void> {
    const { run } = this;
    const next = await this.patiently('control', 'learn the next epoch', () =>
      lasting.nextEpoch.executeWithOptions({ summary: 'Next epoch of both data centers' }, [
        { units: this.units, holder: run.holder },
      ]),
    );
    this.base = next.rules;
    this.floor = next.epoch;
    this.takeOverFrom = next.takeOverFrom ?? this.takeOverFrom;
  }

  /**
   * A call without limit that says so: after a while, and on every answer that another attempt does not change by itself, the
   * status names what is awaited. Throws only what settle() decides on, and Unavailable when `mayGiveUp`.
   */
  private async patiently<T>(
    where: string,
    what: string,
    call: () => Promise<T>,
    mayGiveUp = false,
  ): Promise<T> {
    const { log } = this.run;
    for (let attempt = 0; ; attempt++) {
      const watch = new CancellationScope();
      void watch
        .run(() => sleep(LOUD_AFTER_MS))
        .then(() => log.need(what, waitingFor(where, what)))
        .catch(() => undefined);
      try {
        const result = await call();
        log.met(what);
        return result;
      } catch (error) {
        const failed = stepError(error);
        const decided = isOvertaken(failed.code) || failed.code === 'AlreadySwitched';
        if (decided || (mayGiveUp && failed.code === 'Unavailable')) {
          log.met(what);
          throw error;
        }
        log.need(
          what,
          `It was not possible to ${what}: ${failed.message}. It is tried again until it succeeds.`,
        );
      } finally {
        watch.cancel();
      }
      await sleep(backoffMs(attempt));
    }
  }

  /** The fall-back of the signal, from the target's checkpoints, until it is cancelled. */
  private readCheckpoints(firstMs: number): CancellationScope {
    const scope = new CancellationScope();
    const links = this.markers.map(({ link, markerId }) => ({ link, markerId }));
    void scope
      .run(async () => {
        let waitMs = firstMs;
        for (;;) {
          await sleep(waitMs);
          waitMs = Math.min(Math.max(waitMs * 2, FIRST_READ_MS), this.slowestReadMs());
          try {
            const answers = await glancing.readBaselines.executeWithOptions(
              { taskQueue: this.queue(this.to), summary: `Read the checkpoints in ${this.to}` },
              [{ links }],
            );
            for (const answer of answers) this.baselineReached(answer, true);
          } catch (error) {
            if (isCancellation(error)) throw error;
            this.lastReadError = stepError(error).message;
          }
        }
      })
      .catch((error: unknown) => {
        if (!isCancellation(error)) throw error;
      });
    return scope;
  }

  private slowestReadMs(): number {
    return this.run.log.phase === 'drain-expired' ? SLOWEST_MS : SLOWEST_READ_MS;
  }

  private drained(): boolean {
    return this.fence !== undefined && this.markers.every((m) => this.clean(m.markerId));
  }

  private clean(markerId: string): boolean {
    const reached = this.reached.get(markerId);
    return reached !== undefined && reached.conflicts === 0 && reached.quarantined === 0;
  }

  /** A link that passed the marker but not everything before it. */
  private dirty(): StepError | undefined {
    for (const { conflicts, quarantined, link } of this.reached.values()) {
      if (conflicts === 0 && quarantined === 0) continue;
      const counts = `${conflicts} conflicts and ${quarantined} quarantined changes`;
      return {
        code: 'LinkStopped',
        message: `${link} reached the baseline with ${counts}: it is not drained`,
      };
    }
    return undefined;
  }

  private undrained(): StepError {
    const missing = this.markers.filter((m) => !this.clean(m.markerId)).map((m) => m.link);
    const read = this.lastReadError ? ` (${this.lastReadError})` : '';
    const inMs = `${this.run.policies.drainTimeoutMs} ms`;
    return {
      code: 'Unavailable',
      message: `${missing.join(', ')} did not reach the baseline in ${inMs}${read}`,
    };
  }

  private counts(): string {
    return [...this.reached.values()].map((r) => `${r.link} ${r.conflicts} ${r.quarantined}`).join();
  }

  private showLinks(): void {
    this.run.log.links = this.markers.map((m) => ({ link: m.link, reached: this.clean(m.markerId) }));
  }

  /** Keeps which gateways have not confirmed; a later confirmation takes the entry back. */
  note(gateways: readonly GatewayConfirmation[]): void {
    for (const gateway of gateways) {
      const rest = this.report.unconfirmed.filter(
        (g) => g.dc !== gateway.dc || g.gateway !== gateway.gateway,
      );
      this.report.unconfirmed = gateway.ok ? rest : [...rest, gateway];
    }
  }

  get epoch(): number {
    return this.switchEpoch;
  }

  get unconfirmed(): readonly GatewayConfirmation[] {
    return this.report.unconfirmed;
  }
}

function isBaseline(signal: Partial<BaselineReached> | null | undefined): signal is BaselineReached {
  return typeof signal?.conflicts === 'number' && typeof signal.quarantined === 'number';
}

/** Before attempt `attempt + 1` of what is tried without limit. */
export function backoffMs(attempt: number): number {
  return Math.min(100 * 2 ** attempt, SLOWEST_MS);
}

function waitingFor(where: string, what: string): string {
  const worker =
    where === 'control'
      ? 'a worker and both control stores'
      : `the worker of ${where} (\`interlock worker --dc ${where}\`) and its stores`;
  return `Waiting to ${what}: look at ${worker}. It is tried until it succeeds; \`interlock fence status\` shows the units, \`interlock fence release\` mends them without this run.`;
}
