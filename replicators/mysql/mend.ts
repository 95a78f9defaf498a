import type { Connection, RowDataPacket } from 'mysql2/promise';
import { Carried } from './carried.js';
import type { LinkConfig } from './link-config.js';
import { identifier } from './literal.js';
import type { Misfit } from './row-fit.js';

/** The statement that makes the two sides agree, as far as one does, and where it has to run. */
export async function mendCommand(
  config: LinkConfig,
  connections: { source: Connection; target: Connection },
  { table, column, mend }: Misfit,
): Promise<{ at: string; command: string }> {
  const nameAt = (side: 'source' | 'target'): string => {
    const name = side === 'source' ? (new Carried(config).sourceName(table) ?? table) : table;
    return name.split('.').map(identifier).join('.');
  };
  const sql = nameAt(mend?.at ?? 'target');
  if (mend === null) return { at: config.to, command: `ALTER TABLE ${sql} …, so that both sides agree` };
  const at = mend.at === 'source' ? config.from : config.to;
  if (mend.verb === 'DEFAULT')
    return {
      at,
      command: `ALTER TABLE ${sql} ALTER COLUMN ${identifier(column!)} SET DEFAULT ${await implicitDefault(connections.target, table, column!)}`,
    };
  const other = mend.at === 'source' ? 'target' : 'source';
  const [rows] = await connections[other]
    .query<RowDataPacket[]>(`SHOW CREATE TABLE ${nameAt(other)}`)
    .catch((): [RowDataPacket[]] => [[]]);
  const create = String(rows[0]?.['Create Table'] ?? '');
  if (mend.verb === 'CREATE') {
    return {
      at,
      command:
        create === '' ? `CREATE TABLE ${sql} …` : create.replace(/^CREATE TABLE \S+/, `CREATE TABLE ${sql}`),
    };
  }
  const line = create.split('\n').find((one) => one.startsWith(`  ${identifier(column!)} `));
  if (line === undefined) {
    return {
      at,
      command: `ALTER TABLE ${sql} ${mend.verb} COLUMN ${identifier(column!)} … (until the link has passed; interlock ddl apply drops a column on all sides)`,
    };
  }
  return { at, command: `ALTER TABLE ${sql} ${mend.verb} COLUMN ${line.trim().replace(/,$/, '')}` };
}

/** What the server gives to rows that are there when a column without a default is added. */
async function implicitDefault(connection: Connection, table: string, column: string): Promise<string> {
  const [rows] = await connection.query<RowDataPacket[]>(
    `SELECT numeric_precision AS number, character_maximum_length AS text FROM information_schema.columns
     WHERE CONCAT(table_schema, '.', table_name) = ? AND column_name = ?`,
    [table, column],
  );
  if (rows[0]?.['number'] != null) return '0';
  return rows[0]?.['text'] != null ? "''" : '…';
}
