import { InterlockError } from '../errors.js';
import type { ErrorCode } from '../errors.js';
import { afterEffects, REPLAYABLE } from './context.js';
import type { Effects } from './context.js';

export interface HttpAnswer {
  status: number;
  headers: Record<string, string>;
  body: { error: { code: ErrorCode; message: string } & Record<string, unknown> };
}

/** Refusals on which the gateway forwards to the owner or holds; `x-interlock-refusal` has one of three names. */
const REFUSALS: Partial<Record<ErrorCode, 'WriteDisabled' | 'NotOwner' | 'StaleMapping'>> = {
  WriteDisabled: 'WriteDisabled',
  NotOwner: 'NotOwner',
  StaleMapping: 'StaleMapping',
  // Nothing may be written on this server until its states are asserted again: to a gateway that is a write-disable.
  ServerIdentityChanged: 'WriteDisabled',
};

const STATUS: Partial<Record<ErrorCode, number>> = {
  BadInput: 400,
  PartiallyExecuted: 409,
  CrossOwner: 409,
  CommitUnknown: 409,
  NoRules: 503,
  Unavailable: 503,
  TransactionLost: 503,
};

/**
 * The HTTP answer to an error of the SDK; undefined for any other error. 421 only when nothing was committed or sent in this request;
 * from then on nothing of the request can commit.
 */
export function answerTo(thrown: unknown, effects: Effects): HttpAnswer | undefined {
  const error = afterEffects(thrown, effects, REPLAYABLE);
  if (!(error instanceof InterlockError)) return undefined;
  const body = { error: { ...error.details, code: error.code, message: error.message } };
  const headers: Record<string, string> = { 'content-type': 'application/json; charset=utf-8' };
  const refusal = REFUSALS[error.code];
  if (refusal === undefined) {
    const status = STATUS[error.code] ?? 500;
    if (status === 503) headers['retry-after'] = '1';
    return { status, headers, body };
  }
  effects.refuse();
  headers['x-interlock-refusal'] = refusal;
  for (const name of ['owner', 'epoch', 'unit'] as const) {
    const value = error.details[name];
    if (typeof value === 'string' || typeof value === 'number')
      headers[`x-interlock-${name}`] = String(value);
  }
  return { status: 421, headers, body };
}
