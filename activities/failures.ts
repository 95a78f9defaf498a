import { ApplicationFailure, CancelledFailure, TemporalFailure } from '@temporalio/common';
import { InterlockError, isInterlockError, messageOf } from '../src/errors.js';
import type { ErrorCode } from '../src/errors.js';

/** Another attempt of the same call may answer differently. All other codes are answers: the workflow decides what follows. */
const RETRYABLE: ReadonlySet<ErrorCode> = new Set<ErrorCode>(['Unavailable', 'Internal']);

/** The one place where errors become Temporal failures: `type` is the ErrorCode, `details[0]` the error's details. */
export function toFailure(error: unknown): TemporalFailure {
  if (error instanceof TemporalFailure) return error;
  if (error instanceof Error && error.name === 'AbortError') return new CancelledFailure(error.message);
  const known = isInterlockError(error) ? error : undefined;
  const code = known?.code ?? 'Internal';
  return ApplicationFailure.create({
    type: code,
    message: messageOf(error),
    nonRetryable: !(known?.retryable ?? false) && !RETRYABLE.has(code),
    details: [known?.details ?? {}],
    ...(error instanceof Error ? { cause: error } : {}),
  });
}

type Activity = (...args: never[]) => Promise<unknown>;

/** The same activities, failing with what `toFailure` makes of their errors. */
export function withFailures<T extends object>(activities: T): T {
  const wrapped = Object.entries(activities as Record<string, Activity>).map(([name, activity]) => [
    name,
    async (...args: never[]) => {
      try {
        return await activity(...args);
      } catch (error) {
        throw toFailure(error);
      }
    },
  ]);
  return Object.fromEntries(wrapped) as T;
}

/** Of several failures the one that says most: an answer before "does not answer". */
export function foremost(failures: readonly unknown[]): unknown {
  return (
    failures.find((failure) => failure instanceof InterlockError && !RETRYABLE.has(failure.code)) ??
    failures[0]
  );
}

/** The results of all; when some fail, waits for the others (nothing runs on behind the caller's back) and throws the foremost failure. */
export async function allOrForemost<T>(promises: readonly Promise<T>[]): Promise<T[]> {
  const settled = await Promise.allSettled(promises);
  const failures = settled.flatMap((one) => (one.status === 'rejected' ? [one.reason as unknown] : []));
  if (failures.length > 0) throw foremost(failures);
  return settled.map((one) => (one as PromiseFulfilledResult<T>).value);
}
