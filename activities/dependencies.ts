import type { Logger } from 'pino';
import type { LinkStatus } from '../replicators/core/contract.js';
import type { MarkerArrivals } from '../replicators/core/marker-arrivals.js';
import type { KafkaMember } from '../replicators/kafka/member.js';
import type { DcStores } from '../src/fence/connect.js';
import type { Holder } from '../src/routing/rules.js';
import type { DcId } from '../src/routing/units.js';
import type { RuleCenterClient } from '../src/rule-center/client.js';
import type { Topology } from '../src/topology/schema.js';

/** What the activities ask of a DC's rule center. Every call ends by the signal, or fails with Unavailable. */
export type RuleCenter = Pick<RuleCenterClient, 'publish' | 'gateways' | 'instances' | 'owns' | 'health'>;

/** The status of a link, as its workflow or heartbeat says; undefined when it does not run. */
export type ReadLinkStatus = (link: string) => Promise<LinkStatus | undefined>;

interface Shared {
  topology: Topology;
  /** The stores of every DC. */
  stores: ReadonlyMap<DcId, DcStores>;
  /** The Kafka stores of every DC, by name. */
  kafka: ReadonlyMap<DcId, ReadonlyMap<string, KafkaMember>>;
  ruleCenters: ReadonlyMap<DcId, RuleCenter>;
  readLinkStatus: ReadLinkStatus;
  log: Logger;
}

/** Of the worker of one DC. */
export interface DatacenterDeps extends Shared {
  dc: DcId;
  markers: MarkerArrivals;
  /** Fault tests stop the worker there. */
  stopAt?: (point: 'before-quickSwitchCommit' | 'after-quickSwitchCommit') => Promise<void>;
}

export interface ControlDeps extends Shared {
  /** Temporal says that this run is closed, or does not know it. Errors: Unavailable. */
  isClosed(holder: Holder): Promise<boolean>;
}
