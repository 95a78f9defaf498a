import type { Connection, RowDataPacket } from 'mysql2/promise';
import { formatLinkId } from '../replicators/core/contract.js';
import { TableFilter } from '../src/topology/table-filter.js';
import { without } from '../replicators/mysql/carried.js';
import { readCatalog } from '../replicators/mysql/catalog.js';
import type { Catalog } from '../replicators/mysql/catalog.js';
import { linkConfigOf } from '../replicators/mysql/configure.js';
import { tableProblems } from '../replicators/mysql/preflight.js';
import { comparedScope } from '../replicators/mysql/verify/compared-scope.js';
import { connect } from '../replicators/mysql/session.js';
import { InterlockError } from '../src/errors.js';
import { Router, unitsOf } from '../src/routing/rules.js';
import type { Rules } from '../src/routing/rules.js';
import { parseScope, scopeUnits } from '../src/routing/scope.js';
import { centralUnit, parseUnit } from '../src/routing/units.js';
import type { DcId, UnitId } from '../src/routing/units.js';
import { wantedMysqlLinks } from '../src/topology/derive.js';
import type { WantedMysqlLink } from '../src/topology/derive.js';
import type { SecretReference, TableRouting, Topology } from '../src/topology/schema.js';
import type { PlannedTable, VerifyPlan, VerifyRequest } from '../workflows/verification-contract.js';

interface PlanDeps {
  topology: Topology;
  secret: (reference: SecretReference) => string;
}

/**
 * The tables that the topology declares, a link carries and a store has, of every store pair; and the units of the scope.
 * @throws InterlockError BadInput when there are none
 */
export async function planVerification(
  deps: PlanDeps,
  rules: Rules,
  request: VerifyRequest,
): Promise<VerifyPlan> {
  const { topology } = deps;
  const units = request.scope === null ? null : scopeUnits(rules, parseScope(request.scope));
  const chosen = new TableFilter(request.tables.length === 0 ? ['*.*'] : request.tables, []);
  const names = Object.keys(topology.tables).filter(
    (name) => chosen.has(name) && (units === null || mayHold(topology.tables[name]!, units)),
  );
  const links = wantedMysqlLinks(topology);
  const tables: PlannedTable[] = [];
  for (const store of new Set(links.map((link) => link.store))) {
    const ofStore = links.filter((link) => link.store === store);
    tables.push(...(await tablesOf(deps, rules, ofStore, names, units)));
  }
  if (tables.length > 0) return { tables, units };
  const chosenBy = request.tables.length > 0 ? `--tables ${request.tables.join(',')}` : '';
  const scopedBy = request.scope === null ? '' : `--scope ${request.scope}`;
  const flag = chosenBy === '' ? '--scope' : '--tables';
  throw new InterlockError(
    'BadInput',
    `${[chosenBy, scopedBy].filter(Boolean).join(' ') || 'verify'}: no such table is in a store, declared in the topology and carried by a link`,
    { details: { field: flag } },
  );
}

async function tablesOf(
  { topology, secret }: PlanDeps,
  rules: Rules,
  links: readonly WantedMysqlLink[],
  names: readonly string[],
  units: readonly UnitId[] | null,
): Promise<PlannedTable[]> {
  const config = linkConfigOf(topology, formatLinkId(links[0]!), secret);
  const declared = new TableFilter(names, []);
  const source = await connect(config.source);
  try {
    const target = await connect(config.target);
    try {
      const catalogs = [await readCatalog(source, declared), await readCatalog(target, declared)] as const;
      const estimates = await estimatedRows(source);
      const planned: PlannedTable[] = [];
      for (const name of names) {
        const carrying = links.filter(({ include, exclude }) => new TableFilter(include, exclude).has(name));
        if (carrying.length === 0 || !catalogs.some((catalog) => catalog.has(name))) continue;
        const needed = neededLinks(topology.tables[name]!, rules, carrying, units);
        const scope = comparedScope(needed.links, name);
        const leftOut = typeof scope === 'string' ? [] : scope.without;
        const [here, there] = catalogs.map((catalog) => only(catalog, name, leftOut));
        const problems = [
          ...(typeof scope === 'string' ? [scope] : []),
          ...tableProblems(here!, there!, topology.tables, config.source.flavour !== config.target.flavour),
          ...needed.missing,
        ];
        planned.push({
          store: links[0]!.store,
          table: name,
          links: needed.links.map((link) => formatLinkId(link)),
          estimatedRows: estimates.get(name) ?? 0,
          obstacle: problems.length === 0 ? null : problems.join('; '),
        });
      }
      return planned;
    } finally {
      target.destroy();
    }
  } finally {
    source.destroy();
  }
}

function only(catalog: Catalog, name: string, leftOut: readonly string[]): Catalog {
  const table = catalog.get(name);
  return new Map(table === undefined ? [] : [[name, without(table, leftOut)]]);
}

/** Whether a table can have rows of these units. */
export function mayHold(routing: TableRouting, units: readonly UnitId[]): boolean {
  if ('unrouted' in routing) return false;
  if ('central' in routing) return units.includes(centralUnit(routing.central));
  return units.some(isOfUsers);
}

function isOfUsers(unit: UnitId): boolean {
  return parseUnit(unit)?.kind !== 'central';
}

/** The links that carry changes of a table: from each DC that owns units whose rows it may have; from both when nobody owns its rows. */
function neededLinks(
  routing: TableRouting,
  rules: Rules,
  links: readonly WantedMysqlLink[],
  scope: readonly UnitId[] | null,
): { links: WantedMysqlLink[]; missing: string[] } {
  if ('unrouted' in routing) return { links: [...links], missing: [] };
  const owners = ownersOf(routing, rules, scope);
  const missing = [...owners]
    .filter((owner) => !links.some(({ from }) => from === owner))
    .map((owner) => `no link carries what ${owner} owns: add the direction to the topology's links`);
  const needed = links.filter(({ from }) => owners.has(from));
  return { links: needed.length > 0 ? needed : [...links], missing };
}

function ownersOf(routing: TableRouting, rules: Rules, scope: readonly UnitId[] | null): Set<DcId> {
  const router = new Router(rules);
  const all = 'central' in routing ? [centralUnit(routing.central)] : unitsOf(rules).filter(isOfUsers);
  const wanted = scope === null ? undefined : new Set(scope);
  const units = all.filter((unit) => wanted === undefined || wanted.has(unit));
  return new Set(units.flatMap((unit) => router.assignmentOf(unit)?.owner ?? []));
}

async function estimatedRows(connection: Connection): Promise<Map<string, number>> {
  // MySQL keeps its statistics for a day; MariaDB does not know the setting.
  await connection.query('SET SESSION information_schema_stats_expiry=0').catch(() => undefined);
  const [found] = await connection.query<RowDataPacket[]>(
    `SELECT CONCAT(table_schema, '.', table_name) AS name, table_rows AS n FROM information_schema.tables WHERE table_rows IS NOT NULL`,
  );
  return new Map((found as { name: string; n: number }[]).map(({ name, n }) => [name, Number(n)]));
}
