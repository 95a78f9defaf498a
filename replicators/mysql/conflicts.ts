import { setTimeout as sleep } from 'node:timers/promises';
import type { Connection, RowDataPacket } from 'mysql2/promise';
import type { ConflictPolicy } from '../../src/topology/schema.js';
import type { Applier, Piece, Rest } from './applier.js';
import { Batch, keyOf, sameRow } from './batch.js';
import type { RowNet, TableBatch } from './batch.js';
import type { CatalogTable } from './catalog.js';
import type { CopyPurpose } from './copy-plan.js';
import type { LinkConfig } from './link-config.js';
import type { Cut } from './large-values.js';
import { laterOnes } from './latest.js';
import type { Literal } from './literal.js';
import type { Ownership } from './ownership.js';
import { conflictInsert, policyText } from './records.js';
import type { ConflictKind, NewConflict } from './records.js';
import { sameValue } from './row-check.js';
import type { Mismatch } from './row-check.js';
import type { SourceTable } from './source-table.js';
import { ChangeRefused, RowsDiffer, ToQuarantine } from './target-errors.js';
import type { RowChange, SourceTransaction } from './transaction.js';
import { DUPLICATE_KEY, givesWay, inTheWay, shapeOf } from './unique-values.js';
import { writtenColumns } from './written-columns.js';

export interface ConflictOptions {
  config: LinkConfig;
  /** By the table's name on the target. */
  policies: Readonly<Record<string, ConflictPolicy>>;
  target: Connection;
  applier: Applier;
  cut: Cut;
  ownership: Ownership;
  tableOf: (change: RowChange) => CatalogTable;
  /** Whether a definition is otherwise than it was known. */
  changedSince: (error: ChangeRefused) => Promise<boolean>;
  copying?: Copying | undefined;
}

/** Tables that are being copied into a target that has rows. */
export interface Copying {
  /** Which of these rows the copy has not come to. */
  notCopied: (mismatches: readonly Mismatch[]) => Promise<boolean[]>;
  purposeOf: (table: string) => CopyPurpose | undefined;
  /** Whether the copy of a table is under way, or waits. */
  copies: (table: string) => boolean;
}

/** One transaction, as it stands while its conflicts are decided. */
export interface Unsettled {
  transaction: SourceTransaction;
  /** Everything up to and including it. */
  position: string;
  /** A statement that the commit has to do (see ApplyOptions). */
  requires?: string | undefined;
  /** Instead of the tables' own policies. */
  policy?: ConflictPolicy;
  /** Statements for the same commit. */
  beside?: readonly string[];
  /** It is of before: rows may have been changed since, by later transactions that are here already. */
  isOld?: boolean;
}

/** A transaction, or a piece of a large one, while what the target does not take of it is decided. */
interface Settling {
  unsettled: Unsettled;
  /** As it is to be applied by now. */
  transaction: SourceTransaction;
  /** Statements for its commit. */
  records: string[];
  tries: number;
  /** Rows that hold unique values of others (table and key), and have been taken out of the way; and how often that was tried. */
  cleared: Set<string>;
  clearings: number;
}

const TRIES = 3;
const CLEARINGS = 20;
const PAUSE_MS = 100;

/**
 * Applies one transaction whose rows are not on the target as the source had them: the policy of each table says which image stays. A row
 * that the source's image wins is rebased: its change is written as one from what the target has to what the source wants.
 */
export class ConflictResolver {
  constructor(private readonly options: ConflictOptions) {}

  /**
   * @returns how many conflicts were recorded
   * @throws ToQuarantine; what Applier.apply throws of the connection and the generation
   */
  async settle(unsettled: Unsettled): Promise<number> {
    const settling = await this.begin(unsettled);
    for (;;) {
      try {
        await this.options.applier.apply(this.batchOf(settling.transaction), unsettled.position, {
          careful: true,
          beside: [...(unsettled.beside ?? []), ...settling.records],
          requires: unsettled.requires,
          // A person has said which row is to be there.
          undeletes: unsettled.policy !== undefined,
        });
        return settling.records.length;
      } catch (error) {
        if (!(error instanceof RowsDiffer) && !(error instanceof ChangeRefused)) throw error;
        await this.decideOn(settling, error);
      }
    }
  }

