import { readFile } from 'node:fs/promises';
import { hostname, userInfo } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { createInterface } from 'node:readline/promises';
import { WorkflowNotFoundError } from '@temporalio/client';
import type { Client, WorkflowHandle } from '@temporalio/client';
import type { Command } from 'commander';
import { addressOf } from '../../activities/ddl-plan.js';
import { abandonSteps } from '../../replicators/mysql/ddl-apply/run.js';
import { readStatement, splitStatements } from '../../replicators/mysql/ddl-apply/statement.js';
import { QUERIES } from '../../workflows/contract.js';
import { ddlWorkflowId } from '../../workflows/ddl-contract.js';
import type { DdlReport, DdlRequest } from '../../workflows/ddl-contract.js';
import { InterlockError, messageOf } from '../errors.js';
import { dcIds } from '../topology/derive.js';
import { loadTopology, resolveSecret } from '../topology/load.js';
import type { Topology } from '../topology/schema.js';
import { renderDdl } from './ddl-words.js';
import { EXIT, print, printJson, progress, topologyFile, topologyOption } from './output.js';
import { startAlone, withTemporal } from './temporal-client.js';

interface Options {
  topology?: string;
  json?: boolean;
}
interface ApplyOptions extends Options {
  file: string;
  stores?: string[];
  dryRun?: boolean;
  yes?: boolean;
}

const WATCH_MS = 300;
const ASK_LIMIT_MS = 10_000;

/** `interlock ddl apply | status | stop`. */
export function register(program: Command): void {
  const command = program
    .command('ddl')
    .description('change definitions of tables in every data center, while links and applications go on')
    .addHelpText(
      'after',
      `
Examples:
  $ interlock ddl apply --file add-column.sql --dry-run
  $ interlock ddl apply --file add-column.sql --yes
  $ interlock ddl status

Links do not carry definitions. Statements run here once on each side: first all that add (on all sides), then all that take away.
Run it again after a failure: what has been executed is found, and the rest goes on.

Exit codes: 0 done, 1 failed (the report says where), 2 bad input, nothing was done.`,
    );

  common(command.command('apply'))
    .description('run the statements of a file on every data center, in the safe order')
    .requiredOption('--file <file>', 'SQL statements, each ending with `;`, with `schema.table` names')
    .option('--stores <stores...>', 'only these MySQL stores of each data center (default: all)')
    .option('--dry-run', 'show the plan: what runs where, in which order, and how; change nothing')
    .option('--yes', 'do not ask')
    .addHelpText(
      'after',
      `
Goes: ADD COLUMN that is nullable or has a constant default, wider columns, ADD/DROP INDEX, CREATE TABLE, DROP COLUMN, DROP TABLE.
Does not go, and says what to do instead: renames, narrower types, primary keys, TRUNCATE, changes of rows, partitions, foreign keys.

Example:
  $ interlock ddl apply --file change.sql --stores main --yes`,
    )
    .action(apply);

  common(command.command('status').argument('[run]', 'run id; default: the last one'))
    .description('where each statement is')
    .addHelpText('after', '\nExample:\n  $ interlock ddl status --json')
    .action(status);

  common(command.command('stop'))
    .description('end it behind the statement that runs; apply the same file again to go on')
    .addHelpText('after', '\nExample:\n  $ interlock ddl stop')
    .action(stop);
}

function common(command: Command): Command {
  return topologyOption(command).option('--json', 'print one JSON document');
}

async function apply(options: ApplyOptions): Promise<void> {
  const { topology } = await loadTopology(topologyFile(options));
  const request = await requestOf(topology, options);
  if (options.dryRun !== true && options.yes !== true && !process.stdin.isTTY) {
    throw new InterlockError('BadInput', 'nobody is there to ask: add --yes, or --dry-run to see the plan', {
      details: { field: '--yes' },
    });
  }
  await withTemporal(topology, async (client) => {
    if (options.dryRun !== true && options.yes !== true) await ask(client, topology, request);
    const last = await run(client, topology, { ...request, dryRun: options.dryRun === true });
    if (options.json) printJson(last);
    else print(renderDdl(last));
    process.exitCode = exitOf(last);
  });
}

/** Shows the plan and asks a person. */
async function ask(client: Client, topology: Topology, request: DdlRequest): Promise<void> {
  const plan = await run(client, topology, { ...request, dryRun: true });
  progress(renderDdl(plan));
  if (plan.outcome !== 'planned')
    throw new InterlockError(plan.error?.code === 'BadInput' ? 'BadInput' : 'Refused', plan.summary);
  const questions = createInterface({ input: process.stdin, output: process.stderr });
  const answer = await questions.question('Run it? (yes/no) ');
  questions.close();
  if (!/^y(es)?$/i.test(answer.trim())) throw new InterlockError('BadInput', 'nothing was done');
}

async function requestOf(topology: Topology, options: ApplyOptions): Promise<DdlRequest> {
  let text: string;
  try {
    text = await readFile(options.file, 'utf8');
  } catch (error) {
    throw bad('--file', options.file, `--file ${options.file}: ${messageOf(error)}`);
  }
  const statements = splitStatements(text);
  if (statements.length === 0)
    throw bad('--file', options.file, `--file ${options.file}: no statement in it`);
  statements.forEach((statement, i) => readStatement(statement, i + 1));
  const stores = (options.stores ?? []).flatMap((names) => names.split(',')).filter(Boolean);
  const known = new Set(dcIds(topology).flatMap((dc) => Object.keys(topology.datacenters[dc]!.stores.mysql)));
  const unknown = stores.find((name) => !known.has(name));
  if (unknown !== undefined)
    throw bad('--stores', unknown, `--stores ${unknown}: expected some of ${[...known].join(', ')}`);
  return {
    ...{ topology: topology.name, statements, stores, dryRun: false },
    startedBy: `${userInfo().username}@${hostname()}`,
  };
}

