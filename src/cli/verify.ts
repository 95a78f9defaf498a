import { hostname, userInfo } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { WorkflowExecutionAlreadyStartedError, WorkflowNotFoundError } from '@temporalio/client';
import type { Client, WorkflowHandle } from '@temporalio/client';
import { defaultPayloadConverter } from '@temporalio/common';
import type { Command } from 'commander';
import { TableFilter } from '../topology/table-filter.js';
import type { TableProgress } from '../../replicators/core/verification.js';
import { QUERIES } from '../../workflows/contract.js';
import { verificationWorkflowId } from '../../workflows/verification-contract.js';
import type { VerifyCommand, VerifyReport, VerifyRequest } from '../../workflows/verification-contract.js';
import { figuresOf } from '../../workflows/verification-figures.js';
import { InterlockError, messageOf } from '../errors.js';
import { scopeUnits, parseScope } from '../routing/scope.js';
import { initialRules, wantedMysqlLinks } from '../topology/derive.js';
import { loadTopology } from '../topology/load.js';
import type { Topology } from '../topology/schema.js';
import {
  LiveText,
  EXIT,
  integerFlag,
  print,
  printJson,
  progress,
  topologyFile,
  topologyOption,
} from './output.js';
import type { ExitCode } from './output.js';
import { memoText, refusalOf, withTemporal } from './temporal-client.js';
import { registerKafka } from './verify-kafka.js';
import { renderProgress, renderReport } from './verify-words.js';

interface Options {
  topology?: string;
  json?: boolean;
}
interface StartOptions extends Options {
  tables?: string[];
  scope?: string;
  repair?: boolean;
  keep: number;
  watch?: boolean;
  detach?: boolean;
}

const WATCH_MS = 500;
const ASK_LIMIT_MS = 10_000;
const ACCEPT_LIMIT_MS = 30_000;
const QUIET_MS = 10_000;
const KEEP = 20;

const OPERATOR: Record<VerifyCommand, string> = {
  pause: 'pause it behind the chunk it is at',
  resume: 'go on where it was paused',
  stop: 'end it; what was compared is reported',
};

/** `interlock verify mysql | kafka | status | report | pause | resume | stop`. */
export function register(program: Command): void {
  const command = program
    .command('verify')
    .description('compare the stores of the two data centers row by row, record by record, under live writes')
    .addHelpText(
      'after',
      `
Examples:
  $ interlock verify mysql
  $ interlock verify mysql --tables 'shop.*' --scope cn-east:10% --watch
  $ interlock verify mysql --tables shop.wallet --repair
  $ interlock verify kafka --topics 'orders*'
  $ interlock verify status --watch

One verification at a time. A row that differs at first sight is looked at again when the links have passed a marker, and then with the
owner's row locked: a change that is on its way is never reported.

Exit codes: 0 equal (or all repaired), 1 rows differ, 2 bad input, 3 something could not be compared.`,
    );

  common(command.command('mysql'))
    .description('compare the tables that MySQL links carry, and wait for the result')
    .option('--tables <patterns...>', 'only these: `schema.table`, with `*`; separated by commas or blanks')
    .option(
      '--scope <scope>',
      'only rows of these units: dc:dc-a, region:cn-east, cn-east:10%, cn-east/0-99, segment:vip',
    )
    .option('--repair', "write the owner's rows over what differs on the other side; never the other way")
    .option(
      '--keep <n>',
      'show so many rows per table with both images, count the rest',
      integerFlag('--keep', 0, 1_000),
      KEEP,
    )
    .option('--detach', 'return the run id at once')
    .option('--watch', 'show live progress')
    .addHelpText(
      'after',
      `
With --scope, unrouted tables are left out: their rows belong to no unit.

Examples:
  $ interlock verify mysql --tables 'shop.*' --json
  $ interlock verify mysql --scope region:cn-east --repair --watch`,
    )
    .action(start);

  registerKafka(common(command.command('kafka')));

  common(command.command('status').argument('[run]', 'run id; default: the last one'))
    .description('how far each table is')
    .option('--watch', 'show live progress until it has ended')
    .addHelpText('after', '\nExample:\n  $ interlock verify status --watch')
    .action(status);

  common(command.command('report').argument('[run]', 'run id; default: the last one'))
    .description('the result, or what was compared so far, with the rows that differ')
    .addHelpText('after', '\nExample:\n  $ interlock verify report --json')
    .action(report);

  for (const [name, description] of Object.entries(OPERATOR)) {
    common(command.command(name))
      .description(description)
      .addHelpText('after', `\nExample:\n  $ interlock verify ${name}`)
      .action((options: Options) => operate(name as VerifyCommand, options));
  }
}

