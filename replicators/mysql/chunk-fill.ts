import { keyOf } from './batch.js';
import type { RowNet, TableBatch } from './batch.js';
import type { EffectOptions } from './chunk-effect.js';
import type { Chunk } from './copier.js';
import type { Literal } from './literal.js';
import { inserted } from './statements.js';
import type { Statement } from './statements.js';

const ROWS = 2_000;

/** Of a table that is filled, in whose place of the chunk the target has no row: whoever owns a row, it is inserted. */
export interface Fill {
  rows: number;
  /** Made anew, and as they are asked for, each time. */
  statements: Iterable<Statement>;
}

/** @returns undefined where something is to be decided about some row */
export function fillOf(chunk: Chunk, there: readonly Literal[][], options: EffectOptions): Fill | undefined {
  const { table, changed, exact } = chunk;
  const { targetTable, carried, policies, obstructed, flavour, cut, shape } = options;
  // By `latest`, a row that was deleted there stays deleted.
  const isDecided = typeof policies.conflicts[table.name] !== 'object';
  if (table.purpose !== 'fill' || there.length > 0 || obstructed || !isDecided) return undefined;
  const { source } = shape;
  const keeps = carried.rowTest(table.name, source.columns);
  const rows =
    keeps === undefined && changed.size === 0
      ? chunk.rows
      : chunk.rows.filter((row) => keeps?.(row) !== false && !changed.has(keyOf(source, row)));
  const batch: TableBatch = { source, target: targetTable, rows: new Map(), log: null, inOrder: false };
  const net = (row: Literal[]): RowNet => ({
    key: keyOf(source, row),
    before: null,
    after: withExact(row, exact.get(row)),
  });
  const make = function* (): Generator<Statement> {
    for (let from = 0; from < rows.length; from += ROWS)
      yield* inserted(batch, rows.slice(from, from + ROWS).map(net), { flavour, cut });
  };
  return { rows: rows.length, statements: { [Symbol.iterator]: make } };
}

/** A row with its documents as the source prints them. */
export function withExact(row: Literal[], exact: ReadonlyMap<number, Literal> | undefined): Literal[] {
  return exact === undefined ? row : row.map((value, at) => exact.get(at) ?? value);
}
