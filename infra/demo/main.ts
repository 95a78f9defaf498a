/**
 * `npm run demo`: two data centers under load; 10 % of a region moves, then the rest, then the rest moves back. After each switchover
 * a checker compares what clients were told with what both databases have. Exit code 0 only when nothing was lost.
 */
import { once } from 'node:events';
import path from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { InterlockError, messageOf } from '../../src/errors.js';
import { interlockHome } from '../mysql-server.js';
import type { Flavour } from '../mysql-server.js';
import type { CheckReport } from './checker/checker.js';
import { demoDocument, demoTable, eventsOf, passed } from './outcome.js';
import type { DemoDocument } from './outcome.js';
import { DemoRig } from './rig.js';
import type { SwitchoverCost } from './rig.js';
import { addressesOf } from './addresses.js';

interface DemoOptions {
  json: boolean;
  keep: boolean;
  rate: number;
  mysql: Flavour;
  rttMs: number;
  kafka: boolean;
  directory: string;
}

const REGION = 'cn-east';
const LEAST_WRITES = 2_000;

const started = performance.now();
const seconds = (): string => `${((performance.now() - started) / 1000).toFixed(1).padStart(5)} s`;

export async function demo(options: DemoOptions, signal: AbortSignal): Promise<DemoDocument> {
  const say = (line: string): void => {
    (options.json ? process.stderr : process.stdout).write(`${seconds()}  ${line}\n`);
  };
  const costs: SwitchoverCost[] = [];
  const checks: CheckReport[] = [];
  let rig: DemoRig | undefined;
  let keep = false;
  let sound = false;
  try {
    say(`two data centers on ${options.mysql}, ${options.rate} writes/s through both gateways`);
    rig = await DemoRig.up({
      directory: options.directory,
      shape: { mysql: options.mysql, rttMs: options.rttMs, kafka: options.kafka ? 1 : 0 },
      rate: options.rate,
      progress: say,
      signal,
    });
    const { load } = rig;
    const here = rig;
    const check = async (cost: SwitchoverCost): Promise<void> => {
      costs.push(cost);
      say(
        `${cost.scope}: ${cost.outcome}, fenced for ${cost.fencedMs ?? '?'} ms, slowest write ${cost.slowestClientWriteMs ?? '?'} ms, ${cost.failedRequests} failed`,
      );
      if (cost.fencedMs === null) say(`  ${cost.summary}`);
      await pause(1000, signal);
      const { report } = await untilAborted(here.check(), signal);
      checks.push(report);
      for (const finding of report.findings.slice(0, 10)) say(`  ${finding}`);
      say(
        report.ok
          ? `checked: ${report.ackedWrites} acknowledged writes, each once in its owner's database; ${options.kafka ? `${eventsOf(report)}; ` : ''}tables equal; one writer per unit`
          : `CHECK FAILED: ${report.findings.length} findings`,
      );
    };

    await load.start();
    say('load runs');
    await pause(2000, signal);
    if (options.kafka) {
      await untilAborted(rig.checker.consuming(), signal);
      say('events are handled in both data centers');
    }

    say(`moving 10 % of ${REGION} from dc-a to dc-b`);
    await check(await rig.switchover(`${REGION}:10%`, 'dc-a', 'dc-b'));
    await load.start();
    await rig.finish();
    await pause(1000, signal);

    say(`moving the rest of ${REGION} from dc-a to dc-b`);
    await check(await rig.switchover(`region:${REGION}`, 'dc-a', 'dc-b'));
    await load.start();
    await pause(1000, signal);

    say('rolling that back');
    const back = await rig.rollback();
    // The last check is over no fewer than LEAST_WRITES writes.
    while ((await load.counts()).acked < LEAST_WRITES) await pause(200, signal);
    await check(back);

    const document = demoDocument(costs, checks, {
      kafka: options.kafka,
      wallSeconds: (performance.now() - started) / 1000,
    });
    sound = passed(document);
    if (!options.json) process.stdout.write(`\n${demoTable(document)}\n`);
    if (options.keep) {
      await rig.keep();
      keep = true;
      (options.json ? process.stderr : process.stdout).write(`\n${addressesOf(rig.lab, rig.topology)}\n`);
    }
    return document;
  } finally {
    if (!keep) {
      // What went wrong can be looked for: logs, data and journal stay until the next run.
      say(sound ? 'ending everything' : `ending everything; logs and journal stay in ${options.directory}`);
      await rig?.down(sound);
    }
  }
}

