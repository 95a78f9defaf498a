import { Context } from '@temporalio/activity';
import { WorkflowNotFoundError } from '@temporalio/client';
import type { Client } from '@temporalio/client';
import { ApplicationFailure, CancelledFailure } from '@temporalio/common';
import type { Logger } from 'pino';
import type { BaselineReached, LinkStatus } from '../replicators/core/contract.js';
import type { MarkerArrivals } from '../replicators/core/marker-arrivals.js';
import { initialiseLink, linkConfigOf } from '../replicators/host/configure.js';
import { kindOf } from '../replicators/host/kinds.js';
import { LinkHost } from '../replicators/host/link-host.js';
import type { InitialiseOptions } from '../replicators/host/options.js';
import { messageOf } from '../src/errors.js';
import type { SecretReference, Topology } from '../src/topology/schema.js';
import { SIGNALS } from '../workflows/contract.js';
import { withFailures } from './failures.js';

export interface ReplicatorDeps {
  topology: Topology;
  secret: (reference: SecretReference) => string;
  client: Client;
  markers: MarkerArrivals;
  log: Logger;
  /** Is told of each status, as the heartbeat is; and of the rows applied since the link was started, by table. */
  onStatus?: (status: LinkStatus, tableRows: Record<string, number>) => void;
  /** Threads of links; one host per process. */
  host?: LinkHost;
}

/** The activities of the links into one DC; on that DC's task queue. */
export interface ReplicatorActivities {
  /** Makes or finds the link's checkpoint. Idempotent. */
  initialiseLink(
    input: { link: string } & InitialiseOptions,
  ): Promise<{ position: string; created: boolean }>;
  /** Runs the link until it is cancelled or has to stop; the heartbeat carries its LinkStatus. Answers the last status. */
  runLink(input: { link: string }): Promise<LinkStatus | null>;
}

const SIGNAL_RETRY_MS = { first: 10, most: 1_000 };

export function createReplicatorActivities(deps: ReplicatorDeps): ReplicatorActivities {
  const host = deps.host ?? new LinkHost();

  return withFailures<ReplicatorActivities>({
    initialiseLink: ({ link, ...options }) => initialiseLink(deps.topology, link, options, deps.secret),

    async runLink({ link }) {
      const context = Context.current();
      const config = linkConfigOf(deps.topology, link, deps.secret);
      const signal = context.cancellationSignal;
      const last = await host.run(
        config,
        {
          onStatus: (status, tableRows) => {
            context.heartbeat(status);
            deps.onStatus?.(status, tableRows);
          },
          // A relay's marker is awaited by the fence, which asks here or in Kafka.
          onMarker: (baseline, to) =>
            void (kindOf(link) === 'outbox'
              ? deps.markers.arrived(baseline.markerId)
              : announceBaseline(deps, baseline, to, signal)),
        },
        signal,
      );
      if (signal.aborted) {
        // A worker that shuts down cancels, too: that failure makes Temporal run the link elsewhere.
        if (context.cancellationDetails?.cancelRequested === true)
          throw new CancelledFailure(`${link} was stopped`, [{ status: last }]);
        throw ApplicationFailure.retryable(`${link} leaves this worker`, 'Unavailable');
      }
      return last;
    },
  });
}

/**
 * Tells the switchover that the marker is committed. Until it is accepted, or the run is closed, or the link ends: then the next
 * attempt says it again, from its checkpoint.
 */
async function announceBaseline(
  { client, markers, log }: ReplicatorDeps,
  baseline: BaselineReached,
  to: { workflowId: string; runId: string },
  signal: AbortSignal,
): Promise<void> {
  // The switch itself goes first: the signal costs the workflow a turn, which it can take behind the fenced window.
  await markers.arrived(baseline.markerId);
  const handle = client.workflow.getHandle(to.workflowId, to.runId);
  for (let wait = SIGNAL_RETRY_MS.first; ; wait = Math.min(wait * 2, SIGNAL_RETRY_MS.most)) {
    try {
      await handle.signal(SIGNALS.baselineReached, baseline);
      return;
    } catch (error) {
      if (error instanceof WorkflowNotFoundError) {
        log.info({ ...baseline, ...to }, 'marker of a switchover that is closed');
        return;
      }
      log.warn({ ...baseline, ...to, error: messageOf(error) }, 'baseline signal not accepted; again');
    }
    await new Promise((resolve) => setTimeout(resolve, wait));
    if (signal.aborted) return;
  }
}
