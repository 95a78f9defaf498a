import type { Pool, RowDataPacket } from 'mysql2/promise';
import { messageOf } from '../errors.js';
import type { DcId } from '../routing/units.js';
import type { Topology } from '../topology/schema.js';
import { CONTROL_SCHEMA } from './control-schema.js';
import type { FenceStore } from './fence-store.js';
import type { Flavour } from './flavour.js';
import { unavailable } from './unavailable.js';

/** One thing that was looked at. */
export interface Check {
  /** `dc-a mysql/main: binlog` */
  name: string;
  ok: boolean;
  /** What was seen, and what to do when it is not ok. */
  detail: string;
}

export type Seen = string | { wrong: string };

/** Checks of one subject; a look that throws is a check that is not ok. */
export class Checks {
  readonly list: Check[] = [];

  constructor(private readonly subject: string) {}

  async add(name: string, look: () => Promise<Seen> | Seen): Promise<boolean> {
    const full = `${this.subject}: ${name}`;
    let check: Check;
    try {
      const seen = await look();
      check =
        typeof seen === 'string'
          ? { name: full, ok: true, detail: seen }
          : { name: full, ok: false, detail: seen.wrong };
    } catch (error) {
      check = { name: full, ok: false, detail: messageOf(unavailable(this.subject, error)) };
    }
    this.list.push(check);
    return check.ok;
  }
}

const VERSIONS: Record<Flavour, { pattern: RegExp; wanted: string }> = {
  mysql: { pattern: /^8\.0\.(?!.*MariaDB)/, wanted: 'MySQL 8.0' },
  mariadb: { pattern: /^(?:5\.5\.5-)?10\.11\..*MariaDB/, wanted: 'MariaDB 10.11' },
};

/** Settings without which the stream does not say what was changed, or in which order. */
const SETTINGS: Record<Flavour, Readonly<Record<string, string>>> = {
  mysql: {
    log_bin: 'ON',
    binlog_format: 'ROW',
    binlog_row_image: 'FULL',
    binlog_row_metadata: 'FULL',
    binlog_row_value_options: '',
    binlog_transaction_compression: 'OFF',
    gtid_mode: 'ON',
    enforce_gtid_consistency: 'ON',
  },
  mariadb: {
    log_bin: 'ON',
    binlog_format: 'ROW',
    binlog_row_image: 'FULL',
    binlog_row_metadata: 'FULL',
    log_bin_compress: 'OFF',
  },
};

/** Global rights of Interlock's account, and what each is for. */
const RIGHTS: Record<Flavour, readonly [string, string][]> = {
  mysql: [
    ['REPLICATION SLAVE', 'read the binlog'],
    ['REPLICATION CLIENT', 'read positions'],
    ['PROCESS', "name a fence's blockers"],
    ['CONNECTION_ADMIN', 'kill blockers, write under read_only'],
    ['SYSTEM_VARIABLES_ADMIN', 'set read_only for a whole data center'],
    ['XA_RECOVER_ADMIN', 'see prepared XA transactions'],
  ],
  mariadb: [
    ['REPLICATION SLAVE', 'read the binlog'],
    ['BINLOG MONITOR', 'read positions'],
    ['PROCESS', "name a fence's blockers"],
    ['CONNECTION ADMIN', 'kill blockers'],
    ['READ_ONLY ADMIN', 'write under read_only, and set it for a whole data center'],
  ],
};

const DML = ['SELECT', 'INSERT', 'UPDATE', 'DELETE'];

