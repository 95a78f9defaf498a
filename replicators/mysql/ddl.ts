import type { Connection, RowDataPacket } from 'mysql2/promise';
import { InterlockError } from '../../src/errors.js';
import type { Carried } from './carried.js';
import type { Catalog } from './catalog.js';
import { isIrrelevant, rowEffects } from './ddl-effects.js';
import type { LinkConfig } from './link-config.js';
import { waitsFor } from './ddl-steps.js';
import type { LinkSchema } from './link-schema.js';
import { identifier } from './literal.js';

/**
 * A statement in the stream that changes definitions is not repeated on the target. It is passed when the rows of every table of the link
 * can flow between the definitions of the two sides (and a table or partition that was emptied is empty there, too); else the link stops
 * and says what to run.
 * @param behind the position that has the statement, for a start behind it
 * @throws InterlockError LinkStopped; Unavailable while `ddl apply` brings the statement to the target
 */
export async function passDdl(
  config: LinkConfig,
  carried: Carried,
  schema: LinkSchema,
  source: Connection,
  target: Connection,
  ddl: { schema: string; statement: string },
  position: string,
  behind: string,
): Promise<void> {
  if (isIrrelevant(ddl.statement)) return;
  const statement = ddl.statement.replace(/\s+/g, ' ').trim();
  await schema.read();
  const byTable = schema.problems;
  const rows = await rowProblems(carried, source, target, ddl, schema.target);
  const problems = [...schema.unlike, ...[...byTable.values()].flat(), ...rows.problems];
  if (problems.length === 0) return;
  const change = rows.unseen ? undefined : schema.changing([...byTable.keys(), ...rows.tables]);
  if (change !== undefined) throw waitsFor(config.link, change);
  const next = rows.unseen
    ? `compare the rows, and begin behind it: interlock replicate stop ${config.link}; interlock replicate start ${config.link} --from '${behind}' --discard-checkpoint`
    : `interlock replicate resume ${config.link}`;
  throw new InterlockError(
    'LinkStopped',
    `${config.link} stopped in ${position} at: ${statement.slice(0, 200)}. Links do not carry definitions: run it on ${config.to}, too (with sql_log_bin=0 when it empties a table), then: ${next}\n  ${problems.join('\n  ')}`,
    {
      details: {
        link: config.link,
        position,
        statement,
        problems,
        kind: 'ddl',
        ...(rows.problems.length === 0 && schema.unlike.length === 0 && { differing: [...byTable.keys()] }),
      },
    },
  );
}

/** What the statement did to rows of carried tables, and is not so on the target. */
async function rowProblems(
  carried: Carried,
  source: Connection,
  target: Connection,
  ddl: { schema: string; statement: string },
  catalog: Catalog,
): Promise<{ problems: string[]; tables: string[]; unseen: boolean }> {
  const effects = rowEffects(ddl.statement, ddl.schema);
  if (effects.length === 0) return { problems: [], tables: [], unseen: false };
  const [variables] = await source.query<RowDataPacket[]>('SELECT @@lower_case_table_names AS folds');
  const folds = Number((variables[0] as { folds: number }).folds) !== 0;
  const problems = new Set<string>();
  const tables = new Set<string>();
  let unseen = false;
  for (const effect of effects) {
    const [schema, table] = [effect.schema, effect.table].map((n) => (folds ? n?.toLowerCase() : n));
    const names =
      table == null
        ? [...catalog.keys()].filter((name) => carried.sourceName(name)?.startsWith(`${schema}.`) === true)
        : [carried.targetName(`${schema}.${table}`)];
    for (const name of names) {
      if (table != null && !carried.sourceFilter.carries(schema!, table)) continue;
      if (effect.how === 'unseen') {
        unseen = true;
        problems.add(`${name}: has other rows now, and the stream does not say which`);
        continue;
      }
      const there = catalog.get(name);
      if (there === undefined) continue;
      tables.add(name);
      const existing = await partitionsOf(target, there.name, effect.partitions);
      if (effect.how === 'dropped') {
        for (const partition of existing)
          problems.add(`${name}: partition ${partition} dropped at the source, is on the target`);
        continue;
      }
      if (effect.partitions !== undefined && existing.length === 0) continue;
      const part = existing.length === 0 ? '' : ` PARTITION (${existing.map(identifier).join(',')})`;
      const [rows] = await target.query<RowDataPacket[]>(`SELECT 1 FROM ${there.sql}${part} LIMIT 1`);
      if (rows.length > 0) {
        problems.add(`${name}${part}: emptied at the source, has rows on the target`);
      }
    }
  }
  return { problems: [...problems], tables: [...tables], unseen };
}

/** Those of the named partitions and subpartitions that the table has. */
async function partitionsOf(
  connection: Connection,
  table: string,
  names: string[] | undefined,
): Promise<string[]> {
  if (names === undefined) return [];
  const [rows] = await connection.query<RowDataPacket[]>(
    `SELECT partition_name AS p, subpartition_name AS s FROM information_schema.partitions WHERE CONCAT(table_schema, '.', table_name) = ?`,
    [table],
  );
  const existing = new Set((rows as { p: string | null; s: string | null }[]).flatMap(({ p, s }) => [p, s]));
  const wanted = new Set(names.map((name) => name.toLowerCase()));
  return [...existing].filter((name): name is string => name !== null && wanted.has(name.toLowerCase()));
}
