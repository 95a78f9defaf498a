import { formatLinkId } from '../../replicators/core/contract.js';
import { InterlockError, isInterlockError } from '../errors.js';
import { Router, unitsOf } from '../routing/rules.js';
import type { Rules } from '../routing/rules.js';
import type { UnitId } from '../routing/units.js';
import type { RedisFence, Seen } from './redis-fence.js';
import { howToReopen } from './redis-loss.js';
import type { RulesStore } from './rules-store.js';
import type { UnitState } from './types.js';

/** What a Redis that came back is compared with. */
export interface Witnesses {
  /** Of its DC's control store. */
  history: Pick<RulesStore, 'before'>;
  /** The store of the same name in the other DC; undefined: there is none. */
  source: RedisFence | undefined;
}

/**
 * Asserts the states again on a server with another identity when what it holds is as new as its last fence.
 *
 * Hazard: a Redis that came back with an older snapshot has all its states. Opened, it serves what it had before a switch, and its inbound link puts
 * the former owner's writes over new ones. Guard: each unit that this DC owns is there as of when it became its own, and the inbound link stands behind the
 * last marker of the other DC. What this DC itself wrote behind the snapshot nothing tells: that is the server's own persistence.
 * @throws InterlockError NeedsOperator: it may be older, and stays closed
 */
export async function reassertFresh(
  fence: RedisFence,
  rules: Rules,
  { history, source }: Witnesses,
): Promise<{ written: UnitId[]; server: string }> {
  const { server, asserted, states, was } = await fence.look(null);
  const isWhole = unitsOf(rules).every((unit) => states.has(unit));
  if (server !== asserted && isWhole) {
    const why =
      (source === undefined ? undefined : await missedMarker(fence, source)) ??
      (await missedChange(fence, rules, { states, was }, history));
    if (why !== undefined)
      throw new InterlockError(
        'NeedsOperator',
        `${fence.name}: its unit states were asserted on ${asserted}, and ${server} answers; writes of these units are refused. Not re-asserted: ${why}`,
        { details: { store: fence.name, asserted, server } },
      );
  }
  return fence.reassert(rules, false, server);
}

async function missedMarker(fence: RedisFence, source: RedisFence): Promise<string | undefined> {
  const link = formatLinkId({ kind: 'redis', store: fence.store, from: source.dc, to: fence.dc });
  let marker: string | null;
  try {
    marker = await source.lastMarker();
  } catch (error) {
    if (!isInterlockError(error, 'Unavailable')) throw error;
    return `${error.message}, so nobody knows what this server has missed. Bring it back`;
  }
  const [checkpoint] = await fence.checkpointMarkers([link]);
  if (marker === (checkpoint?.marker ?? null)) return undefined;
  return (
    `${link} does not stand behind the last fence of ${source.dc} (marker ${marker ?? 'none'}, it has ${checkpoint?.marker ?? 'none'}): older data came back, or the link was behind. ` +
    `It is re-asserted when the link has caught up; when it cannot: ${howToReopen(fence, link)}`
  );
}

/**
 * Each document in which a unit was not open here is of before its state. Hazard: a compensation writes over the states that an older snapshot came
 * back with, and they look new. Guard: what they were says how old the data is.
 */
async function missedChange(
  fence: RedisFence,
  rules: Rules,
  { states, was }: Pick<Seen, 'states' | 'was'>,
  history: Witnesses['history'],
): Promise<string | undefined> {
  const { dc } = fence;
  const opens = (router: Router, unit: UnitId): boolean => {
    const assignment = router.assignmentOf(unit);
    return assignment === undefined || (assignment.owner === dc && assignment.state === 'open');
  };
  const current = new Router(rules);
  const own = unitsOf(rules).filter((unit) => opens(current, unit));
  const cameWith = (unit: UnitId): UnitState => was.get(unit) ?? states.get(unit)!;
  const older = new Set(own.filter((unit) => states.get(unit)!.state !== 'open'));
  let lowest = Math.min(...own.map((unit) => cameWith(unit).epoch));
  if (older.size > 0) lowest = Infinity;
  for (let at = rules.epoch; at > lowest && older.size === 0;) {
    const document = await history.before(at);
    if (document === undefined) break;
    at = document.rules.epoch;
    const router = new Router(document.rules);
    for (const unit of own) {
      const { owner, epoch } = cameWith(unit);
      // What was another's then and is this DC's now comes by the link, but for what this one wrote in between.
      const missed =
        owner === dc ? !opens(router, unit) : opens(router, unit) && at < states.get(unit)!.epoch;
      if (epoch < at && missed) older.add(unit);
    }
  }
  const [first] = older;
  if (first === undefined) return undefined;
  const { state, owner, epoch } = cameWith(first);
  return (
    `${older.size} units that ${dc} owns now are there as before a switchover (${first}: ${state} of ${owner} at epoch ${epoch}): it came back with older data, and has lost what was written since. ` +
    howToReopen(fence)
  );
}
