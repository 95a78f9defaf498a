/**
 * `npm run bench -- kafka`: how fast a link copies topics, exactly once, and in the same run, between the same brokers, how fast MirrorMaker 2
 * does it, with its exactly-once support and without. Every copy is read to its end and checked: each record once.
 *   --records N (1000000, of the backlog)  --topics N (100, of the trickle)  --seconds N (20, of trickle and steady)  --rounds N (1)
 *   --only 'steady' (works whose names begin so)  --json
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

type Runs<R> = Partial<Record<Who, R[]>>;

interface Work<R> {
  work: string;
  unit: string;
  peer: Who;
  of: (run: R) => number;
  higherIsBetter?: boolean;
}

const BACKLOG: Work<BacklogRun>[] = [
  {
    ...{ work: 'backlog against MM2 exactly-once', unit: 'records/s', peer: 'exactly-once' },
    ...{ of: (run) => run.recordsPerSecond, higherIsBetter: true },
  },
  {
    ...{ work: 'backlog against MM2 plain', unit: 'records/s', peer: 'plain' },
    ...{ of: (run) => run.recordsPerSecond, higherIsBetter: true },
  },
  { work: 'memory', unit: 'MB', peer: 'exactly-once', of: (run) => run.peakRssMb },
];
const TRICKLE: Work<LatencyRun>[] = [
  { work: 'trickle p99', unit: 'ms', peer: 'exactly-once', of: (run) => run.p99 },
  { work: 'trickle CPU', unit: 's', peer: 'exactly-once', of: (run) => run.cpuSeconds },
];
const STEADY: Work<LatencyRun>[] = [
  { work: 'steady latency p50', unit: 'ms', peer: 'exactly-once', of: (run) => run.p50 },
  { work: 'steady latency p99', unit: 'ms', peer: 'exactly-once', of: (run) => run.p99 },
];
const NAMES = [BACKLOG, TRICKLE, STEADY].flatMap((works) => works.map(({ work }) => work));

function say(line: string): void {
  process.stderr.write(`kafka: ${line}\n`);
}

/** Runs what the works compare: the link, and each of their peers, in turn. */
async function measure<R>(
  works: Work<R>[],
  { only, rounds }: { only: string; rounds: number },
  run: (who: Who, round: number) => Promise<R>,
): Promise<{ results: BenchResult[]; runs: Runs<R> }> {
  const wanted = works.filter(({ work }) => work.startsWith(only));
  const runs: Runs<R> = {};
  for (let round = 0; round < rounds; round++) {
    for (const who of wanted.length === 0 ? [] : new Set<Who>(['ours', ...wanted.map(({ peer }) => peer)])) {
      const made = await run(who, round);
      (runs[who] ??= []).push(made);
      say(`${wanted[0]!.work.split(' ')[0]!}, ${who}: ${JSON.stringify(made)}`);
    }
  }
  const results = wanted.map(({ work, unit, peer, of, higherIsBetter = false }) => {
    const pairs = runs.ours!.map((mine, i) => ({ ours: of(mine), peer: of(runs[peer]![i]!) }));
    return compare(work, unit, peer === 'plain' ? PLAIN : EXACTLY_ONCE, pairs, higherIsBetter);
  });
  return { results, runs };
}

async function main(): Promise<void> {
  const flags = benchFlags(
    'kafka',
    {
      json: { type: 'boolean', default: false },
      records: { type: 'string', default: '1000000' },
      seconds: { type: 'string', default: '20' },
      topics: { type: 'string', default: '100' },
      rounds: { type: 'string', default: '1' },
      only: { type: 'string', default: '' },
    },
    NAMES,
  );
  const records = positive('--records', flags.records);
  const seconds = positive('--seconds', flags.seconds);
  const topics = positive('--topics', flags.topics);
  const rounds = positive('--rounds', flags.rounds);
  const { only } = flags;
  if (!NAMES.some((name) => name.startsWith(only)))
    refuse(`--only: ${JSON.stringify(only)}: expected the beginning of one of ${NAMES.join(', ')}`);

  const load = (): number => Number(loadavg()[0]!.toFixed(1));
  const loadAtStart = load();
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
    const latency = (name: string, of: number) => (who: Who, round: number) =>
      runLatency(rig, who, `${name}${round}`, of, seconds);
    const of = { only, rounds };
    const backlog = await measure(BACKLOG, of, (who, round) => runBacklog(rig, who, round, records));
    const trickle = await measure(TRICKLE, of, latency('trickle', topics));
    const steady = await measure(STEADY, of, latency('steady', 1));
    const results = [...backlog.results, ...trickle.results, ...steady.results];
    const details = { backlog: backlog.runs, trickle: trickle.runs, steady: steady.runs };
    printReport(
      {
        bench: 'kafka',
        machine: machine(),
        settings: {
          brokers: 'Kafka 4.1.0, one per side, KRaft, one replica, default flush; -Xmx512m each',
          mirrorMaker:
            'the same release, dedicated mode, tasks.max 4, heap as its own script gives (2 GB at most)',
          link: 'one process for each run, its code cold; always exactly once',
          ...{ records, recordBytes: 200, seconds, topics, rounds, loadAtStart, loadAtEnd: load() },
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