function common(command: Command): Command {
  return topologyOption(command).option('--json', 'print one JSON document');
}

async function start(options: StartOptions): Promise<void> {
  const { topology } = await loadTopology(topologyFile(options));
  const request = requestOf(topology, options);
  await withTemporal(topology, async (client) => {
    const { workflowId, runId } = await startRun(client, topology, request);
    if (options.detach) {
      if (options.json) printJson({ workflowId, runId });
      else print(`Started: run ${runId}. \`interlock verify status --watch\` shows it.`);
      return;
    }
    progress(`Run ${runId}; \`interlock verify pause\` and \`stop\` are there.`);
    const handle = client.workflow.getHandle(workflowId);
    if (options.watch) await watch(handle);
    finish(await resultOf(handle, topology), options);
  });
}

async function status(run: string | undefined, options: Options & { watch?: boolean }): Promise<void> {
  const { topology } = await loadTopology(topologyFile(options));
  await withTemporal(topology, async (client) => {
    const handle = client.workflow.getHandle(verificationWorkflowId(topology.name), run);
    const last = options.watch ? await watch(handle) : await reportOf(handle, QUERIES.status);
    if (options.json) printJson(last);
    else print(renderProgress(last));
  });
}

async function report(run: string | undefined, options: Options): Promise<void> {
  const { topology } = await loadTopology(topologyFile(options));
  await withTemporal(topology, async (client) => {
    const handle = client.workflow.getHandle(verificationWorkflowId(topology.name), run);
    const found = await reportOf(handle, QUERIES.report);
    if (options.json) printJson(found);
    else print(renderReport(found));
  });
}

async function operate(name: VerifyCommand, options: Options): Promise<void> {
  const { topology } = await loadTopology(topologyFile(options));
  await withTemporal(topology, async (client) => {
    const handle = client.workflow.getHandle(verificationWorkflowId(topology.name));
    let answer: string;
    try {
      answer = await client.withDeadline(Date.now() + ACCEPT_LIMIT_MS, () =>
        handle.executeUpdate<string, []>(name),
      );
    } catch (error) {
      throw refusalOf(error, name, `no verification of ${topology.name} is under way.`);
    }
    if (options.json) printJson({ accepted: true, answer });
    else print(answer);
  });
}

