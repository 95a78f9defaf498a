import { randomUUID } from 'node:crypto';
import { hostname, userInfo } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { WorkflowFailedError, WorkflowNotFoundError } from '@temporalio/client';
import type { Client, WorkflowHandle } from '@temporalio/client';
import { Option } from 'commander';
import type { Command } from 'commander';
import {
  DEFAULT_POLICIES,
  QUERIES,
  SETTLED,
  planWorkflowId,
  switchoverWorkflowId,
} from '../../workflows/contract.js';
import type {
  SwitchOutcome,
  SwitchPlan,
  SwitchPolicies,
  SwitchReport,
  SwitchRequest,
  SwitchStatus,
} from '../../workflows/contract.js';
import { checkRequest } from '../../workflows/switchover-request.js';
import { InterlockError, messageOf } from '../errors.js';
import type { ErrorCode } from '../errors.js';
import { openAllStores } from '../fence/connect.js';
import { parseScope } from '../routing/scope.js';
import type { Scope } from '../routing/scope.js';
import { dcIds } from '../topology/derive.js';
import { loadTopology, resolveSecret } from '../topology/load.js';
import type { Topology } from '../topology/schema.js';
import {
  LiveText,
  EXIT,
  durationFlag,
  integerFlag,
  print,
  printJson,
  progress,
  table,
  topologyFile,
  topologyOption,
} from './output.js';
import type { ExitCode } from './output.js';
import { newSteps, renderPlan, renderReport, renderStatus } from './switch-words.js';
import { memoText, refusalOf, startAlone, withTemporal } from './temporal-client.js';

interface Options {
  topology?: string;
  json?: boolean;
}
interface MoveOptions extends Options {
  scope: string;
  from: string;
  to: string;
  soak: number;
  drainTimeout: number;
  drainPolicy: SwitchPolicies['drainTimeout'];
  fenceBudget: number;
  blockers: SwitchPolicies['blockers'];
  lagLimit: number;
  catchUpTimeout: number;
  confirmTimeout: number;
  unconfirmed: SwitchPolicies['unconfirmed'];
  requireVerify?: string | true;
  /** Of `start` only. */
  reason?: string;
}
interface OperateOptions extends Options {
  detach?: boolean;
}
interface StartOptions extends MoveOptions {
  plan?: string;
  detach?: boolean;
  watch?: boolean;
}

const WATCH_MS = 500;
/** Of `--require-verify` without an age. */
const VERIFY_AGE_MS = 24 * 3_600_000;
const QUERY_LIMIT_MS = 10_000;
const PLAN_LIMIT_MS = 60_000;
/** Without a word from a worker for so long, the operator is told where to look. */
const QUIET_MS = 10_000;
const ACCEPT_LIMIT_MS = 30_000;
const OPERATOR = {
  abort: 'give up before the switch: what was fenced is opened again',
  rollback: 'during the soak: move the units back, by the same flow reversed',
  finish: 'end the soak now',
  extend: 'let the drain take its time-out once more',
} as const;

