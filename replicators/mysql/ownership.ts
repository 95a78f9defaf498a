import type { Router } from '../../src/routing/rules.js';
import type { DcId, UnitId } from '../../src/routing/units.js';
import type { TableRouting } from '../../src/topology/schema.js';
import type { SourceUnit } from '../core/contract.js';
import type { Literal } from './literal.js';
import { mappingRouter, unitReaderOf } from './row-units.js';
import type { Mapping, UnitOfRow } from './row-units.js';
import type { SourceTable } from './source-table.js';
import type { RowChange, SourceTransaction } from './transaction.js';

/**
 * Who owned each unit at the source, as of the place in its stream that was read last. Every change of a routed row
 * should be of a unit that was `open` there: one that was not is a write past the fence.
 */
export class Ownership {
  private readonly source: DcId;
  private readonly router: Router;
  private readonly tables: Readonly<Record<string, TableRouting>>;
  private readonly units = new Map<UnitId, SourceUnit>();
  private readonly readers = new WeakMap<SourceTable, { read: UnitOfRow }>();

  constructor(
    source: DcId,
    private readonly mapping: Mapping,
    tables: Readonly<Record<string, TableRouting>>,
    units: Iterable<SourceUnit>,
  ) {
    this.source = source;
    this.router = mappingRouter(mapping);
    this.tables = tables;
    for (const unit of units) this.units.set(unit.unit, unit);
  }

  /** As of now, whatever the stream says later. */
  clone(): Ownership {
    return new Ownership(this.source, this.mapping, this.tables, this.units.values());
  }

  /**
   * Takes over the transaction's ownership changes.
   * @returns the changes of units that were not open at the source
   * @throws InterlockError LinkStopped: the topology does not say how a table is routed
   */
  read(transaction: SourceTransaction): RowChange[] {
    const notOwned = transaction.changes.filter(({ table, before, after }) => {
      const unitOf = this.unitReader(table);
      if (unitOf === null) return false;
      return (
        (before !== null && !this.isOpen(unitOf(before))) || (after !== null && !this.isOpen(unitOf(after)))
      );
    });
    for (const event of transaction.units) {
      if (event.state === null) this.units.delete(event.unit);
      else this.units.set(event.unit, event);
    }
    return notOwned;
  }

  /** Whose a row is as of now, for rows that are looked at later. `unrouted`: both data centers may write it. */
  snapshot(): (table: SourceTable, row: Literal[]) => 'source' | 'other' | 'unrouted' {
    const units = new Map(this.units);
    return (table, row) => {
      const unitOf = this.unitReader(table);
      if (unitOf === null) return 'unrouted';
      const known = units.get(unitOf(row));
      return known?.owner === this.source && known.state !== 'remote' ? 'source' : 'other';
    };
  }

  /** Null: of no unit, both data centers may write it. */
  unitOf(table: SourceTable, row: Literal[]): UnitId | null {
    return this.unitReader(table)?.(row) ?? null;
  }

  /** As of the place of the stream that was read last. */
  isOpen(unit: UnitId): boolean {
    const known = this.units.get(unit);
    return known?.state === 'open' && known.owner === this.source;
  }

  private unitReader(table: SourceTable): UnitOfRow {
    let reader = this.readers.get(table);
    if (reader === undefined) {
      reader = { read: this.makeReader(table) };
      this.readers.set(table, reader);
    }
    return reader.read;
  }

  private makeReader(table: SourceTable): UnitOfRow {
    return unitReaderOf(this.router, this.tables, table.name, table.columns);
  }
}
