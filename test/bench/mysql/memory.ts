import { median } from '../report.js';
import type { LinkUsage } from './link-child.js';
import { NOTE_OF_ID, USER_OF_ID, unlogged } from './rig.js';
import type { MysqlRig } from './rig.js';

export const MEMORY_WORK = 'worker memory';
/** What a link may take. */
export const MEMORY_BOUND_MB = 250;
const ROWS_PER_TRANSACTION = 1_000;
const PARTS = 10;

export interface MemoryRun {
  usage: LinkUsage;
  /** The median of each tenth of the time from start to the last row. */
  rssMbByTenth: number[];
  rowsPerSecond: number;
}

/** A backlog of `rows` rows in transactions of 1 000, written while the link is stopped. The process of the link is looked at while it works it off. */
export async function runMemory(rig: MysqlRig, round: number, rows: number): Promise<MemoryRun> {
  const table = await rig.table(`memory_${round}`, 0);
  await unlogged(rig.source, [
    `CREATE TABLE bench.offset_${round} (id INT PRIMARY KEY)`,
    `INSERT INTO bench.offset_${round} WITH RECURSIVE seq (id) AS (SELECT 0 UNION ALL SELECT id + 1 FROM seq WHERE id < ${ROWS_PER_TRANSACTION - 1}) SELECT id FROM seq`,
    `CREATE PROCEDURE bench.load_memory_${round} (IN lo INT, IN hi INT) BEGIN
       WHILE lo <= hi DO
         INSERT INTO ${table} SELECT id, ${USER_OF_ID}, 0, ${NOTE_OF_ID} FROM (SELECT lo + id AS id FROM bench.offset_${round}) AS one;
         SET lo = lo + ${ROWS_PER_TRANSACTION};
       END WHILE; END`,
  ]);
  const share = Math.ceil(rows / 2 / ROWS_PER_TRANSACTION) * ROWS_PER_TRANSACTION;
  await Promise.all(
    [0, 1].map((n) =>
      rig.source.query(`CALL bench.load_memory_${round} (?, ?)`, [n * share + 1, (n + 1) * share]),
    ),
  );
  const marker = await rig.finish();
  const tookMs = await rig.catchUp(rig.ours, marker);
  const usage = await rig.ours.stop();
  await rig.requireEqual(table, [rig.ours]);
  const part = usage.rssMb.length / PARTS;
  const rssMbByTenth = Array.from({ length: PARTS }, (_, i) =>
    Math.round(median(usage.rssMb.slice(Math.floor(i * part), Math.ceil((i + 1) * part)))),
  );
  return { usage, rssMbByTenth, rowsPerSecond: Math.round((2 * share * 1_000) / tookMs) };
}
