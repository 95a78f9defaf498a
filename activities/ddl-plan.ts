import { formatLinkId } from '../replicators/core/contract.js';
import { rehearse } from '../replicators/mysql/ddl-apply/rehearsal.js';
import type { Rehearsed } from '../replicators/mysql/ddl-apply/rehearsal.js';
import { readStatement } from '../replicators/mysql/ddl-apply/statement.js';
import type { DdlStatement } from '../replicators/mysql/ddl-apply/statement.js';
import { differencesOf } from '../replicators/mysql/drift.js';
import { connect } from '../replicators/mysql/session.js';
import type { ServerAddress } from '../replicators/mysql/session.js';
import { InterlockError } from '../src/errors.js';
import { dcIds, wantedMysqlLinks } from '../src/topology/derive.js';
import { mysqlAddress } from '../src/topology/mysql-address.js';
import type { SecretReference, Topology } from '../src/topology/schema.js';
import type { DdlPlan, DdlRequest, PlannedDdl } from '../workflows/ddl-contract.js';
import type { ReadLinkStatus } from './dependencies.js';

export interface DdlPlanDeps {
  topology: Topology;
  secret: (reference: SecretReference) => string;
  readLinkStatus: ReadLinkStatus;
  /** A switchover, its soak included, is under way. */
  switchoverRuns: () => Promise<boolean>;
}

export function addressOf(
  { topology, secret }: Pick<DdlPlanDeps, 'topology' | 'secret'>,
  dc: string,
  store: string,
): ServerAddress {
  const found = topology.datacenters[dc]!.stores.mysql[store]!;
  return { ...mysqlAddress(found, secret), flavour: found.flavour };
}

/** What is to run where, in order. Errors: BadInput, Refused, Unavailable. */
export async function planDdl(deps: DdlPlanDeps, request: DdlRequest): Promise<DdlPlan> {
  const { topology } = deps;
  const statements = request.statements.map((text, i) => readStatement(text, i + 1));
  const stores = storesOf(topology, request.stores);
  if (await deps.switchoverRuns()) {
    throw new InterlockError(
      'Refused',
      'a switchover is under way (its soak counts): finish it or roll it back first; see interlock switch status',
    );
  }
  const stopped = await requireStreaming(deps, stores, new Set(statements.map(({ name }) => name)));
  const steps: PlannedDdl[] = [];
  const problems: string[] = [];
  const found = new Set<DdlStatement>();
  for (const store of stores) {
    const sides = await Promise.all(
      dcIds(topology).map(async (dc) => ({ dc, rehearsed: await onServer(deps, dc, store, statements) })),
    );
    for (const [i, statement] of statements.entries()) {
      const all = sides.map(({ dc, rehearsed }) => ({ dc, ...rehearsed[i]! }));
      // Another store has the table.
      if (all.every(({ before, after }) => before === null && after === null) && statement.verb !== 'drop') {
        if (statement.verb !== 'create') continue;
      }
      found.add(statement);
      const refusals = all.flatMap(({ dc, refusals }) => refusals.map((why) => `${dc}: ${why}`));
      if (refusals.length > 0) {
        problems.push(...refusals.map((why) => `statement ${i + 1} (mysql/${store}, ${why})`));
        continue;
      }
      const phase = all.find((one) => one.phase !== null)?.phase ?? 'expand';
      const order = orderOf(topology, store);
      steps.push({
        ...{ number: i + 1, statement: statement.text, table: statement.name, store, phase },
        dropped: [...new Set(all.flatMap(({ dropped }) => dropped))],
        targets: (phase === 'expand' ? order : [...order].reverse()).map((dc) => {
          const { already, algorithm, before, after } = all.find((one) => one.dc === dc)!;
          return { dc, already, algorithm, before, after };
        }),
      });
    }
    problems.push(...differing(statements, sides, store));
  }
  for (const [i, statement] of statements.entries()) {
    if (!found.has(statement))
      problems.push(`statement ${i + 1}: no store of ${stores.join(', ')} has ${statement.name}`);
    else if (statement.verb === 'create' && stores.length > 1 && request.stores.length === 0)
      problems.push(
        `statement ${i + 1}: say in which of the stores ${stores.join(', ')} the table is to be: --stores`,
      );
  }
  problems.push(...inOrder(steps));
  if (problems.length > 0) {
    throw new InterlockError('BadInput', `nothing was done:\n  ${[...new Set(problems)].join('\n  ')}`, {
      details: { field: '--file', problems },
    });
  }
  const phases = { expand: 0, contract: 1 };
  steps.sort((a, b) => phases[a.phase] - phases[b.phase] || a.number - b.number);
  return {
    steps,
    queues: Object.fromEntries(dcIds(topology).map((dc) => [dc, topology.datacenters[dc]!.taskQueue])),
    warnings: [...stopped, ...warningsOf(steps)],
  };
}

