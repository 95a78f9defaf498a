import { WorkflowNotFoundError } from '@temporalio/client';
import type { Client, WorkflowExecutionDescription } from '@temporalio/client';
import { defaultPayloadConverter } from '@temporalio/common';
import { NativeConnection } from '@temporalio/worker';
import type { LinkStatus } from '../replicators/core/contract.js';
import { InterlockError, messageOf } from '../src/errors.js';
import type { Holder } from '../src/routing/rules.js';
import { replicatorWorkflowId } from '../workflows/contract.js';

const RETRY_MS = 1_000;
const ASK_LIMIT_MS = 5_000;

/**
 * Connects to Temporal, however long it takes: a worker may be started before Temporal, and must come back with it.
 * Rejects with the signal's reason when it is aborted.
 */
export async function connectToTemporal(
  address: string,
  signal: AbortSignal,
  say: (line: string) => void,
): Promise<NativeConnection> {
  for (let attempt = 1; ; attempt++) {
    signal.throwIfAborted();
    try {
      return await NativeConnection.connect({ address });
    } catch (error) {
      say(`Temporal at ${address} does not answer (attempt ${attempt}, again in 1 s): ${messageOf(error)}`);
    }
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, RETRY_MS);
      signal.addEventListener('abort', () => (clearTimeout(timer), resolve()), { once: true });
    });
  }
}

/** Is this run closed, or unknown to Temporal? Errors: Unavailable. */
export async function isRunClosed(client: Client, holder: Holder): Promise<boolean> {
  const description = await describe(client, holder.workflowId, holder.runId);
  return description === undefined || description.status.name !== 'RUNNING';
}

/** Is a run of this workflow open? Errors: Unavailable. */
export async function isWorkflowRunning(client: Client, workflowId: string): Promise<boolean> {
  return (await describe(client, workflowId))?.status.name === 'RUNNING';
}

/** The status of a link from the last heartbeat of its activity; undefined when it does not run. Errors: Unavailable. */
export async function readLinkHeartbeat(client: Client, link: string): Promise<LinkStatus | undefined> {
  const description = await describe(client, replicatorWorkflowId(link));
  if (description?.status.name !== 'RUNNING') return undefined;
  for (const activity of description.raw.pendingActivities ?? []) {
    const payload = activity.heartbeatDetails?.payloads?.[0];
    if (payload === undefined || payload === null) continue;
    const status = defaultPayloadConverter.fromPayload<LinkStatus>(payload);
    if (status.link === link) return status;
  }
  return undefined;
}

async function describe(
  client: Client,
  workflowId: string,
  runId?: string,
): Promise<WorkflowExecutionDescription | undefined> {
  try {
    return await client.withDeadline(Date.now() + ASK_LIMIT_MS, () =>
      client.workflow.getHandle(workflowId, runId).describe(),
    );
  } catch (error) {
    if (error instanceof WorkflowNotFoundError) return undefined;
    throw new InterlockError(
      'Unavailable',
      `Temporal does not say how ${workflowId} is: ${messageOf(error)}`,
      {
        cause: error,
        retryable: true,
        details: { what: 'Temporal' },
      },
    );
  }
}
