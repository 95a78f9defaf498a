import { execFile, fork } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import mysql from 'mysql2/promise';
import type { RowDataPacket } from 'mysql2/promise';
import { InterlockError } from '../../../src/errors.js';
import { Checker } from '../../../infra/demo/checker/checker.js';
import type { CheckReport } from '../../../infra/demo/checker/checker.js';
import { readJournal, windowStats } from '../../../infra/demo/load/journal.js';
import type { WindowStats } from '../../../infra/demo/load/journal.js';
import { LoadProcess } from '../../../infra/demo/load/process.js';
import { SHOP_DDL } from '../../../infra/demo/schema.sql.js';
import { compiled } from '../../../infra/project.js';
import { freePort, startTestMysql } from '../../support/mysql.js';
import type { TestMysql } from '../../support/mysql.js';
import { HOMES, nginxConfig, ownerBy } from './routes.js';
import type { Routes } from './routes.js';

const run = promisify(execFile);
const DCS = ['dc-a', 'dc-b'] as const;
type Dc = (typeof DCS)[number];
const SHOPS_PER_DC = 2;
const GTID_WAIT_SECONDS = 10;

interface Site {
  dc: Dc;
  server: TestMysql;
  shops: number[];
  children: ChildProcess[];
  gatewayPort: number;
  directory: string;
}

/**
 * What people run today: MySQL's own replication in both directions, plain nginx with a map in its configuration, the same shop without a
 * fence, and a script that moves buckets: read_only on, wait for the GTIDs on the other side, rewrite nginx, reload, read_only off.
 */
export class ScriptRig {
  load!: LoadProcess;
  private routes: Routes = { moved: 'dc-a' };
  private readonly sites = {} as Record<Dc, Site>;
  private readonly journal: string;

  private constructor(private readonly directory: string) {
    this.journal = path.join(directory, 'journal.jsonl');
  }

  static async up(rate: number, clients: number | undefined, signal: AbortSignal): Promise<ScriptRig> {
    const rig = new ScriptRig(await mkdtemp(path.join(tmpdir(), 'interlock-script-')));
    try {
      await rig.start(rate, clients, signal);
      return rig;
    } catch (error) {
      await rig.down();
      throw error;
    }
  }

  private async start(rate: number, clients: number | undefined, signal: AbortSignal): Promise<void> {
    const { sites } = this;
    for (const [index, dc] of DCS.entries()) {
      const server = await startTestMysql('mysql', { offset: (index + 1) as 1 | 2, durable: true });
      const site: Site = {
        ...{ dc, server, children: [] },
        shops: [],
        gatewayPort: await freePort(),
        directory: path.join(this.directory, dc),
      };
      sites[dc] = site;
      signal.throwIfAborted();
      await prepare(server);
      for (let n = 0; n < SHOPS_PER_DC; n++) site.shops.push(await freePort());
      await mkdir(site.directory, { recursive: true });
    }
    await replicate(sites['dc-a'].server, sites['dc-b'].server);
    await replicate(sites['dc-b'].server, sites['dc-a'].server);
    this.load = new LoadProcess({
      gateways: DCS.map((dc) => ({ name: dc, url: `http://127.0.0.1:${sites[dc].gatewayPort}` })),
      regions: Object.keys(HOMES),
      journal: this.journal,
      rate,
      ...(clients === undefined ? {} : { clients }),
      readRate: rate / 10,
      bucketHeader: true,
    });
    await this.writeConfigs();
    for (const dc of DCS) await this.startSite(sites[dc]);
    signal.throwIfAborted();
  }

  /** The script. Answers how long writes were disabled. */
  async move(to: Dc): Promise<{ fencedMs: number; clients: WindowStats }> {
    const from: Dc = to === 'dc-a' ? 'dc-b' : 'dc-a';
    const source = await connect(this.sites[from].server);
    const target = await connect(this.sites[to].server);
    const startedAt = Date.now();
    const begin = performance.now();
    try {
      await source.query('SET GLOBAL read_only = ON');
      try {
        const [[executed]] = await source.query<RowDataPacket[]>('SELECT @@global.gtid_executed AS gtids');
        const [[waited]] = await target.query<RowDataPacket[]>(
          'SELECT WAIT_FOR_EXECUTED_GTID_SET(?, ?) AS late',
          [executed!['gtids'], GTID_WAIT_SECONDS],
        );
        if (waited!['late'] !== 0) {
          const [[replica]] = await target.query<RowDataPacket[]>('SHOW REPLICA STATUS');
          const why = String(replica?.['Last_SQL_Error'] || replica?.['Last_IO_Error'] || 'it is slow');
          throw new InterlockError('Unavailable', `the other side did not catch up: ${why}`);
        }
        this.routes = { moved: to };
        await this.writeConfigs();
        await Promise.all(DCS.map((dc) => this.nginx(this.sites[dc], ['-s', 'reload'])));
      } finally {
        await source.query('SET GLOBAL read_only = OFF');
      }
      const fencedMs = performance.now() - begin;
      await new Promise((resolve) => setTimeout(resolve, 500));
      const endedAt = Date.now();
      await this.load.settle();
      return {
        fencedMs,
        clients: windowStats(await readJournal(this.journal, { live: true }), startedAt, endedAt),
      };
    } finally {
      await Promise.all([source.end(), target.end()]);
    }
  }