  /**
   * The same for a transaction that does not fit into memory: piece by piece, in one transaction of the target. A row that several pieces
   * change may have several records.
   * @param parts its changes, anew for each try
   */
  async settleParts(
    unsettled: Unsettled,
    parts: () => AsyncIterable<SourceTransaction>,
    rest: Pick<Rest, 'bytes' | 'statementsOf'>,
  ): Promise<number> {
    let recorded = 0;
    const pieceOf = (settling: Settling): Piece => ({
      batch: this.batchOf(settling.transaction),
      beside: settling.records,
      settled: async (error) => {
        await this.decideOn(settling, error);
        return pieceOf(settling);
      },
    });
    const begin = (transaction: SourceTransaction): Promise<Settling> =>
      this.begin({ ...unsettled, transaction });
    await this.options.applier
      .apply(this.batchOf({ ...unsettled.transaction, changes: [] }), unsettled.position, {
        careful: true,
        requires: unsettled.requires,
        beside: [...(unsettled.beside ?? [])],
        rest: {
          ...rest,
          pieces: async function* () {
            recorded = 0;
            for await (const part of parts()) {
              const settling = await begin(part);
              yield pieceOf(settling);
              recorded += settling.records.length;
            }
          },
        },
      })
      .catch((error: unknown) => {
        // What the whole of it meets at its end, such as a binlog cache that is too small: no piece can be settled otherwise.
        if (error instanceof ChangeRefused) throw new ToQuarantine(error.message, { cause: error });
        throw error;
      });
    return recorded;
  }

  private batchOf(transaction: SourceTransaction): Batch {
    const batch = new Batch();
    batch.add(transaction, this.options.tableOf);
    return batch;
  }

  private async begin(unsettled: Unsettled): Promise<Settling> {
    const settling: Settling = {
      ...{ unsettled, transaction: unsettled.transaction, records: [] },
      ...{ tries: 0, cleared: new Set<string>(), clearings: 0 },
    };
    for (const change of unsettled.transaction.notOwned) {
      const mismatch = await this.notOwned(settling.transaction, change);
      await this.decide(settling, mismatch, 'not-owned');
    }
    return settling;
  }

  private async decideOn(settling: Settling, error: RowsDiffer | ChangeRefused): Promise<void> {
    if (error instanceof RowsDiffer) {
      if (settling.records.length - settling.cleared.size > 2 * settling.unsettled.transaction.changes.length)
        throw new ToQuarantine('its rows keep changing on the target', { cause: error });
      const mismatches = independent(error.mismatches);
      if (mismatches.some(({ table, row }) => settling.cleared.has(rowId(table.source, row.key)))) {
        // It was looked at without a lock: perhaps it is in nobody's way any more.
        const { tries, clearings } = settling;
        Object.assign(settling, await this.begin(settling.unsettled), { tries, clearings });
        return;
      }
      await this.meet(settling, ...mismatches);
      return;
    }
    if (await this.options.changedSince(error)) return;
    if (error.errno === DUPLICATE_KEY && (await this.clear(settling))) return;
    // The target may have been changed meanwhile: a table, a setting, a row in the way.
    settling.tries += 1;
    if (settling.tries === TRIES) throw new ToQuarantine(error.message, { cause: error });
    await sleep(PAUSE_MS * settling.tries);
  }

  private async meet(settling: Settling, ...mismatches: Mismatch[]): Promise<void> {
    const notCopied = (await this.options.copying?.notCopied(mismatches)) ?? [];
    for (const [i, mismatch] of mismatches.entries()) {
      if (notCopied[i] === true) {
        await this.decideNotCopied(settling, mismatch);
        continue;
      }
      const { row, current } = mismatch;
      const kind = current === null ? 'missing' : row.before === null ? 'exists' : 'differs';
      await this.decide(settling, mismatch, kind);
    }
  }

