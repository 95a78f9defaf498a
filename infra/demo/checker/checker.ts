import mysql from 'mysql2/promise';
import type { Connection, RowDataPacket } from 'mysql2/promise';
import type { RedisAddress } from '../../../src/topology/redis-address.js';
import { readJournal } from '../load/journal.js';
import type { ServerAddress } from './binlog-stream.js';
import { auditEvents, readEvents, waitUntilConsumed, waitUntilHandled } from './events.js';
import { auditLedger } from './ledger.js';
import type { LedgerFindingKind, ShopBooks } from './ledger.js';
import { auditVisits } from './visits.js';
import { OwnershipAudit, bucketOfUser, openedTwice } from './ownership-audit.js';
import type { AuditFindingKind, UnitOfUser } from './ownership-audit.js';
import { compareTables, waitUntilEqual } from './tables.js';
import type { TableComparison } from './tables.js';

export interface CheckerOptions {
  /** Both DCs and an account of each that reads all tables and the binlog. */
  datacenters: { dc: string; address: ServerAddress }[];
  /** The Redis stores in which visits are counted; default none. */
  redis?: { dc: string; address: RedisAddress }[];
  /** There is a Kafka, and every write has its event. */
  events?: boolean;
  /** The load generator's journal. */
  journal: string;
  /** For data without epochs: says who owns a unit, and no binlog is held against `unit_state`. */
  ownerOf?: (unit: string) => string;
  /** The unit of a wallet; default: by region and bucket alone. */
  unitOf?: UnitOfUser;
  /** How long promises may take to be kept and links to converge, once the load has paused. */
  settleTimeoutMs?: number;
}

export interface CheckReport {
  ok: boolean;
  ackedWrites: number;
  /** Acknowledged writes that are not in the owner's database, or with other content. */
  lostWrites: number;
  doubledWrites: number;
  /** Rows written while their unit was not open there with their epoch, and units open in two DCs under one epoch. */
  dualOwnerWrites: number;
  /** Changes that arrived from the old owner after the new one had opened. */
  lateChanges: number;
  tornTransfers: number;
  loops: number;
  /** Wallets or stocks that do not follow from their entries. */
  moneyErrors: number;
  /** Times that an event was handled, and those of them that were marked as repeats. */
  handledEvents: number;
  redeliveredEvents: number;
  /** Refused writes that are there, rows of no request, malformed rows, events out of order. */
  otherErrors: number;
  /** Both databases have equal tables. */
  converged: boolean;
  tables: TableComparison[];
  /** Rows whose binlog position was held against the ownership there. */
  auditedRows: number;
  /** The first 50 findings, in words. */
  findings: string[];
  tookMs: number;
}

/**
 * Holds what clients were told against what both databases have. Run it with the load paused; it waits until the outbox is empty
 * and the links have converged. It keeps its place in the binlogs: the next `check` reads on from there.
 */
export class Checker {
  private readonly audits: OwnershipAudit[];

  constructor(private readonly options: CheckerOptions) {
    this.audits =
      options.ownerOf === undefined
        ? options.datacenters.map(({ dc, address }) => new OwnershipAudit(dc, address, options.unitOf))
        : [];
  }

  check(): Promise<CheckReport> {
    const started = performance.now();
    return this.connected((connections) => this.run(connections, started));
  }

  /** Returns when the consumers of all data centers handle events. */
  consuming(): Promise<void> {
    return this.connected((connections) => waitUntilConsumed(connections, this.timeoutMs));
  }

  private get timeoutMs(): number {
    return this.options.settleTimeoutMs ?? 90_000;
  }

  private async connected<R>(work: (connections: Connection[]) => Promise<R>): Promise<R> {
    const connections: Connection[] = [];
    try {
      for (const { address } of this.options.datacenters) {
        connections.push(await mysql.createConnection({ ...address, dateStrings: true }));
      }
      return await work(connections);
    } finally {
      await Promise.allSettled(connections.map((connection) => connection.end()));
    }
  }

