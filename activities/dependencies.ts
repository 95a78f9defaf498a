import type { Logger } from 'pino';
import type { LinkStatus } from '../replicators/core/contract.js';
import type { DcStores } from '../src/fence/connect.js';
import type { Holder, Rules } from '../src/routing/rules.js';
import type { DcId, UnitId } from '../src/routing/units.js';
import type { Topology } from '../src/topology/schema.js';
import type { GatewayConfirmation } from '../workflows/contract.js';

/** What the activities ask of a DC's rule center. Every call ends by the signal, or fails with Unavailable. */
export interface RuleCenter {
  /** Keeps the rules and pushes them to the DC's gateways. Errors: StaleEpoch, EpochConflict, Unavailable. */
  publish(rules: Rules, signal: AbortSignal): Promise<GatewayConfirmation[]>;
  gateways(signal: AbortSignal): Promise<GatewayView[]>;
  /** The SDK instances of the DC with a lease, and the epoch that each has acknowledged. */
  instances(signal: AbortSignal): Promise<InstanceView[]>;
  owns(
    unit: UnitId,
    signal: AbortSignal,
  ): Promise<{ owns: boolean; owner: DcId; state: string; epoch: number }>;
}

/** A gateway as its rule center sees it. */
export interface GatewayView {
  gateway: string;
  /** null when it does not answer. */
  epoch: number | null;
  detail: string;
  heldTotal: number;
  refusedTotal: number;
  failedTotal: number;
  unavailableMs: number;
}

export interface InstanceView {
  instance: string;
  application: string;
  epoch: number;
}

/** The status of a link, as its workflow or heartbeat says; undefined when it does not run. */
export type ReadLinkStatus = (link: string) => Promise<LinkStatus | undefined>;

interface Shared {
  topology: Topology;
  /** The stores of every DC. */
  stores: ReadonlyMap<DcId, DcStores>;
  ruleCenters: ReadonlyMap<DcId, RuleCenter>;
  readLinkStatus: ReadLinkStatus;
  log: Logger;
}

/** Of the worker of one DC. */
export interface DatacenterDeps extends Shared {
  dc: DcId;
}

export interface ControlDeps extends Shared {
  /** Temporal says that this run is closed, or does not know it. Errors: Unavailable. */
  isClosed(holder: Holder): Promise<boolean>;
}
