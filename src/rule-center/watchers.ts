import type { ServerResponse } from 'node:http';
import type { Entry, RuleBook } from './rule-book.js';

const BEAT_MS = 15_000;
const MOST_WATCHERS = 10_000;

interface Watcher {
  /** Epoch of the last document sent. */
  sent: number;
  blocked: boolean;
}

/**
 * `GET /v1/rules/watch`: server-sent events, one per epoch (id = epoch, data = `{rules,hash}`). Only the newest matters: a reader that is too slow
 * for every epoch gets the last one when it has caught up, so that a stalled reader costs one document of memory.
 */
export class Watchers {
  private readonly watchers = new Map<ServerResponse, Watcher>();
  private readonly unsubscribe: () => void;
  private readonly beat: NodeJS.Timeout;

  constructor(private readonly book: RuleBook) {
    this.unsubscribe = book.onChange((entry) => {
      for (const [response, watcher] of this.watchers) this.send(response, watcher, entry);
    });
    // Through proxies, and for readers that want to tell a quiet watch from a dead one.
    this.beat = setInterval(() => {
      for (const [response, watcher] of this.watchers) if (!watcher.blocked) response.write(': beat\n\n');
    }, BEAT_MS);
    this.beat.unref();
  }

  get size(): number {
    return this.watchers.size;
  }

  get full(): boolean {
    return this.watchers.size >= MOST_WATCHERS;
  }

  /** Takes over a response; what is newer than `since` is sent at once. */
  add(response: ServerResponse, since: number): void {
    const watcher: Watcher = { sent: since, blocked: false };
    response.writeHead(200, {
      'content-type': 'text/event-stream',
      'cache-control': 'no-store',
      'x-accel-buffering': 'no',
    });
    response.write('retry: 200\n\n');
    response.on('drain', () => {
      watcher.blocked = false;
      if (this.book.current !== undefined) this.send(response, watcher, this.book.current);
    });
    response.on('close', () => this.watchers.delete(response));
    response.on('error', () => this.watchers.delete(response));
    this.watchers.set(response, watcher);
    if (this.book.current !== undefined) this.send(response, watcher, this.book.current);
  }

  /** Ends every watch: readers come back, with the epoch they have. */
  close(): void {
    this.unsubscribe();
    clearInterval(this.beat);
    for (const response of this.watchers.keys()) response.end();
    this.watchers.clear();
  }

  private send(response: ServerResponse, watcher: Watcher, entry: Entry): void {
    const { epoch } = entry.rules;
    if (watcher.blocked || epoch <= watcher.sent) return;
    watcher.sent = epoch;
    watcher.blocked = !response.write(`id: ${epoch}\nevent: rules\ndata: ${entry.json}\n\n`);
  }
}
