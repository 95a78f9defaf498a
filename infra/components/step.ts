import { spawn } from 'node:child_process';
import { InterlockError, messageOf } from '../../src/errors.js';

/** One line about what is being done, for stderr. */
export type Progress = (line: string) => void;

export interface StepOptions {
  /** Said while it runs, with the seconds that have gone by. */
  title: string;
  timeoutMs: number;
  env?: NodeJS.ProcessEnv;
  cwd?: string;
}

const TAIL_BYTES = 4_000;
const SIGN_OF_LIFE_MS = 10_000;

/**
 * Runs a program of the set-up, with signs of life. It ends with this process.
 * @throws Unavailable with the end of what the program printed
 */
export async function runStep(
  program: string,
  args: readonly string[],
  options: StepOptions,
  progress: Progress,
): Promise<void> {
  const begin = performance.now();
  const seconds = (): string => `${((performance.now() - begin) / 1000).toFixed(0)} s`;
  progress(`${options.title} …`);
  const child = spawn(program, args, {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: options.env ?? process.env,
    cwd: options.cwd,
    detached: true,
  });
  let output = '';
  const keep = (chunk: Buffer): void => {
    output = (output + chunk.toString()).slice(-TAIL_BYTES);
  };
  child.stdout.on('data', keep);
  child.stderr.on('data', keep);
  // A group of its own, so that a build's children end with it.
  const kill = (): void => {
    if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
    try {
      process.kill(-child.pid, 'SIGKILL');
    } catch {
      // It ended just now.
    }
  };
  const life = setInterval(() => progress(`${options.title}: ${seconds()}`), SIGN_OF_LIFE_MS);
  const limit = setTimeout(kill, options.timeoutMs);
  process.once('exit', kill);
  try {
    const end = await new Promise<string | null>((resolve) => {
      child.once('error', (error) => resolve(messageOf(error)));
      child.once('close', (code, signal) => resolve(code === 0 ? null : (signal ?? `exit ${String(code)}`)));
    });
    if (end !== null) {
      throw new InterlockError(
        'Unavailable',
        `${options.title}: ${program} failed (${end}) after ${seconds()}\n${output.trim()}`,
      );
    }
    progress(`${options.title}: done in ${seconds()}`);
  } finally {
    clearInterval(life);
    clearTimeout(limit);
    process.removeListener('exit', kill);
  }
}
