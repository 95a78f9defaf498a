import { setTimeout as sleep } from 'node:timers/promises';
import { InterlockError } from '../../src/errors.js';
import {
  endGroup,
  groupMembers,
  isAlive,
  isStopped,
  readPidFile,
  signalGroup,
  startDetached,
} from '../processes.js';
import type { ProcessIdentity } from '../processes.js';
import { assertFree } from './ports.js';
import type { LabFiles, LabState } from './state.js';

/** What the factories of parts know about their lab. */
export interface LabContext {
  files: LabFiles;
  state: LabState;
  port: (name: string) => number;
  secret: (name: string) => string;
  /** Says on stderr what is being done. */
  progress: (line: string) => void;
}

export type PartStatus = 'running' | 'stopped' | 'paused' | 'orphans';

/** One part of the lab. A new kind of part is a file under parts/ that makes these. */
export interface Part {
  name: string;
  kind: string;
  dc: string | null;
  /** Names of the parts that must be ready before it starts. */
  dependsOn: readonly string[];
  /** What people connect to. */
  address: string | null;
  /** No-op when it runs. */
  start: () => Promise<void>;
  /** Returns when it does its work. @throws Unavailable with the log's path */
  ready: () => Promise<void>;
  /** SIGTERM, after `graceMs` SIGKILL; 0 kills at once. */
  stop: (graceMs: number) => Promise<void>;
  signal: (signal: NodeJS.Signals) => Promise<void>;
  status: () => PartStatus;
  /** null for a part without a process of its own. */
  process: () => ProcessIdentity | null;
}

export interface Command {
  program: string;
  args: string[];
  env?: NodeJS.ProcessEnv;
}

export interface ProcessPartSpec {
  name: string;
  kind: string;
  dc: string | null;
  dependsOn: readonly string[];
  address: string | null;
  /** Ports that it listens on, by name. */
  ports: readonly string[];
  /** Makes the files that it needs and says how it is run. */
  command: () => Promise<Command>;
  /** Resolves to true when it does its work; false or an error = not yet. */
  probe: () => Promise<boolean>;
  readyTimeoutMs?: number;
  /** Once per start, after the probe. */
  afterReady?: () => Promise<void>;
}

export function processPart(lab: LabContext, spec: ProcessPartSpec): Part {
  const directory = lab.files.part(spec.name);
  const logFile = lab.files.log(spec.name);
  const pidFile = lab.files.pid(spec.name);
  const running = (): boolean => {
    const identity = readPidFile(pidFile);
    return identity !== null && isAlive(identity);
  };
  return {
    name: spec.name,
    kind: spec.kind,
    dc: spec.dc,
    dependsOn: spec.dependsOn,
    address: spec.address,
    process: () => readPidFile(pidFile),
    status: () => {
      const identity = readPidFile(pidFile);
      if (identity === null) return 'stopped';
      if (isStopped(identity)) return 'paused';
      if (isAlive(identity)) return 'running';
      return groupMembers(identity, directory).length > 0 ? 'orphans' : 'stopped';
    },
    start: async () => {
      if (running()) return;
      const previous = readPidFile(pidFile);
      // Its children may live on (nginx workers when the master was killed) and hold the port.
      if (previous !== null) await endGroup(previous, directory, 0);
      for (const port of spec.ports) await assertFree(spec.name, lab.port(port));
      const command = await spec.command();
      await startDetached({ ...command, directory, logFile, pidFile });
    },
    ready: async () => {
      const deadline = Date.now() + (spec.readyTimeoutMs ?? 60_000);
      for (;;) {
        let reason = '';
        const ok = await spec.probe().catch((error: unknown) => {
          reason = `: ${String(error)}`;
          return false;
        });
        if (ok) break;
        if (!running()) {
          throw new InterlockError('Unavailable', `${spec.name} ended while starting; see ${logFile}`);
        }
        if (Date.now() > deadline) {
          throw new InterlockError(
            'Unavailable',
            `${spec.name} is not ready after ${(spec.readyTimeoutMs ?? 60_000) / 1000} s${reason}; see ${logFile}`,
          );
        }
        await sleep(100);
      }
      await spec.afterReady?.();
    },
    stop: async (graceMs) => {
      const identity = readPidFile(pidFile);
      if (identity !== null) await endGroup(identity, directory, graceMs);
    },
    signal: async (signal) => {
      const identity = readPidFile(pidFile);
      if (identity === null || !isAlive(identity)) {
        throw new InterlockError('Refused', `${spec.name} does not run`);
      }
      if (signal === 'SIGKILL') {
        await endGroup(identity, directory, 0);
        return;
      }
      signalGroup(identity, directory, signal);
      // The kernel stops and continues a process some time after the signal was sent.
      if (signal === 'SIGSTOP') await stateReached(spec.name, () => isStopped(identity));
      if (signal === 'SIGCONT') await stateReached(spec.name, () => !isStopped(identity));
    },
  };
}

async function stateReached(name: string, reached: () => boolean): Promise<void> {
  const deadline = Date.now() + 10_000;
  while (!reached()) {
    if (Date.now() > deadline) {
      throw new InterlockError(
        'Unavailable',
        `${name} has not taken the signal in 10 s; see its state in /proc`,
      );
    }
    await sleep(5);
  }
}

/** Work to be done once its dependencies are ready; idempotent, without a process. */
export function taskPart(spec: {
  name: string;
  dependsOn: readonly string[];
  run: () => Promise<void>;
}): Part {
  return {
    name: spec.name,
    kind: 'task',
    dc: null,
    dependsOn: spec.dependsOn,
    address: null,
    start: spec.run,
    ready: async () => undefined,
    stop: async () => undefined,
    signal: async () => {
      throw new InterlockError('Refused', `${spec.name} is a step of \`lab up\`, not a process`);
    },
    status: () => 'running',
    process: () => null,
  };
}

/** Resolves when something accepts a TCP connection there. */
export async function httpOk(url: string): Promise<boolean> {
  const response = await fetch(url, { signal: AbortSignal.timeout(2000) });
  await response.arrayBuffer();
  return response.ok;
}
