import { expect, it } from 'vitest';
import { Patience, SlowStatement } from '../../replicators/mysql/patience.js';
import { NoAnswer } from '../../replicators/mysql/session.js';

it('gives a statement more time with each try at the same place, up to a bound, and less again behind it', () => {
  const patience = new Patience();
  const times = [60, 120, 240, 480, 960, 960].map((seconds) => seconds * 1000);
  for (const answerMs of times) {
    patience.ended(new NoAnswer(patience.answerMs), 'a:1');
    expect(patience.answerMs).toBe(answerMs);
  }
  patience.ended(new NoAnswer(5_000), 'a:1');
  patience.ended(new Error('reset'), 'a:1');
  expect(patience.answerMs).toBe(960_000);
  patience.ended(new Error('reset'), 'a:2');
  expect(patience.answerMs).toBe(60_000);
});

it('does not try again what the target works on for longer than the most; a wait for a lock is none', () => {
  const patience = new Patience(100);
  const slow = (gtid: string | null, waits = false): SlowStatement =>
    new SlowStatement(patience.answerMs, gtid, 'slow', waits);
  for (const [gtid, waits] of [
    ['g:1', true],
    [null, false],
  ] as const) {
    for (let i = 0; i < 8; i++) patience.ended(slow(gtid, waits), 'a:1');
    expect(patience).toMatchObject({ answerMs: 1_600, isLast: true, tooSlow: undefined });
  }
  patience.ended(slow('g:1'), 'a:1');
  expect(patience.tooSlow).toEqual({ gtid: 'g:1', reason: 'slow' });
  // Where the stream has gone on, an attempt that ended by something else is of something else.
  expect(patience.slow).toBeDefined();
  patience.ended(new Error('reset'), 'a:2');
  expect(patience).toMatchObject({ answerMs: 100, slow: undefined });
});
