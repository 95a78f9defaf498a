import { createParser } from 'eventsource-parser';
import { InterlockError, isInterlockError, messageOf } from '../errors.js';
import { rulesHash } from '../routing/hash.js';
import { Router } from '../routing/rules.js';
import type { Rules } from '../routing/rules.js';

/** Where an instance gets the rules from. They only choose the unit; whether it may be written, the row in the store decides. */
export interface RulesSource {
  /** The last rules learned; undefined when none were. */
  current(): Router | undefined;
  /** Asks again now; answers the newest that is known when there is no newer one. Throws Unavailable or NoRules when none is known. */
  refresh(): Promise<Router>;
  /** What the rule center has now, not what is known. Throws Unavailable or NoRules when it does not answer. */
  confirm(): Promise<Router>;
  /**
   * Called with every new document. The instance acknowledges its epoch when the promises have been fulfilled: what no server checks is finished
   * then. Answers what ends the calls.
   */
  onRules(listener: RulesListener): () => void;
  /** `schema.table` of the tables that the topology declares unrouted. Absent: not known here. Throws Unavailable. */
  unrouted?(): Promise<ReadonlySet<string>>;
  close(): Promise<void>;
}

export type RulesListener = (router: Router) => Promise<void>;

/** Rules that never change by themselves: tests, tools. */
export class FixedRules implements RulesSource {
  /** Resolves when the rules that were set last would be acknowledged. */
  acknowledged: Promise<unknown> = Promise.resolve();
  private router: Router;
  private readonly listeners = new Set<RulesListener>();

  constructor(rules: Rules) {
    this.router = new Router(rules);
  }

  current(): Router {
    return this.router;
  }

  async refresh(): Promise<Router> {
    return this.router;
  }

  async confirm(): Promise<Router> {
    return this.router;
  }

  onRules(listener: RulesListener): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  set(rules: Rules): void {
    this.router = new Router(rules);
    this.acknowledged = Promise.all([...this.listeners].map((listener) => listener(this.router)));
  }

  async close(): Promise<void> {}
}

export interface RuleCenterOptions {
  /** Base URL of this DC's rule center. */
  url: string;
  application: string;
  instance: string;
  token?: string | undefined;
  /** Milliseconds between two renewals of the lease. */
  leaseMs?: number | undefined;
  requestTimeoutMs?: number | undefined;
  /** Told of trouble that stops nothing: a rule center that is down, a document that is refused. */
  onWarning?: ((message: string, error?: unknown) => void) | undefined;
}

const RECONNECT_MS = { first: 50, most: 2_000 };
/** A watch that says nothing for this long is taken for half-open and made anew; it resumes by epoch. */
const SILENCE_MS = 45_000;

const GIVE_BACK_MS = 1_000;

/**
 * The rules of this DC's rule center: fetched, then watched (SSE, resumed by epoch), and acknowledged with the instance's lease.
 * Hazard: a rule center that is down stops traffic. Guard: the last rules stay in use for ever; every write is checked by its store.
 */
export class RuleCenterRules implements RulesSource {
  private router: Router | undefined;
  private hash: string | undefined;
  private readonly closing = new AbortController();
  private refreshing: Promise<Router> | undefined;
  /** The last ones that the rule center has said; a newer answer takes their place. */
  private tables: ReadonlySet<string> | undefined;
  private asking: Promise<ReadonlySet<string>> | undefined;
  private readonly listeners = new Set<RulesListener>();
  /** The highest epoch whose listeners are done. */
  private acknowledged = 0;
  private readonly watching: Promise<void>;
  private leaseTimer: NodeJS.Timeout | undefined;
  private acknowledging: Promise<void> = Promise.resolve();
  /** Date.now() of the last renewed lease. */
  leasedAt: number | undefined;

  constructor(private readonly options: RuleCenterOptions) {
    this.watching = this.watch();
    this.leaseTimer = setInterval(() => this.acknowledge(), options.leaseMs ?? 3_000);
    this.leaseTimer.unref();
  }

  current(): Router | undefined {
    return this.router;
  }

