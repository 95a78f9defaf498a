import { Connection } from '@temporalio/client';
import { loadTopology } from '../../../src/topology/load.js';
import type { LabDc } from '../options.js';
import { processPart } from '../part.js';
import type { LabContext, Part } from '../part.js';
import { interlockProgram } from './program.js';
import { RULES_PART } from './rules.js';

/** The worker of a DC: its activities and links, and workflows. */
export function workerPart(lab: LabContext, dc: LabDc, dependsOn: readonly string[]): Part {
  const name = `${dc}-worker`;
  let startedAt = 0;
  return processPart(lab, {
    name,
    kind: 'worker',
    dc,
    dependsOn: [RULES_PART, ...dependsOn],
    address: null,
    ports: [],
    command: async () => {
      startedAt = Date.now();
      return interlockProgram(lab, dc, 'worker');
    },
    // Temporal remembers the pollers of a worker that has died for minutes: only a poll after the start counts.
    probe: async () => {
      const { topology } = await loadTopology(lab.files.topology());
      const { address, namespace } = topology.temporal;
      const connection = await Connection.connect({ address, connectTimeout: 1000 });
      try {
        const { pollers } = await connection.workflowService.describeTaskQueue({
          namespace,
          taskQueue: { name: topology.datacenters[dc]!.taskQueue },
          taskQueueType: ACTIVITY_QUEUE,
        });
        return (pollers ?? []).some((poller) => secondsOf(poller.lastAccessTime) * 1000 >= startedAt);
      } finally {
        await connection.close();
      }
    },
  });
}

/** temporal.api.enums.v1.TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY */
const ACTIVITY_QUEUE = 2;

function secondsOf(time: { seconds?: unknown; nanos?: number | null } | null | undefined): number {
  return Number(time?.seconds ?? 0) + (time?.nanos ?? 0) / 1e9;
}
