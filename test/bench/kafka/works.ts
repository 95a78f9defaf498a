import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { initialiseKafkaLink } from '../../../replicators/kafka/initialise.js';
import type { KafkaLinkConfig } from '../../../replicators/kafka/link-config.js';
import { quantile } from '../report.js';
import { startLink, startMirrorMaker } from './processes.js';
import type { Contestant } from './processes.js';
import { Watcher, offsets } from './rig.js';
import type { KafkaRig } from './rig.js';
import { Sender } from './sender.js';

export type Who = 'ours' | 'exactly-once' | 'plain';

/** Without anything new at the target; MirrorMaker 2 takes a minute to start on a machine that is busy. */
const START_MS = 300_000;
const PARTITIONS = 8;
const RECORD_BYTES = 200;

function linkConfig(rig: KafkaRig, name: string, include: string): KafkaLinkConfig {
  return {
    link: `kafka/${name}:dc-a>dc-b`,
    from: 'dc-a',
    to: 'dc-b',
    source: { brokers: [rig.from] },
    target: { brokers: [rig.to] },
    include: [include],
    exclude: [],
    onGap: 'stop',
  };
}

async function start(rig: KafkaRig, who: Who, name: string): Promise<Contestant> {
  const directory = path.join(rig.directory, `${who}-${name}`);
  if (who !== 'ours') {
    const { from, to } = rig;
    return startMirrorMaker(directory, {
      from,
      to,
      topics: `${name}.*`,
      exactlyOnce: who === 'exactly-once',
    });
  }
  const config = linkConfig(rig, name, `${name}*`);
  await initialiseKafkaLink(config, { from: 'earliest' });
  return startLink(directory, config);
}

export interface BacklogRun {
  recordsPerSecond: number;
  /** From the order to start until the first record was written. */
  startMs: number;
  peakRssMb: number;
  cpuSeconds: number;
}

/** A topic that is full when the contestant starts; the time runs from the first record that is written to the target to where the last one
 * is visible. */
export async function runBacklog(
  rig: KafkaRig,
  who: Who,
  round: number,
  records: number,
): Promise<BacklogRun> {
  const topic = `backlog-${who}-${round}`;
  await rig.createTopics([topic], PARTITIONS);
  await rig.fill(topic, PARTITIONS, records, RECORD_BYTES);
  const copy = `dc-a.${topic}`;
  const startedAt = performance.now();
  const contestant = await start(rig, who, topic);
  try {
    let first: { at: number; seen: number } | undefined;
    let last = { at: startedAt, seen: 0 };
    while (last.seen < records || performance.now() - last.at < 1_500) {
      contestant.requireRunning();
      if (first === undefined) {
        // What is written before its transaction is committed, too: the time of the first one counts.
        const written = await offsets(rig.target, copy, PARTITIONS, false);
        if (written > 0) first = { at: performance.now(), seen: written };
      }
      const seen = await offsets(rig.target, copy, PARTITIONS, true);
      const at = performance.now();
      if (seen > last.seen) last = { at, seen };
      if (at - Math.max(last.at, startedAt) > START_MS)
        throw new Error(`${who} does not go on: ${seen} of ${records}`);
      await sleep(20);
    }
    if (first!.seen >= last.seen)
      throw new Error(`${who}: all was there at the first look; measure more than ${records} --records`);
    const seconds = (last.at - first!.at) / 1000;
    const run = {
      recordsPerSecond: (records * (1 - first!.seen / last.seen)) / seconds,
      startMs: first!.at - startedAt,
      peakRssMb: contestant.peakRssMb(),
      cpuSeconds: contestant.cpuSeconds(),
    };
    await contestant.stop();
    await requireEachOnce(rig, copy, records);
    return run;
  } finally {
    await contestant.stop();
  }
}

async function requireEachOnce(rig: KafkaRig, copy: string, records: number): Promise<void> {
  const seen = new Uint8Array(records);
  let count = 0;
  const watcher = new Watcher(rig.target, (_topic, _partition, cursor) => {
    const number = Number.parseInt(cursor.value()!.toString('latin1', 0, 10), 10);
    if (seen[number] !== 0) throw new Error(`${copy}: record ${number} is there twice`);
    seen[number] = 1;
    count += 1;
  });
  await watcher.open([copy], PARTITIONS);
  const timer = setTimeout(() => watcher.stop(), START_MS);
  // To the end: a record may be there again behind all others.
  await watcher.run(await offsets(rig.target, copy, PARTITIONS, true));
  clearTimeout(timer);
  if (count !== records) throw new Error(`${copy}: ${count} of ${records} records are there`);
}

export interface LatencyRun {
  p50: number;
  p99: number;
  cpuSeconds: number;
  peakRssMb: number;
}

const RATE = 1000;
/**
 * Until brokers have compiled what they run: of 800 partitions, two cores are busy with that for a minute (p99 of ours by four seconds, from the
 * 20th on: 145, 86, 53, 47 ms). At the fifteenth record of a partition (4 KB) they touch the files of its indexes for the first time, too.
 */
const WARM_UP_MS = 60_000;

/** Records at a steady rate, one at a time; from before the send to where a reader of committed records has it. */
export async function runLatency(
  rig: KafkaRig,
  who: Who,
  name: string,
  topics: number,
  seconds: number,
): Promise<LatencyRun> {
  const prefix = `${name}-${who}`;
  const names = Array.from({ length: topics }, (_, i) => `${prefix}-${i}`);
  await rig.createTopics(names, PARTITIONS);
  const contestant = await start(rig, who, prefix);
  const latencies: number[] = [];
  const expected = RATE * seconds;
  let warm = 0;
  let measured = 0;
  let broken: Error | undefined;
  const watcher = new Watcher(rig.target, (_topic, _partition, cursor) => {
    const [number, at] = cursor.value()!.toString('latin1').split(' ', 2).map(Number) as [number, number];
    if (number < 0) return void (warm += 1);
    latencies.push(performance.now() - at);
    measured += 1;
  });
  try {
    await watcher.open(
      names.map((topic) => `dc-a.${topic}`),
      PARTITIONS,
    );
    const watching = watcher.run().catch((error: unknown) => (broken = error as Error));
    const sender = await Sender.open(rig.from, RATE);
    const arrived = async (count: () => number, wanted: number): Promise<void> => {
      const deadline = performance.now() + START_MS;
      while (count() < wanted && broken === undefined) {
        contestant.requireRunning();
        if (performance.now() > deadline) throw new Error(`${who}: ${count()} of ${wanted} records came`);
        await sleep(20);
      }
    };
    // Negative numbers are not measured; when they have come, all copies are there and take records.
    const first = (RATE * WARM_UP_MS) / 1000;
    await sender.send(names, PARTITIONS, -first, 0);
    await arrived(() => warm, first);
    const cpu = contestant.cpuSeconds();
    await sender.send(names, PARTITIONS, 0, expected);
    await sender.close();
    await arrived(() => measured, expected);
    const run = {
      p50: quantile(latencies, 0.5),
      p99: quantile(latencies, 0.99),
      cpuSeconds: contestant.cpuSeconds() - cpu,
      peakRssMb: contestant.peakRssMb(),
    };
    watcher.stop();
    await watching;
    if (broken !== undefined) throw broken;
    return run;
  } finally {
    watcher.stop();
    await contestant.stop();
  }
}
