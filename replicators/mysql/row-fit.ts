import type { Catalog, CatalogColumn } from './catalog.js';
import { differencesOf, mayBeLeftOut } from './drift.js';
import type { Difference } from './drift.js';
import { NULL } from './literal.js';
import type { Literal } from './literal.js';
import type { SourceTable } from './source-table.js';
import type { RowChange } from './transaction.js';
import { defaultTest, holds, valueTypeOf } from './value-type.js';
import type { Fit, ValueType } from './value-type.js';
import { HIDDEN_HASH } from './written-columns.js';

/** A row that the target cannot take as its definition is. */
export interface Misfit {
  table: string;
  column: string | null;
  /** What differs. */
  text: string;
  value: Literal | null;
  mend: Difference['mend'];
}

/** Finds what of a row does not fit; null: every row does. */
export type RowFit = ((change: RowChange) => Misfit | null) | null;

export interface Sides {
  source: Catalog;
  target: Catalog;
  /** Of a table as a whole: none of its rows may be carried. */
  problems: ReadonlyMap<string, readonly string[]>;
  mixed: boolean;
  /** Whether a column (`schema.table.column`) is dropped on both sides: nobody misses what is in it. */
  dropped: (name: string) => boolean;
}

/**
 * Whether rows of the definition that a table map gives fit the target's. The map is what the row has; the source's catalog, which may be of
 * before or after it, is asked only for what a map does not say.
 */
export function rowFitOf(map: SourceTable, sides: Sides): RowFit {
  const { source, target, mixed } = sides;
  const { name } = map;
  const there = target.get(name);
  const differences = differencesOf(source, target, name, mixed);
  const never = (text: string, mend: Difference['mend'], column: string | null = null): RowFit => {
    const misfit: Misfit = { table: name, column, text, value: null, mend };
    return () => misfit;
  };
  if (there === undefined) return never(`${name}: missing on the target`, { at: 'target', verb: 'CREATE' });
  const problems = sides.problems.get(name);
  if (problems !== undefined) {
    const worst = differences.find(({ flows }) => !flows);
    return never(problems.join('; '), worst?.mend ?? null, worst?.column ?? null);
  }
  const textOf = (column: string, otherwise: string): string =>
    differences.find((one) => one.column === column)?.text ?? `${name}.${column}: ${otherwise}`;
  for (const column of there.columns.values()) {
    if (map.columns.includes(column.name) || mayBeLeftOut(column)) continue;
    return never(
      textOf(column.name, 'missing in the row, without a default on the target'),
      // Rows of before it was added at the source will never have it.
      { at: 'target', verb: 'DEFAULT' },
      column.name,
    );
  }
  const checks: ((row: Literal[]) => Misfit | null)[] = [];
  map.columns.forEach((column, at) => {
    if (HIDDEN_HASH.test(column)) return;
    const [from, to] = [source.get(name)?.columns.get(column), there.columns.get(column)];
    const misfit = (value: Literal | null, otherwise: string): Misfit => ({
      ...{ table: name, column, text: textOf(column, otherwise), value },
      mend: { at: 'target', verb: to === undefined ? 'ADD' : 'MODIFY' },
    });
    if (to === undefined) {
      if (from?.generated === true) return;
      if (sides.dropped(`${name}.${column}`)) return;
      const isDefault = from && defaultTest(from);
      const what = from === undefined ? 'in the row, and on neither side now' : 'missing on the target';
      checks.push((row) => (isDefault?.(row[at]!) === true ? null : misfit(row[at]!, what)));
      return;
    }
    if (to.generated) return;
    const fits = columnFit(map.types[at]!, to, from);
    if (fits !== 'always') {
      const test = fits === 'never' ? () => false : fits;
      checks.push((row) => (test(row[at]!) ? null : misfit(row[at]!, `another type at the source`)));
    }
  });
  if (checks.length === 0) return null;
  return ({ after }) => {
    if (after === null) return null;
    for (const check of checks) {
      const found = check(after);
      if (found !== null) return found;
    }
    return null;
  };
}

/** Kinds whose values no other kind of column takes as they are. */
const STRICT = new Set(['integer', 'decimal', 'enum', 'set', 'bit', 'time', 'datetime', 'timestamp']);

function columnFit(mapped: ValueType, target: CatalogColumn, source: CatalogColumn | undefined): Fit {
  const held = valueTypeOf(target);
  const strict = STRICT.has(held.kind) || STRICT.has(mapped.kind);
  // JSON, UUID and INET travel as strings.
  const comparable = held.kind === mapped.kind && held.kind !== 'other';
  const fit = comparable ? holds(held, mapped) : strict ? 'never' : 'always';
  const mustNotBeNull = !target.nullable && source?.nullable !== false;
  if (fit === 'never') return fit;
  if (fit === 'always') return mustNotBeNull ? (v) => v !== NULL : 'always';
  return (v) => (v === NULL ? !mustNotBeNull : fit(v));
}
