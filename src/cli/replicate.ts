import { setTimeout as sleep } from 'node:timers/promises';
import {
  WorkflowExecutionAlreadyStartedError,
  WorkflowFailedError,
  WorkflowNotFoundError,
  WorkflowUpdateFailedError,
} from '@temporalio/client';
import type { Client, WorkflowHandle } from '@temporalio/client';
import { ApplicationFailure } from '@temporalio/common';
import type { Command } from 'commander';
import { parseLinkId } from '../../replicators/core/contract.js';
import { alertsOf } from '../../replicators/core/alerts.js';
import type { LinkStatus } from '../../replicators/core/contract.js';
import { linkIds } from '../../replicators/host/configure.js';
import { kindOf } from '../../replicators/host/kinds.js';
import { problemOf } from '../../replicators/host/options.js';
import type { InitialiseOptions } from '../../replicators/host/options.js';
import { parsePosition } from '../../replicators/mysql/position.js';
import { fresh, reportOf, unanswered } from '../../workers/link-report.js';
import type { LinkReport } from '../../workers/link-report.js';
import { replicatorWorkflowId } from '../../workflows/contract.js';
import type { ReplicatorCommand, ReplicatorInput, ResyncRequest } from '../../workflows/replicator.js';
import { InterlockError, messageOf } from '../errors.js';
import type { ErrorCode } from '../errors.js';
import { datacenter } from '../topology/derive.js';
import { loadTopology } from '../topology/load.js';
import type { Topology } from '../topology/schema.js';
import { EXIT, print, printJson, progress, table, topologyFile, topologyOption } from './output.js';
import { copyWords, linkWords } from './link-words.js';
import { withTemporal } from './temporal-client.js';

interface Options {
  topology?: string;
  json?: boolean;
  all?: boolean;
  store?: string;
}
interface CopyOptions extends Options {
  maxRowsPerSecond?: string;
  detach?: boolean;
}
interface StartOptions extends CopyOptions {
  from?: string;
  discardCheckpoint?: boolean;
  copy?: boolean;
}
interface ResyncOptions extends CopyOptions {
  tables?: string;
}

const KINDS = {
  mysql: 'MySQL replication',
  redis: 'Redis replication',
  kafka: 'Kafka replication',
  outbox: 'outbox relay',
} as const;
const ASK_LIMIT_MS = 10_000;
const START_LIMIT_MS = 60_000;
const POLL_MS = 200;
const QUIET_MS = 8_000;
const COPY_LINE_MS = 2_000;

/** `interlock replicate start | pause | resume | resync | stop | status`. */
export function register(program: Command): void {
  const replicate = program
    .command('replicate')
    .description('links: the directed replicators between the stores of the two data centers');
  const command = (name: string, description: string): Command =>
    topologyOption(replicate.command(`${name} [link]`))
      .description(description)
      .option('--all', 'every link of the topology')
      .option('--store <store>', 'the links of a kind of store (`redis`), or of one store (`redis/cache`)')
      .option('--json', 'print one JSON document');
  command('start', 'start a link at its checkpoint, or at --from, and wait until it streams')
    .option(
      '--from <position>',
      '`now` (both sides hold the same); MySQL: the GTID position of a loaded backup; an outbox: of the last event that Kafka has; Kafka: `earliest`',
    )
    .option(
      '--copy',
      'MySQL, Redis: copy from the live source first: what the target lacks, and what differs and the source owns',
    )
    .option('--discard-checkpoint', 'with --from or --copy: forget how far the link had applied')
    .option('--max-rows-per-second <n>', 'with --copy: read no more of the source')
    .option('--detach', 'with --copy: do not wait until all is copied')
    .addHelpText(
      'after',
      `
With --copy, the links of --store are copied one after the other, each when the one before streams.

Examples:
  $ interlock replicate start 'redis/cache:dc-a>dc-b' --copy
  $ interlock replicate start --store redis --copy
  $ interlock replicate start --all --from now`,
    )
    .action(start);
  command(
    'resync',
    'copy again, as when the binlog was purged, the backlog is too short or the target changed: also removes what the source owns and does not have',
  )
    .option('--tables <list>', 'MySQL: `schema.table`, several with commas; all of the link when absent')
    .option('--max-rows-per-second <n>', 'read no more of the source')
    .option('--detach', 'do not wait until all is copied')
    .addHelpText('after', "\nExample:\n  $ interlock replicate resync 'redis/cache:dc-a>dc-b'")
    .action(resync);
  for (const [name, what] of [
    ['pause', 'pause a link; what is committed stays'],
    ['resume', 'go on from the checkpoint'],
    ['stop', 'stop a link; the checkpoint stays'],
  ] as const)
    command(name, what)
      .addHelpText('after', `\nExample:\n  $ interlock replicate ${name} --store redis/cache`)
      .action((link: string | undefined, options: Options) => tell(name, link, options));
  command('status', 'state, lag, positions, rates and the last error of links')
    .addHelpText('after', '\nExample:\n  $ interlock replicate status --store redis --json')
    .action(status);
}

