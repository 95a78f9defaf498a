import { readFileSync } from 'node:fs';
import { Socket, createServer } from 'node:net';

/**
 * A TCP proxy that makes 127.0.0.1 as far away as another data center. Bytes take half of the round-trip time in each direction and
 * keep their order; a new connection reaches its target after one and a half round trips, as a handshake and the first segment do.
 * Bandwidth is not limited, nothing is lost.
 */
export interface WanConfiguration {
  rttMs: number;
  routes: { listen: number; target: number }[];
}

/** Bytes under way per direction above which the sender has to wait: 64 MiB/s over 250 ms. */
const WINDOW_BYTES = 16 * 1024 * 1024;

/** One direction: what `from` sends arrives at `to` after the delay, and not before `notBefore` (of performance.now()). */
function delayed(from: Socket, to: Socket, delayMs: number, notBefore: number): void {
  const queue: { due: number; chunk: Buffer | null }[] = [];
  let queuedBytes = 0;
  let timer: NodeJS.Timeout | undefined;
  const flush = (): void => {
    timer = undefined;
    // A socket that has not been told to connect yet refuses data instead of keeping it.
    if (to.pending && !to.connecting && !to.destroyed) {
      timer = setTimeout(flush, 1);
      return;
    }
    const now = performance.now();
    // A timer may fire a fraction of a millisecond early.
    while (queue[0] !== undefined && queue[0].due <= now + 0.5) {
      const { chunk } = queue.shift()!;
      if (chunk === null) {
        to.end();
      } else {
        queuedBytes -= chunk.length;
        if (!to.destroyed && !to.writableEnded) to.write(chunk);
      }
    }
    if (from.isPaused() && queuedBytes + to.writableLength < WINDOW_BYTES) from.resume();
    if (queue[0] !== undefined) timer = setTimeout(flush, queue[0].due - now);
  };
  const put = (chunk: Buffer | null): void => {
    const now = performance.now();
    const due = Math.max(now + delayMs, notBefore);
    queue.push({ due, chunk });
    queuedBytes += chunk?.length ?? 0;
    if (queuedBytes + to.writableLength >= WINDOW_BYTES) from.pause();
    timer ??= setTimeout(flush, due - now);
  };
  to.on('drain', () => {
    if (from.isPaused() && queuedBytes + to.writableLength < WINDOW_BYTES) from.resume();
  });
  from.on('data', put);
  from.on('end', () => put(null));
  // A connection that breaks here is seen as broken over there, after the delay.
  from.on('error', () => undefined);
  from.on('close', (failed) => {
    if (failed) setTimeout(() => to.destroy(), delayMs);
  });
}

function accept(client: Socket, target: number, rttMs: number): void {
  const upstream = new Socket({ allowHalfOpen: true });
  client.setNoDelay(true);
  upstream.setNoDelay(true);
  const connectedAt = performance.now() + 1.5 * rttMs;
  delayed(client, upstream, rttMs / 2, connectedAt);
  delayed(upstream, client, rttMs / 2, 0);
  upstream.once('error', () => setTimeout(() => client.resetAndDestroy(), rttMs / 2));
  setTimeout(() => {
    if (client.destroyed) upstream.destroy();
    else upstream.connect({ host: '127.0.0.1', port: target });
  }, 1.5 * rttMs);
}

const configuration = JSON.parse(readFileSync(process.argv[2]!, 'utf8')) as WanConfiguration;
for (const { listen, target } of configuration.routes) {
  const server = createServer({ allowHalfOpen: true }, (client) =>
    accept(client, target, configuration.rttMs),
  );
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen({ port: listen, host: '127.0.0.1' }, resolve);
  });
}
