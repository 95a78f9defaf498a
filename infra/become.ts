import { spawn } from 'node:child_process';
import { messageOf } from '../src/errors.js';
import { ensureAll } from './components/component.js';
import type { Component } from './components/component.js';
import { compiled } from './project.js';

/** Programs of one kind, by name, and what each runs on. */
interface Programs {
  /** `bench` in `npm run bench -- NAME`, and the folder below test/. */
  kind: string;
  usage: string;
  programs: Record<string, () => Component<unknown>[]>;
}

/** Sets up what a program of test/KIND runs on, then becomes it: its flags, signals and exit code. */
export async function become(kind: Programs): Promise<void> {
  try {
    process.exitCode = await run(kind);
  } catch (error) {
    process.stderr.write(`${messageOf(error)}\n`);
    process.exitCode = 1;
  }
}

async function run({ kind, usage, programs }: Programs): Promise<number> {
  const [name, ...args] = process.argv.slice(2);
  if (name === '--help' || name === '-h') {
    process.stdout.write(usage);
    return 0;
  }
  if (name === undefined || !Object.hasOwn(programs, name)) {
    process.stderr.write(
      name === undefined ? usage : `${kind} ${JSON.stringify(name)}: there is none of that name\n${usage}`,
    );
    return 2;
  }
  // What only says what it takes needs nothing set up.
  if (!args.includes('--help') && !args.includes('-h'))
    await ensureAll(programs[name]!(), (line) => process.stderr.write(`${line}\n`));
  const child = spawn(
    process.execPath,
    ['--enable-source-maps', compiled('test', kind, `${name}.js`), ...args],
    { stdio: 'inherit' },
  );
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, () => {
      if (signal !== 'SIGINT' || !process.stdin.isTTY) child.kill(signal);
    });
  }
  return new Promise((resolve) => {
    child.once('exit', (code, signal) => resolve(code ?? (signal === 'SIGINT' ? 130 : 1)));
  });
}
