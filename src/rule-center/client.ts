import { createParser } from 'eventsource-parser';
import { Pool } from 'undici';
import { InterlockError, messageOf } from '../errors.js';
import type { ErrorCode } from '../errors.js';
import type { Rules } from '../routing/rules.js';
import type { DcId, RoutingKey, UnitId } from '../routing/units.js';
import type {
  Confirmation,
  GatewayView,
  HealthAnswer,
  InstanceView,
  LeaseAnswer,
  LeaseRequest,
  OwnsAnswer,
  PublishAnswer,
  RouteAnswer,
  RulesDocument,
  UnitsAnswer,
} from './api.js';

const TIMEOUT_MS = 5_000;
const CODES = new Set<string>([
  'BadInput',
  'StaleEpoch',
  'EpochConflict',
  'Refused',
  'NoRules',
  'Unavailable',
  'Internal',
] satisfies ErrorCode[]);

/**
 * The client of one DC's rule center. Connections are kept: a switchover has no time for a connect. Every call ends by its signal (default 5 s).
 * Errors of the rule center come as InterlockErrors with its code; one that cannot be reached is Unavailable.
 */
export class RuleCenterClient {
  readonly dc: DcId;
  private readonly pool: Pool;
  private readonly prefix: string;
  private readonly url: string;

  /** @param options.token needed for `publish` only */
  constructor(private readonly options: { dc: DcId; url: string; token?: string }) {
    const url = new URL(options.url);
    this.dc = options.dc;
    this.url = options.url;
    this.prefix = url.pathname.replace(/\/$/, '');
    this.pool = new Pool(url.origin, {
      connections: 16,
      keepAliveTimeout: 60_000,
      connect: { timeout: 1_000 },
    });
  }

  async health(signal?: AbortSignal): Promise<HealthAnswer> {
    return (await this.call('GET', '/v1/health', { signal, alsoOk: 503 })) as HealthAnswer;
  }

  /** The rules in force. Errors: NoRules, Unavailable. */
  async rules(signal?: AbortSignal): Promise<RulesDocument> {
    return (await this.call('GET', '/v1/rules', { signal })) as RulesDocument;
  }

  /** Errors: BadInput (a region that is not routed), NoRules, Unavailable. */
  async route(key: RoutingKey, signal?: AbortSignal): Promise<RouteAnswer> {
    return (await this.call('GET', `/v1/route?${queryOf(key)}`, { signal })) as RouteAnswer;
  }

  /** Whether the rule center's DC may write a unit, or a user's unit, now. Errors: BadInput, NoRules, Unavailable. */
  async owns(of: UnitId | RoutingKey, signal?: AbortSignal): Promise<OwnsAnswer> {
    const query = typeof of === 'string' ? `unit=${encodeURIComponent(of)}` : queryOf(of);
    return (await this.call('GET', `/v1/owns?${query}`, { signal })) as OwnsAnswer;
  }

  async units(signal?: AbortSignal): Promise<UnitsAnswer> {
    return (await this.call('GET', '/v1/units', { signal })) as UnitsAnswer;
  }

  /** The DC's gateways, each asked now. */
  async gateways(signal?: AbortSignal): Promise<GatewayView[]> {
    return ((await this.call('GET', '/v1/gateways', { signal })) as { gateways: GatewayView[] }).gateways;
  }

  /** The SDK instances with a lease, and the epoch by which each works. */
  async instances(signal?: AbortSignal): Promise<InstanceView[]> {
    return ((await this.call('GET', '/v1/instances', { signal })) as { instances: InstanceView[] }).instances;
  }

  /**
   * Keeps rules in the DC's control store and hands them to its gateways; answers what each gateway said. A repeat is answered the same.
   * `committed`: a control store of the topology has committed them, and the gateways need not wait for this one.
   * Errors: StaleEpoch, EpochConflict, BadInput, Refused (token), Unavailable.
   */
  async publish(
    rules: Rules,
    { signal, committed = false }: { signal?: AbortSignal; committed?: boolean } = {},
  ): Promise<Confirmation[]> {
    const body = JSON.stringify({ rules, committed });
    return ((await this.call('POST', '/v1/rules', { signal, body })) as PublishAnswer).gateways;
  }

