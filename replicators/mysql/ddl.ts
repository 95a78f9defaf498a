import type { Connection, RowDataPacket } from 'mysql2/promise';
import { InterlockError } from '../../src/errors.js';
import type { TableFilter } from '../core/table-filter.js';
import { readCatalog } from './catalog.js';
import type { Catalog } from './catalog.js';
import type { LinkConfig } from './link-config.js';
import { tableProblems } from './preflight.js';

/** Statements on accounts, statistics, stored programs: no table of the link changes. */
const IRRELEVANT =
  /^(GRANT|REVOKE|FLUSH|ANALYZE|OPTIMIZE|REPAIR|SET|(CREATE|ALTER|DROP|RENAME)( OR REPLACE)?( DEFINER\s*=\s*\S+)?\s+(USER|ROLE|SERVER|FUNCTION|PROCEDURE|EVENT|VIEW|SEQUENCE|PACKAGE|TEMPORARY|TABLESPACE|RESOURCE))\b/i;

/**
 * A statement in the stream that changes definitions is not repeated on the target. It is passed when both sides agree again on every
 * table of the link (and a table that was emptied is empty there, too); else the link stops and says what to run.
 * @returns the target's tables as they are now
 * @throws InterlockError LinkStopped
 */
export async function passDdl(
  config: LinkConfig,
  filter: TableFilter,
  source: Connection,
  target: Connection,
  ddl: { schema: string; statement: string },
  position: string,
): Promise<Catalog | null> {
  const statement = ddl.statement
    .replace(/\/\*[\s\S]*?\*\//g, ' ')
    .replace(/\s+/g, ' ')
    .trim();
  if (statement === '' || IRRELEVANT.test(statement)) return null;
  const [before, after] = [await readCatalog(source, filter), await readCatalog(target, filter)];
  const problems = tableProblems(before, after, config.tables);
  for (const name of emptiedTables(statement, ddl.schema, after)) {
    const table = after.get(name)!;
    const [rows] = await target.query<RowDataPacket[]>(`SELECT 1 FROM ${table.sql} LIMIT 1`);
    if (rows.length > 0) problems.push(`${name}: emptied at the source, has rows on the target`);
  }
  if (problems.length === 0) return after;
  throw new InterlockError(
    'LinkStopped',
    `${config.link} stopped in ${position} at: ${statement.slice(0, 200)}. Links do not carry definitions: run it on ${config.to}, too (with sql_log_bin=0 when it empties a table), then: interlock replicate resume ${config.link}\n  ${problems.join('\n  ')}`,
    { details: { link: config.link, position, statement, problems, kind: 'ddl' } },
  );
}

/** Carried tables that the statement leaves without the rows they had, as `schema.table`. */
function emptiedTables(statement: string, defaultSchema: string, catalog: Catalog): string[] {
  const database = /^DROP (?:DATABASE|SCHEMA)(?: IF EXISTS)? (\S+)/i.exec(statement);
  if (database) {
    const schema = unquote(database[1]!);
    return [...catalog.keys()].filter((name) => name.startsWith(`${schema}.`));
  }
  const tables = /^(?:DROP TABLE(?: IF EXISTS)?|TRUNCATE(?: TABLE)?) (.+)$/i.exec(statement);
  if (!tables) return [];
  return tables[1]!
    .split(',')
    .map((part) => part.trim().replace(/ (RESTRICT|CASCADE|WAIT \d+|NOWAIT)$/i, ''))
    .map((part) => {
      const [first, second] = part.split('.').map((name) => unquote(name.trim()));
      return second === undefined ? `${defaultSchema}.${first}` : `${first}.${second}`;
    })
    .filter((name) => catalog.has(name));
}

function unquote(name: string): string {
  return name.startsWith('`') ? name.slice(1, -1).replaceAll('``', '`') : name;
}
