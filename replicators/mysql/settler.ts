import type { Connection } from 'mysql2/promise';
import { InterlockError } from '../../src/errors.js';
import type { ConflictPolicy } from '../../src/topology/schema.js';
import type { StatusTracker } from '../core/status.js';
import type { Applier, ApplyOptions, Piece } from './applier.js';
import { Batch } from './batch.js';
import { inTransaction, lockGeneration } from './checkpoint.js';
import { ConflictResolver } from './conflicts.js';
import type { ConflictOptions, Unsettled } from './conflicts.js';
import type { LinkSchema } from './link-schema.js';
import { Overtaken, notOvertaken } from './overtaken.js';
import type { Patience } from './patience.js';
import { keptChanges, partStatements } from './quarantine-parts.js';
import {
  addUnits,
  changed,
  conflictUpdate,
  keptAside,
  largeUpdate,
  openCounts,
  purgeDecided,
  quarantineInsert,
  quarantineUpdate,
  readConflicts,
  readQuarantine,
  readSetAside,
  restored,
} from './records.js';
import type { KeptAside, OpenCounts, QuarantineRecord } from './records.js';
import { changesOf, inPieces, spooledParts } from './spooled-transaction.js';
import { ChangeRefused, RecordChanged, ToQuarantine } from './target-errors.js';
import type { SqlError } from './target-errors.js';
import { newTransaction } from './transaction.js';
import type { RowChange, SourceTransaction } from './transaction.js';

const PURGE_MS = 3_600_000;
const ER_TRANS_CACHE_FULL = 1197;
const LEAST_BYTES = 4096;

export interface SettlerOptions extends Omit<ConflictOptions, 'tableOf' | 'changedSince'> {
  applier: Applier;
  target: Connection;
  generation: number;
  schema: LinkSchema;
  tracker: StatusTracker;
  /** Has the transaction that the target could not apply in time; it is taken out. */
  patience: Pick<Patience, 'tooSlow'>;
}

/** What becomes of transactions that do not fit: conflicts are decided, the rest is kept aside; and what a person has decided of them. */
export class Settler {
  private readonly resolver: ConflictResolver;
  /** Transactions that the link stopped before, by GTID. */
  private setAside: Awaited<ReturnType<typeof readSetAside>> = new Map();
  open: OpenCounts = { conflicts: 0, quarantined: 0 };
  private purgeAt = 0;
  private readonly overtaken: Overtaken;
  /** Of what a person has ordered: what is being tried. */
  trying: string | undefined;

  constructor(private readonly options: SettlerOptions) {
    this.overtaken = new Overtaken(options.target, options.config.link);
    this.resolver = new ConflictResolver({
      ...options,
      tableOf: ({ table }) => options.schema.tableOf(table),
      changedSince: (error) => options.schema.changedSince(error),
    });
  }

  async read(): Promise<void> {
    this.setAside = await readSetAside(this.options.target, this.options.config.link);
    await this.overtaken.read();
    await this.count();
  }

  /** Whether a transaction is not to be applied as others are. */
  concerns(transaction: SourceTransaction): boolean {
    const { notOwned, gtid } = transaction;
    return (
      notOwned.length > 0 ||
      this.setAside.has(gtid) ||
      this.isTooSlow(gtid) ||
      this.overtaken.concern(transaction)
    );
  }

  /** What its commit has to say in the records of those that were kept aside before it. */
  overtakes(transaction: SourceTransaction): ReturnType<Overtaken['by']> {
    return this.overtaken.by(transaction);
  }

  /** Whether it is to be left out. */
  isDiscarded({ gtid }: SourceTransaction): boolean {
    return this.setAside.get(gtid)?.state === 'discarded';
  }

  /** Whether it is not to be tried: `settle` leaves it out, or keeps it aside, with its rows. */
  isDecided(transaction: SourceTransaction): boolean {
    return this.isDiscarded(transaction) || this.isTooSlow(transaction.gtid);
  }

  private isTooSlow(gtid: string): boolean {
    return this.options.patience.tooSlow?.gtid === gtid;
  }

