import { activityInfo, cancellationSignal, heartbeat, sleep } from '@temporalio/activity';
import { parseLinkId } from '../replicators/core/contract.js';
import type { BaselineReached } from '../replicators/core/contract.js';
import { InterlockError, isInterlockError, messageOf } from '../src/errors.js';
import type { ErrorCode } from '../src/errors.js';
import type { DcStores } from '../src/fence/connect.js';
import type { FenceStore } from '../src/fence/fence-store.js';
import { sameHolder } from '../src/fence/guard.js';
import type { FenceBudget, UnitChange, UnitState } from '../src/fence/types.js';
import type { UnitFence } from '../src/fence/unit-fence.js';
import type { DcId } from '../src/routing/units.js';
import type {
  DatacenterActivities,
  GatewayConfirmation,
  PlanLink,
  StepInput,
  SwitchPlan,
  SwitchResult,
  SwitchWhenDrainedInput,
  WriteDisableResult,
} from '../workflows/contract.js';
import { announce, unconfirmed, within } from './announce.js';
import { reachedMarkers } from './baselines.js';
import { checkDatacenter, checkOutcome } from './checks.js';
import type { DatacenterDeps } from './dependencies.js';
import { allOrForemost, foremost, withFailures } from './failures.js';
import { endAbandoned, prepareKafka, writeKafkaBaseline } from './kafka-baseline.js';
import { isOf, planLink, relaysOf } from './links.js';
import { checkTargetRedis, requireOpened } from './target-redis.js';
import { checkReverse } from './undecided.js';

/**
 * A gateway holds what a store refuses. Telling it of the fence saves those refusals, and is worth what it costs when the fence stands
 * for longer than a quick switch takes.
 */
const HOLD_AFTER_MS = 100;
/**
 * The target switches by itself, and the turn of the workflow that the fence's answer makes would take the machine's time from it: the
 * answer is given when the target is open, or after this long.
 */
const QUIET_MS = 250;
const QUIET_POLL_MS = 20;
/** A rule center or gateway that is slower than this is left to the confirm step. */
const ROUTE_CONFIRM_MS = 2_000;
const CATCH_UP_POLL_MS = 50;
const CONFIRM_POLL_MS = 50;
const REHEARSALS = 3;
const REHEARSAL_MS = 2_000;
/** For links that run in another process; those of this one say when they have committed a marker. */
const MARKER_POLL_MS = 10;