/** What one MySQL store must be like before it takes part. Asks only; changes nothing. Never rejects. */
export async function preflightStore(fence: FenceStore, topology: Topology): Promise<Check[]> {
  const checks = new Checks(fence.name);
  const { pool, flavour } = fence;
  const answers = await checks.add('version', async () => {
    const version = await scalar(pool, 'SELECT VERSION() AS value');
    const { pattern, wanted } = VERSIONS[flavour];
    return pattern.test(version)
      ? version
      : { wrong: `${version}, expected ${wanted} (flavour: ${flavour})` };
  });
  // A server that does not answer has nothing more to say than that.
  if (!answers && !(await reachable(pool))) return checks.list;
  await checks.add('binlog', () => checkSettings(pool, flavour));
  await checks.add('durability', () => checkDurability(pool));
  await checks.add('read_only', () => checkReadOnly(fence));
  await checks.add('grants', () => checkGrants(pool, flavour, topology));
  await checks.add('clock', () => checkClock(pool, topology.limits.clockSkewMs));
  await checks.add('prepared XA transactions', async () => {
    const prepared = await fence.preparedXa();
    return prepared.length === 0
      ? 'none'
      : { wrong: `${prepared.join(', ')}: XA COMMIT or XA ROLLBACK them` };
  });
  await checks.add('declared tables', async () => checkTables(await tablesOf(pool, topology), topology));
  await checks.add('unit states', () => checkStates(fence));
  return checks.list;
}

/** What two stores of one name must be like beside each other. Never rejects. */
export async function preflightPair(a: FenceStore, b: FenceStore, topology: Topology): Promise<Check[]> {
  const checks = new Checks(`mysql/${a.store} ${a.dc} and ${b.dc}`);
  const both = async (query: string): Promise<[string, string]> =>
    Promise.all([scalar(a.pool, query), scalar(b.pool, query)]);
  await checks.add('server ids', async () => {
    const ids = await both('SELECT @@global.server_id AS value');
    if (ids[0] === ids[1])
      return { wrong: `both are ${ids[0]}: a link would take its own changes for foreign ones` };
    const [one, other] = await Promise.all([a.identity(), b.identity()]);
    if (one === other)
      return { wrong: `both identify as ${one}: a copied data directory; remove its auto.cnf` };
    return ids.join(' and ');
  });
  if (a.flavour === 'mariadb' && b.flavour === 'mariadb') {
    await checks.add('GTID domains', async () => {
      const domains = await both('SELECT @@global.gtid_domain_id AS value');
      if (domains[0] !== domains[1]) return domains.join(' and ');
      return { wrong: `both are ${domains[0]}: set another gtid_domain_id in one` };
    });
  }
  await checks.add('auto-increment', async () =>
    checkAutoIncrement(await autoIncrementOf(a.pool), await autoIncrementOf(b.pool)),
  );
  await checks.add('largest values', async () => {
    const limits = await both('SELECT @@global.max_allowed_packet AS value');
    const text = `max_allowed_packet is ${limits[0]} in ${a.dc}, ${limits[1]} in ${b.dc}`;
    if (Number(limits[0]) === Number(limits[1])) return text;
    return { wrong: `${text}: links keep aside what is above the smaller one; set the greater in both` };
  });
  await checks.add('declared tables', async () => {
    const [left, right] = await Promise.all([tablesOf(a.pool, topology), tablesOf(b.pool, topology)]);
    const renamed = renamedTables(topology);
    const onlyIn = (one: typeof left, other: typeof left, dc: DcId): string[] =>
      [...one.keys()]
        .filter((name) => !other.has(name) && !renamed.has(name))
        .map((name) => `${name} is only in ${dc}`);
    const wrong = [...onlyIn(left, right, a.dc), ...onlyIn(right, left, b.dc)];
    return wrong.length > 0 ? { wrong: wrong.join('; ') } : `${left.size} in both`;
  });
  return checks.list;
}

/** Every declared table is in a store of the DC. Never rejects. */
export async function preflightTables(
  dc: DcId,
  fences: Iterable<FenceStore>,
  topology: Topology,
): Promise<Check[]> {
  const checks = new Checks(dc);
  await checks.add('declared tables', async () => {
    const found = new Set<string>();
    for (const fence of fences)
      for (const name of (await tablesOf(fence.pool, topology)).keys()) found.add(name);
    const renamed = renamedTables(topology);
    const missing = Object.keys(topology.tables).filter((name) => !found.has(name) && !renamed.has(name));
    if (missing.length > 0) return { wrong: `in no store: ${missing.join(', ')}` };
    return `${found.size} found`;
  });
  return checks.list;
}

