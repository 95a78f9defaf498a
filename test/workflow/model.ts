import { setTimeout as wait } from 'node:timers/promises';
import { Context } from '@temporalio/activity';
import { ApplicationFailure } from '@temporalio/common';
import type { Client } from '@temporalio/client';
import type { TestWorkflowEnvironment } from '@temporalio/testing';
import type { ErrorCode } from '../../src/errors.js';
import type { UnitStateName } from '../../src/fence/types.js';
import { canonicalJson } from '../../src/routing/hash.js';
import { Router, withAssignments } from '../../src/routing/rules.js';
import type { Holder, Rules } from '../../src/routing/rules.js';
import type { BaselineReached } from '../../replicators/core/contract.js';
import type {
  Check,
  ControlActivities,
  DatacenterActivities,
  GatewayConfirmation,
  PlanLink,
  StepInput,
  SwitchPlan,
  SwitchReport,
  SwitchRequest,
  SwitchResult,
} from '../../workflows/contract.js';
import { passTimeout } from './skipped-time.js';

type Dc = 'dc-a' | 'dc-b';
const DCS: readonly Dc[] = ['dc-a', 'dc-b'];
const STORES = ['main', 'orders'];
export const UNITS = ['cn-east/0', 'cn-east/1'];
/** Longer than the links of this world take, and real time. */
const QUICK_MS = 1_000;
export type ActivityName = keyof DatacenterActivities | keyof ControlActivities;

interface Row {
  state: UnitStateName;
  owner: string;
  epoch: number;
  holder: Holder | null;
}

/** What goes wrong with one call of an activity. */
export type Fault =
  /** Nothing is carried out; another attempt may succeed. */
  | 'fails'
  /** Nothing is carried out, and another attempt would be refused too. */
  | 'refuses'
  /** Carried out, the answer is lost. */
  | 'answer-lost'
  /** Carried out in the first store only, then fails. */
  | 'half'
  /** Given up by the worker, and carried out later: when the test says so. */
  | 'late'
  /** Does not answer until its time-out, and is never carried out. */
  | 'silent'
  /** Does not answer until its time-out, and answers later: when the test says so. */
  | 'overdue';

/** How the links behave after the fence. */
export type Links = 'prompt' | 'early' | 'signal-lost' | 'doubled' | 'stuck' | 'quarantined';

function fail(code: ErrorCode, message: string): ApplicationFailure {
  return ApplicationFailure.create({ type: code, message, nonRetryable: code !== 'Unavailable' });
}

function same(a: Holder | null | undefined, b: Holder | null | undefined): boolean {
  return a?.workflowId === b?.workflowId && a?.runId === b?.runId;
}

/**
 * Both data centers, as their stores would be: rows of unit states with the fence's guards (src/fence/guard.ts), rules, links, and
 * clients that write wherever a unit is open. The invariants are checked at every change, not at the end.
 */
export class World {
  readonly violations: string[] = [];
  readonly calls: ActivityName[] = [];
  readonly reports: SwitchReport[] = [];
  /** Calls that have not answered. */
  pending = 0;
  links: Links = 'prompt';
  /** Checks that fail, by the name of the activity. */
  readonly badChecks = new Map<ActivityName, string>();
  unconfirmed = false;
  /** The target sees by itself that the links have reached the baseline; else the switchover has to ask it to switch. */
  quick = false;
  /** The data centers of which the fence was to make the servers read_only. */
  readonly readOnly: string[] = [];
  /** What the checkpoints say, instead of the truth. */
  misread: ((answers: BaselineReached[]) => BaselineReached[]) | undefined;
  /** Operations that arrive when the test lets them. */
  readonly late: (() => Promise<void>)[] = [];
  private readonly faults: { name: ActivityName; fault: Fault; times: number }[] = [];
  private readonly hooks: {
    when: 'before' | 'after';
    name: ActivityName;
    run: () => Promise<void> | void;
  }[] = [];
  private readonly left: string[] = [];
  private readonly rows = new Map<string, Row>();
  private readonly rules: Record<Dc, Rules>;
  private readonly documents = new Map<number, string>();
  /** Writes acknowledged to clients, and of them applied on the other side, by `dc/store/unit` of the writer. */
  private readonly written = new Map<string, number>();
  private readonly applied = new Map<string, number>();
  private readonly markers = new Map<
    string,
    { link: string; runId: string; at: Map<string, number>; reached: boolean }
  >();
  private limit = Infinity;

