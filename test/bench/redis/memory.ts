import { compare } from '../report.js';
import type { BenchResult } from '../report.js';
import type { RedisRig } from './rig.js';

export const MEMORY = ['worker memory'] as const;
/** What a link is to stay under. */
const AIM_MB = 250;
const LARGE = 512 * 1024 * 1024;

/** Lua, at the source. 21 bytes at a time: a pattern that does not fall on what is read at once. */
const LONG = `local function long(n) return string.sub(string.rep('0123456789abcdefghijk', math.ceil(n / 21)), 1, n) end `;

const LOADS: Record<string, { text: string; copied?: true }> = {
  'value of 512 MB in the stream': { text: `redis.call('SET', 'large', long(${LARGE}))` },
  'transaction of 512 MB in the stream': {
    text: `local some = long(100000) for i = 1, ${Math.ceil(LARGE / 100_000)} do redis.call('RPUSH', 'list', some) end`,
  },
  'value of 512 MB in a full synchronisation': {
    text: `redis.call('SET', 'large', long(${LARGE}))`,
    copied: true,
  },
  'element of 512 MB in a full synchronisation': {
    text: `redis.call('HSET', 'hash', 'small', 1, 'large', long(${LARGE}))`,
    copied: true,
  },
};

/** MB that the process of the link had at its peak, and what 512 MB took. */
export async function workerMemory(
  rig: RedisRig,
  rounds: number,
): Promise<{ results: BenchResult[]; link: Record<string, unknown> }> {
  const peaks: number[] = [];
  const link: Record<string, unknown> = {};
  for (let round = 0; round < rounds; round++)
    for (const [name, { text, copied }] of Object.entries(LOADS)) {
      const { ours, source } = rig;
      await source.run('FLUSHALL');
      await ours.target.run('FLUSHALL');
      if (copied === true) await source.run('EVAL', LONG + text, 0);
      await ours.begin(copied === true ? { copy: true } : { from: 'now' });
      if (copied !== true) await source.run('EVAL', LONG + text, 0);
      const ms = await rig.catchUp(ours);
      const { peakRssMb, cpuSeconds } = await ours.detach();
      await rig.requireEqualTo(ours);
      peaks.push(peakRssMb);
      link[name] = { peakRssMb: Math.round(peakRssMb), cpuSeconds, seconds: ms / 1000 };
    }
  const most = Math.max(...peaks);
  return {
    results: [compare(MEMORY[0], 'MB', `aim (${AIM_MB} MB)`, [{ ours: most, peer: AIM_MB }], false)],
    link,
  };
}
