import type { Connection, RowDataPacket } from 'mysql2/promise';
import { Carried } from './carried.js';
import type { LinkConfig } from './link-config.js';
import { keyStatements } from './key-mend.js';
import { identifier } from './literal.js';
import type { Misfit } from './row-fit.js';
import { keepsTombstones } from './tombstones.js';

/** The statement that makes the two sides agree, as far as one does, and where it has to run. */
export async function mendCommand(
  config: LinkConfig,
  connections: { source: Connection; target: Connection },
  { table, column, mend }: Misfit,
): Promise<{ at: string; command: string }> {
  const nameAt = (side: Side): string => {
    const name = side === 'source' ? (new Carried(config).sourceName(table) ?? table) : table;
    return name.split('.').map(identifier).join('.');
  };
  const sql = nameAt(mend?.at ?? 'target');
  if (mend === null) return wholeMend(config, connections, nameAt);
  const at = mend.at === 'source' ? config.from : config.to;
  if (mend.verb === 'DEFAULT')
    return {
      at,
      command: `ALTER TABLE ${sql} ALTER COLUMN ${identifier(column!)} SET DEFAULT ${await implicitDefault(connections.target, table, column!)}`,
    };
  const other = mend.at === 'source' ? 'target' : 'source';
  const create = await definition(connections[other], nameAt(other));
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

type Side = 'source' | 'target';

async function definition(connection: Connection, name: string): Promise<string> {
  const [rows] = await connection
    .query<RowDataPacket[]>(`SHOW CREATE TABLE ${name}`)
    .catch((): [RowDataPacket[]] => [[]]);
  return String(rows[0]?.['Create Table'] ?? '');
}

/** Of a table as a whole: triggers that would fire twice, engine, keys. What has to change on one side first; the link then says what is left. */
async function wholeMend(
  config: LinkConfig,
  connections: Record<Side, Connection>,
  nameAt: (side: Side) => string,
): Promise<{ at: string; command: string }> {
  const dc = { source: config.from, target: config.to };
  const definitions = { source: '', target: '' };
  for (const side of ['target', 'source'] as const) {
    const [schema, name] = nameAt(side).slice(1, -1).split('`.`') as [string, string];
    const [triggers] = await connections[side].query<RowDataPacket[]>(
      'SELECT trigger_name AS name FROM information_schema.triggers WHERE event_object_schema = ? AND event_object_table = ?',
      [schema, name].map((one) => one.replaceAll('``', '`')),
    );
    const drops = triggers
      .map((row) => String(row['name']))
      .filter((trigger) => !keepsTombstones(trigger))
      .map((trigger) => `DROP TRIGGER ${identifier(schema)}.${identifier(trigger)}`);
    if (drops.length > 0) return { at: dc[side], command: drops.join('; ') };
    definitions[side] = await definition(connections[side], nameAt(side));
    if (!/^\).* ENGINE=InnoDB/m.test(definitions[side]))
      return { at: dc[side], command: `ALTER TABLE ${nameAt(side)} ENGINE=InnoDB` };
  }
  const statements = keyStatements(definitions.source, definitions.target, nameAt('target'));
  return {
    at: config.to,
    command: statements.length > 0 ? statements.join('; ') : 'what makes both sides agree',
  };
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
