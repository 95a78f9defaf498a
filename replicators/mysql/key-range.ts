import type { Literal } from './literal.js';

/**
 * The rows whose key lies behind `key`, or up to and with it, in the order of the index. Written out column by column: servers find no range in a
 * comparison of row constructors; the first column alone gives them one. In the collation of the columns, as ORDER BY is: literals have none.
 * @param columns of the key, in its order, as SQL
 */
export function keyRange(columns: readonly string[], operator: '>' | '<=', key: readonly Literal[]): string {
  const strict = operator === '>' ? '>' : '<';
  const last = columns.length - 1;
  const parts = columns.map((column, i) => {
    const equal = columns.slice(0, i).map((before, j) => `${before} = ${key[j]!}`);
    return [...equal, `${column} ${i === last ? operator : strict} ${key[i]!}`].join(' AND ');
  });
  if (last === 0) return parts[0]!;
  return `(${columns[0]!} ${strict}= ${key[0]!} AND (${parts.map((part) => `(${part})`).join(' OR ')}))`;
}
