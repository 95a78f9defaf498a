import type { Connection, RowDataPacket } from 'mysql2/promise';
import { InterlockError, messageOf } from '../../src/errors.js';
import type { SourceUnit } from '../core/contract.js';
import { Carried } from './carried.js';
import { readCatalog } from './catalog.js';
import { createCheckpoint, inTransaction, readCheckpoint } from './checkpoint.js';
import type { Checkpoint } from './checkpoint.js';
import { cancelCopy, isEmpty, orderCopy } from './copy-plan.js';
import type { CopyOrder } from './copy-plan.js';
import { flowsOver, readDefinitions, waitsFor } from './ddl-steps.js';
import type { DdlSteps } from './ddl-steps.js';
import type { Difference } from './drift.js';
import { requireLineage } from './lineage.js';
import type { LinkConfig } from './link-config.js';
import { problemsByTable, sourceProblems } from './preflight.js';
import { overtakenByCopy } from './overtaken.js';
import { contains, parsePosition } from './position.js';
import { connect, executedPosition, serverIdentity } from './session.js';
import { ensureTombstones } from './tombstones.js';
import { unitsAt } from './units-at.js';

export interface InitialiseOptions {
  /** `now`, a position of the source, or nothing: go on from the checkpoint, or from now when all tables are empty. */
  from?: string;
  /** Forget a checkpoint that the link has applied something on. */
  discardCheckpoint?: boolean;
  /** Copy every table of the link from the live source; the link then begins at now. */
  copy?: boolean;
  /** Copy these tables of a link again (all: null), and remove what the source owns and does not have. */
  resync?: { tables: string[] | null };
  maxRowsPerSecond?: number;
}

/**
 * What both sides may differ in, of that over which rows flow (see drift.ts): a link that goes on meets every such row by itself; one that begins
 * has to find its tables; a copy reads both sides by one definition.
 */
export type Drift = 'goes on' | 'begins' | 'copies';

const DRIFT: Record<Exclude<Drift, 'goes on'>, (difference: Difference) => boolean> = {
  begins: ({ flows, mend }) => flows && mend?.verb !== 'CREATE',
  copies: () => false,
};

/**
 * Everything that has to be right before a link can run.
 * @throws InterlockError that lists every problem: BadInput (what the topology filters or leaves out), else Refused; Unavailable while `ddl apply`
 *   mends them
 */
export async function preflightLink(
  config: LinkConfig,
  source: Connection,
  target: Connection,
  drift: Drift,
): Promise<void> {
  const { unlike, problems, differing, changing } = await linkProblems(config, source, target, drift);
  if (unlike.length > 0) {
    throw new InterlockError(
      'BadInput',
      `${config.link} cannot carry what the topology's links say:\n  ${unlike.join('\n  ')}`,
      { details: { link: config.link, problems: unlike } },
    );
  }
  if (problems.length === 0) return;
  if (drift === 'goes on') {
    const change = [...changing].find(([table]) =>
      problems.some((problem) => problem.startsWith(`${table}:`) || problem.startsWith(`${table}.`)),
    );
    if (change !== undefined) throw waitsFor(config.link, change[1]);
  }
  throw new InterlockError(
    'Refused',
    `${config.link} cannot run (${problems.length === 1 ? '1 problem' : `${problems.length} problems`}):\n  ${problems.join('\n  ')}`,
    { details: { link: config.link, problems, ...(differing !== undefined && { differing }) } },
  );
}

/** On both sides: either may delete a row that the other has changed. */
export async function keepTombstones(
  config: LinkConfig,
  source: Connection,
  target: Connection,
): Promise<void> {
  const carried = new Carried(config);
  await ensureTombstones(source, await readCatalog(source, carried.sourceFilter), config.conflicts);
  const there = carried.byTargetName(config.conflicts);
  await ensureTombstones(target, await readCatalog(target, carried.targetFilter), there);
}

/** The same, as lists; empty when the link can run. */
async function linkProblems(
  config: LinkConfig,
  source: Connection,
  target: Connection,
  drift: Drift,
): Promise<{
  unlike: string[];
  problems: string[];
  differing?: string[];
  changing: DdlSteps['changing'];
}> {
  const { steps, ...catalogs } = await readDefinitions(new Carried(config), { source, target });
  const passes = drift === 'goes on' ? flowsOver(steps, catalogs.source, catalogs.target) : DRIFT[drift];
  const mixed = config.source.flavour !== config.target.flavour;
  const byTable = problemsByTable(catalogs.source, catalogs.target, config.tables, mixed, passes);
  const server = await sourceProblems(source, config.source.flavour);
  return {
    unlike: catalogs.problems,
    problems: [...server.map((p) => `${config.from}: ${p}`), ...[...byTable.values()].flat()],
    // The tables that are in the way, when nothing else is.
    ...(server.length === 0 && { differing: [...byTable.keys()] }),
    changing: steps.changing,
  };
}

