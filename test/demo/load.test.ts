import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { Journal, readJournal, windowStats } from '../../infra/demo/load/journal.js';
import type { WriteRecord, WriteStatus } from '../../infra/demo/load/journal.js';
import { statusOf } from '../../infra/demo/load/generator.js';
import { randomOf, usersOf } from '../../infra/demo/load/users.js';
import { bucketOf } from '../../src/routing/units.js';

function write(sentAt: number, latencyMs: number, status: WriteStatus = 'acked'): WriteRecord {
  return {
    ...{ id: `r${sentAt}-${latencyMs}`, kind: 'deduction', coupon: 'c', userId: 'u', quantity: 1 },
    ...{ gateway: 'g', sentAt, endedAt: sentAt + latencyMs, latencyMs, status, http: 200 },
    ...{ servedBy: null, error: null },
  };
}

describe('window of a switchover as clients saw it', () => {
  const records = [
    write(100, 900), // ended before
    write(990, 50), // under way when it begins
    write(1100, 20),
    write(1200, 5, 'refused'),
    write(1900, 400), // still under way when it ends
    write(2100, 5000, 'unknown'), // began after
  ];

  test('takes every write that was under way in it', () => {
    expect(windowStats(records, 1010, 2000)).toEqual({
      ...{ writes: 4, acked: 3, refused: 1, unknown: 0, failed: 1 },
      ...{ slowestWriteMs: 400, medianWriteMs: 50 },
    });
  });

  test('says null for latencies when there was no write', () => {
    expect(windowStats(records, 50_000, 60_000)).toMatchObject({ writes: 0, slowestWriteMs: null });
  });
});

test('what an HTTP status says of a write', () => {
  expect([200, 202].map(statusOf)).toEqual(['acked', 'acked']);
  expect([400, 421, 422].map(statusOf)).toEqual(['refused', 'refused', 'refused']);
  // 409 and 5xx may have been carried out: to count them as refused would hide a doubled or stray write.
  expect([0, 302, 408, 409, 500, 502, 503, 504].map(statusOf)).toEqual(Array(8).fill('unknown'));
});

test('users fill every bucket of a region, each in its own', () => {
  const { byBucket } = usersOf('cn-east');
  expect(byBucket).toHaveLength(1000);
  for (const [bucket, users] of byBucket.entries()) {
    expect(users).toHaveLength(2);
    expect(users.map(bucketOf)).toEqual([bucket, bucket]);
  }
});

test('the same seed makes the same traffic', () => {
  const take = (seed: number): number[] => Array.from({ length: 5 }, randomOf(seed));
  expect(take(7)).toEqual(take(7));
  expect(take(7)).not.toEqual(take(8));
  expect(take(7).every((n) => n >= 0 && n < 1)).toBe(true);
});

describe('journal', () => {
  let directory: string;
  beforeEach(async () => {
    directory = await mkdtemp(path.join(tmpdir(), 'interlock-journal-'));
  });
  afterEach(() => rm(directory, { recursive: true, force: true }));

  test('is appended to, and read as written', async () => {
    const file = path.join(directory, 'journal.jsonl');
    for (const record of [write(1, 2), write(3, 4)]) {
      const journal = new Journal(file);
      journal.append(record);
      await journal.flush();
      await journal.close();
    }
    expect(await readJournal(file)).toEqual([write(1, 2), write(3, 4)]);
  });

  test('a torn line is named, not skipped', async () => {
    const file = path.join(directory, 'journal.jsonl');
    const { writeFile } = await import('node:fs/promises');
    await writeFile(file, `${JSON.stringify(write(1, 2))}\n{"id":"x`);
    await expect(readJournal(file)).rejects.toThrow(/journal\.jsonl, line 2/);
  });

  test('a last line that is being written is left out of a live journal', async () => {
    const file = path.join(directory, 'journal.jsonl');
    const { writeFile } = await import('node:fs/promises');
    await writeFile(file, `${JSON.stringify(write(1, 2))}\n{"id":"x`);
    expect(await readJournal(file, { live: true })).toEqual([write(1, 2)]);
    await writeFile(file, `{"id":"x\n${JSON.stringify(write(1, 2))}\n`);
    await expect(readJournal(file, { live: true })).rejects.toThrow(/journal\.jsonl, line 1/);
  });
});
