import { isIP } from 'node:net';
import { prefixSegments } from '../routing/key.js';
import type { Application, Topology } from './schema.js';
import { TableFilter } from './table-filter.js';

/** One problem of a topology: where, what is there, what was expected. */
export interface Problem {
  path: string;
  value: string;
  expected: string;
}

/** What the schema alone cannot say: the names that a topology uses must exist, and what must differ must differ. */
export function crossReferenceProblems(topology: Topology): Problem[] {
  const problems: Problem[] = [];
  const report = (path: string, value: unknown, expected: string): void => {
    problems.push({ path, value: typeof value === 'string' ? value : JSON.stringify(value), expected });
  };
  const dcs = Object.keys(topology.datacenters);
  if (dcs.length < 2) {
    report('datacenters', dcs.join(', ') || '(none)', 'expected exactly two data centers');
  } else if (dcs.length > 2) {
    const extra = dcs.slice(2).join(', ');
    report(
      'datacenters',
      dcs.join(', '),
      `expected exactly two data centers; a third (${extra}) is not supported`,
    );
  }
  checkHomes(topology, dcs, report);
  checkSegments(topology, report);
  checkStores(topology, dcs, report);
  checkEndpoints(topology, dcs, report);
  checkLinks(topology, dcs, report);
  checkInverse(topology, dcs, report);
  checkLatest(topology, dcs, report);
  checkApplications(topology, dcs, report);
  for (const [table, routing] of Object.entries(topology.tables)) {
    if ('central' in routing && !Object.hasOwn(topology.central, routing.central)) {
      report(`tables.${table}.central`, routing.central, `expected ${oneOf(topology.central)}`);
    }
  }
  return problems;
}

type Report = (path: string, value: unknown, expected: string) => void;

function oneOf(record: Readonly<Record<string, unknown>>): string {
  const names = Object.keys(record);
  return names.length === 0 ? 'a declared name; none is declared' : `one of ${names.join(', ')}`;
}

function checkHomes(topology: Topology, dcs: string[], report: Report): void {
  for (const kind of ['regions', 'segments', 'central'] as const) {
    for (const [name, { home }] of Object.entries(topology[kind])) {
      if (!dcs.includes(home)) {
        report(`${kind}.${name}.home`, home, `expected a data center: one of ${dcs.join(', ')}`);
      }
    }
  }
  if (!Object.hasOwn(topology.regions, topology.defaultRegion)) {
    report('defaultRegion', topology.defaultRegion, `expected a region: ${oneOf(topology.regions)}`);
  }
}

function checkSegments(topology: Topology, report: Report): void {
  const segmentOf = new Map<string, string>();
  for (const [name, { members }] of Object.entries(topology.segments)) {
    members.forEach((member, i) => {
      const before = segmentOf.get(member);
      if (before !== undefined) {
        const where = before === name ? 'twice in this segment' : `already a member of segment ${before}`;
        report(
          `segments.${name}.members.${i}`,
          member,
          `expected a user of this segment only; it is ${where}`,
        );
      } else segmentOf.set(member, name);
    });
  }
}

function checkStores(topology: Topology, dcs: string[], report: Report): void {
  const controls: { dc: string; store: string }[] = [];
  const addresses = new Map<string, string>();
  for (const dc of dcs) {
    const stores = Object.entries(topology.datacenters[dc]!.stores.mysql);
    const control = stores.filter(([, store]) => store.control).map(([name]) => name);
    if (control.length === 1) controls.push({ dc, store: control[0]! });
    else {
      report(
        `datacenters.${dc}.stores.mysql`,
        control.length === 0 ? '(no control store)' : control.join(', '),
        'expected exactly one store with control: true',
      );
    }
    for (const [name, store] of stores) {
      const address = `${store.host}:${store.port}`;
      const path = `datacenters.${dc}.stores.mysql.${name}`;
      if (store.tls !== undefined && isIP(store.tls.serverName ?? store.host) !== 0) {
        report(
          `${path}.tls.serverName`,
          store.tls.serverName ?? '(missing)',
          `expected the name in the certificate of ${address}: a name is checked, not an address`,
        );
      }
      const other = addresses.get(address);
      // Two stores on one server would share one `interlock` schema: fencing one would fence the other.
      if (other !== undefined)
        report(path, address, `expected a server of its own; ${other} has this address`);
      else addresses.set(address, path);
    }
  }
  const [first, second] = controls;
  if (first && second && first.store !== second.store) {
    report(
      `datacenters.${second.dc}.stores.mysql`,
      second.store,
      `expected the control store to have the same name in both data centers; it is ${first.store} in ${first.dc}`,
    );
  }
}

