import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Kafka, logLevel } from 'kafkajs';
import { labDown, labUp } from '../../infra/lab/lab.js';
import type { LabInfo } from '../../infra/lab/lab.js';
import { NO_WORKLOAD } from '../../infra/lab/options.js';
import type { LabWorkload } from '../../infra/lab/options.js';
import { interlock } from './programs.js';

export interface KafkaLab {
  lab: LabInfo;
  directory: string;
  kafka: Record<'a' | 'b', Kafka>;
  /** A command line with `--json`, and its document. */
  cli: <T>(...args: string[]) => Promise<{ code: number | null; json: T; stderr: string }>;
  stop: () => Promise<void>;
}

/** Two data centers with a broker each, as `interlock lab up --kafka 1` makes them. */
export async function startKafkaLab(rttMs: number, workload: Partial<LabWorkload> = {}): Promise<KafkaLab> {
  const directory = path.join(mkdtempSync(path.join(tmpdir(), 'interlock-lab-')), 'lab');
  const stop = async (): Promise<void> => {
    await labDown({ directory, wipe: true });
    rmSync(path.dirname(directory), { recursive: true, force: true });
  };
  try {
    const lab = await labUp({
      directory,
      shape: { mysql: 'mysql', stores: 1, redis: 0, kafka: 1, gatewaysPerDc: 1, rttMs },
      workload: { ...NO_WORKLOAD, ...workload },
    });
    const kafka = (dc: 'a' | 'b'): Kafka =>
      new Kafka({
        clientId: 'test',
        brokers: [`127.0.0.1:${lab.ports[`dc-${dc}.kafka.events`]}`],
        logLevel: logLevel.NOTHING,
        retry: { initialRetryTime: 20, retries: 30 },
      });
    return {
      lab,
      directory,
      kafka: { a: kafka('a'), b: kafka('b') },
      cli: async <T>(...args: string[]) => {
        const ran = await interlock([...args, '--json'], lab.env);
        try {
          return { ...ran, json: JSON.parse(ran.stdout) as T };
        } catch {
          throw new Error(`${args.join(' ')}: exit ${String(ran.code)}\n${ran.stdout}\n${ran.stderr}`);
        }
      },
      stop,
    };
  } catch (error) {
    await stop();
    throw error;
  }
}
