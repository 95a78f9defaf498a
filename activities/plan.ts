import type { RowDataPacket } from 'mysql2/promise';
import { formatLinkId } from '../replicators/core/contract.js';
import { InterlockError } from '../src/errors.js';
import type { DcStores } from '../src/fence/connect.js';
import { newest } from '../src/fence/init.js';
import { canonicalJson, sha256 } from '../src/routing/hash.js';
import { renderDiff, switchRules } from '../src/routing/plan.js';
import { parseScope, unitsOfScope } from '../src/routing/scope.js';
import { wantedLinks } from '../src/topology/derive.js';
import type { Topology } from '../src/topology/schema.js';
import type { Check, PlanLink, SwitchPlan, SwitchReport, SwitchRequest } from '../workflows/contract.js';
import type { ControlDeps } from './dependencies.js';
import { planLink, relaysOf, storeOf } from './links.js';
import { checkVerified } from './verified.js';

/** Round trips within the fenced window that a distance between the DCs adds: hold, re-check of the source, route. */
const WINDOW_ROUND_TRIPS = 3;
/** Without a report yet: fence, marker, drain and switch on one machine. */
const WINDOW_FLOOR_MS = 30;
const REPORTS = 5;

/**
 * Step 1: what moves, over which links, and what it would take. Changes nothing.
 * Errors: BadInput (scope, DCs), NoRules, EpochConflict (the DCs' rules differ), Refused (no link), Unavailable.
 */
export async function makePlan(deps: ControlDeps, request: SwitchRequest): Promise<SwitchPlan> {
  const { from, to, policies } = request;
  const source = storesOf(deps, from, 'from');
  const target = storesOf(deps, to, 'to');
  if (from === to)
    throw new InterlockError('BadInput', `from and to are both ${from}`, { details: { field: 'to' } });
  const scope = parseScope(request.scope);
  const found = await Promise.all(
    [...deps.stores.values()].map(async (dc) => ({ dc: dc.dc, stored: await dc.rules.current() })),
  );
  const current = newest(found.map(({ stored }) => stored));
  if (current === undefined)
    throw new InterlockError('NoRules', 'there are no rules yet: run `interlock rules init`');
  const { rules, hash: baseHash } = current;
  const units = [...(request.units ?? unitsOfScope(rules, scope, from))].sort();
  const diff = renderDiff(rules, switchRules(rules, units, to, rules.epoch + 1, ''));
  const behind = found.filter(({ stored }) => stored?.rules.epoch !== rules.epoch);
  const checks: Check[] = [
    {
      name: 'rules agree',
      ok: behind.length === 0,
      detail:
        behind.length === 0
          ? `epoch ${rules.epoch} in ${found.length} data centers`
          : `${behind.map(({ dc, stored }) => `${dc} has epoch ${stored?.rules.epoch ?? 'none'}`).join(', ')}, epoch ${rules.epoch} is in force: run \`interlock fence release\``,
    },
  ];

  const { requireVerifyMs } = policies;
  // The way back is not held up: what it moves was verified, or moved, a while ago.
  if (requireVerifyMs !== undefined && request.units === undefined) {
    checks.push(
      await checkVerified(
        { topology: deps.topology, stores: deps.stores, from, rules, units },
        requireVerifyMs,
      ),
    );
  }

  const stores = source.all.map(storeOf).sort(mysqlFirst);
  const servers: Record<string, string> = {};
  await Promise.all(
    [from, to].flatMap((dc) =>
      [...deps.stores.get(dc)!.all, ...(deps.kafka.get(dc)?.values() ?? [])].map(async (member) => {
        servers[member.name] = await member.identity();
      }),
    ),
  );
  const wanted = wantedLinks(deps.topology);
  const kafkaStores = [...new Set(wanted.filter(({ kind }) => kind === 'kafka').map(storeOf))].sort();
  const linksOf = async (a: string, b: string): Promise<PlanLink[]> => {
    const ids = wanted.filter((link) => link.from === a && link.to === b).map(formatLinkId);
    return Promise.all(ids.sort().map((link) => planLink(link, deps)));
  };
  const [links, reverseLinks] = await Promise.all([linksOf(from, to), linksOf(to, from)]);
  const relays = await Promise.all(
    [from, to].flatMap((dc) => relaysOf(deps.topology, dc)).map((link) => planLink(link, deps)),
  );
  for (const link of [...links, ...reverseLinks, ...relays]) {
    checks.push({
      name: `link ${link.link}`,
      ok: link.state === 'streaming',
      detail:
        link.state === 'streaming'
          ? `streaming, ${link.lagMs} ms behind`
          : `${link.state}: run \`interlock replicate start '${link.link}'\``,
    });
  }
  for (const store of [...stores, ...kafkaStores]) {
    for (const [a, b, list] of [
      [from, to, links],
      [to, from, reverseLinks],
    ] as const) {
      if (list.some((link) => link.store === store)) continue;
      checks.push({
        name: `link ${store.includes('/') ? store : `mysql/${store}`}:${a}>${b}`,
        ok: false,
        detail: 'the topology wants no such link: what was written would not be at the new owner',
      });
    }
  }

  const topologyHash = logicalTopologyHash(deps.topology);
  const hash = sha256(
    canonicalJson({
      scope: request.scope,
      from,
      to,
      baseEpoch: rules.epoch,
      baseHash,
      units,
      topologyHash,
      servers,
      generations: [...links, ...reverseLinks].map(({ link, generation }) => [link, generation]),
      policies,
    }),
  );
  return {
    hash,
    scope: request.scope,
    from,
    to,
    baseEpoch: rules.epoch,
    baseHash,
    topologyHash,
    units,
    diff,
    stores,
    controlStore: source.control.store,
    servers,
    links,
    reverseLinks,
    checks,
    predictedFenceMs: await predictFenceMs(source, target),
    policies,
    rules,
  };
}

