import { spawn } from 'node:child_process';
import { InterlockError } from '../../src/errors.js';
import { compiled } from '../project.js';

export interface CliResult<T> {
  exitCode: number;
  /** The JSON document, last on stdout. */
  document: T;
  /** Milliseconds since 1970. */
  startedAt: number;
  endedAt: number;
}

/**
 * Runs `interlock ARGS --json` as an operator would. A command that does not exit with one of `expected` is an error that carries what it
 * said.
 */
export async function interlockCli<T>(
  args: readonly string[],
  env: Record<string, string>,
  options: { expected?: readonly number[]; signal?: AbortSignal; timeoutMs?: number } = {},
): Promise<CliResult<T>> {
  const { expected = [0], timeoutMs = 120_000 } = options;
  const startedAt = Date.now();
  const child = spawn(process.execPath, [compiled('src', 'cli', 'main.js'), ...args, '--json'], {
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
    signal: AbortSignal.any([AbortSignal.timeout(timeoutMs), ...(options.signal ? [options.signal] : [])]),
  });
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (chunk: string) => (stdout += chunk));
  child.stderr.setEncoding('utf8').on('data', (chunk: string) => (stderr += chunk));
  const exitCode = await new Promise<number>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code) => resolve(code ?? -1));
  });
  const failed = (what: string): InterlockError =>
    new InterlockError(
      'Internal',
      `interlock ${args.join(' ')} ${what}\n${stderr.slice(-2000)}${stdout.slice(-2000)}`,
      { details: { exitCode } },
    );
  if (!expected.includes(exitCode)) throw failed(`ended with exit code ${exitCode}`);
  const document = lastDocument(stdout);
  if (document === undefined) throw failed('printed no JSON document');
  return { exitCode, document: document as T, startedAt, endedAt: Date.now() };
}

/** The last JSON document of a text: from a line that begins with `{` or `[` to the end. */
function lastDocument(text: string): unknown {
  const lines = text.trimEnd().split('\n');
  for (let first = 0; first < lines.length; first++) {
    if (!/^[[{]/.test(lines[first]!)) continue;
    try {
      return JSON.parse(lines.slice(first).join('\n')) as unknown;
    } catch {
      // A line of text that happened to begin like one.
    }
  }
  return undefined;
}
