import { availableParallelism } from 'node:os';
import { Worker } from 'node:worker_threads';
import { InterlockError } from '../../src/errors.js';
import type { ErrorCode } from '../../src/errors.js';
import type { BaselineReached, LinkEvents, LinkKind, LinkStatus } from '../core/contract.js';
import type { LinkConfig } from './configure.js';

export type ThreadOrder =
  { type: 'run'; config: LinkConfig; stopAt: string | undefined } | { type: 'stop'; link: string };

/** What a thread is told when it begins. */
export interface ThreadData {
  /** How many there may be in this process. */
  threads: number;
  /** Kinds of links whose code it loads at once. */
  kinds: readonly LinkKind[];
}

export type ThreadMessage = { link: string } & (
  | { type: 'status'; status: LinkStatus; tableRows: Record<string, number> }
  | { type: 'marker'; baseline: BaselineReached; to: { workflowId: string; runId: string } }
  | { type: 'ended'; error: ThreadError | null }
);

/** A thread has loaded the kinds of its data. */
export interface ThreadLoaded {
  type: 'loaded';
}

export interface ThreadError {
  code: ErrorCode;
  message: string;
  retryable: boolean;
  details: Record<string, unknown>;
}

/** A link that was told to stop gets so long; the thread then closes its connections and says that it has ended. */
export const STOP_MS = 10_000;
/** A thread that has not even said that is blocked, and is ended. */
const BLOCKED_MS = STOP_MS + 5_000;
/** A thread costs tens of megabytes; more threads than cores make no link faster. */
const THREADS = Math.min(Math.max(availableParallelism(), 2), 8);

/** Of a thread: far above what its links keep (see queue-budget.ts). Without a bound, V8 lets several times as much garbage lie. */
const HEAP_MB = 1536;

/** What a thread says of one link. */
type Listener = (what: ThreadMessage | { type: 'broke'; reason: string }) => void;

interface Thread {
  worker: Worker;
  links: Map<string, Listener>;
  /** Or has ended. */
  loaded: Promise<void>;
}

/**
 * Runs links in a few threads of this process, so that one that works flat out does not delay Temporal's heartbeats and tasks, and links have
 * a thread of their own as long as there are enough. Only status and markers come out of a thread. Needs the compiled program: a thread
 * cannot load TypeScript.
 */
export class LinkHost {
  private readonly running = new Set<string>();
  private readonly threads: Thread[] = [];
  /** Has loaded its code and has no link yet; does not keep the process alive. */
  private spare: Thread | undefined;
  private kinds: readonly LinkKind[] = [];

  /** @param script the compiled link-thread.js */
  constructor(
    private readonly script: URL = compiledThread(),
    private readonly most: number = THREADS,
  ) {}

  /**
   * Keeps a thread ready from now on, made anew when one has ended, so that a link begins without loading code first.
   * @returns when it is ready
   */
  async keepSpare(kinds: readonly LinkKind[]): Promise<void> {
    this.kinds = kinds;
    this.spare ??= this.newThread();
    this.spare.worker.unref();
    await this.spare.loaded;
  }

  /**
   * Runs a link until `signal` is aborted (returns the last status) or the link stops.
   * @throws InterlockError of the link; `details.status` is its last status
   */
  async run(config: LinkConfig, events: LinkEvents, signal: AbortSignal): Promise<LinkStatus | null> {
    const { link } = config;
    if (this.running.has(link)) {
      // An attempt of this process that was cancelled is still ending.
      throw new InterlockError('Unavailable', `${link} already runs in this process`, { retryable: true });
    }
    this.running.add(link);
    const thread = this.threadFor();
    let last: LinkStatus | null = null;
    let giveUp: NodeJS.Timeout | undefined;
    const onAbort = (): void => {
      thread.worker.postMessage({ type: 'stop', link } satisfies ThreadOrder);
      giveUp = setTimeout(() => void thread.worker.terminate(), BLOCKED_MS);
    };
    try {
      return await new Promise<LinkStatus | null>((resolve, reject) => {
        thread.links.set(link, (what) => {
          if (what.type === 'status') events.onStatus((last = what.status), what.tableRows);
          else if (what.type === 'marker') events.onMarker(what.baseline, what.to);
          else if (what.type === 'ended' && what.error !== null) {
            const { code, message, retryable, details } = what.error;
            reject(new InterlockError(code, message, { retryable, details: { ...details, status: last } }));
          } else if (what.type === 'broke' && !signal.aborted) {
            reject(
              new InterlockError('Internal', `the thread of ${link} ${what.reason}`, {
                retryable: true,
                details: { status: last },
              }),
            );
          } else resolve(last);
        });
        const stopAt = process.env['INTERLOCK_LINK_STOP_AT'];
        thread.worker.postMessage({ type: 'run', config, stopAt } satisfies ThreadOrder);
        if (signal.aborted) onAbort();
        else signal.addEventListener('abort', onAbort, { once: true });
      });
    } finally {
      clearTimeout(giveUp);
      signal.removeEventListener('abort', onAbort);
      thread.links.delete(link);
      // Before the link may run again: its old session must be gone, or the two would end each other's.
      if (thread.links.size === 0) await this.end(thread);
      this.running.delete(link);
    }
  }

  /** A new thread while there may be more, or the one with the fewest links. */
  private threadFor(): Thread {
    const free = this.threads.reduce<Thread | undefined>(
      (least, thread) => (least === undefined || thread.links.size < least.links.size ? thread : least),
      undefined,
    );
    if (free !== undefined && this.threads.length >= this.most) return free;
    const thread = this.spare ?? this.newThread();
    this.spare = undefined;
    thread.worker.ref();
    this.threads.push(thread);
    return thread;
  }

  private newThread(): Thread {
    const worker = new Worker(this.script, {
      name: 'links',
      workerData: { threads: this.most, kinds: this.kinds } satisfies ThreadData,
      resourceLimits: { maxOldGenerationSizeMb: HEAP_MB },
    });
    let isLoaded!: () => void;
    const loaded = new Promise<void>((resolve) => (isLoaded = resolve));
    const thread: Thread = { worker, links: new Map(), loaded };
    const broke = (reason: string): void => {
      if (this.spare === thread) this.spare = undefined;
      for (const listener of [...thread.links.values()]) listener({ type: 'broke', reason });
    };
    worker.on('message', (message: ThreadMessage | ThreadLoaded) => {
      if (message.type === 'loaded') isLoaded();
      else thread.links.get(message.link)?.(message);
    });
    worker.on('error', (error: Error) => broke(`broke: ${error.message}`));
    worker.on('exit', (code) => {
      isLoaded();
      broke(`ended with ${code}`);
    });
    return thread;
  }

  private async end(thread: Thread): Promise<void> {
    const at = this.threads.indexOf(thread);
    if (at >= 0) this.threads.splice(at, 1);
    await thread.worker.terminate();
    if (this.kinds.length > 0 && this.spare === undefined) void this.keepSpare(this.kinds);
  }
}

/** Beside this file; when this file runs as TypeScript (tests), in dist/, where `npm run build` puts it. */
function compiledThread(): URL {
  return import.meta.url.endsWith('.ts')
    ? new URL('../../dist/replicators/host/link-thread.js', import.meta.url)
    : new URL('./link-thread.js', import.meta.url);
}
