import type { CatalogTable } from './catalog.js';
import type { Literal } from './literal.js';
import type { SourceTable } from './source-table.js';
import type { RowChange, SourceTransaction, UnitEvent } from './transaction.js';

/** What becomes of one row over all transactions of a batch. */
export interface RowNet {
  key: string;
  before: Literal[] | null;
  after: Literal[] | null;
  /** The image that was deleted, which may be a later one than `before`. */
  deleted?: Literal[] | null;
  /** Of a row that is written change by change. */
  change?: RowChange;
}

export interface TableBatch {
  source: SourceTable;
  target: CatalogTable;
  rows: Map<string, RowNet>;
  /** Every change as it came, for tables whose rows can be in each other's way; null when order cannot matter. */
  log: RowChange[] | null;
  /** A unique value moved between rows: only the source's own order is known to work. */
  inOrder: boolean;
}

export interface OrderedChange {
  table: TableBatch;
  change: RowChange;
  transaction: SourceTransaction;
}

/** A change that does not follow from the ones before it: something else wrote the row in between. */
export class BatchMismatch extends Error {}

/**
 * Source transactions, merged: all of them or none, whole, in order. A row that changed several times is written once.
 */
export class Batch {
  readonly tables = new Map<string, TableBatch>();
  readonly units = new Map<string, UnitEvent>();
  /** The changes of tables that go in the source's order (see CatalogTable.inOrder), over all of them. */
  readonly ordered: OrderedChange[] = [];
  readonly transactions: SourceTransaction[] = [];
  rowCount = 0;
  bytes = 0;

  get isEmpty(): boolean {
    return this.transactions.length === 0;
  }

  /** @throws BatchMismatch; the batch is then not to be used. */
  add(transaction: SourceTransaction, tableOf: (change: RowChange) => CatalogTable): void {
    for (const change of transaction.changes) this.change(change, transaction, tableOf);
    for (const event of transaction.units) this.units.set(event.unit, event);
    this.transactions.push(transaction);
    this.rowCount += transaction.changes.length;
    this.bytes += transaction.bytes;
  }

  private change(
    change: RowChange,
    transaction: SourceTransaction,
    tableOf: (change: RowChange) => CatalogTable,
  ): void {
    const { table, before, after } = change;
    let batch = this.tables.get(table.name);
    if (batch === undefined || batch.source !== table) {
      // The same table in another definition (a DDL in between) is another batch: column positions may differ.
      if (batch !== undefined) throw new BatchMismatch();
      const target = tableOf(change);
      batch = {
        source: table,
        target,
        rows: new Map(),
        log: target.uniqueColumns.size > 0 ? [] : null,
        inOrder: false,
      };
      this.tables.set(table.name, batch);
    }
    if (batch.target.inOrder) {
      this.ordered.push({ table: batch, change, transaction });
      return;
    }
    if (batch.log) {
      batch.log.push(change);
      batch.inOrder ||= before !== null && after !== null && movesUniqueValue(batch, before, after);
    }
    const oldKey = before && keyOf(table, before);
    const newKey = after && keyOf(table, after);
    if (oldKey === newKey && oldKey !== null) {
      this.put(batch, oldKey, before, after);
      return;
    }
    if (oldKey !== null) this.put(batch, oldKey, before, null);
    if (newKey !== null) this.put(batch, newKey, null, after);
  }

  private put(batch: TableBatch, key: string, before: Literal[] | null, after: Literal[] | null): void {
    const net = batch.rows.get(key);
    if (net === undefined) {
      batch.rows.set(key, { key, before, after });
      return;
    }
    if ((net.after === null) !== (before === null)) throw new BatchMismatch();
    net.after = after;
    net.deleted = after === null ? before : null;
    // Hazard: rows that were deleted and inserted again, with each other's unique values, are net updates that meet. They go in order.
    if (batch.log && net.before !== null && after !== null) {
      batch.inOrder ||= movesUniqueValue(batch, net.before, after);
    }
  }
}

export function keyOf(table: Pick<SourceTable, 'primaryKey'>, row: Literal[]): string {
  const { primaryKey } = table;
  return primaryKey.length === 1 ? row[primaryKey[0]!]! : primaryKey.map((i) => row[i]).join(',');
}

/** Of a row that came and went, the one that was deleted. */
export function anyImage({ before, after, deleted }: RowNet): Literal[] {
  return (before ?? after ?? deleted)!;
}

/** Whether two images are of the same values; null: no row. */
export function sameRow(a: Literal[] | null, b: Literal[] | null): boolean {
  if (a === null || b === null) return a === b;
  return a.length === b.length && a.every((value, i) => value === b[i]);
}

function movesUniqueValue(batch: TableBatch, before: Literal[], after: Literal[]): boolean {
  for (const column of batch.target.uniqueColumns) {
    const at = batch.source.columns.indexOf(column);
    // An expression or generated column may change with any other.
    if (at < 0 || batch.target.columns.get(column)?.generated === true) return true;
    if (before[at] !== after[at]) return true;
  }
  return false;
}