  private whySlow(): string {
    const { patience } = this.options;
    const { reason } = patience.tooSlow!;
    patience.tooSlow = undefined;
    return reason;
  }

  /** The statement that says of a transaction that was kept aside that it is applied; it changes a row unless that was decided otherwise. */
  applies({ gtid }: SourceTransaction): string | undefined {
    const known = this.setAside.get(gtid);
    return known && quarantineUpdate(known.id, known.state, 'applied');
  }

  /**
   * @param position everything up to and including the transaction
   * @throws InterlockError LinkStopped: it is kept aside now, and the link stands before it
   */
  async settle(transaction: SourceTransaction, position: string): Promise<void> {
    const { gtid } = transaction;
    const known = this.setAside.get(gtid);
    if (known?.state === 'discarded') await this.pass(transaction, position);
    else if (this.isTooSlow(gtid)) await this.quarantine(transaction, position, this.whySlow());
    else {
      const requires = this.applies(transaction);
      const { statements, done } = await this.overtakes(transaction);
      try {
        const unsettled = { transaction, position, requires, beside: statements };
        this.options.tracker.conflictsRecorded += await this.decided(unsettled);
        done();
      } catch (error) {
        if (error instanceof RecordChanged) {
          await this.read();
          await this.settle(transaction, position);
          return;
        }
        if (!(error instanceof ToQuarantine)) throw error;
        await this.quarantine(transaction, position, error.message);
      }
    }
    this.setAside.delete(gtid);
    await this.count();
  }

  /** @returns how many conflicts were recorded */
  private async decided(unsettled: Unsettled): Promise<number> {
    const { resolver } = this;
    const { schema } = this.options;
    const { transaction } = unsettled;
    const { spool } = transaction;
    if (spool === null) return resolver.settle(unsettled);
    const parts = async function* (): AsyncGenerator<SourceTransaction> {
      yield { ...transaction, units: [], markers: [], spool: null };
      yield* spooledParts(transaction, spool, schema);
    };
    return resolver.settleParts(unsettled, parts, inPieces(spool));
  }

  private async quarantine(transaction: SourceTransaction, position: string, reason: string): Promise<void> {
    const { config, target, generation, cut } = this.options;
    const { link } = config;
    const { gtid } = transaction;
    const keep = (bytes: number): KeptAside =>
      keptAside(transaction, (table, row) => this.options.ownership.unitOf(table, row), bytes);
    const kept = keep(cut.packetBytes);
    const statement = (what: KeptAside, passed: boolean): string =>
      quarantineInsert(link, { gtid, reason, passed, kept: what });
    let large = '';
    if (config.onQuarantine === 'go-on' && kept.whole && this.overtaken.isFull)
      large = ' So many rows are kept aside already that the link does not go on behind more.';
    else if (config.onQuarantine === 'go-on') {
      try {
        await this.leaveOut(transaction, position, this.keeping(transaction, kept, statement(kept, true)));
        await this.overtaken.add(gtid);
        return;
      } catch (error) {
        if (!(error instanceof ChangeRefused)) throw error;
        large = ` It cannot be kept (${error.message}), so the link does not go on behind it.`;
      }
    }
    const record = (what: KeptAside): Promise<void> =>
      inTransaction(target, async () => {
        await lockGeneration(target, link, generation);
        await target.query(statement(what, false));
      });
    await record(kept).catch((error: unknown) => {
      // What was too large for the binlog's cache is too large as a record, too.
      if ((error as SqlError).errno !== ER_TRANS_CACHE_FULL) throw error;
      return record(keep(LEAST_BYTES));
    });
    await this.count();
    throw new InterlockError(
      'LinkStopped',
      `${link} stopped before ${gtid}, which cannot be applied: ${reason}.${large} See it: interlock quarantine list '${link}'. Then mend the target and \`interlock replicate resume '${link}'\`, or leave it out with \`interlock quarantine discard\``,
      { details: { link, position: gtid, kind: 'quarantined' } },
    );
  }

