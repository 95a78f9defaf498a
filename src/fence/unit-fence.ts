import type { Rules } from '../routing/rules.js';
import type { DcId, UnitId } from '../routing/units.js';
import type { ChangeResult, FenceBudget, UnitChange, UnitState } from './types.js';

/** What the link's checkpoint in this (target) store says. */
export interface LinkCheckpoint {
  link: string;
  generation: number;
  position: string;
  /** The last marker that was committed with the data before it. */
  marker: string | null;
  /** Open records of the link. */
  conflicts: number;
  quarantined: number;
}

/** What a store says of some units, in one look. */
export interface Evidence {
  states: UnitState[];
  /** The server that answers; null: it has none of the units. */
  server: string | null;
  preparedXa: string[];
  /** It was to be read_only, and has forgotten that. */
  readOnlyForgotten: boolean;
}

/** The unit states of one store of any kind. Safe to call late, twice and from many processes. */
export interface UnitFence {
  readonly kind: 'mysql' | 'redis';
  readonly dc: DcId;
  readonly store: string;
  /** Names the store in messages: `dc-a mysql/main`. */
  readonly name: string;
  /** Identity of the server that answers. */
  identity(): Promise<string>;
  /** Opens what a change needs, so that the fenced window does not pay for it. */
  warm(): Promise<void>;
  /** The states of `units`, all when absent, by unit. */
  states(units?: readonly UnitId[]): Promise<UnitState[]>;
  evidence(units: readonly UnitId[]): Promise<Evidence>;
  highestEpoch(): Promise<number>;
  checkpointMarkers(links: readonly string[]): Promise<LinkCheckpoint[]>;
  change(change: UnitChange, budget?: FenceBudget): Promise<ChangeResult>;
  /** Compensation at the target: a higher epoch in what stays remote. */
  raise(change: UnitChange, budget?: FenceBudget): Promise<ChangeResult>;
  /** Compensation at the source. */
  reopen(change: UnitChange, budget?: FenceBudget): Promise<ChangeResult>;
  /** `known`: the data centers have rules already. */
  addMissing(rules: Rules, known?: boolean): Promise<{ written: UnitId[]; server: string }>;
  /** `acceptLoss`: of a Redis that has lost its data. */
  reassert(rules: Rules, acceptLoss?: boolean): Promise<{ written: UnitId[]; server: string }>;
}
