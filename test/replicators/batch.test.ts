import { describe, expect, it } from 'vitest';
import { Batch } from '../../replicators/mysql/batch.js';
import type { CatalogTable } from '../../replicators/mysql/catalog.js';
import type { SourceTable } from '../../replicators/mysql/source-table.js';
import { cutFor } from '../../replicators/mysql/large-values.js';
import { statementsOf } from '../../replicators/mysql/statements.js';
import { newTransaction } from '../../replicators/mysql/transaction.js';

const source: SourceTable = {
  name: 'shop.seat',
  schema: 'shop',
  table: 'seat',
  sql: '`shop`.`seat`',
  columns: ['id', 'place', 'note'],
  primaryKey: [0],
  decoders: [],
  types: [],
  carried: true,
  lax: false,
  control: null,
};
const target: CatalogTable = {
  name: source.name,
  sql: source.sql,
  engine: 'InnoDB',
  columns: new Map(
    source.columns.map((name) => [
      name,
      {
        ...{ name, type: 'int', dataType: 'int', charset: null, collation: null, octets: null },
        ...{ nullable: true, generated: false, expression: '', autoUpdated: false },
        default: { kind: 'none' },
      },
    ]),
  ),
  primaryKey: ['id'],
  uniqueColumns: new Set(['place']),
  uniqueKeys: ['one(place)'],
  triggers: [],
  kind: 'BASE TABLE',
  foreignKeys: [],
  cascadesOutside: [],
  inOrder: false,
};

type Row = string[];

function statements(changes: [Row | null, Row | null][]): string[] {
  const transaction = newTransaction('t', 0);
  transaction.changes = changes.map(([before, after]) => ({
    table: source,
    before,
    after,
    unchecked: false,
  }));
  const batch = new Batch();
  batch.add(transaction, () => target);
  return statementsOf(batch, {
    flavour: 'mysql',
    blind: new Set(),
    copied: new Set(),
    checkInserts: false,
    link: 'mysql/a:dc-a>dc-b',
    latest: new Map(),
    cut: cutFor(64 * 1024 * 1024),
  }).map(({ sql }) => sql.split(' ')[0]!);
}

describe('a batch of a table with a unique key', () => {
  it('keeps the order when rows come back with the unique values of each other', () => {
    expect(
      statements([
        [['1', '1', "'a'"], null],
        [['2', '2', "'b'"], null],
        [null, ['1', '2', "'a'"]],
        [null, ['2', '1', "'b'"]],
      ]),
    ).toEqual(['SELECT', 'DELETE', 'SELECT', 'DELETE', 'INSERT', 'INSERT']);
  });

  it('writes a row that comes back with its own unique value once', () => {
    expect(
      statements([
        [['1', '1', "'a'"], null],
        [null, ['1', '1', "'z'"]],
      ]),
    ).toEqual(['SELECT', 'UPDATE']);
  });
});
