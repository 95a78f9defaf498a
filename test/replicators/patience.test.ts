import { expect, it } from 'vitest';
import { Patience } from '../../replicators/mysql/patience.js';
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