  private async run(connections: Connection[], started: number): Promise<CheckReport> {
    const { timeoutMs } = this;
    const [a, b] = connections as [Connection, Connection];
    await waitUntilPromisesKept([a, b], timeoutMs);
    if (this.options.events === true) await waitUntilHandled([a, b], timeoutMs);
    await waitUntilEqual(a, b, timeoutMs);
    const tables = await compareTables(a, b);
    const converged = tables.every((table) => table.equal);

    const [journal] = await Promise.all([
      readJournal(this.options.journal),
      ...this.audits.map((audit) => audit.advance()),
    ]);
    const books = new Map<string, ShopBooks>();
    const open = new Map<string, string[]>();
    for (const [index, { dc }] of this.options.datacenters.entries()) {
      books.set(dc, await readBooks(connections[index]!));
      if (this.options.ownerOf !== undefined) continue;
      for (const unit of await openUnits(connections[index]!)) {
        open.set(unit, [...(open.get(unit) ?? []), dc]);
      }
    }
    const ledger = auditLedger({
      journal,
      books,
      ownerOf: (unit) => {
        if (this.options.ownerOf !== undefined) return this.options.ownerOf(unit);
        const owners = open.get(unit) ?? [];
        return owners.length === 1 ? owners[0] : undefined;
      },
      unitOf: this.options.unitOf ?? bucketOfUser,
    });

    const visits = await auditVisits({
      ...{ journal, stores: this.options.redis ?? [], timeoutMs },
      ownerOf: (unit) => (open.get(unit)?.length === 1 ? open.get(unit)![0] : undefined),
      unitOf: this.options.unitOf ?? bucketOfUser,
    });
    const eventBooks = this.options.events === true ? await readEvents(a) : undefined;
    const events = eventBooks === undefined ? [] : auditEvents(journal, eventBooks);
    const written = [...ledger, ...visits, ...events];
    const audited = this.audits.flatMap((audit) => audit.findings);
    const twice = [
      ...(this.audits.length === 2 ? openedTwice(this.audits[0]!, this.audits[1]!) : []),
      ...[...open].filter(([, owners]) => owners.length > 1).map(([unit]) => unit),
    ];
    const inLedger = (...kinds: LedgerFindingKind[]): number =>
      written.filter((finding) => kinds.includes(finding.kind)).length;
    const inBinlog = (...kinds: AuditFindingKind[]): number =>
      audited.filter((finding) => kinds.includes(finding.kind)).length;
    const findings = [
      ...written.map((finding) => `${finding.kind}: request ${finding.requestId}: ${finding.message}`),
      ...audited.map((finding) => `${finding.kind}: ${finding.message}`),
      ...twice.map((opening) => `dual-owner: ${opening} was open in both data centers`),
      ...tables.flatMap((table) => table.differences.map((difference) => `not converged: ${difference}`)),
    ];
    return {
      ok: findings.length === 0,
      ackedWrites: journal.filter((write) => write.status === 'acked').length,
      lostWrites: inLedger('lost'),
      doubledWrites: inLedger('doubled'),
      dualOwnerWrites: inBinlog('dual-owner') + twice.length,
      lateChanges: inBinlog('late'),
      tornTransfers: inLedger('torn'),
      loops: inBinlog('loop'),
      moneyErrors: inLedger('money'),
      handledEvents: eventBooks?.handlings.length ?? 0,
      redeliveredEvents: eventBooks?.handlings.filter(({ redelivered }) => redelivered).length ?? 0,
      otherErrors: inLedger('refused-but-there', 'stray', 'disorder') + inBinlog('malformed'),
      converged,
      tables,
      auditedRows: this.audits.reduce((sum, audit) => sum + audit.localRows, 0),
      findings: findings.slice(0, 50),
      tookMs: Math.round(performance.now() - started),
    };
  }
}

/** With the load paused, the services carry out what the outbox promises; a promise that stays is found by the ledger. */
async function waitUntilPromisesKept(connections: Connection[], timeoutMs: number): Promise<void> {
  const deadline = Date.now() + timeoutMs;
  for (;;) {
    let pending = 0;
    for (const connection of connections) {
      const [rows] = await connection.query<RowDataPacket[]>(
        `SELECT COUNT(*) AS n FROM shop.wallet_outbox WHERE state = 'pending'`,
      );
      pending += Number(rows[0]!['n']);
    }
    if (pending === 0 || Date.now() > deadline) return;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

async function openUnits(connection: Connection): Promise<string[]> {
  const [rows] = await connection.query<RowDataPacket[]>(
    `SELECT unit FROM interlock.unit_state WHERE state = 'open'`,
  );
  return rows.map((row) => String(row['unit']));
}

async function readBooks(connection: Connection): Promise<ShopBooks> {
  const all = async <T>(sql: string): Promise<T[]> => {
    const [rows] = await connection.query<RowDataPacket[]>(sql);
    return rows as unknown as T[];
  };
  return {
    deductions: await all(
      'SELECT request_id AS requestId, coupon, user_id AS userId, quantity FROM shop.coupon_deduction',
    ),
    entries: await all(
      'SELECT request_id AS requestId, leg, region, user_id AS userId, amount FROM shop.wallet_entry',
    ),
    inventory: await all('SELECT coupon, remaining FROM shop.coupon_inventory'),
    wallets: await all('SELECT region, user_id AS userId, balance FROM shop.wallet'),
    outbox: await all(
      `SELECT request_id AS requestId, state, to_region AS toRegion, to_user_id AS toUserId, amount
       FROM shop.wallet_outbox`,
    ),
  };
}
