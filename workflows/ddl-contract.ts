/** What the workflow of `interlock ddl apply`, its activities and the CLI agree on. */
import type { DcId } from '../src/routing/units.js';

/** One change at a time per topology: the workflow id is fixed. */
export function ddlWorkflowId(topology: string): string {
  return `ddl/${topology}`;
}

export interface DdlRequest {
  topology: string;
  statements: string[];
  /** Names of MySQL stores; empty: all. */
  stores: string[];
  /** Plan only. */
  dryRun: boolean;
  startedBy: string;
}

/** A statement on one store of one DC. */
export interface PlannedDdl {
  /** Of the file, from 1. */
  number: number;
  statement: string;
  /** `schema.table`. */
  table: string;
  store: string;
  phase: 'expand' | 'contract';
  /** What no side has afterwards. */
  dropped: string[];
  /** In the order in which they run. */
  targets: {
    dc: DcId;
    /** It was executed there before. */
    already: boolean;
    algorithm: 'instant' | 'inplace' | 'copy' | null;
    before: string | null;
    after: string | null;
  }[];
}

export interface DdlPlan {
  steps: PlannedDdl[];
  /** The DCs and their task queues. */
  queues: Record<DcId, string>;
  warnings: string[];
}

export interface DdlTargetView {
  dc: DcId;
  state: 'waiting' | 'running' | 'executed' | 'found' | 'failed';
  algorithm: string | null;
  error: string | null;
}

export interface DdlStepView {
  number: number;
  statement: string;
  table: string;
  store: string;
  phase: 'expand' | 'contract';
  targets: DdlTargetView[];
}

/** Answer of the query `status`, and of the workflow. */
export interface DdlReport {
  workflowId: string;
  /** Names the change in `interlock.ddl_step`. */
  changeId: string;
  state: 'planning' | 'announcing' | 'running' | 'ended';
  outcome: 'running' | 'planned' | 'done' | 'failed' | 'stopped';
  summary: string;
  steps: DdlStepView[];
  warnings: string[];
  error: { code: string; message: string } | null;
  startedAt: string;
  endedAt: string | null;
}

export interface RunDdlInput {
  changeId: string;
  store: string;
  seq: number;
  step: PlannedDdl;
  dc: DcId;
}

/** On the control task queue. */
export interface DdlPlanActivities {
  /**
   * What every statement does on every store, by rehearsing it there; in the order in which they run. Changes nothing.
   * Errors: BadInput (a statement that cannot go so), Refused (links, a switchover, definitions), Unavailable.
   */
  planDdl(request: DdlRequest): Promise<DdlPlan>;
}

/** On the task queue of the DC whose stores they change. */
export interface DdlActivities {
  announceDdl(input: { changeId: string; dc: DcId; steps: PlannedDdl[] }): Promise<void>;
  runDdl(input: RunDdlInput): Promise<{ algorithm: string | null; found: boolean }>;
  settleDdl(input: {
    changeId: string;
    dc: DcId;
    stores: string[];
    /** Null: every step. */
    seq: number | null;
    state: 'done' | 'failed';
  }): Promise<void>;
}
