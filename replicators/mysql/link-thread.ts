import { parentPort } from 'node:worker_threads';
import { InterlockError, messageOf } from '../../src/errors.js';
import { Link } from './link.js';
import type { LinkConfig } from './link-config.js';
import { STOP_MS } from './link-host.js';
import type { ThreadError, ThreadMessage, ThreadOrder } from './link-host.js';
import { stopPoints } from './stop-points.js';

/** The links of this thread, each with what stops it. */
const stops = new Map<string, () => void>();
const port = parentPort!;
const say = (message: ThreadMessage): void => port.postMessage(message);

port.on('message', (order: ThreadOrder) => {
  if (order.type === 'run') run(order.config, order.stopAt);
  else stops.get(order.link)?.();
});

function run(config: LinkConfig, stopAt: string | undefined): void {
  const { link: name } = config;
  const abort = new AbortController();
  let ended = false;
  let giveUp: NodeJS.Timeout | undefined;
  const link = new Link(
    config,
    {
      onStatus: (status, tableRows) => {
        if (!ended) say({ link: name, type: 'status', status, tableRows });
      },
      onMarker: (baseline, { workflowId, runId }) => {
        if (!ended) say({ link: name, type: 'marker', baseline, to: { workflowId, runId } });
      },
    },
    stopPoints(stopAt),
  );
  const end = (error: ThreadError | null): void => {
    if (ended) return;
    ended = true;
    clearTimeout(giveUp);
    stops.delete(name);
    say({ link: name, type: 'ended', error });
  };
  stops.set(name, () => {
    abort.abort();
    // One that hangs is ended without its word: its session goes, and the checkpoint has all that counts.
    giveUp = setTimeout(() => {
      link.disconnect(`it has not stopped in ${STOP_MS} ms`);
      end(null);
    }, STOP_MS);
  });
  link.run(abort.signal).then(
    () => end(null),
    (error: unknown) => {
      const known = error instanceof InterlockError ? error : undefined;
      end({
        code: known?.code ?? 'Internal',
        message: messageOf(error),
        retryable: known?.retryable ?? false,
        details: known?.details ?? {},
      });
    },
  );
}
