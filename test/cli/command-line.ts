import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { vi } from 'vitest';
import { main } from '../../src/cli/main.js';
import { exampleDocument } from '../support/topology.js';

export interface Ran {
  exitCode: number;
  stdout: string;
  stderr: string;
}

/** Runs a command line in this process. */
export async function interlock(...argv: string[]): Promise<Ran> {
  const ran: Ran = { exitCode: -1, stdout: '', stderr: '' };
  const spies = (['stdout', 'stderr'] as const).map((name) =>
    vi.spyOn(process[name], 'write').mockImplementation((chunk: string | Uint8Array) => {
      ran[name] += String(chunk);
      return true;
    }),
  );
  const before = process.exitCode;
  process.exitCode = undefined;
  try {
    ran.exitCode = await main(argv);
  } finally {
    process.exitCode = before;
    for (const spy of spies) spy.mockRestore();
  }
  return ran;
}

/** The error of a command line with `--json`, and its exit code. */
export async function failure(
  ...argv: string[]
): Promise<{ exitCode: number; code: string; message: string; details: Record<string, unknown> }> {
  const { exitCode, stdout } = await interlock(...argv);
  const { error } = JSON.parse(stdout) as {
    error: { code: string; message: string; details: Record<string, unknown> };
  };
  return { exitCode, ...error };
}

/** A topology file of which nothing answers: what needs a server fails with exit code 1, not 2. */
export async function silentTopology(
  change: (document: Record<string, unknown>) => void = () => {},
): Promise<{ file: string; remove(): Promise<void> }> {
  const directory = await mkdtemp(path.join(tmpdir(), 'interlock-cli-'));
  const file = path.join(directory, 'topology.yaml');
  const document = { ...exampleDocument(), temporal: { address: '127.0.0.1:1' } };
  change(document);
  await writeFile(file, JSON.stringify(document).replace(/"port":2([12])003/g, '"port":$1'));
  return { file, remove: () => rm(directory, { recursive: true, force: true }) };
}
