import type { WriteRecord } from '../load/journal.js';
import { COUPON_UNIT, OPENING_BALANCE, OPENING_STOCK } from '../schema.sql.js';

/** The shop's rows of one database, as far as they are needed to settle accounts. */
export interface ShopBooks {
  deductions: { requestId: string; coupon: string; userId: string; quantity: number }[];
  entries: {
    requestId: string;
    leg: 'debit' | 'credit';
    region: string;
    userId: string;
    amount: number;
  }[];
  inventory: { coupon: string; remaining: number }[];
  wallets: { region: string; userId: string; balance: number }[];
  outbox: {
    requestId: string;
    state: 'pending' | 'done';
    toRegion: string;
    toUserId: string;
    amount: number;
  }[];
}

export type LedgerFindingKind =
  /** Acknowledged, and not in the owner's database, or with other content. */
  | 'lost'
  /** Carried out more than once. */
  | 'doubled'
  /** One half of a transfer without the other, and no promise of it. */
  | 'torn'
  /** Refused, and there all the same. */
  | 'refused-but-there'
  /** Of no request that was ever sent. */
  | 'stray'
  /** Balances or stocks do not follow from the entries. */
  | 'money'
  /** An event was handled before one that was written earlier. */
  | 'disorder';

export interface LedgerFinding {
  kind: LedgerFindingKind;
  requestId: string | null;
  message: string;
}

export interface LedgerInput {
  journal: readonly WriteRecord[];
  /** DC → its books. */
  books: ReadonlyMap<string, ShopBooks>;
  /** The DC in which the unit of a routing key or of the coupons is open; undefined when there is not exactly one. */
  ownerOf: (unit: string) => string | undefined;
  unitOf: (region: string, userId: string) => string;
}

type Leg = ShopBooks['entries'][number];

/** Holds the journal against the books of each write's owner. Pure. */
export function auditLedger(input: LedgerInput): LedgerFinding[] {
  const findings: LedgerFinding[] = [];
  const find = (kind: LedgerFindingKind, requestId: string | null, message: string): void => {
    findings.push({ kind, requestId, message });
  };
  const indexed = new Map([...input.books].map(([dc, books]) => [dc, index(books)]));
  const booksOf = (unit: string, requestId: string): Indexed | undefined => {
    const owner = input.ownerOf(unit);
    const books = owner === undefined ? undefined : indexed.get(owner);
    if (books === undefined) find('lost', requestId, `unit ${unit} is not open in exactly one data center`);
    return books;
  };

  const known = new Map<string, WriteRecord>();
  for (const write of input.journal) {
    if (known.has(write.id)) find('stray', write.id, 'the journal has this request id twice');
    known.set(write.id, write);
    // Counted in Redis: see visits.ts.
    if (write.kind === 'visit') continue;
    if (write.kind === 'deduction') {
      const books = booksOf(COUPON_UNIT, write.id);
      if (books === undefined) continue;
      const rows = books.deductions.get(write.id) ?? [];
      verdict(find, write, 'deduction', rows.length);
      const wrong = rows.find(
        (row) =>
          row.coupon !== write.coupon || row.userId !== write.userId || row.quantity !== write.quantity,
      );
      if (wrong) find('lost', write.id, `deduction has other content: ${JSON.stringify(wrong)}`);
      continue;
    }
    const fromUnit = input.unitOf(write.region, write.userId);
    const toUnit = input.unitOf(write.toRegion, write.toUserId);
    const sender = booksOf(fromUnit, write.id);
    const receiver = booksOf(toUnit, write.id);
    if (sender === undefined || receiver === undefined) continue;
    const debits = legs(sender, write.id, 'debit');
    const credits = legs(receiver, write.id, 'credit');
    verdict(find, write, 'debit', debits.length);
    if (credits.length > 1) find('doubled', write.id, `credit is there ${credits.length} times`);
    else if (credits.length !== Math.min(debits.length, 1)) {
      const promised = sender.outbox.get(write.id)?.state === 'pending';
      find(
        'torn',
        write.id,
        promised && debits.length === 1
          ? 'debit without its credit, which is promised in the outbox but was never carried out'
          : `${debits.length} debits, ${credits.length} credits and no promise in the outbox`,
      );
    }
    for (const leg of [...debits, ...credits]) {
      const [region, userId] =
        leg.leg === 'debit' ? [write.region, write.userId] : [write.toRegion, write.toUserId];
      if (leg.amount !== write.amount || leg.region !== region || leg.userId !== userId) {
        find('lost', write.id, `${leg.leg} has other content: ${JSON.stringify(leg)}`);
      }
    }
  }

  for (const [dc, books] of input.books) {
    const strays = new Set<string>();
    for (const row of [...books.deductions, ...books.entries]) {
      if (!known.has(row.requestId)) strays.add(row.requestId);
    }
    for (const id of strays) find('stray', id, `${dc} has rows of a request that was never sent`);
    for (const message of settle(books)) find('money', null, `${dc}: ${message}`);
  }
  return findings;
}

