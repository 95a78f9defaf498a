import { InterlockError } from '../errors.js';
import type { Router, Rules } from '../routing/rules.js';
import type { DcId, UnitId } from '../routing/units.js';
import type { UnitState } from './types.js';

/** The state of a unit in a store of `dc`, as `rules` say. */
export function assertedState(
  unit: UnitId,
  dc: DcId,
  rules: Rules,
  router: Router,
  server: string,
): UnitState {
  const { owner, state: assigned } = router.assignmentOf(unit)!;
  const state = owner !== dc ? 'remote' : assigned;
  return {
    ...{ unit, state, owner, epoch: rules.epoch, mappingVersion: router.mappingVersionOf(unit), server },
    holder: state === 'write_disabled' ? rules.holder : null,
  };
}

/** A row that knows more than the rules must not be overwritten by them. @throws InterlockError StaleEpoch, EpochConflict */
export function checkAssertion(store: string, row: UnitState, rules: Rules, router: Router): void {
  const at = `${row.unit} in ${store}`;
  const details = { store, unit: row.unit, epoch: row.epoch, rulesEpoch: rules.epoch };
  if (row.epoch > rules.epoch) {
    throw new InterlockError(
      'StaleEpoch',
      `${at} is at epoch ${row.epoch}, the rules at ${rules.epoch}: they cannot be asserted`,
      { details },
    );
  }
  const assignment = router.assignmentOf(row.unit)!;
  if (row.epoch === rules.epoch && row.state === 'write_disabled' && assignment.state === 'open') {
    throw new InterlockError(
      'EpochConflict',
      `${at} is write-disabled at epoch ${row.epoch}, the rules of this epoch say open`,
      { details },
    );
  }
}
