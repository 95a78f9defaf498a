/**
 * `npm run bench -- switchover`: 10 % of a region there and back, ten times, under load; and in the same run the script that people use
 * today, with the same load and the same checker. `fenced` is how long the moved users could not write.
 *   --rate N (200)  --rounds N (10)  --saturation (closed loop)  --rtt 10ms (ours only)  --json
 */
import { tmpdir } from 'node:os';
import path from 'node:path';
import { mkdtemp } from 'node:fs/promises';
import type { CheckReport } from '../../infra/demo/checker/checker.js';
import type { WindowStats } from '../../infra/demo/load/journal.js';
import { DemoRig } from '../../infra/demo/rig.js';
import { messageOf } from '../../src/errors.js';
import { benchFlags, positive, refuse } from './flags.js';
import { compare, machine, median, printReport } from './report.js';
import { ScriptRig } from './script/script-rig.js';

interface Side {
  fencedMs: number[];
  slowestWriteMs: number[];
  failedRequests: number;
  heldRequests: number | null;
  ackedWrites: number;
  check: Pick<
    CheckReport,
    'ok' | 'lostWrites' | 'doubledWrites' | 'dualOwnerWrites' | 'tornTransfers' | 'moneyErrors' | 'converged'
  >;
}

const SATURATING_CLIENTS = 32;
const BETWEEN_MS = 500;
/** Both sides' services have just been started: cold, they are the slowest part of the first round. */
const WARM_UP_MS = 8_000;

async function main(): Promise<void> {
  const values = benchFlags('switchover', {
    json: { type: 'boolean', default: false },
    rate: { type: 'string', default: '200' },
    rounds: { type: 'string', default: '10' },
    rtt: { type: 'string', default: '0ms' },
    saturation: { type: 'boolean', default: false },
  });
  const rate = positive('--rate', values.rate);
  const rounds = positive('--rounds', values.rounds);
  const rtt = /^(\d+)ms$/.exec(values.rtt);
  if (rtt === null) {
    refuse(`--rtt: ${JSON.stringify(values.rtt)}: expected milliseconds, such as 10ms`);
  }
  const clients = values.saturation ? SATURATING_CLIENTS : undefined;
  const say = (line: string): void => void process.stderr.write(`${line}\n`);

  const stop = new AbortController();
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(name, () => stop.abort());

  const peer = await scriptSide(rate, rounds, clients, say, stop.signal);
  const ours = await interlockSide(rate, rounds, clients, Number(rtt[1]), say, stop.signal);
  const pairs = (of: (side: Side) => number[]): { ours: number; peer: number }[] =>
    of(ours).map((value, index) => ({ ours: value, peer: of(peer)[index]! }));
  const peerName = 'script: read_only, GTID wait, nginx reload';
  printReport(
    {
      bench: 'switchover',
      machine: machine(),
      settings: {
        ...{ offered: clients === undefined ? `${rate} writes/s` : `${clients} clients, closed loop` },
        ...{ rttMs: Number(rtt[1]), rounds, scope: 'cn-east:10% there and back' },
        ours: summary(ours),
        script: summary(peer),
        notMeasured: 'the script has no round-trip delay, moves a fixed scope, and fences a whole server',
      },
      results: [
        compare(
          'fenced',
          'ms',
          peerName,
          pairs((side) => side.fencedMs),
          false,
        ),
        compare(
          'slowest client write',
          'ms',
          peerName,
          pairs((side) => side.slowestWriteMs),
          false,
        ),
      ],
    },
    values.json,
  );
  if (!ours.check.ok) process.exitCode = 1;
}

