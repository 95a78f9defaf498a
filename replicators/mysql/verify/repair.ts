import type { Connection, ResultSetHeader } from 'mysql2/promise';
import { messageOf } from '../../../src/errors.js';
import type { DcId, UnitId } from '../../../src/routing/units.js';
import { quote } from '../literal.js';
import { deletesFor } from '../tombstones.js';
import { isUnavailable } from '../target-errors.js';
import type { SqlError } from '../target-errors.js';
import type { ComparedTable, RowImage } from './compared-table.js';
import { unitLock } from './proof.js';
import type { Pair } from './proof.js';
import type { Side } from './side.js';
import { rowsOfEach } from './side.js';

export interface RepairOrder {
  table: ComparedTable;
  link: string;
  /** Of the link's checkpoint when it passed the proof's marker. */
  generation: number;
  owner: DcId;
  /** The side that is written; never the owner's. */
  target: Side;
  units: readonly UnitId[];
  /** Answers while the owner's rows are locked by the proof; rejects when that session is gone. */
  stillLocked(): Promise<void>;
}

/**
 * Gives the target the owner's images.
 * @returns undefined, or why nothing was written
 */
export async function repair(order: RepairOrder, pairs: readonly Pair[]): Promise<string | undefined> {
  const session = await order.target.repairer();
  try {
    await session.query('START TRANSACTION');
    const refusal = await write(session, order, pairs);
    await session.query(refusal === undefined ? 'COMMIT' : 'ROLLBACK');
    return refusal;
  } catch (error) {
    // Left open, it would keep the link from its row, and the next START TRANSACTION would commit it.
    await session.query('ROLLBACK').catch(() => order.target.drop('repair'));
    // Whether a commit that got no answer has happened is seen by the next attempt: the rows are equal then, or not.
    if (isUnavailable(error as SqlError)) throw error;
    return `${order.target.dc} refuses it: ${messageOf(error)}`;
  }
}

/**
 * The first statement writes the link's row of the transaction table, as the link itself does: the link of the other direction drops the
 * transaction by it, and the link cannot apply anything until it ends.
 *
 * Hazard: the proof's lock may have been lost (its session ended), and a newer change of the owner be applied already, which this would undo.
 * Guard: the lock is asked for behind the link's row. Held then, it was held all along, and what comes later at the owner is applied after this.
 */
async function write(
  session: Connection,
  order: RepairOrder,
  pairs: readonly Pair[],
): Promise<string | undefined> {
  const { table, link, generation, owner, target, units } = order;
  const [mark] = await session.query<ResultSetHeader>(
    `UPDATE interlock.link_checkpoint SET updated_at=GREATEST(UTC_TIMESTAMP(6), updated_at + INTERVAL 1 MICROSECOND)
     WHERE link=${quote(link)} AND generation=${generation}`,
  );
  if (mark.affectedRows !== 1) return `${link} was taken over by another attempt meanwhile; verify again`;
  await deletesFor(session, link);
  await order.stillLocked();
  const [states] = await rowsOfEach(session, [unitLock(target.server.flavour, units)]);
  const closed = states!.every(([, state, holder]) => state === 'remote' && holder === owner);
  if (!closed || states!.length !== units.length)
    return `${target.dc} does not say that ${owner} owns the unit; verify again`;
  const keys = [...new Map(pairs.flatMap(({ owned, other }) => keysOf(table, [owned, other]))).values()];
  for (const key of keys) await session.query(table.delete(key));
  for (const { owned } of pairs) if (owned !== null) await session.query(table.insert(owned));
  const found = await rowsOfEach(
    session,
    pairs.map(({ key }) => table.row(key, false)),
  );
  const written = pairs.every(({ owned }, i) => {
    const [cells] = found[i]!;
    return table.same(owned, cells === undefined ? null : table.imageOf(cells));
  });
  return written ? undefined : `${target.dc} stores it otherwise than ${owner}; mend the row by hand`;
}

function keysOf(table: ComparedTable, images: readonly (RowImage | null)[]): [string, string[]][] {
  return images.flatMap((image) => {
    if (image === null) return [];
    const key = table.keyOfImage(image);
    return [[key.join(','), key]] as [string, string[]][];
  });
}
