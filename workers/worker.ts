import os from 'node:os';
import { Client } from '@temporalio/client';
import { DefaultLogger, Runtime, Worker } from '@temporalio/worker';
import type { NativeConnection } from '@temporalio/worker';
import { openKafka } from '../replicators/kafka/configure.js';
import { linkIds } from '../replicators/host/configure.js';
import { kindOf } from '../replicators/host/kinds.js';
import { LinkHost } from '../replicators/host/link-host.js';
import { MarkerArrivals } from '../replicators/core/marker-arrivals.js';
import { createControlActivities } from '../activities/control.js';
import { createDatacenterActivities } from '../activities/datacenter.js';
import { createReplicatorActivities } from '../activities/replicator.js';
import { createDdlActivities, createDdlPlanActivities } from '../activities/ddl.js';
import { createVerificationActivities } from '../activities/verification.js';
import type { ControlDeps, DatacenterDeps } from '../activities/dependencies.js';
import { messageOf } from '../src/errors.js';
import { openAllStores } from '../src/fence/connect.js';
import type { DcStores } from '../src/fence/connect.js';
import type { Logger } from '../src/observability/logger.js';
import type { DcId } from '../src/routing/units.js';
import { RuleCenterClient } from '../src/rule-center/client.js';
import { datacenter } from '../src/topology/derive.js';
import { resolveSecret } from '../src/topology/load.js';
import type { Topology } from '../src/topology/schema.js';
import { switchoverWorkflowId } from '../workflows/contract.js';
import { workflowBundle } from './bundle.js';
import { MetricsWatch } from './metrics-watch.js';
import { stopPointsIn, withStopPoints } from './stop-points.js';
import { reportOf } from './link-report.js';
import { connectToTemporal, isRunClosed, isWorkflowRunning, readLinkHeartbeat } from './temporal.js';

/** How long a stopping worker waits for its activities before it cancels them, and before it leaves them. */
const SHUTDOWN_GRACE_MS = 1_500;
const SHUTDOWN_FORCE_MS = 5_000;
/** A workflow whose worker has died goes to another one after this long. */
const STICKY_MS = 500;
/** The status of a link travels in heartbeats. */
const HEARTBEAT_THROTTLE_MS = 500;
const KEEP_WARM_MS = 20_000;

export interface WorkerOptions {
  topology: Topology;
  dc: DcId;
  log: Logger;
  /** Told what a person who waits wants to know. */
  say: (line: string) => void;
  /** Ends the worker, also while it waits for Temporal. */
  signal: AbortSignal;
  /** `host:port` for Prometheus; none when absent. */
  metricsAddress?: string;
}

/**
 * The worker of a DC: its task queue (stores, links), and the control queue (workflows, plans), so that either DC's worker can be lost.
 * Returns when the signal is aborted and everything has ended; rejects when a worker fails.
 */