async function start(link: string | undefined, options: StartOptions): Promise<void> {
  if (options.discardCheckpoint === true && options.from === undefined && options.copy !== true) {
    throw badInput(
      'discard-checkpoint',
      '--discard-checkpoint needs --from or --copy: where should the link begin?',
    );
  }
  if (options.copy === true && options.from !== undefined)
    throw badInput('copy', '--copy begins at now, with what the source has: leave --from out');
  for (const [field, given] of [
    ['max-rows-per-second', options.maxRowsPerSecond],
    ['detach', options.detach],
  ] as const) {
    if (given !== undefined && options.copy !== true) throw badInput(field, `--${field} goes with --copy`);
  }
  const { topology } = await loadTopology(topologyFile(options));
  const links = chosen(topology, link, options, true);
  // Hazard: two that copy into each other's source would bring back what is deleted meanwhile.
  if (options.copy === true && links.length > 1 && (options.all === true || options.detach === true)) {
    throw badInput(
      'copy',
      `copy one link at a time, and start the other direction when it streams: ${links.map((id) => `interlock replicate start '${id}' --copy`).join('; ')}`,
    );
  }
  if (links.length > 1 && options.from !== undefined && options.from !== 'now') {
    throw badInput('from', 'a position belongs to one source: name the link, or use --from now');
  }
  for (const id of links) {
    const { from, copy } = options;
    checkAbilities(id, {
      ...(from !== undefined && { from }),
      ...(copy === true && { copy }),
      ...mostRows(options),
    });
    checkFrom(topology, id, from);
  }
  const reports = await withTemporal(topology, async (client) => {
    if (options.copy !== true) return Promise.all(links.map((id) => startOne(client, topology, id, options)));
    const streaming: LinkReport[] = [];
    for (const id of links) {
      const report = await startOne(client, topology, id, options);
      streaming.push(report);
      if (report.workflow === 'failed') break;
    }
    return streaming;
  });
  show(topology, reports, options);
}

/** Bad input is told before anything is connected to. */
function checkAbilities(link: string, options: InitialiseOptions): void {
  const problem = problemOf(kindOf(link), options);
  if (problem !== undefined) throw badInput(problem.field, `${link}: ${problem.message}`);
}

function checkFrom(topology: Topology, link: string, from: string | undefined): void {
  const id = parseLinkId(link)!;
  if (from === undefined || from === 'now' || (id.kind !== 'mysql' && id.kind !== 'outbox')) return;
  const { flavour } = datacenter(topology, id.from).stores.mysql[id.store]!;
  try {
    parsePosition(flavour, from);
  } catch (error) {
    throw badInput(
      '--from',
      `--from: ${JSON.stringify(from)}: expected \`now\`, or a GTID position of ${flavour} (${messageOf(error)})`,
    );
  }
}

async function startOne(
  client: Client,
  topology: Topology,
  link: string,
  options: StartOptions,
): Promise<LinkReport> {
  const input: ReplicatorInput = {
    link,
    taskQueue: datacenter(topology, parseLinkId(link)!.to).taskQueue,
    ...(options.from !== undefined && { from: options.from }),
    ...(options.discardCheckpoint === true && { discardCheckpoint: true }),
    ...(options.copy === true && { copy: true }),
    ...mostRows(options),
  };
  const workflowId = replicatorWorkflowId(link);
  let handle: WorkflowHandle;
  try {
    handle = await client.workflow.start('replicator', {
      workflowId,
      taskQueue: topology.temporal.controlTaskQueue,
      args: [input],
      staticSummary: `${KINDS[kindOf(link)]} ${link}`,
    });
  } catch (error) {
    if (!(error instanceof WorkflowExecutionAlreadyStartedError)) throw error;
    const report = await reportOf(client, link);
    if (options.from !== undefined || options.copy === true) {
      const instead =
        options.copy === true
          ? `to copy again: interlock replicate resync ${link}`
          : `stop it before you start it at another position (interlock replicate stop ${link})`;
      throw new InterlockError('Refused', `${link} is ${report.workflow} already: ${instead}`);
    }
    if (report.workflow !== 'running' && report.workflow !== 'initialising') return report;
    handle = client.workflow.getHandle(workflowId);
  }
  return waitFor(client, handle, link, flowing(options));
}

