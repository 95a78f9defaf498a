import { InterlockError } from '../../src/errors.js';
import { positionOf } from './checkpoint.js';
import type { RedisConnection } from './connection.js';

/** What INFO says. */
export type Info = Map<string, string>;

export async function info(connection: RedisConnection, section: string): Promise<Info> {
  const reply = await connection.call('INFO', section);
  const lines = Buffer.isBuffer(reply) ? reply.toString().split('\r\n') : [];
  return new Map(
    lines
      .filter((line) => line.includes(':'))
      .map((line) => [line.slice(0, line.indexOf(':')), line.slice(line.indexOf(':') + 1)]),
  );
}

interface Position {
  replid: string;
  offset: number;
}

function seen(position: Position, replication: Info) {
  return {
    number: (name: string): number => Number(replication.get(name) ?? -1),
    next: position.offset + 1,
    isNow: position.replid === replication.get('master_replid'),
    isFormer: position.replid === replication.get('master_replid2'),
  };
}

/** Whether the source has what comes behind a position that it had itself. */
export function continues(position: Position, replication: Info): boolean {
  const { number, next, isNow, isFormer } = seen(position, replication);
  const first = number('repl_backlog_first_byte_offset');
  const reaches =
    replication.get('repl_backlog_active') === '1' &&
    next >= first &&
    next <= first + number('repl_backlog_histlen');
  return (isNow || isFormer) && reaches;
}

/**
 * Whether a source goes on behind a position, by what INFO says. Hazard: PSYNC of one that does not makes the source save and send everything; and a
 * copy of one that has lost its data removes the target's. Guard: a gap in the same history may be copied over, by policy; never another history.
 * @throws InterlockError NeedsOperator, state `diverged` or `resync-required`
 */
export function requireContinues(
  link: string,
  from: string,
  position: Position,
  replication: Info,
  onGap: 'stop' | 'resync',
): void {
  const { number, next, isNow, isFormer } = seen(position, replication);
  const forked = isFormer && next > number('second_repl_offset');
  if (forked || (isNow && position.offset > number('master_repl_offset'))) {
    const at = positionNow(replication);
    throw new InterlockError(
      'NeedsOperator',
      `${link} has applied ${positionOf(position)}, which ${from} (now at ${at}) does not have: it was restored, or failed over to a replica that lacks it. Decide what the data should be; to copy all of ${from}'s: interlock replicate resync ${link}`,
      { details: { link, state: 'diverged', checkpoint: positionOf(position), source: at } },
    );
  }
  if (continues(position, replication)) return;
  if (!isNow && !isFormer) throw otherHistory(link, from, position, replication);
  if (onGap === 'stop') throw resyncRequired(link, from, position, 'its backlog begins later');
}

function positionNow(replication: Info): string {
  return `${replication.get('master_replid')}:${replication.get('master_repl_offset')}`;
}

export function otherHistory(
  link: string,
  from: string,
  position: Position,
  replication: Info,
): InterlockError {
  const at = positionNow(replication);
  return new InterlockError(
    'NeedsOperator',
    `${link} is at ${positionOf(position)}, and ${from} has another history now (${at}): it was restarted, restored or replaced, or had no replica for longer than its repl-backlog-ttl. Look whether it has its data: a copy removes from the target what ${from} owns and does not have. To copy all of ${from}'s: interlock replicate resync ${link}`,
    { details: { link, state: 'resync-required', checkpoint: positionOf(position), source: at } },
  );
}

export function resyncRequired(link: string, from: string, position: Position, why: string): InterlockError {
  return new InterlockError(
    'NeedsOperator',
    `${link} is at ${positionOf(position)}, and ${from} no longer has what comes behind: ${why}. Copy all again: interlock replicate resync ${link} (onGap: resync does so by itself; a larger repl-backlog-size makes it rarer)`,
    { details: { link, state: 'resync-required', checkpoint: positionOf(position) } },
  );
}
