import { setTimeout as wait } from 'node:timers/promises';
import type { TestWorkflowEnvironment } from '@temporalio/testing';

/** So much of a time-out passes in real time: longer than the server needs to hear that time is locked again, also on a machine that is busy. */
const REAL_MS = 1_000;

let last: Promise<unknown> = Promise.resolve();

/** One at a time. Hazard: two sleeps at once unlock more than is locked, and the test server breaks. */
function inTurn<T>(run: () => Promise<T>): Promise<T> {
  const turn = last.then(run);
  last = turn.catch(() => undefined);
  return turn;
}

/** Time passes: at once when no activity is scheduled or under way. */
export function skip(env: TestWorkflowEnvironment, ms: number): Promise<void> {
  return inTurn(() => env.sleep(ms));
}

/**
 * Lets the time of one activity run out, the only one that is under way; `atMs` is when, on the server's clock. Hazard: the test server
 * locks time for an activity until it has answered or timed out, and breaks when it finds this lock gone: it is taken away for the
 * skipped time only, and the time-out itself passes in real time.
 */
export async function passTimeout(env: TestWorkflowEnvironment, atMs: number): Promise<void> {
  const { testService } = env.connection;
  if (!testService) throw new Error('this server does not skip time');
  await inTurn(async () => {
    const skipMs = atMs - (await env.currentTimeMs()) - REAL_MS;
    if (skipMs <= 0) return;
    await testService.unlockTimeSkipping({});
    try {
      await env.sleep(skipMs);
    } finally {
      await testService.lockTimeSkipping({});
    }
  });
  while ((await env.currentTimeMs()) <= atMs) await wait(20);
  // The workflow's turn.
  await wait(50);
}