  async check(): Promise<CheckReport> {
    await this.load.pause();
    const checker = new Checker({
      datacenters: DCS.map((dc) => {
        const { host, port, user, password } = this.sites[dc].server;
        return { dc, address: { host, port, user, password } };
      }),
      journal: this.journal,
      ownerOf: (unit) => ownerBy(this.routes, unit),
      settleTimeoutMs: 15_000,
    });
    return checker.check();
  }

  async down(): Promise<void> {
    await (this.load as LoadProcess | undefined)?.kill();
    for (const site of Object.values(this.sites)) {
      for (const child of site.children) child.kill('SIGKILL');
      await this.nginx(site, ['-s', 'stop']).catch(() => undefined);
      await site.server.stop();
    }
    await rm(this.directory, { recursive: true, force: true });
  }

  private async startSite(site: Site): Promise<void> {
    const program = compiled('test', 'bench', 'script', 'plain-shop.js');
    for (const port of site.shops) {
      const gateway = `http://127.0.0.1:${site.gatewayPort}`;
      const args = [site.dc, String(port), String(site.server.port), gateway, this.routesFile()];
      const child = fork(program, args);
      site.children.push(child);
      await once(child, 'message', { signal: AbortSignal.timeout(20_000) });
    }
    await this.nginx(site, []);
  }

  private async nginx(site: Site, args: string[]): Promise<void> {
    await run('nginx', ['-p', site.directory, '-c', this.configFile(site), ...args]);
  }

  private configFile(site: Site): string {
    return path.join(site.directory, 'nginx.conf');
  }

  private routesFile(): string {
    return path.join(this.directory, 'routes.json');
  }

  private async writeConfigs(): Promise<void> {
    await writeFile(this.routesFile(), JSON.stringify(this.routes));
    const shops = Object.fromEntries(DCS.map((dc) => [dc, this.sites[dc].shops]));
    for (const dc of DCS) {
      const site = this.sites[dc];
      const config = nginxConfig({
        directory: site.directory,
        port: site.gatewayPort,
        routes: this.routes,
        shops,
      });
      await writeFile(this.configFile(site), config);
    }
  }
}

function connect(server: TestMysql): Promise<mysql.Connection> {
  const { host, port, user, password } = server;
  return mysql.createConnection({ host, port, user, password });
}

/** The shop's tables and an account that read_only holds back, as it does not the replication. */
async function prepare(server: TestMysql): Promise<void> {
  const connection = await connect(server);
  await connection.query('SET sql_log_bin = 0');
  // With writers in both sites a row may be there, or gone, when its change comes: whoever runs this lets the replica go on. The checker
  // says what it cost.
  await connection.query("SET GLOBAL replica_exec_mode = 'IDEMPOTENT'");
  // Hazard: `read_only` waits for a statement that waits for a row, whose holder's next statement waits for `read_only`: nothing moves
  // for the 50 s that a lock is waited for by default. Whoever uses such a script learns to set this.
  await connection.query('SET GLOBAL innodb_lock_wait_timeout = 1');
  for (const statement of SHOP_DDL) await connection.query(statement);
  await connection.query(`CREATE USER 'app'@'127.0.0.1' IDENTIFIED WITH mysql_native_password BY 'app'`);
  await connection.query(`GRANT SELECT, INSERT, UPDATE, DELETE ON shop.* TO 'app'@'127.0.0.1'`);
  await connection.end();
}

async function replicate(source: TestMysql, target: TestMysql): Promise<void> {
  const connection = await connect(target);
  await connection.query(
    `CHANGE REPLICATION SOURCE TO SOURCE_HOST = '127.0.0.1', SOURCE_PORT = ${source.port}, SOURCE_USER = 'root',
       SOURCE_PASSWORD = '${source.password}', SOURCE_AUTO_POSITION = 1`,
  );
  await connection.query('START REPLICA');
  await connection.end();
}
