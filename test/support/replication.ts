import type { Pool, RowDataPacket } from 'mysql2/promise';
import type { Flavour } from '../../infra/mysql-server.js';
import type { BaselineReached, LinkStatus } from '../../replicators/core/contract.js';
import { initialiseLink } from '../../replicators/mysql/initialise.js';
import { Link } from '../../replicators/mysql/link.js';
import type { LinkConfig } from '../../replicators/mysql/link-config.js';
import { CONTROL_TABLES } from '../../src/fence/control-schema.js';
import { startTestMysql } from './mysql.js';
import type { TestMysql } from './mysql.js';

export interface Side {
  server: TestMysql;
  pool: Pool;
}

export interface Pair {
  a: Side;
  b: Side;
  stop: () => Promise<void>;
}

/** Two servers with the control schema, as dc-a and dc-b. */
export async function startPair(
  flavour: Flavour,
  flavourOfB: Flavour = flavour,
  extra: string[] = [],
): Promise<Pair> {
  const starting = [
    startTestMysql(flavour, { offset: 1, extra }),
    startTestMysql(flavourOfB, { offset: 2, extra }),
  ];
  const servers = await Promise.all(starting).catch(async (error: unknown) => {
    for (const one of await Promise.allSettled(starting))
      if (one.status === 'fulfilled') await one.value.stop();
    throw error;
  });
  const [a, b] = servers.map((server) => ({
    server,
    pool: server.pool({
      dateStrings: true,
      supportBigNumbers: true,
      bigNumberStrings: true,
      timezone: '+00:00',
    }),
  })) as [Side, Side];
  for (const side of [a, b]) {
    await unlogged(side, ['CREATE DATABASE IF NOT EXISTS interlock', ...Object.values(CONTROL_TABLES)]);
  }
  return {
    a,
    b,
    stop: async () => {
      await Promise.all(servers.map((server) => server.stop()));
    },
  };
}

/** Runs statements that no link sees. */
export async function unlogged(side: Side, statements: string[]): Promise<void> {
  const connection = await side.pool.getConnection();
  try {
    await connection.query('SET sql_log_bin = 0');
    for (const statement of statements) {
      await connection.query(statement).catch((error: unknown) => {
        throw new Error(statement.slice(0, 200), { cause: error });
      });
    }
  } finally {
    await connection.query('SET sql_log_bin = 1');
    connection.release();
  }
}

/** Creates a schema of its own for one test on both sides. */
export async function createOnBoth(pair: Pair, statements: string[]): Promise<void> {
  await unlogged(pair.a, statements);
  await unlogged(pair.b, statements);
}

export function linkConfig(
  pair: Pair,
  from: 'a' | 'b',
  schema: string,
  tables: LinkConfig['tables'],
  overrides: Partial<LinkConfig> = {},
): LinkConfig {
  const to = from === 'a' ? 'b' : 'a';
  const address = ({ server }: Side): LinkConfig['source'] => ({
    host: server.host,
    port: server.port,
    user: server.user,
    password: server.password,
    flavour: server.flavour,
  });
  return {
    link: `mysql/${schema.replaceAll('_', '-')}:dc-${from}>dc-${to}`,
    from: `dc-${from}`,
    to: `dc-${to}`,
    source: address(pair[from]),
    target: address(pair[to]),
    include: [`${schema}.*`],
    exclude: [],
    tables,
    mapping: { defaultRegion: 'cn-east', regions: ['cn-east'], segments: {} },
    conflicts: {},
    onQuarantine: 'stop',
    winsTies: from === 'a',
    ...overrides,
  };
}

/** Routing of tables that both data centers may write. */
export function unrouted(schema: string, tables: readonly string[]): LinkConfig['tables'] {
  return Object.fromEntries(tables.map((table) => [`${schema}.${table}`, { unrouted: true as const }]));
}

export interface RunningLink {
  link: Link;
  config: LinkConfig;
  markers: { baseline: BaselineReached; to: { workflowId: string; runId: string }; at: number }[];
  status: () => LinkStatus;
  /** Settles when the link has ended: undefined, or its error. */
  ended: Promise<unknown>;
  stop: () => Promise<unknown>;
}

/** Runs a link until `stop`. `ended`: undefined, or its error. */
export function started(link: { run: (signal: AbortSignal) => Promise<void> }): {
  ended: Promise<unknown>;
  stop: () => Promise<unknown>;
} {
  const abort = new AbortController();
  const ended = link.run(abort.signal).then(
    () => undefined,
    (error: unknown) => error,
  );
  const stop = (): Promise<unknown> => {
    abort.abort();
    return ended;
  };
  return { ended, stop };
}

export async function runLink(config: LinkConfig, from: string | null = 'now'): Promise<RunningLink> {
  if (from !== null) await initialiseLink(config, { from });
  const markers: RunningLink['markers'] = [];
  const link = new Link(
    config,
    {
      onStatus: () => undefined,
      onMarker: (baseline, to) => markers.push({ baseline, to, at: performance.now() }),
    },
    () => undefined,
  );
  const running: RunningLink = { link, config, markers, status: () => link.status(), ...started(link) };
  await until(
    () => link.status().state !== 'starting',
    `${config.link} streams`,
    20_000,
    () => JSON.stringify(link.status()),
  );
  return running;
}

