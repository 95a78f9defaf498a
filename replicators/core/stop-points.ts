import { existsSync, writeSync } from 'node:fs';

/** Each side of: a read of the source's stream, a write and a commit at the target, what is said of a marker. */
export type StopPoint =
  | 'before-read'
  | 'after-read'
  | 'before-target-write'
  /** A part of a value that is too large for memory was sent. */
  | 'within-target-write'
  | 'before-target-commit'
  | 'after-target-commit'
  | 'before-acknowledge'
  | 'after-acknowledge';

/** Passes a point; `wanted` is the one at which a test stops the link, if any. */
export type StopAt = ((point: StopPoint) => void) & { wanted?: string | undefined };

const LOOK_MS = 20;

/**
 * Fault tests stop a link at a named point, not after a sleep: `INTERLOCK_LINK_STOP_AT=after-target-commit:3` blocks the thread
 * at the third pass of that point and says so on stdout; the test kills the process there. With `after-target-commit:3:FILE` it goes on when
 * the file is there.
 */
export function stopPoints(setting: string | undefined): StopAt {
  if (setting === undefined || setting === '') return () => undefined;
  const [wanted, count = '1', file] = setting.split(':');
  let left = Number(count);
  const stopAt: StopAt = (point) => {
    if (point !== wanted || --left !== 0) return;
    writeSync(1, `stopped at ${point}\n`);
    const nobody = new Int32Array(new SharedArrayBuffer(4));
    while (file === undefined || !existsSync(file)) Atomics.wait(nobody, 0, 0, LOOK_MS);
  };
  return Object.assign(stopAt, { wanted });
}
