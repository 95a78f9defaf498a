import type { BaselineReached } from '../replicators/core/contract.js';
import type { LinkMarker } from '../workflows/contract.js';
import type { DatacenterDeps } from './dependencies.js';
import { allOrForemost } from './failures.js';
import { isOf, kafkaMember } from './links.js';

/** The markers that the links have committed here, and with them all that came before. */
export async function reachedMarkers(
  deps: DatacenterDeps,
  links: readonly Pick<LinkMarker, 'link' | 'markerId'>[],
): Promise<BaselineReached[]> {
  const { all } = deps.stores.get(deps.dc)!;
  const reached: BaselineReached[] = [];
  const targets = [
    ...all.map((fence) => ({ target: fence, here: links.filter(({ link }) => isOf(link, fence)) })),
    ...links.flatMap((one) => {
      const member = kafkaMember(deps, deps.dc, one.link);
      return member === undefined ? [] : [{ target: member, here: [one] }];
    }),
  ];
  const found = targets.map(async ({ target, here }) => {
    for (const checkpoint of await target.checkpointMarkers(here.map((one) => one.link))) {
      const { link, position, marker, conflicts, quarantined } = checkpoint;
      const waited = here.find((one) => one.link === link && one.markerId === marker);
      if (waited !== undefined)
        reached.push({ markerId: waited.markerId, link, position, conflicts, quarantined });
    }
  });
  await allOrForemost(found);
  return reached;
}
