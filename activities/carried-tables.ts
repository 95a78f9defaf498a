import type { Pool, RowDataPacket } from 'mysql2/promise';
import { Carried } from '../replicators/mysql/carried.js';
import { readDdlSteps } from '../replicators/mysql/ddl-steps.js';
import { differencesOf } from '../replicators/mysql/drift.js';
import type { Difference } from '../replicators/mysql/drift.js';
import type { DcId } from '../src/routing/units.js';
import { wantedMysqlLinks } from '../src/topology/derive.js';
import type { WantedMysqlLink } from '../src/topology/derive.js';
import type { DatacenterDeps } from './dependencies.js';

type Seen = string | { wrong: string };

/** Every declared table that is here is InnoDB, and carried both ways by links of its store, by the name that it has here; unrouted ones need not be carried. */
export async function checkTables(pool: Pool, deps: DatacenterDeps, store: string): Promise<Seen> {
  const { topology, dc } = deps;
  const declared = Object.entries(topology.tables);
  if (declared.length === 0) return 'none declared';
  const [rows] = await pool.query<RowDataPacket[]>(
    `SELECT CONCAT(table_schema, '.', table_name) AS name, engine AS engine FROM information_schema.tables
     WHERE CONCAT(table_schema, '.', table_name) IN (?)`,
    [declared.map(([name]) => name)],
  );
  const engines = new Map(rows.map((row) => [String(row['name']), String(row['engine'])]));
  const links = linksOf(deps, store);
  const out = links.filter(({ link }) => link.from === dc).map(({ carried }) => carried.sourceFilter);
  const into = links.filter(({ link }) => link.to === dc).map(({ carried }) => carried.targetFilter);
  const wrong: string[] = [];
  let here = 0;
  for (const [name, routing] of declared) {
    const engine = engines.get(name);
    if (engine === undefined) continue;
    here++;
    if (engine !== 'InnoDB') wrong.push(`${name} is ${engine}: ALTER TABLE ${name} ENGINE=InnoDB`);
    if ('unrouted' in routing) continue;
    if (!out.some((filter) => filter.has(name)))
      wrong.push(`${name} is not carried out of ${dc}: no link of mysql/${store} includes it`);
    if (!into.some((filter) => filter.has(name)))
      wrong.push(`${name} is not carried into ${dc}: no link of mysql/${store} includes it`);
  }
  return wrong.length > 0
    ? { wrong: wrong.join('; ') }
    : `${here} of ${declared.length} declared tables are here, InnoDB, carried both ways`;
}

/**
 * Links flow over some differences; what has moved has to find the same tables, and what is written there its way back. Tables are compared as
 * the links of both directions carry them: under the names that they have on each side, without what is left out.
 */
export async function checkDefinitions(deps: DatacenterDeps, store: string): Promise<Seen> {
  const declared = Object.keys(deps.topology.tables);
  const sides = new Map(
    [...deps.stores].map(([dc, stores]) => [dc, stores.fence(store)] as const satisfies [DcId, unknown]),
  );
  const [left, right] = [...sides.keys()] as [DcId, DcId];
  const mixed = sides.get(left)!.flavour !== sides.get(right)!.flavour;
  for (const { pool } of sides.values()) {
    const [change] = (await readDdlSteps(pool)).changing.keys();
    if (change !== undefined)
      return { wrong: `interlock ddl apply changes ${change}: see \`interlock ddl status\`` };
  }
  const found = new Map<string, string[]>();
  const compared = new Set<string>();
  // Hazard: rows move with a switch, and in these columns the new owner has other values.
  const lost = new Set<string>();
  const uncarried = new Set(declared);
  const compare = async (from: DcId, to: DcId, carried: Carried, names: readonly string[]): Promise<void> => {
    const { source, target, apart } = await carried.catalogs(sides.get(from)!.pool, sides.get(to)!.pool);
    for (const { table, column } of apart) {
      const routing = deps.topology.tables[table];
      if (routing !== undefined && !('unrouted' in routing))
        lost.add(`${carried.targetName(table)}.${column} (columns.${table}.without of ${from}>${to})`);
    }
    const differences = new Map<string, string[]>();
    for (const name of names) {
      const there = carried.targetName(name);
      uncarried.delete(name);
      uncarried.delete(there);
      if (source.has(there) || target.has(there)) compared.add(from === left ? name : there);
      for (const difference of differencesOf(source, target, there, mixed)) {
        const key = `${from === left ? name : there} ${difference.column ?? ''}`;
        differences.set(key, [...(differences.get(key) ?? []), textOf(difference, from, to)]);
      }
    }
    // The way back mostly says the same again.
    for (const [key, texts] of differences) if (!found.has(key)) found.set(key, texts);
  };
  for (const { link, carried } of linksOf(deps, store)) {
    const names = declared.filter((name) => carried.sourceFilter.has(name));
    await compare(link.from, link.to, carried, names);
  }
  await compare(left, right, new Carried({ include: [...uncarried], exclude: [] }), [...uncarried]);
  if (lost.size > 0)
    return {
      wrong: `${[...lost].join('; ')}: left out, and stored on both sides, of a routed table: a switch would lose the values. Carry it, or keep the column on one side only`,
    };
  if (found.size === 0) return `${compared.size} tables, the same on both sides`;
  return {
    wrong: `${[...found.values()].flat().join('; ')}: make both sides agree (\`interlock ddl apply\`)`,
  };
}

function linksOf({ topology }: DatacenterDeps, store: string): { link: WantedMysqlLink; carried: Carried }[] {
  return wantedMysqlLinks(topology)
    .filter((link) => link.store === store)
    .map((link) => ({ link, carried: new Carried(link) }));
}

function textOf({ text }: Difference, from: DcId, to: DcId): string {
  return text.replace('the source', from).replace('the target', to).replace(/;.*/, '');
}
