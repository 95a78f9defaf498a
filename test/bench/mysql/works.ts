import { readFileSync } from 'node:fs';
import { quantile } from '../report.js';
import type { LinkUsage } from './link-child.js';
import { NOTE_OF_ID, USER_OF_ID, unlogged } from './rig.js';
import type { MysqlRig } from './rig.js';
import type { Side } from './sides.js';
import type { Pool, RowDataPacket } from 'mysql2/promise';

/** A table is written by this many sessions of the source: replication finds transactions that ran side by side. */
const WRITERS = 8;
const BULK_ROWS = 100;
const HOT_ROWS = 100;
const LATENCY_PER_SECOND = 500;
/** Of the link, too, whose code the engine compiles as it runs: after one second half of it is not yet. */
const LATENCY_WARM_UP_MS = 10_000;
const LATENCY_POLL_MS = 1;

export interface Backlog {
  /** Rows that the table has before. */
  rowsBefore: (rows: number) => number;
  /** Row changes of the work at `--rows N`, and how many of them make one of the result's unit. */
  changes: (rows: number) => number;
  /** The loop of one session, over `lo` … `hi` (at most `changes`). */
  loop: (table: string, rows: number) => string;
  unit: 'tx/s' | 'rows/s';
}

const update = (table: string, among: number): string =>
  `WHILE lo <= hi DO
     SET at = 1 + FLOOR(RAND() * ${among});
     UPDATE ${table} SET n = n + 1, note = CONCAT('changed by ', lo) WHERE id = at;
     SET lo = lo + 1;
   END WHILE`;

const values = (id: string): string =>
  `(${[id, USER_OF_ID, '0', NOTE_OF_ID].join(', ').replace(/\bid\b/g, id)})`;

export const BACKLOGS: Record<string, Backlog> = {
  'single-row insert backlog': {
    rowsBefore: () => 0,
    changes: (rows) => rows,
    loop: (table) =>
      `WHILE lo <= hi DO INSERT INTO ${table} VALUES ${values('lo')}; SET lo = lo + 1; END WHILE`,
    unit: 'tx/s',
  },
  'single-row update backlog': {
    rowsBefore: (rows) => rows,
    changes: (rows) => rows,
    loop: (table, rows) => update(table, rows),
    unit: 'tx/s',
  },
  'hot update backlog': {
    rowsBefore: () => HOT_ROWS,
    changes: (rows) => rows,
    loop: (table) => update(table, HOT_ROWS),
    unit: 'tx/s',
  },
  'bulk backlog': {
    rowsBefore: () => 0,
    changes: (rows) => Math.ceil((10 * rows) / BULK_ROWS) * BULK_ROWS,
    loop: (table) => {
      const rows = Array.from({ length: BULK_ROWS }, (_, i) => values(`(lo + ${i})`));
      return `WHILE lo <= hi DO
         START TRANSACTION;
         INSERT INTO ${table} VALUES ${rows.join(', ')};
         COMMIT;
         SET lo = lo + ${BULK_ROWS};
       END WHILE`;
    },
    unit: 'rows/s',
  },
};

export const LATENCY_WORKS = ['steady latency p50', 'steady latency p99'] as const;

export interface Measured {
  ours: number;
  four: number;
  one: number;
  usage: LinkUsage;
  /** User and system time of the targets while they caught up: all that they did for it, commits and receiving too. */
  targetCpuSeconds: { ours: number; four: number; one: number };
}

/** Calls the procedure in WRITERS sessions, with a share of `from` … `to` for each. */
export async function writeBy(pool: Pool, procedure: string, from: number, to: number): Promise<void> {
  const share = Math.ceil((to - from + 1) / WRITERS / BULK_ROWS) * BULK_ROWS;
  await Promise.all(
    Array.from({ length: WRITERS }, (_, n) =>
      pool.query(`CALL ${procedure} (?, ?)`, [from + n * share, Math.min(from + (n + 1) * share - 1, to)]),
    ),
  );
}

