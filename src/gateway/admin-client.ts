import { Agent, request } from 'undici';
import { InterlockError, messageOf } from '../errors.js';
import type { ErrorCode } from '../errors.js';
import type { Rules } from '../routing/rules.js';

export interface GatewayStatus {
  topology: string;
  dc: string;
  gateway: string;
  /** null: no rules yet, the gateway refuses to route. */
  epoch: number | null;
  hash: string | null;
  /** Requests (and their body bytes) that are held now. */
  held: number;
  heldBytes: number;
  /** Counters, since nginx was started. Take differences. */
  heldTotal: number;
  /** Answered 503 because of a fence, or because there are no rules. */
  refusedTotal: number;
  /** Answers 5xx that the gateway made because an upstream did not answer. */
  failedTotal: number;
  /** Sent to another DC's gateway. */
  forwardedTotal: number;
  /** Milliseconds in which at least one request was held for a fence, or a write had been refused and no newer rules had come. */
  unavailableMs: number;
  /** DC → requests sent to it. */
  requests: Record<string, number>;
  workers: number;
}

export interface GatewayRulesTaken {
  epoch: number;
  /** Requests held when the rules were taken. */
  held: number;
  /** false: the rules are in force, but could not be written to disk. */
  persisted: boolean;
}

const CODES: readonly string[] = [
  'BadInput',
  'StaleEpoch',
  'EpochConflict',
  'Unavailable',
  'Internal',
] satisfies ErrorCode[];

/** The admin endpoint of one gateway. Keeps its connection; close it with `close()`. */
export class GatewayAdmin {
  private readonly base: string;
  private readonly token: string;
  private readonly timeoutMs: number;
  private readonly agent: Agent;

  /** @param options.timeoutMs deadline of each call, default 2 000 */
  constructor(options: { admin: string; token: string; timeoutMs?: number }) {
    this.base = options.admin.replace(/\/$/, '');
    this.token = options.token;
    this.timeoutMs = options.timeoutMs ?? 2_000;
    this.agent = new Agent({ connections: 2, keepAliveTimeout: 60_000 });
  }

  /**
   * Puts rules in force at the gateway, in all its workers at once. A repeat of the epoch in force is answered the same.
   * @throws InterlockError StaleEpoch (lower than the one in force), EpochConflict (same epoch, other content), BadInput, Unavailable
   */
  async putRules(rules: Rules, hash: string): Promise<GatewayRulesTaken> {
    return (await this.call('PUT', '/interlock/rules', JSON.stringify({ rules, hash }))) as GatewayRulesTaken;
  }

  /** @throws InterlockError Unavailable when the gateway does not answer in time */
  async status(): Promise<GatewayStatus> {
    return (await this.call('GET', '/interlock/status')) as GatewayStatus;
  }

  async close(): Promise<void> {
    await this.agent.close();
  }

  private async call(method: 'GET' | 'PUT', path: string, body?: string): Promise<unknown> {
    let status: number;
    let text: string;
    try {
      const answer = await request(`${this.base}${path}`, {
        method,
        dispatcher: this.agent,
        headers: {
          authorization: `Bearer ${this.token}`,
          ...(body === undefined ? {} : { 'content-type': 'application/json' }),
        },
        ...(body === undefined ? {} : { body }),
        signal: AbortSignal.timeout(this.timeoutMs),
      });
      status = answer.statusCode;
      text = await answer.body.text();
    } catch (error) {
      throw new InterlockError(
        'Unavailable',
        `gateway ${this.base} does not answer ${method} ${path}: ${messageOf(error)}`,
        { retryable: true, cause: error, details: { what: this.base } },
      );
    }
    const document = parsed(text);
    if (status === 200 && document !== undefined) return document;
    const fault = (document as { error?: { code?: string; message?: string } } | undefined)?.error;
    const code = (CODES.includes(fault?.code ?? '') ? fault!.code : 'Internal') as ErrorCode;
    throw new InterlockError(
      code,
      `gateway ${this.base} answered ${method} ${path} with ${status}: ${fault?.message ?? text.slice(0, 200)}`,
      { retryable: status >= 500, details: { ...fault, status } },
    );
  }
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}