  /** One conflict, in what is to be applied and in the records. */
  private async decide(settling: Settling, mismatch: Mismatch, kind: ConflictKind): Promise<void> {
    const { unsettled } = settling;
    const { table, row, current } = mismatch;
    const { source } = table;
    const unit = this.unitOf(mismatch, kind);
    const policy = unsettled.policy ?? policyOf(this.options.policies, source.name, unit === null);
    const kept =
      unsettled.isOld === true && typeof policy === 'string' && policy !== 'quarantine'
        ? 'target'
        : await this.winner(policy, mismatch, kind);
    if (kept === 'nobody')
      throw new ToQuarantine(
        `${source.name} key (${row.key}) ${CONFLICT_WORDS[kind]} (policy ${policyText(policy)})`,
      );
    // A person has to look where the two sides differ since, and nobody has said that they may.
    const open =
      kept === 'target' &&
      (kind === 'not-owned' || unsettled.isOld === true || isDeletedLater(mismatch)) &&
      !sameRow(current, row.after);
    this.record(settling, mismatch, { unit, kind, kept, policy, state: open ? 'open' : 'resolved' });
    rebase(settling, mismatch, kept);
  }

  /**
   * A row that the source has changed and that the copy has not come to: that the target has another one, or none, is nothing that has met. What
   * the copy would do with it is done here, since a chunk leaves out what has changed while it was read.
   */
  private async decideNotCopied(settling: Settling, mismatch: Mismatch): Promise<void> {
    const { policies, copying } = this.options;
    const { table, row, current } = mismatch;
    const name = table.source.name;
    const unit = this.unitOf(mismatch, 'differs');
    const policy = policyOf(policies, name, unit === null);
    if (sameRow(current, row.after)) rebase(settling, mismatch, 'source');
    else if (current === null && (typeof policy !== 'object' || copying?.purposeOf(name) === 'resync'))
      rebase(settling, mismatch, 'source');
    else if (policy === 'quarantine' || (policy === 'owner-wins' && unit === null)) {
      this.record(settling, mismatch, { unit, kind: 'differs', kept: 'target', policy, state: 'open' });
      rebase(settling, mismatch, 'target');
    } else {
      const kept = await this.winner(policy, mismatch, 'differs');
      rebase(settling, mismatch, kept === 'source' ? 'source' : 'target');
    }
  }

  /**
   * In a table that is being copied, a row that the copy has not settled may hold a unique value of one that the stream brings. The source does not
   * have it so; as in a chunk, it goes when it is the source's or the policy says so, and else the row that arrives is left out, as an open conflict.
   * Of keys on expressions or on the beginning of a column nothing is known here.
   * @returns whether another try has other changes
   */
  private async clear(settling: Settling): Promise<boolean> {
    const { copying, target, config, policies, ownership } = this.options;
    if (copying === undefined || settling.unsettled.isOld === true || settling.clearings++ >= CLEARINGS)
      return false;
    const ownerOf = ownership.snapshot();
    let done = false;
    for (const table of tablesOf(this.batchOf(settling.transaction))) {
      const { source } = table;
      if (!copying.copies(source.name)) continue;
      const arriving = settling.transaction.changes.flatMap(({ table: of, after }): RowNet[] =>
        of === source && after !== null ? [{ key: keyOf(source, after), before: null, after }] : [],
      );
      const shape = shapeOf(source, table.target);
      for (const { row, other } of await inTheWay(target, shape, table.target, arriving)) {
        const key = keyOf(source, other);
        if (settling.cleared.has(rowId(source, key))) continue;
        const held = netOf(settling.transaction.changes, source, key);
        const wanted = netOf(settling.transaction.changes, source, row.key);
        // Left out since.
        if (wanted === undefined) continue;
        done = true;
        if (wanted.after === null) {
          // It had the value for a while only.
          moveOutOfTheWay(settling, source, wanted);
          continue;
        }
        if (held !== undefined && !(await this.isThere(table, held, other))) {
          // The transaction changes the row that is in the way, and the target has another one.
          await this.meet(settling, { table, row: held, current: other });
          continue;
        }
        settling.cleared.add(rowId(source, key));
        if (held !== undefined) {
          moveOutOfTheWay(settling, source, { ...held, before: other });
          continue;
        }
        const owner = ownerOf(source, other);
        const policy = policyOf(policies, source.name, owner === 'unrouted');
        const met: Mismatch = { table, row: { key, before: other, after: row.after }, current: other };
        const unit = ownership.unitOf(source, other);
        if (await givesWay(target, config, { owner, policy, met })) {
          const gone = { ...met, row: { key, before: null, after: null } };
          this.record(settling, gone, { unit, kind: 'exists', kept: 'source', policy, state: 'resolved' });
          moveOutOfTheWay(settling, source, { key, before: other, after: null });
        } else {
          const left = { table, row: wanted, current: wanted.before };
          this.record(settling, left, { unit, kind: 'exists', kept: 'target', policy, state: 'open' });
          rebase(settling, left, 'target');
        }
      }
    }
    return done;
  }

