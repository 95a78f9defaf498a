import {
  Client,
  Connection,
  WorkflowExecutionAlreadyStartedError,
  WorkflowNotFoundError,
  WorkflowUpdateFailedError,
} from '@temporalio/client';
import type { WorkflowStartOptions } from '@temporalio/client';
import { InterlockError, messageOf } from '../errors.js';
import type { Topology } from '../topology/schema.js';

const CONNECT_TIMEOUT_MS = 5_000;

/**
 * Runs `action` with a client of the topology's Temporal. Errors: Unavailable, naming the address and what works without it;
 * otherwise those of `action`.
 */
export async function withTemporal<T>(
  topology: Topology,
  action: (client: Client) => Promise<T>,
): Promise<T> {
  const { address, namespace } = topology.temporal;
  let connection: Connection;
  try {
    connection = await Connection.connect({ address, connectTimeout: CONNECT_TIMEOUT_MS });
  } catch (error) {
    throw temporalDown(address, error);
  }
  try {
    return await action(new Client({ connection, namespace }));
  } catch (error) {
    // gRPC UNAVAILABLE: it went away in the middle.
    if ((error as { code?: unknown }).code === 14) throw temporalDown(address, error);
    throw error;
  } finally {
    await connection.close();
  }
}

function temporalDown(address: string, cause: unknown): InterlockError {
  return new InterlockError(
    'Unavailable',
    `Temporal at ${address} does not answer (${messageOf(cause)}). Start it (lab: \`interlock lab up\`) and try again; ` +
      'running switchovers go on by themselves when it is back. Without Temporal, `interlock fence status` and `interlock fence release` work.',
    { cause, details: { what: `Temporal at ${address}` } },
  );
}

/** What a person asked of a run that is under way: as text, by the names in its memo. */
export interface RunUnderWay {
  runId: string;
  asked: (name: string) => string;
}

/**
 * Starts a workflow that runs once at a time: its fixed id is the lock, and nothing releases it but the end of the run.
 * Errors: Refused, with what `refusal` says of the run that is under way.
 */
export async function startAlone(
  client: Client,
  workflow: string,
  options: WorkflowStartOptions,
  refusal: (running: RunUnderWay) => string,
): Promise<{ workflowId: string; runId: string }> {
  const { workflowId } = options;
  try {
    const started = await client.workflow.start(workflow, {
      ...options,
      workflowIdConflictPolicy: 'FAIL',
      workflowIdReusePolicy: 'ALLOW_DUPLICATE',
    });
    return { workflowId, runId: started.firstExecutionRunId };
  } catch (error) {
    if (!(error instanceof WorkflowExecutionAlreadyStartedError)) throw error;
    const { runId, memo } = await client.workflow.getHandle(workflowId).describe();
    throw new InterlockError('Refused', refusal({ runId, asked: (name) => memoText(memo?.[name]) }), {
      details: { workflowId, runId },
    });
  }
}

/**
 * Why a run did not take an operator's word.
 * @param name of the command
 * @param nothing what is said when there is no run
 */
export function refusalOf(error: unknown, name: string, nothing: string): unknown {
  if (error instanceof WorkflowUpdateFailedError)
    return new InterlockError('Refused', messageOf(error.cause ?? error), { cause: error });
  if (error instanceof WorkflowNotFoundError)
    return new InterlockError('Refused', `There is nothing to ${name}: ${nothing}`);
  if (error instanceof Error && /deadline/i.test(error.name + error.message)) {
    return new InterlockError(
      'Unavailable',
      `No worker took ${name} within 30 s: start one with \`interlock worker --dc …\`. The request stays and is carried out then.`,
      { cause: error },
    );
  }
  return error;
}

/** A value of a run's memo that is text. */
export function memoText(value: unknown): string {
  return typeof value === 'string' ? value : '';
}
