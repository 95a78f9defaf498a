import { Context } from '@temporalio/activity';
import { announceSteps, runStep, settleSteps } from '../replicators/mysql/ddl-apply/run.js';
import { InterlockError } from '../src/errors.js';
import type { SecretReference, Topology } from '../src/topology/schema.js';
import type { DdlActivities, DdlPlanActivities, PlannedDdl } from '../workflows/ddl-contract.js';
import { addressOf, planDdl } from './ddl-plan.js';
import type { DdlPlanDeps } from './ddl-plan.js';
import { withFailures } from './failures.js';

const BEAT_MS = 1_000;

/** Plans changes of definitions; on the control task queue. It reaches both DCs. */
export function createDdlPlanActivities(deps: DdlPlanDeps): DdlPlanActivities {
  return withFailures<DdlPlanActivities>({ planDdl: (request) => beating(() => planDdl(deps, request)) });
}

export interface DdlDeps {
  topology: Topology;
  dc: string;
  secret: (reference: SecretReference) => string;
}

/** Runs statements on the stores of one DC; on its task queue. */
export function createDdlActivities(deps: DdlDeps): DdlActivities {
  const server = (dc: string, store: string): ReturnType<typeof addressOf> => {
    if (dc !== deps.dc) throw new InterlockError('Internal', `${dc} was asked of the worker of ${deps.dc}`);
    return addressOf(deps, dc, store);
  };
  return withFailures<DdlActivities>({
    async announceDdl({ changeId, dc, steps }) {
      for (const [store, own] of byStore(steps)) await announceSteps(server(dc, store), changeId, own);
    },

    async runDdl({ changeId, store, seq, step, dc }) {
      const { before, after } = step.targets.find((one) => one.dc === dc)!;
      const { statement: text, table: name, dropped } = step;
      const { algorithm, found } = await beating((signal) =>
        runStep(server(dc, store), { ...{ changeId, seq, name, text, dropped, before, after } }, signal),
      );
      return { algorithm, found };
    },

    async settleDdl({ changeId, dc, stores, seq, state }) {
      for (const store of stores) await settleSteps(server(dc, store), changeId, seq, state);
    },
  });
}

/** Every step is recorded in the store that it is of, by its place in the change. */
function byStore(
  steps: readonly PlannedDdl[],
): Map<string, { seq: number; name: string; text: string; dropped: string[] }[]> {
  const stores = new Map<string, { seq: number; name: string; text: string; dropped: string[] }[]>();
  for (const [i, { store, table: name, statement: text, dropped }] of steps.entries()) {
    const own = stores.get(store) ?? [];
    own.push({ seq: i + 1, name, text, dropped });
    stores.set(store, own);
  }
  return stores;
}

/** A process that is lost is noticed by the heartbeat. */
async function beating<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const context = Context.current();
  const beat = setInterval(() => context.heartbeat(), BEAT_MS);
  try {
    return await work(context.cancellationSignal);
  } finally {
    clearInterval(beat);
  }
}
