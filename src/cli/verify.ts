import { Option } from 'commander';
import type { Command } from 'commander';
import { QUERIES } from '../../workflows/contract.js';
import { verificationWorkflowId } from '../../workflows/verification-contract.js';
import type { VerifyCommand, VerifyReport, VerifyRequest } from '../../workflows/verification-contract.js';
import { loadTopology } from '../topology/load.js';
import type { Topology } from '../topology/schema.js';
import {
  EXIT,
  durationFlag,
  integerFlag,
  print,
  printJson,
  progress,
  topologyFile,
  topologyOption,
} from './output.js';
import type { ExitCode } from './output.js';
import { refusalOf, withTemporal } from './temporal-client.js';
import { shareFlag, storesRequest, tablesRequest } from './verify-request.js';
import type { StoresChosen, TablesChosen } from './verify-request.js';
import { reportOf, resultOf, startRun, watch } from './verify-run.js';
import { registerKafka } from './verify-kafka.js';
import { renderProgress, renderReport } from './verify-words.js';

interface Options {
  topology?: string;
  json?: boolean;
}
interface StartOptions extends Options {
  watch?: boolean;
  detach?: boolean;
}

const ACCEPT_LIMIT_MS = 30_000;
const KEEP = 20;
const TTL_TOLERANCE = '1s';

const OPERATOR: Record<VerifyCommand, string> = {
  pause: 'pause it behind the chunk it is at',
  resume: 'go on where it was paused',
  stop: 'end it; what was compared is reported',
};

/** `interlock verify mysql | redis | kafka | status | report | pause | resume | stop`. */
export function register(program: Command): void {
  const command = program
    .command('verify')
    .description(
      'compare the stores of the two data centers row by row, key by key, record by record, under live writes',
    )
    .addHelpText(
      'after',
      `
Examples:
  $ interlock verify mysql
  $ interlock verify mysql --tables 'shop.*' --scope cn-east:10% --watch
  $ interlock verify mysql --tables shop.wallet --repair
  $ interlock verify redis --store cache --mode length
  $ interlock verify kafka --topics 'orders*'
  $ interlock verify status --watch

One verification at a time. What differs at first sight is looked at again when the links have passed a marker, and is then proven: a row with
the owner's row locked, a key that nobody has written since it was read. A change that is on its way is never reported.

Exit codes: 0 equal (or all repaired), 1 rows or keys differ, 2 bad input, 3 something could not be compared.`,
    );

  starting(command.command('mysql'), 'rows', 'per table, with both images,')
    .description('compare the tables that MySQL links carry, and wait for the result')
    .option('--tables <patterns...>', 'only these: `schema.table`, with `*`; separated by commas or blanks')
    .option('--repair', "write the owner's rows over what differs on the other side; never the other way")
    .addHelpText(
      'after',
      `
With --scope, unrouted tables are left out: their rows belong to no unit.

Examples:
  $ interlock verify mysql --tables 'shop.*' --json
  $ interlock verify mysql --scope region:cn-east --repair --watch`,
    )
    .action((options: StartOptions & TablesChosen) =>
      start(options, (topology) => tablesRequest(topology, options)),
    );

  starting(command.command('redis'), 'keys', 'per store')
    .description('compare the keys that Redis links carry, and wait for the result')
    .option('--store <names...>', 'only these stores; separated by commas or blanks')
    .option(
      '--mode <mode>',
      'full, length (and expiry), existence (and type), or sample (full, of a share)',
      'full',
    )
    .option('--sample <share>', 'with --mode sample: of so many keys, 1% by default', shareFlag('--sample'))
    .addOption(
      new Option('--ttl-tolerance <duration>', 'times of expiry may be so far apart')
        .argParser(durationFlag('--ttl-tolerance'))
        .default(durationFlag('--ttl-tolerance')(TTL_TOLERANCE), TTL_TOLERANCE),
    )
    .option('--repair', 'have the owner of a key that differs write it anew; links bring it')
    .addHelpText(
      'after',
      `
With --scope, keys without a unit are left out.

Examples:
  $ interlock verify redis --mode existence --json
  $ interlock verify redis --mode sample --sample 5%
  $ interlock verify redis --store cache --scope region:cn-east --repair --watch`,
    )
    .action((options: StartOptions & StoresChosen) =>
      start(options, (topology) => storesRequest(topology, options)),
    );

  registerKafka(common(command.command('kafka')));

  common(command.command('status').argument('[run]', 'run id; default: the last one'))
    .description('how far each table or store is')
    .option('--watch', 'show live progress until it has ended')
    .addHelpText('after', '\nExample:\n  $ interlock verify status --watch')
    .action(status);

  common(command.command('report').argument('[run]', 'run id; default: the last one'))
    .description('the result, or what was compared so far, with what differs')
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

function starting(command: Command, what: string, per: string): Command {
  return common(command)
    .option(
      '--scope <scope>',
      `only ${what} of these units: dc:dc-a, region:cn-east, cn-east:10%, cn-east/0-99, segment:vip`,
    )
    .option(
      '--keep <n>',
      `show so many ${what} ${per} that differ, count the rest`,
      integerFlag('--keep', 0, 1_000),
      KEEP,
    )
    .option('--detach', 'return the run id at once')
    .option('--watch', 'show live progress');
}

async function start(options: StartOptions, requestOf: (topology: Topology) => VerifyRequest): Promise<void> {
  const { topology } = await loadTopology(topologyFile(options));
  const request = requestOf(topology);
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

function finish(last: VerifyReport, options: Options): void {
  if (options.json) printJson(last);
  else print(renderReport(last));
  process.exitCode = exitOf(last);
}

function exitOf({ outcome, error, differing, repaired, tables, stores = [] }: VerifyReport): ExitCode {
  if (error?.code === 'BadInput') return EXIT.badInput;
  if (differing > repaired) return EXIT.failed;
  const whole = [...tables, ...stores].every(
    ({ progress: { notComparable, undecided, done } }) => done && notComparable === null && undecided === 0,
  );
  return outcome !== 'stopped' && error === null && whole ? EXIT.done : EXIT.needsOperator;
}
