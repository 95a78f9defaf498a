import { randomUUID } from 'node:crypto';
import { InterlockError } from '../../src/errors.js';
import type { UnitId } from '../../src/routing/units.js';
import type { Block } from './block.js';
import type { Marker } from './markers.js';
import { encodeCommand, PASSING, textOf } from './connection.js';
import type { RedisConnection } from './connection.js';
import { ReplyError } from './resp/reply-reader.js';
import type { Reply } from './resp/reply-reader.js';

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
  /** Names the history of this auxiliary key: one that was lost and made again is another. */
  lineage: string;
  /** A full synchronisation also removes what the source owns and does not have. */
  prune: boolean;
  /** From here on there are commands of keys that were left out and may still live: the next attempt reads them again. */
  rereadFrom?: StreamPlace | null;
  /** From here on there are commands that make keys live longer, and what the target has answered to them is not noted: see `Mends`. */
  answersFrom?: StreamPlace | undefined;
  /** The last marker that was met, and that is not told before keys are mended. */
  heldMarker?: Marker | undefined;
}

/** Between two transactions of the source's stream. */
export interface StreamPlace {
  offset: number;
  /** The database that is selected there. */
  db: number;
}

export const LINK_KEY_PREFIX = 'interlock:link:';

export function auxiliaryKey(link: string): string {
  return `${LINK_KEY_PREFIX}${link}`;
}

/** The owners of the source's units as of the checkpoint. */
export function unitsKey(link: string): string {
  return `${LINK_KEY_PREFIX}${link}:units`;
}

/** Names of keys that are taken from the source again. */
export function mendsKey(link: string): string {
  return `interlock:mends:${link}`;
}

/** What a block changes of them, as commands in database 0. */
export function mendCommands(link: string, { mendsDue, mendsDone, mendsCleared }: Block): Buffer[] {
  const commands: Buffer[] = [];
  if (mendsCleared) commands.push(encodeCommand(['DEL', mendsKey(link)]));
  if (mendsDone.length > 0) commands.push(encodeCommand(['SREM', mendsKey(link), ...mendsDone]));
  if (mendsDue.length > 0) commands.push(encodeCommand(['SADD', mendsKey(link), ...mendsDue]));
  return commands;
}

/** Where a full synchronisation makes values that come in pieces, in the database of each. */
export function copyKey(link: string): string {
  return `${LINK_KEY_PREFIX}${link}:copy`;
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

/** @param wasHeld it had one, which this run has taken */
export function neverStarted(link: string, wasHeld = false): InterlockError {
  if (wasHeld) return keyIsGone(link);
  return new InterlockError(
    'Refused',
    `${link} has no checkpoint (it was never started, or the target has lost its data); run: interlock replicate start ${link} --copy, or --from now when both sides hold the same`,
    { details: { link } },
  );
}

/** FLUSHALL, FLUSHDB or SWAPDB on the target, or a restart without its data: what the link has applied may be gone with it. */
export function keyIsGone(link: string): InterlockError {
  return new InterlockError(
    'NeedsOperator',
    `${link}: its auxiliary key ${auxiliaryKey(link)} is no longer on the target (flushed, swapped away, or lost in a restart), so what it has applied may be gone too. Copy all again: interlock replicate resync ${link}`,
    { details: { link, state: 'resync-required' } },
  );
}

/**
 * Takes the link over: from here on, an EXEC of an older attempt does nothing, because its auxiliary key has changed.
 * @param from only when the link is at this generation
 * @returns undefined when there is no checkpoint, or one of another generation
 */
export async function takeGeneration(
  target: RedisConnection,
  link: string,
  from?: number,
): Promise<RedisCheckpoint | undefined> {
  for (;;) {
    const found = await watched(target, link);
    if (found === undefined || (from !== undefined && found.generation !== from)) return undefined;
    const next: RedisCheckpoint = { ...found, generation: found.generation + 1 };
    if (await writeWatched(target, [['SET', auxiliaryKey(link), JSON.stringify(next)]])) return next;
  }
}

export async function readCheckpoint(
  target: RedisConnection,
  link: string,
): Promise<RedisCheckpoint | undefined> {
  const value = await target.call('GET', auxiliaryKey(link));
  return parseCheckpoint(Buffer.isBuffer(value) ? value.toString() : null, link);
}

/** The checkpoint, under WATCH: `writeWatched` does nothing when it changes. */
export async function watched(target: RedisConnection, link: string): Promise<RedisCheckpoint | undefined> {
  await target.call('WATCH', auxiliaryKey(link));
  const value = await target.call('GET', auxiliaryKey(link));
  return parseCheckpoint(Buffer.isBuffer(value) ? value.toString() : null, link);
}

/** @returns false: the watched key was changed by another */
export async function writeWatched(
  target: RedisConnection,
  commands: readonly (readonly (string | Buffer | number)[])[],
): Promise<boolean> {
  const replies = await target.askAll([['MULTI'], ...commands, ['EXEC']]);
  const exec = replies.at(-1)!;
  const error = replies.find((reply): reply is ReplyError => reply instanceof ReplyError);
  if (error !== undefined) {
    const retryable = PASSING.has(error.code);
    throw new InterlockError(
      retryable ? 'Unavailable' : 'Refused',
      `the target refuses the checkpoint: ${error.message}`,
      { retryable },
    );
  }
  return Array.isArray(exec);
}

/** The first value of an auxiliary key. `generation`: above every one that an older attempt may have. */
export function firstCheckpoint(generation: number, fields: Partial<RedisCheckpoint>): RedisCheckpoint {
  return {
    generation,
    replid: '',
    offset: 0,
    db: 0,
    phase: 'sync-due',
    seq: 0,
    marker: null,
    lineage: randomUUID(),
    prune: false,
    ...fields,
  };
}

/** The owners of the source's units as of the checkpoint. */
export async function readLinkUnits(target: RedisConnection, link: string): Promise<[UnitId, string][]> {
  return pairs(await target.call('HGETALL', unitsKey(link)));
}

/** Fields that begin with # are not units. */
export function pairs(reply: Reply | undefined): [UnitId, string][] {
  if (!Array.isArray(reply)) return [];
  const found: [UnitId, string][] = [];
  for (let i = 0; i + 1 < reply.length; i += 2) {
    const field = textOf(reply[i]);
    if (!field.startsWith('#')) found.push([field, textOf(reply[i + 1])]);
  }
  return found;
}

/** What a block changes of the owners, as commands in database 0. */
export function unitCommands(link: string, { units, unitsCleared }: Block): Buffer[] {
  const commands: Buffer[] = [];
  const key = unitsKey(link);
  if (unitsCleared) commands.push(encodeCommand(['DEL', key]));
  const gone = [...units].filter(([, state]) => state === null).map(([unit]) => unit);
  const set = [...units].flatMap(([unit, state]) => (state === null ? [] : [unit, state]));
  if (gone.length > 0) commands.push(encodeCommand(['HDEL', key, ...gone]));
  if (set.length > 0) commands.push(encodeCommand(['HSET', key, ...set]));
  return commands;
}
