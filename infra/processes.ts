import { spawn } from 'node:child_process';
import { existsSync, readFileSync, readdirSync, readlinkSync } from 'node:fs';
import { mkdir, open, rm } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { InterlockError } from '../src/errors.js';

/**
 * A process is named by more than its pid: pids are reused, and a signal to a foreign process must be impossible.
 * `startTicks` is field 22 of /proc/PID/stat, `boot` tells restarts of the machine apart.
 */
export interface ProcessIdentity {
  pid: number;
  startTicks: string;
  boot: string;
}

interface Stat {
  state: string;
  group: number;
  startTicks: string;
}

function bootId(): string {
  return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
}

/** The command name of a stat line is in parentheses and may hold anything; the numbers follow the last one. */
function parseStat(line: string): Stat | null {
  const fields = line.slice(line.lastIndexOf(')') + 2).split(' ');
  const [state, , group] = fields;
  const startTicks = fields[19];
  return state === undefined || group === undefined || startTicks === undefined
    ? null
    : { state, group: Number(group), startTicks };
}

function statOf(pid: number): Stat | null {
  try {
    return parseStat(readFileSync(`/proc/${pid}/stat`, 'utf8'));
  } catch {
    return null;
  }
}

/** Identity of a running process; null when there is none. */
export function identify(pid: number): ProcessIdentity | null {
  const stat = statOf(pid);
  return stat === null ? null : { pid, startTicks: stat.startTicks, boot: bootId() };
}

export function isAlive(identity: ProcessIdentity): boolean {
  const stat = statOf(identity.pid);
  return (
    stat !== null &&
    stat.state !== 'Z' &&
    stat.startTicks === identity.startTicks &&
    identity.boot === bootId()
  );
}

/** Stopped by SIGSTOP. */
export function isStopped(identity: ProcessIdentity): boolean {
  return isAlive(identity) && statOf(identity.pid)?.state === 'T';
}

export interface DetachedOptions {
  program: string;
  args: readonly string[];
  env?: NodeJS.ProcessEnv;
  /** Working directory; also the mark by which a leader's orphans are known as ours. */
  directory: string;
  logFile: string;
  /** Written by the process itself, before it becomes the program. */
  pidFile: string;
}

/**
 * Starts a program that outlives this process, in a process group of its own.
 *
 * Hazard: a launcher that is killed between spawning and noting the pid leaves a process that nobody knows.
 * Guard: a shell notes its own /proc entry first, then becomes the program (same pid, same start time).
 */
export async function startDetached(options: DetachedOptions): Promise<ProcessIdentity> {
  await mkdir(options.directory, { recursive: true });
  await mkdir(path.dirname(options.logFile), { recursive: true });
  await rm(options.pidFile, { force: true });
  const log = await open(options.logFile, 'a');
  const script =
    'read -r line </proc/$$/stat && read -r boot </proc/sys/kernel/random/boot_id && ' +
    'printf "%s\\n%s\\n" "$line" "$boot" >"$0.partial" && mv "$0.partial" "$0" && exec "$@"';
  const child = spawn('/bin/sh', ['-c', script, options.pidFile, options.program, ...options.args], {
    cwd: options.directory,
    env: options.env ?? process.env,
    stdio: ['ignore', log.fd, log.fd],
    detached: true,
  });
  const ended = new Promise<string>((resolve) => {
    child.once('error', (error) => resolve(error.message));
    child.once('exit', (code, signal) => resolve(signal ?? `exit ${String(code)}`));
  });
  await log.close();
  const deadline = Date.now() + 10_000;
  for (;;) {
    const identity = readPidFile(options.pidFile);
    if (identity !== null) {
      child.unref();
      return identity;
    }
    const end = await Promise.race([ended, sleep(5)]);
    if (typeof end === 'string' && readPidFile(options.pidFile) === null) {
      throw new InterlockError(
        'Unavailable',
        `${options.program} did not start: ${end}; see ${options.logFile}`,
      );
    }
    if (Date.now() > deadline) {
      throw new InterlockError(
        'Unavailable',
        `${options.program} did not start in 10 s; see ${options.logFile}`,
      );
    }
  }
}