  /** With the position behind a transaction: all of it, so that it can be applied without the source's stream. */
  private keeping(
    transaction: SourceTransaction,
    kept: KeptAside,
    record: string,
  ): Pick<ApplyOptions, 'beside' | 'rest'> {
    if (kept.whole) return { beside: [record] };
    const { config, ownership, cut } = this.options;
    const { link } = config;
    const { gtid, bytes } = transaction;
    const pieces = async function* (): AsyncGenerator<Piece> {
      const units = new Set<string>();
      const tables = new Set<string>();
      let rows = 0;
      const counted = async function* (): AsyncGenerator<RowChange[]> {
        for await (const changes of changesOf(transaction)) {
          addUnits(units, changes, (table, row) => ownership.unitOf(table, row));
          for (const { table } of changes) tables.add(`${table.schema}.${table.table}`);
          rows += changes.length;
          yield changes;
        }
      };
      yield { batch: new Batch(), beside: [record] };
      for await (const sql of partStatements({ link, gtid }, counted(), cut.packetBytes))
        yield { batch: new Batch(), beside: [sql] };
      yield { batch: new Batch(), beside: [largeUpdate(link, gtid, kept, { units, tables, rows })] };
    };
    return { rest: { ...inPieces({ bytes }), pieces } };
  }

  /** Goes on behind a transaction, without its changes of rows. */
  private async pass(transaction: SourceTransaction, position: string): Promise<void> {
    try {
      await this.leaveOut(transaction, position, {});
    } catch (error) {
      if (!(error instanceof ChangeRefused)) throw error;
      const { link } = this.options.config;
      throw new InterlockError('LinkStopped', `${link} stopped in ${transaction.gtid}: ${error.message}`, {
        cause: error,
        details: { link, position: transaction.gtid, kind: 'refused' },
      });
    }
  }

  /** @throws ChangeRefused */
  private async leaveOut(
    transaction: SourceTransaction,
    position: string,
    kept: Pick<ApplyOptions, 'beside' | 'rest'>,
  ): Promise<void> {
    const batch = new Batch();
    batch.add({ ...transaction, changes: [] }, ({ table }) => this.options.schema.tableOf(table));
    await this.options.applier.apply(batch, position, kept);
  }

  /** Whether something of the records has to be looked at, between two batches. */
  get isDue(): boolean {
    return this.open.conflicts + this.open.quarantined > 0 || performance.now() >= this.purgeAt;
  }

  /**
   * What a person has decided since: transactions to be tried again, rows to be as the source had them.
   * @returns whether there was something
   */
  async takeOrders(position: string): Promise<boolean> {
    const { config, target, tracker } = this.options;
    const { link } = config;
    if (performance.now() >= this.purgeAt) {
      const more = await purgeDecided(target, link);
      this.purgeAt = performance.now() + (more ? 0 : PURGE_MS);
    }
    if (this.open.conflicts + this.open.quarantined === 0) return false;
    let tried = false;
    for (const record of await readQuarantine(target, { link, states: ['retry'], oldest: true })) {
      const { id, gtid, changes, largeBytes } = record;
      const done = quarantineUpdate(id, 'retry', 'applied');
      tried = true;
      this.trying = gtid;
      const refused = this.isTooSlow(gtid)
        ? this.whySlow()
        : largeBytes === null
          ? await this.settleStored(gtid, restored(notOvertaken(changes)), position, done)
          : record.overtaken
            ? whyOvertaken(link, record.tables)
            : await this.settleLarge(record, largeBytes, position, done);
      this.trying = undefined;
      if (refused !== null) await changed(target, quarantineUpdate(id, 'retry', 'open', refused));
    }
    for (const { id, gtid, table, images } of await readConflicts(target, {
      link,
      states: ['wanted'],
      oldest: true,
    })) {
      const { columns, current, after } = images;
      const [schema, name] = table.split('.') as [string, string];
      const primaryKey = images.primaryKey.map((one) => columns.indexOf(one));
      const described = { schema, table: name, columns, primaryKey, types: [], lax: true };
      // Written over what the record has of the target: when that is another row by now, nobody has said which is right.
      const changes = restored([{ table: described, before: current, after, unchecked: true }]);
      const done = conflictUpdate(id, 'wanted', 'resolved', 'source');
      const refused = await this.settleStored(gtid, changes, position, done, 'quarantine');
      if (refused === null) continue;
      tracker.lastError = { code: 'Refused', message: `conflict ${id}: ${refused}` };
      await changed(target, conflictUpdate(id, 'wanted', 'open'));
    }
    await this.count();
    return tried;
  }