/** `interlock switch plan | start | status | abort | rollback | finish | extend | list | report`. */
export function register(program: Command): void {
  const command = program
    .command('switch')
    .description('move a scope of units from one data center to the other, losing nothing')
    .addHelpText(
      'after',
      `
Scopes: dc:dc-a, region:cn-east, cn-east:10%, cn-east/0-99, segment:vip, central:coupons

Examples:
  $ interlock switch plan  --scope cn-east:10% --from dc-a --to dc-b
  $ interlock switch start --scope cn-east:10% --from dc-a --to dc-b --reason "maintenance of dc-a"
  $ interlock switch status --watch
  $ interlock switch rollback
  $ interlock switch report

rollback, abort and finish wait for the outcome; --detach returns when they are accepted.

Exit codes: 0 done, 1 failed (and compensated), 2 bad input, 3 needs an operator.`,
    );

  move(command.command('plan'))
    .description(
      'what a switchover would do: units, links, lag, checks, predicted fence time; changes nothing',
    )
    .addHelpText(
      'after',
      '\nExample:\n  $ interlock switch plan --scope cn-east/0-99 --from dc-a --to dc-b --json',
    )
    .action(plan);

  move(command.command('start'))
    .description('start a switchover and wait until the soak begins')
    .option('--plan <hash>', 'refuse when the plan is not this one any more')
    .option('--reason <text>', 'kept in the rules and in the report; at most 400 characters', '')
    .option('--detach', 'return the run id at once')
    .option('--watch', 'show live progress')
    .addHelpText(
      'after',
      `
The soak ends by \`finish\`, by \`rollback\`, or by itself after --soak.

Examples:
  $ interlock switch start --scope cn-east:10% --from dc-a --to dc-b --soak 10m --watch
  $ interlock switch start --scope dc:dc-a --from dc-a --to dc-b --drain-policy extend --detach --json`,
    )
    .action(start);

  common(command.command('status').argument('[run]', 'run id; default: the last one'))
    .description('where a switchover is')
    .option('--watch', 'show live progress until it has ended')
    .addHelpText('after', '\nExample:\n  $ interlock switch status --watch')
    .action(status);

  for (const [name, description] of Object.entries(OPERATOR)) {
    const one = common(command.command(name).argument('[run]', 'run id; default: the one under way'))
      .description(description)
      .addHelpText('after', `\nExample:\n  $ interlock switch ${name}`)
      .action((run: string | undefined, options: OperateOptions) =>
        operate(name as keyof typeof OPERATOR, run, options),
      );
    if (name !== 'extend')
      one.option('--detach', 'return when it is accepted, and do not wait for the outcome');
  }

  common(command.command('list'))
    .description('the switchovers of the topology that Temporal still knows, newest first')
    .option('--limit <n>', 'at most so many', integerFlag('--limit', 1, 100_000), 20)
    .addHelpText('after', '\nExample:\n  $ interlock switch list --json')
    .action(list);

  common(command.command('report').argument('[run]', 'run id; default: the last one'))
    .description('the report of a switchover: from Temporal, else from the control stores')
    .addHelpText('after', '\nExample:\n  $ interlock switch report --json')
    .action(report);
}

function common(command: Command): Command {
  return topologyOption(command).option('--json', 'print one JSON document');
}

function move(command: Command): Command {
  const defaults = DEFAULT_POLICIES;
  const duration = (flag: string, text: string, ms: number) =>
    new Option(`${flag} <duration>`, text).argParser(durationFlag(flag)).default(ms, `${ms} ms`);
  return common(command)
    .requiredOption(
      '--scope <scope>',
      'what moves: dc:dc-a, region:cn-east, cn-east:10%, cn-east/0-99, segment:vip',
    )
    .requiredOption('--from <dc>', 'the data center that owns it')
    .requiredOption('--to <dc>', 'the data center that shall own it')
    .addOption(duration('--soak', 'how long `rollback` stays one command away', defaults.soakMs))
    .addOption(
      duration(
        '--drain-timeout',
        'how long the links may take to reach the baseline',
        defaults.drainTimeoutMs,
      ),
    )
    .addOption(
      new Option('--drain-policy <policy>', 'when they take longer: give up, or wait for you')
        .choices(['abort', 'extend'])
        .default(defaults.drainTimeout),
    )
    .addOption(
      duration(
        '--fence-budget',
        'how long the fence waits for transactions in flight',
        defaults.fenceBudgetMs,
      ),
    )
    .addOption(
      new Option('--blockers <policy>', 'transactions that take longer: kill them, or give the fence up')
        .choices(['kill', 'give-up'])
        .default(defaults.blockers),
    )
    .addOption(
      duration('--lag-limit', 'fence only when every link is less behind than this', defaults.lagLimitMs),
    )
    .addOption(duration('--catch-up-timeout', 'how long to wait for that', defaults.catchUpTimeoutMs))
    .addOption(
      duration(
        '--confirm-timeout',
        'how long gateways may take to confirm the switch',
        defaults.confirmTimeoutMs,
      ),
    )
    .addOption(
      new Option('--unconfirmed <policy>', 'gateways that take longer: report them, or keep asking')
        .choices(['report', 'wait'])
        .default(defaults.unconfirmed),
    )
    .option(
      '--require-verify [age]',
      'refuse unless every table of the scope was verified, and equal, no longer ago than this (default: 24h)',
    );
}

async function plan(options: MoveOptions): Promise<void> {
  const topology = await topologyOf(options);
  const request = requestOf(topology, options);
  const made = await withTemporal(topology, (client) => makePlan(client, topology, request));
  if (options.json) printJson(made);
  else print(renderPlan(made));
  if (made.checks.some((c) => !c.ok)) process.exitCode = EXIT.failed;
}

