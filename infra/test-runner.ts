import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { messageOf } from '../src/errors.js';
import { ensureAll } from './components/component.js';
import { mysqlComponent } from './components/mysql.js';
import { nginxComponent } from './components/nginx.js';
import { kafkaComponent } from './components/kafka.js';
import { redisComponent } from './components/redis.js';
import { temporalTestServerComponent } from './components/temporal-test-server.js';
import { temporalComponent } from './components/temporal.js';
import { projectRoot } from './project.js';
import { TEST_RUN_VARIABLE, sweep, tallyOf } from './test-run.js';
import type { Tally, TestRun } from './test-run.js';

/**
 * `npm test`: sets up what the tests run on, then format, lint, types, unused code and the groups of tests, in three lanes side by side.
 * Its last line is `N passed, N failed`; a check that fails, a file that cannot be run and a process left behind each count as a failure.
 *
 *   npm test                                everything but the groups named `-more`
 *   npm test -- --all                       these, too
 *   npm test -- --project unit fence        one group, files whose path contains `fence`
 *   npm test -- --no-check                  without format, lint, types, unused code
 */
const GROUPS = ['unit', 'workflow', 'fault', 'integration', 'replication', 'redis', 'kafka', 'walk'] as const;
/** The longest files of a group; they run only with `--all`, or when they are named. */
const MORE = (['workflow', 'fault', 'integration', 'replication', 'redis', 'kafka'] as const).map(
  (group) => `${group}-more` as const,
);
/**
 * The groups that run beside the checks and the others. What they print comes when they end. Those that have a whole lab under load, fault and walk,
 * are in the first lane, one after the other: two of them at once are more than two cores can do within the time-outs of real servers.
 */
const LANES_BESIDE: readonly (readonly string[])[] = [
  ['integration', 'redis', 'kafka', 'integration-more', 'kafka-more'],
  ['replication', 'workflow', 'replication-more', 'redis-more', 'workflow-more'],
];

const CHECKS: readonly { name: string; command: string[] }[] = [
  { name: 'format', command: ['prettier', '--check', '.'] },
  { name: 'lint', command: ['eslint', '.'] },
  { name: 'types', command: ['tsc', '--noEmit'] },
  { name: 'unused code', command: ['knip'] },
];

/** A step that takes longer hangs; three times what the longest takes, the `-more` ones on a busy machine included. */
const LIMIT_MS = 40 * 60_000;
const KILL_MS = 30_000;

interface Step {
  name: string;
  /** Group of tests; else a check. */
  group?: string;
  program: string;
  args: string[];
}

/** Steps one after the other; what they start is marked as theirs. */
class Lane implements TestRun {
  readonly id = randomUUID();
  readonly directory = mkdtempSync(path.join(tmpdir(), 'interlock-test-'));
  readonly total: Tally = { passed: 0, failed: 0 };
  readonly lines: string[] = [];
  interrupted = false;
  private child: number | null = null;

  constructor(
    private readonly steps: readonly Step[],
    /** What the steps print is kept until each has ended. */
    private readonly quiet: boolean,
    private readonly everything: boolean,
  ) {}

  async run(): Promise<void> {
    try {
      for (const step of this.steps) {
        if (this.interrupted) break;
        await this.step(step);
      }
    } catch (error) {
      console.error(messageOf(error));
      this.total.failed += 1;
    } finally {
      await sweep(this);
      rmSync(this.directory, { recursive: true, force: true });
    }
  }

  interrupt(): void {
    this.interrupted = true;
    if (this.child !== null) signalTree(this.child, 'SIGTERM');
  }

  private async step({ name, group, program, args }: Step): Promise<void> {
    const begin = performance.now();
    const report = path.join(this.directory, `${name}.json`);
    if (!this.quiet) heading(name);
    else console.error(`${name}: begun`);
    const code = await this.execute(name, program, [
      ...args,
      ...(group === undefined ? [] : [`--outputFile.json=${report}`]),
    ]);
    const seconds = `${((performance.now() - begin) / 1000).toFixed(1)} s`;
    if (group === undefined) {
      if (code !== 0) this.total.failed += 1;
      this.lines.push(`${name}: ${code === 0 ? 'ok' : 'FAILED'} (${seconds})`);
      return;
    }
    const tally = tallyOf(report) ?? { passed: 0, failed: code === 0 ? 0 : 1, failures: [] };
    // A group of everything that has no test has lost its files.
    if (code === 0 && tally.passed === 0 && this.everything) tally.failed += 1;
    // An unhandled error outside of any test.
    if (code !== 0 && tally.failed === 0) tally.failed = 1;
    const left = await sweep(this);
    for (const process_ of left) console.error(`left behind by ${group}, ended now: ${process_}`);
    this.total.passed += tally.passed;
    this.total.failed += tally.failed + left.length;
    const leftBehind = left.length === 0 ? '' : `, ${left.length} processes left behind`;
    this.lines.push(
      `${name}: ${tally.passed} passed, ${tally.failed} failed${leftBehind} (${seconds})`,
      ...tally.failures.map((failure) => `  FAILED ${failure}`),
    );
  }

