import type { Connection, RowDataPacket } from 'mysql2/promise';
import { InterlockError } from '../../src/errors.js';
import type { LinkConfig } from './link-config.js';
import { identifier } from './literal.js';
import type { Mismatch } from './row-check.js';
import type { SourceTable } from './source-table.js';
import { deletedByOthers, tombstoneTable } from './tombstones.js';
import { keyCondition } from './written-columns.js';

const ROWS_PER_QUESTION = 200;

/**
 * Which side's row is the later one, by the value of a column, as the target compares it. A deletion has the value of the row that it deleted,
 * and wins where that is the other's, too (but for one that the link itself made: its stream goes on behind it); of two rows with equal values the source's stays when `winsTies`: both directions agree on whose.
 * @returns in the order of `rows`
 * @throws InterlockError LinkStopped: there is no such column
 */
export async function laterOnes(
  target: Connection,
  { link, winsTies }: Pick<LinkConfig, 'link' | 'winsTies'>,
  column: string,
  rows: readonly Mismatch[],
): Promise<('source' | 'target')[]> {
  const winners = rows.map((): 'source' | 'target' => 'source');
  // What neither side has needs no question.
  const open = rows.flatMap((mismatch, i) =>
    mismatch.current === null && mismatch.row.after === null ? [] : [{ mismatch, i }],
  );
  for (let from = 0; from < open.length; from += ROWS_PER_QUESTION) {
    const some = open.slice(from, from + ROWS_PER_QUESTION);
    const [answers] = await target.query<RowDataPacket[]>(
      some.map(({ mismatch, i }) => questionOf(mismatch, link, column, i)).join(' UNION ALL '),
    );
    const byRow = new Map(answers.map((answer) => [Number(answer['i']), answer]));
    for (const { mismatch, i } of some) {
      const answer = byRow.get(i);
      // No row, and no tombstone of one: nothing is in the way.
      if (answer === undefined || Number(answer['newer']) === 1) continue;
      const tie = Number(answer['same']) === 1;
      const deleted = mismatch.current === null;
      const mine = tie && (mismatch.row.after === null || (!deleted && winsTies));
      if (!mine) winners[i] = 'target';
    }
  }
  return winners;
}

/**
 * Of rows that only the other side has: whether they were deleted here, and whether that is the later one.
 * @param here where they were deleted; `name`: of the table there
 */
export async function deletionsOf(
  here: Connection,
  name: string,
  column: string,
  rows: readonly Mismatch[],
): Promise<('later' | 'earlier' | 'none')[]> {
  const answers = rows.map((): 'later' | 'earlier' | 'none' => 'none');
  for (let from = 0; from < rows.length; from += ROWS_PER_QUESTION) {
    const questions = rows.slice(from, from + ROWS_PER_QUESTION).map(({ table, row, current }, i) => {
      const at = columnAt(table.source, column);
      const [known, there] = [identifier(table.source.columns[at]!), current![at]!];
      return `SELECT ${from + i} AS i, COALESCE(${known}<${there},${there} IS NOT NULL) AS earlier FROM ${tombstoneTable(name, table.source.columns[at]!)} WHERE ${keyCondition(table, row)}`;
    });
    const [found] = await here.query<RowDataPacket[]>(questions.join(' UNION ALL '));
    for (const one of found) answers[Number(one['i'])] = Number(one['earlier']) === 1 ? 'earlier' : 'later';
  }
  return answers;
}

/** @throws InterlockError LinkStopped */
function columnAt({ name, columns }: SourceTable, column: string): number {
  const at = columns.findIndex((one) => one.toLowerCase() === column.toLowerCase());
  if (at >= 0) return at;
  throw new InterlockError(
    'LinkStopped',
    `${name} has no column ${column}, by which its conflicts are decided (links.conflicts)`,
  );
}

function questionOf({ table, row, current }: Mismatch, link: string, column: string, i: number): string {
  const { source } = table;
  const at = columnAt(source, column);
  const mine = (row.after ?? row.deleted ?? row.before!)[at]!;
  const name = identifier(source.columns[at]!);
  const from = current === null ? tombstoneTable(source.name, source.columns[at]!) : source.sql;
  const whose = current === null ? ` AND ${deletedByOthers(link)}` : '';
  return `SELECT ${i} AS i, COALESCE(${name}<${mine},${mine} IS NOT NULL) AS newer, ${name}<=>${mine} AS same FROM ${from} WHERE ${keyCondition(table, row)}${whose}`;
}
