import { afterAll, beforeAll, expect, test } from 'vitest';
import { defaultPayloadConverter } from '@temporalio/common';
import { Bench } from './harness.js';
import type { Run } from './harness.js';
import type { World } from './model.js';
import { Operator } from './operator.js';

/** What Temporal shows of switchovers, on the real dev server: the test server keeps neither summaries nor lists. */
let bench: Bench;
let operator: Operator;
beforeAll(async () => {
  bench = await Bench.create('real');
  operator = await Operator.of(bench);
  await operator.work();
});
afterAll(async () => {
  await bench?.close();
  await operator?.leave();
});

const MOVE = ['--scope', 'cn-east/0-1', '--from', 'dc-a', '--to', 'dc-b', '--reason', 'a test'];
const LINKS = ['mysql/main:dc-a>dc-b', 'mysql/orders:dc-a>dc-b'];

/** The details of a run, as the Web UI asks for them. */
async function details(run: Run): Promise<string[]> {
  const metadata = await run.handle.query<{ currentDetails: string }>('__temporal_workflow_metadata');
  return metadata.currentDetails.split('\n');
}

/** The activities of a run, by the words under which the Web UI shows them. */
async function activities(run: Run): Promise<string[]> {
  const { events } = await run.handle.fetchHistory();
  return events!.flatMap((event) => {
    const name = event.activityTaskScheduledEventAttributes?.activityType?.name;
    if (name === undefined || name === null) return [];
    const summary = event.userMetadata?.summary;
    return `${name}: ${summary ? defaultPayloadConverter.fromPayload<string>(summary) : 'nothing'}`;
  });
}

async function started(world: World, ...flags: string[]): Promise<Run> {
  const { document } = await operator.asks<{ runId: string }>(world, 'start', ...MOVE, ...flags);
  return bench.run(world, document.runId);
}

test('a move: every step and activity in words', async () => {
  const world = bench.world();
  world.links = 'stuck';
  const run = await started(world, '--detach');
  await run.drive((s) => s.awaiting === 'drain');
  const draining = await details(run);
  expect(draining.slice(0, 3)).toEqual([
    '**cn-east/0-1: dc-a → dc-b**',
    '',
    'Waiting for 2 links to reach the baseline.',
  ]);
  for (const link of LINKS) expect(draining).toContain(`- … ${link}`);
  expect(draining.at(-1)).toBe('- … drain');

  await world.unstick();
  await run.settle();
  const soaking = await details(run);
  expect(soaking[2]).toBe('Moved to dc-b. `rollback` moves back, `finish` ends the soak.');
  expect(soaking.slice(3).map((line) => line.replace(/\d+ ms/g, 'N ms'))).toEqual([
    '',
    '- ✓ plan (N ms): cn-east buckets 0–1: dc-a → dc-b (0.2 %) (plan hash-1)',
    '- ✓ preflight (N ms): 4 checks',
    `- ✓ catch-up (N ms): ${LINKS.map((link) => `${link} N ms`).join(', ')}`,
    '- ✓ write-disable (N ms): epoch 2',
    `- ✓ baseline (N ms): ${LINKS[0]} p main; ${LINKS[1]} p orders`,
    '- ✓ drain (N ms)',
    '- ✓ switch (N ms)',
    '- ✓ cancel-write-disable (N ms): fenced for N ms',
    '- ✓ cancel-write-disable (N ms): all confirmed',
    '- ✓ post-checks (N ms): 4 checks',
    '- … soak',
  ]);

  await run.update('finish');
  await run.end();
  const ended = await details(run);
  expect(ended[2]).toBe('Done: cn-east buckets 0–1: dc-a → dc-b (0.2 %).');
  expect(ended.at(-1)).toMatch(/^- ✓ soak \(\d+ ms\)$/);

  const all = (await activities(run)).filter((words) => !words.startsWith('readBaselines'));
  const both = (words: string): string[] => ['dc-a', 'dc-b'].map((dc) => words.replace('DC', dc));
  expect(all).toEqual([
    'findHeld: Look for units that an earlier run left write-disabled',
    'makePlan: Plan cn-east/0-1',
    ...both('preflight: Preflight of DC'),
    'catchUp: Catch up 2 links dc-a → dc-b',
    'nextEpoch: Epochs of fence and switch',
    ...both('gatewayTotals: Counters of the gateways of DC'),
    'switchWhenDrained: Open 2 units in dc-b as soon as the links have reached the baseline',
    'writeDisable: Hold writes of 2 units in dc-a, fence them, write the markers',
    'switchTarget: Open 2 units in dc-b: the point of no return',
    'handOverSource: Hand over in dc-a, release held requests to dc-b',
    ...both('confirm: Confirm epoch 3 in DC').reverse(),
    ...both('postCheck: Post-checks in DC').reverse(),
    ...both('gatewayTotals: Counters of the gateways of DC'),
    'recordReport: Keep the report',
    ...both('gatewayTotals: Counters of the gateways of DC'),
    'recordReport: Keep the report',
  ]);
});