async function start(options: StartOptions): Promise<void> {
  const topology = await topologyOf(options);
  const request = requestOf(topology, options);
  if (options.plan !== undefined) request.planHash = options.plan;
  await withTemporal(topology, async (client) => {
    const run = await startRun(client, topology, request);
    if (options.detach) {
      if (options.json) printJson({ workflowId: run.workflowId, runId: run.runId });
      else print(`Started: run ${run.runId}. \`interlock switch status --watch\` shows it.`);
      return;
    }
    progress(`Run ${run.runId}; \`interlock switch abort\` gives up before the switch.`);
    const handle = client.workflow.getHandle(run.workflowId, run.runId);
    const seen = options.watch
      ? await watch(
          handle,
          (s) => s.awaiting === 'rollback-or-finish' || s.outcome !== 'running' || s.needs !== null,
        )
      : await settled(handle);
    const last = await closed(handle, seen);
    showStatus(last, options);
    process.exitCode = exitOf(last);
  });
}

async function status(run: string | undefined, options: Options & { watch?: boolean }): Promise<void> {
  const topology = await topologyOf(options);
  await withTemporal(topology, async (client) => {
    const handle = client.workflow.getHandle(switchoverWorkflowId(topology.name), run);
    const last = options.watch ? await watch(handle, (s) => s.outcome !== 'running') : await statusOf(handle);
    showStatus(last, options);
    // Looking succeeds; what needs an operator shows in the exit code all the same, for scripts.
    process.exitCode = last.needs === null ? EXIT.done : EXIT.needsOperator;
  });
}

async function operate(
  name: keyof typeof OPERATOR,
  run: string | undefined,
  options: OperateOptions,
): Promise<void> {
  const topology = await topologyOf(options);
  const workflowId = switchoverWorkflowId(topology.name);
  await withTemporal(topology, async (client) => {
    let answer: string;
    let handle: WorkflowHandle;
    try {
      // Hazard: another run may begin under the id while this one is waited for. Its run id names it.
      const { runId } = await client.workflow.getHandle(workflowId, run).describe();
      handle = client.workflow.getHandle(workflowId, runId);
      answer = await client.withDeadline(Date.now() + ACCEPT_LIMIT_MS, () =>
        handle.executeUpdate<string, []>(name),
      );
    } catch (error) {
      throw refusalOf(
        error,
        name,
        `no switchover of ${topology.name} is under way. \`interlock switch list\` shows the last ones.`,
      );
    }
    if (name === 'extend' || options.detach) {
      if (options.json) printJson({ accepted: true, answer });
      else print(answer);
      return;
    }
    progress(answer);
    const last = await outcomeAfter(handle);
    showStatus(last, options);
    process.exitCode = exitAfter(name, last);
  });
}

/** Where an accepted request has led: to the end of the run, back into the soak, or to a need for an operator. */
async function outcomeAfter(handle: WorkflowHandle): Promise<SwitchStatus> {
  // A need that stood when the request was accepted may be what the request mends: only a new one ends the wait.
  const { needs } = await statusOf(handle);
  for (;;) {
    const last = await settled(handle);
    if (last.outcome !== 'running') return closed(handle, last);
    if (last.awaiting === 'rollback-or-finish') return last;
    if (last.needs !== null && last.needs !== needs) return last;
    await sleep(WATCH_MS);
  }
}

/** A run that knows its outcome is still writing its report; the next switchover can start when it has closed. */
async function closed(handle: WorkflowHandle, last: SwitchStatus): Promise<SwitchStatus> {
  if (last.outcome === 'running') return last;
  await handle.result().catch(() => undefined);
  return statusOf(handle);
}

async function list(options: Options & { limit: number }): Promise<void> {
  const topology = await topologyOf(options);
  const { limit } = options;
  const workflowId = switchoverWorkflowId(topology.name);
  await withTemporal(topology, async (client) => {
    const runs = [];
    for await (const found of client.workflow.list({ query: `WorkflowId = '${workflowId}'` })) {
      if (runs.length === limit) break;
      const outcome = await outcomeOf(client, workflowId, found.runId, found.status.name);
      runs.push({
        runId: found.runId,
        outcome,
        scope: memoText(found.memo?.['scope']),
        from: memoText(found.memo?.['from']),
        to: memoText(found.memo?.['to']),
        startedBy: memoText(found.memo?.['startedBy']),
        startedAt: found.startTime.toISOString(),
        endedAt: found.closeTime?.toISOString() ?? null,
      });
    }
    if (options.json) {
      printJson(runs);
      return;
    }
    const rows = runs.map((r) => [
      r.runId,
      r.outcome,
      r.scope,
      `${r.from} → ${r.to}`,
      r.startedAt,
      r.startedBy,
    ]);
    print(
      runs.length === 0
        ? 'No switchovers.'
        : table([['run', 'outcome', 'scope', 'direction', 'started', 'by'], ...rows]),
    );
  });
}