function checkEndpoints(topology: Topology, dcs: string[], report: Report): void {
  const queues = new Map([[topology.temporal.controlTaskQueue, 'temporal.controlTaskQueue']]);
  const urls = new Map<string, string>();
  const distinct = (map: Map<string, string>, path: string, value: string, what: string): void => {
    const other = map.get(value);
    if (other !== undefined) report(path, value, `expected ${what} of its own; ${other} is the same`);
    else map.set(value, path);
  };
  for (const dc of dcs) {
    const { taskQueue, gateways, ruleCenter } = topology.datacenters[dc]!;
    distinct(queues, `datacenters.${dc}.taskQueue`, taskQueue, 'a task queue');
    distinct(urls, `datacenters.${dc}.ruleCenter.url`, origin(ruleCenter.url), 'an address');
    if (Object.keys(gateways).length === 0) {
      report(`datacenters.${dc}.gateways`, '(none)', 'expected at least one gateway');
    }
    for (const [name, gateway] of Object.entries(gateways)) {
      const path = `datacenters.${dc}.gateways.${name}`;
      distinct(urls, `${path}.url`, origin(gateway.url), 'an address');
      if (origin(gateway.admin) !== origin(gateway.url)) {
        distinct(urls, `${path}.admin`, origin(gateway.admin), 'an address');
      }
    }
  }
}

function origin(url: string): string {
  return new URL(url).origin;
}

function checkLinks(topology: Topology, dcs: string[], report: Report): void {
  const wanted = new Map<string, string>();
  topology.links.forEach((link, i) => {
    const store = link.store.slice('mysql/'.length);
    for (const dc of dcs) {
      const stores = topology.datacenters[dc]!.stores.mysql;
      if (!Object.hasOwn(stores, store)) {
        report(
          `links.${i}.store`,
          link.store,
          `expected a store of both data centers; ${dc} has no mysql/${store}`,
        );
      }
    }
    for (const end of ['from', 'to'] as const) {
      const dc = link[end];
      if (dc !== undefined && !dcs.includes(dc)) {
        report(`links.${i}.${end}`, dc, `expected a data center: one of ${dcs.join(', ')}`);
      }
    }
    checkCarried(topology, link, `links.${i}`, report);
    if (link.from !== undefined && link.from === link.to) {
      report(`links.${i}.to`, link.to, 'expected another data center than from');
    }
    for (const [name, policy] of Object.entries(link.conflicts)) {
      const at = `links.${i}.conflicts.${name}`;
      const routing = topology.tables[name];
      if (routing === undefined) report(at, name, `expected a table of tables: ${oneOf(topology.tables)}`);
      else if ('unrouted' in routing && policy === 'owner-wins')
        report(at, policy, 'expected another policy: an unrouted table has no owner');
      if (
        (policy === 'source-wins' || policy === 'target-wins') &&
        link.from === undefined &&
        link.to === undefined
      )
        report(
          at,
          policy,
          'expected a link with from and to: both ways, the two sides would swap their rows or keep each its own',
        );
    }
    for (const from of dcs) {
      if ((link.from ?? from) !== from || link.to === from) continue;
      const id = `${link.store} from ${from}`;
      const other = wanted.get(id);
      if (other !== undefined) report(`links.${i}`, id, `expected each direction once; ${other} is the same`);
      else wanted.set(id, `links.${i}`);
    }
  });
}

/** What of its tables a link carries, and to where. */
function checkCarried(topology: Topology, link: LinkSpec, at: string, report: Report): void {
  const { rows = {}, columns = {}, rename = {} } = link;
  for (const [field, names] of Object.entries({ rows, columns, rename })) {
    for (const name of Object.keys(names)) {
      if (!carries(link, name))
        report(`${at}.${field}.${name}`, name, 'expected a table that the link carries (include, exclude)');
    }
  }
  for (const [name, { without }] of Object.entries(columns)) {
    const routing = topology.tables[name];
    const routed = routing !== undefined && 'userId' in routing ? [routing.userId, routing.region] : [];
    without.forEach((column, i) => {
      const same = (other: string | undefined): boolean => other?.toLowerCase() === column.toLowerCase();
      const path = `${at}.columns.${name}.without.${i}`;
      if (routed.some(same)) report(path, column, 'expected no routing column: rows are routed by it');
      else if (same(rows[name]?.column))
        report(path, column, `expected no column by which ${at}.rows.${name} filters`);
    });
  }
  const taken = new Map<string, string>();
  for (const [source, target] of Object.entries(rename)) {
    const path = `${at}.rename.${source}`;
    const other =
      taken.get(target) ?? (!Object.hasOwn(rename, target) && carries(link, target) ? target : undefined);
    if (other !== undefined)
      report(path, target, `expected one table for each; ${other} is carried there, too`);
    taken.set(target, source);
    if (/^(interlock|mysql|sys|information_schema|performance_schema)\./i.test(target))
      report(path, target, 'expected a table of an application');
    const [from, to] = [topology.tables[source], topology.tables[target]];
    if (JSON.stringify(from) !== JSON.stringify(to)) {
      report(path, target, `expected both names in \`tables\`, routed in the same way`);
    }
  }
}

