import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { kafkaLibs } from '../../infra/components/kafka.js';
import { kafkaCommand, startKafkaBroker } from '../../infra/kafka-broker.js';
import { freePort } from './mysql.js';
import { startCommand } from './programs.js';

export interface TestKafka {
  port: number;
  /** `host:port`, for a client. */
  address: string;
  directory: string;
  pid: () => number;
  kill: (signal: NodeJS.Signals) => Promise<void>;
  /** It answers nothing, and nobody hears that. */
  pause: () => void;
  unpause: () => void;
  /** Starts it again on the same port and data after `kill`. */
  restart: () => Promise<void>;
  stop: () => Promise<void>;
}

/** A real broker for one test file, ended by `stop`. */
export async function startTestKafka(
  options: {
    settings?: Record<string, string>;
    advertisedPort?: number;
    port?: number;
    controllerPort?: number;
    heapMb?: number;
  } = {},
): Promise<TestKafka> {
  const directory = await mkdtemp(path.join(tmpdir(), 'interlock-kafka-'));
  const port = options.port ?? (await freePort());
  const controllerPort = options.controllerPort ?? (await freePort());
  const start = () => startKafkaBroker({ ...options, libs: kafkaLibs(), directory, port, controllerPort });
  let running = await start();
  const kill = async (signal: NodeJS.Signals): Promise<void> => {
    const { child } = running;
    if (child.exitCode !== null || child.signalCode !== null) return;
    const ended = new Promise((resolve) => child.once('exit', resolve));
    child.kill(signal);
    await ended;
  };
  process.once('exit', () => running.child.kill('SIGKILL'));
  return {
    port,
    address: `127.0.0.1:${options.advertisedPort ?? port}`,
    directory,
    pid: () => running.pid,
    kill,
    pause: () => void running.child.kill('SIGSTOP'),
    unpause: () => void running.child.kill('SIGCONT'),
    restart: async () => {
      running = await start();
    },
    stop: async () => {
      await kill('SIGKILL');
      await rm(directory, { recursive: true, force: true });
    },
  };
}

/** Runs one of Kafka's own tools (`org.apache.kafka.tools.NAME`) to its end. @returns what it printed */
export async function kafkaTool(name: string, args: string[]): Promise<string> {
  const program = startCommand('java', kafkaCommand(kafkaLibs(), `org.apache.kafka.tools.${name}`, args));
  const timer = setTimeout(() => void program.kill('SIGKILL'), 120_000);
  const code = await program.ended;
  clearTimeout(timer);
  if (code !== 0) throw new Error(`${name} ended with ${String(code)}:\n${program.output()}`);
  return program.output();
}
