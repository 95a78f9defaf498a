import { existsSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import path from 'node:path';

const POLL_MS = 5;

/**
 * Fault tests stop a worker at a named point, not after a sleep. With INTERLOCK_STOP_DIR set, the points are `before-<activity>` and
 * `after-<activity>`: while the directory has a file of that name, an activity that gets there writes `<point>.reached` and waits until the file
 * is gone, or the test has killed the process. Without the variable the activities are returned as they are.
 */
export function withStopPoints<T extends object>(activities: T, directory: string | undefined): T {
  if (directory === undefined || directory === '') return activities;
  const pass = async (point: string): Promise<void> => {
    const armed = path.join(directory, point);
    if (!existsSync(armed)) return;
    writeFileSync(`${armed}.reached`, String(process.pid));
    while (existsSync(armed)) await sleep(POLL_MS);
  };
  return Object.fromEntries(
    Object.entries(activities).map(([name, activity]) => [
      name,
      async (...args: unknown[]): Promise<unknown> => {
        await pass(`before-${name}`);
        const result = await (activity as (...all: unknown[]) => Promise<unknown>)(...args);
        await pass(`after-${name}`);
        return result;
      },
    ]),
  ) as T;
}