  async lease(lease: LeaseRequest, signal?: AbortSignal): Promise<LeaseAnswer> {
    return (await this.call('POST', '/v1/leases', { signal, body: JSON.stringify(lease) })) as LeaseAnswer;
  }

  /** Yields each document newer than `since` as it comes, until the signal or the connection ends. Errors: Unavailable, BadInput. */
  async *watch(since: number, signal: AbortSignal): AsyncGenerator<RulesDocument> {
    let body;
    try {
      const response = await this.pool.request({
        path: `${this.prefix}/v1/rules/watch?since=${since}`,
        method: 'GET',
        headers: { accept: 'text/event-stream' },
        signal,
        bodyTimeout: 45_000,
      });
      if (response.statusCode !== 200)
        throw refusal(this.url, response.statusCode, await response.body.text());
      ({ body } = response);
    } catch (error) {
      throw this.unreachable(error);
    }
    const queue: RulesDocument[] = [];
    const parser = createParser({ onEvent: (event) => queue.push(JSON.parse(event.data) as RulesDocument) });
    const decoder = new TextDecoder();
    try {
      for await (const chunk of body) {
        parser.feed(decoder.decode(chunk as Uint8Array, { stream: true }));
        yield* queue.splice(0);
      }
    } catch (error) {
      if (signal.aborted) return;
      throw this.unreachable(error);
    }
  }

  async close(): Promise<void> {
    await this.pool.destroy();
  }

  private async call(
    method: 'GET' | 'POST',
    path: string,
    options: { signal?: AbortSignal | undefined; body?: string; alsoOk?: number },
  ): Promise<unknown> {
    let status: number;
    let text: string;
    try {
      const response = await this.pool.request({
        method,
        path: this.prefix + path,
        headers: {
          ...(options.body === undefined ? {} : { 'content-type': 'application/json' }),
          ...(this.options.token === undefined ? {} : { authorization: `Bearer ${this.options.token}` }),
        },
        ...(options.body === undefined ? {} : { body: options.body }),
        signal: options.signal ?? AbortSignal.timeout(TIMEOUT_MS),
      });
      status = response.statusCode;
      text = await response.body.text();
    } catch (error) {
      throw this.unreachable(error);
    }
    if (status !== 200 && status !== options.alsoOk) throw refusal(this.url, status, text);
    try {
      return JSON.parse(text) as unknown;
    } catch (error) {
      throw new InterlockError('Internal', `rule center ${this.url} answered ${path} with no JSON`, {
        cause: error,
      });
    }
  }

  private unreachable(error: unknown): InterlockError {
    if (error instanceof InterlockError) return error;
    return new InterlockError(
      'Unavailable',
      `rule center ${this.url} of ${this.dc} does not answer: ${messageOf(error)}`,
      { retryable: true, cause: error, details: { what: `rule center ${this.dc}`, url: this.url } },
    );
  }
}

function queryOf(key: RoutingKey): string {
  const query = new URLSearchParams({ userId: key.userId });
  if (key.region !== undefined) query.set('region', key.region);
  return query.toString();
}

function refusal(url: string, status: number, text: string): InterlockError {
  let error: { code?: string; message?: string; details?: Record<string, unknown> } | undefined;
  try {
    ({ error } = JSON.parse(text) as { error?: typeof error });
  } catch {
    // Not from a rule center: something between answered.
  }
  const code = error?.code !== undefined && CODES.has(error.code) ? (error.code as ErrorCode) : 'Unavailable';
  return new InterlockError(
    code,
    `rule center ${url}: ${error?.message ?? `HTTP ${status}: ${text.slice(0, 200)}`}`,
    {
      retryable: code === 'Unavailable' || code === 'NoRules',
      details: { ...error?.details, status },
    },
  );
}
