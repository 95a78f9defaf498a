import { RedisConnection, textOf } from '../../../replicators/redis/connection.js';
import { quantile } from '../report.js';
import type { LinkUsage } from '../mysql/link-child.js';
import type { RedisRig, Side } from './rig.js';

const STEADY_PER_SECOND = 5_000;
const WARM_UP_MS = 1_000;

export interface Measured {
  ours: number;
  peer: number;
  usage: LinkUsage | null;
  /** Seconds of the source's CPU for a million commands, with either side attached. */
  sourceCpu?: { ours: number; peer: number };
}

type Load = (rig: RedisRig, count: number) => Promise<void>;

const sets: Load = async (rig, count) =>
  rig.load('-t', 'set', '-n', String(count), '-d', '100', '-r', String(count), '-P', '64');

/** A hash, a list, a sorted set, a stream, a counter, a time to live: in turn. */
const mix: Load = async (rig, count) => {
  const client = await RedisConnection.open({ host: '127.0.0.1', port: rig.source.server.port }, 'bench');
  const value = 'x'.repeat(100);
  for (let i = 0; i < count; i += 600) {
    const commands: (string | number)[][] = [];
    for (let j = i; j < i + 600 && j < count; j += 6)
      commands.push(
        ['HSET', `h:${j % 5000}`, `f${j % 50}`, value],
        ['LPUSH', `l:${j % 5000}`, value],
        ['ZADD', `z:${j % 5000}`, j, `m${j % 100}`],
        ['XADD', `s:${j % 500}`, '*', 'f', value],
        ['INCR', `n:${j % 5000}`],
        ['EXPIRE', `h:${j % 5000}`, 100_000],
      );
    await client.askAll(commands);
  }
  client.destroy();
};

/** Writes while both are detached, then attaches one after the other. Answers commands per second. */
async function backlog(rig: RedisRig, round: number, count: number, load: Load): Promise<Measured> {
  await load(rig, count);
  const found = { ours: 0, peer: 0 };
  let usage: LinkUsage | null = null;
  for (const side of inTurn(rig, round)) {
    found[nameOf(rig, side)] = count / ((await rig.catchUp(side)) / 1000);
    usage = (await side.detach()) ?? usage;
  }
  await rig.requireEqual();
  return { ...found, usage };
}

/** The source is written as fast as it goes with one side attached: from the first command until the target has all. */
async function live(rig: RedisRig, round: number, count: number): Promise<Measured> {
  const found = { ours: 0, peer: 0 };
  const cpu = { ours: 0, peer: 0 };
  let usage: LinkUsage | null = null;
  for (const side of inTurn(rig, round)) {
    await rig.catchUp(side);
    const cpuBefore = await rig.sourceCpu();
    const begin = performance.now();
    await rig.load('-t', 'set', '-n', String(count), '-d', '100', '-r', String(count), '-P', '16');
    await rig.reaches(side, await rig.written());
    found[nameOf(rig, side)] = count / ((performance.now() - begin) / 1000);
    cpu[nameOf(rig, side)] = (((await rig.sourceCpu()) - cpuBefore) / count) * 1e6;
    usage = (await side.detach()) ?? usage;
  }
  for (const side of rig.sides) {
    await rig.catchUp(side);
    await side.detach();
  }
  await rig.requireEqual();
  return { ...found, usage, sourceCpu: cpu };
}

async function fullSync(rig: RedisRig, round: number, count: number): Promise<Measured> {
  await sets(rig, count);
  const keys = Number(await rig.source.run('DBSIZE'));
  const found = { ours: 0, peer: 0 };
  let usage: LinkUsage | null = null;
  for (const side of inTurn(rig, round)) {
    await side.prepare();
    if (side === rig.native) await side.target.run('REPLICAOF', 'NO', 'ONE');
    await side.target.run('FLUSHALL');
    if (side === rig.ours) await rig.ours.begin({ copy: true });
    const end = await rig.written();
    const begin = performance.now();
    await side.attach();
    await rig.reaches(side, end);
    found[nameOf(rig, side)] = keys / ((performance.now() - begin) / 1000);
    usage = (await side.detach()) ?? usage;
  }
  await rig.requireEqual();
  return { ...found, usage };
}

export const RATES: Record<string, { unit: string; run: typeof live }> = {
  'SET backlog': { unit: 'commands/s', run: (rig, round, count) => backlog(rig, round, count, sets) },
  'SET live': { unit: 'commands/s', run: live },
  'full sync': { unit: 'keys/s', run: fullSync },
  'mix backlog': { unit: 'commands/s', run: (rig, round, count) => backlog(rig, round, count, mix) },
};

export const LATENCIES = ['steady latency p50', 'steady latency p99'] as const;

export interface Latency {
  p50: number;
  p99: number;
}

/** 5 000 commands a second for both; milliseconds from sending a command to the source until a reader of the target sees it. */
export async function steady(
  rig: RedisRig,
  round: number,
  count: number,
): Promise<{ ours: Latency; peer: Latency; usage: LinkUsage | null }> {
  const found: { ours: Latency; peer: Latency } = { ours: { p50: 0, p99: 0 }, peer: { p50: 0, p99: 0 } };
  let usage: LinkUsage | null = null;
  for (const side of inTurn(rig, round)) {
    await rig.catchUp(side);
    const times = await offer(rig, side, count);
    found[nameOf(rig, side)] = { p50: quantile(times, 0.5), p99: quantile(times, 0.99) };
    usage = (await side.detach()) ?? usage;
  }
  return { ...found, usage };
}

async function offer(rig: RedisRig, side: Side, measured: number): Promise<number[]> {
  const warmUp = (WARM_UP_MS / 1000) * STEADY_PER_SECOND;
  const count = measured + warmUp;
  const sentAt = new Float64Array(count + 1);
  const seenAt = new Float64Array(count + 1);
  await rig.source.run('SET', 'steady', 0);
  const reader = await RedisConnection.open(
    { host: '127.0.0.1', port: side.target.server.port },
    'bench-reader',
  );
  let seen = 0;
  const look = async (): Promise<void> => {
    const deadline = performance.now() + (count / STEADY_PER_SECOND) * 1000 + 60_000;
    while (seen < count) {
      const value = Number(textOf(await reader.ask('GET', 'steady')));
      const now = performance.now();
      while (seen < value) seenAt[++seen] = now;
      if (now > deadline) throw new Error(`${side.name}: command ${seen + 1} does not come`);
      await new Promise((resolve) => setImmediate(resolve));
    }
  };
  const send = async (): Promise<void> => {
    const begin = performance.now();
    for (let i = 1; i <= count;) {
      const due = Math.min(count, Math.floor(((performance.now() - begin) / 1000) * STEADY_PER_SECOND) + 1);
      for (; i <= due; i++) {
        sentAt[i] = performance.now();
        void rig.source.client.ask('INCR', 'steady').catch(() => undefined);
      }
      await new Promise((resolve) => setImmediate(resolve));
    }
  };
  await Promise.all([send(), look()]);
  reader.destroy();
  return Array.from({ length: measured }, (_, i) => seenAt[warmUp + i + 1]! - sentAt[warmUp + i + 1]!);
}

/** Who is first changes from round to round. */
function inTurn(rig: RedisRig, round: number): Side[] {
  return round % 2 === 0 ? rig.sides : [...rig.sides].reverse();
}

function nameOf(rig: RedisRig, side: Side): 'ours' | 'peer' {
  return side === rig.ours ? 'ours' : 'peer';
}