  async refresh(): Promise<Router> {
    this.refreshing ??= this.fetchRules().finally(() => (this.refreshing = undefined));
    try {
      return await this.refreshing;
    } catch (error) {
      if (this.router !== undefined) return this.router;
      throw error;
    }
  }

  /** Never one that is under way: it may have been answered before the caller did what the rules must know of. */
  async confirm(): Promise<Router> {
    return this.fetchRules();
  }

  onRules(listener: RulesListener): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  async unrouted(): Promise<ReadonlySet<string>> {
    return this.tables ?? this.askTables();
  }

  private askTables(): Promise<ReadonlySet<string>> {
    this.asking ??= this.fetchTables().finally(() => (this.asking = undefined));
    return this.asking;
  }

  private async fetchTables(): Promise<ReadonlySet<string>> {
    const response = await this.request('/v1/tables');
    const body = (await response.json().catch(() => undefined)) as { unrouted?: unknown } | undefined;
    // A rule center of before has no such route.
    const names = response.status === 404 ? [] : body?.unrouted;
    if ((!response.ok && response.status !== 404) || !Array.isArray(names)) {
      throw new InterlockError(
        'Unavailable',
        `rule center ${this.options.url} answered ${response.status} to GET /v1/tables`,
        { retryable: true, details: { what: 'rule center', url: this.options.url } },
      );
    }
    return (this.tables = new Set(names.map(String)));
  }

  async close(): Promise<void> {
    clearInterval(this.leaseTimer);
    this.closing.abort();
    await this.watching;
    await this.acknowledging;
    await this.giveBack();
  }

  /** A switchover waits until every lease has its epoch, or is over: this one need not run out. */
  private async giveBack(): Promise<void> {
    if (this.leasedAt === undefined) return;
    const { instance, application } = this.options;
    const query = new URLSearchParams({ application, instance }).toString();
    const signal = AbortSignal.timeout(GIVE_BACK_MS);
    await fetch(this.url(`/v1/leases?${query}`), { method: 'DELETE', headers: this.authorization(), signal })
      .then((response) => response.arrayBuffer())
      .catch(() => undefined);
  }

  private async fetchRules(): Promise<Router> {
    const response = await this.request('/v1/rules');
    if (!response.ok) {
      const body = (await response.json().catch(() => undefined)) as
        { error?: { code?: string } } | undefined;
      throw new InterlockError(
        body?.error?.code === 'NoRules' ? 'NoRules' : 'Unavailable',
        `rule center ${this.options.url} answered ${response.status} to GET /v1/rules`,
        { retryable: true, details: { what: 'rule center', url: this.options.url } },
      );
    }
    this.take(await response.json());
    return this.router!;
  }

  /** Takes a document over when it is newer. */
  private take(document: unknown): void {
    const { rules, hash } = (document ?? {}) as { rules?: Rules; hash?: string };
    if (rules?.format !== 1 || !Number.isSafeInteger(rules.epoch) || hash !== rulesHash(rules)) {
      throw new InterlockError(
        'Internal',
        `rule center ${this.options.url} sent rules that are none, or whose hash does not match`,
      );
    }
    const known = this.router?.epoch ?? -1;
    if (rules.epoch === known && hash !== this.hash) {
      throw new InterlockError(
        'EpochConflict',
        `rule center ${this.options.url} sent other rules for epoch ${known} than before; keeping the first`,
      );
    }
    if (rules.epoch <= known) return;
    this.router = new Router(rules);
    this.hash = hash;
    void this.settle(this.router);
  }

  /** Hazard: a lease with the new epoch says that nothing of the old one is under way here. Guard: it has the old one until that is so. */
  private async settle(router: Router): Promise<void> {
    try {
      if (this.listeners.size > 0) await Promise.all([...this.listeners].map((listener) => listener(router)));
    } catch (error) {
      this.options.onWarning?.(`epoch ${router.epoch} is not acknowledged: ${messageOf(error)}`, error);
      return;
    }
    this.acknowledged = Math.max(this.acknowledged, router.epoch);
    this.acknowledge();
  }

