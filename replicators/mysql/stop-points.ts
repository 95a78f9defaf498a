import { writeSync } from 'node:fs';

export type StopPoint = 'before-target-commit' | 'after-target-commit';

/**
 * Fault tests stop a link at a named point, not after a sleep: `INTERLOCK_LINK_STOP_AT=after-target-commit:3` blocks the thread
 * for ever at the third pass of that point and says so on stdout; the test kills the process there.
 */
export function stopPoints(setting: string | undefined): (point: StopPoint) => void {
  if (setting === undefined || setting === '') return () => undefined;
  const [wanted, count = '1'] = setting.split(':');
  let left = Number(count);
  return (point) => {
    if (point !== wanted || --left > 0) return;
    writeSync(1, `stopped at ${point}\n`);
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
  };
}
