import { describe, expect, it } from 'vitest';
import { ChunkPace } from '../../replicators/mysql/chunk-pace.js';

describe('the pace of a copy', () => {
  it('takes fewer rows where a chunk takes long, and at most twice as many where it does not', () => {
    const pace = new ChunkPace();
    pace.begin(50);
    expect(pace.rows).toBe(2_000);
    pace.adapt(2_000, 100_000, 400);
    expect(pace.rows).toBe(1_000);
    pace.adapt(1_000, 50_000, 1);
    expect(pace.rows).toBe(2_000);
    pace.adapt(2_000, 100_000, 60_000);
    expect(pace.rows).toBe(100);
    // 4 MB at once, whatever the time.
    pace.adapt(100, 100 * 1024 * 1024, 1);
    expect(pace.rows).toBe(4);
    pace.begin(1024 * 1024);
    expect(pace.rows).toBe(4);
  });

  it('leaves a target alone in proportion to how much longer it took than it should', () => {
    const pace = new ChunkPace();
    expect(pace.restMs(2_000, null, 150, 100)).toBe(0);
    expect(pace.restMs(2_000, null, 800, 700)).toBe(500);
    expect(pace.restMs(2_000, null, 1_300, 1_200)).toBe(1_000);
    expect(pace.restMs(2_000, null, 90_000, 90_000)).toBe(5_000);
    // The rate that was asked for, when that is slower.
    expect(pace.restMs(2_000, 1_000, 500, 300)).toBe(1_500);
  });
});
