import { InterlockError } from '../errors.js';
import type { Router } from '../routing/rules.js';
import { centralUnit, parseUnit } from '../routing/units.js';
import type { RoutingKey, UnitId } from '../routing/units.js';

/** What a transaction writes: a user's data, data with one writer for all, or a unit named outright. */
export type Target = RoutingKey | { central: string } | { unit: UnitId };

export interface WantedUnit {
  unit: UnitId;
  /** The version of the user → unit mapping by which the unit was found; undefined when no user was mapped. */
  mappingVersion: number | undefined;
}

/** The units of the targets, sorted, each once. `router` is asked only when a user has to be mapped. */
export function unitsOfTargets(targets: readonly Target[], router: () => Router): WantedUnit[] {
  if (targets.length === 0) {
    throw new InterlockError('BadInput', 'routing key: expected at least one', {
      details: { field: 'key' },
    });
  }
  const wanted = new Map<UnitId, WantedUnit>();
  for (const target of targets) {
    const one = unitOfTarget(target, router);
    const other = wanted.get(one.unit);
    if (other?.mappingVersion === undefined) wanted.set(one.unit, one);
  }
  return [...wanted.values()].sort((a, b) => (a.unit < b.unit ? -1 : 1));
}

function unitOfTarget(target: Target, router: () => Router): WantedUnit {
  if ('unit' in target || 'central' in target) {
    const unit = 'unit' in target ? target.unit : centralUnit(target.central);
    if (typeof unit !== 'string' || parseUnit(unit) === undefined) {
      const field = 'unit' in target ? 'unit' : 'central';
      throw new InterlockError(
        'BadInput',
        `${field}: ${JSON.stringify(target)} names no unit; expected like cn-east/42, segment:vip or { central: 'coupons' }`,
        { details: { field } },
      );
    }
    return { unit, mappingVersion: undefined };
  }
  if (typeof target.userId !== 'string' || target.userId === '') {
    throw new InterlockError('BadInput', 'routing key: userId: expected a string that is not empty', {
      details: { field: 'userId' },
    });
  }
  const map = router();
  const unit = map.unitOf(target);
  if (unit === undefined) {
    throw new InterlockError(
      'BadInput',
      `routing key: region: ${JSON.stringify(target.region)} is not routed; expected one of ${Object.keys(map.rules.regions).join(', ')}`,
      { details: { field: 'region' } },
    );
  }
  return { unit, mappingVersion: map.mappingVersionOf(unit) };
}
