import { InterlockError } from '../src/errors.js';
import { howToReopen } from '../src/fence/redis-loss.js';
import type { ChangeResult } from '../src/fence/types.js';
import type { UnitFence } from '../src/fence/unit-fence.js';
import type { StepInput } from '../workflows/contract.js';
import { reachedMarkers } from './baselines.js';
import type { DatacenterDeps } from './dependencies.js';
import { allOrForemost } from './failures.js';

/**
 * Step 7 looks at the target, too. Hazard: a Redis that was flushed, or restarted, after its link had met the marker does not have what it had then.
 * Guard: before the control rows are committed, each has all its states on the server that answers, and its link stands behind the marker with
 * nothing open; what takes the data away takes those with it. Errors: Refused, ServerIdentityChanged, LinkStopped, Unavailable.
 */
export async function checkTargetRedis(
  deps: DatacenterDeps,
  input: StepInput,
  fences: readonly UnitFence[],
): Promise<void> {
  const redis = fences.filter(({ kind }) => kind === 'redis');
  const links = (input.links ?? []).filter(({ link }) => link.startsWith('redis/'));
  await allOrForemost([...redis.map((fence) => checkStates(fence, input)), checkMarkers(deps, links)]);
}

async function checkStates(fence: UnitFence, { units }: StepInput): Promise<void> {
  const { states, server } = await fence.evidence(units);
  const details = { store: fence.name };
  if (states.length < units.length)
    throw new InterlockError(
      'Refused',
      `${fence.name} has no state of ${units.length - states.length} of the ${units.length} units: it has lost its data; the switch was not made. ${howToReopen(fence)}`,
      { details },
    );
  const foreign = states.find((row) => row.server !== server);
  if (foreign !== undefined)
    throw new InterlockError(
      'ServerIdentityChanged',
      `${fence.name}: its states were asserted on server ${foreign.server}, and ${server} answers (a restart?): the switch was not made. The rule center asserts them again when its link has caught up; else \`interlock rules reassert --dc ${fence.dc}\``,
      { details },
    );
}

async function checkMarkers(deps: DatacenterDeps, links: NonNullable<StepInput['links']>): Promise<void> {
  if (links.length === 0) return;
  const reached = await reachedMarkers(deps, links);
  for (const { link, markerId } of links) {
    const found = reached.find((one) => one.markerId === markerId);
    if (found === undefined)
      throw new InterlockError(
        'LinkStopped',
        `${link} does not stand behind the baseline any more: its target was flushed or restored, or it copies again; the switch was not made. See \`interlock replicate status\``,
        { details: { link } },
      );
    const { conflicts, quarantined } = found;
    if (conflicts + quarantined > 0)
      throw new InterlockError(
        'LinkStopped',
        `${link} has ${conflicts} open conflicts and ${quarantined} commands put aside: the switch was not made. See \`interlock quarantine list '${link}'\``,
        { details: { link, conflicts, quarantined } },
      );
  }
}

/** Behind the point of no return: a Redis that has no states is not opened, and not passed over either. */
export function requireOpened(opened: readonly { fence: UnitFence; result: ChangeResult }[]): void {
  for (const { fence, result } of opened) {
    if ((result.missing ?? 0) === 0) continue;
    throw new InterlockError(
      'NeedsOperator',
      `${fence.name} has no state of ${result.missing} units: it has lost its data behind the switch and stays closed. ${howToReopen(fence)}`,
      { details: { store: fence.name, missing: result.missing } },
    );
  }
}