/** Tables that have another name in the other DC, and need be in one only. */
function renamedTables(topology: Topology): Set<string> {
  return new Set(
    topology.links.flatMap((link) => (link.kind === 'mysql' ? Object.entries(link.rename ?? {}).flat() : [])),
  );
}

async function reachable(pool: Pool): Promise<boolean> {
  return pool.query('SELECT 1').then(
    () => true,
    () => false,
  );
}

async function scalar(pool: Pool, query: string): Promise<string> {
  const [rows] = await pool.query<RowDataPacket[]>(query);
  return String(rows[0]!['value']);
}

async function variables(pool: Pool, names: readonly string[]): Promise<Map<string, string>> {
  const [rows] = await pool.query<RowDataPacket[]>(`SHOW GLOBAL VARIABLES WHERE Variable_name IN (?)`, [
    names,
  ]);
  return new Map(rows.map((row) => [String(row['Variable_name']), String(row['Value'])]));
}

async function checkSettings(pool: Pool, flavour: Flavour): Promise<Seen> {
  const wanted = Object.entries(SETTINGS[flavour]);
  const values = await variables(
    pool,
    wanted.map(([name]) => name),
  );
  const wrong = wanted
    .filter(([name, value]) => values.get(name) !== value)
    .map(([name, value]) => `${name} is ${quoted(values.get(name))}, expected ${quoted(value)}`);
  return wrong.length > 0
    ? { wrong: wrong.join('; ') }
    : wanted.map(([name, value]) => `${name}=${value}`).join(' ');
}

function quoted(value: string | undefined): string {
  return value === undefined ? 'unknown' : value === '' ? "''" : value;
}

/** read_only is off, or Interlock's own. `opening`: units are about to be opened there, which turns Interlock's own off. */
export async function checkReadOnly(fence: FenceStore, opening = false): Promise<Seen> {
  const { on, superOn, wanted, epoch, settled } = await fence.readOnly.view();
  if (superOn)
    return { wrong: 'super_read_only is ON: it refuses the links, too; SET GLOBAL super_read_only = OFF' };
  if (!wanted) {
    if (!on) return 'off';
    return settled
      ? { wrong: 'ON, and not by Interlock: applications cannot write; SET GLOBAL read_only = OFF' }
      : { wrong: `ON: its rule center turns it off; else \`interlock fence release\`` };
  }
  const [[row]] = await fence.pool.query<RowDataPacket[]>(
    `SELECT COUNT(*) AS units FROM interlock.unit_state WHERE state = 'open'`,
  );
  const units = Number(row!['units']);
  if (units > 0) {
    return {
      wrong: `for the whole data center since epoch ${epoch}, and ${units} units are open in it: its rule center turns it off; else \`interlock fence release\``,
    };
  }
  const what = `for the whole data center since epoch ${epoch}`;
  if (on || opening) return `${on ? 'ON' : 'OFF'} by Interlock ${what}`;
  return {
    wrong: `OFF, though wanted ${what}: its rule center turns it on; else \`interlock fence release\``,
  };
}

/** Not required, since some accept it; said, since "nothing lost" ends where the server itself forgets commits. */
async function checkDurability(pool: Pool): Promise<Seen> {
  const values = await variables(pool, ['sync_binlog', 'innodb_flush_log_at_trx_commit']);
  const text = [...values].map(([name, value]) => `${name}=${value}`).join(' ');
  const durable = [...values.values()].every((value) => value === '1');
  return durable
    ? text
    : `warning: ${text}: a crash of the machine may lose commits that were acknowledged; set both to 1`;
}

