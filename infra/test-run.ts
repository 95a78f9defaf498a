import { readFileSync, readdirSync, readlinkSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { identify, signalGroup } from './processes.js';

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

interface VitestReport {
  testResults: { name: string; status: string; assertionResults: { status: string }[] }[];
}

/** Counts from vitest's JSON report; null when there is none. */
export function tallyOf(file: string): Tally | null {
  let report: VitestReport;
  try {
    report = JSON.parse(readFileSync(file, 'utf8')) as VitestReport;
  } catch {
    return null;
  }
  const tally: Tally = { passed: 0, failed: 0 };
  for (const { status, assertionResults } of report.testResults) {
    const failed = assertionResults.filter((test) => test.status === 'failed').length;
    tally.passed += assertionResults.filter((test) => test.status === 'passed').length;
    // A file that cannot be loaded, or whose hooks fail, has no failed test.
    tally.failed += failed === 0 && status === 'failed' ? 1 : failed;
  }
  return tally;
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
