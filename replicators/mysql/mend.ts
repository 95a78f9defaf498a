import type { Connection, RowDataPacket } from 'mysql2/promise';
import type { LinkConfig } from './link-config.js';
import { identifier } from './literal.js';
import type { Misfit } from './row-fit.js';

/** The statement that makes the two sides agree, as far as one does, and where it has to run. */
export async function mendCommand(
  config: LinkConfig,
  connections: { source: Connection; target: Connection },
  { table, column, mend }: Misfit,
): Promise<{ at: string; command: string }> {
  const [schema, name] = table.split('.') as [string, string];
  const sql = `${identifier(schema)}.${identifier(name)}`;
  if (mend === null) return { at: config.to, command: `ALTER TABLE ${sql} …, so that both sides agree` };
  const at = mend.at === 'source' ? config.from : config.to;
  const other = mend.at === 'source' ? connections.target : connections.source;
  const [rows] = await other
    .query<RowDataPacket[]>(`SHOW CREATE TABLE ${sql}`)
    .catch((): [RowDataPacket[]] => [[]]);
  const create = String(rows[0]?.['Create Table'] ?? '');
  if (mend.verb === 'CREATE') {
    return {
      at,
      command: create === '' ? `CREATE TABLE ${sql} …` : create.replace(/^CREATE TABLE \S+/, `CREATE TABLE ${sql}`),
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