  constructor(
    readonly topology: string,
    private readonly env: TestWorkflowEnvironment,
  ) {
    const rules: Rules = {
      format: 1,
      topology,
      epoch: 1,
      mappingVersion: 1,
      unitMappingVersions: {},
      defaultRegion: 'cn-east',
      regions: { 'cn-east': [{ from: 0, to: 999, owner: 'dc-a', state: 'open' }] },
      segments: {},
      central: {},
      holder: null,
      reason: 'first',
    };
    this.rules = { 'dc-a': rules, 'dc-b': rules };
    for (const dc of DCS) {
      for (const key of keysOf(dc, STORES)) {
        this.rows.set(key, {
          state: dc === 'dc-a' ? 'open' : 'remote',
          owner: 'dc-a',
          epoch: 1,
          holder: null,
        });
      }
    }
  }

  get workflowId(): string {
    return `switchover/${this.topology}`;
  }

  private get client(): Client {
    return this.env.client;
  }

  /** The next `times` calls of `name` go wrong. */
  fault(name: ActivityName, fault: Fault, times = 1): void {
    this.faults.push({ name, fault, times });
  }

  /** No more faults; silent and late calls stay as they are. */
  heal(): void {
    this.faults.length = 0;
  }

  /** Runs once, before or after the next call of `name`. */
  on(when: 'before' | 'after', name: ActivityName, run: () => Promise<void> | void): void {
    this.hooks.push({ when, name, run });
  }

  /** Late operations arrive now. */
  arrive(): void {
    for (const operation of this.late.splice(0)) {
      // What a guard refuses is what a late operation deserves.
      operation().catch((error: unknown) => {
        if (!(error instanceof ApplicationFailure)) throw error;
      });
    }
  }

  async call<T>(name: ActivityName, apply: () => T | Promise<T>): Promise<T> {
    this.calls.push(name);
    this.pending++;
    try {
      this.clientsWrite();
      await this.runHooks('before', name);
      const fault = this.takeFault(name);
      if (fault === 'fails') throw fail('Unavailable', `${name} does not work`);
      if (fault === 'refuses') throw fail('Refused', `${name} is refused`);
      if (fault === 'late') {
        this.late.push(async () => void (await apply()));
        throw fail('Unavailable', `${name} was given up and may still arrive`);
      }
      if (fault === 'silent' || fault === 'overdue') {
        await this.outlast();
        return await this.arrival(() => {
          if (fault === 'silent') throw fail('Unavailable', `${name} was late`);
          return apply();
        });
      }
      if (fault === 'half') {
        this.limit = 1;
        try {
          await apply();
        } finally {
          this.limit = Infinity;
        }
        throw fail('Unavailable', `${name} broke off`);
      }
      const result = await apply();
      this.clientsWrite();
      await this.runHooks('after', name);
      if (fault === 'answer-lost') throw fail('Unavailable', `the answer of ${name} was lost`);
      return result;
    } finally {
      this.pending--;
    }
  }

  /** Lets the links deliver what they hold back. */
  async unstick(): Promise<void> {
    this.links = 'prompt';
    for (const [id, marker] of this.markers) if (!marker.reached) await this.deliver(id, 1);
  }

  /** What was quarantined (or stuck) is applied; no signal comes again, the checkpoints say it. */
  async mendQuarantine(): Promise<void> {
    this.links = 'prompt';
    for (const id of this.markers.keys()) await this.deliver(id, 0);
  }

  async signal(signal: BaselineReached, runId?: string): Promise<void> {
    await this.client.workflow
      .getHandle(this.workflowId, runId)
      .signal('baselineReached', signal)
      .catch(() => undefined);
  }

  markerIds(): string[] {
    return [...this.markers.keys()];
  }

  /** The DC in which each unit is open in every store, or what is wrong instead. */
  owner(): string {
    const owners = new Set<string>();
    for (const unit of UNITS) {
      const open = DCS.filter((dc) => STORES.every((s) => this.row(dc, s, unit).state === 'open'));
      const [one] = open;
      if (open.length !== 1 || !one) return this.describe();
      const rest = DCS.filter((dc) => dc !== one);
      if (!rest.every((dc) => STORES.every((s) => this.row(dc, s, unit).state === 'remote')))
        return this.describe();
      owners.add(one);
    }
    for (const dc of DCS) {
      const router = new Router(this.rules[dc]);
      for (const unit of UNITS) {
        const assignment = router.assignmentOf(unit)!;
        if (assignment.state !== 'open') return `rules of ${dc} say ${assignment.state}`;
        if (!owners.has(assignment.owner)) return `rules of ${dc} say ${assignment.owner}`;
      }
    }
    return owners.size === 1 ? [...owners][0]! : this.describe();
  }

