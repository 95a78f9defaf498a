import type { Connection, ResultSetHeader, RowDataPacket } from 'mysql2/promise';
import { InterlockError } from '../../src/errors.js';
import type { SourceUnit } from '../core/contract.js';
import { quote } from './literal.js';
import type { UnitEvent } from './transaction.js';

export interface Checkpoint {
  generation: number;
  position: string;
  sourceServer: string;
  marker: string | null;
  seq: number;
}

/** @returns undefined when the link has never been started into this target. */
export async function readCheckpoint(connection: Connection, link: string): Promise<Checkpoint | undefined> {
  const [rows] = await connection.query<RowDataPacket[]>(
    'SELECT generation, position, source_server, marker, seq FROM interlock.link_checkpoint WHERE link = ?',
    [link],
  );
  const row = rows[0] as
    | { generation: number; position: string; source_server: string; marker: string | null; seq: number }
    | undefined;
  if (row === undefined) return undefined;
  return {
    generation: Number(row.generation),
    position: row.position,
    sourceServer: row.source_server,
    marker: row.marker,
    seq: Number(row.seq),
  };
}

/** Since it was written last, by the target's own clock. */
export async function checkpointAgeMs(connection: Connection, link: string): Promise<number> {
  const [rows] = await connection.query<RowDataPacket[]>(
    'SELECT TIMESTAMPDIFF(MICROSECOND, updated_at, UTC_TIMESTAMP(6)) AS us FROM interlock.link_checkpoint WHERE link = ?',
    [link],
  );
  return Math.max(0, Number(rows[0]?.['us'] ?? 0) / 1000);
}

/**
 * Takes the link over: from here on, a commit of an older attempt fails on its generation. The update waits for a commit of that
 * attempt that is under way, so the checkpoint read after it is the last one.
 * @param from only when the link is at this generation
 * @returns undefined when there is no checkpoint, or one of another generation
 */
export async function takeGeneration(
  connection: Connection,
  link: string,
  from?: number,
): Promise<Checkpoint | undefined> {
  const [result] = await connection.query<ResultSetHeader>(
    `UPDATE interlock.link_checkpoint SET generation = generation + 1 WHERE link = ?${from === undefined ? '' : ' AND generation = ?'}`,
    [link, from],
  );
  return result.affectedRows === 0 ? undefined : readCheckpoint(connection, link);
}

/** Holds the checkpoint's row until the end of the transaction. @throws InterlockError HeldByOther */
export async function lockGeneration(
  connection: Connection,
  link: string,
  generation: number,
): Promise<void> {
  const [rows] = await connection.query<RowDataPacket[]>(
    'SELECT 1 FROM interlock.link_checkpoint WHERE link = ? AND generation = ? FOR UPDATE',
    [link, generation],
  );
  if (rows.length === 0) throw heldByOther(link);
}

export function heldByOther(link: string): InterlockError {
  return new InterlockError(
    'HeldByOther',
    `${link} was taken over by a newer attempt; this one has written nothing and stops`,
    { details: { link } },
  );
}

/** The owners of the source's units as of the checkpoint. */
export async function readLinkUnits(connection: Connection, link: string): Promise<SourceUnit[]> {
  const [rows] = await connection.query<RowDataPacket[]>(
    'SELECT unit, state, owner, epoch FROM interlock.link_unit WHERE link = ?',
    [link],
  );
  return (rows as SourceUnit[]).map((row) => ({ ...row, epoch: Number(row.epoch) }));
}

/** The first statement of every transaction that a link writes: its checkpoint, and the mark by which the other link drops it. */
export function checkpointUpdate(
  link: string,
  generation: number,
  next: { position: string; marker: string | null; seq: number },
): string {
  const marker = next.marker === null ? 'NULL' : quote(next.marker);
  return `UPDATE interlock.link_checkpoint SET position=${quote(next.position)},marker=${marker},seq=${next.seq},updated_at=UTC_TIMESTAMP(6) WHERE link=${quote(link)} AND generation=${generation}`;
}

export function linkUnitStatements(link: string, events: Iterable<UnitEvent>): string[] {
  const present: string[] = [];
  const absent: string[] = [];
  for (const event of events) {
    if (event.state === null) absent.push(quote(event.unit));
    else {
      present.push(
        `(${quote(link)},${quote(event.unit)},${quote(event.state)},${quote(event.owner)},${event.epoch})`,
      );
    }
  }
  const statements: string[] = [];
  if (present.length > 0) {
    statements.push(
      `INSERT INTO interlock.link_unit (link,unit,state,owner,epoch) VALUES ${present.join(',')} ON DUPLICATE KEY UPDATE state=VALUES(state),owner=VALUES(owner),epoch=VALUES(epoch)`,
    );
  }
  if (absent.length > 0) {
    statements.push(
      `DELETE FROM interlock.link_unit WHERE link=${quote(link)} AND unit IN (${absent.join(',')})`,
    );
  }
  return statements;
}

/**
 * The first checkpoint of a link. One that no transaction was applied on (seq 0) is overwritten: a repeat of an initialisation whose
 * answer was lost. `beside` runs in the same transaction. @throws InterlockError Refused when the link has applied something.
 */
export async function createCheckpoint(
  connection: Connection,
  link: string,
  first: { position: string; sourceServer: string; units: SourceUnit[] },
  discard: boolean,
  beside: () => Promise<void> = async () => undefined,
): Promise<void> {
  await inTransaction(connection, async () => {
    const [rows] = await connection.query<RowDataPacket[]>(
      'SELECT generation, position, seq FROM interlock.link_checkpoint WHERE link = ? FOR UPDATE',
      [link],
    );
    const existing = rows[0] as { position: string; seq: number } | undefined;
    if (existing && Number(existing.seq) > 0 && !discard) {
      throw new InterlockError(
        'Refused',
        `${link} has a checkpoint already (${existing.position}); start it without --from to go on there, or add --discard-checkpoint to forget it`,
        { details: { link, position: existing.position } },
      );
    }
    await connection.query(
      `INSERT INTO interlock.link_checkpoint (link, generation, position, source_server, marker, seq, updated_at)
       VALUES (?, 0, ?, ?, NULL, 0, UTC_TIMESTAMP(6))
       ON DUPLICATE KEY UPDATE generation = generation + 1, position = VALUES(position), source_server = VALUES(source_server), marker = NULL, seq = 0, updated_at = VALUES(updated_at)`,
      [link, first.position, first.sourceServer],
    );
    await connection.query('DELETE FROM interlock.link_unit WHERE link = ?', [link]);
    for (let i = 0; i < first.units.length; i += 500) {
      for (const sql of linkUnitStatements(link, first.units.slice(i, i + 500))) await connection.query(sql);
    }
    await beside();
  });
}

export async function inTransaction(connection: Connection, work: () => Promise<void>): Promise<void> {
  await connection.beginTransaction();
  try {
    await work();
    await connection.commit();
  } catch (error) {
    await connection.rollback().catch(() => undefined);
    throw error;
  }
}
