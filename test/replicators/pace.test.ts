import { expect, it } from 'vitest';
import { Pace } from '../../replicators/core/pace.js';

it('waits as long as rows or bytes take at the limit, whichever is longer', () => {
  const pace = new Pace({ maxRowsPerSecond: 100, maxBytesPerSecond: 1000 });
  expect(pace.most(5000, 4_000_000)).toEqual({ rows: 100, bytes: 1000 });
  expect(pace.waitMs(50, 100, 0)).toBe(500);
  expect(pace.waitMs(10, 1000, 500)).toBe(1000);
});

it('counts time that the applying took, and saves none up', () => {
  const pace = new Pace({ maxRowsPerSecond: 100 });
  expect(pace.waitMs(100, 0, 0)).toBe(1000);
  expect(pace.waitMs(100, 0, 60_000)).toBe(1000);
});

it('does not hold what has no limit', () => {
  const pace = new Pace({ maxBytesPerSecond: 1000 });
  expect(pace.most(5000, 4_000_000)).toEqual({ rows: 5000, bytes: 1000 });
  expect(pace.waitMs(1_000_000, 0, 0)).toBe(0);
});
