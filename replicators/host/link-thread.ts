import { parentPort, workerData } from 'node:worker_threads';
import { InterlockError, messageOf } from '../../src/errors.js';
import type { RunnableLink } from '../core/contract.js';
import { stopPoints } from '../core/stop-points.js';
import type { LinkConfig } from './configure.js';
import { loadKinds, openLink } from './kinds.js';
import { STOP_MS } from './link-host.js';
import type { ThreadData, ThreadError, ThreadLoaded, ThreadMessage, ThreadOrder } from './link-host.js';
import { queueBudget } from '../mysql/queue-budget.js';

const { threads, kinds } = workerData as ThreadData;
queueBudget.threads = threads;

/** The links of this thread, each with what stops it. */
const stops = new Map<string, () => void>();
const port = parentPort!;
const say = (message: ThreadMessage): void => port.postMessage(message);

port.on('message', (order: ThreadOrder) => {
  if (order.type === 'run') void run(order.config, order.stopAt);
  else stops.get(order.link)?.();
});

void loadKinds(kinds).then(() => port.postMessage({ type: 'loaded' } satisfies ThreadLoaded));

async function run(config: LinkConfig, stopAt: string | undefined): Promise<void> {
  const { link: name } = config;
  const abort = new AbortController();
  let ended = false;
  let giveUp: NodeJS.Timeout | undefined;
  let link: RunnableLink | undefined;
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
      link?.disconnect(`it has not stopped in ${STOP_MS} ms`);
      end(null);
    }, STOP_MS);
  });
  try {
    link = await openLink(
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
    await link.run(abort.signal);
    end(null);
  } catch (error) {
    const known = error instanceof InterlockError ? error : undefined;
    end({
      code: known?.code ?? 'Internal',
      message: messageOf(error),
      retryable: known?.retryable ?? false,
      details: known?.details ?? {},
    });
  }
}
