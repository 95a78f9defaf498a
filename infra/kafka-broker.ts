import { execFile, spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, open, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { InterlockError, messageOf } from '../src/errors.js';

const run = promisify(execFile);
const START_MS = 90_000;

export interface KafkaBrokerOptions {
  /** The directory of Kafka's jars. */
  libs: string;
  /** Data, configuration and log live here; created when missing. */
  directory: string;
  port: number;
  controllerPort: number;
  /** Of the Java heap. */
  heapMb?: number;
  /** Host and port that clients are told, when it is not `port` on this machine: a relay in between. */
  advertisedPort?: number;
  /** A second listener, for clients that come over a relay and are told the relay's port. */
  remote?: { port: number; advertisedPort: number };
  /** More of server.properties. */
  settings?: Record<string, string>;
}

export interface RunningKafka {
  child: ChildProcess;
  pid: number;
  port: number;
}

/** What runs a class of Kafka's jars. The garbage collector is the one that takes the least memory. */
export function kafkaCommand(libs: string, className: string, args: string[], heapMb = 256): string[] {
  const heap = [`-Xmx${heapMb}m`, '-Xms64m', '-XX:+UseSerialGC', '-XX:TieredStopAtLevel=4'];
  return [...heap, '-Dlog4j2.level=WARN', '-cp', `${libs}/*`, className, ...args];
}

/** One broker that is its own controller (KRaft), on loopback only; every topic of it has one replica. */
function properties(options: KafkaBrokerOptions): Record<string, string> {
  const { directory, port, controllerPort, advertisedPort = port, remote } = options;
  const listeners = [`CLIENT://127.0.0.1:${port}`];
  const advertised = [`CLIENT://127.0.0.1:${advertisedPort}`];
  if (remote !== undefined) {
    listeners.push(`REMOTE://127.0.0.1:${remote.port}`);
    advertised.push(`REMOTE://127.0.0.1:${remote.advertisedPort}`);
  }
  return {
    'process.roles': 'broker,controller',
    'node.id': '1',
    'controller.quorum.voters': `1@127.0.0.1:${controllerPort}`,
    listeners: [...listeners, `CONTROLLER://127.0.0.1:${controllerPort}`].join(','),
    'advertised.listeners': advertised.join(','),
    'listener.security.protocol.map': 'CLIENT:PLAINTEXT,REMOTE:PLAINTEXT,CONTROLLER:PLAINTEXT',
    'controller.listener.names': 'CONTROLLER',
    'inter.broker.listener.name': 'CLIENT',
    'log.dirs': path.join(directory, 'data'),
    'num.partitions': '1',
    'default.replication.factor': '1',
    'offsets.topic.replication.factor': '1',
    'offsets.topic.num.partitions': '4',
    'transaction.state.log.replication.factor': '1',
    'transaction.state.log.min.isr': '1',
    'transaction.state.log.num.partitions': '4',
    'group.initial.rebalance.delay.ms': '0',
    'num.network.threads': '2',
    'num.io.threads': '4',
    ...options.settings,
  };
}

/** Writes the configuration and, at the first time, makes the data directory. @returns how the broker is run */
export async function prepareKafkaBroker(
  options: KafkaBrokerOptions,
): Promise<{ program: string; args: string[] }> {
  const { directory, libs } = options;
  await mkdir(directory, { recursive: true });
  const file = path.join(directory, 'server.properties');
  const lines = Object.entries(properties(options)).map(([key, value]) => `${key}=${value}`);
  await writeFile(file, `${lines.join('\n')}\n`);
  if (!existsSync(path.join(directory, 'data', 'meta.properties'))) await format(libs, file);
  return { program: 'java', args: kafkaCommand(libs, 'kafka.Kafka', [file], options.heapMb) };
}

/** Starts a broker as a child and returns when it answers. */
export async function startKafkaBroker(options: KafkaBrokerOptions): Promise<RunningKafka> {
  const { directory } = options;
  const { program, args } = await prepareKafkaBroker(options);
  const log = path.join(directory, 'server.log');
  const out = await open(log, 'a');
  const child = spawn(program, args, {
    cwd: directory,
    stdio: ['ignore', out.fd, out.fd],
    detached: true,
  });
  await out.close();
  const failed = new Promise<never>((_resolve, reject) => {
    child.once('error', (error) => reject(new InterlockError('Unavailable', `java: ${error.message}`)));
    child.once('exit', (code, signal) =>
      reject(
        new InterlockError('Unavailable', `Kafka ended (${signal ?? `exit ${String(code)}`}); see ${log}`),
      ),
    );
  });
  failed.catch(() => undefined);
  await Promise.race([failed, waitForKafka(options.port)]);
  return { child, pid: child.pid!, port: options.port };
}

async function format(libs: string, file: string): Promise<void> {
  const id = Buffer.from(randomUUID().replaceAll('-', ''), 'hex').toString('base64url');
  try {
    await run(
      'java',
      kafkaCommand(libs, 'kafka.tools.StorageTool', ['format', `--cluster-id=${id}`, '-c', file]),
    );
  } catch (error) {
    throw new InterlockError('Unavailable', `the data directory of Kafka was not made: ${messageOf(error)}`, {
      cause: error,
    });
  }
}

/** Waits until the broker answers a request for its metadata (it takes connections before it can). */
async function waitForKafka(port: number): Promise<void> {
  const deadline = Date.now() + START_MS;
  for (;;) {
    if (await kafkaAnswers(port)) return;
    if (Date.now() > deadline) {
      throw new InterlockError(
        'Unavailable',
        `Kafka on 127.0.0.1:${port} has not answered in ${START_MS} ms`,
      );
    }
    await sleep(50);
  }
}

/** Metadata, version 1, of no topic: size, key 3, version 1, correlation 0, no client id, an empty list. */
const METADATA = Buffer.from('0000000e0003000100000000ffff00000000', 'hex');

/** One look whether it does. */
export async function kafkaAnswers(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1');
    const finish = (answer: boolean): void => {
      socket.destroy();
      resolve(answer);
    };
    let received = Buffer.alloc(0);
    socket.setTimeout(2_000, () => finish(false));
    socket.on('error', () => finish(false));
    socket.on('close', () => finish(false));
    socket.on('data', (chunk: Buffer) => {
      received = Buffer.concat([received, chunk]);
      // Size, correlation, number of brokers: 0 until it has registered with its controller.
      if (received.length >= 12) finish(received.readInt32BE(8) > 0);
    });
    socket.write(METADATA);
  });
}
