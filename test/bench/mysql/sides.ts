import { fork } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import type { Pool, RowDataPacket } from 'mysql2/promise';
import { compiled } from '../../../infra/project.js';
import type { LinkConfig } from '../../../replicators/mysql/link-config.js';
import type { TestMysql } from '../../support/mysql.js';
import type { LinkAnswer, LinkOrder, LinkUsage } from './link-child.js';

/** One target and what carries the source's changes there. Between two works it is stopped, and has everything. */
export interface Side {
  name: string;
  target: Pool;
  server: TestMysql;
  /** What is not part of the time; afterwards `start` is one order. */
  prepare: () => Promise<void>;
  start: () => Promise<void>;
  /** Throws when what carries the changes has failed. */
  check: () => Promise<void>;
  stop: () => Promise<LinkUsage | null>;
}

const STOP_MS = 20_000;

/** MySQL's own replication; receiver and appliers start together, as the link does. */
export class NativeSide implements Side {
  constructor(
    readonly name: string,
    readonly target: Pool,
    readonly server: TestMysql,
  ) {}

  async prepare(): Promise<void> {}

  async start(): Promise<void> {
    await this.target.query('START REPLICA');
  }

  async check(): Promise<void> {
    const [[status]] = await this.target.query<RowDataPacket[]>('SHOW REPLICA STATUS');
    const error = String(status?.['Last_Error'] ?? '') || String(status?.['Last_IO_Error'] ?? '');
    if (error !== '') throw new Error(`${this.name}: ${error}`);
  }

  async stop(): Promise<null> {
    await this.target.query('STOP REPLICA');
    return null;
  }
}

/** The link, in a process of its own: its CPU time and its memory are its alone. */
export class LinkSide implements Side {
  private child: ChildProcess | undefined;
  private ended: (LinkUsage & { error: string | null }) | undefined;

  constructor(
    readonly name: string,
    readonly target: Pool,
    readonly server: TestMysql,
    private readonly config: () => LinkConfig,
  ) {}

  async prepare(): Promise<void> {
    this.ended = undefined;
    const child = fork(compiled('test', 'bench', 'mysql', 'link-child.js'), ['mysql']);
    this.child = child;
    child.on('message', (answer: LinkAnswer) => {
      if (answer.type === 'ended') this.ended = answer;
    });
    await once(child, 'message', { signal: AbortSignal.timeout(STOP_MS) });
  }

  async start(): Promise<void> {
    this.order({ type: 'start', config: this.config() });
  }

  async check(): Promise<void> {
    const { child, ended } = this;
    if (ended !== undefined) throw new Error(`the link ended: ${ended.error ?? 'without an error'}`);
    if (child === undefined || child.exitCode !== null || child.signalCode !== null)
      throw new Error('the process of the link is gone');
  }

  async stop(): Promise<LinkUsage> {
    const child = this.child!;
    const exit = once(child, 'exit', { signal: AbortSignal.timeout(STOP_MS) });
    this.order({ type: 'stop' });
    await exit;
    if (this.ended === undefined || this.ended.error !== null)
      throw new Error(`the link ended: ${this.ended?.error ?? 'without a word'}`);
    return this.ended;
  }

  kill(): void {
    this.child?.kill('SIGKILL');
  }

  private order(order: LinkOrder): void {
    this.child!.send(order);
  }
}