test('what needs an operator, a rollback and a compensation, in words', async () => {
  const world = bench.world();
  world.links = 'stuck';
  const run = await started(world, '--drain-policy', 'extend', '--drain-timeout', '1500ms');
  const needs = (await details(run)).find((line) => line.startsWith('⚠'));
  expect(needs).toContain('⚠ **Needs an operator:** mysql/main:dc-a>dc-b, mysql/orders:dc-a>dc-b did not');
  expect(needs).toContain('`interlock switch extend`');
  await world.unstick();
  await run.settle();
  expect((await details(run)).join('\n')).not.toContain('⚠');
  expect(await activities(run)).toContain('readBaselines: Read the checkpoints in dc-b');

  world.fault('switchTarget', 'refuses');
  await run.update('rollback');
  await run.drive((s) => s.steps.filter(({ step }) => step === 'soak').length === 2);
  const soaking = await details(run);
  expect(soaking[2]).toContain('The rollback was not carried out (switchTarget is refused). Moved to dc-b.');
  const steps = soaking.map((line) => line.replace(/\d+ ms/g, 'N ms'));
  expect(steps).toContain('- ✗ rollback: switch (N ms): switchTarget is refused');
  expect(steps).toContain('- ✓ rollback: compensate (N ms): open again in dc-b at epoch 6');
  expect(await activities(run)).toEqual(
    expect.arrayContaining([
      'makePlan: Plan the way back to dc-a',
      'raiseTarget: Refuse late switches: raise dc-a to epoch 6',
      'reopenSource: Open 2 units again in dc-b',
    ]),
  );
  await run.update('finish');
  await run.end();
});

interface Listed {
  runId: string;
  outcome: string;
  scope: string;
  from: string;
  to: string;
  startedBy: string;
  endedAt: string | null;
}

test('switch list: the runs of the topology, newest first, with how they ended', async () => {
  const world = bench.world();
  await operator.types(bench.world(), 'start', ...MOVE);
  world.fault('switchTarget', 'refuses');
  const compensated = await started(world);
  world.links = 'stuck';
  const terminated = await started(world, '--detach');
  await terminated.drive((s) => s.awaiting === 'drain');
  await terminated.handle.terminate('test');
  world.links = 'prompt';
  const soaking = await started(world);

  // Visibility follows the runs.
  let runs: Listed[];
  do runs = (await operator.asks<Listed[]>(world, 'list')).document;
  while (runs.length < 3 || runs.filter(({ outcome }) => outcome === 'running').length > 1);
  expect(runs.map(({ runId, outcome }) => [runId, outcome])).toEqual([
    [soaking.runId, 'running'],
    [terminated.runId, 'terminated'],
    [compensated.runId, 'compensated'],
  ]);
  for (const run of runs) expect(run).toMatchObject({ scope: 'cn-east/0-1', from: 'dc-a', to: 'dc-b' });
  expect(runs.map(({ endedAt }) => endedAt === null)).toEqual([true, false, false]);
  expect(runs[0]!.startedBy).toContain('@');
  expect((await operator.asks<Listed[]>(world, 'list', '--limit', '1')).document).toEqual(runs.slice(0, 1));

  const { exitCode, stdout } = await operator.types(world, 'list');
  expect(exitCode).toBe(0);
  const [header, ...lines] = stdout.trimEnd().split('\n');
  expect(header).toMatch(/^run +outcome +scope +direction +started +by$/);
  expect(lines).toHaveLength(3);
  expect(lines[2]).toMatch(
    new RegExp(`^${compensated.runId} +compensated +cn-east/0-1 +dc-a → dc-b +\\S+Z +\\S+@`),
  );
  expect((await operator.types(bench.world(), 'list')).stdout).toBe('No switchovers.\n');
});
