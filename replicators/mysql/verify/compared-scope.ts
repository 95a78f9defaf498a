import type { RowFilter } from '../../../src/topology/schema.js';
import type { CarriedConfig } from '../carried.js';

/** What of a table its links carry, and so what can be compared. */
export interface ComparedScope {
  /** Columns that are not carried. */
  without: readonly string[];
  /** Rows that are carried; undefined: all. */
  rows: RowFilter | undefined;
}

/** The same for every link of the table; or why the table cannot be compared. */
export function comparedScope(
  links: readonly Pick<CarriedConfig, 'rename' | 'columns' | 'rows'>[],
  table: string,
): ComparedScope | string {
  const scopes = links.map(({ columns, rows }) => ({
    without: [...(columns?.[table]?.without ?? [])].sort(),
    rows: rows?.[table],
  }));
  const renamed = links.find(
    ({ rename }) => rename !== undefined && (table in rename || Object.values(rename).includes(table)),
  );
  if (renamed !== undefined)
    return `${table} has another name on the other side (links.rename): tables of two names cannot be compared. Compare them by hand, or leave them out with --tables`;
  const [first] = scopes;
  if (scopes.some((scope) => JSON.stringify(scope) !== JSON.stringify(first)))
    return `${table}: the links of the two directions carry other rows or columns of it (links.rows, links.columns); make them the same`;
  return first ?? { without: [], rows: undefined };
}