  /** Runs a program in a process group of its own, so that an interruption reaches its children by way of us only. */
  private async execute(name: string, program: string, args: readonly string[]): Promise<number> {
    const log = path.join(this.directory, `${name.replaceAll(/\W+/g, '-')}.log`);
    const output = this.quiet ? openSync(log, 'w') : 'inherit';
    const child = spawn(path.join(projectRoot, 'node_modules', '.bin', program), args, {
      cwd: projectRoot,
      stdio: ['ignore', output, output],
      detached: true,
      env: { ...process.env, [TEST_RUN_VARIABLE]: this.id, TMPDIR: this.directory },
    });
    this.child = child.pid ?? null;
    const limits = [
      setTimeout(() => {
        console.error(`${name}: hangs; ended after ${LIMIT_MS / 60_000} minutes`);
        signalTree(child.pid!, 'SIGTERM');
      }, LIMIT_MS),
      setTimeout(() => signalTree(child.pid!, 'SIGKILL'), LIMIT_MS + KILL_MS),
    ];
    const code = await new Promise<number>((resolve) => {
      child.once('error', (error) => {
        console.error(`${program}: ${error.message}`);
        resolve(1);
      });
      child.once('exit', (exitCode) => resolve(exitCode ?? 1));
    });
    for (const limit of limits) clearTimeout(limit);
    this.child = null;
    if (typeof output === 'number') {
      closeSync(output);
      heading(name);
      process.stdout.write(readFileSync(log));
    }
    return code;
  }
}

async function main(): Promise<number> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      project: { type: 'string', multiple: true },
      'no-check': { type: 'boolean' },
      all: { type: 'boolean' },
    },
  });
  const known: readonly string[] = [...GROUPS, ...MORE];
  const groups = values.project ?? [...GROUPS, ...(values.all === true ? MORE : [])];
  const unknown = groups.filter((group) => !known.includes(group));
  if (unknown.length > 0) {
    process.stderr.write(`--project ${unknown.join(', ')}: expected one of ${known.join(', ')}\n`);
    return 2;
  }
  const everything = values['no-check'] !== true && values.project === undefined && positionals.length === 0;
  const checks = everything
    ? CHECKS.map(({ name, command: [program = '', ...args] }) => ({ name, program, args }))
    : [];
  const tests = groups.map((group) => ({
    ...{ name: group, group, program: 'vitest' },
    args: [
      'run',
      '--project',
      group,
      ...(positionals.length === 0 ? [] : ['--passWithNoTests']),
      '--reporter=default',
      '--reporter=json',
      ...positionals,
    ],
  }));
  const beside = everything
    ? LANES_BESIDE.map((names) => tests.filter(({ group }) => names.includes(group)))
    : [];
  const first = [...checks, ...tests.filter((step) => !beside.flat().includes(step))];
  const lanes = [
    new Lane(first, false, everything),
    ...beside.map((steps) => new Lane(steps, true, everything)),
  ];
  let interrupted: NodeJS.Signals | null = null;
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, () => {
      interrupted = signal;
      for (const lane of lanes) lane.interrupt();
    });
  }
  const total: Tally = { passed: 0, failed: 0 };
  try {
    await ensureAll(
      [
        temporalComponent,
        mysqlComponent('mysql'),
        mysqlComponent('mariadb'),
        nginxComponent,
        redisComponent,
        kafkaComponent,
        temporalTestServerComponent,
      ],
      (line) => process.stderr.write(`${line}\n`),
    );
  } catch (error) {
    console.error(messageOf(error));
    total.failed += 1;
    for (const lane of lanes) lane.interrupt();
  }
  await Promise.all(lanes.map((lane) => lane.run()));
  heading('summary');
  for (const lane of lanes) {
    total.passed += lane.total.passed;
    total.failed += lane.total.failed;
    for (const line of lane.lines) console.log(line);
  }
  if (interrupted !== null) {
    console.error(`interrupted by ${String(interrupted)}`);
    total.failed += 1;
  }
  console.log(`${total.passed} passed, ${total.failed} failed`);
  if (interrupted === 'SIGINT') return 130;
  return total.failed === 0 && total.passed > 0 ? 0 : 1;
}

function heading(text: string): void {
  console.log(`\n== ${text}`);
}

function signalTree(leader: number, signal: NodeJS.Signals): void {
  try {
    process.kill(-leader, signal);
  } catch {
    // It ended just now.
  }
}

process.exitCode = await main();
