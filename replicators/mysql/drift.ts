import type { Catalog, CatalogColumn } from './catalog.js';
import { defaultTest, holds, valueTypeOf } from './value-type.js';

/** One way in which the two sides define a table otherwise. */
export interface Difference {
  table: string;
  /** Null: of the table as a whole. */
  column: string | null;
  text: string;
  /** A link carries on over it: rows that do not fit are told apart one by one (see row-fit.ts). */
  flows: boolean;
  /** The side that has to be mended, as a rule, and how. */
  mend: { at: 'source' | 'target'; verb: 'ADD' | 'MODIFY' | 'CREATE' | 'DEFAULT' } | null;
}

/** How the definition of one table differs between the two sides. Column order may differ. */
export function differencesOf(source: Catalog, target: Catalog, name: string, mixed = false): Difference[] {
  const [a, b] = [source.get(name), target.get(name)];
  if (a === undefined && b === undefined) return [];
  const whole = (text: string, rest: Partial<Difference> = {}): Difference => ({
    ...{ table: name, column: null, text: `${name}: ${text}`, flows: false, mend: null },
    ...rest,
  });
  if (a === undefined)
    return [
      whole('missing at the source; create it there or exclude it', {
        flows: true,
        mend: { at: 'source', verb: 'CREATE' },
      }),
    ];
  if (b === undefined)
    return [
      whole('missing on the target; create it there or exclude it', {
        flows: true,
        mend: { at: 'target', verb: 'CREATE' },
      }),
    ];
  const found: Difference[] = [];
  for (const column of new Set([...a.columns.keys(), ...b.columns.keys()])) {
    const [left, right] = [a.columns.get(column), b.columns.get(column)];
    if (right?.leftOut === true) continue;
    const [here, there] = [describe(left, mixed), describe(right, mixed)];
    if (here === there) continue;
    found.push({
      ...{ table: name, column, text: `${name}.${column}: ${here} at the source, ${there} on the target` },
      flows: columnFlows(left, right, mixed),
      mend:
        left === undefined
          ? { at: 'target', verb: 'DEFAULT' }
          : { at: 'target', verb: right === undefined ? 'ADD' : 'MODIFY' },
    });
  }
  // Hazard: a column that one side has under another name looks like two; a value that was changed to the default would stay as it was.
  const loose = [a, b].map((side, i) => {
    const other = [b, a][i]!;
    return [...side.columns.values()].some(
      ({ name: one, generated }) => !generated && !other.columns.has(one),
    );
  });
  if (loose[0] && loose[1]) {
    for (const one of found)
      if (one.column !== null && !(a.columns.has(one.column) && b.columns.has(one.column))) {
        one.flows = false;
        one.text += ' (each side has a column that the other has not: renamed?)';
      }
  }
  if (a.primaryKey.join() !== b.primaryKey.join()) {
    found.push(
      whole(`primary key (${a.primaryKey.join()}) at the source, (${b.primaryKey.join()}) on the target`),
    );
  }
  if (a.uniqueKeys.join() !== b.uniqueKeys.join()) {
    found.push(
      whole(`unique keys ${a.uniqueKeys.join(' ')} at the source, ${b.uniqueKeys.join(' ')} on the target`),
    );
  }
  return found;
}

/** Whether an INSERT may leave the column out. */
export function mayBeLeftOut(column: CatalogColumn): boolean {
  return column.generated || column.nullable || column.default.kind !== 'none';
}

function columnFlows(
  source: CatalogColumn | undefined,
  target: CatalogColumn | undefined,
  mixed: boolean,
): boolean {
  if (source === undefined) return mayBeLeftOut(target!);
  if (target === undefined) return source.generated || defaultTest(source) !== undefined;
  if (source.generated || target.generated) return false;
  const [a, b] = [source, target].map((side) => storedAs(side, mixed)) as [string[], string[]];
  if (a.join() === b.join()) return true;
  if (source.charset !== target.charset || source.collation !== target.collation) return false;
  return holds(valueTypeOf(target), valueTypeOf(source)) !== 'never';
}

function describe(column: CatalogColumn | undefined, mixed: boolean): string {
  if (column === undefined) return 'missing';
  const generated = column.generated ? ['generated', ...(mixed ? [] : [`as (${column.expression})`])] : [];
  return [...storedAs(column, mixed), column.nullable ? 'NULL' : 'NOT NULL', ...generated].join(' ');
}

/** Type, character set and collation; with `mixed`, in one spelling for both flavours. */
function storedAs(column: CatalogColumn, mixed: boolean): string[] {
  const text = [column.charset, column.collation].filter((part) => part !== null);
  if (!mixed) return [column.type, ...text];
  // MariaDB's JSON is an alias: its text, in utf8mb4.
  if (column.dataType === 'json' || (column.dataType === 'longtext' && column.collation === 'utf8mb4_bin'))
    return ['json or longtext'];
  const type = column.type
    .replace(/^((?:tiny|small|medium|big)?int|year)\(\d+\)(?!.*zerofill)/, '$1')
    .replace(/^geomcollection$/, 'geometrycollection');
  return [type, ...text];
}
