import { randomInt } from 'node:crypto';
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import mysql from 'mysql2/promise';
import { interlockHome, startMysqlServer } from '../../infra/mysql-server.js';
import type { Flavour, RunningMysql } from '../../infra/mysql-server.js';

export interface TestMysql {
  flavour: Flavour;
  host: '127.0.0.1';
  port: number;
  user: 'root';
  password: string;
  pid: () => number;
  /** A new pool; closed by `stop`. */
  pool: (options?: mysql.PoolOptions) => mysql.Pool;
  kill: (signal: NodeJS.Signals) => Promise<void>;
  /** It answers nothing, and nobody hears that. Returns when it stands still: what it was doing may end before. */
  pause: () => Promise<void>;
  unpause: () => void;
  /** Starts it again on the same port and data after `kill`. */
  restart: () => Promise<void>;
  stop: () => Promise<void>;
}

/** Every thread of a process has taken SIGSTOP; one that waits for a disk takes it behind that. */
function standsStill(pid: number): boolean {
  return readdirSync(`/proc/${pid}/task`).every((thread) => {
    const stat = readFileSync(`/proc/${pid}/task/${thread}/stat`, 'utf8');
    return stat.slice(stat.lastIndexOf(')') + 2).startsWith('T');
  });
}

export async function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const address = server.address();
      server.close(() =>
        address && typeof address === 'object' ? resolve(address.port) : reject(new Error('no port')),
      );
    });
  });
}

/**
 * What is committed is with the kernel, and survives a killed server as it does on the disk; no test takes the power away. It saves half of what
 * a commit costs.
 */
const UNSYNCED: Record<Flavour, string[]> = {
  mysql: ['--sync-binlog=0', '--innodb-flush-log-at-trx-commit=2'],
  // Its binlog tells when InnoDB has synced what was before, in an event more, and keeps files until then.
  mariadb: [],
};

/** A real server for one test file, ended by `stop`. `durable`: as it comes, with each commit synced to the disk; benchmarks say so. */
export async function startTestMysql(
  flavour: Flavour,
  options: { offset?: 1 | 2; extra?: string[]; durable?: boolean } = {},
): Promise<TestMysql> {
  const directory = await mkdtemp(path.join(tmpdir(), `interlock-${flavour}-`));
  const password = 'test';
  const cached = path.join(interlockHome(), 'mysql-8.0.31');
  const basedir = flavour === 'mysql' && existsSync(cached) ? { basedir: cached } : {};
  const binary =
    flavour === 'mariadb' ? 'mariadbd' : existsSync(cached) ? path.join(cached, 'bin', 'mysqld') : 'mysqld';
  let port = await freePort();
  const serverId = randomInt(1, 2 ** 31);
  const autoIncrement = { increment: 2, offset: options.offset ?? 1 };
  const start = (): Promise<RunningMysql> =>
    startMysqlServer({
      flavour,
      binary,
      ...basedir,
      directory,
      port,
      serverId,
      autoIncrement,
      rootPassword: password,
      extra: [...(options.durable === true ? [] : UNSYNCED[flavour]), ...(options.extra ?? [])],
    });
  const begin = (left: number): Promise<RunningMysql> =>
    start().catch(async (error: Error) => {
      const log = readFileSync(path.join(directory, 'server.log'), 'utf8');
      // Somebody else has got the port in between.
      if (left === 0 || !log.includes('already in use')) throw new Error(log.slice(-2_000), { cause: error });
      port = await freePort();
      return begin(left - 1);
    });
  let running = await begin(3);
  const pools: mysql.Pool[] = [];
  const kill = async (signal: NodeJS.Signals): Promise<void> => {
    const { child } = running;
    if (child.exitCode !== null || child.signalCode !== null) return;
    const ended = new Promise((resolve) => child.once('exit', resolve));
    child.kill(signal);
    await ended;
  };
  process.once('exit', () => running.child.kill('SIGKILL'));
  return {
    flavour,
    host: '127.0.0.1',
    port,
    user: 'root',
    password,
    pid: () => running.pid,
    pool: (poolOptions) => {
      const pool = mysql.createPool({ host: '127.0.0.1', port, user: 'root', password, ...poolOptions });
      pools.push(pool);
      return pool;
    },
    kill,
    pause: async () => {
      running.child.kill('SIGSTOP');
      while (!standsStill(running.pid)) await sleep(5);
    },
    unpause: () => void running.child.kill('SIGCONT'),
    restart: async () => {
      running = await start();
    },
    stop: async () => {
      await Promise.allSettled(pools.map((pool) => pool.end()));
      await kill('SIGKILL');
      await rm(directory, { recursive: true, force: true });
    },
  };
}
