/**
 * `npm run bench -- mysql`: how fast a link applies, and in the same run how fast MySQL's own replication applies the same transactions of the
 * same source: row binlog, GTID, default durability (binlog and redo log synced at each commit) everywhere. A backlog is written while
 * everything is stopped; the time runs from the order to start until the last transaction is visible at the target.
 * The initial copy is measured against `mysqldump | mysql`, where that is installed.
 *   --rows N (20000; bulk ten times as many, the copy a hundred times, latency a quarter)  --memory-rows N (5000000)
 *   --rounds N (1)  --only WORK  --json
 */
import { loadavg } from 'node:os';
import { messageOf } from '../../src/errors.js';
import { benchFlags, positive, refuse } from './flags.js';
import { BOTH_PEER, BOTH_WORK, runBothWays } from './mysql/both-ways.js';
import { COPY_PEER, COPY_WORK, dumpPrograms, runCopy } from './mysql/copy.js';
import type { LinkUsage } from './mysql/link-child.js';
import { MEMORY_BOUND_MB, MEMORY_WORK, runMemory } from './mysql/memory.js';
import { MysqlRig } from './mysql/rig.js';
import { BACKLOGS, LATENCY_WORKS, runBacklog, runLatency } from './mysql/works.js';
import { compare, machine, median, printReport } from './report.js';
import type { BenchResult } from './report.js';

const FOUR = 'MySQL replication, 4 appliers';
const ONE = 'MySQL replication, 1 applier';

interface Outcome {
  results: BenchResult[];
  /** By work: what the link's process took. */
  link: Record<string, unknown>;
  /** Of the peer that is not in `results`. */
  nativeOneApplier: Record<string, unknown>;
}

async function backlog(rig: MysqlRig, work: string, rounds: number, rows: number): Promise<Outcome> {
  const { unit, changes } = BACKLOGS[work]!;
  const runs = [];
  for (let round = 0; round < rounds; round++) {
    say(`${work}: round ${round + 1} of ${rounds}`);
    runs.push(await runBacklog(rig, work, round, rows));
  }
  const one = median(runs.map((run) => run.one));
  // One applier can be the faster one where there is little to do side by side.
  const better = unit === 'rows/s' && one > median(runs.map((run) => run.four)) ? 'one' : 'four';
  const pairs = runs.map((run) => ({ ours: run.ours, peer: run[better] }));
  return {
    results: [compare(work, unit, better === 'one' ? ONE : FOUR, pairs)],
    link: {
      [work]: {
        ...costs(runs.map((run) => ({ ...run.usage, changes: changes(rows) }))),
        targetCpuSecondsPerMillionRows: perMillion(
          runs.map((run) => run.targetCpuSeconds.ours),
          changes(rows),
        ),
        nativeTargetCpuSecondsPerMillionRows: perMillion(
          runs.map((run) => run.targetCpuSeconds[better]),
          changes(rows),
        ),
      },
    },
    nativeOneApplier: { [work]: Math.round(one) },
  };
}

async function latency(rig: MysqlRig, works: string[], rounds: number, rows: number): Promise<Outcome> {
  const runs: Awaited<ReturnType<typeof runLatency>>[] = [];
  for (let round = 0; round < rounds; round++) {
    say(`steady latency: round ${round + 1} of ${rounds}`);
    runs.push(await runLatency(rig, round, rows));
  }
  const results = works.map((work) => {
    const of = work === 'steady latency p50' ? ('p50' as const) : ('p99' as const);
    const pairs = runs.map((run) => ({ ours: run.ours[of], peer: run.four[of] }));
    return compare(work, 'ms', FOUR, pairs, false);
  });
  const link = { 'steady latency': costs(runs.map((run) => ({ ...run.usage, changes: run.changes }))) };
  return { results, link, nativeOneApplier: {} };
}

async function copy(rig: MysqlRig, rounds: number, rows: number): Promise<Outcome> {
  const programs = dumpPrograms();
  if (programs === undefined) {
    say(`${COPY_WORK}: not measured: mysqldump is not on PATH (Debian: apt-get install mariadb-client)`);
    return { results: [], link: {}, nativeOneApplier: {} };
  }
  const runs = [];
  for (let round = 0; round < rounds; round++) {
    say(`${COPY_WORK}: round ${round + 1} of ${rounds}`);
    runs.push(await runCopy(rig, round, rows, programs));
  }
  return {
    results: [compare(COPY_WORK, 'rows/s', COPY_PEER, runs)],
    link: { [COPY_WORK]: costs(runs.map((run) => ({ ...run.usage, changes: rows }))) },
    nativeOneApplier: {},
  };
}

async function bothWays(rig: MysqlRig, rounds: number, rows: number): Promise<Outcome> {
  const runs = [];
  for (let round = 0; round < rounds; round++) {
    say(`${BOTH_WORK}: round ${round + 1} of ${rounds}`);
    runs.push(await runBothWays(rig, round, rows));
  }
  const used = runs.flatMap(({ usage }) => usage.map((one) => ({ ...one, changes: rows })));
  return {
    results: [compare(BOTH_WORK, 'tx/s', BOTH_PEER, runs)],
    link: { [BOTH_WORK]: costs(used) },
    nativeOneApplier: {},
  };
}