/** The activities of one DC's task queue. All talk to this DC's stores; the rule centers may be down. */
export function createDatacenterActivities(deps: DatacenterDeps): DatacenterActivities {
  const own = storesOf(deps, deps.dc);

  return withFailures<DatacenterActivities>({
    async preflight({ plan }) {
      const checks = await checkDatacenter(deps, plan, heartbeat);
      if (checks.every(({ ok }) => ok)) await rehearse(deps, plan);
      return checks;
    },

    async catchUp({ links, lagLimitMs }) {
      const sources = new Set(links.flatMap((link) => parseLinkId(link)?.from ?? []));
      // What the outboxes of the source still hold goes the same way.
      const awaited = [...links, ...[...sources].flatMap((dc) => relaysOf(deps.topology, dc))];
      for (;;) {
        const statuses = await Promise.all(awaited.map((link) => planLink(link, deps)));
        heartbeat(statuses);
        if (statuses.every((status) => status.state === 'streaming' && status.lagMs <= lagLimitMs))
          return statuses;
        const ended = statuses.find(({ state }) =>
          ['failed', 'diverged', 'stopped', 'resync-required', 'gap'].includes(state),
        );
        if (ended !== undefined) throw linkDown(ended);
        await sleep(CATCH_UP_POLL_MS);
      }
    },

    async writeDisable(input): Promise<WriteDisableResult> {
      requireDc(deps, input.from);
      const holdSentAt = Date.now();
      const holding = setTimeout(() => void hold(deps, own, input), HOLD_AFTER_MS);
      const giveUp = (error: unknown): never => {
        clearTimeout(holding);
        throw error;
      };
      void prepareKafka(deps, input);
      const fenced = await allOrForemost(
        own.all.map(async (fence) => {
          const link = input.links.find((one) => isOf(one.link, fence));
          const { workflowId, runId } = input.holder;
          const marker =
            link === undefined
              ? {}
              : { marker: { id: link.markerId, workflowId, runId, epoch: input.epoch } };
          const result = await fence.change(
            {
              ...changeOf(input, fence, own),
              to: 'write_disabled',
              owner: input.from,
              readOnly: input.readOnly === true,
              ...marker,
            },
            budgetOf(input),
          );
          return { link, result };
        }),
      ).catch(giveUp);
      const written = await writeKafkaBaseline(deps, input).catch(giveUp);
      const fencedAt = Date.now();
      await opened(storesOf(deps, input.to).control, input, fencedAt + QUIET_MS);
      return {
        holdSentAt,
        fencedAt,
        attempt: activityInfo().attempt,
        baselines: [
          ...fenced.flatMap(({ link, result }) =>
            link === undefined ? [] : [{ ...link, position: result.position }],
          ),
          ...written,
        ],
        blockers: fenced.flatMap(({ result }) => result.blockers),
      };
    },

    async readBaselines({ links }): Promise<BaselineReached[]> {
      return reachedMarkers(deps, links);
    },

    async switchWhenDrained(input) {
      requireDc(deps, input.to);
      const deadline = performance.now() + input.waitMs;
      const arrivals = deps.markers.await(input.links.map(({ markerId }) => markerId));
      try {
        for (;;) {
          const missing = await notDrained(deps, input);
          if (missing === undefined) break;
          if (performance.now() > deadline) {
            deps.log.info({ epoch: input.epoch, missing }, 'not switched with the fence');
            return null;
          }
          await arrivals.next(MARKER_POLL_MS);
        }
        const reachedAt = Date.now();
        const switched = await switchOver(deps, own, input, { fencing: true });
        return switched && { ...switched, reachedAt };
      } finally {
        arrivals.end();
      }
    },

    async switchTarget(input) {
      requireDc(deps, input.to);
      return (await switchOver(deps, own, input, { fencing: false }))!;
    },

    async handOverSource(input) {
      requireDc(deps, input.from);
      const route = announce(deps, input.from, input.rules);
      await allOrForemost(
        own.all.map((fence) =>
          fence.change({ ...changeOf(input, fence, own), to: 'remote', owner: input.to }, budgetOf(input)),
        ),
      );
      const { at, gateways } = await confirmedWithin(deps, input.from, route, ROUTE_CONFIRM_MS);
      return { routedAt: at, gateways };
    },

    async raiseTarget(input) {
      requireDc(deps, input.to);
      const raise = (fence: UnitFence) =>
        fence.raise({ ...changeOf(input, fence, own), to: 'remote', owner: input.from }, budgetOf(input));
      // The control store decides whether the switch has happened: it is asked first, and alone.
      await raise(own.control);
      await allOrForemost(own.all.filter((fence) => fence !== own.control).map(raise));
    },

    async reopenSource(input) {
      requireDc(deps, input.from);
      const reopened = await Promise.allSettled(
        own.all.map((fence) =>
          fence.reopen({ ...changeOf(input, fence, own), to: 'open', owner: input.from }, budgetOf(input)),
        ),
      );
      const failures = reopened.flatMap((one) => (one.status === 'rejected' ? [one.reason as unknown] : []));
      // Hazard: the transaction that a fence gave up on also keeps this from the rows, which are open, and the gateways hold for as
      // long as it lasts. They release first: the stores refuse what is still write-disabled.
      if (!failures.every(isBlocked)) throw foremost(failures);
      const releases = [input.from, input.to].map((dc) =>
        confirmedWithin(deps, dc, announce(deps, dc, input.rules), ROUTE_CONFIRM_MS),
      );
      const gateways = (await Promise.all(releases)).flatMap((one) => one.gateways);
      if (failures.length > 0) throw foremost(failures);
      return gateways;
    },

    async confirm({ epoch, timeoutMs }) {
      const deadline = Date.now() + timeoutMs;
      for (;;) {
        const confirmations = await confirmationsOf(deps, epoch);
        heartbeat(confirmations);
        if (confirmations.every(({ ok }) => ok) || Date.now() >= deadline) return confirmations;
        const stored = await own.rules.current();
        if (stored !== undefined && stored.rules.epoch >= epoch) await announce(deps, deps.dc, stored.rules);
        await sleep(CONFIRM_POLL_MS);
      }
    },

    postCheck: (input) => checkOutcome(deps, input),

    async gatewayTotals() {
      const views = await deps.ruleCenters.get(deps.dc)!.gateways(cancellationSignal());
      return {
        heldRequests: sum(views.map((view) => view.heldTotal)),
        refusedRequests: sum(views.map((view) => view.refusedTotal)),
        failedRequests: sum(views.map((view) => view.failedTotal)),
        unavailableMs: Math.max(0, ...views.map((view) => view.unavailableMs)),
      };
    },
  });
}

