import { InterlockError } from '../../src/errors.js';
import { Router } from '../../src/routing/rules.js';
import type { Rules } from '../../src/routing/rules.js';
import { centralUnit } from '../../src/routing/units.js';
import type { UnitId } from '../../src/routing/units.js';
import type { TableRouting } from '../../src/topology/schema.js';
import { textOf } from './literal.js';
import type { Literal } from './literal.js';

/** How a user is mapped to a unit, without owners. */
export interface Mapping {
  defaultRegion: string;
  regions: string[];
  segments: Record<string, string[]>;
}

/** Reads the unit of a row; null: the table is copied without a fence. */
export type UnitOfRow = ((row: Literal[]) => UnitId) | null;

/**
 * Reads the unit of a table's rows, whose values come in the order of `columns`.
 * @throws InterlockError LinkStopped when the topology does not say how the table is routed
 */
export function unitReaderOf(
  router: Router,
  tables: Readonly<Record<string, TableRouting>>,
  table: string,
  columns: readonly string[],
): UnitOfRow {
  const routing = Object.hasOwn(tables, table) ? tables[table]! : undefined;
  if (routing === undefined) {
    throw new InterlockError(
      'LinkStopped',
      `${table} is carried but the topology's tables do not say how it is routed: declare userId, central or unrouted, or exclude it`,
    );
  }
  if ('unrouted' in routing) return null;
  if ('central' in routing) {
    const unit = centralUnit(routing.central);
    return () => unit;
  }
  const userAt = columnAt(table, columns, routing.userId);
  const regionAt = routing.region === undefined ? -1 : columnAt(table, columns, routing.region);
  const cache = new Map<string, UnitId>();
  return (row) => {
    const cacheKey = regionAt < 0 ? row[userAt]! : `${row[userAt]!} ${row[regionAt]!}`;
    const cached = cache.get(cacheKey);
    if (cached !== undefined) return cached;
    const userId = textOf(row[userAt]!) ?? '';
    const region = regionAt < 0 ? undefined : (textOf(row[regionAt]!) ?? undefined);
    const unit = router.unitOf({ userId, ...(region !== undefined && { region }) });
    // An unknown region is a unit that nobody owns.
    const found = unit ?? `${region ?? router.rules.defaultRegion}/(not routed)`;
    if (cache.size >= 100_000) cache.clear();
    cache.set(cacheKey, found);
    return found;
  };
}

function columnAt(table: string, columns: readonly string[], column: string): number {
  const at = columns.findIndex((name) => name.toLowerCase() === column.toLowerCase());
  if (at < 0) {
    throw new InterlockError(
      'LinkStopped',
      `${table} has no column ${column}, by which the topology routes it`,
    );
  }
  return at;
}

/** Maps users to units and knows no owners: those come from the stream, or from the rules in force. */
export function mappingRouter(mapping: Mapping): Router {
  return new Router(mappingRules(mapping));
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
