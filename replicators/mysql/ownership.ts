import { InterlockError } from '../../src/errors.js';
import { Router } from '../../src/routing/rules.js';
import type { Rules } from '../../src/routing/rules.js';
import { centralUnit } from '../../src/routing/units.js';
import type { DcId, UnitId } from '../../src/routing/units.js';
import type { TableRouting } from '../../src/topology/schema.js';
import type { SourceUnit } from '../core/contract.js';
import { textOf } from './literal.js';
import type { Literal } from './literal.js';
import type { SourceTable } from './source-table.js';
import type { SourceTransaction } from './transaction.js';

/** How a user is mapped to a unit, without owners. */
export interface Mapping {
  defaultRegion: string;
  regions: string[];
  segments: Record<string, string[]>;
}

/** Reads the unit of a row; null: the table is copied without a fence. */
type UnitOfRow = ((row: Literal[]) => UnitId) | null;

/**
 * Who owned each unit at the source, as of the place in its stream that was read last. Every change of a routed row
 * must be of a unit that was `open` there: one that was not is a write past the fence.
 */
export class Ownership {
  private readonly source: DcId;
  private readonly router: Router;
  private readonly tables: Readonly<Record<string, TableRouting>>;
  private readonly units = new Map<UnitId, SourceUnit>();
  private readonly readers = new WeakMap<SourceTable, { read: UnitOfRow }>();

  constructor(
    source: DcId,
    mapping: Mapping,
    tables: Readonly<Record<string, TableRouting>>,
    units: Iterable<SourceUnit>,
  ) {
    this.source = source;
    this.router = new Router(mappingRules(mapping));
    this.tables = tables;
    for (const unit of units) this.units.set(unit.unit, unit);
  }

  /** Takes over the transaction's ownership changes; answers the first change that the source did not own. */
  read(transaction: SourceTransaction): InterlockError | null {
    let violation: InterlockError | null = null;
    for (const { table, before, after } of transaction.changes) {
      const unitOf = this.unitReader(table);
      if (unitOf === null) continue;
      violation ??= (before && this.check(transaction, table, unitOf, before)) ?? null;
      violation ??= (after && this.check(transaction, table, unitOf, after)) ?? null;
      if (violation) break;
    }
    for (const event of transaction.units) {
      if (event.state === null) this.units.delete(event.unit);
      else this.units.set(event.unit, event);
    }
    return violation;
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

  private check(
    transaction: SourceTransaction,
    table: SourceTable,
    unitOf: (row: Literal[]) => UnitId,
    row: Literal[],
  ): InterlockError | null {
    const unit = unitOf(row);
    const known = this.units.get(unit);
    if (known?.state === 'open' && known.owner === this.source) return null;
    const stands = known ? `${known.state} (owner ${known.owner}, epoch ${known.epoch})` : 'not known there';
    const key = table.primaryKey.map((i) => row[i]).join(',');
    return new InterlockError(
      'LinkStopped',
      `${table.name} key (${key}) was changed at ${this.source} in ${transaction.gtid}, but unit ${unit} was ${stands}: a write past the fence`,
      { details: { table: table.name, key, unit, position: transaction.gtid, kind: 'not-owned' } },
    );
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
    const routing = Object.hasOwn(this.tables, table.name) ? this.tables[table.name]! : undefined;
    if (routing === undefined) {
      throw new InterlockError(
        'LinkStopped',
        `${table.name} is carried but the topology's tables do not say how it is routed: declare userId, central or unrouted, or exclude it`,
      );
    }
    if ('unrouted' in routing) return null;
    if ('central' in routing) {
      const unit = centralUnit(routing.central);
      return () => unit;
    }
    const userAt = this.columnAt(table, routing.userId);
    const regionAt = routing.region === undefined ? -1 : this.columnAt(table, routing.region);
    const cache = new Map<string, UnitId>();
    return (row) => {
      const cacheKey = regionAt < 0 ? row[userAt]! : `${row[userAt]!} ${row[regionAt]!}`;
      const cached = cache.get(cacheKey);
      if (cached !== undefined) return cached;
      const userId = textOf(row[userAt]!) ?? '';
      const region = regionAt < 0 ? undefined : (textOf(row[regionAt]!) ?? undefined);
      const unit = this.router.unitOf({ userId, ...(region !== undefined && { region }) });
      // An unknown region is a unit that nobody owns: `check` names it.
      const found = unit ?? `${region ?? this.router.rules.defaultRegion}/(not routed)`;
      if (cache.size >= 100_000) cache.clear();
      cache.set(cacheKey, found);
      return found;
    };
  }

  private columnAt(table: SourceTable, column: string): number {
    const at = table.columns.findIndex((name) => name.toLowerCase() === column.toLowerCase());
    if (at < 0) {
      throw new InterlockError(
        'LinkStopped',
        `${table.name} has no column ${column}, by which the topology routes it`,
      );
    }
    return at;
  }
}

/** Rules that map users to units and have no owners: owners come from the stream. */
function mappingRules(mapping: Mapping): Rules {
  return {
    format: 1,
    topology: '',
    epoch: 0,
    mappingVersion: 0,
    unitMappingVersions: {},
    defaultRegion: mapping.defaultRegion,
    regions: Object.fromEntries(mapping.regions.map((name) => [name, []])),
    segments: Object.fromEntries(
      Object.entries(mapping.segments).map(([name, members]) => [
        name,
        { owner: '', state: 'open', members },
      ]),
    ),
    central: {},
    holder: null,
    reason: '',
  };
}
