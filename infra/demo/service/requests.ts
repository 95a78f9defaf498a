import { isInterlockError } from '../../../src/errors.js';

/** A refusal by the shop itself; nothing was written. */
export class ShopError extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
  ) {
    super(message);
    this.name = 'ShopError';
  }
}

const DUPLICATE_KEY = 1062;
const ATTEMPTS = 4;

/**
 * Runs a transaction whose first statement inserts the request's id. A repeat of a request fails on that key, is rolled back and
 * answers `repeated`. A deadlock's victim was rolled back as a whole, so it is run again.
 */
export async function onceOnly<T>(repeated: T, transaction: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await transaction();
    } catch (error) {
      if (isDuplicate(error)) return repeated;
      if (!isInterlockError(error, 'TransactionLost') || !error.retryable || attempt === ATTEMPTS)
        throw error;
    }
  }
}

function isDuplicate(error: unknown): boolean {
  for (let e = error; e instanceof Error; e = e.cause) {
    if ((e as { errno?: number }).errno === DUPLICATE_KEY) return true;
  }
  return false;
}