async function report(run: string | undefined, options: Options): Promise<void> {
  const topology = await topologyOf(options);
  let found: SwitchReport | undefined;
  try {
    found = await withTemporal(topology, (client) =>
      reportOf(client.workflow.getHandle(switchoverWorkflowId(topology.name), run)),
    );
  } catch (error) {
    progress(`${messageOf(error)}\nLooking in the control stores.`);
  }
  found ??= await keptReport(topology, run);
  if (options.json) printJson(found);
  else print(renderReport(found));
}

async function topologyOf(options: Options): Promise<Topology> {
  return (await loadTopology(topologyFile(options))).topology;
}

function requestOf(topology: Topology, options: MoveOptions): SwitchRequest {
  const names = dcIds(topology);
  for (const field of ['from', 'to'] as const) {
    if (names.includes(options[field])) continue;
    throw bad(`--${field}`, options[field], `expected one of ${names.join(', ')}`);
  }
  if (options.from === options.to) throw bad('--to', options.to, 'expected another data center than --from');
  checkScope(topology, parseScope(options.scope), options);
  const taskQueues = Object.fromEntries(names.map((dc) => [dc, topology.datacenters[dc]!.taskQueue]));
  const request: SwitchRequest = {
    topology: topology.name,
    scope: options.scope,
    from: options.from,
    to: options.to,
    reason: options.reason ?? '',
    startedBy: `${userInfo().username}@${hostname()}`,
    taskQueues,
    policies: {
      drainTimeoutMs: options.drainTimeout,
      drainTimeout: options.drainPolicy,
      fenceBudgetMs: options.fenceBudget,
      blockers: options.blockers,
      soakMs: options.soak,
      lagLimitMs: options.lagLimit,
      catchUpTimeoutMs: options.catchUpTimeout,
      unconfirmed: options.unconfirmed,
      confirmTimeoutMs: options.confirmTimeout,
      ...(options.requireVerify !== undefined && {
        requireVerifyMs:
          options.requireVerify === true
            ? VERIFY_AGE_MS
            : durationFlag('--require-verify')(options.requireVerify),
      }),
    },
  };
  const problem = checkRequest(request);
  if (problem !== undefined) {
    const [field = '', ...expected] = problem.split(': ');
    const flag = FLAG_OF[field] ?? field;
    throw new InterlockError('BadInput', `${flag}: ${expected.join(': ')}`, { details: { field: flag } });
  }
  return request;
}

/** The flags behind the fields that checkRequest names. */
const FLAG_OF: Record<string, string> = {
  reason: '--reason',
  'policies.soakMs': '--soak',
  'policies.requireVerifyMs': '--require-verify',
  'policies.drainTimeoutMs': '--drain-timeout',
  'policies.fenceBudgetMs': '--fence-budget',
  'policies.lagLimitMs': '--lag-limit',
  'policies.catchUpTimeoutMs': '--catch-up-timeout',
  'policies.confirmTimeoutMs': '--confirm-timeout',
};

/** What a scope names has to be in the topology; who owns it now is for the plan to say. */
function checkScope(topology: Topology, scope: Scope, { scope: typed, from }: MoveOptions): void {
  const known = (what: string, name: string, names: Record<string, unknown>): void => {
    if (Object.hasOwn(names, name)) return;
    const there = Object.keys(names).sort().join(', ') || 'none';
    throw bad('--scope', typed, `the topology has no ${what} ${name}; it has ${there}`);
  };
  switch (scope.kind) {
    case 'dc':
      known('data center', scope.dc, topology.datacenters);
      if (scope.dc !== from) throw bad('--scope', typed, `expected the data center of --from, dc:${from}`);
      return;
    case 'region':
    case 'share':
    case 'range':
      return known('region', scope.region, topology.regions);
    case 'segment':
      return known('segment', scope.name, topology.segments);
    case 'central':
      return known('central unit', scope.name, topology.central);
  }
}

function bad(flag: string, value: string, expected: string): InterlockError {
  return new InterlockError('BadInput', `${flag}: ${JSON.stringify(value)}: ${expected}`, {
    details: { field: flag, value },
  });
}