  ownerByRules(unit: string): string | undefined {
    return new Router(this.newest()).assignmentOf(unit)?.owner;
  }

  /** A dead run has left a unit write-disabled that the rules do not have (any more). */
  leave(unit: string, holder: Holder): void {
    this.left.push(unit);
    for (const store of STORES) {
      this.rows.set(`dc-a/${store}/${unit}`, { state: 'write_disabled', owner: 'dc-a', epoch: 1, holder });
      this.rows.set(`dc-b/${store}/${unit}`, { state: 'remote', owner: 'dc-a', epoch: 1, holder: null });
    }
  }

  get holderByRules(): Holder | null {
    return this.newest().holder;
  }

  describe(): string {
    return [...this.rows].map(([key, r]) => `${key} ${r.state}@${r.epoch}`).join(', ');
  }

  // ---- the guards of a store

  row(dc: string, store: string, unit: string): Row {
    return this.rows.get(`${dc}/${store}/${unit}`)!;
  }

  /** One transaction of one store: all units or none. */
  private change(
    dc: Dc,
    store: string,
    input: StepInput,
    to: UnitStateName,
    owner: string,
    mode: 'change' | 'raise' | 'reopen',
  ): void {
    const { epoch, holder, takeOverFrom } = input;
    const changed: string[] = [];
    for (const unit of input.units) {
      const row = this.row(dc, store, unit);
      const at = `${dc}/${store}/${unit}`;
      if (mode === 'raise' && row.state !== 'remote') throw fail('AlreadySwitched', `${at} is ${row.state}`);
      if (mode === 'reopen' && row.state === 'remote') throw fail('AlreadySwitched', `${at} was handed over`);
      if (row.epoch > epoch) throw fail('StaleEpoch', `${at} is at epoch ${row.epoch}, this is ${epoch}`);
      if (row.epoch === epoch) {
        if (row.state === to && row.owner === owner && same(row.holder, holder)) continue;
        throw fail('EpochConflict', `${at} has epoch ${epoch} as ${row.state}`);
      }
      if (row.state === 'write_disabled' && !same(row.holder, holder) && !same(row.holder, takeOverFrom)) {
        throw fail('HeldByOther', `${at} is held by ${row.holder?.runId ?? 'nobody'}`);
      }
      if (to === 'write_disabled' && row.state === 'remote') throw fail('NotOwner', `${at} is remote`);
      changed.push(unit);
    }
    for (const unit of changed) {
      const key = `${dc}/${store}/${unit}`;
      const before = this.rows.get(key)!;
      if (before.epoch >= epoch)
        this.violations.push(`7: ${key} went from epoch ${before.epoch} to ${epoch}`);
      this.rows.set(key, { state: to, owner, epoch, holder });
      if (to === 'open' && before.state !== 'open') this.opened(dc, store, unit);
    }
    this.oneWriter();
  }

  private stores(): string[] {
    return STORES.slice(0, this.limit);
  }

  /** The rules row of a control store. */
  private publish(dc: Dc, rules: Rules, late: 'refuse' | 'ignore'): void {
    const text = canonicalJson(rules);
    const known = this.documents.get(rules.epoch);
    if (rules.epoch < this.rules[dc].epoch || (known !== undefined && known !== text)) {
      if (late === 'ignore') return;
      throw fail(
        rules.epoch < this.rules[dc].epoch ? 'StaleEpoch' : 'EpochConflict',
        `rules ${rules.epoch} of ${dc}`,
      );
    }
    this.documents.set(rules.epoch, text);
    this.rules[dc] = rules;
  }

  // ---- the invariants

  private oneWriter(): void {
    for (const unit of UNITS) {
      const open = DCS.filter((dc) => STORES.some((s) => this.row(dc, s, unit).state === 'open'));
      if (open.length > 1) this.violations.push(`1: ${unit} is open in both: ${this.describe()}`);
    }
  }