async function memory(rig: MysqlRig, rounds: number, rows: number): Promise<Outcome> {
  const runs = [];
  for (let round = 0; round < rounds; round++) {
    say(`${MEMORY_WORK}: round ${round + 1} of ${rounds}`);
    runs.push(await runMemory(rig, round, rows));
  }
  const pairs = runs.map(({ usage }) => ({ ours: usage.peakRssMb, peer: MEMORY_BOUND_MB }));
  return {
    results: [compare(MEMORY_WORK, 'MB', 'the bound', pairs, false)],
    link: {
      [MEMORY_WORK]: {
        ...costs(runs.map(({ usage }) => ({ ...usage, changes: rows }))),
        rows,
        rssMbByTenth: runs.map(({ rssMbByTenth }) => rssMbByTenth),
        rowsPerSecond: runs.map(({ rowsPerSecond }) => rowsPerSecond),
      },
    },
    nativeOneApplier: {},
  };
}

function perMillion(seconds: readonly number[], changes: number): number {
  return Math.round((median(seconds) / changes) * 1e6);
}

function costs(runs: (LinkUsage & { changes: number })[]): Record<string, number> {
  return {
    cpuSecondsPerMillionRows: Math.round(median(runs.map((run) => (run.cpuSeconds / run.changes) * 1e6))),
    peakRssMb: Math.round(Math.max(...runs.map((run) => run.peakRssMb))),
    startMs: Math.round(median(runs.map((run) => run.startMs ?? Number.NaN))),
  };
}

async function main(): Promise<void> {
  const all = [...Object.keys(BACKLOGS), COPY_WORK, ...LATENCY_WORKS, BOTH_WORK, MEMORY_WORK];
  const flags = benchFlags(
    'mysql',
    {
      json: { type: 'boolean', default: false },
      rows: { type: 'string', default: '20000' },
      'memory-rows': { type: 'string', default: '5000000' },
      rounds: { type: 'string', default: '1' },
      only: { type: 'string' },
    },
    all,
  );
  const rows = positive('--rows', flags.rows);
  const memoryRows = positive('--memory-rows', flags['memory-rows']);
  const rounds = positive('--rounds', flags.rounds);
  const { only } = flags;
  if (only !== undefined && !all.includes(only))
    refuse(`--only: ${JSON.stringify(only)}: expected one of ${all.join(', ')}`);
  const works = only === undefined ? all : [only];

  // Both sides wait for the disk and for two or three processes each: what else the machine does counts.
  const loadAtStart = Number(loadavg()[0]!.toFixed(1));
  const rig = new MysqlRig();
  for (const [name, code] of [
    ['SIGINT', 130],
    ['SIGTERM', 143],
    ['SIGHUP', 129],
  ] as const) {
    process.once(name, () => void rig.down().finally(() => process.exit(code)));
  }
  try {
    await rig.up();
    const outcomes: Outcome[] = [];
    for (const work of works.filter((name) => name in BACKLOGS)) {
      outcomes.push(await backlog(rig, work, rounds, rows));
    }
    if (works.includes(COPY_WORK)) outcomes.push(await copy(rig, rounds, 100 * rows));
    const steady = works.filter((name) => LATENCY_WORKS.some((one) => one === name));
    if (steady.length > 0) outcomes.push(await latency(rig, steady, rounds, rows));
    // After these two, the native targets do not follow the source any more.
    if (works.includes(BOTH_WORK)) outcomes.push(await bothWays(rig, rounds, rows));
    if (works.includes(MEMORY_WORK)) outcomes.push(await memory(rig, rounds, memoryRows));
    printReport(
      {
        bench: 'mysql',
        machine: machine(),
        settings: {
          server: rig.version,
          durability: 'default on all servers: sync_binlog=1, innodb_flush_log_at_trx_commit=1',
          native:
            'replica_parallel_workers 4 (1), replica_preserve_commit_order ON, WRITESET; receiver and appliers start together',
          link: 'one process for each work, so that its code is cold; tables routed by user, every row checked against its owner',
          cpu: 'cpuSecondsPerMillionRows: of the process of the link. targetCpuSecondsPerMillionRows: of its target server in the same time; nativeTarget…: of the native target, whose receiver and appliers are in it (/proc/PID/stat from start to the last row)',
          ...{ rows, memoryRows, rounds, loadAtStart, checked: 'all rows of all tables, on all sides' },
          linkCosts: Object.assign({}, ...outcomes.map((outcome) => outcome.link)) as unknown,
          nativeOneApplier: Object.assign(
            {},
            ...outcomes.map((outcome) => outcome.nativeOneApplier),
          ) as unknown,
          notMeasured:
            'a network (all servers and the link share the machine and its cores), MariaDB, large rows, CPU time of the source',
        },
        results: outcomes.flatMap((outcome) => outcome.results),
      },
      flags.json,
    );
  } finally {
    await rig.down();
  }
}

function say(line: string): void {
  process.stderr.write(`mysql: ${line}\n`);
}

try {
  await main();
} catch (error) {
  process.stderr.write(`${messageOf(error)}\n`);
  process.exitCode = 1;
}
