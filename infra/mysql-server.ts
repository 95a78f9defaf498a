import { execFile, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import type { ChildProcess } from 'node:child_process';
import { cp, mkdir, open, rename, rm, stat } from 'node:fs/promises';
import { homedir, tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import mysql from 'mysql2/promise';
import { InterlockError, messageOf } from '../src/errors.js';

const run = promisify(execFile);

export type Flavour = 'mysql' | 'mariadb';

/** Set-up caches live here; `INTERLOCK_HOME` overrides. */
export function interlockHome(): string {
  return process.env['INTERLOCK_HOME'] ?? path.join(homedir(), '.cache', 'interlock');
}

export interface MysqlServerOptions {
  flavour: Flavour;
  /** The mysqld or mariadbd to run. */
  binary: string;
  /** Base directory of a MySQL distribution that is not installed system-wide (share/, lib/). */
  basedir?: string;
  /** Data, socket and log live here; created when missing. */
  directory: string;
  port: number;
  /** Unique per server of a topology. */
  serverId: number;
  /** Two DCs with auto-increment keys that cannot collide: increment 2, offsets 1 and 2. */
  autoIncrement?: { increment: number; offset: number };
  /** More of the command line. */
  extra?: string[];
  /** Set for the root account, which may then connect over TCP from 127.0.0.1. */
  rootPassword: string;
}

export interface RunningMysql {
  child: ChildProcess;
  pid: number;
  port: number;
}

const BINLOG = [
  '--binlog-format=ROW',
  '--binlog-row-image=FULL',
  '--binlog-row-metadata=FULL',
  '--log-bin=binlog',
  '--log-slave-updates=ON',
];

/** Makes the data directory when it is missing: a copy of a template, which is made once per server version. */
export async function prepareDataDirectory(options: MysqlServerOptions): Promise<void> {
  const data = path.join(options.directory, 'data');
  await mkdir(options.directory, { recursive: true });
  if (await exists(data)) return;
  const template = await templateOf(options);
  const partial = `${data}.partial`;
  await rm(partial, { recursive: true, force: true });
  await cp(template, partial, { recursive: true });
  // The identity of a MySQL server is in auto.cnf: a copy must make its own.
  await rm(path.join(partial, 'auto.cnf'), { force: true });
  await rename(partial, data);
}

/** Command line of the server; its data directory must exist. */
export function mysqlArguments(options: MysqlServerOptions): string[] {
  return asUser([
    '--no-defaults',
    ...base(options),
    `--datadir=${path.join(options.directory, 'data')}`,
    // Hazard: a server that starts removes all temporary tables (`#sql…`) of its tmpdir; MariaDB crashes when another's are in use there.
    `--tmpdir=${options.directory}`,
    `--port=${options.port}`,
    '--bind-address=127.0.0.1',
    `--socket=${socketOf(options)}`,
    `--pid-file=${path.join(options.directory, 'mysql.pid')}`,
    `--server-id=${options.serverId}`,
    `--auto-increment-increment=${options.autoIncrement?.increment ?? 1}`,
    `--auto-increment-offset=${options.autoIncrement?.offset ?? 1}`,
    '--innodb-buffer-pool-size=128M',
    '--max-connections=400',
    '--max-allowed-packet=64M',
    '--character-set-server=utf8mb4',
    '--skip-name-resolve',
    ...BINLOG,
    ...(options.extra ?? []),
    ...(options.flavour === 'mysql'
      ? [
          '--gtid-mode=ON',
          '--enforce-gtid-consistency=ON',
          '--mysqlx=OFF',
          '--binlog-row-value-options=',
          '--log-error-verbosity=2',
        ]
      : ['--gtid-strict-mode=OFF', `--gtid-domain-id=${options.serverId}`, '--performance-schema=OFF']),
  ]);
}

/** A socket path has at most 107 bytes: in a deep directory the socket goes to the temporary directory. */
function socketOf(options: Pick<MysqlServerOptions, 'directory'>): string {
  const socket = path.join(options.directory, 'mysql.sock');
  if (Buffer.byteLength(socket) <= 100) return socket;
  const id = createHash('sha256').update(socket).digest('hex').slice(0, 16);
  return path.join(tmpdir(), `interlock-${id}.sock`);
}

/** Starts a server as a child and returns when it takes connections. */
export async function startMysqlServer(options: MysqlServerOptions): Promise<RunningMysql> {
  await prepareDataDirectory(options);
  const log = path.join(options.directory, 'server.log');
  const out = await open(log, 'a');
  const child = spawn(options.binary, mysqlArguments(options), {
    stdio: ['ignore', out.fd, out.fd],
    detached: true,
  });
  await out.close();
  const failed = new Promise<never>((_resolve, reject) => {
    child.once('error', (error) =>
      reject(new InterlockError('Unavailable', `${options.binary}: ${error.message}`)),
    );
    child.once('exit', (code, signal) =>
      reject(
        new InterlockError(
          'Unavailable',
          `${options.binary} ended (${signal ?? `exit ${code}`}); see ${log}`,
        ),
      ),
    );
  });
  failed.catch(() => undefined);
  await Promise.race([failed, waitForMysql(options)]);
  return { child, pid: child.pid!, port: options.port };
}

/** Waits until the server takes connections, and gives the root account its password on the first start. */
export async function waitForMysql(
  options: MysqlServerOptions,
  isRunning: () => boolean = () => true,
): Promise<void> {
  const deadline = Date.now() + 60_000;
  const socketPath = socketOf(options);
  for (;;) {
    try {
      const tcp = await mysql.createConnection({
        host: '127.0.0.1',
        port: options.port,
        user: 'root',
        password: options.rootPassword,
      });
      await tcp.end();
      return;
    } catch (error) {
      const code = (error as { code?: string }).code;
      if (
        code === 'ER_ACCESS_DENIED_ERROR' ||
        code === 'ER_HOST_NOT_PRIVILEGED' ||
        code === 'ER_ACCESS_DENIED_NO_PASSWORD_ERROR'
      ) {
        const local = await mysql.createConnection({ socketPath, user: 'root' });
        await local.query('SET sql_log_bin = 0');
        const password = local.escape(options.rootPassword);
        const account = `'root'@'127.0.0.1' IDENTIFIED ${options.flavour === 'mysql' ? 'WITH mysql_native_password ' : ''}BY ${password}`;
        await local.query(`CREATE USER IF NOT EXISTS ${account}`);
        await local.query(`ALTER USER ${account}`);
        await local.query(`GRANT ALL ON *.* TO 'root'@'127.0.0.1' WITH GRANT OPTION`);
        await local.end();
      }
      if (!isRunning() || Date.now() > deadline) {
        throw new InterlockError(
          'Unavailable',
          `no answer on 127.0.0.1:${options.port}: ${messageOf(error)}`,
          { cause: error },
        );
      }
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
}

/** An initialised, never used data directory of the flavour: made under a temporary name, so that an interruption leaves nothing half-done. */
async function templateOf(options: MysqlServerOptions): Promise<string> {
  const template = path.join(interlockHome(), `data-template-${options.flavour}`);
  const making = templates.get(template) ?? makeTemplate(template, options);
  templates.set(template, making);
  return making.finally(() => templates.delete(template));
}

/** Templates that this process is making: two servers that start together share one. */
const templates = new Map<string, Promise<string>>();

async function makeTemplate(template: string, options: MysqlServerOptions): Promise<string> {
  if (await exists(template)) return template;
  const partial = `${template}.${process.pid}`;
  await rm(partial, { recursive: true, force: true });
  await mkdir(path.dirname(template), { recursive: true });
  if (options.flavour === 'mysql') {
    await mkdir(partial);
    await run(
      options.binary,
      asUser(['--no-defaults', ...base(options), `--datadir=${partial}`, '--initialize-insecure']),
    );
  } else {
    const user = process.getuid?.() === 0 ? ['--user=root'] : [];
    await run('mariadb-install-db', [
      '--no-defaults',
      `--datadir=${partial}`,
      '--auth-root-authentication-method=normal',
      '--skip-test-db',
      ...user,
    ]);
  }
  await rename(partial, template).catch(async (error: unknown) => {
    // Another process was first: its template is as good.
    await rm(partial, { recursive: true, force: true });
    if (!(await exists(template))) throw error;
  });
  return template;
}

function base(options: MysqlServerOptions): string[] {
  if (options.basedir === undefined) return [];
  return [`--basedir=${options.basedir}`, `--lc-messages-dir=${path.join(options.basedir, 'share')}`];
}

/** mysqld refuses to run as root unless told so. */
function asUser(args: string[]): string[] {
  return process.getuid?.() === 0 ? [...args, '--user=root'] : args;
}

async function exists(file: string): Promise<boolean> {
  return stat(file).then(
    () => true,
    () => false,
  );
}
