import { spawn } from 'node:child_process';
import { messageOf } from '../src/errors.js';
import { BENCHMARKS } from './components/bench.js';
import { ensureAll } from './components/component.js';
import { compiled } from './project.js';

/** `npm run bench -- NAME [flags]`: sets up what the benchmark runs on, then becomes it. */
async function main(): Promise<number> {
  const [name, ...args] = process.argv.slice(2);
  const usage = `usage: npm run bench -- NAME [--json]\nbenchmarks: ${Object.keys(BENCHMARKS).join(', ')}\n`;
  if (name === '--help' || name === '-h') {
    process.stdout.write(usage);
    return 0;
  }
  if (name === undefined || !Object.hasOwn(BENCHMARKS, name)) {
    process.stderr.write(
      name === undefined ? usage : `benchmark ${JSON.stringify(name)}: there is none of that name\n${usage}`,
    );
    return 2;
  }
  await ensureAll(BENCHMARKS[name]!(), (line) => process.stderr.write(`${line}\n`));
  const child = spawn(
    process.execPath,
    ['--enable-source-maps', compiled('test', 'bench', `${name}.js`), ...args],
    {
      stdio: 'inherit',
    },
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

try {
  process.exitCode = await main();
} catch (error) {
  process.stderr.write(`${messageOf(error)}\n`);
  process.exitCode = 1;
}
