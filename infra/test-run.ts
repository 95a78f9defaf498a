import { readFileSync, readdirSync, readlinkSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { identify, signalGroup } from './processes.js';
import { projectRoot } from './project.js';

/** What marks a process as started by a run of the tests: its environment, or (nginx overwrites that) a path below the run's own directory. */
export interface TestRun {
  id: string;
  /** The run's temporary directory. */
  directory: string;
}

export const TEST_RUN_VARIABLE = 'INTERLOCK_TEST_RUN';

export interface Tally {
  passed: number;
  failed: number;
}

/** Of one group of tests. */
export interface GroupTally extends Tally {
  /** What has failed, a line each: file, test, the first line of why. */
  failures: string[];
}

interface VitestReport {
  testResults: {
    name: string;
    status: string;
    message?: string;
    assertionResults: { status: string; fullName?: string; failureMessages?: string[] }[];
  }[];
}

/** From vitest's JSON report; null when there is none. */
export function tallyOf(file: string): GroupTally | null {
  let report: VitestReport;
  try {
    report = JSON.parse(readFileSync(file, 'utf8')) as VitestReport;
  } catch {
    return null;
  }
  const tally: GroupTally = { passed: 0, failed: 0, failures: [] };
  for (const { name, status, message, assertionResults } of report.testResults) {
    tally.passed += assertionResults.filter((test) => test.status === 'passed').length;
    const failed = assertionResults.filter((test) => test.status === 'failed');
    const failures = failed.map(({ fullName = '', failureMessages = [] }) =>
      failureOf(name, fullName, failureMessages[0]),
    );
    // A file that cannot be loaded, or whose hooks fail, has no failed test.
    if (failed.length === 0 && status === 'failed')
      failures.push(failureOf(name, 'the file itself', message));
    tally.failed += failures.length;
    tally.failures.push(...failures);
  }
  return tally;
}

function failureOf(file: string, test: string, message = ''): string {
  return `${path.relative(projectRoot, file)} > ${test}: ${message.split('\n', 1)[0]!.slice(0, 300)}`;
}

/** Ends what the tests started and did not end. Answers what it was. */
export async function sweep(run: TestRun): Promise<string[]> {
  const left: string[] = [];
  // What has just been told to end gets the time to do so.
  for (let wait = 0; wait < 20 && ours(run).length > 0; wait += 1) await sleep(100);
  for (let round = 0; round < 3; round += 1) {
    for (const { pid, command } of ours(run)) {
      const identity = identify(pid);
      if (identity === null) continue;
      if (round === 0) left.push(`pid ${pid} ${command}`);
      signalGroup(identity, run.directory, 'SIGKILL');
    }
    await sleep(100);
  }
  return left;
}

function ours(run: TestRun): { pid: number; command: string }[] {
  const found: { pid: number; command: string }[] = [];
  for (const entry of readdirSync('/proc')) {
    const pid = Number(entry);
    if (!Number.isInteger(pid) || pid === process.pid) continue;
    try {
      const command = readFileSync(`/proc/${entry}/cmdline`, 'utf8').replaceAll('\0', ' ').trim();
      const marked =
        command.includes(run.directory) ||
        readlinkSync(`/proc/${entry}/cwd`).startsWith(run.directory) ||
        readFileSync(`/proc/${entry}/environ`, 'utf8').includes(`${TEST_RUN_VARIABLE}=${run.id}`);
      if (marked && command !== '') found.push({ pid, command: command.slice(0, 120) });
    } catch {
      // It ended, or belongs to another user.
    }
  }
  return found;
}
