/**
 * Every error that leaves a public function of Interlock is an InterlockError. `code` is stable and is what callers,
 * HTTP answers, workflows and exit codes go by; the message is for people. A code's comment is its operator manual.
 */
export type ErrorCode =
  /** Input (flag, file, document, request) is not valid; `details` names the field. Mend the input. */
  | 'BadInput'
  /** The unit is write-disabled, or its row is locked by a fence in progress. Retry after the switchover. */
  | 'WriteDisabled'
  /** Another data center owns the unit. Send the request there: `details.owner`, `details.epoch`. */
  | 'NotOwner'
  /** The caller's user → unit mapping is older or newer than the store's. Refresh the rules and retry. */
  | 'StaleMapping'
  /** The units of one transaction have different owners. Split the transaction. */
  | 'CrossOwner'
  /** Part of this request may have been committed or sent. Never replay it without an idempotency key. */
  | 'PartiallyExecuted'
  /** The connection was lost while COMMIT was under way: committed or not, nobody knows. */
  | 'CommitUnknown'
  /** A statement that is not allowed in a fenced transaction, or a write outside of one. */
  | 'StatementRefused'
  /** The transaction was rolled back by the server under its handle (deadlock, lost connection). */
  | 'TransactionLost'
  /** The row's epoch is already higher: the operation is late and was not carried out. */
  | 'StaleEpoch'
  /** The same epoch was already written with other content. */
  | 'EpochConflict'
  /** Another switchover run holds the units. `details.holder`. */
  | 'HeldByOther'
  /** The server is not the one on which the states were asserted (restore, failover). Re-assert the states. */
  | 'ServerIdentityChanged'
  /** Transactions in flight outlived the fence's budget; `details.blockers` lists them. */
  | 'FenceBudgetExceeded'
  /** The target already opened: only rolling forward is possible. */
  | 'AlreadySwitched'
  /** Something that must answer does not: `details.what`. */
  | 'Unavailable'
  /** A precondition of the operation does not hold; the message says which and what to do. */
  | 'Refused'
  /** An applied change cannot be carried out on the target, or was not owned by the source: the link has stopped. */
  | 'LinkStopped'
  /** Needs an operator: the message names the command. Exit code 3. */
  | 'NeedsOperator'
  /** No rules are known yet. Run `interlock rules init`. */
  | 'NoRules'
  /** An unexpected failure: a defect, or a server that answered what it should not. */
  | 'Internal';

export interface InterlockErrorOptions {
  retryable?: boolean;
  cause?: unknown;
  details?: Record<string, unknown>;
}

export class InterlockError extends Error {
  readonly code: ErrorCode;
  readonly retryable: boolean;
  readonly details: Record<string, unknown>;

  constructor(code: ErrorCode, message: string, options: InterlockErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'InterlockError';
    this.code = code;
    this.retryable = options.retryable ?? false;
    this.details = options.details ?? {};
  }
}

export function isInterlockError(error: unknown, code?: ErrorCode): error is InterlockError {
  return error instanceof InterlockError && (code === undefined || error.code === code);
}

/** The message of anything that was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
