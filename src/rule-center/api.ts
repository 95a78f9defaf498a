/** What a rule center answers. Shapes only; docs/rule-center.md has the routes. */
import type { Assignment, AssignmentState, Rules } from '../routing/rules.js';
import type { BalanceReport } from '../routing/plan.js';
import type { DcId, UnitId } from '../routing/units.js';

/** `GET /v1/rules`, and each event of `GET /v1/rules/watch`. */
export interface RulesDocument {
  rules: Rules;
  /** `rulesHash(rules)` */
  hash: string;
}

/** Whether one gateway has an epoch. */
export interface Confirmation {
  dc: DcId;
  gateway: string;
  /** What it has; null when it did not answer. */
  epoch: number | null;
  ok: boolean;
  detail: string;
}

/** `POST /v1/rules` */
export interface PublishAnswer {
  epoch: number;
  hash: string;
  gateways: Confirmation[];
}

/** `GET /v1/route` */
export interface RouteAnswer extends Assignment {
  unit: UnitId;
  epoch: number;
  mappingVersion: number;
  /** The domain that a terminal should use. */
  domain: string;
}

/** `GET /v1/owns` */
export interface OwnsAnswer {
  /** This DC may write the unit now: it is the owner and the unit is open. */
  owns: boolean;
  unit: UnitId;
  owner: DcId;
  state: AssignmentState;
  epoch: number;
}

/** `GET /v1/units` */
export interface UnitsAnswer {
  epoch: number;
  units: { unit: UnitId; owner: DcId; state: AssignmentState }[];
  balance: BalanceReport;
}

/** `GET /v1/tables`: what the topology, by which the rule center runs, declares of tables. */
export interface TablesAnswer {
  /** `schema.table` of those that nobody owns: they are written without a fence. */
  unrouted: string[];
}

/** One gateway, asked when the question came. */
export interface GatewayView {
  gateway: string;
  /** null when it does not answer or has no rules. */
  epoch: number | null;
  hash: string | null;
  ok: boolean;
  detail: string;
  held: number;
  heldTotal: number;
  refusedTotal: number;
  failedTotal: number;
  forwardedTotal: number;
  unavailableMs: number;
  /** Requests by the DC that they were sent to. */
  requests: Record<DcId, number>;
}

/** `POST /v1/leases` */
export interface LeaseRequest {
  instance: string;
  application: string;
  /** The epoch that the instance works by; 0: none yet. */
  epoch: number;
}

export interface LeaseAnswer {
  /** The rule center's epoch; 0: none yet. */
  epoch: number;
  /** The lease drops out when it is not renewed within this time. */
  ttlMs: number;
}

export interface InstanceView extends LeaseRequest {
  /** ISO 8601 */
  renewedAt: string;
  expiresInMs: number;
}

/** Something that an operator should know; `message` says what to do. */
export interface Problem {
  code: string;
  message: string;
}

/** `GET /v1/health` */
export interface HealthAnswer {
  /** `degraded`: serves, but something is wrong. `no-rules` (HTTP 503): nothing to serve. */
  status: 'ok' | 'degraded' | 'no-rules';
  dc: DcId;
  topology: string;
  epoch: number | null;
  hash: string | null;
  /** Highest epoch of the control store, when last looked at. */
  storeEpoch: number | null;
  /** What the other DC's rule center has, when last looked at. */
  peer: { dc: DcId; epoch: number | null; hash: string | null };
  gateways: { gateway: string; epoch: number | null; ok: boolean }[];
  instances: number;
  watchers: number;
  problems: Problem[];
}