async function makePlan(client: Client, topology: Topology, request: SwitchRequest): Promise<SwitchPlan> {
  const handle = await client.workflow.start('planSwitch', {
    workflowId: planWorkflowId(topology.name, randomUUID()),
    taskQueue: topology.temporal.controlTaskQueue,
    args: [request],
    staticSummary: `Plan ${request.scope}: ${request.from} → ${request.to}`,
    // It changes nothing: nothing is lost when it is given up.
    workflowExecutionTimeout: PLAN_LIMIT_MS,
  });
  try {
    return (await quietly(topology, handle.result())) as SwitchPlan;
  } catch (error) {
    throw workflowError(error, 'The plan could not be made');
  }
}

async function startRun(
  client: Client,
  topology: Topology,
  request: SwitchRequest,
): Promise<{ workflowId: string; runId: string }> {
  const { scope, from, to, reason, startedBy } = request;
  return startAlone(
    client,
    'switchover',
    {
      workflowId: switchoverWorkflowId(topology.name),
      taskQueue: topology.temporal.controlTaskQueue,
      args: [request],
      staticSummary: `${scope}: ${from} → ${to}`,
      staticDetails: `Started by ${startedBy}. ${reason}`,
      memo: { scope, from, to, reason, startedBy },
    },
    ({ runId, asked }) =>
      `A switchover of ${topology.name} is under way: run ${runId} (${asked('scope')}, started by ${asked('startedBy')}). See \`interlock switch status\`; \`finish\` or \`abort\` it first.`,
  );
}

/** Waits by one update instead of queries: a query is work for the worker, and this wait spans the fenced window. */
async function settled(handle: WorkflowHandle): Promise<SwitchStatus> {
  const quiet = setTimeout(
    () => progress('Still under way; `interlock switch status --watch` in another terminal shows where.'),
    QUIET_MS,
  );
  try {
    return await handle.executeUpdate<SwitchStatus, []>(SETTLED);
  } catch (error) {
    // It ended before the update was taken, or was terminated.
    if (error instanceof InterlockError) throw error;
    return await statusOf(handle);
  } finally {
    clearTimeout(quiet);
  }
}

async function watch(
  handle: WorkflowHandle,
  until: (status: SwitchStatus) => boolean,
): Promise<SwitchStatus> {
  const live = new LiveText();
  let seen = 0;
  for (;;) {
    const now = await statusOf(handle);
    if (!live.show(renderStatus(now))) {
      const next = newSteps(now, seen);
      seen = next.seen;
      for (const line of next.lines) progress(line);
    }
    if (until(now)) return now;
    await sleep(WATCH_MS);
  }
}

/** By query while it runs; from the result when it has ended, which needs no worker. */
async function statusOf(handle: WorkflowHandle): Promise<SwitchStatus> {
  const description = await describe(handle);
  if (description.status.name === 'RUNNING') return query<SwitchStatus>(handle, QUERIES.status);
  const ended = await resultOf(handle, description.status.name, description.runId);
  const flow = ended.flows.at(-1);
  return {
    runId: ended.runId,
    step: ended.steps.at(-1)?.step ?? 'plan',
    flow: flow?.flow ?? 'move',
    outcome: ended.outcome,
    summary: ended.summary,
    links: [],
    awaiting: 'nothing',
    needs: ended.needs,
    scope: ended.request.scope,
    from: flow?.from ?? ended.request.from,
    to: flow?.to ?? ended.request.to,
    diff: ended.diff,
    steps: ended.steps,
    fencedMs: flow?.fencedMs ?? null,
    soakEndsAt: null,
  };
}

async function reportOf(handle: WorkflowHandle): Promise<SwitchReport> {
  const description = await describe(handle);
  if (description.status.name === 'RUNNING') return query<SwitchReport>(handle, QUERIES.report);
  return resultOf(handle, description.status.name, description.runId);
}

async function describe(handle: WorkflowHandle) {
  try {
    return await handle.describe();
  } catch (error) {
    if (!(error instanceof WorkflowNotFoundError)) throw error;
    throw new InterlockError('Refused', 'Temporal knows no such switchover; see `interlock switch list`.');
  }
}

async function query<T>(handle: WorkflowHandle, name: string): Promise<T> {
  try {
    return await handle.client.withDeadline(Date.now() + QUERY_LIMIT_MS, () => handle.query<T>(name));
  } catch (error) {
    throw new InterlockError(
      'Unavailable',
      `No worker answers for the switchover (${messageOf(error)}): start one with \`interlock worker --dc …\`. Without a worker, \`interlock fence status\` shows the units.`,
      { cause: error, details: { what: 'control worker' } },
    );
  }
}

