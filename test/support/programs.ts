import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { existsSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

/** Root of the project, from the TypeScript or from the compiled test. */
export const ROOT = ((): string => {
  const here = fileURLToPath(new URL('../..', import.meta.url));
  return path.basename(here) === 'dist' ? path.dirname(here) : here;
})();

export interface Program {
  child: ChildProcess;
  /** Everything it has printed. */
  output: () => string;
  /** Waits until it prints `text`; fails when it ends before, or after `timeoutMs`. */
  prints: (text: string, timeoutMs?: number) => Promise<void>;
  kill: (signal: NodeJS.Signals) => Promise<void>;
  /** Exit code, when it has ended. */
  ended: Promise<number | null>;
}

/** Runs a compiled program of ours (a path below dist/). The caller ends it. */
export function startProgram(script: string, args: string[], env: Record<string, string> = {}): Program {
  const file = path.join(ROOT, 'dist', script);
  if (!existsSync(file)) throw new Error(`${file} is missing: npm run build`);
  return startCommand(process.execPath, [file, ...args], env);
}

export function startCommand(command: string, args: string[], env: Record<string, string> = {}): Program {
  const child = spawn(command, args, { env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  const waiting = new Set<() => void>();
  const add = (chunk: Buffer): void => {
    output += chunk.toString();
    for (const look of waiting) look();
  };
  child.stdout.on('data', add);
  child.stderr.on('data', add);
  const ended = new Promise<number | null>((resolve) => child.once('close', (code) => resolve(code)));
  void ended.then(() => waiting.forEach((look) => look()));
  const onExit = (): void => void child.kill('SIGKILL');
  process.once('exit', onExit);
  void ended.then(() => process.removeListener('exit', onExit));
  const gone = (): boolean => child.exitCode !== null || child.signalCode !== null;
  return {
    child,
    output: () => output,
    ended,
    prints: (text, timeoutMs = 60_000) =>
      new Promise((resolve, reject) => {
        const finish = (error?: Error): void => {
          clearTimeout(timer);
          waiting.delete(look);
          if (error) reject(error);
          else resolve();
        };
        const look = (): void => {
          if (output.includes(text)) finish();
          else if (gone()) finish(new Error(`ended before it printed ${JSON.stringify(text)}:\n${output}`));
        };
        const timer = setTimeout(
          () => finish(new Error(`not in ${timeoutMs} ms: ${JSON.stringify(text)}; it printed:\n${output}`)),
          timeoutMs,
        );
        waiting.add(look);
        look();
      }),
    kill: async (signal) => {
      if (!gone()) child.kill(signal);
      await ended;
    },
  };
}

/** Runs the command line to its end. */
export async function interlock(
  args: string[],
  env: Record<string, string> = {},
): Promise<{ code: number | null; stdout: string; stderr: string }> {
  const child = spawn(process.execPath, [path.join(ROOT, 'dist/src/cli/main.js'), ...args], {
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let [stdout, stderr] = ['', ''];
  child.stdout.on('data', (chunk: Buffer) => (stdout += chunk.toString()));
  child.stderr.on('data', (chunk: Buffer) => (stderr += chunk.toString()));
  const timer = setTimeout(() => child.kill('SIGKILL'), 120_000);
  const code = await new Promise<number | null>((resolve) => child.once('close', resolve));
  clearTimeout(timer);
  return { code, stdout, stderr };
}
