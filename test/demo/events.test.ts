import { expect, test } from 'vitest';
import { auditEvents } from '../../infra/demo/checker/events.js';
import type { EventBooks, Handling } from '../../infra/demo/checker/events.js';
import type { WriteRecord } from '../../infra/demo/load/journal.js';

const write = (id: string, status: 'acked' | 'unknown' = 'acked') =>
  ({ kind: 'deduction', id, status }) as WriteRecord;
const handling = (seq: number, before: number, redelivered = false): Handling => ({
  ...{ kind: 'coupon', key: 'c1', requestId: `r${seq}`, step: 'deduction' },
  ...{ seq, before, redelivered },
});
const audit = (journal: WriteRecord[], handlings: Handling[], written = 2): string[] => {
  const handled = Math.max(0, ...handlings.map(({ seq }) => seq));
  const books: EventBooks = { handlings, keys: [{ kind: 'coupon', key: 'c1', written, handled }] };
  return auditEvents(journal, books).map(({ kind, requestId }) => `${kind} ${requestId}`);
};

test('events in order are sound, also with a repeat that is marked', () => {
  const handlings = [handling(1, 0), handling(2, 1), handling(2, 2, true)];
  expect(audit([write('r1'), write('r2'), write('r3', 'unknown')], handlings)).toEqual([]);
});

test('what is left out, out of order, or repeated without its mark is found', () => {
  expect(audit([write('r1')], [handling(1, 0)])).toEqual(['lost null']);
  expect(audit([write('r1'), write('r9')], [handling(1, 0), handling(2, 1)])).toEqual(['lost r9']);
  expect(audit([], [handling(2, 0)])).toEqual(['disorder r2']);
  expect(audit([], [handling(1, 0), handling(2, 1), handling(2, 2)])).toEqual(['doubled r2']);
});
