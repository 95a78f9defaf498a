import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { messageOf } from '../src/errors.js';
import { ensureAll } from './components/component.js';
import { mysqlComponent } from './components/mysql.js';
import { nginxComponent } from './components/nginx.js';
import { temporalTestServerComponent } from './components/temporal-test-server.js';
import { temporalComponent } from './components/temporal.js';
import { projectRoot } from './project.js';
import { TEST_RUN_VARIABLE, sweep, tallyOf } from './test-run.js';
import type { Tally, TestRun } from './test-run.js';

/**
 * `npm test`: sets up what the tests run on, then format, lint, types, unused code, then the groups of tests one after the other.
 * Its last line is `N passed, N failed`; a check that fails, a file that cannot be run and a process left behind each count as a failure.
 *
 *   npm test                                everything
 *   npm test -- --project unit fence        one group, files whose path contains `fence`
 *   npm test -- --no-check                  without format, lint, types, unused code
 */
const GROUPS = ['unit', 'workflow', 'integration', 'fault', 'walk'] as const;

const CHECKS: readonly { name: string; command: string[] }[] = [
  { name: 'format', command: ['prettier', '--check', '.'] },
  { name: 'lint', command: ['eslint', '.'] },
  { name: 'types', command: ['tsc', '--noEmit'] },
  { name: 'unused code', command: ['knip'] },
];

interface Run extends TestRun {
  interrupted: NodeJS.Signals | null;
  child: number | null;
}

async function main(): Promise<number> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { project: { type: 'string', multiple: true }, 'no-check': { type: 'boolean' } },
  });
  const groups = values.project ?? [...GROUPS];
  const unknown = groups.filter((group) => !GROUPS.some((known) => known === group));
  if (unknown.length > 0) {
    process.stderr.write(`--project ${unknown.join(', ')}: expected one of ${GROUPS.join(', ')}\n`);
    return 2;
  }
  const run: Run = {
    id: randomUUID(),
    directory: mkdtempSync(path.join(tmpdir(), 'interlock-test-')),
    interrupted: null,
    child: null,
  };
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, () => {
      run.interrupted = signal;
      if (run.child !== null) signalTree(run.child);
    });
  }
  const total: Tally = { passed: 0, failed: 0 };
  const lines: string[] = [];
  try {
    await ensureAll(
      [
        temporalComponent,
        mysqlComponent('mysql'),
        mysqlComponent('mariadb'),
        nginxComponent,
        temporalTestServerComponent,
      ],
      (line) => process.stderr.write(`${line}\n`),
    );
    if (values['no-check'] !== true && values.project === undefined && positionals.length === 0) {
      for (const { name, command } of CHECKS) {
        if (run.interrupted !== null) break;
        const begin = performance.now();
        heading(name);
        const [program = '', ...args] = command;
        const code = await execute(run, path.join(projectRoot, 'node_modules', '.bin', program), args);
        if (code !== 0) total.failed += 1;
        lines.push(`${name}: ${code === 0 ? 'ok' : 'FAILED'} (${seconds(begin)})`);
      }
    }
    for (const group of groups) {
      if (run.interrupted !== null) break;
      const begin = performance.now();
      heading(`tests: ${group}`);
      const tally = await runGroup(run, group, positionals);
      const left = await sweep(run);
      for (const process_ of left) console.error(`left behind by ${group}, ended now: ${process_}`);
      total.passed += tally.passed;
      total.failed += tally.failed + left.length;
      const leftBehind = left.length === 0 ? '' : `, ${left.length} processes left behind`;
      lines.push(`${group}: ${tally.passed} passed, ${tally.failed} failed${leftBehind} (${seconds(begin)})`);
    }
  } catch (error) {
    console.error(messageOf(error));
    total.failed += 1;
  } finally {
    await sweep(run);
    rmSync(run.directory, { recursive: true, force: true });
  }
  heading('summary');
  for (const line of lines) console.log(line);
  if (run.interrupted !== null) {
    console.error(`interrupted by ${run.interrupted}`);
    total.failed += 1;
  }
  console.log(`${total.passed} passed, ${total.failed} failed`);
  if (run.interrupted === 'SIGINT') return 130;
  return total.failed === 0 && total.passed > 0 ? 0 : 1;
}

function heading(text: string): void {
  console.log(`\n== ${text}`);
}

function seconds(begin: number): string {
  return `${((performance.now() - begin) / 1000).toFixed(1)} s`;
}

/** Runs a program in a process group of its own, so that an interruption reaches its children by way of us only. */
async function execute(run: Run, program: string, args: readonly string[]): Promise<number> {
  const child = spawn(program, args, {
    cwd: projectRoot,
    stdio: ['ignore', 'inherit', 'inherit'],
    detached: true,
    env: { ...process.env, [TEST_RUN_VARIABLE]: run.id, TMPDIR: run.directory },
  });
  run.child = child.pid ?? null;
  return new Promise((resolve) => {
    child.once('error', (error) => {
      console.error(`${program}: ${error.message}`);
      resolve(1);
    });
    child.once('exit', (code) => {
      run.child = null;
      resolve(code ?? 1);
    });
  });
}

async function runGroup(run: Run, group: string, files: readonly string[]): Promise<Tally> {
  const report = path.join(run.directory, `${group}.json`);
  const code = await execute(run, path.join(projectRoot, 'node_modules', '.bin', 'vitest'), [
    ...['run', '--project', group, '--passWithNoTests'],
    ...['--reporter=default', '--reporter=json', `--outputFile.json=${report}`],
    ...files,
  ]);
  const tally = tallyOf(report);
  if (tally === null) return { passed: 0, failed: code === 0 ? 0 : 1 };
  // An unhandled error outside of any test.
  if (code !== 0 && tally.failed === 0) tally.failed = 1;
  return tally;
}

function signalTree(leader: number): void {
  try {
    process.kill(-leader, 'SIGTERM');
  } catch {
    // It ended just now.
  }
}

process.exitCode = await main();