export async function runWorker(options: WorkerOptions): Promise<void> {
  const { topology, dc, log, say, signal } = options;
  const { address, namespace, controlTaskQueue } = topology.temporal;
  const { taskQueue } = datacenter(topology, dc);
  installRuntime(options);

  const stores = openAllStores(topology, resolveSecret);
  const kafka = openKafka(topology, resolveSecret);
  const ruleCenters = new Map(
    Object.entries(topology.datacenters).map(([name, { ruleCenter }]) => {
      const token = resolveSecret(ruleCenter.token);
      return [name, new RuleCenterClient({ dc: name, url: ruleCenter.url, token })];
    }),
  );
  const warming = keepWarm(stores.get(dc)!, log);
  const host = new LinkHost();
  void host.keepSpare([...new Set(linkIds(topology).map(kindOf))]);
  let connection: NativeConnection | undefined;
  try {
    const bundle = await workflowBundle(say);
    connection = await connectToTemporal(address, signal, say);
    const client = new Client({ connection, namespace });
    const markers = new MarkerArrivals();
    const metrics = new MetricsWatch({ topology, stores: stores.get(dc)!, client, log });
    const stopAt = stopPointsIn(process.env['INTERLOCK_STOP_DIR']);
    const shared: DatacenterDeps & ControlDeps = {
      ...(stopAt !== undefined && { stopAt }),
      ...{ dc, markers },
      topology,
      stores,
      kafka,
      ruleCenters,
      readLinkStatus: (link) => readLinkHeartbeat(client, link),
      isClosed: (holder) => isRunClosed(client, holder),
      log,
    };
    const common = {
      connection,
      namespace,
      identity: `${dc} ${process.pid}@${os.hostname()}`,
      shutdownGraceTime: SHUTDOWN_GRACE_MS,
      shutdownForceTime: SHUTDOWN_FORCE_MS,
      maxHeartbeatThrottleInterval: HEARTBEAT_THROTTLE_MS,
      defaultHeartbeatThrottleInterval: HEARTBEAT_THROTTLE_MS,
    };
    const workers = await Promise.all([
      Worker.create({
        ...common,
        taskQueue: controlTaskQueue,
        workflowBundle: bundle,
        activities: {
          ...createControlActivities(shared),
          ...createVerificationActivities({ ...shared, secret: resolveSecret }),
          ...createDdlPlanActivities({
            ...shared,
            secret: resolveSecret,
            readLinkStatus: async (link) => {
              const { workflow, status } = await reportOf(client, link);
              return workflow === 'running' || workflow === 'failed' ? (status ?? undefined) : undefined;
            },
            switchoverRuns: () => isWorkflowRunning(client, switchoverWorkflowId(topology.name)),
          }),
        },
        stickyQueueScheduleToStartTimeout: STICKY_MS,
      }),
      Worker.create({
        ...common,
        taskQueue,
        activities: {
          ...withStopPoints(
            {
              ...createDatacenterActivities(shared),
              ...createDdlActivities({ topology, dc, secret: resolveSecret }),
            },
            stopAt,
          ),
          ...createReplicatorActivities({
            ...{ topology, secret: resolveSecret, client, markers, log, host },
            onStatus: metrics.onStatus,
          }),
        },
      }),
    ]);
    say(`worker of ${dc}: polls ${taskQueue} and ${controlTaskQueue} at ${address} (namespace ${namespace})`);
    if (options.metricsAddress !== undefined) metrics.start();
    try {
      await runUntil(workers, signal);
    } finally {
      metrics.stop();
    }
  } finally {
    clearInterval(warming);
    await connection
      ?.close()
      .catch((error: unknown) => log.warn({ error: messageOf(error) }, 'Temporal connection'));
    for (const members of kafka.values()) for (const member of members.values()) member.close();
    await Promise.all([...ruleCenters.values(), ...stores.values()].map((one) => one.close()));
  }
}

/** Runs all until the signal, or until one fails: half a worker must not go on as if it were whole. */
async function runUntil(workers: readonly Worker[], signal: AbortSignal): Promise<void> {
  const stop = (): void => {
    for (const worker of workers) if (worker.getState() === 'RUNNING') worker.shutdown();
  };
  signal.addEventListener('abort', stop, { once: true });
  const runs = workers.map(async (worker) => {
    try {
      await worker.run();
    } finally {
      stop();
    }
  });
  if (signal.aborted) stop();
  const ended = await Promise.allSettled(runs);
  const failed = ended.find((one) => one.status === 'rejected');
  if (failed !== undefined) throw failed.reason as Error;
}

/**
 * The fenced window must not pay for a connect: sessions are opened before, and looked at now and then. A store that was set up by an
 * Interlock of before gets its newer tables first.
 */
function keepWarm(stores: DcStores, log: Logger): NodeJS.Timeout {
  const upgraded = new Set<string>();
  const warm = (): void => {
    for (const fence of stores.fences.values()) {
      const upgrade = upgraded.has(fence.name) ? Promise.resolve() : fence.upgradeSchema();
      upgrade
        .then(() => {
          upgraded.add(fence.name);
          return fence.warm();
        })
        .catch((error: unknown) =>
          log.warn({ store: fence.name, error: messageOf(error) }, 'store not ready'),
        );
    }
  };
  warm();
  return setInterval(warm, KEEP_WARM_MS);
}

function installRuntime({ log, metricsAddress }: WorkerOptions): void {
  Runtime.install({
    // Signals are the caller's: the SDK would end the process's workers by itself, each on its own.
    shutdownSignals: [],
    logger: new DefaultLogger('INFO', ({ level, message, meta }) => {
      const line = { ...meta };
      if (level === 'ERROR') log.error(line, message);
      else if (level === 'WARN') log.warn(line, message);
      else log.debug(line, message);
    }),
    telemetryOptions: {
      logging: { forward: {}, filter: 'WARN' },
      ...(metricsAddress === undefined ? {} : { metrics: { prometheus: { bindAddress: metricsAddress } } }),
    },
  });
}