  /**
   * @param done has to change the record, else it was decided otherwise
   * @returns why it still cannot be applied; null: it is
   */
  private async settleStored(
    gtid: string,
    changes: RowChange[],
    position: string,
    done: string,
    policy?: ConflictPolicy,
  ): Promise<string | null> {
    const { tracker } = this.options;
    const read = await this.reading(gtid, policy);
    return refusalOf(async () => {
      tracker.conflictsRecorded += await this.resolver.settle({
        ...{ transaction: read(changes), position, requires: done, isOld: true },
        ...(policy !== undefined && { policy }),
      });
    });
  }

  /** The same, of one that is too large for a record: piece by piece, in one transaction of the target. */
  private async settleLarge(
    { id, gtid }: Pick<QuarantineRecord, 'id' | 'gtid'>,
    bytes: number,
    position: string,
    done: string,
  ): Promise<string | null> {
    const { target, tracker } = this.options;
    const read = await this.reading(gtid);
    const parts = async function* (): AsyncGenerator<SourceTransaction> {
      for await (const changes of keptChanges(target, id)) yield read(changes);
    };
    return refusalOf(async () => {
      const transaction = newTransaction(gtid, Date.now());
      tracker.conflictsRecorded += await this.resolver.settleParts(
        { transaction, position, requires: done, isOld: true },
        parts,
        inPieces({ bytes }),
      );
    });
  }

  /** @returns what was kept, as a transaction; throws ToQuarantine when the target has no place for it */
  private async reading(
    gtid: string,
    policy?: ConflictPolicy,
  ): Promise<(changes: RowChange[]) => SourceTransaction> {
    const { schema, ownership } = this.options;
    await schema.read();
    const ownerOf = ownership.snapshot();
    return (changes) => {
      const gone = changes.find(({ table }) => !schema.target.has(table.name));
      if (gone !== undefined) throw new ToQuarantine(`${gone.table.name} is not on the target`);
      // The unit may have moved since: then the target's row is the owner's. What a person wants is not asked for its owner.
      const notOwned = changes.filter(
        ({ table, before, after }) =>
          policy === undefined &&
          [before, after].some((row) => row !== null && ownerOf(table, row) === 'other'),
      );
      const transaction: SourceTransaction = { ...newTransaction(gtid, Date.now()), changes, notOwned };
      const misfit = changes.every(({ table }) => table.types.length > 0)
        ? schema.misfitOf(transaction)
        : null;
      if (misfit !== null) throw new ToQuarantine(misfit.text);
      return transaction;
    };
  }

  private async count(): Promise<void> {
    const { target, config, tracker } = this.options;
    this.open = await openCounts(target, config.link);
    if (this.open.quarantined === 0) this.overtaken.clear();
    Object.assign(tracker, this.open);
  }
}

/** @returns why it cannot be applied; null: it is, or somebody has decided otherwise */
async function refusalOf(work: () => Promise<void>): Promise<string | null> {
  try {
    await work();
    return null;
  } catch (error) {
    if (error instanceof RecordChanged) return null;
    if (error instanceof ToQuarantine) return error.message;
    if (error instanceof InterlockError && error.code === 'LinkStopped') return error.message;
    throw error;
  }
}

function whyOvertaken(link: string, tables: readonly string[]): string {
  return `later transactions have changed rows of its tables (${tables.join(', ')}), and it is too large to be tried again without those: interlock replicate resync '${link}' --tables ${tables.join(',')}, then discard it`;
}