function requestOf(topology: Topology, options: StartOptions): VerifyRequest {
  const tables = (options.tables ?? [])
    .flatMap((text) => text.split(','))
    .map((text) => text.trim())
    .filter(Boolean);
  const carried = wantedMysqlLinks(topology).map(({ include, exclude }) => new TableFilter(include, exclude));
  const names = Object.keys(topology.tables).filter((name) => carried.some((filter) => filter.has(name)));
  if (names.length === 0) {
    throw new InterlockError(
      'BadInput',
      "the topology's `tables` declare none that a link carries: there is nothing to compare",
      { details: { field: 'tables' } },
    );
  }
  for (const pattern of tables) {
    if (names.some((name) => new TableFilter([pattern], []).has(name))) continue;
    throw bad(
      '--tables',
      pattern,
      `expected tables that the topology declares and a link carries: ${names.join(', ') || 'there are none'}`,
    );
  }
  // Who owns what now is for the verification to find; what the scope names has to be in the topology.
  if (options.scope !== undefined) {
    try {
      scopeUnits(initialRules(topology), parseScope(options.scope));
    } catch (error) {
      throw bad('--scope', options.scope, messageOf(error).replace(/^scope "[^"]*": /, ''));
    }
  }
  return {
    topology: topology.name,
    tables,
    scope: options.scope ?? null,
    repair: options.repair === true,
    keep: options.keep,
    startedBy: `${userInfo().username}@${hostname()}`,
  };
}

async function startRun(
  client: Client,
  topology: Topology,
  request: VerifyRequest,
): Promise<{ workflowId: string; runId: string }> {
  const workflowId = verificationWorkflowId(topology.name);
  const what = `${request.tables.join(', ') || 'all tables'}${request.scope === null ? '' : `, ${request.scope}`}${request.repair ? ', with repair' : ''}`;
  try {
    const handle = await client.workflow.start('verification', {
      workflowId,
      taskQueue: topology.temporal.controlTaskQueue,
      args: [request],
      // One at a time: two would lock rows for each other, and repair what the other proves.
      workflowIdConflictPolicy: 'FAIL',
      workflowIdReusePolicy: 'ALLOW_DUPLICATE',
      staticSummary: `Verify MySQL: ${what}`,
      staticDetails: `Started by ${request.startedBy}.`,
      memo: { startedBy: request.startedBy, what },
    });
    return { workflowId, runId: handle.firstExecutionRunId };
  } catch (error) {
    if (!(error instanceof WorkflowExecutionAlreadyStartedError)) throw error;
    const running = await client.workflow.getHandle(workflowId).describe();
    throw new InterlockError(
      'Refused',
      `A verification of ${topology.name} is under way: run ${running.runId} (${memoText(running.memo?.['what'])}, started by ${memoText(running.memo?.['startedBy'])}). See \`interlock verify status\`; \`interlock verify stop\` ends it.`,
      { details: { workflowId, runId: running.runId } },
    );
  }
}

async function resultOf(handle: WorkflowHandle, topology: Topology): Promise<VerifyReport> {
  const quiet = setTimeout(
    () =>
      progress(
        `Still under way; \`interlock verify status --watch\` shows where. A worker must poll ${topology.temporal.controlTaskQueue} (interlock worker --dc DC).`,
      ),
    QUIET_MS,
  );
  try {
    return (await handle.result()) as VerifyReport;
  } catch (error) {
    throw new InterlockError(
      'NeedsOperator',
      `The verification was ended: ${messageOf(error)}. Start it again.`,
      {
        cause: error,
      },
    );
  } finally {
    clearTimeout(quiet);
  }
}

async function watch(handle: WorkflowHandle): Promise<VerifyReport> {
  const live = new LiveText();
  let said = '';
  for (;;) {
    const now = await reportOf(handle, QUERIES.status);
    const words = renderProgress(now);
    if (!live.show(words)) {
      const [line = ''] = words.split('\n');
      if (line !== said) progress((said = line));
    }
    if (now.outcome !== 'running') return now;
    await sleep(WATCH_MS);
  }
}

/** From the workflow while it runs, with what the activity's heartbeat knows better; from the result when it has ended. */
async function reportOf(handle: WorkflowHandle, query: string): Promise<VerifyReport> {
  const { client } = handle;
  let description;
  try {
    description = await client.withDeadline(Date.now() + ASK_LIMIT_MS, () => handle.describe());
  } catch (error) {
    if (!(error instanceof WorkflowNotFoundError)) throw error;
    throw new InterlockError(
      'Refused',
      'Temporal knows no such verification; start one with `interlock verify mysql`.',
    );
  }
  if (description.status.name === 'COMPLETED') return (await handle.result()) as VerifyReport;
  if (description.status.name !== 'RUNNING') {
    throw new InterlockError(
      'NeedsOperator',
      `Run ${description.runId} was ${description.status.name.toLowerCase()}: start another with \`interlock verify mysql\`.`,
      { details: { runId: description.runId } },
    );
  }
  let found: VerifyReport;
  try {
    found = await client.withDeadline(Date.now() + ASK_LIMIT_MS, () => handle.query<VerifyReport>(query));
  } catch (error) {
    throw new InterlockError(
      'Unavailable',
      `No worker answers for the verification (${messageOf(error)}): start one with \`interlock worker --dc …\`.`,
      { cause: error, details: { what: 'control worker' } },
    );
  }
  const payload = description.raw.pendingActivities?.find(
    ({ activityType }) => activityType?.name === 'compareTable',
  )?.heartbeatDetails?.payloads?.[0];
  return payload ? merged(found, defaultPayloadConverter.fromPayload<TableProgress>(payload), query) : found;
}

/** The table that is compared now is the first that is not done. */
function merged(found: VerifyReport, beat: TableProgress, query: string): VerifyReport {
  const at = found.tables.findIndex(({ progress: one }) => !one.done);
  const one = found.tables[at];
  if (one === undefined || beat.chunks < one.progress.chunks) return found;
  const now = query === QUERIES.report ? beat : { ...beat, differences: [] };
  const tables = found.tables.with(at, { ...one, progress: now });
  return { ...found, tables, ...figuresOf(tables) };
}

function finish(last: VerifyReport, options: Options): void {
  if (options.json) printJson(last);
  else print(renderReport(last));
  process.exitCode = exitOf(last);
}

function exitOf({ outcome, error, differing, repaired, tables }: VerifyReport): ExitCode {
  if (error?.code === 'BadInput') return EXIT.badInput;
  if (differing > repaired) return EXIT.failed;
  const whole = tables.every(
    ({ progress: { notComparable, undecided, done } }) => done && notComparable === null && undecided === 0,
  );
  return outcome !== 'stopped' && error === null && whole ? EXIT.done : EXIT.needsOperator;
}

function bad(flag: string, value: string, expected: string): InterlockError {
  return new InterlockError('BadInput', `${flag}: ${JSON.stringify(value)}: ${expected}`, {
    details: { field: flag, value },
  });
}
