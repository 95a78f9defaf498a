import { ActivityCancellationType, proxyActivities } from '@temporalio/workflow';
import type { ActivityOptions } from '@temporalio/workflow';
import type { ErrorCode } from '../src/errors.js';
import type { ControlActivities, DatacenterActivities } from './contract.js';

/** Answers that another attempt of the same call cannot change: the workflow decides what follows. */
const DECIDED: ErrorCode[] = [
  'BadInput',
  'StaleEpoch',
  'EpochConflict',
  'HeldByOther',
  'ServerIdentityChanged',
  'AlreadySwitched',
  'Refused',
  'NeedsOperator',
  'NoRules',
];

/**
 * An abort goes on at once and asks nothing of the call that it gave up: that ends by its own bounds, and what it still carries out
 * fails on the higher epoch of the compensation.
 */
const cancellationType = ActivityCancellationType.ABANDON;

const retry = (more: ActivityOptions['retry']): ActivityOptions['retry'] => ({
  initialInterval: '100 ms',
  backoffCoefficient: 2,
  maximumInterval: '5 s',
  nonRetryableErrorTypes: DECIDED,
  ...more,
});

/**
 * Outside of the window: looks, and changes nothing. Given up after a minute: a dead DC's task queue is never polled, so that only
 * scheduleToClose ends the wait.
 */
export const looking = proxyActivities<DatacenterActivities & ControlActivities>({
  startToCloseTimeout: '20 s',
  scheduleToCloseTimeout: '60 s',
  cancellationType,
  retry: retry({ maximumAttempts: 5 }),
});

/** Waits for something that may take long; heartbeats. The caller sets scheduleToClose from a policy. */
export const waiting = proxyActivities<DatacenterActivities>({
  startToCloseTimeout: '10 m',
  heartbeatTimeout: '15 s',
  cancellationType,
  retry: retry({}),
});

/** In the window: few attempts at short intervals; what is not certain by then is settled by compensation. */
export const fencing = proxyActivities<DatacenterActivities>({
  startToCloseTimeout: '10 s',
  scheduleToStartTimeout: '5 s',
  scheduleToCloseTimeout: '15 s',
  cancellationType,
  retry: retry({ initialInterval: '20 ms', maximumInterval: '1 s', maximumAttempts: 5 }),
});

/**
 * Compensation and roll-forward: without limit. Giving up would leave units that nobody may write; the status says what is awaited
 * meanwhile, and `interlock fence release` works beside it.
 */
export const lasting = proxyActivities<DatacenterActivities & ControlActivities>({
  startToCloseTimeout: '15 s',
  cancellationType,
  retry: retry({}),
});

/** The fall-back of the baseline signal, and figures for the report: one quick try, never in the way. */
export const glancing = proxyActivities<DatacenterActivities>({
  startToCloseTimeout: '3 s',
  scheduleToCloseTimeout: '4 s',
  cancellationType,
  retry: retry({ maximumAttempts: 2 }),
});