async function run(client: Client, topology: Topology, request: DdlRequest): Promise<DdlReport> {
  const { workflowId, runId } = await startAlone(
    client,
    'ddlChange',
    {
      workflowId: ddlWorkflowId(topology.name),
      taskQueue: topology.temporal.controlTaskQueue,
      args: [request],
      staticSummary: `${request.dryRun ? 'Plan' : 'Apply'} ${request.statements.length} DDL statements`,
      memo: { startedBy: request.startedBy },
    },
    (running) =>
      `a change of definitions is under way: run ${running.runId} (started by ${running.asked('startedBy')}). See \`interlock ddl status\`; \`interlock ddl stop\` ends it.`,
  );
  progress(`Run ${runId}; \`interlock ddl status\` and \`stop\` are there.`);
  return follow(client.workflow.getHandle(workflowId, runId), topology);
}

/** Says what happens, statement by statement; ends with the workflow. */
async function follow(handle: WorkflowHandle, topology: Topology): Promise<DdlReport> {
  const said = new Set<string>();
  const ended = handle.result() as Promise<DdlReport>;
  // Looked at below; a failure in between must not end the process.
  ended.catch(() => undefined);
  let waits = 0;
  for (;;) {
    const now = await Promise.race([
      ended.catch((error: unknown) => {
        throw new InterlockError(
          'NeedsOperator',
          `the change was ended: ${messageOf(error)}. Apply the same file again`,
          {
            cause: error,
          },
        );
      }),
      sleep(WATCH_MS).then(() => undefined),
    ]);
    const view = now ?? (await statusOf(handle).catch(() => undefined));
    if (view === undefined && ++waits === 30)
      progress(
        `Still waiting: a worker must poll ${topology.temporal.controlTaskQueue} (interlock worker --dc DC).`,
      );
    for (const { number, store, targets, statement } of view?.steps ?? [])
      for (const { dc, state, algorithm, error } of targets) {
        if (state === 'waiting' || view!.outcome === 'planned') continue;
        const line = `${number} ${dc} mysql/${store}: ${state}${algorithm === null ? '' : ` (${algorithm})`}${error === null ? '' : `: ${error}`}: ${statement.replace(/\s+/g, ' ').slice(0, 100)}`;
        if (!said.has(line)) progress(line);
        said.add(line);
      }
    if (now !== undefined) return now;
  }
}

async function status(runId: string | undefined, options: Options): Promise<void> {
  const { topology } = await loadTopology(topologyFile(options));
  await withTemporal(topology, async (client) => {
    const found = await statusOf(client.workflow.getHandle(ddlWorkflowId(topology.name), runId));
    if (options.json) printJson(found);
    else print(renderDdl(found));
  });
}

async function statusOf(handle: WorkflowHandle): Promise<DdlReport> {
  const { client } = handle;
  let name: string;
  try {
    ({ name } = (await client.withDeadline(Date.now() + ASK_LIMIT_MS, () => handle.describe())).status);
  } catch (error) {
    if (!(error instanceof WorkflowNotFoundError)) throw error;
    throw new InterlockError('Refused', 'no change of definitions has been made; see `interlock ddl apply`');
  }
  if (name === 'COMPLETED') return (await handle.result()) as DdlReport;
  if (name !== 'RUNNING')
    throw new InterlockError('NeedsOperator', `the run was ${name.toLowerCase()}: apply the same file again`);
  try {
    return await client.withDeadline(Date.now() + ASK_LIMIT_MS, () =>
      handle.query<DdlReport>(QUERIES.status),
    );
  } catch (error) {
    throw new InterlockError(
      'Unavailable',
      `no worker answers for it (${messageOf(error)}): start one with \`interlock worker --dc …\``,
      { cause: error, details: { what: 'control worker' } },
    );
  }
}

async function stop(options: Options): Promise<void> {
  const { topology } = await loadTopology(topologyFile(options));
  await withTemporal(topology, async (client) => {
    const handle = client.workflow.getHandle(ddlWorkflowId(topology.name));
    const answer = (await cancelled(handle))
      ? 'It stops behind the statement that runs.'
      : await abandoned(topology);
    if (options.json) printJson({ accepted: true, answer });
    else print(answer);
  });
}

/** @returns false: none is under way */
async function cancelled(handle: WorkflowHandle): Promise<boolean> {
  try {
    const { status: now } = await handle.describe();
    if (now.name !== 'RUNNING') return false;
    await handle.cancel();
    return true;
  } catch (error) {
    if (error instanceof WorkflowNotFoundError) return false;
    throw error;
  }
}

/** A run that was terminated has told no store that it is over: links wait for it, and no switchover starts. */
async function abandoned(topology: Topology): Promise<string> {
  const stores = dcIds(topology).flatMap((dc) =>
    Object.keys(topology.datacenters[dc]!.stores.mysql).map((store) => ({ dc, store })),
  );
  const counts = await Promise.all(
    stores.map(({ dc, store }) => abandonSteps(addressOf({ topology, secret: resolveSecret }, dc, store))),
  );
  const steps = counts.reduce((sum, count) => sum + count, 0);
  if (steps === 0) throw new InterlockError('Refused', 'nothing to stop: no change is under way');
  return `The run had ended before; ${steps} steps that it left are over now. Apply the same file again for what it has not done.`;
}

function exitOf({ outcome, error }: DdlReport): number {
  if (outcome === 'done' || outcome === 'planned') return EXIT.done;
  return error?.code === 'BadInput' ? EXIT.badInput : EXIT.failed;
}

function bad(field: string, value: string, message: string): InterlockError {
  return new InterlockError('BadInput', message, { details: { field, value } });
}
