import { describe, expect, test } from 'vitest';
import { auditLedger } from '../../infra/demo/checker/ledger.js';
import type { ShopBooks } from '../../infra/demo/checker/ledger.js';
import type { WriteRecord, WriteStatus } from '../../infra/demo/load/journal.js';
import { OPENING_BALANCE, OPENING_STOCK } from '../../infra/demo/schema.sql.js';

const sent = { gateway: 'g', sentAt: 0, endedAt: 1, latencyMs: 1, http: 200, servedBy: null, error: null };
const transfer = (status: WriteStatus): WriteRecord => ({
  ...{ ...sent, id: 't1', kind: 'transfer', status, region: 'east', userId: 'a' },
  ...{ toRegion: 'north', toUserId: 'b', amount: 10 },
});
const deduction = (status: WriteStatus): WriteRecord => ({
  ...{ ...sent, id: 'd1', kind: 'deduction', status, coupon: 'c', userId: 'a', quantity: 2 },
});

/** Books in which t1 and d1 were carried out. */
function books(): ShopBooks {
  return {
    deductions: [{ requestId: 'd1', coupon: 'c', userId: 'a', quantity: 2 }],
    inventory: [{ coupon: 'c', remaining: OPENING_STOCK - 2 }],
    entries: [
      { requestId: 't1', leg: 'debit', region: 'east', userId: 'a', amount: 10 },
      { requestId: 't1', leg: 'credit', region: 'north', userId: 'b', amount: 10 },
    ],
    wallets: [
      { region: 'east', userId: 'a', balance: OPENING_BALANCE - 10 },
      { region: 'north', userId: 'b', balance: OPENING_BALANCE + 10 },
    ],
    outbox: [{ requestId: 't1', state: 'done', toRegion: 'north', toUserId: 'b', amount: 10 }],
  };
}
const empty = (): ShopBooks => ({ deductions: [], inventory: [], entries: [], wallets: [], outbox: [] });

function kinds(
  journal: WriteRecord[],
  a: ShopBooks,
  b: ShopBooks = a,
  ownerOf: (unit: string) => string | undefined = (unit) => (unit.startsWith('north') ? 'dc-b' : 'dc-a'),
): string[] {
  const input = { journal, ownerOf, unitOf: (region: string) => `${region}/1` };
  const all = auditLedger({
    ...input,
    books: new Map([
      ['dc-a', a],
      ['dc-b', b],
    ]),
  });
  return [...new Set(all.map((finding) => finding.kind))];
}

describe('journal against books', () => {
  test('what was acknowledged and is there once is sound', () => {
    expect(kinds([transfer('acked'), deduction('acked')], books())).toEqual([]);
  });

  test('an unacknowledged write may be there once or not at all', () => {
    expect(kinds([transfer('unknown'), deduction('unknown')], books())).toEqual([]);
    expect(kinds([transfer('unknown'), deduction('unknown')], empty())).toEqual([]);
  });

  test('an acknowledged write that is not there is lost', () => {
    expect(kinds([transfer('acked')], empty())).toEqual(['lost']);
    expect(kinds([deduction('acked')], empty())).toEqual(['lost']);
  });

  test('it must be in the owner’s database: the other’s does not count', () => {
    expect(
      kinds([deduction('acked')], empty(), { ...empty(), ...books(), entries: [], wallets: [], outbox: [] }),
    ).toEqual(['lost']);
  });

  test('a unit that is open nowhere or twice loses its writes', () => {
    expect(
      kinds(
        [deduction('acked')],
        { ...books(), entries: [], wallets: [], outbox: [] },
        undefined,
        () => undefined,
      ),
    ).toEqual(['lost']);
  });

  test('an unacknowledged write that is there twice is doubled, too', () => {
    const twice = books();
    twice.deductions.push(twice.deductions[0]!);
    twice.inventory[0]!.remaining -= 2;
    expect(kinds([transfer('acked'), deduction('unknown')], twice)).toEqual(['doubled']);
  });

  test('a refused write that is there', () => {
    expect(kinds([transfer('acked'), deduction('refused')], books())).toEqual(['refused-but-there']);
  });

  test('a row of no request', () => {
    expect(kinds([transfer('acked')], books())).toEqual(['stray']);
  });

  test('other content than was acknowledged is lost', () => {
    expect(
      kinds([transfer('acked'), { ...deduction('acked'), quantity: 3 } as WriteRecord], books()),
    ).toEqual(['lost']);
  });

  test.each<['debit' | 'credit', WriteStatus]>([
    ['debit', 'unknown'],
    ['credit', 'unknown'],
    ['credit', 'acked'],
  ])('a transfer without its %s (%s) is torn', (leg, status) => {
    const torn = books();
    torn.entries = torn.entries.filter((row) => row.leg !== leg);
    torn.wallets = torn.wallets.filter((row) => (leg === 'debit' ? row.userId !== 'a' : row.userId !== 'b'));
    expect(kinds([transfer(status), deduction('acked')], torn)).toContain('torn');
  });

  test('a promise that was never kept is torn though no money is missing', () => {
    const pending = books();
    pending.outbox[0]!.state = 'pending';
    pending.entries.pop();
    pending.wallets.pop();
    expect(kinds([transfer('acked'), deduction('acked')], pending)).toEqual(['torn']);
  });

  test('a balance or stock that does not follow from the entries', () => {
    const rich = books();
    rich.wallets[0]!.balance += 1;
    expect(kinds([transfer('acked'), deduction('acked')], rich)).toEqual(['money']);
    const stocked = books();
    stocked.inventory[0]!.remaining += 1;
    expect(kinds([transfer('acked'), deduction('acked')], stocked)).toEqual(['money']);
  });
});