/** It streams; or, for who does not wait for that, it copies. */
function flowing({ detach }: CopyOptions): (report: LinkReport) => boolean {
  return ({ status: live }) =>
    live !== null &&
    fresh(live) &&
    (live.state === 'streaming' || (detach === true && live.state === 'copying'));
}

/** @throws InterlockError BadInput */
function mostRows({ maxRowsPerSecond: text }: CopyOptions): { maxRowsPerSecond?: number } {
  if (text === undefined) return {};
  if (/^[1-9]\d{0,8}$/.test(text)) return { maxRowsPerSecond: Number(text) };
  throw badInput(
    'max-rows-per-second',
    `--max-rows-per-second: ${JSON.stringify(text)}: expected a number of rows, 1 or more`,
  );
}

async function resync(link: string | undefined, options: ResyncOptions): Promise<void> {
  const most = mostRows(options);
  const { topology } = await loadTopology(topologyFile(options));
  if (link === undefined || options.all === true || options.store !== undefined)
    throw badInput('link', `name one link: ${linkIds(topology).join(', ')}`);
  const [id] = chosen(topology, link, options, true);
  const tables = options.tables?.split(',').map((name) => name.trim()) ?? null;
  if (tables?.some((name) => !/^[^.\s]+\.[^.]+$/.test(name)))
    throw badInput(
      'tables',
      `--tables: ${JSON.stringify(options.tables)}: expected schema.table, several with commas`,
    );
  const request: ResyncRequest = { tables, ...most };
  checkAbilities(id!, { resync: { tables }, ...most });
  const report = await withTemporal(topology, async (client) => {
    const handle = client.workflow.getHandle(replicatorWorkflowId(id!));
    progress(
      await told(client, id!, () =>
        handle.executeUpdate<string, [ResyncRequest]>('resync', { args: [request] }),
      ),
    );
    return waitFor(client, handle, id!, flowing(options));
  });
  show(topology, [report], options);
}

async function tell(name: ReplicatorCommand, link: string | undefined, options: Options): Promise<void> {
  const { topology } = await loadTopology(topologyFile(options));
  const links = chosen(topology, link, options, true);
  const reports = await withTemporal(topology, async (client) =>
    Promise.all(links.map((id) => tellOne(client, id, name))),
  );
  show(topology, reports, options);
}

/** One command for one link, as `replicate` gives it. */
export async function tellLink(topology: Topology, link: string, name: ReplicatorCommand): Promise<void> {
  await withTemporal(topology, (client) => tellOne(client, link, name));
}

async function tellOne(client: Client, link: string, name: ReplicatorCommand): Promise<LinkReport> {
  const handle = client.workflow.getHandle(replicatorWorkflowId(link));
  try {
    progress(await told(client, link, () => handle.executeUpdate<string, []>(name)));
  } catch (error) {
    const notStarted = error instanceof InterlockError && error.cause instanceof WorkflowNotFoundError;
    if (notStarted && name === 'stop') return reportOf(client, link);
    throw error;
  }
  return waitFor(client, handle, link, (report) => {
    if (name === 'resume') return report.status?.state === 'streaming' && fresh(report.status);
    if (name === 'pause') return report.workflow === 'paused';
    return report.workflow === 'not-started' || report.workflow === 'stopped';
  });
}

/** An update's answer. @throws InterlockError: as the link says, or Refused when it is not started */
async function told(client: Client, link: string, ask: () => Promise<string>): Promise<string> {
  try {
    return await client.withDeadline(Date.now() + ASK_LIMIT_MS, ask);
  } catch (error) {
    if (error instanceof WorkflowNotFoundError) {
      throw new InterlockError('Refused', `${link} is not started: interlock replicate start ${link}`, {
        cause: error,
      });
    }
    if (error instanceof WorkflowUpdateFailedError) {
      const said = error.cause instanceof ApplicationFailure ? error.cause : undefined;
      throw new InterlockError((said?.type ?? 'Refused') as ErrorCode, said?.message ?? error.message, {
        cause: error,
      });
    }
    throw unanswered(link, error);
  }
}

async function status(link: string | undefined, options: Options): Promise<void> {
  const { topology } = await loadTopology(topologyFile(options));
  const links = chosen(topology, link, options, false);
  const reports = await withTemporal(topology, async (client) =>
    Promise.all(links.map((id) => reportOf(client, id))),
  );
  show(topology, reports, options);
}

