import { InterlockError } from '../errors.js';
import type { Holder } from '../routing/rules.js';
import type { DcId, UnitId } from '../routing/units.js';
import type { UnitChange, UnitState } from './types.js';

/** What is known when a change meets a row under its lock. */
export interface GuardContext {
  /** Names the store in messages: `dc-a mysql/main`. */
  store: string;
  /** The DC of the store. */
  dc: DcId;
  /** Identity of the server that answers now. */
  server: string;
  /** Compensation: `raise` at the target, which must still be remote; `reopen` at the source, which must not have been handed over. */
  mode: 'change' | 'raise' | 'reopen';
}

export function sameHolder(a: Holder | null | undefined, b: Holder | null | undefined): boolean {
  return a?.workflowId === b?.workflowId && a?.runId === b?.runId;
}

/**
 * May `change` be carried out on this row? Every refusal leaves the row as it is.
 *
 * Errors: Refused (no row, or not this store's DC), ServerIdentityChanged, AlreadySwitched (compensation only), StaleEpoch,
 * EpochConflict, HeldByOther, NotOwner.
 */
export function verdictOf(
  unit: UnitId,
  row: UnitState | undefined,
  change: UnitChange,
  context: GuardContext,
): 'apply' | 'unchanged' {
  const { store, dc, server } = context;
  const at = `${unit} in ${store}`;
  if (row === undefined) {
    throw new InterlockError('Refused', `${at} has no state: run \`interlock rules init\``, {
      details: { store, unit },
    });
  }
  const details = {
    store,
    unit,
    epoch: row.epoch,
    state: row.state,
    owner: row.owner,
    holder: row.holder,
    requestedEpoch: change.epoch,
  };
  if (row.server !== server) {
    // A restored or failed-over server may have missed a fence: its rows mean nothing until they are re-asserted.
    throw new InterlockError(
      'ServerIdentityChanged',
      `${at} was asserted on server ${row.server}, and ${server} answers: compare both DCs, then run \`interlock rules reassert --dc ${dc}\``,
      { details: { ...details, asserted: row.server, server } },
    );
  }
  if (context.mode === 'raise' && row.state !== 'remote') {
    throw new InterlockError(
      'AlreadySwitched',
      `${at} is ${row.state} since epoch ${row.epoch}: ${dc} owns it, only rolling forward is possible`,
      { details },
    );
  }
  if (context.mode === 'reopen' && row.state === 'remote') {
    throw new InterlockError(
      'AlreadySwitched',
      `${at} was handed over to ${row.owner} at epoch ${row.epoch}: only rolling forward is possible`,
      { details },
    );
  }
  if (row.epoch > change.epoch) {
    throw new InterlockError(
      'StaleEpoch',
      `${at} is at epoch ${row.epoch}, and the operation at epoch ${change.epoch} came late: nothing was changed`,
      { details },
    );
  }
  const mappingVersion = change.mappingVersions?.[unit];
  if (row.epoch === change.epoch) {
    const same =
      row.state === change.to &&
      row.owner === change.owner &&
      sameHolder(row.holder, change.holder) &&
      (mappingVersion === undefined || mappingVersion === row.mappingVersion);
    if (same) return 'unchanged';
    throw new InterlockError(
      'EpochConflict',
      `${at} has epoch ${row.epoch} already as ${row.state} of ${row.owner}, written by ${describeHolder(row.holder)}: an epoch has one content`,
      { details },
    );
  }
  if (
    row.state === 'write_disabled' &&
    !sameHolder(row.holder, change.holder) &&
    !(change.takeOverFrom !== undefined && sameHolder(row.holder, change.takeOverFrom))
  ) {
    throw new InterlockError(
      'HeldByOther',
      `${at} is write-disabled by ${describeHolder(row.holder)} since epoch ${row.epoch}: see \`interlock fence status\``,
      { details },
    );
  }
  if (change.to === 'write_disabled' && row.state === 'remote') {
    throw new InterlockError(
      'NotOwner',
      `${at} belongs to ${row.owner} since epoch ${row.epoch}: it cannot be write-disabled in ${dc}`,
      { details },
    );
  }
  return 'apply';
}

/** A store writes only for its own DC: `open` and `write_disabled` name it as the owner, `remote` names another. */
export function checkChange(change: UnitChange, context: GuardContext): void {
  if (change.units.length === 0) {
    throw new InterlockError('BadInput', `${context.store}: a change needs at least one unit`);
  }
  if (!Number.isSafeInteger(change.epoch) || change.epoch < 1) {
    throw new InterlockError('BadInput', `${context.store}: epoch ${change.epoch} is not a positive integer`);
  }
  if ((change.owner === context.dc) !== (change.to !== 'remote')) {
    throw new InterlockError(
      'BadInput',
      `${context.store}: a unit that ${change.owner} owns cannot be ${change.to} in ${context.dc}`,
    );
  }
  if (change.readOnly === true && change.to !== 'write_disabled') {
    throw new InterlockError(
      'BadInput',
      `${context.store}: read_only goes with write_disabled, not ${change.to}`,
    );
  }
  if (change.rules !== undefined && change.rules.epoch !== change.epoch) {
    throw new InterlockError(
      'BadInput',
      `${context.store}: the rules document has epoch ${change.rules.epoch}, the change ${change.epoch}`,
    );
  }
}

function describeHolder(holder: Holder | null): string {
  return holder === null ? 'no run' : `${holder.workflowId} (run ${holder.runId})`;
}
