import { existsSync, readdirSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import path from 'node:path';
import { InterlockError } from '../../src/errors.js';
import { ensureAll } from '../components/component.js';
import { endGroup, readPidFile } from '../processes.js';
import { DEFAULT_SHAPE, NO_WORKLOAD, checkShape, labDirectory } from './options.js';
import type { LabShape, LabWorkload } from './options.js';
import type { LabContext, Part, PartStatus } from './part.js';
import { labComponents, labParts, portNames } from './parts/index.js';
import { assignPorts, defaultPortBase } from './ports.js';
import { LabFiles, newSecret, readState, withLock, writeState } from './state.js';
import type { LabState } from './state.js';
import { environment, writeTopology } from './topology-file.js';

export interface LabUpOptions {
  /** Default: $INTERLOCK_LAB, else `lab` under the set-up cache. */
  directory?: string;
  /** What is not given is as it was, or the default. */
  shape?: Partial<LabShape>;
  workload?: LabWorkload;
  /** Chooses new ports, from this number on. */
  portBase?: number;
  progress?: (line: string) => void;
}

export interface LabPartInfo {
  name: string;
  kind: string;
  dc: string | null;
  status: PartStatus;
  pid: number | null;
  address: string | null;
  log: string;
}

/** A lab as people and programs use it. */
export interface LabInfo {
  directory: string;
  shape: LabShape;
  /** Operator's topology (direct addresses) and each DC's. */
  topology: string;
  topologies: Record<string, string>;
  envFile: string;
  env: Record<string, string>;
  webUi: string | null;
  ports: Record<string, number>;
  parts: LabPartInfo[];
}

const STOP_GRACE_MS = 15_000;

/** Makes the lab if there is none and starts what does not run. A second call is a no-op; a killed one is repaired by the next. */
export async function labUp(options: LabUpOptions = {}): Promise<LabInfo> {
  const files = new LabFiles(labDirectory(options.directory));
  const progress = options.progress ?? (() => undefined);
  return withLock(files, async () => {
    const previous = readState(files);
    const state = await nextState(files, previous, options);
    const lab = context(files, state, progress);
    if (previous !== null) refuseChangeWhileRunning(previous, state, files);
    await ensureAll(labComponents(state), progress);
    await writeState(files, state);
    await writeTopology(lab);
    await startParts(labParts(lab), progress);
    return info(lab);
  });
}

/** Ends everything of the lab; with `wipe` also forgets its data, ports and secrets. */
export async function labDown(
  options: { directory?: string; wipe?: boolean; progress?: (line: string) => void } = {},
): Promise<void> {
  const files = new LabFiles(labDirectory(options.directory));
  if (!existsSync(files.root)) return;
  await withLock(files, async () => {
    const state = options.wipe === true ? stateOrNull(files) : readState(files);
    if (state !== null) {
      const parts = labParts(context(files, state, () => undefined));
      await stopParts(parts, options.wipe === true ? 0 : STOP_GRACE_MS, options.progress);
    }
    // What an interrupted command left, or a state that cannot be read any more.
    await stopUnknown(files);
    if (options.wipe === true) {
      for (const entry of readdirSync(files.root)) {
        if (entry !== 'lock') await rm(path.join(files.root, entry), { recursive: true, force: true });
      }
    }
  });
  if (options.wipe === true && readdirSync(files.root).length === 0)
    await rm(files.root, { recursive: true });
}

/** What there is of the lab; null when there is none. */
export function labInfo(directory?: string): LabInfo | null {
  const files = new LabFiles(labDirectory(directory));
  const state = readState(files);
  return state === null ? null : info(context(files, state, () => undefined));
}

/** Sends a signal to one part (SIGKILL takes its children along). @throws BadInput for an unknown name */
export async function labKill(
  name: string,
  options: { directory?: string; signal?: NodeJS.Signals } = {},
): Promise<void> {
  await partNamed(name, options.directory).signal(options.signal ?? 'SIGKILL');
}

/** Starts one part and returns when it does its work. */
export async function labStart(
  name: string,
  options: { directory?: string; progress?: (line: string) => void } = {},
): Promise<void> {
  const part = partNamed(name, options.directory, options.progress);
  await part.start();
  await part.ready();
}

/** The log file of a part. */
export function labLog(name: string, directory?: string): string {
  const part = partNamed(name, directory);
  return new LabFiles(labDirectory(directory)).log(part.name);
}

function partNamed(
  name: string,
  directory?: string,
  progress: (line: string) => void = () => undefined,
): Part {
  const files = new LabFiles(labDirectory(directory));
  const state = readState(files);
  if (state === null) {
    throw new InterlockError('Refused', `there is no lab in ${files.root}; \`interlock lab up\` makes one`);
  }
  const parts = labParts(context(files, state, progress));
  const part = parts.find((candidate) => candidate.name === name);
  if (part === undefined) {
    throw new InterlockError(
      'BadInput',
      `part ${JSON.stringify(name)}: expected one of ${parts.map((known) => known.name).join(', ')}`,
      { details: { field: 'name', value: name } },
    );
  }
  return part;
}

async function nextState(
  files: LabFiles,
  previous: LabState | null,
  options: LabUpOptions,
): Promise<LabState> {
  const before = previous?.shape ?? DEFAULT_SHAPE;
  const shape = { ...before, ...options.shape };
  checkShape(shape);
  const portBase = options.portBase ?? previous?.portBase ?? defaultPortBase(files.root);
  if (!Number.isInteger(portBase) || portBase < 1024 || portBase > 60_000) {
    throw new InterlockError('BadInput', `--port-base: expected 1024 to 60000, got ${portBase}`, {
      details: { field: 'port-base' },
    });
  }
  if (previous !== null) {
    for (const key of ['mysql', 'stores', 'redis', 'kafka', 'gatewaysPerDc'] as const) {
      if (before[key] !== shape[key]) {
        throw new InterlockError(
          'BadInput',
          `the lab in ${files.root} was made with ${key} ${before[key]}, not ${shape[key]}; ` +
            '`interlock lab down --wipe` first, or make another with --state DIR',
          { details: { field: key } },
        );
      }
    }
  }
  const state: LabState = {
    format: 1,
    shape,
    workload: options.workload ?? { ...NO_WORKLOAD, ...previous?.workload },
    temporalAddress: previous === null ? process.env['TEMPORAL_ADDRESS'] || null : previous.temporalAddress,
    ports: {},
    portBase,
    secrets: {},
  };
  const known = options.portBase === undefined ? (previous?.ports ?? {}) : {};
  state.ports = await assignPorts(portNames({ state }), known, portBase);
  const secrets = ['mysql-root', 'mysql-interlock', 'mysql-app', 'redis-interlock', 'redis-app'];
  for (const dc of ['dc-a', 'dc-b']) secrets.push(`rule-center-${dc}`, `gateway-${dc}`);
  state.secrets = Object.fromEntries(secrets.map((name) => [name, previous?.secrets[name] ?? newSecret()]));
  return state;
}

/** Programs read their topology once: a running lab keeps its addresses. */
function refuseChangeWhileRunning(previous: LabState, state: LabState, files: LabFiles): void {
  const same =
    previous.shape.rttMs === state.shape.rttMs &&
    Object.entries(previous.ports).every(([name, port]) => state.ports[name] === port);
  if (same) return;
  const running = labParts(context(files, previous, () => undefined)).filter(
    (part) => part.process() !== null && part.status() !== 'stopped',
  );
  if (running.length > 0) {
    throw new InterlockError(
      'Refused',
      `the lab runs (${running.map((part) => part.name).join(', ')}) with other addresses; \`interlock lab down\` first`,
    );
  }
}

function stateOrNull(files: LabFiles): LabState | null {
  try {
    return readState(files);
  } catch {
    return null;
  }
}

function context(files: LabFiles, state: LabState, progress: (line: string) => void): LabContext {
  const lookUp =
    <T>(kind: string, table: Record<string, T>) =>
    (name: string): T => {
      const value = table[name];
      if (value === undefined) throw new InterlockError('Internal', `the lab has no ${kind} ${name}`);
      return value;
    };
  return {
    files,
    state,
    port: lookUp('port', state.ports),
    secret: lookUp('secret', state.secrets),
    progress,
  };
}

/** Starts each part when what it depends on is ready; independent ones at the same time. */
async function startParts(parts: readonly Part[], progress: (line: string) => void): Promise<void> {
  const begin = performance.now();
  const seconds = (): string => `${((performance.now() - begin) / 1000).toFixed(1)} s`;
  const started = new Map<string, Promise<void>>();
  const names = new Set(parts.map((part) => part.name));
  const begun = (part: Part): Promise<void> => {
    const existing = started.get(part.name);
    if (existing !== undefined) return existing;
    const running = (async () => {
      await Promise.all(
        parts.filter((other) => part.dependsOn.includes(other.name)).map((other) => begun(other)),
      );
      await part.start();
      await part.ready();
      progress(`${part.name} ready after ${seconds()}${part.address === null ? '' : ` at ${part.address}`}`);
    })();
    started.set(part.name, running);
    return running;
  };
  for (const part of parts) {
    const missing = part.dependsOn.filter((name) => !names.has(name));
    if (missing.length > 0) {
      throw new InterlockError('Internal', `${part.name} depends on unknown ${missing.join(', ')}`);
    }
  }
  const results = await Promise.allSettled(parts.map((part) => begun(part)));
  const failed = results.find((result) => result.status === 'rejected');
  if (failed !== undefined) throw failed.reason;
}

/** Ends each part when nothing that depends on it runs any more. */
async function stopParts(
  parts: readonly Part[],
  graceMs: number,
  progress: (line: string) => void = () => undefined,
): Promise<void> {
  const stopping = new Map<string, Promise<void>>();
  const ended = (part: Part): Promise<void> => {
    const existing = stopping.get(part.name);
    if (existing !== undefined) return existing;
    const stop = (async () => {
      await Promise.all(
        parts.filter((other) => other.dependsOn.includes(part.name)).map((other) => ended(other)),
      );
      const ran = part.process() !== null && part.status() !== 'stopped';
      await part.stop(graceMs);
      if (ran) progress(`${part.name} ended`);
    })();
    stopping.set(part.name, stop);
    return stop;
  };
  const results = await Promise.allSettled(parts.map((part) => ended(part)));
  const failed = results.find((result) => result.status === 'rejected');
  if (failed !== undefined) throw failed.reason;
}

/** Processes that noted themselves in the lab's directory, whatever its state says. */
async function stopUnknown(files: LabFiles): Promise<void> {
  const parts = path.join(files.root, 'parts');
  if (!existsSync(parts)) return;
  for (const name of readdirSync(parts)) {
    const identity = readPidFile(files.pid(name));
    if (identity !== null) await endGroup(identity, files.part(name), STOP_GRACE_MS);
  }
}

function info(lab: LabContext): LabInfo {
  const { files, state } = lab;
  return {
    directory: files.root,
    shape: state.shape,
    topology: files.topology(),
    topologies: { 'dc-a': files.topologyOf('dc-a'), 'dc-b': files.topologyOf('dc-b') },
    envFile: files.env(),
    env: environment(lab),
    webUi: state.temporalAddress === null ? `http://127.0.0.1:${lab.port('temporal.ui')}` : null,
    ports: state.ports,
    parts: labParts(lab)
      .filter((part) => part.kind !== 'task')
      .map((part) => ({
        name: part.name,
        kind: part.kind,
        dc: part.dc,
        status: part.status(),
        pid: part.status() === 'stopped' ? null : (part.process()?.pid ?? null),
        address: part.address,
        log: files.log(part.name),
      })),
  };
}
