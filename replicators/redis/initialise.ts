import { InterlockError } from '../../src/errors.js';
import {
  auxiliaryKey,
  firstCheckpoint,
  mendsKey,
  pairs,
  positionOf,
  unitsKey,
  watched,
  writeWatched,
} from './checkpoint.js';
import type { RedisCheckpoint } from './checkpoint.js';
import { RedisConnection, textOf } from './connection.js';
import type { RedisLinkConfig } from './link-config.js';
import { UNITS_KEY } from './ownership.js';
import { Replica } from './replica.js';
import { info } from './source-info.js';
import { MARKER_KEY, markerOf } from './markers.js';

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

/** The source's own: written when a link begins at now. */
const BEGIN_KEY = 'interlock:begin';

/**
 * Makes the first checkpoint of a link, or finds the one it has. Idempotent.
 * @returns the position from which the link will go on; '' when that is a full synchronisation
 * @throws InterlockError Refused: the target is not empty and no position was given, or a checkpoint is in the way
 */
export async function initialiseRedisLink(
  config: RedisLinkConfig,
  options: RedisInitialiseOptions,
): Promise<{ position: string; created: boolean }> {
  const { link } = config;
  const target = await RedisConnection.open(config.target, 'interlock-start');
  try {
    const source = await RedisConnection.open(config.source, 'interlock-start');
    try {
      for (;;) {
        const existing = await watched(target, link);
        const first = await firstOf(config, options, source, target, existing);
        if (first === undefined) return { position: positionOf(existing!), created: false };
        const { checkpoint, units } = first;
        const written = await writeWatched(target, [
          ['SET', auxiliaryKey(link), JSON.stringify(checkpoint)],
          ['DEL', unitsKey(link), mendsKey(link)],
          ...(units.length === 0 ? [] : [['HSET', unitsKey(link), ...units.flat()]]),
        ]);
        if (written) return { position: positionOf(checkpoint), created: true };
      }
    } finally {
      source.destroy();
    }
  } finally {
    target.destroy();
  }
}

/** @returns undefined: the checkpoint that there is stays */
async function firstOf(
  config: RedisLinkConfig,
  options: RedisInitialiseOptions,
  source: RedisConnection,
  target: RedisConnection,
  existing: RedisCheckpoint | undefined,
): Promise<{ checkpoint: RedisCheckpoint; units: [string, string][] } | undefined> {
  const { link } = config;
  const generation = (existing?.generation ?? -1) + 1;
  const wasUsed = existing !== undefined && existing.seq > 0;
  if (options.resync === true) return { checkpoint: firstCheckpoint(generation, { prune: true }), units: [] };
  if (existing !== undefined && options.discardCheckpoint !== true) {
    if (options.from === undefined) return undefined;
    if (wasUsed)
      throw new InterlockError(
        'Refused',
        `${link} has a checkpoint already (${positionOf(existing)}); start it without --from to go on there, or add --discard-checkpoint to forget it`,
        { details: { link, position: positionOf(existing) } },
      );
  }
  if (options.from === 'now') {
    const { units, ...position } = await sourceNow(config, source);
    return { checkpoint: firstCheckpoint(generation, { ...position, phase: 'streaming' }), units };
  }
  if (options.copy !== true) {
    const keys = await keysOf(target);
    if (keys > 0)
      throw new InterlockError(
        'Refused',
        `${link}: ${config.to} has ${keys} keys. Start it with --copy (the source's keys replace those it owns), or with --from now when both sides hold the same`,
        { details: { link, keys } },
      );
  }
  return { checkpoint: firstCheckpoint(generation, {}), units: [] };
}

/**
 * A position of the source, with what held there. Hazard: a source that never had a replica counts no offsets, and nobody knows which database its stream
 * has selected. Guard: a replica is announced, if only for a moment; then one transaction reads the position and writes to database 0: what comes
 * behind the position begins with that write.
 */
async function sourceNow(
  config: RedisLinkConfig,
  source: RedisConnection,
): Promise<{ replid: string; offset: number; db: number; units: [string, string][]; marker: string | null }> {
  if ((await info(source, 'replication')).get('repl_backlog_active') !== '1') {
    const replica = await Replica.open(config.source, config.spoolBytes);
    try {
      await replica.psync(null);
    } finally {
      replica.close();
    }
  }
  const replies = await source.askAll([
    ['MULTI'],
    ['INFO', 'replication'],
    ['HGETALL', UNITS_KEY],
    ['GET', MARKER_KEY],
    ['SET', BEGIN_KEY, config.link],
    ['EXEC'],
  ]);
  const exec = replies.at(-1);
  const text = Array.isArray(exec) && Buffer.isBuffer(exec[0]) ? exec[0].toString() : '';
  const replid = /^master_replid:([0-9a-f]{40})/m.exec(text)?.[1];
  const offset = /^master_repl_offset:(\d+)/m.exec(text)?.[1];
  if (replid === undefined || offset === undefined || !Array.isArray(exec))
    throw new InterlockError(
      'Refused',
      `${config.from} does not say where its replication stands: ${textOf(exec)}`,
    );
  const marker = Buffer.isBuffer(exec[2]) ? (markerOf(exec[2])?.id ?? null) : null;
  return { replid, offset: Number(offset), db: 0, units: pairs(exec[1]), marker };
}

/** Interlock's own are not counted; they are few. */
async function keysOf(target: RedisConnection): Promise<number> {
  let keys = 0;
  for (const [name, line] of await info(target, 'keyspace'))
    if (/^db\d+$/.test(name)) keys += Number(/keys=(\d+)/.exec(line)?.[1] ?? 0);
  if (keys > OWN_KEYS) return keys;
  const own = (await target.call('KEYS', 'interlock:*')) as Buffer[];
  return Math.max(keys - own.length, 0);
}

/** Interlock has fewer in a server, however many links there are. */
const OWN_KEYS = 1000;
