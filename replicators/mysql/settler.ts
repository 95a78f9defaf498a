import type { Connection } from 'mysql2/promise';
import { InterlockError } from '../../src/errors.js';
import type { ConflictPolicy } from '../../src/topology/schema.js';
import type { StatusTracker } from '../core/status.js';
import type { Applier } from './applier.js';
import { Batch } from './batch.js';
import { inTransaction, lockGeneration } from './checkpoint.js';
import { ConflictResolver } from './conflicts.js';
import type { ConflictOptions, Unsettled } from './conflicts.js';
import type { LinkSchema } from './link-schema.js';
import { Overtaken, notOvertaken } from './overtaken.js';
import {
  changed,
  conflictUpdate,
  keptAside,
  openCounts,
  purgeDecided,
  quarantineInsert,
  quarantineUpdate,
  readConflicts,
  readQuarantine,
  readSetAside,
  restored,
} from './records.js';
import type { KeptAside, OpenCounts } from './records.js';
import { inPieces, spooledParts } from './spooled-transaction.js';
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
}

/** What becomes of transactions that do not fit: conflicts are decided, the rest is kept aside; and what a person has decided of them. */
export class Settler {
  private readonly resolver: ConflictResolver;
  /** Transactions that the link stopped before, by GTID. */
  private setAside: Awaited<ReturnType<typeof readSetAside>> = new Map();
  open: OpenCounts = { conflicts: 0, quarantined: 0 };
  private purgeAt = 0;
  private readonly overtaken: Overtaken;

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
    return notOwned.length > 0 || this.setAside.has(gtid) || this.overtaken.concern(transaction);
  }

  /** What its commit has to say in the records of those that were kept aside before it. */
  overtakes(transaction: SourceTransaction): ReturnType<Overtaken['by']> {
    return this.overtaken.by(transaction);
  }

  /** Whether it is to be left out. */
  isDiscarded({ gtid }: SourceTransaction): boolean {
    return this.setAside.get(gtid)?.state === 'discarded';
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
    if (known?.state === 'discarded') await this.pass(transaction, position, []);
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
    const { config, target, generation, ownership, cut } = this.options;
    const { link } = config;
    const { gtid } = transaction;
    const keep = (bytes: number): KeptAside =>
      keptAside(transaction, (table, row) => ownership.unitOf(table, row), bytes);
    const kept = keep(cut.packetBytes);
    // What the record does not have whole can only be tried again from the source's stream, in its place.
    const goesOn = config.onQuarantine === 'go-on' && kept.whole && !this.overtaken.isFull;
    const statement = (what: KeptAside): string =>
      quarantineInsert(link, { gtid, reason, passed: goesOn, kept: what });
    if (goesOn) {
      await this.pass(transaction, position, [statement(kept)]);
      await this.overtaken.add(gtid);
      return;
    }
    const record = (what: KeptAside): Promise<void> =>
      inTransaction(target, async () => {
        await lockGeneration(target, link, generation);
        await target.query(statement(what));
      });
    await record(kept).catch((error: unknown) => {
      // What was too large for the binlog's cache is too large as a record, too.
      if ((error as SqlError).errno !== ER_TRANS_CACHE_FULL) throw error;
      return record(keep(LEAST_BYTES));
    });
    await this.count();
    const isFull = config.onQuarantine === 'go-on' && this.overtaken.isFull;
    const large = !kept.whole
      ? ' It is too large to be kept, so the link does not go on behind it.'
      : isFull
        ? ' So many rows are kept aside already that the link does not go on behind more.'
        : '';
    throw new InterlockError(
      'LinkStopped',
      `${link} stopped before ${gtid}, which cannot be applied: ${reason}.${large} See it: interlock quarantine list '${link}'. Then mend the target and \`interlock replicate resume '${link}'\`, or leave it out with \`interlock quarantine discard\``,
      { details: { link, position: gtid, kind: 'quarantined' } },
    );
  }

  /** Goes on behind a transaction, without its changes of rows. */
  private async pass(transaction: SourceTransaction, position: string, beside: string[]): Promise<void> {
    const { applier, schema } = this.options;
    const batch = new Batch();
    batch.add({ ...transaction, changes: [] }, ({ table }) => schema.tableOf(table));
    try {
      await applier.apply(batch, position, { beside });
    } catch (error) {
      if (!(error instanceof ChangeRefused)) throw error;
      const { link } = this.options.config;
      throw new InterlockError('LinkStopped', `${link} stopped in ${transaction.gtid}: ${error.message}`, {
        cause: error,
        details: { link, position: transaction.gtid, kind: 'refused' },
      });
    }
  }

  /** Whether something of the records has to be looked at, between two batches. */
  get isDue(): boolean {
    return this.open.conflicts + this.open.quarantined > 0 || performance.now() >= this.purgeAt;
  }

  /** What a person has decided since: transactions to be tried again, rows to be as the source had them. */
  async takeOrders(position: string): Promise<void> {
    const { config, target, tracker } = this.options;
    const { link } = config;
    if (performance.now() >= this.purgeAt) {
      const more = await purgeDecided(target, link);
      this.purgeAt = performance.now() + (more ? 0 : PURGE_MS);
    }
    if (this.open.conflicts + this.open.quarantined === 0) return;
    for (const { id, gtid, changes } of await readQuarantine(target, { link, states: ['retry'] })) {
      const done = quarantineUpdate(id, 'retry', 'applied');
      const refused = await this.settleStored(gtid, restored(notOvertaken(changes)), position, done);
      if (refused !== null) await changed(target, quarantineUpdate(id, 'retry', 'open', refused));
    }
    for (const { id, gtid, table, images } of await readConflicts(target, { link, states: ['wanted'] })) {
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
    const { schema, ownership, tracker } = this.options;
    await schema.read();
    const gone = changes.find(({ table }) => !schema.target.has(table.name));
    if (gone !== undefined) return `${gone.table.name} is not on the target`;
    const ownerOf = ownership.snapshot();
    // The unit may have moved since: then the target's row is the owner's. What a person wants is not asked for its owner.
    const notOwned = changes.filter(
      ({ table, before, after }) =>
        policy === undefined &&
        [before, after].some((row) => row !== null && ownerOf(table, row) === 'other'),
    );
    const transaction: SourceTransaction = { ...newTransaction(gtid, Date.now()), changes, notOwned };
    const misfit = changes.every(({ table }) => table.types.length > 0) ? schema.misfitOf(transaction) : null;
    if (misfit !== null) return misfit.text;
    try {
      tracker.conflictsRecorded += await this.resolver.settle({
        ...{ transaction, position, requires: done, isOld: true },
        ...(policy !== undefined && { policy }),
      });
      return null;
    } catch (error) {
      if (error instanceof RecordChanged) return null;
      if (error instanceof ToQuarantine) return error.message;
      if (error instanceof InterlockError && error.code === 'LinkStopped') return error.message;
      throw error;
    }
  }

  private async count(): Promise<void> {
    const { target, config, tracker } = this.options;
    this.open = await openCounts(target, config.link);
    if (this.open.quarantined === 0) this.overtaken.clear();
    Object.assign(tracker, this.open);
  }
}