  private opened(dc: Dc, store: string, unit: string): void {
    const writer = `${other(dc)}/${store}/${unit}`;
    const written = this.written.get(writer) ?? 0;
    const applied = this.applied.get(writer) ?? 0;
    if (applied < written)
      this.violations.push(`2: ${unit} opened in ${dc} ${store} with ${written - applied} writes missing`);
  }

  /** Clients write wherever they may; the links are behind until a marker brings them up. */
  private clientsWrite(): void {
    for (const [key, row] of this.rows) {
      if (row.state === 'open') this.written.set(key, (this.written.get(key) ?? 0) + 1);
    }
  }

  // ---- links

  /** The link applies everything before the marker (but one change when quarantined), and says so `times` times. */
  private async deliver(id: string, times: number): Promise<void> {
    const marker = this.markers.get(id)!;
    const quarantined = this.links === 'quarantined' ? 1 : 0;
    for (const [key, count] of marker.at) {
      this.applied.set(key, Math.max(this.applied.get(key) ?? 0, count - quarantined));
    }
    marker.reached = true;
    for (let i = 0; i < times; i++) {
      await this.signal(
        { markerId: id, link: marker.link, conflicts: 0, quarantined, position: 'p' },
        marker.runId,
      );
    }
  }

  private async writeMarkers(input: Parameters<DatacenterActivities['writeDisable']>[0]): Promise<void> {
    for (const { markerId, link, store } of input.links) {
      // A marker is in the same commit as its store's fence.
      if (this.markers.has(markerId) || !this.stores().includes(store)) continue;
      const at = new Map(keysOf(input.from as Dc, [store]).map((key) => [key, this.written.get(key) ?? 0]));
      const marker = { link, runId: input.holder.runId, at, reached: false };
      this.markers.set(markerId, marker);
      switch (this.links) {
        case 'early':
          await this.deliver(markerId, 1);
          break;
        case 'prompt':
        case 'quarantined':
        case 'doubled':
          setTimeout(() => void this.deliver(markerId, this.links === 'doubled' ? 2 : 1), 5);
          break;
        case 'signal-lost':
          await this.deliver(markerId, 0);
          break;
        case 'stuck':
          break;
      }
    }
  }

  // ---- activities

