import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { initialiseKafkaLink } from '../../../replicators/kafka/initialise.js';
import { messageOf } from '../../../src/errors.js';
import { startTestKafka } from '../../support/kafka.js';
import {
  differences,
  kafkaLinkConfig,
  startKafkaPair,
  writeTestMarker,
} from '../../support/kafka-replication.js';
import type { KafkaPair, KafkaSide } from '../../support/kafka-replication.js';
import { freePort } from '../../support/mysql.js';
import { relay } from '../../support/relay.js';
import type { Relay } from '../../support/relay.js';
import { LinkSupervisor } from '../mysql/link-supervisor.js';
import { Random } from '../mysql/random.js';

export interface KafkaSoakReport {
  seed: number;
  kills: number;
  seconds: number;
  faults: Record<string, number>;
  links: Record<string, { starts: number; superseded: number }>;
  /** Transactions of the load that were committed, undone, or failed in a fault. */
  transactions: Record<'committed' | 'undone' | 'failed', number>;
  comparedRecords: number;
  findings: string[];
}

const TOPICS = ['s-one', 's-two'];
const PARTITIONS = 3;
const SETTLE_MS = 300_000;
type Letter = 'a' | 'b';
const LETTERS: Letter[] = ['a', 'b'];

/** Load on both sides: transactions over all partitions, of which some are undone, until `stop`. */
async function load(
  side: KafkaSide,
  name: string,
  counts: KafkaSoakReport['transactions'],
  signal: AbortSignal,
): Promise<void> {
  for (let n = 0, life = 0; !signal.aborted; life++) {
    const producer = side.kafka.producer({
      transactionalId: `soak-${name}-${life}`,
      idempotent: true,
      maxInFlightRequests: 1,
      transactionTimeout: 10_000,
    });
    try {
      await producer.connect();
      while (!signal.aborted) {
        const transaction = await producer.transaction();
        n += 1;
        for (let i = 0; i < 1 + (n % 4); i++) {
          const messages = Array.from({ length: 1 + (n % 50) }, (_, m) => ({
            key: m % 3 === 0 ? null : `${m}`,
            value: `${name} ${n} ${i} ${m}`,
            partition: (n + i) % PARTITIONS,
          }));
          await transaction.send({ topic: TOPICS[n % TOPICS.length]!, messages });
        }
        if (n % 5 === 0) await transaction.abort();
        else await transaction.commit();
        counts[n % 5 === 0 ? 'undone' : 'committed'] += 1;
        await sleep(5);
      }
    } catch {
      // Whether it was committed does not matter: what the source has is what counts.
      counts.failed += 1;
      await sleep(200);
    } finally {
      await producer.disconnect().catch(() => undefined);
    }
  }
}

export async function runKafkaSoak(options: {
  seed: number;
  kills: number;
  say: (line: string) => void;
}): Promise<KafkaSoakReport> {
  const { seed, say } = options;
  const random = new Random(seed);
  const begun = performance.now();
  const directory = await mkdtemp(path.join(tmpdir(), 'interlock-soak-kafka-'));
  const relays: Relay[] = [];
  const settings = { 'broker.session.timeout.ms': '6000', 'broker.heartbeat.interval.ms': '500' };
  const servers = await Promise.all(
    LETTERS.map(async () => {
      const port = await freePort();
      const front = await relay(port);
      relays.push(front);
      return startTestKafka({ port, advertisedPort: front.port, settings });
    }),
  );
  const pair: KafkaPair = await startKafkaPair({}, servers);
  const abort = new AbortController();
  const transactions = { committed: 0, undone: 0, failed: 0 };
  const supervisors: Record<string, LinkSupervisor> = {};
  const findings: string[] = [];
  const faults: Record<string, number> = {};
  let kills = 0;
  let comparedRecords = 0;
  const loads: Promise<void>[] = [];
  try {
    const configs = LETTERS.map((from) => kafkaLinkConfig(pair, from, 's', { include: ['s-*'] }));
    for (const letter of LETTERS)
      await pair[letter].admin.createTopics({
        topics: TOPICS.map((topic) => ({ topic, numPartitions: PARTITIONS })),
      });
    for (const config of configs) {
      await initialiseKafkaLink(config, { from: 'earliest' });
      const file = path.join(directory, `${config.from}.json`);
      await writeFile(file, JSON.stringify(config));
      supervisors[config.from] = new LinkSupervisor(config.link, file, 'test/support/kafka-link-process.js');
    }
    for (const letter of LETTERS)
      for (const who of ['x', 'y'])
        loads.push(load(pair[letter], `${letter}${who}`, transactions, abort.signal));
    while (kills < options.kills) {
      await sleep(random.between(200, 2_500));
      const letter = LETTERS[random.int(2)]!;
      const index = LETTERS.indexOf(letter);
      const link = supervisors[`dc-${letter}`]!;
      const fault = random.weighted<string>([
        [10, 'kill a link'],
        [2, 'two processes'],
        [2, 'two processes, one paused'],
        [3, 'reset connections'],
        [1, 'silent network'],
        [2, 'kill a broker'],
      ]);
      faults[fault] = (faults[fault] ?? 0) + 1;
      say(`${Math.round((performance.now() - begun) / 1000)} s: ${fault} (${letter})`);
      if (fault === 'kill a link') {
        link.kill();
        kills += 1;
      } else if (fault.startsWith('two')) await link.duel(fault.endsWith('paused'));
      else if (fault === 'reset connections') relays[index]!.reset();
      else if (fault === 'silent network') {
        relays[index]!.silence();
        await sleep(random.between(500, 15_000));
        relays[index]!.heal();
      } else {
        await servers[index]!.kill('SIGKILL');
        kills += 1;
        await servers[index]!.restart();
      }
      const failure = Object.values(supervisors).find((s) => s.failure !== undefined)?.failure;
      if (failure !== undefined) throw new Error(failure);
    }
    abort.abort();
    await Promise.all(loads);
    for (const config of configs)
      await supervisors[config.from]!.reaches(await writeTestMarker(config), SETTLE_MS);
    for (const letter of LETTERS) {
      for (const topic of TOPICS) {
        const { records, wrong } = await differences(pair, letter, topic, PARTITIONS);
        comparedRecords += records;
        findings.push(...wrong);
      }
    }
  } catch (error) {
    findings.push(messageOf(error));
  } finally {
    abort.abort();
    await Promise.all(Object.values(supervisors).map((supervisor) => supervisor.stop()));
    await Promise.allSettled(loads);
    await pair.stop();
    for (const front of relays) front.close();
    await rm(directory, { recursive: true, force: true });
  }
  const links = Object.fromEntries(
    Object.entries(supervisors).map(([name, { starts, superseded }]) => [name, { starts, superseded }]),
  );
  const seconds = Math.round((performance.now() - begun) / 1000);
  return { seed, kills, seconds, faults, links, transactions, comparedRecords, findings };
}