/**
 * Goes the ways of the window with the rules in force, so that connections are open and programs warm. It proves nothing, and gives up
 * what is slow.
 */
async function rehearse(deps: DatacenterDeps, { from, to, units, rules }: SwitchPlan): Promise<void> {
  const fences = [from, to].flatMap((dc) => storesOf(deps, dc).all);
  const deadline = Date.now() + REHEARSAL_MS;
  for (let round = 0; round < REHEARSALS && Date.now() < deadline; round++) {
    const ways = [
      ...[from, to].map((dc) => announce(deps, dc, rules)),
      ...fences.map((fence) => fence.evidence(units).then(() => fence.warm())),
      ...(round === 0 && deps.dc === from ? [endAbandoned(deps)] : []),
    ];
    await within(Promise.allSettled(ways), deadline - Date.now());
  }
}

/** Returns when the target is open, cannot be asked, or at the deadline (Date.now). Decides nothing. */
async function opened(target: FenceStore, { units, to }: StepInput, deadline: number): Promise<void> {
  const some = units.slice(0, 1);
  const isOpen = async (): Promise<boolean> => (await target.states(some))[0]?.owner === to;
  while (Date.now() < deadline) {
    const over = await within(isOpen(), deadline - Date.now()).catch(() => true);
    if (over === true) return;
    await sleep(QUIET_POLL_MS);
  }
}

/** Tells the gateways of both DCs of the fence, when it is not over by now. Never fails. */
async function hold(
  deps: DatacenterDeps,
  own: DcStores,
  { from, to, epoch, rules }: StepInput,
): Promise<void> {
  const known = await own.rules.highestEpoch().catch(() => 0);
  if (known > epoch) return;
  await Promise.all([from, to].map((dc) => announce(deps, dc, rules)));
}

/**
 * What is missing for a switch that the fence has not been waited for; undefined: nothing. Whatever it is, it may still come: the source's
 * row is not visible before its server has committed what is in the binlog already.
 */
async function notDrained(deps: DatacenterDeps, input: SwitchWhenDrainedInput): Promise<string | undefined> {
  try {
    const reached = await reachedMarkers(deps, input.links);
    if (reached.length < input.links.length) return 'a link has not reached the baseline';
    const undecided = reached.find(({ conflicts, quarantined }) => conflicts + quarantined > 0);
    if (undecided !== undefined)
      return `${undecided.link} has ${undecided.conflicts} open conflicts, ${undecided.quarantined} quarantined transactions`;
    await checkSource(deps, input, { xa: true });
    return undefined;
  } catch (error) {
    return messageOf(error);
  }
}

/** What a store answers, with the rows locked, when it has changed nothing and no earlier attempt has. */
const UNCHANGED: readonly ErrorCode[] = [
  ...(['StaleEpoch', 'EpochConflict', 'HeldByOther', 'NotOwner', 'ServerIdentityChanged'] as const),
  ...(['Refused', 'NoRules', 'LinkStopped'] as const),
];

