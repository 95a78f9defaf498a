import { storeName } from './derive.js';
import { TableFilter } from './table-filter.js';
import { oneOf } from './problems.js';
import type { Report } from './problems.js';
import type { MysqlLinkSpec, PairLinkSpec, Topology } from './schema.js';

/** The links of a topology: their stores, directions, and what they carry. */
export function checkLinks(topology: Topology, dcs: string[], report: Report): void {
  checkInverse(topology, dcs, report);
  checkLatest(topology, dcs, report);
  checkOutboxes(topology, dcs, report);
  const wanted = new Map<string, string>();
  topology.links.forEach((link, i) => {
    if (link.kind === 'outbox') return;
    for (const dc of dcs) {
      const stores = topology.datacenters[dc]!.stores[link.kind];
      if (!Object.hasOwn(stores, storeName(link))) {
        report(
          `links.${i}.store`,
          link.store,
          `expected a store of both data centers; ${dc} has no ${link.store}`,
        );
      }
    }
    for (const end of ['from', 'to'] as const) {
      const dc = link[end];
      if (dc !== undefined && !dcs.includes(dc)) {
        report(`links.${i}.${end}`, dc, `expected a data center: one of ${dcs.join(', ')}`);
      }
    }
    if (link.kind === 'mysql') checkCarried(topology, link, `links.${i}`, report);
    if (link.from !== undefined && link.from === link.to) {
      report(`links.${i}.to`, link.to, 'expected another data center than from');
    }
    if (link.kind === 'mysql') checkConflicts(topology, link, `links.${i}`, report);
    if (link.kind === 'redis' && link.conflicts === 'source-wins' && !oneWay(link))
      report(
        `links.${i}.conflicts`,
        link.conflicts,
        'expected a link with from and to: both ways, the two sides would swap their values',
      );
    for (const from of dcs) {
      if ((link.from ?? from) !== from || link.to === from) continue;
      const id = `${link.store} from ${from}`;
      const other = wanted.get(id);
      if (other !== undefined) report(`links.${i}`, id, `expected each direction once; ${other} is the same`);
      else wanted.set(id, `links.${i}`);
    }
  });
}

/** Hazard: two relays of one table would send each of its events twice. */
function checkOutboxes(topology: Topology, dcs: string[], report: Report): void {
  const tables = new Map<string, string>();
  const stores = new Map<string, string>();
  topology.links.forEach((link, i) => {
    if (link.kind !== 'outbox') return;
    const at = `links.${i}`;
    for (const dc of dcs) {
      const { mysql, kafka } = topology.datacenters[dc]!.stores;
      if (!Object.hasOwn(mysql, storeName(link)))
        report(
          `${at}.store`,
          link.store,
          `expected a MySQL store of both data centers; ${dc} has no mysql/${storeName(link)}`,
        );
      if (!Object.hasOwn(kafka, link.kafka))
        report(
          `${at}.kafka`,
          link.kafka,
          `expected a Kafka store of both data centers; ${dc} has no kafka/${link.kafka}`,
        );
    }
    const same = stores.get(link.store);
    if (same !== undefined) report(at, link.store, `expected one relay for a store; ${same} is the same`);
    stores.set(link.store, at);
    link.tables.forEach((table, j) => {
      const path = `${at}.tables.${j}`;
      const routing = topology.tables[table];
      if (routing === undefined || 'unrouted' in routing)
        report(
          path,
          table,
          `expected a table of tables, routed by user or central: its events are fenced with it`,
        );
      const other = tables.get(`${link.store} ${table}`);
      if (other !== undefined) report(path, table, `expected each table once; ${other} has it`);
      tables.set(`${link.store} ${table}`, path);
    });
  });
}

function oneWay({ from, to }: PairLinkSpec): boolean {
  return from !== undefined || to !== undefined;
}

function checkConflicts(topology: Topology, link: MysqlLinkSpec, at: string, report: Report): void {
  for (const [name, policy] of Object.entries(link.conflicts)) {
    const path = `${at}.conflicts.${name}`;
    const routing = topology.tables[name];
    if (routing === undefined) report(path, name, `expected a table of tables: ${oneOf(topology.tables)}`);
    else if ('unrouted' in routing && policy === 'owner-wins')
      report(path, policy, 'expected another policy: an unrouted table has no owner');
    if ((policy === 'source-wins' || policy === 'target-wins') && !oneWay(link))
      report(
        path,
        policy,
        'expected a link with from and to: both ways, the two sides would swap their rows or keep each its own',
      );
  }
}

/** What of its tables a link carries, and to where. */
function checkCarried(topology: Topology, link: MysqlLinkSpec, at: string, report: Report): void {
  const { rows = {}, columns = {}, rename = {} } = link;
  for (const [field, names] of Object.entries({ rows, columns, rename })) {
    for (const name of Object.keys(names)) {
      if (!carries(link, name))
        report(`${at}.${field}.${name}`, name, 'expected a table that the link carries (include, exclude)');
    }
  }
  // Hazard: a switch moves a unit with all of its rows; one that the link has left out would be gone behind it.
  for (const name of Object.keys(rows)) {
    const routing = topology.tables[name];
    if (routing !== undefined && !('unrouted' in routing))
      report(
        `${at}.rows.${name}`,
        name,
        'expected an unrouted table: a switchover moves all rows of a routed one, and those that are left out would be lost',
      );
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
    if (link.kind !== 'mysql') return;
    for (const [source, target] of Object.entries(link.rename ?? {})) {
      for (const from of dcs) {
        const to = dcs.find((dc) => dc !== from);
        if (to === undefined || !goes(link, from, to)) continue;
        const back = topology.links.findIndex(
          (one) =>
            one.kind === 'mysql' &&
            one.store === link.store &&
            goes(one, to, from) &&
            (one === link || carries(one, target)),
        );
        if (back < 0) continue;
        const undone = (topology.links[back] as MysqlLinkSpec).rename?.[target];
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
  const columnOf = (link: MysqlLinkSpec, table: string): string | undefined => {
    const policy = link.conflicts[table];
    return typeof policy === 'object' ? policy.latest.toLowerCase() : undefined;
  };
  topology.links.forEach((link, i) => {
    if (link.kind !== 'mysql') return;
    for (const [source, policy] of Object.entries(link.conflicts)) {
      if (typeof policy !== 'object') continue;
      const target = link.rename?.[source] ?? source;
      for (const from of dcs) {
        const to = dcs.find((dc) => dc !== from);
        if (to === undefined || !goes(link, from, to)) continue;
        const back = topology.links.findIndex(
          (one) =>
            one.kind === 'mysql' && one.store === link.store && goes(one, to, from) && carries(one, target),
        );
        if (back < 0) continue;
        const other = columnOf(topology.links[back] as MysqlLinkSpec, target);
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

function goes({ from, to }: PairLinkSpec, a: string, b: string): boolean {
  return (from ?? a) === a && (to ?? b) === b;
}

function carries({ include, exclude }: MysqlLinkSpec, table: string): boolean {
  return new TableFilter(include, exclude).has(table);
}
