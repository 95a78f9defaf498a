import { Worker } from 'node:worker_threads';
import { InterlockError } from '../../src/errors.js';
import type { ErrorCode } from '../../src/errors.js';
import type { BaselineReached, LinkStatus } from '../core/contract.js';
import type { LinkConfig } from './link-config.js';

export type ThreadMessage =
  | { type: 'status'; status: LinkStatus; tableRows: Record<string, number> }
  | { type: 'marker'; baseline: BaselineReached; to: { workflowId: string; runId: string } }
  | { type: 'ended'; error: { code: ErrorCode; message: string; details: Record<string, unknown> } | null };

export interface LinkHostEvents {
  onStatus: (status: LinkStatus, tableRows: Record<string, number>) => void;
  onMarker: (baseline: BaselineReached, to: { workflowId: string; runId: string }) => void;
}

const STOP_MS = 10_000;

/**
 * Runs links, each in its own thread of this process, so that one that works flat out delays neither Temporal's heartbeats and tasks nor
 * another link. Only status and markers come out of a thread. Needs the compiled program: a thread cannot load TypeScript.
 */
export class LinkHost {
  private readonly script: URL;
  private readonly running = new Set<string>();

  /** @param script the compiled link-thread.js */
  constructor(script: URL = compiledThread()) {
    this.script = script;
  }

  /**
   * Runs a link until `signal` is aborted (returns the last status) or the link stops.
   * @throws InterlockError of the link; `details.status` is its last status
   */
  async run(config: LinkConfig, events: LinkHostEvents, signal: AbortSignal): Promise<LinkStatus | null> {
    if (this.running.has(config.link)) {
      // An attempt of this process that was cancelled is still ending.
      throw new InterlockError('Unavailable', `${config.link} already runs in this process`, {
        retryable: true,
      });
    }
    this.running.add(config.link);
    let last: LinkStatus | null = null;
    const worker = new Worker(this.script, {
      name: config.link,
      workerData: { config, stopAt: process.env['INTERLOCK_LINK_STOP_AT'] },
    });
    let giveUp: NodeJS.Timeout | undefined;
    const onAbort = (): void => {
      worker.postMessage('stop');
      // The thread ends its connections itself; one that hangs is ended without its word: the checkpoint has all that counts.
      giveUp = setTimeout(() => void worker.terminate(), STOP_MS);
    };
    try {
      return await new Promise<LinkStatus | null>((resolve, reject) => {
        let ended = false;
        worker.on('message', (message: ThreadMessage) => {
          if (message.type === 'status') {
            last = message.status;
            events.onStatus(message.status, message.tableRows);
          } else if (message.type === 'marker') events.onMarker(message.baseline, message.to);
          else if (message.error === null) {
            ended = true;
            resolve(last);
          } else {
            ended = true;
            const { code, message: text, details } = message.error;
            reject(new InterlockError(code, text, { details: { ...details, status: last } }));
          }
        });
        worker.on('error', (error: Error) =>
          reject(
            new InterlockError('Internal', `the thread of ${config.link} broke: ${error.message}`, {
              cause: error,
              retryable: true,
              details: { status: last },
            }),
          ),
        );
        worker.on('exit', (code) => {
          if (ended) return;
          if (signal.aborted) resolve(last);
          else {
            reject(
              new InterlockError('Internal', `the thread of ${config.link} ended with ${code}`, {
                retryable: true,
                details: { status: last },
              }),
            );
          }
        });
        if (signal.aborted) onAbort();
        else signal.addEventListener('abort', onAbort, { once: true });
      });
    } finally {
      clearTimeout(giveUp);
      signal.removeEventListener('abort', onAbort);
      await worker.terminate();
      this.running.delete(config.link);
    }
  }
}

/** Beside this file; when this file runs as TypeScript (tests), in dist/, where `npm run build` puts it. */
function compiledThread(): URL {
  return import.meta.url.endsWith('.ts')
    ? new URL('../../dist/replicators/mysql/link-thread.js', import.meta.url)
    : new URL('./link-thread.js', import.meta.url);
}
