import type { Connection, RowDataPacket } from 'mysql2/promise';
import { InterlockError } from '../../src/errors.js';
import type { ConflictPolicy } from '../../src/topology/schema.js';
import { keyOf, sameRow } from './batch.js';
import type { RowNet, TableBatch } from './batch.js';
import type { Carried } from './carried.js';
import type { CatalogTable } from './catalog.js';
import { fillOf, withExact } from './chunk-fill.js';
import { readRows } from './chunk-reader.js';
import type { ReadableTable } from './chunk-reader.js';
import { policyOf } from './conflicts.js';
import type { Chunk } from './copier.js';
import { progressStatement } from './copy-plan.js';
import type { CopyTable } from './copy-plan.js';
import { deletionsOf, laterOnes } from './latest.js';
import type { Cut } from './large-values.js';
import type { LinkConfig } from './link-config.js';
import { quote } from './literal.js';
import type { Literal } from './literal.js';
import type { Flavour } from './position.js';
import { conflictInsert, policyText } from './records.js';
import { checksOf } from './row-check.js';
import type { Mismatch } from './row-check.js';
import { inserted, merged, replacing } from './statements.js';
import type { Statement } from './statements.js';
import { givesWay, inTheWay } from './unique-values.js';

/** What a chunk does to the target. */
export interface ChunkEffect {
  /** For the same transaction. Whoever has to send them again, walks over them again. */
  statements: Iterable<Statement>;
  /** How far the table is then, for the same transaction. */
  progress: string;
  /** Statements for the same transaction: conflicts that a person has to decide. */
  records: string[];
  conflicts: number;
  next: Pick<CopyTable, 'counts' | 'lastKey'>;
  done: boolean;
}

export interface EffectOptions {
  link: string;
  flavour: Flavour;
  cut: Cut;
  source: Connection;
  target: Connection;
  shape: ReadableTable;
  targetTable: CatalogTable;
  carried: Carried;
  policies: Pick<LinkConfig, 'conflicts' | 'winsTies'>;
  /** Of the transaction that it is written with. */
  gtid: string;
  /** Whether what the target's applications have written may be on its way to the source. */
  mayBeOnItsWay: boolean;
  /** A unique value was in the way: it is looked whose. */
  obstructed: boolean;
}

type Owner = ReturnType<Chunk['ownerOf']>;
/** `open`: the target's row stays, and a person has to say which is right. */
type Outcome = 'source' | 'target' | 'open';
type Difference = Mismatch & { owner: Owner };

/** A person is to look at them: more than that is work for a policy. */
const MOST_OPEN = 10_000;

/**
 * Every row that differs goes by its owner, else by the policy of its table, or is recorded. What is written is looked at under a lock, in the
 * chunk's transaction: rows that are others by then are RowsDiffer, and the effect has to be made anew.
 * @returns a map when nothing can be decided yet: rows that nobody owns, as they are on the target. Only those that are the same when the other
 *   link has passed what the target has now differ indeed.
 */
export async function effectOf(
  chunk: Chunk,
  options: EffectOptions,
): Promise<ChunkEffect | Map<string, Literal[] | null>> {
  const { table } = chunk;
  const { link } = options;
  const counts = { ...table.counts, compared: table.counts.compared + chunk.rows.length };
  const { after, upTo } = chunk;
  const done = upTo === null;
  const next = { counts, lastKey: upTo ?? table.lastKey };
  const there = await readRows(options.target, options.shape, { after, upTo, limit: null });
  const fill = fillOf(chunk, there, options);
  if (fill !== undefined) {
    counts.written += fill.rows;
    return {
      ...{ next, statements: fill.statements, records: [], conflicts: 0, done },
      progress: progressStatement(link, { ...table, ...next }, done),
    };
  }
  const { batch, differing } = differences(chunk, there, options);
  const outcomes = await outcomesOf(chunk, differing, options);
  const unproven = new Map<string, Literal[] | null>();
  const write: RowNet[] = [];
  const open: Difference[] = [];
  differing.forEach((difference, i) => {
    const { row, current, owner } = difference;
    const outcome = outcomes[i]!;
    if (outcome === 'target') {
      if (row.after !== null && current !== null) counts.kept++;
      return;
    }
    if (owner === 'unrouted' && options.mayBeOnItsWay && table.purpose !== 'fill') {
      if (chunk.seen === null) {
        unproven.set(row.key, current);
        return;
      }
      // Changed there since it was looked at: the other link brings it, and settles it at the source.
      if (!chunk.seen.has(row.key) || !sameRow(chunk.seen.get(row.key)!, current)) return;
    }
    if (outcome === 'open') {
      counts.kept++;
      open.push(difference);
      return;
    }
    row.after &&= withExact(row.after, chunk.exact.get(row.after));
    write.push(row);
    if (row.after === null) counts.removed++;
    else counts.written++;
  });
  if (unproven.size > 0) return unproven;
  const cleared = options.obstructed
    ? await clear(chunk, batch, write, options)
    : { statements: [], conflicts: 0 };
  return {
    next,
    statements: statementsOf(batch, write, options),
    progress: progressStatement(link, { ...table, ...next }, done),
    records: [...(await recordsOf(open, options)), ...cleared.statements],
    conflicts: open.length + cleared.conflicts,
    done,
  };
}

