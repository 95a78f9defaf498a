/**
 * `npm run bench -- kafka`: how fast a link copies topics, exactly once, and in the same run, between the same brokers, how fast MirrorMaker 2
 * does it, with its exactly-once support and without. Every copy is read to its end and checked: each record once.
 *   --records N (1000000)  --seconds N (20, of the latency works)  --topics N (100)  --rounds N (1)  --only WORK  --json
 */
import { loadavg } from 'node:os';
import { messageOf } from '../../src/errors.js';
import { benchFlags, positive, refuse } from './flags.js';
import { KafkaRig } from './kafka/rig.js';
import { runBacklog, runLatency } from './kafka/works.js';
import type { BacklogRun, LatencyRun, Who } from './kafka/works.js';
import { compare, machine, printReport } from './report.js';
import type { BenchResult } from './report.js';

const EXACTLY_ONCE = 'MirrorMaker 2, exactly once';
const PLAIN = 'MirrorMaker 2';
const WORKS = ['backlog', 'trickle', 'steady'] as const;

function say(line: string): void {
  process.stderr.write(`kafka: ${line}\n`);
}

const CONTESTANTS: Who[] = ['ours', 'plain', 'exactly-once'];

async function backlog(
  rig: KafkaRig,
  rounds: number,
  records: number,
): Promise<{ results: BenchResult[]; details: unknown }> {
  const runs: Record<Who, BacklogRun[]> = { ours: [], 'exactly-once': [], plain: [] };
  for (let round = 0; round < rounds; round++) {
    for (const who of CONTESTANTS) {
      const run = await runBacklog(rig, who, round, records);
      runs[who].push(run);
      say(`backlog, ${who}: ${JSON.stringify(run)}`);
    }
  }
  const pairs = (who: Who): { ours: number; peer: number }[] =>
    runs.ours.map((run, i) => ({ ours: run.recordsPerSecond, peer: runs[who][i]!.recordsPerSecond }));
  return {
    results: [
      compare('backlog against MM2 exactly-once', 'records/s', EXACTLY_ONCE, pairs('exactly-once')),
      compare('backlog against MM2 plain', 'records/s', PLAIN, pairs('plain')),
      compare(
        'memory',
        'MB',
        EXACTLY_ONCE,
        runs.ours.map((run, i) => ({ ours: run.peakRssMb, peer: runs['exactly-once'][i]!.peakRssMb })),
        false,
      ),
    ],
    details: runs,
  };
}

async function latency(
  rig: KafkaRig,
  name: 'trickle' | 'steady',
  rounds: number,
  topics: number,
  partitions: number,
  seconds: number,
): Promise<{ results: BenchResult[]; details: unknown }> {
  const runs: Record<Who, LatencyRun[]> = { ours: [], 'exactly-once': [], plain: [] };
  for (let round = 0; round < rounds; round++) {
    for (const who of CONTESTANTS) {
      const run = await runLatency(rig, who, `${name}${round}`, topics, partitions, seconds);
      runs[who].push(run);
      say(`${name}, ${who}: ${JSON.stringify(run)}`);
    }
  }
  const result = (work: string, of: 'p50' | 'p99'): BenchResult =>
    compare(
      work,
      'ms',
      EXACTLY_ONCE,
      runs.ours.map((run, i) => ({ ours: run[of], peer: runs['exactly-once'][i]![of] })),
      false,
    );
  const results =
    name === 'trickle'
      ? [result('trickle p99', 'p99')]
      : [result('steady latency p50', 'p50'), result('steady latency p99', 'p99')];
  return { results, details: runs };
}

async function main(): Promise<void> {
  const flags = benchFlags({
    json: { type: 'boolean', default: false },
    records: { type: 'string', default: '1000000' },
    seconds: { type: 'string', default: '20' },
    topics: { type: 'string', default: '100' },
    rounds: { type: 'string', default: '1' },
    only: { type: 'string' },
  });
  const records = positive('--records', flags.records);
  const seconds = positive('--seconds', flags.seconds);
  const topics = positive('--topics', flags.topics);
  const rounds = positive('--rounds', flags.rounds);
  const { only } = flags;
  if (only !== undefined && !WORKS.some((work) => work === only))
    refuse(`--only: ${JSON.stringify(only)}: expected one of ${WORKS.join(', ')}`);
  const works = WORKS.filter((work) => only === undefined || only === work);

  const loadAtStart = Number(loadavg()[0]!.toFixed(1));
  const rig = new KafkaRig();
  for (const [name, code] of [
    ['SIGINT', 130],
    ['SIGTERM', 143],
    ['SIGHUP', 129],
  ] as const) {
    process.once(name, () => void rig.down().finally(() => process.exit(code)));
  }
  try {
    await rig.up();
    const results: BenchResult[] = [];
    const details: Record<string, unknown> = {};
    for (const work of works) {
      const outcome =
        work === 'backlog'
          ? await backlog(rig, rounds, records)
          : await latency(
              rig,
              work,
              rounds,
              ...(work === 'trickle' ? ([topics, 8] as const) : ([1, 8] as const)),
              seconds,
            );
      results.push(...outcome.results);
      details[work] = outcome.details;
    }
    printReport(
      {
        bench: 'kafka',
        machine: machine(),
        settings: {
          brokers: 'Kafka 4.1.0, one per side, KRaft, one replica, default flush; -Xmx512m each',
          mirrorMaker:
            'the same release, dedicated mode, tasks.max 4, heap as its own script gives (2 GB at most)',
          link: 'one process for each work, its code cold; always exactly once',
          ...{ records, recordBytes: 200, seconds, topics, rounds, loadAtStart },
          checked: 'every record of every backlog at the target once; every record of the latency works came',
          details,
          notMeasured:
            'a network between the data centers (brokers, contestants and clients share the machine and its cores), several replicas, compressed records, CPU time of the brokers',
        },
        results,
      },
      flags.json,
    );
  } finally {
    await rig.down();
  }
}

try {
  await main();
} catch (error) {
  process.stderr.write(`${messageOf(error)}\n`);
  process.exitCode = 1;
}
