import { Context } from '@temporalio/activity';
import type { Connection, RowDataPacket } from 'mysql2/promise';
import { formatLinkId } from '../replicators/core/contract.js';
import { TableFilter } from '../replicators/core/table-filter.js';
import type { TableProgress } from '../replicators/core/verification.js';
import { readCatalog } from '../replicators/mysql/catalog.js';
import { linkConfigOf } from '../replicators/mysql/configure.js';
import { tableProblems } from '../replicators/mysql/preflight.js';
import { connect } from '../replicators/mysql/session.js';
import { verifyTable } from '../replicators/mysql/verify/verifier.js';
import { InterlockError, messageOf } from '../src/errors.js';
import { newest } from '../src/fence/init.js';
import { parseScope, scopeUnits } from '../src/routing/scope.js';
import type { Rules } from '../src/routing/rules.js';
import { Router, unitsOf } from '../src/routing/rules.js';
import { centralUnit } from '../src/routing/units.js';
import type { UnitId } from '../src/routing/units.js';
import { wantedLinks } from '../src/topology/derive.js';
import type { WantedLink } from '../src/topology/derive.js';
import type { SecretReference, TableRouting } from '../src/topology/schema.js';
import type {
  PlannedTable,
  VerificationActivities,
  VerifyPlan,
  VerifyReport,
  VerifyRequest,
} from '../workflows/verification-contract.js';
import type { ControlDeps } from './dependencies.js';
import { allOrForemost, withFailures } from './failures.js';

export interface VerificationDeps extends Pick<ControlDeps, 'topology' | 'stores' | 'readLinkStatus'> {
  secret: (reference: SecretReference) => string;
}

/** The workflow is told how far a table is at least this often. */
const SLICE_MS = 10_000;
const BEAT_MS = 1_000;

/** The activities of verifications; on the control task queue. They reach both DCs. */
export function createVerificationActivities(deps: VerificationDeps): VerificationActivities {
  return withFailures<VerificationActivities>({
    planVerification: (request) => plan(deps, request),

    async compareTable({ table, links, units, repair, keep, progress }) {
      const context = Context.current();
      let last = (context.info.heartbeatDetails as TableProgress | undefined) ?? progress;
      context.heartbeat(last);
      const beat = setInterval(() => context.heartbeat(last), BEAT_MS);
      try {
        // Cancelled or shut down, it answers how far it is: another slice goes on from there, here or elsewhere.
        return await verifyTable(
          {
            table,
            links: links.map((link) => linkConfigOf(deps.topology, link, deps.secret)),
            rules: () => rulesInForce(deps),
            linkStatus: deps.readLinkStatus,
            ...(units !== null && { units: new Set(units) }),
            repairs: repair,
            keep,
            onProgress: (now) => {
              last = now;
              context.heartbeat(now);
            },
            signal: context.cancellationSignal,
          },
          last,
          SLICE_MS,
        );
      } finally {
        clearInterval(beat);
      }
    },

    async recordVerification(report) {
      const all = [...deps.stores.values()];
      const kept = await Promise.allSettled(all.map((dc) => keepReport(dc.control.pool, report)));
      if (kept.some(({ status }) => status === 'fulfilled')) return;
      const reasons = kept.map((one) => (one.status === 'rejected' ? messageOf(one.reason) : ''));
      throw new InterlockError('Unavailable', `no control store took the report: ${reasons.join('; ')}`, {
        retryable: true,
      });
    },
  });
}

async function rulesInForce(deps: VerificationDeps): Promise<Rules> {
  const stored = newest(await allOrForemost([...deps.stores.values()].map((dc) => dc.rules.current())));
  if (stored === undefined)
    throw new InterlockError('NoRules', 'there are no rules yet: run `interlock rules init`');
  return stored.rules;
}

async function plan(deps: VerificationDeps, request: VerifyRequest): Promise<VerifyPlan> {
  const rules = await rulesInForce(deps);
  const units = request.scope === null ? null : scopeUnits(rules, parseScope(request.scope));
  const tables: PlannedTable[] = [];
  for (const links of linkPairs(wantedLinks(deps.topology)))
    tables.push(...(await tablesOf(deps, request, rules, links, units)));
  if (tables.length === 0) {
    throw new InterlockError(
      'BadInput',
      request.tables.length > 0
        ? `--tables: no table of ${request.tables.join(', ')} is there, declared in the topology and carried by a link`
        : `no table to compare${request.scope === null ? ': the topology has no link, or no table of one is there' : ` has rows of ${request.scope}`}`,
      { details: { field: request.tables.length > 0 ? '--tables' : '--scope' } },
    );
  }
  return { tables, units };
}

