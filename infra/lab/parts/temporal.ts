import { Connection } from '@temporalio/client';
import { ensure } from '../../components/component.js';
import { temporalComponent } from '../../components/temporal.js';
import { processPart } from '../part.js';
import type { LabContext, Part } from '../part.js';

export const TEMPORAL_PORTS = ['temporal', 'temporal.ui', 'temporal.http', 'temporal.metrics'] as const;

/** Temporal's dev server with its Web UI, on disk. It sits in dc-a. */
export function temporalPart(lab: LabContext): Part {
  const address = `127.0.0.1:${lab.port('temporal')}`;
  return processPart(lab, {
    name: 'temporal',
    kind: 'temporal',
    dc: null,
    dependsOn: [],
    address: `${address}, Web UI http://127.0.0.1:${lab.port('temporal.ui')}`,
    ports: TEMPORAL_PORTS,
    command: async () => {
      const { binary } = await ensure(temporalComponent, lab.progress);
      return {
        program: binary,
        args: [
          ...['server', 'start-dev', '--ip', '127.0.0.1', '--log-level', 'warn'],
          ...['--db-filename', `${lab.files.part('temporal')}/temporal.db`],
          ...['--port', String(lab.port('temporal')), '--ui-port', String(lab.port('temporal.ui'))],
          ...['--http-port', String(lab.port('temporal.http'))],
          ...['--metrics-port', String(lab.port('temporal.metrics'))],
          // A hop costs several commits: with a rollback journal each is two disk syncs, 4 times as slow in all. A write-ahead log without
          // a sync per commit outlives a killed server; only what the machine itself loses may be missing, and this is a lab.
          ...['--sqlite-pragma', 'journal_mode=wal', '--sqlite-pragma', 'synchronous=normal'],
          // One history shard polls its own task queue: the default of 20 a second would cost 50 ms per hop.
          ...['--dynamic-config-value', 'history.transferProcessorMaxPollRPS=10000'],
        ],
      };
    },
    probe: async () => {
      const connection = await Connection.connect({ address, connectTimeout: 1000 });
      try {
        await connection.workflowService.describeNamespace({ namespace: 'default' });
        return true;
      } finally {
        await connection.close();
      }
    },
  });
}
