/**
 * What the switchover workflow, its activities, the CLI and the tests agree on. Types and names only.
 */
import type { DcId, UnitId } from '../src/routing/units.js';
import type { Holder, Rules } from '../src/routing/rules.js';
import type { Blocker, BlockerPolicy } from '../src/fence/types.js';
import type { BaselineReached } from '../replicators/core/contract.js';

/** One switchover at a time per topology: the workflow id is fixed, a run is a switchover. */
export function switchoverWorkflowId(topology: string): string {
  return `switchover/${topology}`;
}

/** A plan is made by a workflow of its own, so that it sees what a switchover would see, and the CLI needs Temporal only. */
export function planWorkflowId(topology: string, id: string): string {
  return `switch-plan/${topology}/${id}`;
}

export function replicatorWorkflowId(link: string): string {
  return `replicator/${link}`;
}

/** Signal and update names. `abort`, `rollback`, `finish`, `extend` exist as both. */
export const SIGNALS = {
  abort: 'abort',
  rollback: 'rollback',
  finish: 'finish',
  extend: 'extend',
  baselineReached: 'baselineReached',
} as const;
/** Update without a validator: answers the status when the soak has begun, the run has ended, or an operator is needed. */
export const SETTLED = 'settled';
export const QUERIES = { status: 'status', report: 'report' } as const;

export interface SwitchPolicies {
  /** Milliseconds from the fence until every link must have reached the baseline. */
  drainTimeoutMs: number;
  drainTimeout: 'abort' | 'extend';
  /** Milliseconds that the fence waits for transactions in flight, then `blockers`. */
  fenceBudgetMs: number;
  blockers: BlockerPolicy;
  /** Milliseconds after the switch in which `rollback` is one signal away; then it finishes by itself. */
  soakMs: number;
  /** Start to fence only when every link's lag is below this (ms), and wait at most `catchUpTimeoutMs` for it. */
  lagLimitMs: number;
  catchUpTimeoutMs: number;
  /** When a gateway or instance does not confirm the switch epoch in `confirmTimeoutMs`: report it and go on, or keep trying. */
  unconfirmed: 'report' | 'wait';
  confirmTimeoutMs: number;
  /** Every table that the scope touches was verified, and found equal, no longer ago than this; absent: not asked for. */
  requireVerifyMs?: number;
}

export const DEFAULT_POLICIES: SwitchPolicies = {
  drainTimeoutMs: 10_000,
  drainTimeout: 'abort',
  fenceBudgetMs: 1_000,
  blockers: 'kill',
  soakMs: 600_000,
  lagLimitMs: 1_000,
  catchUpTimeoutMs: 60_000,
  unconfirmed: 'report',
  confirmTimeoutMs: 10_000,
};

export interface SwitchRequest {
  topology: string;
  /** As typed: `cn-east:10%`, `cn-east/0-99`, `region:cn-east`, `segment:vip`, `central:coupons`, `dc:dc-a`. */
  scope: string;
  from: DcId;
  to: DcId;
  reason: string;
  startedBy: string;
  policies: SwitchPolicies;
  /** DC → Temporal task queue of its workers, as in the topology. Control activities run on the workflow's own task queue. */
  taskQueues: Record<DcId, string>;
  /** Refuse when the plan's hash is another. */
  planHash?: string;
  /** Exactly these units instead of the scope's; set by a rollback, whose scope is what was moved. */
  units?: UnitId[];
}

export interface Check {
  name: string;
  ok: boolean;
  /** What was seen, and what to do when it is not ok. */
  detail: string;
}

export interface PlanLink {
  link: string;
  store: string;
  generation: number;
  state: string;
  lagMs: number;
  position: string;
}

/** The plan's hash covers base epoch, diff, topology, server identities, link generations and policies; never lag or positions. */
export interface SwitchPlan {
  hash: string;
  scope: string;
  from: DcId;
  to: DcId;
  baseEpoch: number;
  /** Hash of the rules in force. */
  baseHash: string;
  topologyHash: string;
  /** The units that move; sorted. */
  units: UnitId[];
  /** `cn-east buckets 0–99: dc-a → dc-b (10.0 %)` */
  diff: string[];
  /** Names of the MySQL stores that are fenced; `controlStore` is one of them. */
  stores: string[];
  controlStore: string;
  /** `dc-a mysql/main` → server identity. */
  servers: Record<string, string>;
  /** Links from → to that have to reach the baseline. */
  links: PlanLink[];
  /** Links to → from, for the way back. */
  reverseLinks: PlanLink[];
  checks: Check[];
  predictedFenceMs: number;
  policies: SwitchPolicies;
  /** The rules in force, from which fence, switch and re-open documents are made. */
  rules: Rules;
}

