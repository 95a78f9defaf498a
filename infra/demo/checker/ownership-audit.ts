import { bucketOf, bucketUnit } from '../../../src/routing/units.js';
import { COUPON_UNIT, SHOP_SCHEMA, SHOP_TABLES } from '../schema.sql.js';
import { readBinlog } from './binlog-stream.js';
import type { BinlogPosition, BinlogTransaction, Row, RowChange, ServerAddress } from './binlog-stream.js';

export interface Ownership {
  state: string;
  owner: string;
  epoch: number;
}

export type AuditFindingKind =
  /** Written here by an application while the unit was not open here with the row's epoch. */
  | 'dual-owner'
  /** Arrived from the other DC with an older epoch after the unit had been opened here: it opened before it was drained. */
  | 'late'
  /** A change made here came back from the other DC. */
  | 'loop'
  /** A row's own columns contradict each other or the transaction. */
  | 'malformed';

export type UnitOfUser = (region: string, userId: string) => string;

/** Where there are no segments. */
export const bucketOfUser: UnitOfUser = (region, userId) => bucketUnit(region, bucketOf(userId));

export interface AuditFinding {
  kind: AuditFindingKind;
  dc: string;
  message: string;
  requestId: string | null;
}

const ROUTED = new Map(SHOP_TABLES.map((table) => [table.name, 'userId' in table.routing]));
const TABLES = {
  interlock: ['unit_state', 'link_checkpoint'],
  [SHOP_SCHEMA]: SHOP_TABLES.map(({ name }) => name),
};

/**
 * Holds every row that was written into one server against the ownership in the same server's binlog, at that position. A
 * transaction that begins with `interlock.link_checkpoint` was made by a link, every other by an application of this DC.
 */
export class OwnershipAudit {
  readonly findings: AuditFinding[] = [];
  /** Rows written here by applications. */
  localRows = 0;
  replicatedRows = 0;
  /** `unit epoch` of every opening here. */
  readonly opened = new Set<string>();
  private readonly units = new Map<string, Ownership>();
  private position: BinlogPosition | undefined;

  constructor(
    readonly dc: string,
    private readonly address: ServerAddress,
    private readonly unitOf: UnitOfUser = bucketOfUser,
  ) {}

  /** Reads on to where the server's binlog ends now. */
  async advance(): Promise<void> {
    this.position = await readBinlog(this.address, this.position, TABLES, (transaction) =>
      this.take(transaction),
    );
  }

  ownership(unit: string): Ownership | undefined {
    return this.units.get(unit);
  }

  /** One transaction of the binlog. */
  take(transaction: BinlogTransaction): void {
    const first = transaction.changes[0];
    const byLink = first !== undefined && first.schema === 'interlock' && first.table === 'link_checkpoint';
    for (const change of transaction.changes) {
      if (change.schema === 'interlock') {
        if (change.table === 'unit_state') this.takeUnitState(change);
      } else if (byLink) this.takeReplicated(change, transaction);
      else this.takeLocal(change, transaction);
    }
  }

  private takeUnitState({ before, after }: RowChange): void {
    if (after === null) {
      if (before !== null) this.units.delete(text(before['unit']));
      return;
    }
    const unit = text(after['unit']);
    const ownership = {
      state: text(after['state']),
      owner: text(after['owner']),
      epoch: Number(after['epoch']),
    };
    this.units.set(unit, ownership);
    if (ownership.state === 'open') this.opened.add(`${unit} ${ownership.epoch}`);
  }

  private takeLocal(change: RowChange, transaction: BinlogTransaction): void {
    const row = change.after;
    if (row === null) {
      this.find('malformed', change, transaction, 'the application deletes no rows, but one was deleted');
      return;
    }
    this.localRows++;
    const unit = unitOfRow(change.table, row, this.unitOf);
    const epoch = Number(row['epoch']);
    if (text(row['unit']) !== unit || text(row['dc']) !== this.dc) {
      this.find(
        'malformed',
        change,
        transaction,
        `the row says unit ${text(row['unit'])} in ${text(row['dc'])}, but it was written in ${this.dc} and its key maps to ${unit}`,
      );
    }
    const owned = this.units.get(unit);
    if (owned === undefined || owned.state !== 'open' || owned.owner !== this.dc || owned.epoch !== epoch) {
      const was =
        owned === undefined ? 'not there' : `${owned.state} (owner ${owned.owner}, epoch ${owned.epoch})`;
      this.find('dual-owner', change, transaction, `written with epoch ${epoch} while ${unit} was ${was}`);
    }
  }

  private takeReplicated(change: RowChange, transaction: BinlogTransaction): void {
    const row = change.after;
    if (row === null) {
      this.find(
        'malformed',
        change,
        transaction,
        'a deletion came over the link, but the application deletes no rows',
      );
      return;
    }
    this.replicatedRows++;
    if (text(row['dc']) === this.dc) {
      this.find('loop', change, transaction, 'a change that was made here came back over the link');
      return;
    }
    const unit = unitOfRow(change.table, row, this.unitOf);
    const owned = this.units.get(unit);
    if (owned?.state === 'open' && owned.owner === this.dc && Number(row['epoch']) < owned.epoch) {
      this.find(
        'late',
        change,
        transaction,
        `epoch ${Number(row['epoch'])} of ${unit} arrived after it had been opened here at epoch ${owned.epoch}`,
      );
    }
  }

  private find(
    kind: AuditFindingKind,
    change: RowChange,
    transaction: BinlogTransaction,
    what: string,
  ): void {
    const row = change.after ?? change.before!;
    const requestId = row['request_id'] === undefined ? null : text(row['request_id']);
    const { file, offset } = transaction.at;
    const message = `${this.dc} ${file}:${offset} ${change.schema}.${change.table} request ${requestId}: ${what}`;
    this.findings.push({ kind, dc: this.dc, message, requestId });
  }
}

/** Units that were open in both DCs under one epoch. */
export function openedTwice(a: OwnershipAudit, b: OwnershipAudit): string[] {
  return [...a.opened].filter((opening) => b.opened.has(opening));
}

/** The unit that a row's routing columns map to. */
function unitOfRow(table: string, row: Row, unitOf: UnitOfUser): string {
  if (ROUTED.get(table) !== true) return COUPON_UNIT;
  return unitOf(text(row['region']), text(row['user_id']));
}

function text(value: unknown): string {
  if (Buffer.isBuffer(value)) return value.toString();
  return typeof value === 'string' ? value : JSON.stringify(value);
}