/**
 * Makes the first checkpoint of a link, or finds the one it has. Idempotent.
 * @returns the position from which the link will go on
 * @throws InterlockError Refused: tables are not empty and no position was given, or a checkpoint is in the way; BadInput: no position
 */
export async function initialiseLink(
  config: LinkConfig,
  options: InitialiseOptions,
): Promise<{ position: string; created: boolean }> {
  const source = await connect(config.source);
  try {
    const target = await connect(config.target);
    try {
      await keepTombstones(config, source, target);
      const existing = await readCheckpoint(target, config.link);
      const copies = options.resync !== undefined || (options.copy === true && existing === undefined);
      const drift = copies ? 'copies' : existing === undefined ? 'begins' : 'goes on';
      await preflightLink(config, source, target, drift);
      if (options.copy === true || options.resync !== undefined) {
        const ordered = await initialiseCopy(config, options, source, target, existing);
        if (ordered !== undefined) return ordered;
      }
      if (existing !== undefined && options.from === undefined) {
        return { position: existing.position, created: false };
      }
      const snapshot = await snapshotUnits(config, source);
      let { position, units } = snapshot;
      if (options.from !== undefined && options.from !== 'now') {
        const { flavour } = config.source;
        position = parsePosition(flavour, options.from).toString();
        if (!contains(parsePosition(flavour, snapshot.position), parsePosition(flavour, position))) {
          throw new InterlockError(
            'BadInput',
            `--from ${position}: ${config.from} has not executed that; it is at ${snapshot.position}`,
            { details: { field: 'from', value: position } },
          );
        }
      }
      // Owners of now would judge, and mostly refuse, what was written under those of then.
      if (position !== snapshot.position) units = await unitsAt(config, position, snapshot);
      // After the position was read: a row that comes later is refused here or is in the stream, never lost.
      if (options.from === undefined) await requireEmpty(config, source, target);
      const sourceServer = await serverIdentity(source, config.source.flavour);
      await createCheckpoint(
        target,
        config.link,
        { position, sourceServer, units },
        options.discardCheckpoint === true,
      );
      return { position, created: true };
    } finally {
      target.destroy();
    }
  } finally {
    source.destroy();
  }
}

/**
 * Orders the copy and makes the checkpoint in one transaction: the link then meets every change from before its first chunk. Undefined: the link
 * has a checkpoint already, and its copy goes on there.
 */
async function initialiseCopy(
  config: LinkConfig,
  options: InitialiseOptions,
  source: Connection,
  target: Connection,
  existing: Checkpoint | undefined,
): Promise<{ position: string; created: boolean } | undefined> {
  const { resync } = options;
  if (resync === undefined && existing !== undefined && options.discardCheckpoint !== true) return undefined;
  if (resync !== undefined && existing === undefined) {
    throw new InterlockError(
      'Refused',
      `${config.link} has no checkpoint: it has never run. Use: interlock replicate start ${config.link} --copy`,
      { details: { link: config.link } },
    );
  }
  await requireCommitOrder(config, source);
  const tables = await tablesToCopy(config, resync?.tables ?? null, resync !== undefined, source, target);
  // A whole resync begins anew, also where the binlog of before is gone; named tables are copied beside what goes on.
  const anew = resync === undefined || resync.tables === null;
  if (!anew) await requireGoesOn(config, source, existing!);
  const maxRows = options.maxRowsPerSecond ?? null;
  if (!anew) {
    await inTransaction(target, async () => {
      await orderCopy(target, config.link, tables, maxRows);
      await overtakenByCopy(target, config.link, new Set(tables.keys()));
    });
    return { position: existing!.position, created: false };
  }
  const { position, units } = await snapshotUnits(config, source);
  const sourceServer = await serverIdentity(source, config.source.flavour);
  await createCheckpoint(target, config.link, { position, sourceServer, units }, true, async () => {
    // A table that the link does not carry any more would be in the way for ever.
    await cancelCopy(target, config.link);
    await orderCopy(target, config.link, tables, maxRows);
    await overtakenByCopy(target, config.link, new Set(tables.keys()));
  });
  return { position, created: true };
}

/** Named tables are copied beside what the link carries from its checkpoint on. @throws InterlockError Refused: it cannot go on there */
async function requireGoesOn(
  { link, from, source: { flavour } }: LinkConfig,
  source: Connection,
  { position }: Checkpoint,
): Promise<void> {
  const whole = `Named tables are copied while the link goes on, and it cannot. Copy all of them: interlock replicate resync '${link}' (without --tables)`;
  try {
    await requireLineage({ link, from, flavour, mend: { diverged: whole, purged: whole } }, source, position);
  } catch (error) {
    if (!(error instanceof InterlockError) || error.code !== 'NeedsOperator') throw error;
    throw new InterlockError('Refused', error.message, { cause: error, details: error.details });
  }
}

