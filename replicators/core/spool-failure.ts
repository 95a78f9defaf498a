import { InterlockError, messageOf } from '../../src/errors.js';

/** The worker's disk is full, or gone. @param what `a large transaction cannot be spooled` */
export function spoolFailure(what: string, directory: string, error: unknown): InterlockError {
  return new InterlockError(
    'Unavailable',
    `${what} in ${directory}: ${messageOf(error)}. Free space there, or start the worker with TMPDIR at another disk`,
    { cause: error, retryable: true, details: { what: 'spool', directory } },
  );
}
