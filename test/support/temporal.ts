import { chmodSync, existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { TestWorkflowEnvironment } from '@temporalio/testing';
import { temporalComponent } from '../../infra/components/temporal.js';
import { interlockHome } from '../../infra/mysql-server.js';

const VERSION = '1.32.0';

/** The time-skipping test server (Java) as a program: TestWorkflowEnvironment starts a file. */
function testServer(): string {
  const libs = path.join(interlockHome(), `temporal-test-server-${VERSION}`, 'libs');
  if (!existsSync(libs)) {
    throw new Error(`The time-skipping test server is missing: ${libs}. \`npm test\` installs it.`);
  }
  const directory = mkdtempSync(path.join(tmpdir(), 'interlock-test-server-'));
  process.once('exit', () => rmSync(directory, { recursive: true, force: true }));
  const script = path.join(directory, 'test-server');
  const java = `exec java -Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -cp "${libs}/*"`;
  writeFileSync(script, `#!/bin/sh\n${java} io.temporal.testserver.TestServer "$@"\n`);
  chmodSync(script, 0o755);
  return script;
}

const STARTS = 6;

/** A Temporal server on which time passes only as fast as the workflows want. The caller ends it with `teardown()`. */
export async function timeSkippingEnvironment(): Promise<TestWorkflowEnvironment> {
  const executable = { type: 'existing-path', path: testServer() } as const;
  return started(() => TestWorkflowEnvironment.createTimeSkipping({ server: { executable } }));
}

/** The real dev server, in memory: for what the time-skipping one does not do (resets, tasks of a worker that is lost). */
export async function realTimeEnvironment(): Promise<TestWorkflowEnvironment> {
  const found = await temporalComponent.find();
  if (found === null) throw new Error('Temporal is missing. `npm test` installs it.');
  const executable = { type: 'existing-path', path: found.binary } as const;
  // One history shard polls its own task queue: the default of 20 a second would cost 50 ms per hop.
  const extraArgs = ['--dynamic-config-value', 'history.transferProcessorMaxPollRPS=10000'];
  return started(() => TestWorkflowEnvironment.createLocal({ server: { executable, extraArgs } }));
}

/** The SDK gives a server five seconds; on a machine that is busy it may need more. */
async function started(start: () => Promise<TestWorkflowEnvironment>): Promise<TestWorkflowEnvironment> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await start();
    } catch (error) {
      if (attempt === STARTS) throw error;
    }
  }
}