/** Step 7. `fencing`: asked for with the fence; null then: nothing was changed. Else that is an error. */
async function switchOver(
  deps: DatacenterDeps,
  own: DcStores,
  input: StepInput,
  { fencing }: { fencing: boolean },
): Promise<SwitchResult | null> {
  // Both are looked at while the target's rows are being locked, and have answered before they are committed.
  const source = settled(checkSource(deps, input, { xa: fencing }));
  const redis = settled(checkTargetRedis(deps, input, own.all));
  try {
    await own.control.change(
      { ...changeOf(input, own.control, own), to: 'open', owner: input.to },
      budgetOf(input),
      {
        beforeCommit: async (before) => {
          // Once the rows are open here, the point of no return is behind: the source may be gone, and only forward is possible.
          if (before.every((row) => row.state !== 'remote')) return;
          await source();
          await redis();
          if (fencing) await deps.stopAt?.('before-quickSwitchCommit');
        },
      },
    );
    if (fencing) await deps.stopAt?.('after-quickSwitchCommit');
  } catch (error) {
    if (!fencing || !isInterlockError(error) || !UNCHANGED.includes(error.code)) throw error;
    deps.log.info({ epoch: input.epoch, error: error.message }, 'not switched with the fence');
    return null;
  }
  const committedAt = Date.now();
  const routes = [input.to, input.from].map((dc) => announce(deps, dc, input.rules, { committed: true }));
  const others = own.all.filter((fence) => fence !== own.control);
  const opened = others.map(async (fence) => {
    const change: UnitChange = { ...changeOf(input, fence, own), to: 'open', owner: input.to };
    return { fence, result: await fence.change(change, budgetOf(input)) };
  });
  requireOpened(await allOrForemost(opened));
  const openAt = Date.now();
  const [target, sourceGateways] = await Promise.all(
    [input.to, input.from].map((dc, i) => confirmedWithin(deps, dc, routes[i]!, ROUTE_CONFIRM_MS)),
  );
  return {
    committedAt,
    openAt,
    routedAt: target!.at,
    sourceRoutedAt: sourceGateways!.gateways.every(({ ok }) => ok) ? sourceGateways!.at : null,
    gateways: [...target!.gateways, ...sourceGateways!.gateways],
  };
}

/** The gateways and SDK instances of this DC, and whether each has the epoch. */
async function confirmationsOf(deps: DatacenterDeps, epoch: number): Promise<GatewayConfirmation[]> {
  const { dc } = deps;
  const ruleCenter = deps.ruleCenters.get(dc)!;
  try {
    const [gateways, instances] = await Promise.all([
      ruleCenter.gateways(cancellationSignal()),
      ruleCenter.instances(cancellationSignal()),
    ]);
    return [
      ...gateways.map((view) => ({
        dc,
        gateway: view.gateway,
        epoch: view.epoch,
        ok: view.epoch !== null && view.epoch >= epoch,
        detail: view.detail,
      })),
      ...instances.map((view) => ({
        dc,
        gateway: `${view.application} ${view.instance}`,
        epoch: view.epoch,
        ok: view.epoch >= epoch,
        detail: `acknowledged epoch ${view.epoch}; its writes are checked by the stores anyway`,
      })),
    ];
  } catch (error) {
    return unconfirmed(deps, dc, `the rule center of ${dc} does not answer: ${messageOf(error)}`);
  }
}

/**
 * Step 7 re-checks the source: the fence must stand, on the servers on which it was made. Errors: Refused (open, or held by another),
 * ServerIdentityChanged, Unavailable. `xa`: the fence has not answered yet, and the prepared transactions that it waits for are looked at here.
 */