/** Links of one entry of the topology: the two directions, or the one that is wanted. */
function linkPairs(links: readonly WantedLink[]): WantedLink[][] {
  const pairs = new Map<string, WantedLink[]>();
  for (const link of links) {
    const id = JSON.stringify([link.store, link.include, link.exclude]);
    pairs.set(id, [...(pairs.get(id) ?? []), link]);
  }
  return [...pairs.values()];
}

async function tablesOf(
  deps: VerificationDeps,
  request: VerifyRequest,
  rules: Rules,
  links: readonly WantedLink[],
  units: readonly UnitId[] | null,
): Promise<PlannedTable[]> {
  const { topology } = deps;
  const [first] = links;
  const config = linkConfigOf(topology, formatLinkId(first!), deps.secret);
  const carried = new TableFilter(first!.include, first!.exclude);
  const chosen = new TableFilter(request.tables.length === 0 ? ['*.*'] : request.tables, []);
  const source = await connect(config.source);
  try {
    const target = await connect(config.target);
    try {
      const catalogs = [await readCatalog(source, carried), await readCatalog(target, carried)] as const;
      const estimates = await estimatedRows(source);
      const names = Object.keys(topology.tables).filter((name) => {
        const [schema, table] = name.split('.') as [string, string];
        return chosen.carries(schema, table) && catalogs.some((catalog) => catalog.has(name));
      });
      return names
        .filter((name) => units === null || mayHold(topology.tables[name]!, units))
        .map((name) => {
          const only = catalogs.map((catalog) => new Map([...catalog].filter(([one]) => one === name)));
          const needed = neededLinks(topology.tables[name]!, rules, links, units);
          const problems = [...tableProblems(only[0]!, only[1]!, topology.tables), ...needed.missing];
          return {
            store: first!.store,
            table: name,
            links: needed.links.map((link) => formatLinkId(link)),
            estimatedRows: estimates.get(name) ?? 0,
            obstacle: problems.length === 0 ? null : problems.join('; '),
          };
        });
    } finally {
      target.destroy();
    }
  } finally {
    source.destroy();
  }
}

/** Whether a table can have rows of these units. */
function mayHold(routing: TableRouting, units: readonly UnitId[]): boolean {
  if ('unrouted' in routing) return false;
  if ('central' in routing) return units.includes(centralUnit(routing.central));
  return units.some((unit) => !unit.startsWith('central:'));
}

/** The links that carry changes of a table: from each DC that owns units whose rows it may have, and from both when nobody owns them. */
function neededLinks(
  routing: TableRouting,
  rules: Rules,
  links: readonly WantedLink[],
  scope: readonly UnitId[] | null,
): { links: WantedLink[]; missing: string[] } {
  const unowned = 'unrouted' in routing;
  const owners = unowned ? new Set(links.map(({ from }) => from)) : ownersOf(routing, rules, scope);
  const missing = [...owners]
    .filter((owner) => !links.some(({ from }) => from === owner))
    .map((owner) => `no link carries what ${owner} owns: add the direction to the topology's links`);
  const wanted = links.filter(({ from }) => owners.has(from));
  return { links: wanted.length > 0 ? wanted : [...links], missing };
}

function ownersOf(routing: TableRouting, rules: Rules, scope: readonly UnitId[] | null): Set<string> {
  const router = new Router(rules);
  const all =
    'central' in routing
      ? [centralUnit(routing.central)]
      : unitsOf(rules).filter((unit) => !unit.startsWith('central:'));
  const units = scope === null ? all : all.filter((unit) => scope.includes(unit));
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

async function keepReport(pool: Pick<Connection, 'query'>, report: VerifyReport): Promise<void> {
  await pool.query(
    `INSERT INTO interlock.verification (run_id, document, created_at) VALUES (?, ?, UTC_TIMESTAMP(6))
     ON DUPLICATE KEY UPDATE document = VALUES(document)`,
    [report.runId, JSON.stringify(report)],
  );
}