async function interlockSide(
  rate: number,
  rounds: number,
  clients: number | undefined,
  rttMs: number,
  say: (line: string) => void,
  signal: AbortSignal,
): Promise<Side> {
  const directory = await mkdtemp(path.join(tmpdir(), 'interlock-bench-'));
  const rig = await DemoRig.up({
    ...{ directory, rate, signal },
    shape: { rttMs },
    ...(clients === undefined ? {} : { clients }),
    progress: say,
  });
  try {
    const side = newSide();
    await rig.load.start();
    await sleep(WARM_UP_MS);
    for (let round = 0; round < 2 * rounds; round++) {
      const [scope, from, to] =
        round % 2 === 0 ? ['cn-east:10%', 'dc-a', 'dc-b'] : ['cn-east/0-99', 'dc-b', 'dc-a'];
      const cost = await rig.switchover(scope, from, to);
      await rig.finish();
      if (cost.outcome !== 'done' || cost.fencedMs === null) {
        throw new Error(`switchover ${round + 1} of ${scope} is ${cost.outcome}`);
      }
      add(side, cost.fencedMs, cost.clients);
      side.heldRequests = (side.heldRequests ?? 0) + cost.heldRequests;
      say(`interlock ${round + 1}: fenced ${cost.fencedMs} ms, ${words(cost.clients)}`);
      await sleep(BETWEEN_MS);
    }
    const { report } = await rig.check();
    return finish(side, report, say);
  } finally {
    await rig.down();
  }
}

async function scriptSide(
  rate: number,
  rounds: number,
  clients: number | undefined,
  say: (line: string) => void,
  signal: AbortSignal,
): Promise<Side> {
  const rig = await ScriptRig.up(rate, clients, signal);
  try {
    const side = newSide();
    await rig.load.start();
    await sleep(WARM_UP_MS);
    for (let round = 0; round < 2 * rounds; round++) {
      signal.throwIfAborted();
      const move = await rig.move(round % 2 === 0 ? 'dc-b' : 'dc-a');
      add(side, move.fencedMs, move.clients);
      say(`script ${round + 1}: fenced ${move.fencedMs.toFixed(0)} ms, ${words(move.clients)}`);
      await sleep(BETWEEN_MS);
    }
    return finish(side, await rig.check(), say);
  } finally {
    await rig.down();
  }
}

function newSide(): Side {
  const check = { ok: false, lostWrites: 0, doubledWrites: 0, dualOwnerWrites: 0, tornTransfers: 0 };
  return {
    ...{ fencedMs: [], slowestWriteMs: [], failedRequests: 0, heldRequests: null, ackedWrites: 0 },
    check: { ...check, moneyErrors: 0, converged: false },
  };
}

function add(side: Side, fencedMs: number, clients: WindowStats): void {
  side.fencedMs.push(fencedMs);
  side.slowestWriteMs.push(clients.slowestWriteMs ?? 0);
  side.failedRequests += clients.failed;
}

function finish(side: Side, report: CheckReport, say: (line: string) => void): Side {
  const { ok, lostWrites, doubledWrites, dualOwnerWrites, tornTransfers, moneyErrors, converged } = report;
  for (const finding of report.findings.slice(0, 5)) say(`  ${finding}`);
  side.check = { ok, lostWrites, doubledWrites, dualOwnerWrites, tornTransfers, moneyErrors, converged };
  side.ackedWrites = report.ackedWrites;
  return side;
}

function summary(side: Side): Record<string, unknown> {
  return {
    fencedMedianMs: Math.round(median(side.fencedMs)),
    fencedWorstMs: Math.round(Math.max(...side.fencedMs)),
    slowestWriteMs: Math.round(Math.max(...side.slowestWriteMs)),
    ...{ failedRequests: side.failedRequests, heldRequests: side.heldRequests },
    ...{ ackedWrites: side.ackedWrites, check: side.check },
  };
}

function words(clients: WindowStats): string {
  return `slowest write ${clients.slowestWriteMs?.toFixed(0) ?? '–'} ms, ${clients.failed} failed`;
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

try {
  await main();
} catch (error) {
  process.stderr.write(`${messageOf(error)}\n`);
  process.exitCode = 1;
}
