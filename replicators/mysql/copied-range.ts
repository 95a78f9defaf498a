import type { Connection, RowDataPacket } from 'mysql2/promise';
import type { CatalogColumn, CatalogTable } from './catalog.js';
import { keyRange } from './key-range.js';
import type { Literal } from './literal.js';

const KEYS_PER_QUESTION = 500;

/**
 * Which keys lie behind `after`, in the order in which the table is copied. The rows may be on neither side by now, so that their values are
 * compared, each as its column would be.
 */
export async function behind(
  connection: Connection,
  table: CatalogTable,
  keys: readonly (readonly Literal[])[],
  after: readonly Literal[] | null,
): Promise<boolean[]> {
  if (after === null) return keys.map(() => true);
  const columns = table.primaryKey.map((name) => table.columns.get(name)!);
  const last = after.map((value, i) => asColumn(value, columns[i]!));
  const answers: boolean[] = [];
  for (let from = 0; from < keys.length; from += KEYS_PER_QUESTION) {
    const conditions = keys.slice(from, from + KEYS_PER_QUESTION).map((key) =>
      keyRange(
        key.map((value, i) => asColumn(value, columns[i]!)),
        '>',
        last,
      ),
    );
    const [rows] = await connection.query<RowDataPacket[]>({
      sql: `SELECT ${conditions.join(',')}`,
      rowsAsArray: true,
    });
    for (const answer of rows[0] as unknown as unknown[]) answers.push(Number(answer) === 1);
  }
  return answers;
}

function asColumn(value: Literal, { dataType, charset, collation }: CatalogColumn): Literal {
  // Numbers, bytes and dates (of one length) have their order; an enum's and a set's is that of their numbers.
  if (dataType === 'enum' || dataType === 'set') return value;
  if (dataType === 'time') return `CAST(${value} AS TIME(6))`;
  if (dataType === 'uuid' || dataType === 'inet4' || dataType === 'inet6')
    return `CAST(${value} AS ${dataType})`;
  return charset === null ? value : `CONVERT(${value} USING ${charset}) COLLATE ${collation}`;
}
