import { z } from 'zod';
import { InterlockError } from '../errors.js';
import { MAX_KEY_BYTES } from '../routing/key.js';
import type { RoutingKey, UnitId } from '../routing/units.js';
import { parseUnit } from '../routing/units.js';
import type { LeaseRequest } from './api.js';

/** What clients send, checked. Every refusal is BadInput with `details.field`. */

export function badField(field: string, problem: string): InterlockError {
  return new InterlockError('BadInput', `${field}: ${problem}`, { details: { field } });
}

const text = z
  .string()
  .min(1)
  .regex(/^[^\u0000-\u001f\u007f]*$/, 'expected no control characters')
  .refine((value) => Buffer.byteLength(value) <= MAX_KEY_BYTES, `expected at most ${MAX_KEY_BYTES} bytes`);

const keySchema = z.strictObject({ userId: text, region: text.optional() });
const unitSchema = z.strictObject({
  unit: z
    .string()
    .refine((unit) => parseUnit(unit) !== undefined, 'expected a unit such as cn-east/42 or segment:vip'),
});
const leaseSchema = z.strictObject({
  instance: text,
  application: text,
  epoch: z.number().int().min(0).max(Number.MAX_SAFE_INTEGER),
});

/** `?userId=&region=` */
export function keyOf(query: unknown): RoutingKey {
  const { userId, region } = parsed(keySchema, query, 'query');
  return region === undefined ? { userId } : { userId, region };
}

/** `?userId=&region=`, or `?unit=` */
export function keyOrUnitOf(query: unknown): RoutingKey | { unit: UnitId } {
  const hasUnit = query !== null && typeof query === 'object' && 'unit' in query;
  return hasUnit ? parsed(unitSchema, query, 'query') : keyOf(query);
}

export function leaseOf(body: unknown): LeaseRequest {
  return parsed(leaseSchema, body, 'body');
}

/** `?application=&instance=` */
export function holderOf(query: unknown): Omit<LeaseRequest, 'epoch'> {
  return parsed(leaseSchema.omit({ epoch: true }), query, 'query');
}

/** `?since=` or the `Last-Event-ID` of a reader that comes back; the header says what it has seen last. */
export function sinceOf(query: unknown, lastEventId: string | string[] | undefined): number {
  const epoch = (field: string, value: unknown): number => {
    if (typeof value !== 'string' || !/^\d{1,15}$/.test(value)) throw badField(field, 'expected an epoch');
    return Number(value);
  };
  if (lastEventId !== undefined && lastEventId !== '') return epoch('Last-Event-ID', lastEventId);
  const since = (query as Record<string, unknown>)['since'];
  return since === undefined ? 0 : epoch('since', since);
}

function parsed<T>(schema: z.ZodType<T>, value: unknown, where: string): T {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const issue = result.error.issues[0]!;
  const field =
    issue.code === 'unrecognized_keys' ? issue.keys[0]! : issue.path.map(String).join('.') || where;
  throw badField(field, issue.message.replace(/^Invalid input: /, ''));
}
