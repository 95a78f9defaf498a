import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import type { AddressInfo, Server, Socket } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { compiled } from '../../infra/project.js';
import { freePort } from '../support/mysql.js';

const RTT_MS = 60;
const directory = mkdtempSync(path.join(tmpdir(), 'interlock-wan-'));
let proxy: ChildProcess;
let server: Server;
let listen: number;
let nobody: number;
/** What the far side does with a connection. */
let behave: (socket: Socket) => void;

beforeAll(async () => {
  server = createServer({ allowHalfOpen: true }, (socket) => {
    socket.on('error', () => undefined);
    behave(socket);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const target = (server.address() as AddressInfo).port;
  listen = await freePort();
  nobody = await freePort();
  const file = path.join(directory, 'wan.json');
  writeFileSync(
    file,
    JSON.stringify({
      rttMs: RTT_MS,
      routes: [
        { listen, target },
        { listen: nobody, target: await freePort() },
      ],
    }),
  );
  proxy = spawn(process.execPath, [compiled('infra', 'lab', 'wan-proxy.js'), file], { stdio: 'inherit' });
  for (;;) {
    const open = await new Promise<boolean>((resolve) => {
      const probe = connect(nobody, '127.0.0.1', () => resolve(true)).once('error', () => resolve(false));
      probe.once('connect', () => probe.destroy());
    });
    if (open) break;
    await sleep(50);
  }
});
afterAll(async () => {
  proxy.kill('SIGKILL');
  await new Promise((resolve) => server.close(resolve));
  rmSync(directory, { recursive: true, force: true });
});

async function receive(socket: Socket): Promise<Buffer> {
  const chunks: Buffer[] = [];
  socket.on('data', (chunk) => chunks.push(chunk));
  await new Promise((resolve, reject) => socket.once('end', resolve).once('error', reject));
  return Buffer.concat(chunks);
}

test('a round trip takes the round-trip time, after a handshake of two', async () => {
  behave = (socket) => socket.pipe(socket);
  const begin = performance.now();
  const socket = connect(listen, '127.0.0.1');
  socket.setNoDelay(true);
  const answer = async (): Promise<number> => {
    const sent = performance.now();
    socket.write('x');
    await new Promise((resolve) => socket.once('data', resolve));
    return performance.now() - sent;
  };
  await answer();
  expect(performance.now() - begin).toBeGreaterThanOrEqual(2 * RTT_MS - 1);
  const trips: number[] = [];
  for (let i = 0; i < 10; i += 1) trips.push(await answer());
  trips.sort((a, b) => a - b);
  expect(trips[0]).toBeGreaterThanOrEqual(RTT_MS - 2);
  expect(trips[5]).toBeLessThan(RTT_MS + 30);
  socket.destroy();
});

test('a server that speaks first is heard', async () => {
  behave = (socket) => socket.end('greeting');
  expect((await receive(connect(listen, '127.0.0.1'))).toString()).toBe('greeting');
});

test('many bytes arrive unchanged, in order, though the reader is slow; the end of one direction leaves the other open', async () => {
  const sent = randomBytes(40 * 1024 * 1024);
  behave = (socket) => {
    const hash = createHash('sha256');
    socket.on('data', (chunk) => {
      hash.update(chunk);
      socket.pause();
      setTimeout(() => socket.resume(), 1);
    });
    // The client has ended its direction; this one goes on.
    socket.once('end', () => socket.end(hash.digest('hex')));
  };
  const socket = connect({ port: listen, host: '127.0.0.1', allowHalfOpen: true });
  socket.end(sent);
  expect((await receive(socket)).toString()).toBe(createHash('sha256').update(sent).digest('hex'));
});

test('a connection that breaks on one side breaks on the other; nobody there is a broken connection', async () => {
  behave = (socket) => socket.once('data', () => socket.resetAndDestroy());
  for (const port of [listen, nobody]) {
    const socket = connect(port, '127.0.0.1');
    socket.on('error', () => undefined);
    const closed = new Promise((resolve) => socket.once('close', resolve));
    socket.write('x');
    await closed;
  }
});