async function resultOf(handle: WorkflowHandle, state: string, runId: string): Promise<SwitchReport> {
  if (state === 'TERMINATED' || state === 'TIMED_OUT') {
    throw new InterlockError(
      'NeedsOperator',
      `Run ${runId} was ${state.toLowerCase()} and could not clean up: \`interlock fence status\` shows what it left, the next switchover or \`interlock fence release\` mends it.`,
      { details: { runId } },
    );
  }
  try {
    return (await handle.result()) as SwitchReport;
  } catch (error) {
    throw workflowError(error, `Run ${runId} failed`);
  }
}

async function outcomeOf(client: Client, workflowId: string, runId: string, state: string): Promise<string> {
  if (state !== 'COMPLETED') return state.toLowerCase();
  const ended = (await client.workflow.getHandle(workflowId, runId).result()) as SwitchReport;
  return ended.outcome;
}

/** Temporal forgets after its retention; the control stores keep every report. */
async function keptReport(topology: Topology, run: string | undefined): Promise<SwitchReport> {
  const stores = openAllStores(topology, resolveSecret);
  const problems: string[] = [];
  try {
    for (const dc of stores.values()) {
      try {
        const [rows] = await dc.control.pool.query(
          `SELECT document FROM interlock.report ${run === undefined ? '' : 'WHERE run_id = ?'} ORDER BY created_at DESC LIMIT 1`,
          run === undefined ? [] : [run],
        );
        const row = (rows as { document: string }[])[0];
        if (row) return JSON.parse(row.document) as SwitchReport;
      } catch (error) {
        problems.push(`${dc.control.name}: ${messageOf(error)}`);
      }
    }
  } finally {
    await Promise.all([...stores.values()].map((dc) => dc.close()));
  }
  const looked = problems.length === 0 ? '' : ` (${problems.join('; ')})`;
  throw new InterlockError('Refused', `There is no report of ${run ?? 'any switchover'}${looked}.`);
}

function showStatus(last: SwitchStatus, options: Options): void {
  if (options.json) printJson(last);
  else print(renderStatus(last));
}

const EXIT_OF: Record<SwitchOutcome, ExitCode> = {
  running: EXIT.done,
  done: EXIT.done,
  'rolled-back': EXIT.done,
  refused: EXIT.failed,
  compensated: EXIT.failed,
  aborted: EXIT.failed,
  'needs-operator': EXIT.needsOperator,
};

function exitOf(last: SwitchStatus): ExitCode {
  return last.needs === null ? EXIT_OF[last.outcome] : EXIT.needsOperator;
}

/** 0 when the request has achieved what it was made for. */
function exitAfter(name: keyof typeof OPERATOR, last: SwitchStatus): ExitCode {
  if (last.needs !== null || last.outcome === 'needs-operator') return EXIT.needsOperator;
  const soaking = last.awaiting === 'rollback-or-finish';
  let achieved: boolean;
  if (name === 'rollback') achieved = last.outcome === 'rolled-back';
  else if (name === 'finish') achieved = last.outcome === 'done';
  // Aborted on the way back, the units stay where they were moved, and soak there.
  else if (last.steps.some((step) => step.flow === 'rollback')) achieved = soaking;
  else achieved = ['aborted', 'compensated', 'refused'].includes(last.outcome);
  return achieved ? EXIT.done : EXIT.failed;
}

async function quietly<T>(topology: Topology, wait: Promise<T>): Promise<T> {
  const text = `No answer yet: is a worker polling ${topology.temporal.controlTaskQueue}? Start one with \`interlock worker --dc …\`.`;
  const quiet = setTimeout(() => progress(text), QUIET_MS);
  try {
    return await wait;
  } finally {
    clearTimeout(quiet);
  }
}

/** The innermost failure of a workflow as an InterlockError. */
function workflowError(error: unknown, what: string): unknown {
  if (!(error instanceof WorkflowFailedError)) return error;
  const cause = error.cause as { type?: string; message?: string; name?: string } | undefined;
  if (cause?.name === 'TimeoutFailure') {
    return new InterlockError(
      'Unavailable',
      `${what}: no worker took it in ${PLAN_LIMIT_MS / 1000} s. Start one with \`interlock worker --dc …\`.`,
    );
  }
  return new InterlockError(
    (cause?.type ?? 'Internal') as ErrorCode,
    `${what}: ${cause?.message ?? error.message}`,
    {
      cause: error,
    },
  );
}