  readonly activities: DatacenterActivities & ControlActivities = {
    preflight: ({ dc, plan }) =>
      this.call('preflight', () => {
        const expected: UnitStateName = dc === plan.from ? 'open' : 'remote';
        const bad = keysOf(dc as Dc, STORES).filter((key) => this.rows.get(key)!.state !== expected);
        return [{ name: 'states', ok: bad.length === 0, detail: bad.join() }, ...this.checks('preflight')];
      }),

    catchUp: ({ links }) => this.call('catchUp', () => links.map(planLink)),

    writeDisable: (input) =>
      this.call('writeDisable', async () => {
        const from = input.from as Dc;
        if (input.readOnly === true) this.readOnly.push(from);
        for (const dc of DCS) this.publish(dc, input.rules, 'ignore');
        for (const store of this.stores()) this.change(from, store, input, 'write_disabled', from, 'change');
        this.publish(from, input.rules, 'refuse');
        await this.writeMarkers(input);
        return {
          holdSentAt: 1_000,
          fencedAt: 1_005,
          baselines: input.links.map((l) => ({ ...l, position: `p ${l.store}` })),
          blockers: [],
        };
      }),

    readBaselines: ({ links }) =>
      this.call('readBaselines', () => {
        const answers = links.flatMap(({ link, markerId }): BaselineReached[] => {
          if (this.markers.get(markerId)?.reached !== true) return [];
          const quarantined = this.links === 'quarantined' ? 1 : 0;
          return [{ link, markerId, conflicts: 0, quarantined, position: 'p' }];
        });
        return this.misread ? this.misread(answers) : answers;
      }),

    switchWhenDrained: async (input) => {
      const reached = () => input.links.every(({ markerId }) => this.markers.get(markerId)?.reached === true);
      this.pending++;
      try {
        const waits = this.quick && this.links !== 'stuck';
        for (let ms = 0; waits && ms < QUICK_MS && !reached(); ms++) await wait(1);
        return await this.call('switchWhenDrained', () => {
          // A link that has quarantined a change stops before its marker.
          if (!this.quick || !reached() || this.links === 'quarantined') return null;
          try {
            return { ...this.switchOver(input), reachedAt: 1_009 };
          } catch (error) {
            const remote = input.units.every(
              (unit) => this.row(input.to, STORES[0]!, unit).state === 'remote',
            );
            if (remote && error instanceof ApplicationFailure) return null;
            throw error;
          }
        });
      } finally {
        this.pending--;
      }
    },

    switchTarget: (input) => this.call('switchTarget', () => this.switchOver(input)),

    handOverSource: (input) =>
      this.call('handOverSource', () => {
        const from = input.from as Dc;
        for (const store of this.stores()) this.change(from, store, input, 'remote', input.to, 'change');
        this.publish(from, input.rules, 'refuse');
        return { routedAt: 1_020, gateways: [] };
      }),

    raiseTarget: (input) =>
      this.call('raiseTarget', () => {
        const to = input.to as Dc;
        for (const store of this.stores()) this.change(to, store, input, 'remote', input.from, 'raise');
        this.publish(to, input.rules, 'refuse');
      }),

    reopenSource: (input) =>
      this.call('reopenSource', () => {
        const from = input.from as Dc;
        for (const store of this.stores()) this.change(from, store, input, 'open', from, 'reopen');
        this.publish(from, input.rules, 'refuse');
        this.publish(input.to as Dc, input.rules, 'ignore');
        return [];
      }),

    confirm: ({ dc, epoch }) =>
      this.call('confirm', (): GatewayConfirmation[] => [
        { dc, gateway: 'gw', epoch, ok: !this.unconfirmed, detail: this.unconfirmed ? 'silent' : '' },
      ]),

    postCheck: ({ dc, owner }) =>
      this.call('postCheck', () => {
        const expected: UnitStateName = dc === owner ? 'open' : 'remote';
        const bad = keysOf(dc as Dc, STORES).filter((key) => this.rows.get(key)!.state !== expected);
        return [{ name: 'states', ok: bad.length === 0, detail: bad.join() }, ...this.checks('postCheck')];
      }),

    gatewayTotals: () =>
      this.call('gatewayTotals', () => ({
        heldRequests: this.calls.includes('writeDisable') ? 7 : 0,
        refusedRequests: 0,
        failedRequests: 0,
        unavailableMs: 21 * this.calls.filter((name) => name === 'writeDisable').length,
      })),

    makePlan: (request) => this.call('makePlan', () => this.plan(request)),

    nextEpoch: ({ units, holder }) =>
      this.call('nextEpoch', async () => {
        const epochs = [...this.rows.values(), ...Object.values(this.rules)].map((r) => r.epoch);
        const rules = this.newest();
        for (const row of units.flatMap((unit) =>
          DCS.flatMap((dc) => STORES.map((s) => this.row(dc, s, unit))),
        )) {
          if (row.state !== 'write_disabled' || row.holder === null || same(row.holder, holder)) continue;
          const closed = await this.isClosed(row.holder);
          return { epoch: Math.max(...epochs) + 1, rules, ...(closed ? { takeOverFrom: row.holder } : {}) };
        }
        return { epoch: Math.max(...epochs) + 1, rules };
      }),

    findHeld: ({ holder }) =>
      this.call('findHeld', async () => {
        const router = new Router(this.newest());
        for (const dc of DCS) {
          const held = [...UNITS, ...this.left].filter((unit) => {
            const assignment = router.assignmentOf(unit);
            if (assignment?.state === 'write_disabled' && assignment.owner === dc) return true;
            return STORES.some((s) => this.row(dc, s, unit).state === 'write_disabled');
          });
          if (held.length === 0) continue;
          const row = STORES.map((s) => this.row(dc, s, held[0]!)).find((r) => r.state === 'write_disabled');
          const by = row?.holder ?? this.newest().holder;
          const holderClosed = by !== null && !same(by, holder) && (await this.isClosed(by));
          return [{ units: held, from: dc, to: other(dc), holder: by, holderClosed }];
        }
        return [];
      }),

    recordReport: (report) => this.call('recordReport', () => void this.reports.push(report)),
  };

  private plan(request: SwitchRequest): SwitchPlan {
    const rules = this.newest();
    const { from, to, policies, scope } = request;
    const links = (a: string, b: string): PlanLink[] => STORES.map((s) => planLink(`mysql/${s}:${a}>${b}`));
    return {
      hash: `hash-${rules.epoch}`,
      scope,
      from,
      to,
      baseEpoch: rules.epoch,
      baseHash: 'h',
      topologyHash: 't',
      units: request.units ?? UNITS,
      diff: [`cn-east buckets 0–1: ${from} → ${to} (0.2 %)`],
      stores: STORES,
      controlStore: STORES[0]!,
      servers: {},
      links: links(from, to),
      reverseLinks: links(to, from),
      checks: this.checks('makePlan'),
      predictedFenceMs: 30,
      policies,
      rules,
    };
  }