function differences(
  { table, rows, changed, ownerOf }: Chunk,
  there: readonly Literal[][],
  { targetTable, shape, carried }: EffectOptions,
): { batch: TableBatch; differing: Difference[] } {
  const { source } = shape;
  const keeps = carried.rowTest(table.name, source.columns);
  const onTarget = new Map(there.map((row) => [keyOf(source, row), row]));
  const batch: TableBatch = { source, target: targetTable, rows: new Map(), log: null, inOrder: false };
  const differing: Difference[] = [];
  const differs = (key: string, current: Literal[] | null, row: Literal[] | null): void => {
    if (changed.has(key) || sameRow(current, row)) return;
    const owner = ownerOf(source, (row ?? current)!);
    differing.push({ table: batch, row: { key, before: current, after: row }, current, owner });
  };
  for (const row of rows) {
    if (keeps?.(row) === false) continue;
    const key = keyOf(source, row);
    differs(key, onTarget.get(key) ?? null, row);
    onTarget.delete(key);
  }
  for (const [key, row] of onTarget) if (keeps?.(row) !== false) differs(key, row, null);
  return { batch, differing };
}

async function outcomesOf(
  { table }: Chunk,
  differing: Difference[],
  options: EffectOptions,
): Promise<Outcome[]> {
  const outcomes = differing.map((one): Outcome | null => {
    const policy = policyOf(options.policies.conflicts, table.name, one.owner === 'unrouted');
    return outcomeOf(table, one, policy);
  });
  const policy = options.policies.conflicts[table.name];
  if (typeof policy !== 'object') return outcomes as Outcome[];
  const asked = differing.flatMap((difference, i) => (outcomes[i] === null ? [{ difference, i }] : []));
  const surplus = asked.filter(({ difference }) => difference.row.after === null);
  const others = asked.filter(({ difference }) => difference.row.after !== null);
  const later = await laterOnes(
    options.target,
    { link: options.link, winsTies: options.policies.winsTies },
    policy.latest,
    others.map(({ difference }) => difference),
  );
  others.forEach(({ i }, n) => (outcomes[i] = later[n]!));
  const deleted = await deletionsOf(
    options.source,
    options.carried.sourceName(table.name)!,
    policy.latest,
    surplus.map(({ difference }) => difference),
  );
  surplus.forEach(({ difference, i }, n) => {
    outcomes[i] = { later: 'source', earlier: 'target', none: withoutPolicy(table, difference) }[
      deleted[n]!
    ] as Outcome;
  });
  return outcomes as Outcome[];
}

/** Null: by the value of a column. */
function outcomeOf(table: CopyTable, difference: Difference, policy: ConflictPolicy): Outcome | null {
  const { row, current, owner } = difference;
  const resync = table.purpose === 'resync';
  if (owner === 'other') return current === null && table.purpose === 'fill' ? 'source' : 'target';
  // What the target lacks is no conflict, but for a row that was deleted there later; a resync is to bring that back, too.
  if (current === null) return typeof policy === 'object' && !resync ? null : 'source';
  if (typeof policy === 'object') return null;
  if (policy === 'target-wins')
    return row.after === null && owner === 'source' ? withoutPolicy(table, difference) : 'target';
  if (row.after === null) return withoutPolicy(table, difference, policy);
  if (policy === 'source-wins' || (policy === 'owner-wins' && owner === 'source')) return 'source';
  return 'open';
}

/** A row that only the target has, where no later deletion is known. */
function withoutPolicy(
  { purpose }: CopyTable,
  { owner }: Difference,
  policy: ConflictPolicy = 'quarantine',
): Outcome {
  if (purpose !== 'resync') return 'target';
  return owner === 'source' || policy === 'source-wins' ? 'source' : 'open';
}

/**
 * Rows under other keys that hold a unique value of one that is to be written: the source has both, so one of the two is not as it is there. It
 * goes, when it is the source's or the policy says so; else the row that arrives is left out, and is a conflict.
 * @param write loses and gets rows
 * @returns the records of it
 */
