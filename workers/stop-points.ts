import { existsSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import path from 'node:path';

const POLL_MS = 5;

export type StopAt = (point: string) => Promise<void>;

/**
 * Fault tests stop a worker at a named point, not after a sleep. With INTERLOCK_STOP_DIR set: while the directory has a file of that name, a worker
 * that gets there writes `<point>.reached` and waits until the file is gone, or the test has killed the process. Undefined without the variable.
 */
export function stopPointsIn(directory: string | undefined): StopAt | undefined {
  if (directory === undefined || directory === '') return undefined;
  return async (point) => {
    const armed = path.join(directory, point);
    if (!existsSync(armed)) return;
    writeFileSync(`${armed}.reached`, String(process.pid));
    while (existsSync(armed)) await sleep(POLL_MS);
  };
}

/** The points `before-<activity>` and `after-<activity>`. */
export function withStopPoints<T extends object>(activities: T, pass: StopAt | undefined): T {
  if (pass === undefined) return activities;
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