/** What every activity that changes state is told. */
export interface StepInput {
  from: DcId;
  to: DcId;
  units: UnitId[];
  epoch: number;
  holder: Holder;
  /** A run that was seen closed and whose units this run may take over. */
  takeOverFrom?: Holder;
  /** The rules document of this epoch. */
  rules: Rules;
  /** Milliseconds that the step waits for transactions that hold a unit's lock, then `blockers`. */
  fenceBudgetMs: number;
  blockers: BlockerPolicy;
  /** With a fence, and with a switch: the marker of each link. Absent: the switch completes what has begun. */
  links?: LinkMarker[];
}

/** A link that has to reach the baseline (`mysql/main:dc-a>dc-b`), and the marker that says so in its store's stream. */
export interface LinkMarker {
  link: string;
  store: string;
  markerId: string;
}

export interface WriteDisableInput extends StepInput {
  /** The scope is all that the source owns (`dc:dc-a`): its servers become read_only, for writers without the SDK. */
  readOnly?: boolean;
  /** The marker of each store goes into its stream with the fence. */
  links: LinkMarker[];
  /** What the outboxes, and what is open in Kafka, may take. */
  drainTimeoutMs: number;
}

export interface SwitchWhenDrainedInput extends StepInput {
  links: LinkMarker[];
  /** Milliseconds that the links have, from when the activity begins. */
  waitMs: number;
}

export interface WriteDisableResult {
  /** ms since the epoch (Date.now) on the source DC's worker: the stores were asked, the last has answered. */
  holdSentAt: number;
  fencedAt: number;
  /** Above 1: attempts of before have asked, too, and may have fenced. */
  attempt?: number;
  baselines: (LinkMarker & { position: string })[];
  blockers: Blocker[];
}

export interface GatewayConfirmation {
  dc: DcId;
  gateway: string;
  epoch: number | null;
  ok: boolean;
  detail: string;
}

/** Times are ms since the epoch (Date.now) on the worker of the target DC. */
export interface SwitchResult {
  committedAt: number;
  openAt: number;
  routedAt: number;
  /** When the source's gateways routed to the target, which the switch told them too; null when not all of them confirmed. */
  sourceRoutedAt: number | null;
  gateways: GatewayConfirmation[];
}

/** Times are ms since the epoch (Date.now) on the worker of the source DC. */
export interface HandOverResult {
  /** When the source's gateways routed to the target; its held requests are released then. */
  routedAt: number;
  gateways: GatewayConfirmation[];
}

/**
 * Units that a run left between two owners: `write_disabled` in any store of a DC or in any DC's rules in force.
 * `from` is the DC where they are write-disabled (the old owner), `to` the other one. Read from the stores, not from Temporal.
 */
export interface HeldUnits {
  units: UnitId[];
  from: DcId;
  to: DcId;
  /** null when the rows name none. */
  holder: Holder | null;
  /** Temporal says that the holder's run is closed (or does not know it). */
  holderClosed: boolean;
}

/** Of all gateways of a DC since they were started: sums, and the longest write-unavailability. Take differences. */
export interface GatewayTotals {
  heldRequests: number;
  refusedRequests: number;
  failedRequests: number;
  unavailableMs: number;
}

/**
 * The activities of a DC's task queue. All are idempotent; a late one of a dead attempt fails with StaleEpoch.
 * Failures are ApplicationFailures whose `type` is an ErrorCode of src/errors.ts.
 */
export interface DatacenterActivities {
  /** Step 2, the part that one DC can see: stores, identity, XA, gateways, routed tables. */
  preflight(input: { dc: DcId; plan: SwitchPlan }): Promise<Check[]>;
  /** Step 3: returns when every link into this DC is below the lag limit; heartbeats. */
  catchUp(input: { links: string[]; lagLimitMs: number }): Promise<PlanLink[]>;
  /** Steps 4 and 5: fence the units in every store of `from`, the markers in the same commits; gateways hold. */
  writeDisable(input: WriteDisableInput): Promise<WriteDisableResult>;
  /** Step 6, fall-back: the markers that this DC's checkpoints have passed. */
  readBaselines(input: { links: { link: string; markerId: string }[] }): Promise<BaselineReached[]>;
  /**
   * Steps 6 and 7 in one, asked for together with the fence so that the window has no turn of the workflow in it: waits until this DC's
   * checkpoints have every marker (each is in the commit of its store's fence), then does what switchTarget does. null: they had not in
   * time, or the source is not fenced as it was: nothing was changed.
   */
  switchWhenDrained(input: SwitchWhenDrainedInput): Promise<(SwitchResult & { reachedAt: number }) | null>;
  /** Step 7 at the target: the switch epoch commits in its control store (point of no return), then units open in every store, gateways route. */
  switchTarget(input: StepInput): Promise<SwitchResult>;
  /** Step 7 at the source: units become remote, gateways of the source route to the target. */
  handOverSource(input: StepInput): Promise<HandOverResult>;
  /**
   * Compensation, first half, at the target: raises the epoch of its remote rows, the control store's first, and keeps the rules
   * of this epoch there (the same document that reopenSource publishes at the source), so that both DCs' rules agree afterwards.
   * Fails with AlreadySwitched when any unit is open in the target's control store: the point of no return was passed.
   */
  raiseTarget(input: StepInput): Promise<void>;
  /**
   * Compensation, second half, at the source: open again at a new epoch, gateways release. Opens rows that are write_disabled or
   * open; a `remote` row was handed over, so it fails with AlreadySwitched (a reset run may have forgotten that it switched).
   * Gateways release also when it fails with FenceBudgetExceeded: what is open meanwhile takes writes.
   */
  reopenSource(input: StepInput): Promise<GatewayConfirmation[]>;
  /** Step 8: every gateway and SDK instance of this DC has the epoch. */
  confirm(input: { dc: DcId; epoch: number; timeoutMs: number }): Promise<GatewayConfirmation[]>;
  /** Step 9: through the gateways of this DC, units route to `owner`; stores agree. */
  postCheck(input: { dc: DcId; owner: DcId; units: UnitId[]; epoch: number }): Promise<Check[]>;
  /** Counters of this DC's gateways, read before the fence and after the switch; what cannot be reached is left out. */
  gatewayTotals(input: { dc: DcId }): Promise<GatewayTotals>;
}

