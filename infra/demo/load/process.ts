import { fork } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';
import { InterlockError } from '../../../src/errors.js';
import { startDetached } from '../../processes.js';
import type { DetachedOptions } from '../../processes.js';
import { projectRoot } from '../../project.js';
import type { LoadCounts, LoadOptions } from './generator.js';

export interface LoadCommand {
  id: number;
  do: 'start' | 'pause' | 'settle' | 'stop' | 'counts';
}

export interface LoadAnswer {
  id: number;
  counts: LoadCounts;
  error: string | null;
}

const PROGRAM = path.join(projectRoot, 'dist', 'infra', 'demo', 'load', 'main.js');

/** A load generator in a process of its own. */
export class LoadProcess {
  private readonly child: ChildProcess;
  private readonly waiting = new Map<
    number,
    { resolve: (counts: LoadCounts) => void; reject: (error: Error) => void }
  >();
  private lastId = 0;

  constructor(private readonly options: LoadOptions) {
    this.child = fork(PROGRAM, [JSON.stringify(options)], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
    this.child.on('message', (answer: LoadAnswer) => {
      const waiter = this.waiting.get(answer.id);
      this.waiting.delete(answer.id);
      if (answer.error === null) waiter?.resolve(answer.counts);
      else waiter?.reject(new InterlockError('Internal', `load generator: ${answer.error}`));
    });
    this.child.on('exit', (code, signal) => {
      for (const { reject } of this.waiting.values()) {
        reject(new InterlockError('Internal', `the load generator ended (${signal ?? `exit ${code}`})`));
      }
      this.waiting.clear();
    });
  }

  start(): Promise<LoadCounts> {
    return this.command('start');
  }

  /** Resolves when nothing is under way any more and the journal is complete. */
  pause(): Promise<LoadCounts> {
    return this.command('pause');
  }

  /** Resolves when what is under way now has ended and is in the journal; the load goes on. */
  settle(): Promise<LoadCounts> {
    return this.command('settle');
  }

  counts(): Promise<LoadCounts> {
    return this.command('counts');
  }

  /** Pauses, then ends the process. */
  async stop(): Promise<LoadCounts> {
    const ended = once(this.child, 'exit');
    const counts = await this.command('stop');
    await ended;
    return counts;
  }

  /** Ends the process; another one goes on with the same load, until the lab ends what has its pid file there. */
  async handOver(files: Pick<DetachedOptions, 'directory' | 'logFile' | 'pidFile'>): Promise<void> {
    await this.stop();
    await startDetached({
      program: process.execPath,
      args: [PROGRAM, JSON.stringify(this.options)],
      ...files,
    });
  }

  /** Ends the process at once. */
  async kill(): Promise<void> {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return;
    const ended = once(this.child, 'exit');
    this.child.kill('SIGKILL');
    await ended;
  }

  private command(name: LoadCommand['do']): Promise<LoadCounts> {
    const id = ++this.lastId;
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve, reject });
      this.child.send({ id, do: name } satisfies LoadCommand, (error) => {
        if (error) reject(error);
      });
    });
  }
}
