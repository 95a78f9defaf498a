import { InterlockError } from '../../errors.js';
import type { Router } from '../../routing/rules.js';
import type { DcId, UnitId } from '../../routing/units.js';

/** Whether `dc` may write the unit by these rules; else the refusal, as a store's own check gives it. */
export function refusalOf(unit: UnitId, router: Router, dc: DcId): InterlockError | undefined {
  const route = router.routeUnit(unit);
  if (route?.owner === dc && route.state === 'open') return undefined;
  const details = { unit, owner: route?.owner ?? null, epoch: router.epoch };
  if (route === undefined)
    return new InterlockError('WriteDisabled', `${unit} is not in the rules of epoch ${router.epoch}`, {
      retryable: true,
      details: { ...details, reason: 'absent' },
    });
  if (route.owner !== dc)
    return new InterlockError('NotOwner', `${unit} belongs to ${route.owner} by epoch ${router.epoch}`, {
      details,
    });
  return new InterlockError('WriteDisabled', `${unit} is write-disabled by epoch ${router.epoch}`, {
    retryable: true,
    details: { ...details, reason: 'fenced' },
  });
}

export function isWritable(unit: UnitId, router: Router, dc: DcId): boolean {
  const assignment = router.assignmentOf(unit);
  return assignment?.owner === dc && assignment.state === 'open';
}
