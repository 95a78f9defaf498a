import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { createWriteStream, readFileSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { kafkaLibs } from '../../../infra/components/kafka.js';
import type { KafkaLinkConfig } from '../../../replicators/kafka/link-config.js';
import { freePort } from '../../support/mysql.js';
import { ROOT } from '../../support/programs.js';

/** A replicator under test. */
export interface Contestant {
  /** User and system time until now. */
  cpuSeconds: () => number;
  peakRssMb: () => number;
  /** Throws when it has ended by itself. */
  requireRunning: () => void;
  stop: () => Promise<void>;
}

const TICKS_PER_SECOND = 100;

function contestant(child: ChildProcess, log: string): Contestant {
  const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  const onExit = (): void => void child.kill('SIGKILL');
  process.once('exit', onExit);
  return {
    cpuSeconds: () => {
      const fields = readFileSync(`/proc/${child.pid}/stat`, 'utf8').split(') ')[1]!.split(' ');
      return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
    },
    peakRssMb: () => {
      const status = readFileSync(`/proc/${child.pid}/status`, 'utf8');
      return Math.round(Number(/^VmHWM:\s+(\d+) kB$/m.exec(status)?.[1] ?? Number.NaN) / 1024);
    },
    requireRunning: () => {
      if (child.exitCode === null && child.signalCode === null) return;
      const said = readFileSync(log, 'utf8').trimEnd().split('\n').slice(-10).join('\n');
      throw new Error(`a contestant has ended (${child.signalCode ?? `exit ${child.exitCode}`}):\n${said}`);
    },
    stop: async () => {
      child.kill('SIGTERM');
      const timer = setTimeout(() => child.kill('SIGKILL'), 10_000);
      await ended;
      clearTimeout(timer);
      process.removeListener('exit', onExit);
    },
  };
}

export async function startLink(directory: string, config: KafkaLinkConfig): Promise<Contestant> {
  await mkdir(directory, { recursive: true });
  const file = path.join(directory, 'link.json');
  await writeFile(file, JSON.stringify(config));
  const child = spawn(process.execPath, [path.join(ROOT, 'dist/test/bench/kafka/link-child.js'), file], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const log = path.join(directory, 'link.log');
  child.stdout.pipe(createWriteStream(log));
  return contestant(child, log);
}

export interface MirrorOptions {
  /** `host:port` of the two clusters. */
  from: string;
  to: string;
  /** A regular expression. */
  topics: string;
  exactlyOnce: boolean;
}

/** MirrorMaker 2 in dedicated mode, one direction, with as much heap as its own start script gives. */
export async function startMirrorMaker(directory: string, options: MirrorOptions): Promise<Contestant> {
  await mkdir(directory, { recursive: true });
  const file = path.join(directory, 'mm2.properties');
  const settings: Record<string, string> = {
    clusters: 'dc-a, dc-b',
    'dc-a.bootstrap.servers': options.from,
    'dc-b.bootstrap.servers': options.to,
    'dc-a->dc-b.enabled': 'true',
    'dc-a->dc-b.topics': options.topics,
    'dc-b->dc-a.enabled': 'false',
    'dc-a->dc-b.emit.heartbeats.enabled': 'false',
    'dc-b->dc-a.emit.heartbeats.enabled': 'false',
    'dc-a->dc-b.emit.checkpoints.enabled': 'false',
    'dc-a->dc-b.consumer.auto.offset.reset': 'earliest',
    'replication.factor': '1',
    'offset-syncs.topic.replication.factor': '1',
    'checkpoints.topic.replication.factor': '1',
    'heartbeats.topic.replication.factor': '1',
    'offset.storage.replication.factor': '1',
    'status.storage.replication.factor': '1',
    'config.storage.replication.factor': '1',
    'tasks.max': '4',
    'refresh.topics.interval.seconds': '5',
    ...(options.exactlyOnce && {
      'dc-b.exactly.once.source.support': 'enabled',
      'dedicated.mode.enable.internal.rest': 'true',
      listeners: `http://127.0.0.1:${await freePort()}`,
    }),
  };
  const lines = Object.entries(settings).map(([key, value]) => `${key} = ${value}`);
  await writeFile(file, `${lines.join('\n')}\n`);
  const child = spawn(
    'java',
    ['-Xms256M', '-Xmx2G', '-cp', `${kafkaLibs()}/*`, 'org.apache.kafka.connect.mirror.MirrorMaker', file],
    { cwd: directory, stdio: ['ignore', 'pipe', 'pipe'] },
  );
  const log = path.join(directory, 'mm2.log');
  const written = createWriteStream(log);
  child.stdout.pipe(written);
  child.stderr.pipe(written);
  return contestant(child, log);
}
