import { randomBytes } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { link, mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { InterlockError } from '../../src/errors.js';
import { identify, isAlive } from '../processes.js';
import type { ProcessIdentity } from '../processes.js';
import { DEFAULT_SHAPE } from './options.js';
import type { LabShape, LabWorkload } from './options.js';

/** What a lab remembers between commands. Pids are not here: each process notes its own (see startDetached). */
export interface LabState {
  format: 1;
  shape: LabShape;
  workload: LabWorkload;
  /** A Temporal that the lab does not run itself ($TEMPORAL_ADDRESS when the lab was made); else null. */
  temporalAddress: string | null;
  /** Port name → port. Chosen once, then kept: addresses stay the same over down and up. */
  ports: Record<string, number>;
  portBase: number;
  /** Secret name → value; written to files of mode 0600 for the topology to refer to. */
  secrets: Record<string, string>;
}

/** The files of a lab. */
export class LabFiles {
  constructor(readonly root: string) {}

  readonly state = (): string => path.join(this.root, 'state.json');
  readonly lock = (): string => path.join(this.root, 'lock');
  /** Operator's topology: direct addresses. */
  readonly topology = (): string => path.join(this.root, 'topology.yaml');
  /** A DC's view: what it reaches over the wide area has the proxied address. */
  readonly topologyOf = (dc: string): string => path.join(this.root, `topology.${dc}.yaml`);
  readonly env = (): string => path.join(this.root, 'interlock.env');
  readonly secret = (name: string): string => path.join(this.root, 'secrets', name);
  readonly log = (part: string): string => path.join(this.root, 'logs', `${part}.log`);
  readonly part = (part: string): string => path.join(this.root, 'parts', part);
  readonly pid = (part: string): string => path.join(this.root, 'parts', part, 'process');
}

export function readState(files: LabFiles): LabState | null {
  if (!existsSync(files.state())) return null;
  try {
    const state = JSON.parse(readFileSync(files.state(), 'utf8')) as LabState;
    // A lab that was made before there was Redis, or Kafka, has none.
    return { ...state, shape: { ...DEFAULT_SHAPE, ...state.shape } };
  } catch (error) {
    throw new InterlockError(
      'NeedsOperator',
      `${files.state()} cannot be read; \`interlock lab down --wipe\` makes room for a new lab`,
      { cause: error },
    );
  }
}

export async function writeState(files: LabFiles, state: LabState): Promise<void> {
  await writeAtomically(files.state(), `${JSON.stringify(state, null, 2)}\n`, 0o600);
}

/** A reader sees the old or the new content, never a part. */
export async function writeAtomically(file: string, content: string, mode = 0o644): Promise<void> {
  await mkdir(path.dirname(file), { recursive: true });
  const partial = `${file}.${process.pid}.partial`;
  await writeFile(partial, content, { mode });
  await rename(partial, file);
}

export function newSecret(): string {
  return randomBytes(18).toString('base64url');
}

/**
 * One command at a time changes a lab. The lock names its holder's process: one that was killed does not hold it.
 * @throws Refused while another command works on the lab
 */
export async function withLock<T>(files: LabFiles, work: () => Promise<T>): Promise<T> {
  await mkdir(files.root, { recursive: true });
  const own = identify(process.pid);
  // Made whole under another name, then linked: a lock without its holder's name is never seen.
  const candidate = `${files.lock()}.${process.pid}`;
  await writeFile(candidate, JSON.stringify(own));
  for (;;) {
    try {
      await link(candidate, files.lock());
      break;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
      const holder = await readHolder(files);
      if (holder !== null && isAlive(holder)) {
        await rm(candidate, { force: true });
        throw new InterlockError(
          'Refused',
          `another command (pid ${holder.pid}) is working on the lab in ${files.root}; wait for it, or end it`,
        );
      }
      await rm(files.lock(), { force: true });
    }
  }
  await rm(candidate, { force: true });
  try {
    return await work();
  } finally {
    await rm(files.lock(), { force: true });
  }
}

async function readHolder(files: LabFiles): Promise<ProcessIdentity | null> {
  try {
    return JSON.parse(await readFile(files.lock(), 'utf8')) as ProcessIdentity;
  } catch {
    return null;
  }
}
