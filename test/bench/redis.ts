/**
 * `npm run bench -- redis`: how fast a link applies, and in the same run how fast Redis' own replica applies the same commands of the same source. A
 * backlog is written while both are detached; the time runs from the order to attach until the target has the last command.
 * Then the SDK's fenced writes against plain ioredis.
 * `worker memory`: the most that the process of a link ever has, with values and transactions of 512 MB.
 *   --commands N (1000000; the mix half of it, latency a twentieth, fenced writes a quarter)  --rounds N (1)  --only WORK  --json
 */
import { loadavg } from 'node:os';
import { messageOf } from '../../src/errors.js';
import { benchFlags, positive, refuse } from './flags.js';
import { IN_FLIGHT, PACKED, fencedWrites } from './redis/fenced.js';
import { RedisRig } from './redis/rig.js';
import { MEMORY, workerMemory } from './redis/memory.js';
import { LATENCIES, RATES, steady } from './redis/works.js';
import { compare, machine, median, printReport } from './report.js';
import type { BenchResult } from './report.js';

const PEER = 'native replica';
const FENCED = ['fenced write', 'fenced write single'] as const;

interface Outcome {
  results: BenchResult[];
  link: Record<string, unknown>;
}

async function rate(rig: RedisRig, work: string, rounds: number, commands: number): Promise<Outcome> {
  const { unit, run } = RATES[work]!;
  const runs: Awaited<ReturnType<typeof run>>[] = [];
  for (let round = 0; round < rounds; round++) {
    say(`${work}: round ${round + 1} of ${rounds}`);
    runs.push(await run(rig, round, work === 'mix backlog' ? Math.ceil(commands / 2) : commands));
  }
  const cpu = runs.flatMap(({ sourceCpu }) => (sourceCpu === undefined ? [] : [sourceCpu]));
  return {
    results: [
      compare(
        work,
        unit,
        PEER,
        runs.map(({ ours, peer }) => ({ ours, peer })),
      ),
    ],
    link: {
      [work]: {
        cpuSeconds: median(runs.map(({ usage }) => usage?.cpuSeconds ?? Number.NaN)),
        peakRssMb: Math.round(Math.max(...runs.map(({ usage }) => usage?.peakRssMb ?? 0))),
        ...(cpu.length > 0 && {
          sourceCpuSecondsPerMillionCommands: {
            withLink: median(cpu.map(({ ours }) => ours)),
            withReplica: median(cpu.map(({ peer }) => peer)),
          },
        }),
      },
    },
  };
}

async function latency(rig: RedisRig, works: string[], rounds: number, commands: number): Promise<Outcome> {
  const runs: Awaited<ReturnType<typeof steady>>[] = [];
  for (let round = 0; round < rounds; round++) {
    say(`steady latency: round ${round + 1} of ${rounds}`);
    runs.push(await steady(rig, round, Math.max(5_000, Math.round(commands / 20))));
  }
  const results = works.map((work) => {
    const of = work.endsWith('p50') ? ('p50' as const) : ('p99' as const);
    const pairs = runs.map((run) => ({ ours: run.ours[of], peer: run.peer[of] }));
    return compare(work, 'ms', PEER, pairs, false);
  });
  return { results, link: {} };
}

/** The SDK's writes with the fence check, against the same client without it. */
async function fenced(works: readonly string[], rounds: number, commands: number): Promise<BenchResult[]> {
  say(`fenced write: ${rounds} rounds`);
  const runs = await fencedWrites(rounds, Math.ceil(commands / 4));
  return works.map((work) =>
    compare(
      work,
      'writes/s',
      'plain ioredis',
      runs.map((run) => (work === 'fenced write' ? run.pipelined : run.single)),
    ),
  );
}

async function main(): Promise<void> {
  const all = [...Object.keys(RATES), ...LATENCIES, ...MEMORY, ...FENCED];
  const flags = benchFlags(
    'redis',
    {
      json: { type: 'boolean', default: false },
      commands: { type: 'string', default: '1000000' },
      rounds: { type: 'string', default: '1' },
      only: { type: 'string' },
    },
    all,
  );
  const commands = positive('--commands', flags.commands);
  const rounds = positive('--rounds', flags.rounds);
  const { only } = flags;
  if (only !== undefined && !all.includes(only))
    refuse(`--only: ${JSON.stringify(only)}: expected one of ${all.join(', ')}`);
  const works = only === undefined ? all : [only];
  // Source, target, link and load share the cores: what else the machine does counts.
  const loadAtStart = Number(loadavg()[0]!.toFixed(1));
  const rig = new RedisRig();
  for (const [name, code] of [
    ['SIGINT', 130],
    ['SIGTERM', 143],
    ['SIGHUP', 129],
  ] as const)
    process.once(name, () => void rig.down().finally(() => process.exit(code)));
  try {
    await rig.up();
    const outcomes: Outcome[] = [];
    for (const work of works.filter((name) => name in RATES))
      outcomes.push(await rate(rig, work, rounds, commands));
    const latencies = works.filter((name) => LATENCIES.some((one) => one === name));
    if (latencies.length > 0) outcomes.push(await latency(rig, latencies, rounds, commands));
    if (works.some((name) => MEMORY.some((one) => one === name))) {
      say(`${MEMORY[0]}: ${rounds} rounds`);
      outcomes.push(await workerMemory(rig, rounds));
    }
    const writes = works.filter((name) => FENCED.some((one) => one === name));
    if (writes.length > 0) outcomes.push({ results: await fenced(writes, rounds, commands), link: {} });
    printReport(
      {
        bench: 'redis',
        machine: machine(),
        settings: {
          server: rig.version,
          durability: 'none on all servers (save "", appendonly no)',
          link: 'one process for each work, so that its code is cold; keys under 3 s left out, no filters, no units',
          ...{
            commands,
            rounds,
            loadAtStart,
            checked: 'all keys, by digest, on both targets; not in steady latency',
          },
          linkCosts: Object.assign({}, ...outcomes.map((outcome) => outcome.link)) as unknown,
          fencedWrites: `SETs of 100 bytes to keys of one user, one connection: pipelines of ${PACKED} commands, packed into one script, ${IN_FLIGHT.pipelines} under way; single ones, ${IN_FLIGHT.single} under way; both clients in turns within each round`,
          redisShake:
            'absent: it is not part of the project, and nothing here builds it; the peer is the native replica',
          notMeasured:
            'both directions at once, a network (all servers, the link and the load share the machine and its cores)',
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
  process.stderr.write(`redis: ${line}\n`);
}

try {
  await main();
} catch (error) {
  process.stderr.write(`${messageOf(error)}\n`);
  process.exitCode = 1;
}
