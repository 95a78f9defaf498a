import { InterlockError } from '../../src/errors.js';

/**
 * How far a link has applied: the value of its auxiliary key on the target, written first in every MULTI that the link sends there. A reverse link
 * drops each block that begins so.
 */
export interface RedisCheckpoint {
  /** Of every attempt; a take-over raises it. */
  generation: number;
  /** Everything up to here is applied or dropped. `replid` is '' before the first full synchronisation. */
  replid: string;
  offset: number;
  /** The database that is selected in the source's stream behind `offset`: no SELECT is sent again there. */
  db: number;
  /** `syncing`: the target holds a part of a full synchronisation, which has to begin again. */
  phase: 'sync-due' | 'syncing' | 'streaming';
  /** Applied blocks; 0: nothing was. */
  seq: number;
  /** Id of the last marker that was met. */
  marker: string | null;
  /** Names the history of this auxiliary key: the key beside it has the same. */
  lineage: string;
  /** Of the records in `interlock:quarantine:<link>` that are open. */
  conflicts: number;
  quarantined: number;
}

/** Enough of a client to read a checkpoint; an ioredis is one. */
export interface CheckpointReader {
  get: (key: string) => Promise<string | null>;
}

export const LINK_KEY_PREFIX = 'interlock:link:';

export function auxiliaryKey(link: string): string {
  return `${LINK_KEY_PREFIX}${link}`;
}

/** @returns undefined when the link has never been started into this target (or the key was lost). */
export async function readRedisCheckpoint(
  client: CheckpointReader,
  link: string,
): Promise<RedisCheckpoint | undefined> {
  return parseCheckpoint(await client.get(auxiliaryKey(link)), link);
}

/** @throws InterlockError NeedsOperator: the key holds something else */
export function parseCheckpoint(text: string | null, link: string): RedisCheckpoint | undefined {
  if (text === null) return undefined;
  try {
    const value = JSON.parse(text) as RedisCheckpoint;
    if (Number.isSafeInteger(value.generation) && Number.isSafeInteger(value.offset)) return value;
  } catch {
    // Told below, with the key's name.
  }
  throw new InterlockError(
    'NeedsOperator',
    `${auxiliaryKey(link)} on the target is no checkpoint; something else wrote it. Copy all again: interlock replicate resync ${link}`,
    { details: { link, state: 'resync-required' } },
  );
}

/** `<replid>:<offset>`, as it is shown. */
export function positionOf({ replid, offset }: Pick<RedisCheckpoint, 'replid' | 'offset'>): string {
  return replid === '' ? '' : `${replid}:${offset}`;
}

export function heldByOther(link: string): InterlockError {
  return new InterlockError(
    'HeldByOther',
    `${link} was taken over by a newer attempt; this one has written nothing and stops`,
    { details: { link } },
  );
}
