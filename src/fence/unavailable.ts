import { InterlockError, messageOf } from '../errors.js';
import { tlsProblem } from '../topology/mysql-address.js';
import { errnoOf, isConnectionLost, isSchemaMissing } from './mysql-errors.js';

/** What a failure of a store means to a caller; an InterlockError is passed through. */
export function unavailable(store: string, error: unknown): InterlockError {
  if (error instanceof InterlockError) return error;
  if (isSchemaMissing(error)) {
    return new InterlockError(
      'NoRules',
      `${store} has no interlock schema yet: run \`interlock rules init\` (${messageOf(error)})`,
      {
        cause: error,
        details: { what: store },
      },
    );
  }
  if (isConnectionLost(error)) {
    return new InterlockError(
      'Unavailable',
      `${store} does not answer: ${tlsProblem(error) ?? messageOf(error)}`,
      {
        cause: error,
        retryable: true,
        details: { what: store },
      },
    );
  }
  return new InterlockError('Internal', `${store}: ${messageOf(error)}`, {
    cause: error,
    details: { what: store, errno: errnoOf(error) ?? null },
  });
}
