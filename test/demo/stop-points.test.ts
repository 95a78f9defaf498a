import { existsSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { stopPointsIn, withStopPoints } from '../../workers/stop-points.js';

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(path.join(tmpdir(), 'interlock-stop-'));
});
afterEach(() => rm(directory, { recursive: true, force: true }));

test('without a directory the activities are the same object', () => {
  const activities = { fence: async () => 1 };
  expect(withStopPoints(activities, undefined)).toBe(activities);
});

test.each(['before', 'after'])('stops %s an activity until the file is gone', async (when) => {
  const calls: string[] = [];
  const { fence } = withStopPoints(
    { fence: async (unit: string) => calls.push(unit) },
    stopPointsIn(directory),
  );
  expect(await fence('not armed')).toBe(1);
  const armed = path.join(directory, `${when}-fence`);
  await writeFile(armed, '');
  const running = fence('armed');
  await expect.poll(() => existsSync(`${armed}.reached`)).toBe(true);
  expect(calls).toEqual(when === 'before' ? ['not armed'] : ['not armed', 'armed']);
  await rm(armed);
  expect(await running).toBe(2);
});
