import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { TEST_RUN_VARIABLE, sweep, tallyOf } from '../../infra/test-run.js';

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(path.join(tmpdir(), 'interlock-run-'));
});
afterEach(() => {
  rmSync(directory, { recursive: true, force: true });
});

test('a process that tests leave behind is named and ended, by its environment or its directory; others are not touched', async () => {
  const run = { id: randomUUID(), directory: path.join(directory, 'run') };
  const sleeper = (env: NodeJS.ProcessEnv, cwd: string) =>
    spawn('sleep', ['61'], {
      env: { PATH: process.env['PATH'], ...env },
      cwd,
      detached: true,
      stdio: 'ignore',
    });
  const byEnvironment = sleeper({ [TEST_RUN_VARIABLE]: run.id }, '/');
  const byDirectory = spawn('sh', ['-c', `: ${run.directory}/nginx; sleep 62 & wait`], {
    env: {},
    stdio: 'ignore',
    detached: true,
  });
  const stranger = sleeper({ [TEST_RUN_VARIABLE]: randomUUID() }, directory);
  const ended = (child: typeof stranger) => new Promise((resolve) => child.once('exit', resolve));
  const both = Promise.all([ended(byEnvironment), ended(byDirectory)]);
  try {
    const left = await sweep(run);
    await both;
    expect(left.map((line) => line.replace(/^pid (\d+) .*/, '$1')).sort()).toEqual(
      [byEnvironment.pid, byDirectory.pid].map(String).sort(),
    );
    expect(stranger.exitCode ?? stranger.signalCode).toBeNull();
    expect(await sweep(run)).toEqual([]);
  } finally {
    for (const child of [stranger, byEnvironment, byDirectory]) {
      try {
        process.kill(-child.pid!, 'SIGKILL');
      } catch {
        // It has ended.
      }
    }
  }
});

test('a file that could not be run counts as one failure, skipped tests as nothing; each failure is named', () => {
  const file = path.join(directory, 'report.json');
  const report = {
    testResults: [
      {
        name: path.resolve('test/a.test.ts'),
        status: 'passed',
        assertionResults: [{ status: 'passed' }, { status: 'skipped' }],
      },
      {
        name: path.resolve('test/b.test.ts'),
        status: 'failed',
        assertionResults: [
          { status: 'passed' },
          { status: 'failed', fullName: 'one', failureMessages: ['expected 1 to be 2\n at b.test.ts:3'] },
          { status: 'failed', fullName: 'two', failureMessages: [] },
        ],
      },
      {
        name: path.resolve('test/c.test.ts'),
        status: 'failed',
        message: 'no such module',
        assertionResults: [],
      },
    ],
  };
  writeFileSync(file, JSON.stringify(report));
  expect(tallyOf(file)).toEqual({
    passed: 2,
    failed: 3,
    failures: [
      'test/b.test.ts > one: expected 1 to be 2',
      'test/b.test.ts > two: ',
      'test/c.test.ts > the file itself: no such module',
    ],
  });
  writeFileSync(file, '{"testResults": [');
  expect(tallyOf(file)).toBeNull();
});
