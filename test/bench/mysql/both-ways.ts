import type { LinkUsage } from './link-child.js';
import { unlogged } from './rig.js';
import type { MysqlRig } from './rig.js';
import type { Side } from './sides.js';
import { BACKLOGS, writeBy } from './works.js';

export const BOTH_WORK = 'both directions, single-row insert backlog';
export const BOTH_PEER = 'MySQL replication both ways, 4 appliers';

/** One way: where a backlog of `rows` rows is, and what carries it. */
interface Way {
  from: Side;
  by: Side;
}

/** Two servers with a backlog of single-row inserts each, for each other. Answers transactions per second, of both ways together. */
export async function runBothWays(
  rig: MysqlRig,
  round: number,
  rows: number,
): Promise<{ ours: number; peer: number; usage: LinkUsage[] }> {
  const table = await rig.table(`both_${round}`, 0);
  const procedure = `bench.load_both_${round}`;
  const { loop } = BACKLOGS['single-row insert backlog']!;
  const { ours, back, native } = rig;
  if (round === 0) await rig.bothWays();
  // What goes one way is at the server to which the other way goes.
  const links: Way[] = [
    { from: back, by: ours },
    { from: ours, by: back },
  ];
  const natives: Way[] = [
    { from: native.one, by: native.four },
    { from: native.four, by: native.one },
  ];
  for (const ways of [links, natives]) {
    for (const [i, { from }] of ways.entries()) {
      await unlogged(from.target, [
        `CREATE PROCEDURE ${procedure} (IN lo INT, IN hi INT) BEGIN ${loop(table, rows)}; END`,
      ]);
      await writeBy(from.server.pool({ connectionLimit: 32 }), procedure, 1 + i * rows, (i + 1) * rows);
    }
  }
  const usage: LinkUsage[] = [];
  const run = async (ways: readonly Way[]): Promise<number> => {
    const markers: number[] = [];
    for (const { from } of ways) markers.push(await rig.finish(from.target));
    for (const { by } of ways) await by.prepare();
    const began = performance.now();
    await Promise.all(ways.map(({ by }) => by.start()));
    await Promise.all(ways.map(({ by }, i) => rig.reaches(by, markers[i]!)));
    const tookMs = performance.now() - began;
    for (const { by } of ways) {
      const used = await by.stop();
      if (used !== null) usage.push(used);
    }
    return (2 * rows * 1_000) / tookMs;
  };
  const first = round % 2 === 0 ? links : natives;
  const rates = new Map([[first, await run(first)]]);
  const second = first === links ? natives : links;
  rates.set(second, await run(second));
  await rig.requireEqual(table, [ours]);
  await rig.requireEqual(table, [native.four, native.one]);
  return { ours: rates.get(links)!, peer: rates.get(natives)!, usage };
}
