import type { Connection, RowDataPacket } from 'mysql2/promise';
import { InterlockError } from '../../src/errors.js';
import { contains, parsePosition } from './position.js';
import type { Flavour } from './position.js';
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
  if (flavour !== 'mysql') return;
  const [rows] = await source.query<RowDataPacket[]>('SELECT @@GLOBAL.gtid_purged AS purged');
  const purged = String((rows[0] as { purged: string }).purged);
  if (!contains(position, parsePosition(flavour, purged))) {
    throw new InterlockError(
      'NeedsOperator',
      `${link} is at ${at}, but ${from} has purged its binlog beyond that (${purged.replace(/\s+/g, '')}). ${mend.purged}`,
      { details: { link, state: 'resync-required', checkpoint: at } },
    );
  }
}
