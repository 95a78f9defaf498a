import { withAssignments } from '../src/routing/rules.js';
import type { AssignmentState, Holder, Rules } from '../src/routing/rules.js';
import type { DcId, UnitId } from '../src/routing/units.js';

/** The rules of one step: `units` at `owner` in `state`, all else as in `base`. Fence, switch and re-open differ only in these. */
export function stepRules(
  base: Rules,
  step: {
    units: readonly UnitId[];
    owner: DcId;
    state: AssignmentState;
    epoch: number;
    reason: string;
    holder: Holder | null;
  },
): Rules {
  const { units, owner, state, epoch, reason, holder } = step;
  const changes = new Map(units.map((unit) => [unit, { owner, state }] as const));
  return withAssignments(base, changes, { epoch, reason, holder });
}