/** Hazard: where commits become visible in another order than that of the binlog, a chunk is not what the stream says it is. */
async function requireCommitOrder(config: LinkConfig, source: Connection): Promise<void> {
  if (config.source.flavour !== 'mysql') return;
  const [rows] = await source.query<RowDataPacket[]>('SELECT @@GLOBAL.binlog_order_commits AS ordered');
  if (Number(rows[0]!['ordered']) === 1) return;
  throw new InterlockError(
    'Refused',
    `${config.from}: binlog_order_commits is OFF; a copy needs SET GLOBAL binlog_order_commits = ON there`,
    { details: { link: config.link } },
  );
}

async function tablesToCopy(
  config: LinkConfig,
  named: string[] | null,
  isResync: boolean,
  source: Connection,
  target: Connection,
): Promise<Map<string, CopyOrder>> {
  const carried = new Carried(config);
  const catalog = await carried.sourceCatalog(source);
  const onTarget = await carried.targetCatalog(target);
  const unknown = (named ?? []).filter((name) => !catalog.has(name));
  if (unknown.length > 0) {
    throw new InterlockError(
      'BadInput',
      `--tables: ${unknown.join(', ')}: not carried by ${config.link}; it carries ${[...catalog.keys()].join(', ') || 'none'}`,
      { details: { field: 'tables', value: unknown } },
    );
  }
  const chosen = [...catalog.values()].filter(({ name }) => named === null || named.includes(name));
  // A row and those that go with it are copied together, parents first.
  const apart = chosen.flatMap(({ inOrder, foreignKeys }) =>
    inOrder ? foreignKeys.map(({ parent }) => parent) : [],
  );
  const children = [...catalog.values()].filter(
    ({ inOrder, foreignKeys }) =>
      inOrder && foreignKeys.some(({ parent }) => chosen.some(({ name }) => name === parent)),
  );
  const missing = [...apart, ...children.map(({ name }) => name)].filter(
    (name) => catalog.has(name) && !chosen.some((table) => table.name === name),
  );
  if (missing.length > 0) {
    throw new InterlockError(
      'BadInput',
      `--tables: ${[...new Set(missing)].sort().join(', ')}: bound to the others by foreign keys that cascade; name them, too`,
      { details: { field: 'tables', value: named } },
    );
  }
  const orders = new Map<string, CopyOrder>();
  for (const table of chosen) {
    const [counted] = await source.query<RowDataPacket[]>(
      "SELECT COALESCE(table_rows, 0) AS n FROM information_schema.tables WHERE CONCAT(table_schema, '.', table_name) = ?",
      [carried.sourceName(table.name)],
    );
    orders.set(table.name, {
      purpose: isResync ? 'resync' : (await isEmpty(target, onTarget.get(table.name)!)) ? 'fill' : 'merge',
      estimated: Number(counted[0]?.['n'] ?? 0),
    });
  }
  return orders;
}

/** Owners and position that agree: no change of ownership can be under way while the table is locked. */
async function snapshotUnits(
  config: LinkConfig,
  source: Connection,
): Promise<{ position: string; units: SourceUnit[] }> {
  try {
    await source.query('LOCK TABLES interlock.unit_state READ');
  } catch (error) {
    throw new InterlockError(
      'Refused',
      `${config.from}: interlock.unit_state cannot be locked (${messageOf(error)}); the control schema must be there and the account needs LOCK TABLES`,
      { cause: error },
    );
  }
  try {
    const position = await executedPosition(source, config.source.flavour);
    const [rows] = await source.query<RowDataPacket[]>(
      'SELECT unit, state, owner, epoch FROM interlock.unit_state',
    );
    return { position, units: (rows as SourceUnit[]).map((row) => ({ ...row, epoch: Number(row.epoch) })) };
  } finally {
    await source.query('UNLOCK TABLES').catch(() => undefined);
  }
}

async function requireEmpty(config: LinkConfig, source: Connection, target: Connection): Promise<void> {
  const carried = new Carried(config);
  for (const [dc, connection, catalog] of [
    [config.from, source, await carried.sourceCatalog(source)],
    [config.to, target, await carried.targetCatalog(target)],
  ] as const) {
    for (const table of catalog.values()) {
      if (await isEmpty(connection, table)) continue;
      throw new InterlockError(
        'Refused',
        `${config.link} has no checkpoint, and ${table.name} has rows in ${dc}. To copy them: --copy; when both sides hold the same rows: --from now; when the target was loaded from a backup: --from POSITION of that backup`,
        { details: { link: config.link, table: table.name, dc } },
      );
    }
  }
}
