import { ActivityFailure, ApplicationFailure, CancelledFailure, TimeoutFailure } from '@temporalio/workflow';
import type { ErrorCode } from '../src/errors.js';

export interface StepError {
  code: ErrorCode | 'Aborted';
  message: string;
}

/** The run gives up before the fence; nothing has to be undone. */
export class Refusal extends Error {
  constructor(readonly step: StepError) {
    super(step.message);
  }
}

/** Somebody aborted (or cancelled) before the point of no return. */
export class Aborted extends Error {}

/** The code and words of what an activity (or a step) failed with. A time-out is `Unavailable`: nobody knows what was carried out. */
export function stepError(error: unknown): StepError {
  if (error instanceof Aborted) return { code: 'Aborted', message: error.message };
  if (error instanceof Refusal) return error.step;
  if (error instanceof ActivityFailure) {
    const cause = error.cause;
    if (cause instanceof TimeoutFailure) {
      const inner = cause.cause instanceof ApplicationFailure ? `; last failure: ${cause.cause.message}` : '';
      const what = cause.timeoutType === 'SCHEDULE_TO_START' ? 'was not taken by a worker' : 'did not answer';
      return { code: 'Unavailable', message: `${error.activityType} ${what} in time${inner}` };
    }
    if (cause !== undefined) return stepError(cause);
  }
  if (error instanceof ApplicationFailure) {
    return { code: (error.type ?? 'Internal') as ErrorCode, message: error.message };
  }
  if (error instanceof CancelledFailure) return { code: 'Aborted', message: error.message };
  throw error;
}

/** Nobody answered: neither the work nor what went wrong with it. */
export function isTimeout(error: unknown): boolean {
  return error instanceof ActivityFailure && error.cause instanceof TimeoutFailure;
}

/** No worker has taken the activity. Of one with several attempts that says nothing of those before. */
export function isUntaken(error: unknown): boolean {
  return isTimeout(error) && (error as { cause: TimeoutFailure }).cause.timeoutType === 'SCHEDULE_TO_START';
}

/** The operation lost against a higher epoch or another holder: ask for a fresh epoch, and let the target's answer decide. */
export function isOvertaken(code: StepError['code']): boolean {
  return code === 'StaleEpoch' || code === 'EpochConflict' || code === 'HeldByOther';
}
