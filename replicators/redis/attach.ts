import { InterlockError } from '../../src/errors.js';
import type { Marker } from './markers.js';
import { pairs, readLinkUnits } from './checkpoint.js';
import type { RedisCheckpoint, StreamPlace } from './checkpoint.js';
import { textOf } from './connection.js';
import type { RedisConnection } from './connection.js';
import type { RedisLinkConfig } from './link-config.js';
import { UNITS_KEY } from './ownership.js';
import { Replica } from './replica.js';
import type { Resync } from './replica.js';
import { continues, info, otherHistory, requireContinues, resyncRequired } from './source-info.js';
import { MARKER_KEY, markerOf } from './markers.js';

export interface AttachParts {
  config: RedisLinkConfig;
  checkpoint: RedisCheckpoint;
  source: RedisConnection;
  target: RedisConnection;
  /** Takes the replication, for the caller to close. */
  add: (replica: Replica) => void;
  /** The source may be asked for a copy. @returns how long it may be silent, ms */
  onCopy: () => number;
  /** How long it may be silent otherwise. */
  silenceMs: number;
}

export interface Attached {
  resync: Resync;
  /** From here on the source's stream is read, when it goes on. */
  begin: StreamPlace;
  /** What the source owned there: unit and state. */
  units: [string, string][];
  /** The latest of the source as of a copy. */
  marker: Marker | null;
}

/**
 * Replicates from the checkpoint on, or from a full synchronisation.
 * @throws InterlockError NeedsOperator: the source does not go on from the checkpoint; Unavailable: to be tried again
 */
export async function attach(parts: AttachParts): Promise<Attached> {
  const { config, checkpoint, source } = parts;
  const { link, from, onGap } = config;
  const goesOn = checkpoint.phase === 'streaming';
  const replication = await info(source, 'replication');
  const { replid, rereadFrom, answersFrom } = checkpoint;
  // A copy that was cut off also removes: of this history, it goes on by itself.
  const removes = goesOn || (checkpoint.prune && replid !== '');
  if (removes) requireContinues(link, from, checkpoint, replication, goesOn ? onGap : 'resync');
  let begin: StreamPlace = { offset: checkpoint.offset, db: checkpoint.db };
  // Without what was left out, the link still goes on: that much less is carried after all.
  for (const place of [rereadFrom, answersFrom])
    if (place && place.offset < begin.offset && continues({ replid, ...place }, replication)) begin = place;
  const before = await statesOf(source);
  const replica = await Replica.open(config.source, config.spoolBytes);
  parts.add(replica);
  const isPartial = goesOn && continues({ replid, ...begin }, replication);
  const silenceMs = isPartial ? parts.silenceMs : parts.onCopy();
  const resync = await replica.psync(goesOn ? { replid, ...begin } : null, silenceMs);
  if (resync.kind === 'partial')
    return { resync, begin, units: await readLinkUnits(parts.target, link), marker: null };
  if (goesOn && onGap === 'stop')
    throw resyncRequired(link, from, checkpoint, 'it answered with a full synchronisation');
  if (removes && resync.replid !== replication.get('master_replid')) {
    const now = new Map([...replication, ['master_replid', resync.replid] as const]);
    throw otherHistory(link, from, checkpoint, now);
  }
  if (resync.offset < before.offset)
    throw new InterlockError(
      'Unavailable',
      `the source's copy is as of ${resync.offset}, and it was at ${before.offset} before the link asked (it saves for another replica); it begins again`,
      { retryable: true },
    );
  // As of the RDB: what is the same before and after was so in between (epochs only grow, and no two markers are the same).
  const after = await statesOf(source);
  if (before.text !== after.text)
    throw new InterlockError('Unavailable', 'the fence was moved while the copy began; it begins again', {
      retryable: true,
    });
  return { resync, begin, units: after.units, marker: after.marker };
}

interface SourceStates {
  units: [string, string][];
  marker: Marker | null;
  text: string;
  /** Of the source's stream, not before they were so. */
  offset: number;
}

export async function statesOf(source: RedisConnection): Promise<SourceStates> {
  // In their order, over one connection.
  const [[units, marker], replication] = await Promise.all([
    source.askAll([
      ['HGETALL', UNITS_KEY],
      ['GET', MARKER_KEY],
    ]),
    info(source, 'replication'),
  ]);
  const states = pairs(units).sort();
  return {
    units: states,
    marker: Buffer.isBuffer(marker) ? markerOf(marker) : null,
    text: JSON.stringify([states, textOf(marker)]),
    offset: Number(replication.get('master_repl_offset') ?? 0),
  };
}
