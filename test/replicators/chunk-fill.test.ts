import { describe, expect, it } from 'vitest';
import type { EffectOptions } from '../../replicators/mysql/chunk-effect.js';
import { fillOf } from '../../replicators/mysql/chunk-fill.js';
import type { Chunk } from '../../replicators/mysql/copier.js';
import { cutFor } from '../../replicators/mysql/large-values.js';
import type { Literal } from '../../replicators/mysql/literal.js';

const columns = ['id', 'doc'];
const target = {
  sql: '`shop`.`t`',
  columns: new Map(columns.map((name) => [name, { name, generated: false }])),
  uniqueColumns: new Set(),
};

function options(more: Partial<EffectOptions> = {}, keeps?: (row: Literal[]) => boolean): EffectOptions {
  return {
    ...{
      targetTable: target,
      carried: { rowTest: () => keeps },
      policies: { conflicts: {} },
      obstructed: false,
    },
    ...{ flavour: 'mysql', cut: cutFor(64 * 1024 * 1024) },
    shape: { source: { name: 'shop.t', sql: '`shop`.`t`', columns, primaryKey: [0], lax: false } },
    ...more,
  } as unknown as EffectOptions;
}

function chunk(rows: Literal[][], more: Partial<Chunk> = {}): Chunk {
  return {
    table: { name: 'shop.t', purpose: 'fill' },
    ...{ rows, changed: new Set(), exact: new Map() },
    ...more,
  } as unknown as Chunk;
}

const rows = Array.from({ length: 4_500 }, (_, i) => [String(i), `'${i}'`]);
const idsOf = (texts: readonly string[]): string[] =>
  texts.flatMap((sql) => [...sql.matchAll(/\((\d+),'/g)].map(([, id]) => id!));

describe('a chunk of a table that is filled, where the target has no row', () => {
  it('is inserted whole, in order, as often as it is asked for', () => {
    const fill = fillOf(chunk(rows), [], options())!;
    expect(fill.rows).toBe(rows.length);
    for (let time = 0; time < 2; time++) {
      const statements = [...fill.statements];
      expect(statements.every(({ kind }) => kind === 'insert')).toBe(true);
      expect(statements.reduce((sum, { affected }) => sum + affected!, 0)).toBe(rows.length);
      expect(idsOf(statements.map(({ sql }) => sql))).toEqual(rows.map(([id]) => id));
    }
  });

  it('leaves out rows that were changed meanwhile, deleted ones too, and those that the topology filters', () => {
    const fill = fillOf(
      chunk(rows.slice(0, 5), { changed: new Set(['1', '3']) }),
      [],
      options({}, ([id]) => id !== '4'),
    )!;
    expect(fill.rows).toBe(2);
    expect(idsOf([...fill.statements].map(({ sql }) => sql))).toEqual(['0', '2']);
  });

  it('has the documents as the source prints them', () => {
    const [row] = rows as [Literal[]];
    const fill = fillOf(
      chunk([row], { exact: new Map([[row, new Map([[1, `'{"a": 1.0}'`]])]]) }),
      [],
      options(),
    )!;
    expect([...fill.statements][0]!.sql).toContain(`(0,'{"a": 1.0}')`);
  });

  it.each([
    ['the target has a row', [['7', "'x'"]], {}, {}],
    ['the rows are compared, not filled', [], { table: { name: 'shop.t', purpose: 'resync' } }, {}],
    ['the last change decides', [], {}, { policies: { conflicts: { 'shop.t': { latest: 'at' } } } }],
    ['a unique value was in the way', [], {}, { obstructed: true }],
  ])('is decided row by row where %s', (_what, there, ofChunk, ofOptions) => {
    const some = chunk(rows, ofChunk as unknown as Partial<Chunk>);
    expect(fillOf(some, there, options(ofOptions as unknown as Partial<EffectOptions>))).toBeUndefined();
  });
});
