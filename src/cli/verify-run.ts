import { setTimeout as sleep } from 'node:timers/promises';
import { WorkflowNotFoundError } from '@temporalio/client';
import type { Client, WorkflowHandle } from '@temporalio/client';
import { defaultPayloadConverter } from '@temporalio/common';
import type { TableProgress } from '../../replicators/core/verification.js';
import type { RedisVerifyProgress } from '../../replicators/redis/verify/verification.js';
import { QUERIES } from '../../workflows/contract.js';
import { verificationWorkflowId } from '../../workflows/verification-contract.js';
import type { VerifyReport, VerifyRequest } from '../../workflows/verification-contract.js';
import { figuresOf } from '../../workflows/verification-figures.js';
import { InterlockError, messageOf } from '../errors.js';
import type { Topology } from '../topology/schema.js';
import { LiveText, progress } from './output.js';
import { startAlone } from './temporal-client.js';
import { renderProgress } from './verify-words.js';

const WATCH_MS = 500;
const ASK_LIMIT_MS = 10_000;
const QUIET_MS = 10_000;
/** Activities whose heartbeat is the progress of what is compared now. */
const COMPARING: ReadonlySet<string> = new Set(['compareTable', 'compareStore']);

export async function startRun(
  client: Client,
  topology: Topology,
  request: VerifyRequest,
): Promise<{ workflowId: string; runId: string }> {
  const workflowId = verificationWorkflowId(topology.name);
  const { redis, scope, repair } = request;
  const chosen = redis === undefined ? request.tables : redis.stores.map((store) => `redis/${store}`);
  const all = redis === undefined ? 'all tables' : 'all Redis stores';
  const what = [
    chosen.join(', ') || all,
    ...(redis === undefined || redis.mode === 'full' ? [] : [redis.mode]),
    ...(scope === null ? [] : [scope]),
    ...(repair ? ['with repair'] : []),
  ].join(', ');
  return startAlone(
    client,
    'verification',
    {
      workflowId,
      taskQueue: topology.temporal.controlTaskQueue,
      args: [request],
      // Two would lock rows for each other, and repair what the other proves.
      staticSummary: `Verify ${redis === undefined ? 'MySQL' : 'Redis'}: ${what}`,
      staticDetails: `Started by ${request.startedBy}.`,
      memo: { startedBy: request.startedBy, what },
    },
    ({ runId, asked }) =>
      `A verification of ${topology.name} is under way: run ${runId} (${asked('what')}, started by ${asked('startedBy')}). See \`interlock verify status\`; \`interlock verify stop\` ends it.`,
  );
}

export async function resultOf(handle: WorkflowHandle, topology: Topology): Promise<VerifyReport> {
  const quiet = setTimeout(
    () =>
      progress(
        `Still under way; \`interlock verify status --watch\` shows where. A worker must poll ${topology.temporal.controlTaskQueue} (interlock worker --dc DC).`,
      ),
    QUIET_MS,
  );
  try {
    return (await handle.result()) as VerifyReport;
  } catch (error) {
    throw new InterlockError(
      'NeedsOperator',
      `The verification was ended: ${messageOf(error)}. Start it again.`,
      {
        cause: error,
      },
    );
  } finally {
    clearTimeout(quiet);
  }
}

export async function watch(handle: WorkflowHandle): Promise<VerifyReport> {
  const live = new LiveText();
  let said = '';
  for (;;) {
    const now = await reportOf(handle, QUERIES.status);
    const words = renderProgress(now);
    if (!live.show(words)) {
      const [line = ''] = words.split('\n');
      if (line !== said) progress((said = line));
    }
    if (now.outcome !== 'running') return now;
    await sleep(WATCH_MS);
  }
}

/** From the workflow while it runs, with what the activity's heartbeat knows better; from the result when it has ended. */
export async function reportOf(handle: WorkflowHandle, query: string): Promise<VerifyReport> {
  const { client } = handle;
  let description;
  try {
    description = await client.withDeadline(Date.now() + ASK_LIMIT_MS, () => handle.describe());
  } catch (error) {
    if (!(error instanceof WorkflowNotFoundError)) throw error;
    throw new InterlockError(
      'Refused',
      'Temporal knows no such verification; start one with `interlock verify mysql` or `interlock verify redis`.',
    );
  }
  if (description.status.name === 'COMPLETED') return (await handle.result()) as VerifyReport;
  if (description.status.name !== 'RUNNING') {
    throw new InterlockError(
      'NeedsOperator',
      `Run ${description.runId} was ${description.status.name.toLowerCase()}: start another with \`interlock verify mysql\` or \`interlock verify redis\`.`,
      { details: { runId: description.runId } },
    );
  }
  let found: VerifyReport;
  try {
    found = await client.withDeadline(Date.now() + ASK_LIMIT_MS, () => handle.query<VerifyReport>(query));
  } catch (error) {
    throw new InterlockError(
      'Unavailable',
      `No worker answers for the verification (${messageOf(error)}): start one with \`interlock worker --dc …\`.`,
      { cause: error, details: { what: 'control worker' } },
    );
  }
  const activity = description.raw.pendingActivities?.find(({ activityType }) =>
    COMPARING.has(activityType?.name ?? ''),
  );
  const payload = activity?.heartbeatDetails?.payloads?.[0];
  return payload ? merged(found, defaultPayloadConverter.fromPayload(payload), query) : found;
}

/** What is compared now is the first that is not done. */
function merged(found: VerifyReport, beat: TableProgress | RedisVerifyProgress, query: string): VerifyReport {
  const now = query === QUERIES.report ? beat : { ...beat, differences: [] };
  const tables = [...found.tables];
  const stores = [...(found.stores ?? [])];
  const table = tables.find(({ progress: one }) => !one.done);
  const store = stores.find(({ progress: one }) => !one.done);
  // A heartbeat may be of the slice before: what the workflow knows is never less than before.
  if (table !== undefined && 'chunks' in now) {
    if (now.chunks < table.progress.chunks) return found;
    tables[tables.indexOf(table)] = { ...table, progress: now };
  } else if (store !== undefined && 'scanned' in now) {
    if (now.scanned < store.progress.scanned) return found;
    stores[stores.indexOf(store)] = { ...store, progress: now };
  } else return found;
  return { ...found, tables, stores, ...figuresOf([...tables, ...stores]) };
}
