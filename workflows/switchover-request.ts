import type { SwitchPolicies, SwitchRequest } from './contract.js';

const DURATIONS = [
  'drainTimeoutMs',
  'fenceBudgetMs',
  'soakMs',
  'lagLimitMs',
  'catchUpTimeoutMs',
  'confirmTimeoutMs',
] as const satisfies readonly (keyof SwitchPolicies)[];
/** A year: longer is a typing error, and Temporal refuses much longer timers. */
const LONGEST_MS = 366 * 86_400_000;
/** The rules keep it within their own reason (1024), and refuse a longer one only when the fence is asked for. */
const LONGEST_REASON = 400;

/** What is wrong with a request, naming the field; undefined when nothing is. A client may be anybody: the types do not hold here. */
export function checkRequest(request: SwitchRequest | undefined): string | undefined {
  if (request === null || typeof request !== 'object')
    return 'The input has to be a SwitchRequest (`interlock switch start` makes one).';
  for (const field of ['topology', 'scope', 'from', 'to', 'startedBy'] as const) {
    if (typeof request[field] !== 'string' || request[field] === '') return `${field}: expected a text`;
  }
  if (typeof request.reason !== 'string') return 'reason: expected a text';
  // Hazard: rules whose reason is too long are refused in the fenced window, where it costs time.
  if (request.reason.length > LONGEST_REASON) {
    return `reason: expected at most ${LONGEST_REASON} characters (it has ${request.reason.length})`;
  }
  if (request.from === request.to) return `to: expected another data center than from (${request.from})`;
  for (const dc of [request.from, request.to]) {
    if (!request.taskQueues?.[dc]) return `taskQueues: expected the task queue of ${dc}`;
  }
  const { policies } = request;
  if (policies === null || typeof policies !== 'object') return 'policies: expected an object';
  for (const field of DURATIONS) {
    const value: unknown = policies[field];
    if (typeof value !== 'number' || !Number.isInteger(value) || value < 0 || value > LONGEST_MS) {
      return `policies.${field}: expected whole milliseconds from 0 to ${LONGEST_MS}`;
    }
  }
  const { requireVerifyMs } = policies;
  if (requireVerifyMs !== undefined && !(Number.isInteger(requireVerifyMs) && requireVerifyMs > 0))
    return 'policies.requireVerifyMs: expected whole milliseconds, 1 or more';
  if (policies.catchUpTimeoutMs === 0) return 'policies.catchUpTimeoutMs: expected more than 0';
  if (!['abort', 'extend'].includes(policies.drainTimeout))
    return 'policies.drainTimeout: expected abort or extend';
  if (!['kill', 'give-up'].includes(policies.blockers)) return 'policies.blockers: expected kill or give-up';
  if (!['report', 'wait'].includes(policies.unconfirmed))
    return 'policies.unconfirmed: expected report or wait';
  // Hazard: rounds that take no time fill the run's history, and Temporal ends the run.
  if (policies.unconfirmed === 'wait' && policies.confirmTimeoutMs === 0)
    return 'policies.confirmTimeoutMs: expected more than 0 when unconfirmed is wait';
  return undefined;
}
