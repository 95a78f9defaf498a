import { AsyncLocalStorage } from 'node:async_hooks';
import { InterlockError } from '../errors.js';
import type { ErrorCode } from '../errors.js';
import type { Target } from './target.js';

/**
 * What a request (or one try of a transaction's callback inside of it) has done so far that a second execution would do again.
 * What a try does counts for the request too.
 */
export class Effects {
  /** Transactions committed, or perhaps committed. */
  private committed = 0;
  private committing = 0;
  private sent = false;
  private refusedHere = false;

  constructor(private readonly parent?: Effects) {}

  /** Nothing was committed or sent, and no COMMIT is under way: it may be executed again. */
  get none(): boolean {
    return this.committed === 0 && this.committing === 0 && !this.sent;
  }

  get request(): Effects {
    return this.parent?.request ?? this;
  }

  /** The request was answered with 421: a gateway executes it elsewhere, so nothing of it may commit here any more. */
  get refused(): boolean {
    return this.request.refusedHere;
  }

  refuse(): void {
    this.request.refusedHere = true;
  }

  commitBegins(): void {
    this.committing++;
    this.parent?.commitBegins();
  }

  /** `kept`: committed, or nobody knows. */
  commitEnds(kept: boolean): void {
    this.committing--;
    if (kept) this.committed++;
    this.parent?.commitEnds(kept);
  }

  markSent(): void {
    this.sent = true;
    this.parent?.markSent();
  }

  get words(): string {
    return this.sent ? 'sent' : 'committed';
  }
}

export interface RequestContext {
  target?: Target | readonly Target[] | undefined;
  effects: Effects;
  /** In the callback of a fenced transaction. */
  inTransaction?: boolean;
}

export const contexts = new AsyncLocalStorage<RequestContext>();

/** Errors that say "nothing was done here, run it elsewhere or later". */
export const REFUSALS: readonly ErrorCode[] = [
  'WriteDisabled',
  'NotOwner',
  'StaleMapping',
  'ServerIdentityChanged',
];
/** As an HTTP answer, a lost transaction says that too. */
export const REPLAYABLE: readonly ErrorCode[] = [...REFUSALS, 'TransactionLost'];

/** Hazard: a refusal after part of the request was committed or sent reads as "run it elsewhere" and doubles that part. */
export function afterEffects(error: unknown, effects: Effects, codes: readonly ErrorCode[]): unknown {
  const request = effects.request;
  if (request.none || !(error instanceof InterlockError) || !codes.includes(error.code)) return error;
  return new InterlockError(
    'PartiallyExecuted',
    `part of this request was already ${request.words}, then: ${error.message}. Replay it only with an idempotency key`,
    { cause: error, details: { ...error.details, refusal: error.code } },
  );
}

/** Hazard: a request that was answered with 421 runs on in the background and commits, while a gateway executes it elsewhere. */
export function assertNotRefused(effects: Effects): void {
  if (!effects.refused) return;
  throw new InterlockError(
    'Refused',
    'this request was answered with 421 and is executed elsewhere: nothing of it may commit here. Await all work before answering',
  );
}
