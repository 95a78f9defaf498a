import { Agent, request } from 'undici';
import type { RuleCenter } from '../activities/dependencies.js';
import { InterlockError, messageOf } from '../src/errors.js';
import type { ErrorCode } from '../src/errors.js';
import type { Secrets } from '../src/fence/connect.js';
import type { DcId } from '../src/routing/units.js';
import type { Topology } from '../src/topology/schema.js';

/** The rule centers of all DCs over HTTP, on connections that stay open. */
export function openRuleCenters(
  topology: Topology,
  secrets: Secrets,
): { byDc: Map<DcId, RuleCenter>; close: () => Promise<void> } {
  const agent = new Agent({ keepAliveTimeout: 600_000, keepAliveMaxTimeout: 600_000, connections: 8 });
  const byDc = new Map<DcId, RuleCenter>();
  for (const [dc, { ruleCenter }] of Object.entries(topology.datacenters)) {
    const token = secrets(ruleCenter.token);
    const ask = async <T>(
      method: 'GET' | 'POST',
      path: string,
      signal: AbortSignal,
      body?: unknown,
    ): Promise<T> => {
      let status: number;
      let text: string;
      try {
        const answer = await request(new URL(path, ruleCenter.url), {
          method,
          dispatcher: agent,
          signal,
          headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
          body: body === undefined ? null : JSON.stringify(body),
        });
        status = answer.statusCode;
        text = await answer.body.text();
      } catch (error) {
        throw new InterlockError(
          'Unavailable',
          `the rule center of ${dc} (${ruleCenter.url}) does not answer: ${messageOf(error)}`,
          {
            cause: error,
            retryable: true,
            details: { what: `rule center of ${dc}` },
          },
        );
      }
      const document = JSON.parse(text) as T & { error?: { code?: ErrorCode; message?: string } };
      if (status < 400) return document;
      throw new InterlockError(
        document.error?.code ?? 'Internal',
        `the rule center of ${dc} answered ${status}: ${document.error?.message ?? text.slice(0, 200)}`,
      );
    };
    byDc.set(dc, {
      publish: async (rules, signal) =>
        (
          await ask<{ gateways: Awaited<ReturnType<RuleCenter['publish']>> }>('POST', '/v1/rules', signal, {
            rules,
          })
        ).gateways,
      gateways: async (signal) => list(await ask('GET', '/v1/gateways', signal), 'gateways'),
      instances: async (signal) => list(await ask('GET', '/v1/instances', signal), 'instances'),
      owns: async (unit, signal) => ask('GET', `/v1/owns?unit=${encodeURIComponent(unit)}`, signal),
    });
  }
  return { byDc, close: () => agent.close() };
}

function list<T>(answer: unknown, field: string): T[] {
  return Array.isArray(answer) ? (answer as T[]) : (answer as Record<string, T[]>)[field]!;
}