/** Waits until `reached`; ends early when the link has failed. */
async function waitFor(
  client: Client,
  handle: WorkflowHandle,
  link: string,
  reached: (report: LinkReport) => boolean,
): Promise<LinkReport> {
  let began = Date.now();
  let hinted = false;
  let shownAt = 0;
  for (;;) {
    const report = await reportOf(client, link);
    if (reached(report)) return report;
    const copy = report.status?.state === 'copying' && fresh(report.status) ? report.status.copy : null;
    if (copy !== null) {
      began = Date.now();
      if (began - shownAt > COPY_LINE_MS) {
        shownAt = began;
        progress(`${link}: ${copyWords(copy)}`);
      }
    }
    if (report.workflow === 'failed') return report;
    if (report.workflow === 'not-started') await explainEnd(handle, link);
    const waited = Date.now() - began;
    if (waited > QUIET_MS && !hinted) {
      hinted = true;
      progress(
        `${link}: nothing yet. Is a worker of ${parseLinkId(link)!.to} running (interlock worker --dc ${parseLinkId(link)!.to})?`,
      );
    }
    if (waited > START_LIMIT_MS) {
      throw new InterlockError(
        'Unavailable',
        `${link} does not get there in ${START_LIMIT_MS / 1000} s (${report.workflow}${report.error ? `: ${report.error.message}` : ''}); it keeps trying. See: interlock replicate status ${link}`,
        { details: { report } },
      );
    }
    await sleep(POLL_MS);
  }
}

/** The workflow has ended where it should run: says why. */
async function explainEnd(handle: WorkflowHandle, link: string): Promise<void> {
  try {
    await handle.result();
  } catch (error) {
    const cause = error instanceof WorkflowFailedError ? error.cause : undefined;
    if (cause instanceof ApplicationFailure) {
      throw new InterlockError((cause.type ?? 'Internal') as ErrorCode, cause.message, { cause: error });
    }
    throw new InterlockError('Refused', `${link} was ended: ${messageOf(error)}`, { cause: error });
  }
  throw new InterlockError('Refused', `${link} was stopped meanwhile`);
}

/** States of a link that has failed, which say more than that. */
const NAMED: ReadonlySet<string> = new Set(['diverged', 'resync-required', 'gap']);

function show(topology: Topology, links: LinkReport[], options: Options): void {
  const reports = links.map((report) => ({
    ...report,
    alerts: alertsOf(report, topology.limits, Date.now()),
  }));
  if (options.json) printJson({ links: reports });
  else {
    const rows = [['link', 'state', 'lag', 'rows/s in', 'out', 'tx/s in', 'out', 'conflicts', 'quarantine']];
    for (const { link, workflow, status: live } of reports) {
      const running = workflow === 'running' && live !== null;
      const rate = (of: (status: LinkStatus) => number): string => (running ? String(of(live)) : '–');
      rows.push([
        link,
        running || (workflow === 'failed' && live !== null && NAMED.has(live.state)) ? live.state : workflow,
        running ? `${live.lagMs} ms, ${bytes(live.lagBytes)}` : '–',
        rate((status) => status.rowsReadPerSecond),
        rate((status) => status.rowsPerSecond),
        rate((status) => status.transactionsReadPerSecond),
        rate((status) => status.transactionsPerSecond),
        live ? String(live.conflicts) : '–',
        live ? String(live.quarantined) : '–',
      ]);
    }
    print(table(rows));
    for (const report of reports) print(linkWords(report));
  }
  if (reports.some((report) => report.workflow === 'failed')) process.exitCode = EXIT.needsOperator;
}

function bytes(count: number | null): string {
  if (count === null) return '? bytes';
  return count < 1024 ? `${count} bytes` : `${Math.round(count / 1024)} KiB`;
}

/** The links of a command line. @throws InterlockError BadInput that names those there are. */
function chosen(
  topology: Topology,
  link: string | undefined,
  options: Options,
  mustChoose: boolean,
): string[] {
  const all = linkIds(topology);
  const { store } = options;
  if (store !== undefined) {
    if (link !== undefined || options.all === true)
      throw badInput('--store', '--store: name a link, or give --all, or --store');
    const of = (id: string): string[] => [kindOf(id), `${kindOf(id)}/${parseLinkId(id)!.store}`];
    const found = all.filter((id) => of(id).includes(store));
    if (found.length > 0) return found;
    const names = [...new Set(all.flatMap(of))].sort().join(', ');
    throw badInput('--store', `--store: ${JSON.stringify(store)}: expected one of ${names}`);
  }
  const known = all.length === 0 ? 'the topology wants no links' : `links are ${all.join(', ')}`;
  if (link !== undefined) {
    if (options.all) throw badInput('all', 'name a link or give --all, not both');
    if (!all.includes(link))
      throw badInput('link', `link: ${JSON.stringify(link)} is no link of the topology: ${known}`);
    return [link];
  }
  if (mustChoose && options.all !== true)
    throw badInput('link', `name a link, or give --all or --store: ${known}`);
  return all;
}

function badInput(field: string, message: string): InterlockError {
  return new InterlockError('BadInput', message, { details: { field } });
}