/** Activities of the control task queue; they reach both DCs. */
export interface ControlActivities {
  makePlan(request: SwitchRequest): Promise<SwitchPlan>;
  /**
   * The next epoch (highest of both DCs' rules and unit states, plus one), a holder of these units other than `holder` of which
   * Temporal says that it is closed, and the rules with the highest epoch of both DCs: the base of the next document.
   */
  nextEpoch(input: {
    units: UnitId[];
    holder: Holder;
  }): Promise<{ epoch: number; takeOverFrom?: Holder; rules: Rules }>;
  /** What earlier runs left write-disabled; empty when nothing. `topology` is the topology's name. */
  findHeld(input: { topology: string; holder: Holder }): Promise<HeldUnits[]>;
  /** Keeps the report in both control stores (those that can be reached). */
  recordReport(report: SwitchReport): Promise<void>;
}

export type StepName =
  | 'plan'
  | 'preflight'
  | 'catch-up'
  | 'write-disable'
  | 'baseline'
  | 'drain'
  | 'switch'
  | 'cancel-write-disable'
  | 'post-checks'
  | 'soak'
  | 'compensate';

export type SwitchOutcome =
  | 'running'
  /** Moved; soak over by `finish` or time. */
  | 'done'
  /** Nothing moved: refused or failed before the fence. */
  | 'refused'
  /** Failed or aborted before the point of no return; the source is open again. */
  | 'compensated'
  | 'aborted'
  /** Moved and moved back. */
  | 'rolled-back'
  /** Something could not be confirmed; `needs` names it and the command. */
  | 'needs-operator';

export interface StepReport {
  step: StepName;
  /** `move` or `rollback`. */
  flow: 'move' | 'rollback';
  startedAt: string;
  endedAt: string | null;
  ok: boolean | null;
  detail: string;
}

export interface FlowReport {
  flow: 'move' | 'rollback';
  from: DcId;
  to: DcId;
  fenceEpoch: number | null;
  switchEpoch: number | null;
  /** Set when the flow was compensated: the epoch at which the source was opened again. */
  reopenEpoch: number | null;
  /** From the first hold or fence sent until every target store is open and the gateways route there. */
  fencedMs: number | null;
  baselines: { link: string; position: string; drainMs: number | null }[];
  blockers: Blocker[];
  unconfirmed: GatewayConfirmation[];
}

export interface SwitchReport {
  workflowId: string;
  runId: string;
  request: SwitchRequest;
  planHash: string | null;
  diff: string[];
  unitCount: number;
  outcome: SwitchOutcome;
  /** What stands now, in words. */
  summary: string;
  /** Set when an operator is needed: what, and the command that mends it. */
  needs: string | null;
  error: { code: string; message: string } | null;
  steps: StepReport[];
  flows: FlowReport[];
  /** Held, refused and failed requests and client-visible write-unavailability, as the gateways counted them. */
  clients: {
    heldRequests: number;
    refusedRequests: number;
    failedRequests: number;
    unavailableMs: number;
  } | null;
  startedAt: string;
  endedAt: string | null;
}

/** Query `status`: cheap, for `--watch`. */
export interface SwitchStatus {
  runId: string;
  step: StepName;
  flow: 'move' | 'rollback';
  outcome: SwitchOutcome;
  summary: string;
  links: { link: string; reached: boolean }[];
  awaiting: 'nothing' | 'drain' | 'extend-or-abort' | 'rollback-or-finish' | 'operator';
  /** Set when an operator is needed: what is awaited, and the command that mends it. */
  needs: string | null;
  scope: string;
  from: DcId;
  to: DcId;
  diff: string[];
  /** Steps so far, for live progress. */
  steps: StepReport[];
  fencedMs: number | null;
  /** ISO 8601, during the soak. */
  soakEndsAt: string | null;
}