  /** Whether the target has the row as the source had it. */
  private async isThere(table: TableBatch, row: RowNet, current: Literal[]): Promise<boolean> {
    const { before } = row;
    if (before === null) return false;
    if (writtenColumns(table).every((at) => before[at] === current[at])) return true;
    const question = sameValue({ table, row, current });
    if (question === null) return false;
    const [rows] = await this.options.target.query<RowDataPacket[]>(`SELECT ${question} AS same`);
    return Number(rows[0]!['same']) === 1;
  }

  private record(
    { records, transaction: { gtid } }: Settling,
    { table: { source }, row: { key, before, after }, current }: Mismatch,
    what: Pick<NewConflict, 'unit' | 'kind' | 'kept' | 'state'> & { policy: ConflictPolicy },
  ): void {
    const { config, cut } = this.options;
    const primaryKey = source.primaryKey.map((i) => source.columns[i]!);
    records.push(
      conflictInsert(
        config.link,
        {
          ...{ gtid, table: source.name, key, ...what },
          policy: policyText(what.policy),
          images: { columns: source.columns, primaryKey, before, after, current },
        },
        cut.packetBytes,
      ),
    );
  }

  /** Of a row that moves between units past a fence: the one that was not open. */
  private unitOf({ table, row }: Mismatch, kind: ConflictKind): string | null {
    const { ownership } = this.options;
    const units = [row.before, row.after, row.deleted ?? null].flatMap((image) =>
      image === null ? [] : [ownership.unitOf(table.source, image)],
    );
    const closed =
      kind === 'not-owned' ? units.find((unit) => unit !== null && !ownership.isOpen(unit)) : undefined;
    return closed ?? units[0] ?? null;
  }

  private async winner(
    policy: ConflictPolicy,
    mismatch: Mismatch,
    kind: ConflictKind,
  ): Promise<'source' | 'target' | 'nobody'> {
    if (typeof policy === 'object') {
      const { target, config } = this.options;
      const [winner] = await laterOnes(target, config, policy.latest, [mismatch]);
      return winner!;
    }
    if (policy === 'source-wins') return 'source';
    if (policy === 'target-wins') return 'target';
    if (policy === 'quarantine') return 'nobody';
    return kind === 'not-owned' ? 'target' : 'source';
  }

  /** What the target has of a row that the source should not have changed. */
  private async notOwned(transaction: SourceTransaction, change: RowChange): Promise<Mismatch> {
    const { applier, tableOf } = this.options;
    const batch = new Batch();
    batch.add({ ...transaction, changes: [change], units: [], markers: [] }, tableOf);
    const table = batch.tables.get(change.table.name)!;
    const row: RowNet = { key: keyOf(change.table, (change.before ?? change.after)!), ...change, change };
    return { table, row, current: await applier.read(table, row) };
  }
}

/**
 * A row that came back with a value that is not greater than that of its deletion. Hazard: where the source knew of the deletion nothing else comes
 * that would take the row away there.
 */
function isDeletedLater({ row, current }: Mismatch): boolean {
  return row.before === null && row.after !== null && current === null;
}

