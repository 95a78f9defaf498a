/** A refusal by the shop itself; nothing was written. */
export class ShopError extends Error {
  constructor(
    readonly statusCode: number,
    readonly code: string,
    message: string,
  ) {
    super(message);
    this.name = 'ShopError';
  }
}

const DUPLICATE_KEY = 1062;

/**
 * Runs a transaction whose first statement inserts the request's id. A repeat of a request fails on that key, is rolled back and
 * answers `repeated`.
 */
export async function onceOnly<T>(repeated: T, transaction: () => Promise<T>): Promise<T> {
  try {
    return await transaction();
  } catch (error) {
    if (isDuplicate(error)) return repeated;
    throw error;
  }
}

function isDuplicate(error: unknown): boolean {
  for (let e = error; e instanceof Error; e = e.cause) {
    if ((e as { errno?: number }).errno === DUPLICATE_KEY) return true;
  }
  return false;
}