/** Writes the backlog while all sides are stopped, then starts one after the other. Answers changes per second. */
export async function runBacklog(
  rig: MysqlRig,
  name: string,
  round: number,
  rows: number,
): Promise<Measured> {
  const backlog = BACKLOGS[name]!;
  const short = `${name.replaceAll(/[^a-z]/g, '_')}_${round}`;
  const table = await rig.table(short, backlog.rowsBefore(rows));
  const changes = backlog.changes(rows);
  await unlogged(rig.source, [
    `CREATE PROCEDURE bench.load_${short} (IN lo INT, IN hi INT) BEGIN DECLARE at INT; ${backlog.loop(table, rows)}; END`,
  ]);
  await writeBy(rig.source, `bench.load_${short}`, 1, changes);
  const marker = await rig.finish();
  const seconds = new Map<Side, number>();
  const cpu = new Map<Side, number>();
  let usage: LinkUsage | null = null;
  const { ours, native } = rig;
  const sides = [ours, native.four, native.one];
  for (const side of round % 2 === 0 ? sides : sides.reverse()) {
    const before = cpuSeconds(side.server.pid());
    seconds.set(side, (await rig.catchUp(side, marker)) / 1_000);
    cpu.set(side, cpuSeconds(side.server.pid()) - before);
    usage = (await side.stop()) ?? usage;
  }
  await rig.requireEqual(table);
  const rate = (side: Side): number => changes / seconds.get(side)!;
  const targetCpuSeconds = {
    ours: cpu.get(ours)!,
    four: cpu.get(native.four)!,
    one: cpu.get(native.one)!,
  };
  return {
    ours: rate(ours),
    four: rate(native.four),
    one: rate(native.one),
    usage: usage!,
    targetCpuSeconds,
  };
}

/** Of Linux: /proc/PID/stat counts in hundredths of a second. */
const TICKS_PER_SECOND = 100;

function cpuSeconds(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
}

export interface Latency {
  p50: number;
  p99: number;
}

/** The same open loop of inserts for the link and for four appliers. Answers milliseconds from the source's answer to visible. */
export async function runLatency(
  rig: MysqlRig,
  round: number,
  rows: number,
): Promise<{ ours: Latency; four: Latency; usage: LinkUsage; changes: number }> {
  const table = await rig.table(`latency_${round}`, 0);
  const count = Math.max(LATENCY_PER_SECOND, Math.round(rows / 4));
  const found = new Map<Side, Latency>();
  let usage: LinkUsage | null = null;
  let next = 1;
  const { ours, native } = rig;
  const measured = [ours, native.four];
  for (const side of round % 2 === 0 ? measured : measured.reverse()) {
    await rig.catchUp(side, await rig.finish());
    const times = await offer(rig, side, table, next, count);
    next += times.length;
    const settled = times.slice((LATENCY_WARM_UP_MS / 1_000) * LATENCY_PER_SECOND);
    found.set(side, { p50: quantile(settled, 0.5), p99: quantile(settled, 0.99) });
    await rig.reaches(side, await rig.finish());
    usage = (await side.stop()) ?? usage;
  }
  const end = await rig.finish();
  for (const side of rig.sides) {
    await rig.catchUp(side, end);
    await side.stop();
  }
  await rig.requireEqual(table);
  return { ours: found.get(ours)!, four: found.get(native.four)!, usage: usage!, changes: next - 1 };
}

/** Inserts at their times, whether earlier ones were answered or not; by the order in which they were to be sent, when each was seen. */
async function offer(
  rig: MysqlRig,
  side: Side,
  table: string,
  first: number,
  measured: number,
): Promise<number[]> {
  const count = measured + (LATENCY_WARM_UP_MS / 1_000) * LATENCY_PER_SECOND;
  const answeredAt = new Float64Array(count);
  const seenAt = new Float64Array(count);
  let lowest = 0;
  const look = async (): Promise<void> => {
    const deadline = performance.now() + (count / LATENCY_PER_SECOND) * 1_000 + 60_000;
    while (lowest < count) {
      const [rows] = await side.target.query<RowDataPacket[]>(`SELECT id FROM ${table} WHERE id >= ?`, [
        first + lowest,
      ]);
      const now = performance.now();
      for (const row of rows) {
        const at = Number(row['id']) - first;
        if (at < count && seenAt[at] === 0) seenAt[at] = now;
      }
      while (lowest < count && seenAt[lowest] !== 0) lowest++;
      if (now > deadline) {
        await side.check();
        throw new Error(`${side.name}: row ${first + lowest} of ${table} does not come`);
      }
      await new Promise((resolve) => setTimeout(resolve, LATENCY_POLL_MS));
    }
  };
  const send = async (): Promise<void> => {
    const begin = performance.now();
    const sent: Promise<void>[] = [];
    for (let i = 0; i < count;) {
      const due = Math.min(count, Math.floor(((performance.now() - begin) / 1_000) * LATENCY_PER_SECOND) + 1);
      for (; i < due; i++) sent.push(insert(i));
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    await Promise.all(sent);
  };
  const insert = async (i: number): Promise<void> => {
    const id = first + i;
    await rig.source.query(`INSERT INTO ${table} VALUES (?, ?, 0, ?)`, [id, `u${id % 5000}`, `steady ${id}`]);
    answeredAt[i] = performance.now();
  };
  await Promise.all([send(), look()]);
  // A target may show a row before the source's client has its answer.
  return Array.from(seenAt, (seen, i) => Math.max(0, seen - answeredAt[i]!));
}
