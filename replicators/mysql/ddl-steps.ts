import type { Connection, RowDataPacket } from 'mysql2/promise';
import { InterlockError } from '../../src/errors.js';
import type { Carried } from './carried.js';
import type { Catalog } from './catalog.js';
import type { Difference } from './drift.js';

/** What `ddl apply` has recorded in a store, as far as a link into it has to know. */
export interface DdlSteps {
  /** `schema.table` and `schema.table.column` that a run drops on all sides → whether it still does. */
  dropped: ReadonlyMap<string, { running: boolean }>;
  /** Tables that a run changes now → which one. */
  changing: ReadonlyMap<string, string>;
  /** Other after every step of any run. */
  version: string;
}

const NO_SUCH_TABLE = 1146;

/** A store that an Interlock of before has set up has no such records. */
export async function readDdlSteps(connection: Pick<Connection, 'query'>): Promise<DdlSteps> {
  const dropped = new Map<string, { running: boolean }>();
  const changing = new Map<string, string>();
  let version = '';
  try {
    const [rows] = await connection.query<RowDataPacket[]>(
      'SELECT change_id, seq, name, dropped, state FROM interlock.ddl_step ORDER BY change_id, seq',
    );
    version = JSON.stringify(rows);
    for (const row of rows as { change_id: string; name: string; dropped: string | null; state: string }[]) {
      const running = row.state !== 'done' && row.state !== 'failed';
      if (running) changing.set(row.name, row.change_id);
      for (const gone of row.dropped === null ? [] : (JSON.parse(row.dropped) as string[]))
        dropped.set(gone, { running: running || dropped.get(gone)?.running === true });
    }
  } catch (error) {
    if ((error as { errno?: number }).errno !== NO_SUCH_TABLE) throw error;
  }
  return { dropped, changing, version };
}

/**
 * The definitions of both sides, and the steps of `ddl apply` that go with them. Hazard: a run that ends between the two readings would leave
 * definitions of before it with no word of why they differ.
 */
export async function readDefinitions(
  carried: Carried,
  { source, target }: Record<'source' | 'target', Pick<Connection, 'query'>>,
): Promise<Awaited<ReturnType<Carried['catalogs']>> & { steps: DdlSteps }> {
  let steps = await readDdlSteps(target);
  for (;;) {
    const catalogs = await carried.catalogs(source, target);
    const after = await readDdlSteps(target);
    if (after.version === steps.version) return { ...catalogs, steps };
    steps = after;
  }
}

/**
 * Whether a table or column is dropped on both sides. Hazard: what neither has may have been renamed, and its values be wanted. Only a record of
 * `ddl apply` says that it was dropped; once that is done, only what the source does not have (again) is.
 */
export function isDropped({ dropped }: DdlSteps, source: Catalog, name: string): boolean {
  const step = dropped.get(name);
  if (step === undefined || step.running) return step !== undefined;
  const [schema, table, column] = name.split('.');
  const there = source.get(`${schema}.${table}`);
  return column === undefined ? there === undefined : there?.columns.has(column) !== true;
}

/** The differences over which rows flow: what is dropped on both sides is missed on neither. */
export function flowsOver(
  steps: DdlSteps,
  source: Catalog,
  target: Catalog,
): (difference: Difference) => boolean {
  return ({ table, column, flows }) =>
    flows ||
    (column !== null &&
      target.get(table)?.columns.has(column) === false &&
      isDropped(steps, source, `${table}.${column}`));
}

/** The link tries again by itself: see Link.run. */
export function waitsFor(link: string, change: string): InterlockError {
  return new InterlockError(
    'Unavailable',
    `${link} waits for \`interlock ddl apply\` (${change}), which changes the table on both sides; see interlock ddl status`,
    { retryable: true, details: { link, change } },
  );
}
