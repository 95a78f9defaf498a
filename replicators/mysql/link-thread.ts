import { parentPort, workerData } from 'node:worker_threads';
import { InterlockError, messageOf } from '../../src/errors.js';
import { Link } from './link.js';
import type { LinkConfig } from './link-config.js';
import type { ThreadMessage } from './link-host.js';
import { stopPoints } from './stop-points.js';

const port = parentPort!;
const { config, stopAt } = workerData as { config: LinkConfig; stopAt: string | undefined };
const say = (message: ThreadMessage): void => port.postMessage(message);
const abort = new AbortController();
port.on('message', () => abort.abort());

const link = new Link(
  config,
  {
    onStatus: (status, tableRows) => say({ type: 'status', status, tableRows }),
    onMarker: (baseline, to) =>
      say({ type: 'marker', baseline, to: { workflowId: to.workflowId, runId: to.runId } }),
  },
  stopPoints(stopAt),
);

link.run(abort.signal).then(
  () => {
    say({ type: 'ended', error: null });
    port.close();
  },
  (error: unknown) => {
    const known = error instanceof InterlockError ? error : undefined;
    say({
      type: 'ended',
      error: {
        code: known?.code ?? 'Internal',
        message: messageOf(error),
        details: known?.details ?? {},
      },
    });
    port.close();
  },
);