  private async watch(): Promise<void> {
    let pauseMs = RECONNECT_MS.first;
    while (!this.closing.signal.aborted) {
      try {
        if (this.router === undefined) await this.refresh();
        await this.follow(() => (pauseMs = RECONNECT_MS.first));
      } catch (error) {
        if (this.closing.signal.aborted) return;
        this.options.onWarning?.(
          `rule center ${this.options.url}: ${messageOf(error)}; going on with epoch ${this.router?.epoch ?? 'none'}`,
          error,
        );
      }
      await pause(pauseMs * (0.5 + Math.random() / 2), this.closing.signal);
      pauseMs = Math.min(pauseMs * 2, RECONNECT_MS.most);
    }
  }

  /** One watch connection; returns or throws when it ends. */
  private async follow(onEvent: () => void): Promise<void> {
    const silence = new AbortController();
    let alarm = setTimeout(() => silence.abort(), SILENCE_MS);
    const signal = AbortSignal.any([this.closing.signal, silence.signal]);
    // A rule center that has begun anew may have another topology.
    if (this.tables !== undefined) this.askTables().catch(() => undefined);
    try {
      const response = await fetch(this.url(`/v1/rules/watch?since=${this.router?.epoch ?? 0}`), {
        headers: { accept: 'text/event-stream', ...this.authorization() },
        signal,
      });
      if (!response.ok || response.body === null) {
        throw new InterlockError('Unavailable', `answered ${response.status} to GET /v1/rules/watch`);
      }
      const parser = createParser({
        onEvent: (event) => {
          // A document that is refused must not end the watch: a good one may follow.
          try {
            this.take(JSON.parse(event.data));
            onEvent();
          } catch (error) {
            this.options.onWarning?.(messageOf(error), error);
          }
        },
      });
      const decoder = new TextDecoder();
      for await (const chunk of response.body) {
        clearTimeout(alarm);
        alarm = setTimeout(() => silence.abort(), SILENCE_MS);
        parser.feed(decoder.decode(chunk as Uint8Array, { stream: true }));
      }
    } finally {
      clearTimeout(alarm);
    }
  }

  /** Renews the lease with the epoch that is in use. Hazard: acknowledgements overtake each other. Guard: one at a time, the last one says it all. */
  private acknowledge(): void {
    const { instance, application } = this.options;
    this.acknowledging = this.acknowledging.then(async () => {
      if (this.closing.signal.aborted) return;
      try {
        const response = await this.request('/v1/leases', {
          method: 'POST',
          headers: { 'content-type': 'application/json' },
          body: JSON.stringify({ instance, application, epoch: this.acknowledged }),
        });
        await response.arrayBuffer();
        if (response.ok) this.leasedAt = Date.now();
      } catch (error) {
        if (!this.closing.signal.aborted) {
          this.options.onWarning?.(`lease not renewed: ${messageOf(error)}`, error);
        }
      }
    });
  }

  private async request(path: string, init: RequestInit = {}): Promise<Response> {
    const timeout = AbortSignal.timeout(this.options.requestTimeoutMs ?? 2_000);
    try {
      return await fetch(this.url(path), {
        ...init,
        headers: { ...(init.headers as Record<string, string> | undefined), ...this.authorization() },
        signal: AbortSignal.any([this.closing.signal, timeout]),
      });
    } catch (error) {
      if (isInterlockError(error)) throw error;
      throw new InterlockError(
        'Unavailable',
        `rule center ${this.options.url} does not answer: ${messageOf(error)}`,
        { retryable: true, cause: error, details: { what: 'rule center', url: this.options.url } },
      );
    }
  }

  private url(path: string): string {
    return this.options.url.replace(/\/+$/, '') + path;
  }

  private authorization(): Record<string, string> {
    return this.options.token === undefined ? {} : { authorization: `Bearer ${this.options.token}` };
  }
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve();
    const end = (): void => {
      clearTimeout(timer);
      signal.removeEventListener('abort', end);
      resolve();
    };
    const timer = setTimeout(end, ms);
    timer.unref();
    signal.addEventListener('abort', end);
  });
}