export function readPidFile(file: string): ProcessIdentity | null {
  if (!existsSync(file)) return null;
  const [line = '', boot = ''] = readFileSync(file, 'utf8').split('\n');
  const stat = parseStat(line);
  const pid = Number.parseInt(line, 10);
  return stat === null || !Number.isInteger(pid) ? null : { pid, startTicks: stat.startTicks, boot };
}

/**
 * Members of the group that `leader` founded. They may outlive it (nginx workers do when the master is killed).
 * A group id is not reused while the group has members; that it is ours is told by the working directory.
 */
export function groupMembers(leader: ProcessIdentity, directory: string): number[] {
  if (leader.boot !== bootId()) return [];
  const members: number[] = [];
  for (const entry of readdirSync('/proc')) {
    const pid = Number(entry);
    if (!Number.isInteger(pid)) continue;
    const stat = statOf(pid);
    if (stat === null || stat.state === 'Z' || stat.group !== leader.pid) continue;
    if (Number(stat.startTicks) < Number(leader.startTicks)) continue;
    try {
      const cwd = readlinkSync(`/proc/${pid}/cwd`);
      if (cwd === directory || cwd.startsWith(`${directory}/`)) members.push(pid);
    } catch {
      // It ended, or is not ours to look at.
    }
  }
  return members;
}

function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}

/** Sends a signal to the leader (if it is still the same process) and, for SIGKILL, to what is left of its group. */
export function signalGroup(leader: ProcessIdentity, directory: string, name: NodeJS.Signals): void {
  if (isAlive(leader)) signal(leader.pid, name);
  if (name === 'SIGKILL' || name === 'SIGSTOP' || name === 'SIGCONT') {
    for (const pid of groupMembers(leader, directory)) if (pid !== leader.pid) signal(pid, name);
  }
}

/** SIGTERM, then SIGKILL after `graceMs`. Returns when no process of the group is left. */
export async function endGroup(leader: ProcessIdentity, directory: string, graceMs: number): Promise<void> {
  const left = (): boolean => isAlive(leader) || groupMembers(leader, directory).length > 0;
  if (graceMs > 0 && isAlive(leader)) {
    // A stopped process takes SIGTERM only when it goes on.
    signalGroup(leader, directory, 'SIGCONT');
    signalGroup(leader, directory, 'SIGTERM');
    const deadline = Date.now() + graceMs;
    while (isAlive(leader) && Date.now() < deadline) await sleep(20);
  }
  const deadline = Date.now() + 10_000;
  while (left()) {
    signalGroup(leader, directory, 'SIGKILL');
    if (Date.now() > deadline) {
      throw new InterlockError('Internal', `process ${leader.pid} does not end after SIGKILL`);
    }
    await sleep(10);
  }
}

/** Who listens on a TCP port of this machine: `pid 123 (nginx)`, as far as /proc may be read. */
export function listenerOf(port: number): string | null {
  const wanted = port.toString(16).toUpperCase().padStart(4, '0');
  const inodes = new Set<string>();
  for (const table of ['/proc/net/tcp', '/proc/net/tcp6']) {
    if (!existsSync(table)) continue;
    for (const line of readFileSync(table, 'utf8').split('\n').slice(1)) {
      const fields = line.trim().split(/\s+/);
      if (fields[3] === '0A' && fields[1]?.endsWith(`:${wanted}`) === true && fields[9] !== undefined) {
        inodes.add(`socket:[${fields[9]}]`);
      }
    }
  }
  if (inodes.size === 0) return null;
  for (const pid of readdirSync('/proc')) {
    if (!/^\d+$/.test(pid)) continue;
    try {
      for (const fd of readdirSync(`/proc/${pid}/fd`)) {
        if (inodes.has(readlinkSync(`/proc/${pid}/fd/${fd}`))) {
          return `pid ${pid} (${readFileSync(`/proc/${pid}/comm`, 'utf8').trim()})`;
        }
      }
    } catch {
      // It ended, or belongs to another user.
    }
  }
  return 'a process of another user';
}
