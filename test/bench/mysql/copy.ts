import { spawn } from 'node:child_process';
import { once } from 'node:events';
import type { RowDataPacket } from 'mysql2/promise';
import { onPath } from '../../../infra/components/search-path.js';
import type { LinkUsage } from './link-child.js';
import { NOTE_OF_ID, USER_OF_ID, unlogged } from './rig.js';
import type { MysqlRig } from './rig.js';

export const COPY_WORK = 'initial copy';
export const COPY_PEER = 'mysqldump | mysql';
const POLL_MS = 20;

/** The programs of the peer; undefined when one is not on PATH. */
export function dumpPrograms(): { dump: string; load: string } | undefined {
  const dump = onPath('mysqldump') ?? onPath('mariadb-dump');
  const load = onPath('mysql') ?? onPath('mariadb');
  return dump === null || load === null ? undefined : { dump, load };
}

/** Copies a table that only the source has rows of, by the link and by the peer. Answers rows per second. */
export async function runCopy(
  rig: MysqlRig,
  round: number,
  rows: number,
  programs: { dump: string; load: string },
): Promise<{ ours: number; peer: number; usage: LinkUsage }> {
  const name = `copy_${round}`;
  const table = await rig.table(name, 0);
  await unlogged(rig.source, [
    `SET SESSION cte_max_recursion_depth = ${rows + 1}`,
    `INSERT INTO ${table} WITH RECURSIVE seq (id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM seq WHERE id < ${rows})
       SELECT id, ${USER_OF_ID}, 0, ${NOTE_OF_ID} FROM seq`,
  ]);
  let usage: LinkUsage | undefined;
  const link = async (): Promise<number> => {
    await rig.ours.prepare();
    const began = performance.now();
    await rig.orderCopy(table);
    await rig.ours.start();
    for (;;) {
      const [[row]] = await rig.ours.target.query<RowDataPacket[]>(
        'SELECT state FROM interlock.link_copy WHERE name = ?',
        [table],
      );
      if (row?.['state'] === 'done') break;
      await rig.ours.check();
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
    const tookMs = performance.now() - began;
    usage = await rig.ours.stop();
    return (rows * 1000) / tookMs;
  };
  const peer = async (): Promise<number> => {
    const began = performance.now();
    await pipe(rig, programs, name);
    return (rows * 1000) / (performance.now() - began);
  };
  const order = round % 2 === 0 ? [link, peer] : [peer, link];
  const rates = new Map<() => Promise<number>, number>();
  for (const side of order) rates.set(side, await side());
  // Only these two sides have it.
  await rig.requireEqual(table, [rig.ours, rig.native.one]);
  return { ours: rates.get(link)!, peer: rates.get(peer)!, usage: usage! };
}

async function pipe(rig: MysqlRig, programs: { dump: string; load: string }, name: string): Promise<void> {
  const login = (port: number): string[] => ['--host=127.0.0.1', `--port=${port}`, '--user=root'];
  const env = { ...process.env, MYSQL_PWD: rig.password };
  const dump = spawn(
    programs.dump,
    [...login(rig.sourcePort), '--single-transaction', '--quick', '--no-create-info', 'bench', name],
    { env, stdio: ['ignore', 'pipe', 'inherit'] },
  );
  const load = spawn(programs.load, [...login(rig.dumpTargetPort), 'bench'], {
    env,
    stdio: [dump.stdout, 'ignore', 'inherit'],
  });
  const ended = await Promise.all([once(dump, 'exit'), once(load, 'exit')]);
  if (ended.some(([code]) => code !== 0)) throw new Error(`${COPY_PEER} failed`);
}