  private newest(): Rules {
    return this.rules['dc-a'].epoch >= this.rules['dc-b'].epoch ? this.rules['dc-a'] : this.rules['dc-b'];
  }

  /** Somebody else changes the rules (other units), or holds them. */
  changeRules(holder: Holder | null = null): void {
    const base = this.newest();
    const state = holder === null ? 'open' : 'write_disabled';
    const changes = new Map([['cn-east/999', { owner: 'dc-b', state } as const]]);
    const rules = withAssignments(base, changes, { epoch: base.epoch + 1, reason: 'other', holder });
    for (const dc of DCS) this.publish(dc, rules, 'refuse');
  }

  private checks(name: ActivityName): Check[] {
    const detail = this.badChecks.get(name);
    return detail === undefined ? [{ name, ok: true, detail: '' }] : [{ name, ok: false, detail }];
  }

  private switchOver(input: StepInput): SwitchResult {
    const to = input.to as Dc;
    const control = STORES[0]!;
    if (input.units.every((unit) => this.row(to, control, unit).state === 'remote')) this.checkSource(input);
    for (const store of this.stores()) {
      this.change(to, store, input, 'open', to, 'change');
      if (store === control) this.publish(to, input.rules, 'refuse');
    }
    this.publish(input.from as Dc, input.rules, 'ignore');
    return { committedAt: 1_010, openAt: 1_012, routedAt: 1_014, sourceRoutedAt: null, gateways: [] };
  }

  private checkSource(input: StepInput): void {
    for (const unit of input.units) {
      for (const store of STORES) {
        const row = this.row(input.from, store, unit);
        if (row.state === 'remote' && row.owner === input.to) continue;
        const held = same(row.holder, input.holder) || same(row.holder, input.takeOverFrom);
        if (row.state !== 'write_disabled' || !held)
          throw fail('Refused', `${unit} is not fenced in ${store}`);
      }
    }
  }

  private async isClosed(holder: Holder): Promise<boolean> {
    const description = await this.client.workflow.getHandle(holder.workflowId, holder.runId).describe();
    return description.status.name !== 'RUNNING';
  }

  private async runHooks(when: 'before' | 'after', name: ActivityName): Promise<void> {
    for (let i = 0; i < this.hooks.length;) {
      const hook = this.hooks[i]!;
      if (hook.when !== when || hook.name !== name) {
        i++;
        continue;
      }
      this.hooks.splice(i, 1);
      await hook.run();
    }
  }

  private takeFault(name: ActivityName): Fault | undefined {
    const planned = this.faults.find((f) => f.name === name && f.times > 0);
    if (planned) planned.times--;
    return planned?.fault;
  }

  /** Time passes until this call has timed out. */
  private async outlast(): Promise<void> {
    const { info } = Context.current();
    // Zero is none.
    const timeoutMs = Math.min(info.startToCloseTimeoutMs, info.heartbeatTimeoutMs || Infinity);
    await passTimeout(this.env, info.currentAttemptScheduledTimestampMs + timeoutMs);
  }

  /** An answer for which nobody waits is given when the test says so, or when the worker ends. */
  private async arrival<T>(apply: () => T | Promise<T>): Promise<T> {
    this.pending--;
    try {
      const answer = new Promise<T>((resolve, reject) => {
        this.late.push(() => Promise.resolve().then(apply).then(resolve, reject));
      });
      return await Promise.race([answer, Context.current().cancelled]);
    } finally {
      this.pending++;
    }
  }
}

function other(dc: Dc): Dc {
  return dc === 'dc-a' ? 'dc-b' : 'dc-a';
}

function keysOf(dc: Dc, stores: readonly string[]): string[] {
  return stores.flatMap((store) => UNITS.map((unit) => `${dc}/${store}/${unit}`));
}

function planLink(link: string): PlanLink {
  const store = /^mysql\/([^:]*):/.exec(link)?.[1] ?? '';
  return { link, store, generation: 1, state: 'streaming', lagMs: 0, position: 'p' };
}
