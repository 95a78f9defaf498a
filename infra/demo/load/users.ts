import { BUCKETS, bucketOf } from '../../../src/routing/units.js';

/** Users of a region by bucket: at least `perBucket` in each, so that every unit is written and has transfers inside it. */
export interface RegionUsers {
  region: string;
  byBucket: string[][];
}

export function usersOf(region: string, perBucket = 2): RegionUsers {
  const byBucket: string[][] = Array.from({ length: BUCKETS }, () => []);
  let missing = BUCKETS;
  for (let n = 1; missing > 0; n++) {
    const userId = `${region}-u${n}`;
    const bucket = byBucket[bucketOf(userId)]!;
    if (bucket.length >= perBucket) continue;
    bucket.push(userId);
    if (bucket.length === perBucket) missing--;
  }
  return { region, byBucket };
}

/** A small seeded generator (mulberry32): the same seed gives the same traffic. */
export function randomOf(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}