function mysqlFirst(a: string, b: string): number {
  const [left, right] = [a, b].map((name) => `${name.includes('/') ? 1 : 0} ${name}`);
  return left! < right! ? -1 : 1;
}

/** The hash of a topology without addresses and secrets' places: each DC reaches the same parts by other ways. */
export function logicalTopologyHash(topology: Topology): string {
  const withoutPlaces = (value: unknown): unknown => {
    if (Array.isArray(value)) return value.map(withoutPlaces);
    if (value === null || typeof value !== 'object') return value;
    return Object.fromEntries(
      Object.entries(value)
        .filter(([key]) => !PLACES.has(key))
        .map(([key, inner]) => [key, withoutPlaces(inner)]),
    );
  };
  const { temporal, datacenters, ...rest } = topology;
  return sha256(
    canonicalJson({ ...rest, namespace: temporal.namespace, datacenters: withoutPlaces(datacenters) }),
  );
}

const PLACES = new Set([
  ...['host', 'port', 'brokers', 'url', 'admin', 'instances'],
  ...['password', 'token', 'user', 'tls', 'sasl'],
]);

/** The median of recent switchovers; before the first one, an estimate from the distance between the stores. */
async function predictFenceMs(source: DcStores, target: DcStores): Promise<number> {
  const measured = await recentFencedMs(source).catch(() => []);
  if (measured.length > 0)
    return Math.round(measured.sort((a, b) => a - b)[Math.floor(measured.length / 2)]!);
  const rtts = await Promise.all([source, target].map(async (dc) => roundTripMs(dc)));
  return Math.round(WINDOW_FLOOR_MS + WINDOW_ROUND_TRIPS * Math.max(...rtts));
}

async function recentFencedMs(dc: DcStores): Promise<number[]> {
  const [rows] = await dc.control.pool.query<RowDataPacket[]>(
    'SELECT document FROM interlock.report ORDER BY created_at DESC LIMIT ?',
    [REPORTS],
  );
  return rows.flatMap((row) => {
    const report = JSON.parse(String(row['document'])) as SwitchReport;
    return report.flows.flatMap(({ fencedMs }) => (fencedMs === null ? [] : [fencedMs]));
  });
}

async function roundTripMs(dc: DcStores): Promise<number> {
  let best = Infinity;
  for (let i = 0; i < 3; i++) {
    const started = performance.now();
    await dc.control.pool.query('DO 1');
    best = Math.min(best, performance.now() - started);
  }
  return best;
}

function storesOf(deps: ControlDeps, dc: string, field: string): DcStores {
  const stores = deps.stores.get(dc);
  if (stores === undefined) {
    throw new InterlockError(
      'BadInput',
      `${field}: data center ${JSON.stringify(dc)} is not in topology ${deps.topology.name}; expected one of ${[...deps.stores.keys()].join(', ')}`,
      { details: { field, value: dc } },
    );
  }
  return stores;
}
