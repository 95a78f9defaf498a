import { execFile, spawn } from 'node:child_process';
import { cp, mkdir, mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, test } from 'vitest';

const run = promisify(execFile);
const root = path.resolve(import.meta.dirname, '../..');

let checkout: string;
let environment: NodeJS.ProcessEnv;

beforeAll(async () => {
  checkout = await mkdtemp(path.join(tmpdir(), 'interlock-walk-'));
  const { stdout } = await run('git', ['ls-files', '-co', '--exclude-standard', '-z'], {
    cwd: root,
    maxBuffer: 2 ** 26,
  });
  for (const file of stdout.split('\0').filter(Boolean)) {
    const target = path.join(checkout, 'project', file);
    await mkdir(path.dirname(target), { recursive: true });
    await cp(path.join(root, file), target).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'ENOENT') throw error; // listed, but deleted in the working tree
    });
  }
  environment = { ...process.env, INTERLOCK_LAB: path.join(checkout, 'lab') };
  // What the runner sets for itself must not reach a newcomer's shell.
  for (const name of Object.keys(environment)) {
    if (
      name.startsWith('VITEST') ||
      name.startsWith('npm_') ||
      name === 'NODE_ENV' ||
      name === 'INTERLOCK_TOPOLOGY'
    )
      delete environment[name];
  }
});

afterAll(async () => {
  const project = path.join(checkout, 'project');
  await run('node', ['bin/interlock.mjs', 'lab', 'down', '--wipe'], { cwd: project, env: environment }).catch(
    () => undefined,
  );
  await rm(checkout, { recursive: true, force: true });
});

/** The `sh` blocks of a document, in order. */
function commands(markdown: string): string[] {
  return [...markdown.matchAll(/^```sh\n([\s\S]*?)^```$/gm)].map((match) => match[1]!);
}

test('the commands of the README run as written, from a copy of the tree', { timeout: 900_000 }, async () => {
  const blocks = commands(await readFile(path.join(root, 'README.md'), 'utf8'));
  expect(blocks.length).toBeGreaterThan(1);
  const { code, output } = await shell(`set -eux\n${blocks.join('\n')}`);
  expect(code, output.slice(-6000)).toBe(0);
  expect(output).toContain('rolled-back');
});

/** Runs a script as a person's shell would, in one session, in the copy. */
async function shell(script: string): Promise<{ code: number | null; output: string }> {
  const child = spawn('bash', ['-c', script], {
    cwd: path.join(checkout, 'project'),
    env: environment,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let output = '';
  const keep = (chunk: Buffer): void => {
    output += chunk.toString();
  };
  child.stdout.on('data', keep);
  child.stderr.on('data', keep);
  const code = await new Promise<number | null>((resolve) => child.once('close', resolve));
  return { code, output };
}
