import { readFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import type { Socket } from 'node:net';

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

/** One direction: what `from` sends arrives at `to` after the delay. */
function delayed(from: Socket, to: Socket, delayMs: number): void {
  const queue: { due: number; chunk: Buffer | null }[] = [];
  let queuedBytes = 0;
  let timer: NodeJS.Timeout | undefined;
  const flush = (): void => {
    timer = undefined;
    const now = performance.now();
    // A timer may fire a fraction of a millisecond early.
    while (queue[0] !== undefined && queue[0].due <= now + 0.5) {
      const { chunk } = queue.shift()!;
      if (chunk === null) {
        to.end();
      } else {
        queuedBytes -= chunk.length;
        if (to.writable) to.write(chunk);
      }
    }
    if (from.isPaused() && queuedBytes + to.writableLength < WINDOW_BYTES) from.resume();
    if (queue[0] !== undefined) timer = setTimeout(flush, queue[0].due - now);
  };
  const put = (chunk: Buffer | null): void => {
    queue.push({ due: performance.now() + delayMs, chunk });
    queuedBytes += chunk?.length ?? 0;
    if (queuedBytes + to.writableLength >= WINDOW_BYTES) from.pause();
    timer ??= setTimeout(flush, delayMs);
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
  client.setNoDelay(true);
  // Not read before the target is connected: the kernel keeps what the client sends meanwhile.
  client.pause();
  client.on('error', () => undefined);
  setTimeout(() => {
    if (client.destroyed) return;
    const upstream = connect({ host: '127.0.0.1', port: target, noDelay: true, allowHalfOpen: true });
    upstream.once('error', () => client.resetAndDestroy());
    upstream.once('connect', () => {
      // What came in during the handshake has had its way already.
      delayed(client, upstream, rttMs / 2);
      delayed(upstream, client, rttMs / 2);
      client.resume();
    });
  }, rttMs);
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
