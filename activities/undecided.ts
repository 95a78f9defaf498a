import { formatLinkId } from '../replicators/core/contract.js';
import { InterlockError } from '../src/errors.js';
import type { UnitFence } from '../src/fence/unit-fence.js';
import { wantedLinks } from '../src/topology/derive.js';
import type { StepInput } from '../workflows/contract.js';
import type { DatacenterDeps } from './dependencies.js';

/**
 * The links into the source bring what was written in the target past the fence: a row (or key) of the moved units that the two sides have
 * otherwise is known here only, and has to be decided before the target's becomes the owner's.
 */
export async function checkReverse(
  { topology }: DatacenterDeps,
  fence: UnitFence,
  { from, to }: Pick<StepInput, 'from' | 'to'>,
): Promise<void> {
  const links = wantedLinks(topology)
    .filter(
      (link) =>
        link.kind === fence.kind && link.store === fence.store && link.from === to && link.to === from,
    )
    .map((link) => formatLinkId(link));
  for (const { link, conflicts, quarantined } of await fence.checkpointMarkers(links)) {
    if (conflicts + quarantined === 0) continue;
    throw new InterlockError(
      'Refused',
      `${link} has ${conflicts} open conflicts and ${quarantined} transactions kept aside: the switch was not made. See \`interlock conflicts list '${link}'\`, \`interlock quarantine list '${link}'\``,
      { details: { link, conflicts, quarantined } },
    );
  }
}
