import type { Connection, RowDataPacket } from 'mysql2/promise';
import { identifier } from '../literal.js';
import type { Flavour } from '../position.js';
import type { DdlStatement } from './statement.js';

/** `instant`: no row is read; `inplace`: rows are read and writes go on; `copy`: the table is written anew, and writes wait. */
export type Algorithm = 'instant' | 'inplace' | 'copy';

/** The algorithms of a statement, the one that costs least first. */
export function algorithmsOf(statement: DdlStatement, flavour: Flavour): (Algorithm | null)[] {
  const { verb, chooses } = statement;
  if (verb === 'create' || verb === 'drop' || chooses) return [null];
  // MariaDB's DROP INDEX has no such clause.
  if (verb === 'drop-index' && flavour === 'mariadb') return [null];
  // An index is built or dropped in place, never instantly.
  return verb === 'alter' ? ['instant', 'inplace', 'copy'] : ['inplace', 'copy'];
}

/** The statement by this algorithm, on another table when `on` is given. */
export function textFor(statement: DdlStatement, algorithm: Algorithm | null, on?: string): string {
  const { text, nameFrom, nameTo, verb } = statement;
  const named = on === undefined ? text : `${text.slice(0, nameFrom)}${on}${text.slice(nameTo)}`;
  // Without a clause the server takes what it can; only what would stop writes has to be left to it.
  if (algorithm === null || algorithm === 'copy') return named;
  const lock = algorithm === 'inplace' ? 'LOCK=NONE' : undefined;
  const clauses = [`ALGORITHM=${algorithm.toUpperCase()}`, ...(lock === undefined ? [] : [lock])];
  // On a line of its own: the statement may end with a comment.
  return verb === 'alter' ? `${named}\n, ${clauses.join(', ')}` : `${named}\n${clauses.join(' ')}`;
}

/** ER_ALTER_OPERATION_NOT_SUPPORTED, … with its reason: another algorithm has to be tried. */
const OTHER_ALGORITHM = new Set([1845, 1846, 4092]);

export function asksForOther(error: unknown): boolean {
  return OTHER_ALGORITHM.has((error as { errno?: number }).errno ?? 0);
}

/** What is to be there is there, or what is to go is gone: table, column, key. */
const ALREADY = new Set([1050, 1051, 1060, 1061, 1091, 1146]);

export function saysAlready(error: unknown): boolean {
  return ALREADY.has((error as { errno?: number }).errno ?? 0);
}

/**
 * A table's definition, so that two can be compared: without its name, what counts up, and what a rehearsal on another table cannot have; null:
 * no such table.
 */
export async function definitionOf(connection: Connection, name: string): Promise<string | null> {
  const [schema, table] = name.split('.') as [string, string];
  let rows: RowDataPacket[];
  try {
    [rows] = await connection.query<RowDataPacket[]>(
      `SHOW CREATE TABLE ${identifier(schema)}.${identifier(table)}`,
    );
  } catch (error) {
    if ([1146, 1049].includes((error as { errno?: number }).errno ?? 0)) return null;
    throw error;
  }
  return String(rows[0]!['Create Table'])
    .split('\n')
    .slice(1)
    .filter((line) => !/^\s*CONSTRAINT `[^`]*` FOREIGN KEY/.test(line))
    .map((line) =>
      line
        .replace(/^\s*CONSTRAINT `[^`]*` CHECK/, '  CHECK')
        .replace(/ AUTO_INCREMENT=\d+/, '')
        .replace(/,$/, ''),
    )
    .join('\n');
}