function storesOf(topology: Topology, wanted: readonly string[]): string[] {
  const all = [
    ...new Set(dcIds(topology).flatMap((dc) => Object.keys(topology.datacenters[dc]!.stores.mysql))),
  ];
  const unknown = wanted.filter((name) => !all.includes(name));
  if (unknown.length > 0) {
    throw new InterlockError(
      'BadInput',
      `--stores: ${unknown.join(', ')}: no such MySQL store; expected some of ${all.join(', ')}`,
      { details: { field: '--stores', value: unknown } },
    );
  }
  return wanted.length === 0 ? all : [...wanted];
}

/**
 * A link that does not run would meet the statement when nobody waits for it. One that stopped as these tables differ is what the statements mend:
 * they have run on one side, by hand or in a change that failed.
 * @returns what is to be said of links that stand
 */
async function requireStreaming(
  { topology, readLinkStatus }: DdlPlanDeps,
  stores: string[],
  tables: ReadonlySet<string>,
): Promise<string[]> {
  const wrong: string[] = [];
  const stopped: string[] = [];
  const all = wantedMysqlLinks(topology);
  for (const wanted of all) {
    if (!stores.includes(wanted.store)) continue;
    const link = formatLinkId(wanted);
    const status = await readLinkStatus(link);
    if (status?.state === 'streaming') continue;
    const differing = status?.state === 'failed' ? (status.lastError?.tables ?? []) : [];
    if (differing.length > 0 && differing.every((table) => tables.has(table))) {
      const back = all.find(
        ({ store, from, to }) => store === wanted.store && from === wanted.to && to === wanted.from,
      );
      // It stops, too, as soon as it meets the difference: before this is done, or while it is under way.
      const other =
        back === undefined
          ? ''
          : `; then the other way, if that has stopped, too: interlock replicate resume '${formatLinkId(back)}'`;
      stopped.push(
        `${link} has stopped as ${differing.join(', ')} differs; when this is done: interlock replicate resume '${link}'${other}`,
      );
      continue;
    }
    const last = status?.lastError?.message;
    wrong.push(`${link} is ${status?.state ?? 'not running'}${last === undefined ? '' : `: ${last}`}`);
  }
  if (wrong.length === 0) return stopped;
  throw new InterlockError(
    'Refused',
    `links have to stream; see interlock replicate status, start or resume them:\n  ${wrong.join('\n  ')}`,
    { details: { links: wrong } },
  );
}

async function onServer(
  deps: DdlPlanDeps,
  dc: string,
  store: string,
  statements: DdlStatement[],
): Promise<Rehearsed[]> {
  const address = addressOf(deps, dc, store);
  const connection = await connect(address);
  try {
    return await rehearse(connection, address.flavour, statements, deps.topology.tables);
  } finally {
    connection.destroy();
  }
}

/** Where only one direction is carried, the side that rows come to has a column before rows have it, and loses it after them. */
function orderOf(topology: Topology, store: string): string[] {
  const links = wantedMysqlLinks(topology).filter((link) => link.store === store);
  const one = links[0];
  return one !== undefined && links.every(({ from }) => from === one.from)
    ? [one.to, one.from]
    : dcIds(topology);
}

/** Behind all statements both sides have to have the same. */
function differing(
  statements: readonly DdlStatement[],
  sides: readonly { dc: string; rehearsed: Rehearsed[] }[],
  store: string,
): string[] {
  const problems: string[] = [];
  const [left, right] = sides;
  const last = new Map(statements.map(({ name }, i) => [name, i]));
  for (const [name, i] of last) {
    const [a, b] = [left!.rehearsed[i]!, right!.rehearsed[i]!];
    if (a.refusals.length + b.refusals.length > 0) continue;
    const catalogs = [a, b].map(({ columns }) => new Map(columns === null ? [] : [[name, columns]]));
    for (const { text } of differencesOf(catalogs[0]!, catalogs[1]!, name))
      problems.push(
        `mysql/${store}: ${text.replace('the source', left!.dc).replace('the target', right!.dc)}, also behind the statements: make both sides agree first`,
      );
  }
  return problems;
}

/** Contract comes last, over the whole file: what the file has the other way round for one table means something else. */
function inOrder(steps: readonly PlannedDdl[]): string[] {
  const contracted = new Map<string, number>();
  const problems: string[] = [];
  for (const { table, store, phase, number } of steps) {
    const key = `${store} ${table}`;
    if (phase === 'contract') contracted.set(key, number);
    else if (contracted.has(key))
      problems.push(
        `statement ${number} adds to ${table} behind statement ${contracted.get(key)}, which takes away: what is taken away goes last; change the order, or use two files`,
      );
  }
  return problems;
}

function warningsOf(steps: readonly PlannedDdl[]): string[] {
  return steps.flatMap(({ number, table, store, targets }) =>
    targets
      .filter(({ already, algorithm }) => !already && algorithm === 'copy')
      .map(
        ({ dc }) =>
          `statement ${number}: ${dc} mysql/${store} has to copy ${table}, and writes of it wait for as long as that takes`,
      ),
  );
}
