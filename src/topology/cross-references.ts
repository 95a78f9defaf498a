import { isIP } from 'node:net';
import { prefixSegments } from '../routing/key.js';
import { patternProblem } from '../routing/redis-keys.js';
import { checkLinks } from './link-references.js';
import { oneOf } from './problems.js';
import type { Problem, Report } from './problems.js';
import type { Application, Tls, Topology } from './schema.js';

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
  checkKeys(topology, report);
  checkApplications(topology, dcs, report);
  for (const [table, routing] of Object.entries(topology.tables)) {
    if ('central' in routing && !Object.hasOwn(topology.central, routing.central)) {
      report(`tables.${table}.central`, routing.central, `expected ${oneOf(topology.central)}`);
    }
  }
  return problems;
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
    const control = Object.entries(topology.datacenters[dc]!.stores.mysql)
      .filter(([, store]) => store.control)
      .map(([name]) => name);
    if (control.length === 1) controls.push({ dc, store: control[0]! });
    else {
      report(
        `datacenters.${dc}.stores.mysql`,
        control.length === 0 ? '(no control store)' : control.join(', '),
        'expected exactly one store with control: true',
      );
    }
    const { mysql, redis, kafka } = topology.datacenters[dc]!.stores;
    const servers = [
      ...Object.entries(mysql).map(([name, store]) => [`mysql.${name}`, store] as const),
      ...Object.entries(redis).map(([name, store]) => [`redis.${name}`, store] as const),
    ];
    const one = (path: string, address: string): void => {
      const other = addresses.get(address);
      // Two stores on one server would share its fence: fencing one would fence the other.
      if (other !== undefined)
        report(path, address, `expected a server of its own; ${other} has this address`);
      else addresses.set(address, path);
    };
    for (const [name, store] of servers) {
      const path = `datacenters.${dc}.stores.${name}`;
      const address = `${store.host}:${store.port}`;
      checkTls(path, store.tls, store.host, address, report);
      one(path, address);
    }
    for (const [name, { brokers, tls }] of Object.entries(kafka)) {
      const path = `datacenters.${dc}.stores.kafka.${name}`;
      brokers.forEach((address, i) => {
        checkTls(path, tls, address.replace(/:\d+$/, ''), address, report);
        one(`${path}.brokers.${i}`, address);
      });
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

function checkTls(path: string, tls: Tls | undefined, host: string, address: string, report: Report): void {
  if (tls === undefined || isIP(tls.serverName ?? host) === 0) return;
  report(
    `${path}.tls.serverName`,
    tls.serverName ?? '(missing)',
    `expected the name in the certificate of ${address}: a name is checked, not an address`,
  );
}

function checkKeys(topology: Topology, report: Report): void {
  const seen = new Set<string>();
  topology.keys.forEach((routing, i) => {
    const { pattern } = routing;
    const problem = patternProblem(routing);
    if (problem !== undefined) report(`keys.${i}.pattern`, pattern, problem);
    if (seen.has(pattern))
      report(`keys.${i}.pattern`, pattern, 'expected each pattern once; the first counts');
    seen.add(pattern);
    if ('central' in routing && !Object.hasOwn(topology.central, routing.central))
      report(`keys.${i}.central`, routing.central, `expected ${oneOf(topology.central)}`);
  });
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