async function checkSource(deps: DatacenterDeps, input: StepInput, look: { xa: boolean }): Promise<void> {
  const source = storesOf(deps, input.from);
  await allOrForemost(
    source.all.map(async (fence) => {
      const [{ states, server, preparedXa, readOnlyForgotten }] = await Promise.all([
        fence.evidence(input.units),
        checkReverse(deps, fence, input),
      ]);
      if (look.xa && preparedXa.length > 0) {
        throw new InterlockError(
          'Refused',
          `${fence.name}: prepared XA transactions may still commit behind the fence: ${preparedXa.join(', ')}`,
          { details: { store: fence.name, xa: preparedXa } },
        );
      }
      if (readOnlyForgotten) {
        throw new InterlockError(
          'Refused',
          `${fence.name} was read_only and is not any more (a restart?): writers without the SDK may have come in; the switch was not made`,
          { details: { store: fence.name } },
        );
      }
      if (states.length !== input.units.length) {
        const missing = input.units.length - states.length;
        throw new InterlockError(
          'Refused',
          `${fence.name} has no row for ${missing} of the units: the switch was not made`,
        );
      }
      for (const state of states) checkFenced(fence, state, server, input);
    }),
  );
}

function checkFenced(fence: UnitFence, row: UnitState, server: string | null, input: StepInput): void {
  const at = `${row.unit} in ${fence.name}`;
  const details = {
    store: fence.name,
    unit: row.unit,
    state: row.state,
    epoch: row.epoch,
    holder: row.holder,
  };
  if (row.server !== server) {
    throw new InterlockError(
      'ServerIdentityChanged',
      `${at} was fenced on server ${row.server}, and ${server} answers: the switch was not made`,
      { details },
    );
  }
  if (row.state === 'remote' && row.owner === input.to) return;
  const held =
    sameHolder(row.holder, input.holder) ||
    (input.takeOverFrom !== undefined && sameHolder(row.holder, input.takeOverFrom));
  if (row.state !== 'write_disabled' || !held) {
    throw new InterlockError(
      'Refused',
      `${at} is ${row.state} at epoch ${row.epoch}, not write-disabled by this run: the switch was not made`,
      { details },
    );
  }
}

/** What every change of a step has in common; the rules document goes into the control store's commit. */
function changeOf(
  input: StepInput,
  fence: UnitFence,
  own: DcStores,
): Pick<UnitChange, 'units' | 'epoch' | 'holder' | 'takeOverFrom' | 'rules'> {
  const { units, epoch, holder, takeOverFrom, rules } = input;
  return {
    units,
    epoch,
    holder,
    ...(takeOverFrom === undefined ? {} : { takeOverFrom }),
    ...(fence === own.control ? { rules } : {}),
  };
}

function budgetOf({ fenceBudgetMs, blockers }: StepInput): FenceBudget {
  return { budgetMs: fenceBudgetMs, blockers };
}

function isBlocked(failure: unknown): boolean {
  return isInterlockError(failure) && failure.code === 'FenceBudgetExceeded';
}

async function confirmedWithin(
  deps: DatacenterDeps,
  dc: DcId,
  announcement: Promise<GatewayConfirmation[]>,
  limitMs: number,
): Promise<{ at: number; gateways: GatewayConfirmation[] }> {
  const gateways =
    (await within(announcement, limitMs)) ?? unconfirmed(deps, dc, `no confirmation within ${limitMs} ms`);
  return { at: Date.now(), gateways };
}

/** A promise that may fail before anybody waits for it. */
function settled<T>(promise: Promise<T>): () => Promise<T> {
  promise.catch(() => undefined);
  return () => promise;
}

function storesOf(deps: DatacenterDeps, dc: DcId): DcStores {
  const stores = deps.stores.get(dc);
  if (stores === undefined) throw new InterlockError('BadInput', `data center ${dc} is not in the topology`);
  return stores;
}

/** A task that went to the wrong DC's queue must not touch this DC's stores. */
function requireDc(deps: DatacenterDeps, dc: DcId): void {
  if (dc !== deps.dc) {
    throw new InterlockError(
      'BadInput',
      `this worker belongs to ${deps.dc}, the step to ${dc}: wrong task queue`,
    );
  }
}

function linkDown(link: PlanLink): InterlockError {
  return new InterlockError(
    'LinkStopped',
    `link ${link.link} is ${link.state}: see \`interlock replicate status\`, then \`interlock replicate start '${link.link}'\``,
    { details: { link: link.link, state: link.state } },
  );
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
