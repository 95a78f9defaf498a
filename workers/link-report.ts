import { WorkflowNotFoundError } from '@temporalio/client';
import type { Client } from '@temporalio/client';
import { defaultPayloadConverter } from '@temporalio/common';
import { parseLinkId } from '../replicators/core/contract.js';
import type { LinkStatus } from '../replicators/core/contract.js';
import { InterlockError, messageOf } from '../src/errors.js';
import { replicatorWorkflowId } from '../workflows/contract.js';
import type { ReplicatorView } from '../workflows/replicator.js';

/** A link as Temporal knows it: its workflow, and the heartbeat of the activity that runs it. */
export interface LinkReport {
  link: string;
  /** Of the link's workflow; `not-started` when Temporal knows none that runs. */
  workflow: ReplicatorView['state'] | 'not-started' | 'unknown';
  /** The heartbeat while it runs, else the last status; null when there is none. */
  status: LinkStatus | null;
  error: { code: string; message: string } | null;
  /** The command, or the thing to look at, that comes next; null when all is well. */
  next: string | null;
}

const ASK_LIMIT_MS = 10_000;
/** A heartbeat comes twice a second; one this old is of a link that does not run at the moment. */
const STALE_MS = 5_000;

export async function reportOf(client: Client, link: string): Promise<LinkReport> {
  const none: LinkReport = {
    link,
    workflow: 'not-started',
    status: null,
    error: null,
    next: `interlock replicate start ${link}`,
  };
  const handle = client.workflow.getHandle(replicatorWorkflowId(link));
  const ask = <T>(question: () => Promise<T>): Promise<T> =>
    client.withDeadline(Date.now() + ASK_LIMIT_MS, question);
  let live: LinkStatus | null = null;
  let attemptError: LinkReport['error'] = null;
  try {
    const description = await ask(() => handle.describe());
    if (description.status.name !== 'RUNNING') return none;
    for (const activity of description.raw.pendingActivities ?? []) {
      const payload = activity.heartbeatDetails?.payloads?.[0];
      if (payload) live = defaultPayloadConverter.fromPayload<LinkStatus>(payload);
      const failure = activity.lastFailure;
      if (failure?.message && (activity.attempt ?? 1) > 1 && (live === null || !fresh(live))) {
        attemptError = {
          code: failure.applicationFailureInfo?.type ?? 'Unavailable',
          message: failure.message,
        };
      }
    }
  } catch (error) {
    if (error instanceof WorkflowNotFoundError) return none;
    throw unanswered(link, error);
  }
  const view = await ask(() => handle.query<ReplicatorView>('status')).catch(() => undefined);
  const report: LinkReport = {
    link,
    workflow: view?.state ?? 'unknown',
    status: live ?? view?.lastStatus ?? null,
    error: view?.lastError ?? live?.lastError ?? attemptError,
    next: view === undefined ? 'no worker answers: interlock worker --dc DC' : view.next,
  };
  if (report.workflow === 'running' && live !== null && !fresh(live)) {
    report.next = `no word since ${live.updatedAt}: is a worker of ${parseLinkId(link)!.to} running?`;
  }
  return report;
}

export function fresh(status: LinkStatus): boolean {
  return Date.now() - Date.parse(status.updatedAt) < STALE_MS;
}

export function unanswered(link: string, cause: unknown): InterlockError {
  return new InterlockError(
    'Unavailable',
    `${link} does not answer (${messageOf(cause)}). A worker of either data center must run: interlock worker --dc DC`,
    { cause },
  );
}