/** An unrouted table has no owner: what its policy does not say, a person does. */
export function policyOf(
  conflicts: Readonly<Record<string, ConflictPolicy>>,
  table: string,
  unrouted: boolean,
): ConflictPolicy {
  return conflicts[table] ?? (unrouted ? 'quarantine' : 'owner-wins');
}

/** In tables that are written in the source's order, the next ones may follow from the first. */
function independent(mismatches: readonly Mismatch[]): readonly Mismatch[] {
  return mismatches.some(({ row }) => row.change !== undefined) ? mismatches.slice(0, 1) : mismatches;
}

const CONFLICT_WORDS: Record<ConflictKind, string> = {
  exists: 'is on the target already',
  missing: 'is not on the target',
  differs: 'is another one on the target than it was at the source',
  'not-owned': 'was changed past the fence',
};

/** The change of a row that the source's image wins is one from what the target has; else there is none. */
function rebase(settling: Settling, mismatch: Mismatch, kept: 'source' | 'target'): void {
  const { row, current } = mismatch;
  const net = kept === 'target' ? null : { before: current, after: row.after };
  const { transaction } = settling;
  settling.transaction = { ...transaction, changes: replaced(transaction.changes, mismatch, net) };
}

/** The changes with one row's net effect in the place of what it did; null: without the row. */
function replaced(
  changes: readonly RowChange[],
  { table, row }: Mismatch,
  net: { before: Literal[] | null; after: Literal[] | null } | null,
): RowChange[] {
  const gone = net === null || (net.before === null && net.after === null);
  if (row.change !== undefined) {
    const { change } = row;
    return changes.flatMap((one) => (one !== change ? [one] : gone ? [] : [{ ...change, ...net }]));
  }
  const { source } = table;
  const result: RowChange[] = [];
  let unchecked = false;
  for (const change of changes) {
    const rest = change.table === source ? withoutKey(change, source, row.key) : change;
    if (rest !== change) ({ unchecked } = change);
    if (rest !== null) result.push(rest);
  }
  return gone ? result : [...result, { table: source, unchecked, ...net }];
}

/** A change of the primary key is a deletion of one row and an insertion of another. */
function withoutKey(change: RowChange, table: SourceTable, key: string): RowChange | null {
  const before = change.before !== null && keyOf(table, change.before) === key ? null : change.before;
  const after = change.after !== null && keyOf(table, change.after) === key ? null : change.after;
  if (before === change.before && after === change.after) return change;
  return before === null && after === null ? null : { ...change, before, after };
}

function rowId(table: SourceTable, key: string): string {
  return `${table.name} ${key}`;
}

function tablesOf({ tables, ordered }: Batch): Set<TableBatch> {
  return new Set([...tables.values(), ...ordered.map(({ table }) => table)]);
}

/** What the changes do to one row; undefined: nothing, or it is gone again. */
function netOf(changes: readonly RowChange[], table: SourceTable, key: string): RowNet | undefined {
  let net: RowNet | undefined;
  for (const change of changes) {
    if (change.table !== table) continue;
    if (change.before !== null && keyOf(table, change.before) === key) {
      net ??= { key, before: change.before, after: null };
      net.after = null;
    }
    if (change.after !== null && keyOf(table, change.after) === key) {
      net ??= { key, before: null, after: null };
      net.after = change.after;
    }
  }
  return net?.before === null && net.after === null ? undefined : net;
}

/** A row's unique values are free before everything else of the transaction; it comes back behind it. Its children stay: they are copied by themselves. */
function moveOutOfTheWay(settling: Settling, table: SourceTable, { key, before, after }: RowNet): void {
  const { transaction } = settling;
  const rest = transaction.changes.flatMap((change) => {
    const one = change.table === table ? withoutKey(change, table, key) : change;
    return one === null ? [] : [one];
  });
  const change = (was: Literal[] | null, is: Literal[] | null): RowChange[] =>
    was === is ? [] : [{ table, before: was, after: is, unchecked: true }];
  settling.transaction = {
    ...transaction,
    changes: [...change(before, null), ...rest, ...change(null, after)],
  };
}