function verdict(
  find: (kind: LedgerFindingKind, requestId: string, message: string) => void,
  write: WriteRecord,
  what: string,
  times: number,
): void {
  if (times > 1) find('doubled', write.id, `${what} is there ${times} times`);
  else if (times === 0 && write.status === 'acked') {
    find(
      'lost',
      write.id,
      `${what} was acknowledged (${write.gateway}, HTTP ${write.http}) and is not there`,
    );
  } else if (times === 1 && write.status === 'refused') {
    find('refused-but-there', write.id, `${what} was refused (HTTP ${write.http}) and is there`);
  }
}

interface Indexed {
  deductions: Map<string, ShopBooks['deductions']>;
  entries: Map<string, Leg[]>;
  outbox: Map<string, ShopBooks['outbox'][number]>;
}

function index(books: ShopBooks): Indexed {
  return {
    deductions: groupBy(books.deductions, (row) => row.requestId),
    entries: groupBy(books.entries, (row) => row.requestId),
    outbox: new Map(books.outbox.map((row) => [row.requestId, row])),
  };
}

function groupBy<T>(rows: readonly T[], keyOf: (row: T) => string): Map<string, T[]> {
  const groups = new Map<string, T[]>();
  for (const row of rows) {
    const group = groups.get(keyOf(row));
    if (group) group.push(row);
    else groups.set(keyOf(row), [row]);
  }
  return groups;
}

function legs(books: Indexed, requestId: string, leg: 'debit' | 'credit'): Leg[] {
  return (books.entries.get(requestId) ?? []).filter((entry) => entry.leg === leg);
}

/** Every wallet and stock must be its opening plus its entries; all wallets together their openings less what is on its way. */
function settle(books: ShopBooks): string[] {
  const wrong: string[] = [];
  const wallets = new Map<string, number>();
  for (const { region, userId, leg, amount } of books.entries) {
    const key = `${region}/${userId}`;
    wallets.set(key, (wallets.get(key) ?? OPENING_BALANCE) + (leg === 'debit' ? -amount : amount));
  }
  let total = 0;
  for (const { region, userId, balance } of books.wallets) {
    const key = `${region}/${userId}`;
    const expected = wallets.get(key) ?? OPENING_BALANCE;
    wallets.delete(key);
    total += balance;
    if (balance !== expected) wrong.push(`wallet ${key} has ${balance}, its entries make ${expected}`);
  }
  for (const key of wallets.keys()) wrong.push(`wallet ${key} has entries but no row`);

  const credited = new Set(books.entries.filter(({ leg }) => leg === 'credit').map((row) => row.requestId));
  const onItsWay = books.outbox
    .filter((row) => !credited.has(row.requestId))
    .reduce((sum, row) => sum + row.amount, 0);
  const expectedTotal = books.wallets.length * OPENING_BALANCE - onItsWay;
  if (total !== expectedTotal) {
    wrong.push(`all wallets have ${total}, but ${expectedTotal} was put in (${onItsWay} on its way)`);
  }

  const stocks = new Map<string, number>();
  for (const { coupon, quantity } of books.deductions) {
    stocks.set(coupon, (stocks.get(coupon) ?? OPENING_STOCK) - quantity);
  }
  for (const { coupon, remaining } of books.inventory) {
    const expected = stocks.get(coupon) ?? OPENING_STOCK;
    stocks.delete(coupon);
    if (remaining !== expected)
      wrong.push(`coupon ${coupon} has ${remaining}, its deductions make ${expected}`);
  }
  for (const coupon of stocks.keys()) wrong.push(`coupon ${coupon} has deductions but no stock row`);
  return wrong;
}
