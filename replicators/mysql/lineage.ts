import type { Connection, RowDataPacket } from 'mysql2/promise';
import { InterlockError } from '../../src/errors.js';
import { contains, parsePosition } from './position.js';
import type { Flavour, MysqlPosition } from './position.js';
import { executedPosition } from './session.js';

export interface Lineage {
  /** What reads the binlog; named in errors. */
  link: string;
  from: string;
  flavour: Flavour;
  /** What mends each case. */
  mend: { diverged: string; purged: string };
}

/**
 * A checkpoint that the source has not executed belongs to another history: going on from there would mix two. One that the source has
 * purged cannot be gone on from.
 */
export async function requireLineage(lineage: Lineage, source: Connection, at: string): Promise<void> {
  const { link, from, flavour, mend } = lineage;
  const position = parsePosition(flavour, at);
  const executed = await executedPosition(source, flavour);
  if (!contains(parsePosition(flavour, executed), position)) {
    throw new InterlockError(
      'NeedsOperator',
      `${link} has applied ${at}, which ${from} (now at ${executed}) does not have: it was restored or failed over to a server that lacks it. ${mend.diverged}`,
      { details: { link, state: 'diverged', checkpoint: at, executed } },
    );
  }
  const purged = await purgedPosition(source, flavour);
  if (!contains(position, purged)) {
    throw new InterlockError(
      'NeedsOperator',
      `${link} is at ${at}, but ${from} has purged its binlog beyond that (${purged.toString()}). ${mend.purged}`,
      { details: { link, state: 'resync-required', checkpoint: at } },
    );
  }
}

/** What the server's binlog does not have any more: on MariaDB, what was before its first file, as that says itself. */
async function purgedPosition(source: Connection, flavour: Flavour): Promise<MysqlPosition> {
  if (flavour === 'mysql') {
    const [rows] = await source.query<RowDataPacket[]>('SELECT @@GLOBAL.gtid_purged AS purged');
    return parsePosition(flavour, String((rows[0] as { purged: string }).purged));
  }
  const [files] = await source.query<RowDataPacket[]>('SHOW BINARY LOGS');
  const [events] = await source.query<RowDataPacket[]>('SHOW BINLOG EVENTS IN ? LIMIT 5', [
    String(files[0]?.['Log_name']),
  ]);
  const list = events.find((event) => event['Event_type'] === 'Gtid_list');
  const position = parsePosition(flavour, '');
  // One entry for each domain and server.
  for (const gtid of String(list?.['Info'] ?? '').match(/\d+-\d+-\d+/g) ?? []) position.add(gtid);
  return position;
}
