import { murmur3 } from './murmur3.js';

export const BUCKETS = 1000;

/** What a request is routed by. A missing region is the rules' `defaultRegion`. */
export interface RoutingKey {
  userId: string;
  region?: string;
}

/** `cn-east/42`, `segment:vip` or `central:coupon-inventory`. The primary key of `interlock.unit_state`. */
export type UnitId = string;

/** The name of a data center, as in topology.yaml. */
export type DcId = string;

export function bucketOf(userId: string): number {
  return murmur3(userId) % BUCKETS;
}

export function bucketUnit(region: string, bucket: number): UnitId {
  return `${region}/${bucket}`;
}

export function segmentUnit(name: string): UnitId {
  return `segment:${name}`;
}

export function centralUnit(name: string): UnitId {
  return `central:${name}`;
}

export type ParsedUnit =
  | { kind: 'bucket'; region: string; bucket: number }
  | { kind: 'segment'; name: string }
  | { kind: 'central'; name: string };

/** The parts of a unit id, or undefined when `unit` is none. */
export function parseUnit(unit: UnitId): ParsedUnit | undefined {
  const named = /^(segment|central):([a-z0-9][a-z0-9-]*)$/.exec(unit);
  if (named) return { kind: named[1] as 'segment' | 'central', name: named[2]! };
  const bucket = /^([a-z0-9][a-z0-9-]*)\/(0|[1-9][0-9]{0,2})$/.exec(unit);
  if (bucket) return { kind: 'bucket', region: bucket[1]!, bucket: Number(bucket[2]) };
  return undefined;
}
