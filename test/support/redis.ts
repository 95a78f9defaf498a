import { execFile, spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { redisComponent } from '../../infra/components/redis.js';
import { freePort } from './mysql.js';

const run = promisify(execFile);

const START_TIMEOUT_MS = 60_000;

export interface TestRedis {
  host: '127.0.0.1';
  port: number;
  directory: string;
  pid: () => number;
  /** What redis-cli prints for one command; rejects when the server answers with an error. */
  cli: (...args: string[]) => Promise<string>;
  kill: (signal: NodeJS.Signals) => Promise<void>;
  /** It answers nothing, and nobody hears that. */
  pause: () => void;
  unpause: () => void;
  /** Starts it again on the same port and data after `kill`. */
  restart: () => Promise<void>;
  stop: () => Promise<void>;
}

/**
 * A real redis-server on loopback, ended by `stop`. `config` are lines of redis.conf (`{ 'repl-backlog-size': '64mb' }`); without one it persists
 * nothing by itself. A `directory` that is given is the caller's to remove.
 */
export async function startRedis(
  options: { config?: Record<string, string>; directory?: string; port?: number } = {},
): Promise<TestRedis> {
  const found = await redisComponent.find();
  if (found === null) throw new Error('redis-server 7 is missing: apt-get install redis-server');
  const directory = options.directory ?? (await mkdtemp(path.join(tmpdir(), 'interlock-redis-')));
  const port = options.port ?? (await freePort());
  const config: Record<string, string> = {
    bind: '127.0.0.1',
    port: String(port),
    dir: directory,
    logfile: path.join(directory, 'redis.log'),
    save: '',
    appendonly: 'no',
    'enable-debug-command': 'local',
    ...options.config,
  };
  const file = path.join(directory, 'redis.conf');
  const lines = Object.entries(config).map(([name, value]) => `${name} ${value === '' ? '""' : value}\n`);
  await writeFile(file, lines.join(''));
  const start = async (): Promise<ChildProcess> => {
    const child = spawn(found.server, [file], { cwd: directory, stdio: 'ignore' });
    const gone = (): boolean => child.exitCode !== null || child.signalCode !== null;
    const deadline = Date.now() + START_TIMEOUT_MS;
    while (!(await pings(port))) {
      if (gone() || Date.now() > deadline) {
        child.kill('SIGKILL');
        const log = await readFile(path.join(directory, 'redis.log'), 'utf8').catch(() => '(no log)');
        throw new Error(`redis-server did not start on port ${port}:\n${log}`);
      }
      await sleep(10);
    }
    return child;
  };
  let child = await start();
  const kill = async (signal: NodeJS.Signals): Promise<void> => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const ended = new Promise((resolve) => child.once('exit', resolve));
    child.kill(signal);
    await ended;
  };
  const endWithUs = (): void => void child.kill('SIGKILL');
  process.once('exit', endWithUs);
  return {
    host: '127.0.0.1',
    port,
    directory,
    pid: () => child.pid!,
    cli: async (...command) => {
      const { stdout } = await run(found.cli, ['-e', '-h', '127.0.0.1', '-p', String(port), ...command], {
        maxBuffer: 1 << 30,
      });
      return stdout.replace(/\n$/, '');
    },
    kill,
    pause: () => void child.kill('SIGSTOP'),
    unpause: () => void child.kill('SIGCONT'),
    restart: async () => {
      child = await start();
    },
    stop: async () => {
      await kill('SIGKILL');
      process.off('exit', endWithUs);
      if (options.directory === undefined) await rm(directory, { recursive: true, force: true });
    },
  };
}

/** It serves commands: it has loaded its data, if there is any. */
async function pings(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1');
    const end = (answer: boolean): void => {
      socket.destroy();
      resolve(answer);
    };
    socket.setTimeout(1_000, () => end(false));
    socket.once('error', () => end(false));
    // A server that asks for a password or is loading says so; only the latter is not up yet.
    socket.once('data', (data: Buffer) => end(!data.toString().startsWith('-LOADING')));
    socket.write('PING\r\n');
  });
}

/** The server behind `port`, as one that says another version of itself. */
export async function asVersion(port: number, version: string): Promise<{ port: number; close: () => void }> {
  const server = createServer((client) => {
    const upstream = connect(port, '127.0.0.1');
    client.pipe(upstream);
    upstream.on('data', (data) =>
      client.write(
        // The answer keeps its length.
        data
          .toString('latin1')
          .replace(/redis_version:\d[\d.]*/, (said) => `redis_version:${version}`.padEnd(said.length, '9')),
        'latin1',
      ),
    );
    for (const [one, other] of [
      [client, upstream],
      [upstream, client],
    ] as const) {
      one.on('error', () => undefined);
      one.on('close', () => other.destroy());
    }
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return { port: (server.address() as AddressInfo).port, close: () => void server.close() };
}
