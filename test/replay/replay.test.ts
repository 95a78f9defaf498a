import { existsSync, readFileSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { defaultPayloadConverter } from '@temporalio/common';
import { DefaultLogger, Worker, bundleWorkflowCode } from '@temporalio/worker';
import { expect, test } from 'vitest';
import type { SwitchReport } from '../../workflows/contract.js';
import { historyFromJson } from './history-json.js';
import { HISTORIES, outcomeOf, record } from './record.js';

const bundle = await bundleWorkflowCode({
  workflowsPath: fileURLToPath(new URL('../../workflows/index.ts', import.meta.url)),
  logger: new DefaultLogger('ERROR'),
});
if (process.env['INTERLOCK_RECORD'] === '1') await record(bundle);

const names = existsSync(HISTORIES)
  ? readdirSync(HISTORIES)
      .filter((file) => file.endsWith('.json'))
      .map((file) => file.slice(0, -5))
  : [];

function read(name: string) {
  return historyFromJson(JSON.parse(readFileSync(path.join(HISTORIES, `${name}.json`), 'utf8')));
}

/** The result with which a recorded run ended. */
function result(name: string): unknown {
  const payload = read(name).events?.at(-1)?.workflowExecutionCompletedEventAttributes?.result?.payloads?.[0];
  if (!payload) throw new Error(`${name}: the history does not end with a result`);
  return defaultPayloadConverter.fromPayload(payload);
}

// Runs that are open when a new version comes are carried on by it: it has to take each step that they have recorded.
test.each(names)('replays: %s', async (name) => {
  const ended = result(name) as { workflowId?: string };
  await Worker.runReplayHistory({ workflowBundle: bundle }, read(name), ended.workflowId);
});

test.each(names.filter((name) => outcomeOf(name)))('ended as its name says: %s', (name) => {
  expect((result(name) as SwitchReport).outcome).toBe(outcomeOf(name));
});

test('there is a history of every outcome, of a link, of a verification and of a change of definitions', () => {
  const kinds = new Set(names.map((name) => outcomeOf(name) ?? name.replace(/-.*/, '')));
  expect([...kinds].sort()).toEqual([
    'aborted',
    'compensated',
    'ddl',
    'done',
    'refused',
    'replicator',
    'rolled-back',
    'verification',
  ]);
  expect((result('verification') as { outcome: string }).outcome).toBe('failed');
  expect((result('ddl') as { outcome: string }).outcome).toBe('failed');
  expect((result('replicator') as { state: string }).state).toBe('stopped');
});
