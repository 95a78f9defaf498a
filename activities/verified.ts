import type { Pool, RowDataPacket } from 'mysql2/promise';
import { TableFilter } from '../src/topology/table-filter.js';
import type { DcStores } from '../src/fence/connect.js';
import type { Rules } from '../src/routing/rules.js';
import { parseScope, scopeUnits } from '../src/routing/scope.js';
import type { DcId, UnitId } from '../src/routing/units.js';
import { wantedMysqlLinks, wantedRedisLinks } from '../src/topology/derive.js';
import type { Topology } from '../src/topology/schema.js';
import type { Check } from '../workflows/contract.js';
import type { VerifiedStore, VerifiedTable, VerifyReport } from '../workflows/verification-contract.js';
import type { Verified } from '../workflows/verification-figures.js';
import { mayHold } from './verification-plan.js';

interface Moved {
  topology: Topology;
  /** Of every DC. */
  stores: ReadonlyMap<DcId, DcStores>;
  from: DcId;
  rules: Rules;
  units: readonly UnitId[];
}

/** Reports are large: so many of the last ones are looked at. */
const REPORTS = 20;

/**
 * Whether every table, and every Redis store, that may have rows or keys of the units was compared, in a verification of all of them that has ended
 * no longer ago than `maxAgeMs` (by the clock of the store that keeps its report), and was equal, or repaired. What a newer one found is not made good by an older one.
 */
export async function checkVerified(moved: Moved, maxAgeMs: number): Promise<Check> {
  const name = 'verification';
  const tables = await touchedTables(moved);
  const redis = touchedStores(moved);
  const reports = await recentReports(moved.stores, maxAgeMs);
  const wrong: string[] = [];
  for (const [table, stores] of tables) {
    for (const store of stores) {
      const of = ({ tables: all }: VerifyReport): VerifiedTable | undefined =>
        all.find((one) => one.store === store && one.table === table);
      const why = whyNot(reports, of, 'rows', moved);
      if (why !== undefined) wrong.push(`${stores.length > 1 ? `mysql/${store} ` : ''}${table} ${why}`);
    }
  }
  const commands =
    wrong.length > 0 ? [`interlock verify mysql --tables ${[...tables.keys()].join(',')}`] : [];
  const wrongTables = wrong.length;
  for (const store of redis) {
    const of = ({ stores: all = [] }: VerifyReport): VerifiedStore | undefined =>
      all.find((one) => one.store === store);
    const why = whyNot(reports, of, 'keys', moved);
    if (why !== undefined) wrong.push(`redis/${store} ${why}`);
  }
  if (wrong.length > wrongTables) commands.push(`interlock verify redis --store ${redis.join(',')}`);
  const age = `${maxAgeMs / 3_600_000} h`;
  if (wrong.length === 0) {
    const stores = redis.length > 0 ? ` and ${redis.length} Redis stores` : '';
    return { name, ok: true, detail: `${tables.size} tables${stores} were found equal in the last ${age}` };
  }
  const run = commands.map((command) => `\`${command}\``).join(' and ');
  return { name, ok: false, detail: `${wrong.join('; ')} (--require-verify, ${age}): run ${run}` };
}

/** Redis stores with a link, where a key may be of the units. */
function touchedStores({ topology, units }: Moved): string[] {
  const mayHoldKeys = topology.keys.some(
    (key) =>
      !('unrouted' in key) && mayHold('central' in key ? { central: key.central } : { userId: '' }, units),
  );
  return mayHoldKeys ? [...new Set(wantedRedisLinks(topology).map(({ store }) => store))] : [];
}

/** Declared tables that may have rows of the units, that a link carries, and the stores of the source that have them. */
async function touchedTables({ topology, stores, from, units }: Moved): Promise<Map<string, string[]>> {
  const links = wantedMysqlLinks(topology);
  const found = new Map<string, string[]>();
  for (const [store, pool] of stores.get(from)!.pools) {
    const filters = links
      .filter((link) => link.store === store)
      .map(({ include, exclude }) => new TableFilter(include, exclude));
    const [rows] = await pool.query<RowDataPacket[]>(
      `SELECT CONCAT(table_schema, '.', table_name) AS name FROM information_schema.tables WHERE table_type = 'BASE TABLE'`,
    );
    const there = new Set(rows.map((row) => String(row['name'])));
    for (const [table, routing] of Object.entries(topology.tables)) {
      if (!there.has(table) || !mayHold(routing, units)) continue;
      if (filters.some((filter) => filter.has(table))) found.set(table, [...(found.get(table) ?? []), store]);
    }
  }
  return found;
}

/** Those of both control stores that are young enough, newest first. */
async function recentReports(stores: ReadonlyMap<DcId, DcStores>, maxAgeMs: number): Promise<VerifyReport[]> {
  const all = await Promise.all([...stores.values()].map((dc) => reportsOf(dc.control.pool, maxAgeMs)));
  const byRun = new Map<string, { ageUs: number; report: VerifyReport }>();
  for (const one of all.flat()) if (!byRun.has(one.report.runId)) byRun.set(one.report.runId, one);
  return [...byRun.values()].sort((a, b) => a.ageUs - b.ageUs).map(({ report }) => report);
}

async function reportsOf(pool: Pool, maxAgeMs: number): Promise<{ ageUs: number; report: VerifyReport }[]> {
  const [rows] = await pool.query<RowDataPacket[]>(
    `SELECT document, TIMESTAMPDIFF(MICROSECOND, created_at, UTC_TIMESTAMP(6)) AS age FROM interlock.verification
     WHERE created_at >= UTC_TIMESTAMP(6) - INTERVAL ? MICROSECOND ORDER BY created_at DESC LIMIT ?`,
    [maxAgeMs * 1000, REPORTS],
  );
  return rows.map((row) => ({
    ageUs: Number(row['age']),
    report: JSON.parse(String(row['document'])) as VerifyReport,
  }));
}

/** Undefined: it was found equal. */
function whyNot(
  reports: readonly VerifyReport[],
  of: (report: VerifyReport) => Verified | undefined,
  what: 'rows' | 'keys',
  { rules, units, topology }: Moved,
): string | undefined {
  let partly: string | undefined;
  for (const report of reports) {
    const { request, runId } = report;
    if (request.topology !== topology.name) continue;
    const compared = of(report);
    if (compared === undefined) continue;
    const bad = badOf(compared, what);
    if (bad !== undefined) return `${bad} in run ${runId}`;
    if (!compared.progress.done || compared.progress.notComparable !== null) {
      partly ??= `was not compared to its end in run ${runId}`;
    } else if (!covers(rules, request.scope, units)) {
      partly ??= `was compared for ${request.scope} only, in run ${runId}`;
    } else if (request.redis !== undefined && request.redis.mode !== 'full') {
      // It did not look at every value.
      partly ??= `was compared in mode ${request.redis.mode} only, in run ${runId}`;
    } else return undefined;
  }
  return partly ?? 'was not verified';
}

function badOf({ progress }: Verified, what: 'rows' | 'keys'): string | undefined {
  const { differing, repaired, undecided, cut } = progress;
  if (differing > repaired || cut) return `had ${differing - repaired} ${what} that differ`;
  return undecided > 0 ? `had ${undecided} ${what} that could not be decided` : undefined;
}

function covers(rules: Rules, scope: string | null, units: readonly UnitId[]): boolean {
  if (scope === null) return true;
  try {
    const compared = new Set(scopeUnits(rules, parseScope(scope)));
    return units.every((unit) => compared.has(unit));
  } catch {
    // It names what the rules do not have any more.
    return false;
  }
}
