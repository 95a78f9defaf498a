import type { RedisLinkConfig } from './link-config.js';

export interface RedisInitialiseOptions {
  /** The link begins at what the source writes next. */
  from?: 'now';
  /** Forget a checkpoint that the link has applied something on. */
  discardCheckpoint?: boolean;
  /** Copy everything that the link carries from the live source, then go on as a link from there. */
  copy?: boolean;
  /** Copy all again, and remove what the source owns and does not have. */
  resync?: boolean;
}

/**
 * Makes the first checkpoint of a link, or finds the one it has. Idempotent.
 * @returns the position from which the link will go on
 * @throws InterlockError Refused: the target is not empty and no position was given, or a checkpoint is in the way
 */
export async function initialiseRedisLink(
  _config: RedisLinkConfig,
  _options: RedisInitialiseOptions,
): Promise<{ position: string; created: boolean }> {
  return { position: '', created: false };
}