async function clear(
  chunk: Chunk,
  batch: TableBatch,
  write: RowNet[],
  options: EffectOptions,
): Promise<{ statements: string[]; conflicts: number }> {
  const { target, shape, targetTable, policies, link, gtid, cut } = options;
  const { source } = shape;
  const leaving = new Set(write.flatMap(({ key, before }) => (before === null ? [] : [key])));
  const arriving = write.filter(({ after }) => after !== null);
  const statements: string[] = [];
  let conflicts = 0;
  for (const { row, other } of await inTheWay(target, shape, targetTable, arriving)) {
    const key = keyOf(source, other);
    if (leaving.has(key) || !write.includes(row)) continue;
    const owner = chunk.ownerOf(source, other);
    const policy = policyOf(policies.conflicts, source.name, owner === 'unrouted');
    const met = { table: batch, row: { key, before: other, after: row.after }, current: other };
    const goes = await givesWay(target, { link, winsTies: policies.winsTies }, { owner, policy, met });
    if (goes) {
      leaving.add(key);
      write.push({ key, before: other, after: null });
    } else {
      write.splice(write.indexOf(row), 1);
      statements.push(superseded(link, source.name, [row.key]));
    }
    conflicts++;
    statements.push(
      conflictInsert(
        link,
        {
          ...{ gtid, table: source.name, unit: null, kind: 'exists', policy: policyText(policy) },
          ...(goes
            ? { key, kept: 'source', state: 'resolved' }
            : { key: row.key, kept: 'target', state: 'open' }),
          images: {
            columns: source.columns,
            primaryKey: source.primaryKey.map((i) => source.columns[i]!),
            before: null,
            after: goes ? null : row.after,
            current: goes ? other : row.before,
          },
        },
        cut.packetBytes,
      ),
    );
  }
  return { statements, conflicts };
}

/** Values that are unique beside the key move between rows: what goes first frees them. */
function statementsOf(batch: TableBatch, rows: RowNet[], { flavour, cut, link }: EffectOptions): Statement[] {
  if (batch.target.uniqueColumns.size === 0) {
    for (const row of rows) batch.rows.set(row.key, row);
    // What was deleted here has been decided on already.
    return merged(batch, { flavour, cut, link, latest: new Map(), checkInserts: false });
  }
  const [there, absent] = [
    rows.filter((row) => row.before !== null),
    rows.filter((row) => row.before === null),
  ];
  return [
    ...checksOf(batch, there),
    ...replacing(batch, there, { flavour, cut }),
    ...inserted(batch, absent, { flavour, cut }),
  ];
}

/** Those of the same rows that are open from a copy before are superseded. */
async function recordsOf(open: Difference[], options: EffectOptions): Promise<string[]> {
  if (open.length === 0) return [];
  const { link, gtid, policies, target, cut } = options;
  const { source } = open[0]!.table;
  const keys = open.map(({ row }) => row.key);
  const [counted] = await target.query<RowDataPacket[]>(
    `SELECT COUNT(*) AS n FROM interlock.conflict WHERE ${openOf(link, source.name)} AND row_key NOT IN (${keys.map(quote).join(',')})`,
  );
  if (Number(counted[0]!['n']) + open.length > MOST_OPEN) {
    throw new InterlockError(
      'LinkStopped',
      `${link}: more than ${MOST_OPEN} rows of ${source.name} differ, and neither an owner nor a policy says which stay. Give the table a policy in the topology (links.conflicts: latest, source-wins or target-wins), then: interlock replicate resume '${link}'`,
      { details: { link, table: source.name } },
    );
  }
  const primaryKey = source.primaryKey.map((i) => source.columns[i]!);
  return [
    superseded(link, source.name, keys),
    ...open.map(({ row: { key, after }, current, owner }) =>
      conflictInsert(
        link,
        {
          ...{ gtid, table: source.name, key, unit: null, kept: 'target', state: 'open' },
          kind: after === null ? 'exists' : 'differs',
          policy: policyText(policyOf(policies.conflicts, source.name, owner === 'unrouted')),
          images: { columns: source.columns, primaryKey, before: null, after, current },
        },
        cut.packetBytes,
      ),
    ),
  ];
}

function openOf(link: string, table: string): string {
  return `link=${quote(link)} AND state='open' AND name=${quote(table)}`;
}

function superseded(link: string, table: string, keys: readonly string[]): string {
  return `DELETE FROM interlock.conflict WHERE ${openOf(link, table)} AND row_key IN (${keys.map(quote).join(',')})`;
}
