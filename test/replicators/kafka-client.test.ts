import { createServer } from 'node:net';
import type { AddressInfo, Server, Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, describe, expect, it } from 'vitest';
import { Reader, Writer } from '../../replicators/kafka/client/bytes.js';
import { Cluster } from '../../replicators/kafka/client/cluster.js';
import { Connection } from '../../replicators/kafka/client/connection.js';
import { listGroups } from '../../replicators/kafka/client/groups-api.js';
import { addPartitions } from '../../replicators/kafka/client/transaction-api.js';

const servers: Server[] = [];
const sockets: Socket[] = [];
afterEach(() => {
  for (const socket of sockets.splice(0)) socket.destroy();
  for (const server of servers.splice(0)) server.close();
});

/** Something that takes connections and answers as it is told. */
async function broker(onRequest: (socket: Socket, correlation: Buffer) => void): Promise<string> {
  const server = createServer((socket) => {
    sockets.push(socket);
    socket.on('error', () => undefined);
    socket.on('data', (bytes) => onRequest(socket, bytes.subarray(8, 12)));
  });
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return `127.0.0.1:${(server.address() as AddressInfo).port}`;
}

/** An answer to ListGroups: no group. */
function noGroups(correlation: Buffer, throttleMs: number): Buffer {
  const body = new Writer().raw(correlation).int32(throttleMs).int16(0).int32(0).done();
  return Buffer.from(new Writer().bytes(body).done());
}

describe('a connection to a broker', () => {
  it('waits for a broker that says that it throttles, and leaves one that only is late', async () => {
    let throttleMs = 60_000;
    const answers: number[] = [];
    const address = await broker((socket, correlation) => {
      const late = answers.push(answers.length) > 1;
      void sleep(late ? 2_500 : 0).then(() => socket.write(noGroups(correlation, late ? 0 : throttleMs)));
    });
    const throttled = await Connection.open(address, {});
    await throttled.call(listGroups());
    await expect(throttled.call(listGroups(), 50)).resolves.toEqual([]);
    throttled.close();
    [throttleMs] = [0, answers.splice(0)];
    const late = await Connection.open(address, {});
    await late.call(listGroups());
    await expect(late.call(listGroups(), 50)).rejects.toMatchObject({ code: 'Unavailable', retryable: true });
  });

  it('is one for all who ask for it at the same time, and another when it was lost', async () => {
    const address = await broker(() => undefined);
    const cluster = new Cluster({ brokers: [address] });
    const ask = (): Promise<unknown> => cluster.metadata([]).catch(() => undefined);
    const asked = [ask(), ask(), ask()];
    await expect.poll(() => sockets.length).toBe(1);
    sockets[0]!.destroy();
    await Promise.all(asked);
    const again = [ask(), ask()];
    await expect.poll(() => sockets.length).toBe(2);
    cluster.close();
    await Promise.all(again);
    await expect.poll(() => sockets.every(({ destroyed }) => destroyed)).toBe(true);
    expect(sockets.length).toBe(2);
  });
});

it('AddPartitionsToTxn tells why it was refused, and not what was left out because of that', () => {
  const body = new Writer().int32(0).int32(1).string('t').int32(3);
  for (const [partition, code] of [55, 29, 55].entries()) body.int32(partition).int16(code);
  const { read } = addPartitions('id', { id: 1n, epoch: 0 }, []);
  expect(() => read(new Reader(body.done()))).toThrow(/adding t-1 .*TOPIC_AUTHORIZATION_FAILED/);
});