/** MySQL takes no more than a tenth of its redo log in large values of one transaction. */
export async function roomForLargeValues({ a, b }: Pair, flavour: Flavour): Promise<void> {
  if (flavour !== 'mysql') return;
  for (const side of [a, b]) await side.pool.query('SET GLOBAL innodb_redo_log_capacity = 2147483648');
}

/** Waits until a link has copied its tables; fails when it stops. */
export async function copied(running: RunningLink): Promise<void> {
  await until(
    () => {
      const { state, lastError } = running.status();
      if (state === 'failed') throw new Error(lastError?.message);
      return state === 'streaming';
    },
    'the copy is done',
    120_000,
    () => JSON.stringify(running.status()),
  );
}

/** Removes all binlog files but the last. One that a dump session still reads is left: that of a stopped link may not have noticed. */
export async function purgeBinlogs(side: Side): Promise<void> {
  await side.pool.query('FLUSH BINARY LOGS');
  const last = String((await rows(side, 'SHOW BINARY LOGS')).at(-1)!['Log_name']);
  await until(async () => {
    await side.pool.query(`PURGE BINARY LOGS TO '${last}'`);
    return (await rows(side, 'SHOW BINARY LOGS')).length === 1;
  }, 'the binlog is purged');
}

/** Waits until `check` holds; fails with what it was waiting for. */
export async function until(
  check: () => boolean | Promise<boolean>,
  what: string,
  timeoutMs = 20_000,
  detail: () => string = () => '',
): Promise<void> {
  const deadline = Date.now() + timeoutMs;
  while (!(await check())) {
    if (Date.now() > deadline) throw new Error(`not in ${timeoutMs} ms: ${what} ${detail()}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

export async function rows(side: Side, sql: string): Promise<Record<string, unknown>[]> {
  const [found] = await side.pool.query<RowDataPacket[]>(sql);
  return found;
}

let markerCount = 0;

/** Writes a marker at one side; answers its id. */
export async function writeMarker(side: Side): Promise<string> {
  const id = `m-${process.pid}-${++markerCount}`;
  await side.pool.query(
    `INSERT INTO interlock.marker (id, workflow_id, run_id, epoch, created_at) VALUES (?, 'switchover/test', 'run', 1, UTC_TIMESTAMP(6))`,
    [id],
  );
  return id;
}

/** Waits until the link has met a marker that is written now: all that the source had is applied. */
export async function settled(running: RunningLink, source: Side): Promise<number> {
  const start = performance.now();
  const id = await writeMarker(source);
  await Promise.race([
    until(
      () => running.markers.some((m) => m.baseline.markerId === id),
      `${running.config.link} reaches marker ${id}`,
      30_000,
      () => JSON.stringify(running.status()),
    ),
    running.ended.then((error) => {
      throw error instanceof Error ? error : new Error(`${running.config.link} ended`);
    }),
  ]);
  return running.markers.find((m) => m.baseline.markerId === id)!.at - start;
}

/** Every row of a table, bytes as hex, in key order: equal on both sides when the tables are. */
export async function dump(side: Side, table: string): Promise<string[]> {
  const columns = await rows(
    side,
    `SELECT column_name AS c, data_type AS d FROM information_schema.columns
     WHERE CONCAT(table_schema, '.', table_name) = '${table.replace(/`(.*)`/, (_all, name: string) => name.replaceAll('``', '`'))}' ORDER BY column_name`,
  );
  const parts = columns.map(
    ({ c, d }) => `COALESCE(${bytesOf(`\`${String(c).replaceAll('`', '``')}\``, String(d))}, 'NULL')`,
  );
  const found = await rows(side, `SELECT CONCAT_WS(' | ', ${parts.join(", ' | ', ")}) AS r FROM ${table}`);
  // Sorted here: rows of megabytes do not fit the server's sort buffer.
  return found
    .map(({ r }) =>
      String(r).replace(/<([^>]*)>/g, (_all, n: string) => (n === '-0' ? n : String(Number(n)))),
    )
    .sort();
}

/** An expression that differs when the stored bytes do. */
function bytesOf(name: string, type: string): string {
  if (/char|text|binary|blob|point|linestring|polygon|geom/.test(type)) return `HEX(${name})`;
  // As text -0 has its sign, as a double a FLOAT has all its digits. Servers spell the same number in different ways.
  if (type === 'float') return `CONCAT('<', CAST(${name} AS CHAR), '>=<', CAST(${name} + 0e0 AS CHAR), '>')`;
  if (type === 'double') return `CONCAT('<', CAST(${name} AS CHAR), '>')`;
  if (/^(enum|set)$/.test(type)) return `CONCAT(CAST(${name} AS UNSIGNED), '=', HEX(${name}))`;
  return `HEX(CAST(${type === 'bit' ? `${name} + 0` : name} AS CHAR))`;
}

export async function binlogPosition(side: Side): Promise<string> {
  const [row] = await rows(side, 'SHOW MASTER STATUS');
  return `${String(row!['File'])}:${String(row!['Position'])}`;
}