export async function checkGrants(pool: Pool, flavour: Flavour, topology: Topology): Promise<Seen> {
  const grants = parseGrants(await showGrants(pool, flavour));
  const wrong = RIGHTS[flavour]
    .filter(([right]) => !grants.has('*', right))
    .map(([right, purpose]) => `${right} (to ${purpose})`);
  const schemas = new Set([
    CONTROL_SCHEMA,
    ...Object.keys(topology.tables).map((name) => name.split('.')[0]!),
  ]);
  for (const schema of schemas) {
    const missing = DML.filter((right) => !grants.has(schema, right));
    if (missing.length > 0) wrong.push(`${missing.join(', ')} on ${schema}.*`);
  }
  const account = await scalar(pool, 'SELECT CURRENT_USER() AS value');
  if (wrong.length > 0) return { wrong: `${account} lacks ${wrong.join('; ')}: GRANT them` };
  return `${account} has what it needs`;
}

async function showGrants(pool: Pool, flavour: Flavour): Promise<string[]> {
  let query = 'SHOW GRANTS';
  if (flavour === 'mysql') {
    const roles = await scalar(pool, 'SELECT CURRENT_ROLE() AS value');
    // The server quotes the names itself.
    if (roles !== 'NONE') query = `SHOW GRANTS FOR CURRENT_USER() USING ${roles}`;
  }
  const [rows] = await pool.query<RowDataPacket[]>(query);
  return rows.map((row) => String(Object.values(row)[0]));
}