async function pause(ms: number, signal: AbortSignal): Promise<void> {
  await setTimeout(ms, undefined, { signal }).catch(() => signal.throwIfAborted());
}

/** What `work` gives; or it is left to itself: its answer, or its failure, is of no use any more. */
async function untilAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  const over = new AbortController();
  const aborted = once(signal, 'abort', { signal: over.signal }).then(() => {
    throw signal.reason;
  });
  aborted.catch(() => undefined);
  try {
    signal.throwIfAborted();
    return await Promise.race([work, aborted]);
  } finally {
    over.abort();
    work.catch(() => undefined);
  }
}

export function parseDemoOptions(argv: readonly string[]): DemoOptions {
  const bad = (flag: string, value: unknown, expected: string): never => {
    throw new InterlockError('BadInput', `${flag}: ${JSON.stringify(value)}: expected ${expected}`, {
      details: { field: flag },
    });
  };
  let values;
  try {
    ({ values } = parseArgs({
      args: [...argv],
      options: {
        json: { type: 'boolean', default: false },
        keep: { type: 'boolean', default: false },
        rate: { type: 'string', default: '100' },
        mysql: { type: 'string', default: 'mysql' },
        rtt: { type: 'string', default: '0ms' },
        kafka: { type: 'boolean', default: false },
        state: { type: 'string', default: path.join(interlockHome(), 'demo') },
      },
    }));
  } catch (error) {
    throw new InterlockError('BadInput', messageOf(error), { cause: error });
  }
  const rate = Number(values.rate);
  if (!Number.isInteger(rate) || rate < 1 || rate > 5000)
    bad('--rate', values.rate, 'writes per second, 1 to 5000');
  const rtt = /^(\d+)ms$/.exec(values.rtt);
  if (rtt === null) bad('--rtt', values.rtt, 'milliseconds, such as 10ms');
  if (values.mysql !== 'mysql' && values.mysql !== 'mariadb')
    bad('--mysql', values.mysql, 'mysql or mariadb');
  return {
    json: values.json,
    keep: values.keep,
    rate,
    mysql: values.mysql as Flavour,
    rttMs: Number(rtt![1]),
    kafka: values.kafka,
    directory: path.resolve(values.state),
  };
}

const HELP = `npm run demo -- [flags]

Two data centers under load on this machine: 10 % of a region moves, then the rest, then the rest moves back; what clients were told is
compared with both databases. Exit code 0 only when nothing was lost.

  --json            one JSON document on stdout
  --keep            leave everything running and print what to look at
  --rate <n>        writes per second, 1 to 5000 (default: 100)
  --mysql <flavour> mysql or mariadb (default: mysql)
  --rtt <time>      round-trip time between the data centers, such as 10ms (default: 0ms)
  --kafka           a Kafka per data center: each write has its event, which is handled and checked
  --state <dir>     where it lives (default: ~/.cache/interlock/demo)
  --help            this text
`;

async function main(): Promise<number> {
  if (process.argv.slice(2).some((word) => word === '--help' || word === '-h')) {
    process.stdout.write(HELP);
    return 0;
  }
  const options = parseDemoOptions(process.argv.slice(2));
  const controller = new AbortController();
  let signals = 0;
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(name, () => {
      signals++;
      // A second one must not interrupt the ending of what runs.
      if (signals === 1) controller.abort(new InterlockError('Refused', `ended by ${name}`));
    });
  }
  const document = await demo(options, controller.signal);
  if (options.json) process.stdout.write(`${JSON.stringify(document)}\n`);
  return passed(document) ? 0 : 1;
}

try {
  process.exitCode = await main();
} catch (error) {
  process.stderr.write(`demo: ${messageOf(error)}\n`);
  process.exitCode = error instanceof InterlockError && error.code === 'BadInput' ? 2 : 1;
}
