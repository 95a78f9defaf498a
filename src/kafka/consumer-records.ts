import { createHash } from 'node:crypto';
import type { DcId } from '../routing/units.js';
import type { PartitionState } from './partition-progress.js';

/** A compacted topic of each DC: how far the groups of the SDK's consumers are there, and what was handed over to them. */
export const CONSUMERS = 'interlock.consumers';
const PARTITIONS = 8;

/** Members read it from its beginning when they start. */
export const CONSUMERS_CONFIG: Readonly<Record<string, string>> = {
  'cleanup.policy': 'compact',
  'segment.bytes': '16777216',
  'segment.ms': '600000',
  'min.cleanable.dirty.ratio': '0.2',
  // Who reads on has to do so within that, or begins anew: `ConsumersTail`.
  'delete.retention.ms': '86400000',
};
export const CONSUMERS_PARTITIONS = PARTITIONS;

/** A group's view of one topic: its positions, and what waits for what, are one whole. */
export interface Subscription {
  group: string;
  /** As it is called at its origin. */
  topic: string;
}

/** An instance of an application. */
export interface Member {
  application: string;
  instance: string;
}

/** The state of a partition; without the last two, it is of an SDK that does not say so. */
export type StoredState = PartitionState & {
  /** Who has committed it. */
  holder?: Member;
  /** Of the rules that its holder knew: of units that these do not give it, it has handled what is in the positions, and no more. */
  epoch?: number;
};

/** As it is for the units that the fence of an epoch takes away: a holder that knew of it has attempted nothing of them. */
export function settledBy(state: StoredState, epoch: number): StoredState {
  return (state.epoch ?? 0) >= epoch ? { ...state, attempt: null } : state;
}

export type RecordKey =
  /** `StoredState` */
  | ['state', group: string, topic: string, origin: DcId, partition: number]
  /** `HandOver[]` of one epoch */
  | ['hand-over', group: string, topic: string, epoch: number]
  /** A mark: whoever reads it has read all before it. */
  | ['mark', group: string, topic: string, origin: DcId, partition: number];

/** All of a subscription is in one partition: one after the other for everybody. */
export function partitionOfSubscription({ group, topic }: Subscription): number {
  const hash = createHash('sha256').update(JSON.stringify([group, topic]));
  return hash.digest().readUInt32BE(0) % PARTITIONS;
}

const PREFIX = 'interlock-consumer:';

/** Of who writes the state of a partition: a member that has lost it writes nothing any more. */
export function consumerTransactionalId(
  { group, topic }: Subscription,
  origin: DcId,
  partition: number,
): string {
  return `${PREFIX}${JSON.stringify([group, topic, origin, partition])}`;
}

export function isConsumerId(transactionalId: string): boolean {
  return transactionalId.startsWith(PREFIX);
}

/** Whose it is; undefined: no consumer's. */
export function subscriptionOfId(transactionalId: string): Subscription | undefined {
  if (!isConsumerId(transactionalId)) return undefined;
  try {
    const [group, topic] = JSON.parse(transactionalId.slice(PREFIX.length)) as [string, string];
    return { group, topic };
  } catch {
    return undefined;
  }
}

/** The header of a copied record that says where it comes from: `<dc>/<topic>/<partition>/<offset>`. */
export const ORIGIN_HEADER = 'interlock-origin';