/** The rights that lines of SHOW GRANTS give, globally (`*`) and by schema. */
export function parseGrants(lines: readonly string[]): { has(schema: string, right: string): boolean } {
  const rights = new Map<string, Set<string>>();
  for (const line of lines) {
    const parts = /^GRANT (.+?) ON (?:TABLE )?(?:(\*)|[`"]?(.+?)[`"]?)\.\* TO /.exec(line);
    if (!parts) continue;
    // Schemas are patterns in grants: an underscore that means itself is escaped.
    const scope = parts[2] ?? parts[3]!.replaceAll('\\_', '_').replaceAll('\\%', '%');
    const set = rights.get(scope) ?? new Set<string>();
    rights.set(scope, set);
    for (const right of parts[1]!.split(',')) set.add(right.trim().toUpperCase());
  }
  const within = (scope: string, right: string): boolean => {
    const set = rights.get(scope);
    return set !== undefined && (set.has(right) || set.has('ALL PRIVILEGES'));
  };
  return { has: (schema, right) => within('*', right) || (schema !== '*' && within(schema, right)) };
}

async function checkClock(pool: Pool, limitMs: number): Promise<Seen> {
  let best: { skewMs: number; unsureMs: number } | undefined;
  for (let i = 0; i < 3; i++) {
    const sent = Date.now();
    const value = await scalar(
      pool,
      "SELECT DATE_FORMAT(UTC_TIMESTAMP(3), '%Y-%m-%dT%H:%i:%s.%fZ') AS value",
    );
    const unsureMs = (Date.now() - sent) / 2;
    const skewMs = Date.parse(value.replace(/(\.\d{3})\d*Z$/, '$1Z')) - (sent + unsureMs);
    if (best === undefined || unsureMs < best.unsureMs) best = { skewMs, unsureMs };
  }
  const { skewMs, unsureMs } = best!;
  const text = `${Math.round(Math.abs(skewMs))} ms ${skewMs < 0 ? 'behind' : 'ahead of'} this machine (± ${Math.ceil(unsureMs)} ms)`;
  // Only what the round trip cannot explain is skew.
  if (Math.abs(skewMs) - unsureMs > limitMs)
    return { wrong: `${text}, expected at most ${limitMs} ms: run NTP on both` };
  return text;
}

interface TableInfo {
  engine: string | null;
  primaryKey: boolean;
  columns: Set<string>;
}

/** The declared tables that a server has. */
async function tablesOf(pool: Pool, topology: Topology): Promise<Map<string, TableInfo>> {
  const tables = new Map<string, TableInfo>();
  const declared = Object.keys(topology.tables).map((name) => name.split('.'));
  if (declared.length === 0) return tables;
  const [rows] = await pool.query<RowDataPacket[]>(
    `SELECT t.table_schema AS s, t.table_name AS t, t.engine AS engine, c.column_name AS c, c.column_key AS k
     FROM information_schema.tables t JOIN information_schema.columns c USING (table_schema, table_name)
     WHERE (t.table_schema, t.table_name) IN (?)`,
    [declared],
  );
  for (const row of rows) {
    const name = `${String(row['s'])}.${String(row['t'])}`;
    const info = tables.get(name) ?? {
      engine: row['engine'] as string | null,
      primaryKey: false,
      columns: new Set<string>(),
    };
    tables.set(name, info);
    info.columns.add(String(row['c']).toLowerCase());
    if (row['k'] === 'PRI') info.primaryKey = true;
  }
  return tables;
}

function checkTables(tables: ReadonlyMap<string, TableInfo>, topology: Topology): Seen {
  const wrong: string[] = [];
  for (const [name, { engine, primaryKey, columns }] of tables) {
    const routing = topology.tables[name]!;
    if (engine !== 'InnoDB') wrong.push(`${name} is ${engine ?? 'a view'}, expected an InnoDB table`);
    if (!primaryKey) wrong.push(`${name} has no primary key`);
    if (!('userId' in routing)) continue;
    for (const [key, column] of Object.entries(routing)) {
      if (!columns.has(column.toLowerCase()))
        wrong.push(`${name} has no column ${column} (declared as ${key})`);
    }
  }
  if (wrong.length > 0) return { wrong: wrong.join('; ') };
  return tables.size === 0 ? 'none here' : [...tables.keys()].sort().join(', ');
}

async function checkStates(fence: FenceStore): Promise<Seen> {
  const [found] = await fence.pool.query<RowDataPacket[]>(
    `SELECT 1 FROM information_schema.tables WHERE table_schema = ? AND table_name = 'unit_state'`,
    [CONTROL_SCHEMA],
  );
  if (found.length === 0)
    return { wrong: `there is no ${CONTROL_SCHEMA}.unit_state: run \`interlock rules init\`` };
  const server = await fence.identity();
  const [rows] = await fence.pool.query<RowDataPacket[]>(
    `SELECT server, COUNT(*) AS units, SUM(state = 'write_disabled') AS fenced FROM interlock.unit_state GROUP BY server`,
  );
  if (rows.length === 0) return { wrong: 'there are none: run `interlock rules init`' };
  const foreign = rows.filter((row) => row['server'] !== server);
  if (foreign.length > 0) {
    const units = foreign.reduce((sum, row) => sum + Number(row['units']), 0);
    return {
      wrong: `${units} were asserted on ${foreign.map((row) => String(row['server'])).join(', ')}, and ${server} answers: run \`interlock rules reassert --dc ${fence.dc}\``,
    };
  }
  const fenced = Number(rows[0]!['fenced']);
  return `${Number(rows[0]!['units'])} on ${server}${fenced > 0 ? `, ${fenced} write-disabled (interlock fence status)` : ''}`;
}

interface AutoIncrement {
  increment: number;
  offset: number;
}

async function autoIncrementOf(pool: Pool): Promise<AutoIncrement> {
  const values = await variables(pool, ['auto_increment_increment', 'auto_increment_offset']);
  return {
    increment: Number(values.get('auto_increment_increment')),
    offset: Number(values.get('auto_increment_offset')),
  };
}

/** Keys are offset + k × increment: two such series never meet exactly when their offsets differ by no multiple of the increments' greatest common divisor. */
export function checkAutoIncrement(a: AutoIncrement, b: AutoIncrement): Seen {
  const text = [a, b].map(({ increment, offset }) => `${offset} by ${increment}`).join(' and ');
  const advice = 'set auto_increment_increment=2 in both, and auto_increment_offset=1 and 2';
  // MySQL ignores an offset above its increment.
  if ([a, b].some(({ increment, offset }) => offset > increment)) {
    return { wrong: `${text}: an offset above the increment is ignored; ${advice}` };
  }
  if ((a.offset - b.offset) % gcd(a.increment, b.increment) === 0) {
    return { wrong: `${text}: keys of the two data centers can collide; ${advice}` };
  }
  return text;
}

function gcd(a: number, b: number): number {
  return b === 0 ? a : gcd(b, a % b);
}
