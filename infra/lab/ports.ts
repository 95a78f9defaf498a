import { createHash } from 'node:crypto';
import { createServer } from 'node:net';
import { InterlockError } from '../../src/errors.js';
import { listenerOf } from '../processes.js';

/** Below the range from which the kernel takes the ports of outgoing connections: a part that is down does not lose its port to one. */
const LOWEST = 10_000;
const HIGHEST = 32_000;

/** A place to begin that differs between labs, so that two of them seldom meet. */
export function defaultPortBase(directory: string): number {
  const hash = createHash('sha256').update(directory).digest().readUInt32BE(0);
  return LOWEST + (hash % 200) * 100;
}

/** True when nothing listens on 127.0.0.1:port. */
async function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(false));
    server.listen({ port, host: '127.0.0.1', exclusive: true }, () => server.close(() => resolve(true)));
  });
}

/** Adds a free port for each name that has none. Ports that are there stay. */
export async function assignPorts(
  names: readonly string[],
  known: Record<string, number>,
  base: number,
): Promise<Record<string, number>> {
  const ports = { ...known };
  const taken = new Set(Object.values(ports));
  let next = base;
  for (const name of names) {
    if (ports[name] !== undefined) continue;
    while (taken.has(next) || !(await isFree(next))) {
      next += 1;
      if (next > Math.max(HIGHEST, base + 2000)) {
        throw new InterlockError('Unavailable', `no free port from ${base} on; give another --port-base`);
      }
    }
    ports[name] = next;
    taken.add(next);
  }
  return ports;
}

const RELEASE_MS = 3_000;

/** @throws Refused when somebody else listens on the port that a part of the lab has */
export async function assertFree(part: string, port: number): Promise<void> {
  // A server that was killed shows as ended when its first thread has; its sockets go with the last.
  for (const deadline = Date.now() + RELEASE_MS; Date.now() < deadline;) {
    if (await isFree(port)) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new InterlockError(
    'Refused',
    `${part}: port ${port} of 127.0.0.1 is in use by ${listenerOf(port) ?? 'another process'}. ` +
      'End that process, or give the lab other ports: `interlock lab up --port-base N`',
    { details: { part, port } },
  );
}