/** Hazard: a row that comes back under another name is another row. The way back has to undo what the way there does. */
function checkInverse(topology: Topology, dcs: string[], report: Report): void {
  topology.links.forEach((link, i) => {
    for (const [source, target] of Object.entries(link.rename ?? {})) {
      for (const from of dcs) {
        const to = dcs.find((dc) => dc !== from);
        if (to === undefined || !goes(link, from, to)) continue;
        const back = topology.links.findIndex(
          (one) => one.store === link.store && goes(one, to, from) && (one === link || carries(one, target)),
        );
        if (back < 0) continue;
        const undone = topology.links[back]!.rename?.[target];
        if (undone === source) continue;
        report(
          `links.${i}.rename.${source}`,
          target,
          `expected links.${back}.rename.${target}: ${source}, which undoes it on the way from ${to} to ${from}; or name from and to`,
        );
        return;
      }
    }
  });
}

/** Hazard: where the two directions decide by other columns, each side keeps its own row. */
function checkLatest(topology: Topology, dcs: string[], report: Report): void {
  const columnOf = (link: LinkSpec, table: string): string | undefined => {
    const policy = link.conflicts[table];
    return typeof policy === 'object' ? policy.latest.toLowerCase() : undefined;
  };
  topology.links.forEach((link, i) => {
    for (const [source, policy] of Object.entries(link.conflicts)) {
      if (typeof policy !== 'object') continue;
      const target = link.rename?.[source] ?? source;
      for (const from of dcs) {
        const to = dcs.find((dc) => dc !== from);
        if (to === undefined || !goes(link, from, to)) continue;
        const back = topology.links.findIndex(
          (one) => one.store === link.store && goes(one, to, from) && carries(one, target),
        );
        if (back < 0) continue;
        const other = columnOf(topology.links[back]!, target);
        // Of two that differ, the first one says it.
        if (other === policy.latest.toLowerCase() || (other !== undefined && back < i)) continue;
        report(
          `links.${i}.conflicts.${source}`,
          policy,
          `expected links.${back}.conflicts.${target}: { latest: ${policy.latest} }, too: both directions decide by one column`,
        );
        return;
      }
    }
  });
}

type LinkSpec = Topology['links'][number];

function carries({ include, exclude }: LinkSpec, table: string): boolean {
  return new TableFilter(include, exclude).has(table);
}

function goes({ from, to }: LinkSpec, a: string, b: string): boolean {
  return (from ?? a) === a && (to ?? b) === b;
}

function checkApplications(topology: Topology, dcs: string[], report: Report): void {
  const paths = new Map<string, string>();
  for (const [name, application] of Object.entries(topology.applications)) {
    application.paths.forEach((path, i) => {
      const key = prefixSegments(path).join('/');
      const other = paths.get(key);
      if (other !== undefined) {
        report(`applications.${name}.paths.${i}`, path, `expected one application per path; ${other} has it`);
      } else paths.set(key, name);
    });
    for (const [path, unit] of Object.entries(application.central)) {
      const central = unit.slice('central:'.length);
      if (!Object.hasOwn(topology.central, central)) {
        report(
          `applications.${name}.central.${path}`,
          unit,
          `expected central:<name>, ${oneOf(topology.central)}`,
        );
      }
      if (!application.paths.some((prefix) => underPrefix(path, prefix))) {
        report(
          `applications.${name}.central.${path}`,
          path,
          `expected a path below the application's paths (${application.paths.join(', ')}); no request would match`,
        );
      }
    }
    checkPathTemplates(name, application, report);
    for (const dc of dcs) {
      if (!Object.hasOwn(topology.datacenters[dc]!.applications, name)) {
        report(`datacenters.${dc}.applications`, `(no ${name})`, `expected the id and instances of ${name}`);
      }
    }
  }
  for (const dc of dcs) {
    for (const name of Object.keys(topology.datacenters[dc]!.applications)) {
      if (!Object.hasOwn(topology.applications, name)) {
        report(`datacenters.${dc}.applications.${name}`, name, `expected ${oneOf(topology.applications)}`);
      }
    }
  }
}

function underPrefix(path: string, prefix: string): boolean {
  const segments = prefixSegments(path);
  return prefixSegments(prefix).every((segment, i) => segments[i] === segment);
}

function checkPathTemplates(name: string, application: Application, report: Report): void {
  for (const part of ['userId', 'region'] as const) {
    application.routingKey[part].forEach((source, i) => {
      if (!('path' in source)) return;
      const at = `applications.${name}.routingKey.${part}.${i}.path`;
      const segments = prefixSegments(source.path);
      if (segments.filter((segment) => segment === `:${part}`).length !== 1) {
        report(at, source.path, `expected exactly one segment :${part}`);
      }
      if (
        segments.some((segment, j) => segment.includes('*') && (segment !== '*' || j !== segments.length - 1))
      ) {
        report(at, source.path, 'expected * only as the last segment');
      }
    });
  }
}
