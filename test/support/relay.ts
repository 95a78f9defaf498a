import { connect, createServer } from 'node:net';
import type { AddressInfo, Server, Socket } from 'node:net';

/** A TCP relay to a server of this machine, as the network between two data centers. */
export interface Relay {
  port: number;
  /** Drops everything and closes nothing, as a network that loses packets does. */
  silence: () => void;
  /** Carries again; what was open while it was silent is closed: its bytes are missing. */
  heal: () => void;
  /** Resets every connection. */
  reset: () => void;
  close: () => void;
}

/** @param change what the server says, as it comes */
export async function relay(port: number, change = (said: Buffer): Buffer => said): Promise<Relay> {
  const sockets = new Set<Socket>();
  let silent = false;
  const each = (end: (socket: Socket) => void): void => {
    for (const socket of sockets) end(socket);
    sockets.clear();
  };
  const server: Server = createServer((client) => {
    const upstream = connect(port, '127.0.0.1');
    for (const [from, to] of [
      [client, upstream],
      [upstream, client],
    ] as const) {
      sockets.add(from);
      from.on('data', (chunk: Buffer) => {
        // Hazard: without it, a reader that is slow makes this process grow instead of the sender wait.
        if (!silent && !to.write(from === upstream ? change(chunk) : chunk)) from.pause();
      });
      from.on('drain', () => to.resume());
      from.on('error', () => undefined);
      from.on('close', () => {
        if (silent) return;
        sockets.delete(from);
        to.destroy();
      });
    }
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    port: (server.address() as AddressInfo).port,
    silence: () => (silent = true),
    heal: () => {
      silent = false;
      each((socket) => socket.destroy());
    },
    reset: () => each((socket) => socket.resetAndDestroy()),
    close: () => {
      each((socket) => socket.destroy());
      server.close();
    },
  };
}
