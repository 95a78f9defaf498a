import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { kafkaLibs } from '../../infra/components/kafka.js';
import { kafkaCommand } from '../../infra/kafka-broker.js';
import { claimLink, transactionalId } from '../../replicators/kafka/claim.js';
import { Cluster } from '../../replicators/kafka/client/cluster.js';
import { TransactionalProducer } from '../../replicators/kafka/client/producer.js';
import type { KafkaLinkConfig } from '../../replicators/kafka/link-config.js';
import {
  differences,
  kafkaLinkConfig,
  patiently,
  readPartition,
  startKafkaPair,
  writeTestMarker,
  initialiseTestLink,
} from '../support/kafka-replication.js';
import type { KafkaPair } from '../support/kafka-replication.js';
import { kafkaTool } from '../support/kafka.js';
import { startCommand, startProgram } from '../support/programs.js';
import type { Program } from '../support/programs.js';
import { until } from '../support/replication.js';

const PARTITIONS = 2;
const PROGRAM = 'test/support/kafka-link-process.js';

describe('a Kafka link survives', () => {
  let pair: KafkaPair;
  let directory: string;
  const programs: Program[] = [];
  let count = 0;

  beforeAll(async () => {
    directory = await mkdtemp(path.join(tmpdir(), 'interlock-kafka-faults-'));
    // A broker that was killed is let in again when its controller has missed it.
    pair = await startKafkaPair({
      'broker.session.timeout.ms': '4000',
      'broker.heartbeat.interval.ms': '500',
    });
  });
  afterEach(async () => {
    await Promise.all(programs.splice(0).map((program) => program.kill('SIGKILL')));
  });
  afterAll(async () => {
    await pair?.stop();
    await rm(directory, { recursive: true, force: true });
  });

  const prepare = async (name: string): Promise<{ config: KafkaLinkConfig; file: string }> => {
    await pair.a.admin.createTopics({ topics: [{ topic: name, numPartitions: PARTITIONS }] });
    const config = kafkaLinkConfig(pair, 'a', name);
    await initialiseTestLink(config, 'now');
    const file = path.join(directory, `${name}.json`);
    await writeFile(file, JSON.stringify(config));
    return { config, file };
  };
  const write = async (topic: string, records: number): Promise<void> => {
    const messages = Array.from({ length: records }, () => {
      const n = ++count;
      return { key: `k${n % 10}`, value: `value ${n}`, partition: n % PARTITIONS };
    });
    await patiently(() => pair.a.producer.send({ topic, messages }));
  };
  const start = (file: string, stopAt?: string): Program => {
    const program = startProgram(
      PROGRAM,
      [file],
      stopAt === undefined ? {} : { INTERLOCK_LINK_STOP_AT: stopAt },
    );
    programs.push(program);
    return program;
  };
  const copied = async (topic: string): Promise<number> =>
    (await readPartition(pair.b, `dc-a.${topic}`, 0)).length +
    (await readPartition(pair.b, `dc-a.${topic}`, 1)).length;

  const COMMITTED = new Set(['after-target-commit', 'before-acknowledge', 'after-acknowledge']);
  it.each([
    'before-read',
    'after-read',
    'before-target-write',
    'before-target-commit',
    'after-target-commit',
    'before-acknowledge',
    'after-acknowledge',
  ])('kill -9 of its process at %s', async (point) => {
    const topic = `t-kill-${point}`;
    const { config, file } = await prepare(topic);
    await write(topic, 50);
    const early = await writeTestMarker(config);
    const first = start(file, `${point}:1`);
    await first.prints(`stopped at ${point}`);
    await write(topic, 50);
    expect((await copied(topic)) > 0).toBe(COMMITTED.has(point));
    if (point === 'after-acknowledge') await first.prints(`marker ${early}`);
    else expect(first.output()).not.toContain(`marker ${early}`);
    await first.kill('SIGKILL');
    const second = start(file);
    // Said again, when nobody can know whether it was heard.
    await second.prints(`marker ${early}`);
    await write(topic, 50);
    await second.prints(`marker ${await writeTestMarker(config)}`);
    expect(await differences(pair, 'a', topic, PARTITIONS)).toEqual({ records: 150, wrong: [] });
  });

  it.each([
    ['a', ['after-read']],
    ['b', ['before-target-write', 'before-target-commit', 'after-target-commit']],
  ] as const)('kill -9 of broker %s while links are at %s', async (side, points) => {
    const links = [];
    for (const point of points) {
      const topic = `t-broker-${side}-${point}`;
      const { config, file } = await prepare(topic);
      const go = path.join(directory, `${topic}.go`);
      await write(topic, 50);
      const program = start(file, `${point}:1:${go}`);
      await program.prints(`stopped at ${point}`);
      links.push({ topic, config, go, program });
    }
    await pair[side].server.kill('SIGKILL');
    for (const { go } of links) await writeFile(go, '');
    for (const { program } of links) await program.prints('error ');
    await pair[side].server.restart();
    for (const { topic, config, program } of links) {
      await write(topic, 50);
      const marker = await patiently(() => writeTestMarker(config));
      await program.prints(`marker ${marker}`, 120_000);
      expect(await differences(pair, 'a', topic, PARTITIONS)).toEqual({ records: 100, wrong: [] });
    }
  });

  it('two processes on one link: the younger one goes on, the older one ends and has doubled nothing', async () => {
    const topic = 't-two';
    const { config, file } = await prepare(topic);
    const first = start(file);
    await first.prints('state streaming');
    await write(topic, 50);
    const second = start(file);
    await second.prints('state streaming');
    await write(topic, 50);
    await first.prints('ended HeldByOther final');
    await second.prints(`marker ${await writeTestMarker(config)}`);
    expect(second.output()).not.toContain('ended');
    expect(await differences(pair, 'a', topic, PARTITIONS)).toEqual({ records: 100, wrong: [] });
  });

  it('one that was fenced ends when another has claimed the link, though that one has committed nothing yet', async () => {
    const topic = 't-claimed';
    const { config, file } = await prepare(topic);
    const first = start(file);
    await first.prints('state streaming');
    const cluster = new Cluster(config.target);
    await claimLink(cluster, config.link, 'another');
    await TransactionalProducer.take(cluster, transactionalId(config.link), 60_000);
    cluster.close();
    await write(topic, 10);
    await first.prints('ended HeldByOther final');
    expect(await copied(topic)).toBe(0);
  });

  it.each(['before-target-commit', 'before-target-write'])(
    'a zombie that wakes at %s after another has taken over',
    async (point) => {
      const topic = `t-zombie-${point}`;
      const { config, file } = await prepare(topic);
      const go = path.join(directory, `${topic}.go`);
      await write(topic, 50);
      const zombie = start(file, `${point}:1:${go}`);
      await zombie.prints(`stopped at ${point}`);
      zombie.child.kill('SIGSTOP');
      const second = start(file);
      await second.prints(`marker ${await writeTestMarker(config)}`);
      await writeFile(go, '');
      zombie.child.kill('SIGCONT');
      await zombie.prints('ended HeldByOther final');
      await write(topic, 50);
      await second.prints(`marker ${await writeTestMarker(config)}`);
      expect(await differences(pair, 'a', topic, PARTITIONS)).toEqual({ records: 100, wrong: [] });
      await until(() => second.child.exitCode === null, 'the second one runs');
    },
  );

  it('its coordinator that fences it though nobody else has the link', async () => {
    const topic = 't-fenced';
    const { config, file } = await prepare(topic);
    const link = start(file);
    await link.prints('state streaming');
    await write(topic, 50);
    await link.prints(`marker ${await writeTestMarker(config)}`);
    const cluster = new Cluster(config.target);
    // As a coordinator does with a transaction that is open for too long.
    await TransactionalProducer.take(cluster, transactionalId(config.link), 60_000);
    cluster.close();
    await write(topic, 50);
    await link.prints(`marker ${await writeTestMarker(config)}`);
    expect(link.output()).toContain('was taken over');
    expect(link.output()).not.toContain('ended');
    expect(await differences(pair, 'a', topic, PARTITIONS)).toEqual({ records: 100, wrong: [] });
  });

  it('kills of its process while a VerifiableProducer writes: a VerifiableConsumer of the copy has each of its records once, in order', async () => {
    const topic = 't-verifiable';
    const { config, file } = await prepare(topic);
    const producer = startCommand(
      'java',
      kafkaCommand(kafkaLibs(), 'org.apache.kafka.tools.VerifiableProducer', [
        ...['--bootstrap-server', pair.a.server.address, '--topic', topic, '--throughput', '300'],
      ]),
    );
    programs.push(producer);
    for (const point of ['before-target-commit', 'after-target-commit', 'before-target-write']) {
      for (const pass of [1, 4]) {
        const link = start(file, `${point}:${pass}`);
        await link.prints(`stopped at ${point}`);
        await link.kill('SIGKILL');
      }
    }
    // It waits for what it has sent.
    await producer.kill('SIGTERM');
    const acknowledged = events(producer.output(), 'producer_send_success');
    await start(file).prints(`marker ${await writeTestMarker(config)}`);

    const committed = path.join(directory, 'committed.properties');
    await writeFile(committed, 'isolation.level=read_committed\n');
    const consumed = await kafkaTool('VerifiableConsumer', [
      ...['--bootstrap-server', pair.b.server.address, '--topic', `dc-a.${topic}`, '--group-id', 'verify'],
      ...['--max-messages', `${acknowledged.length}`, '--reset-policy', 'earliest', '--verbose'],
      ...['--consumer.config', committed],
    ]);
    const inOrder = (of: ToolEvent[]): string[][] =>
      [0, 1].map((partition) => of.filter((e) => e.partition === partition).map(({ value }) => value));
    expect(inOrder(events(consumed, 'record_data'))).toEqual(
      inOrder(acknowledged.sort((a, b) => a.offset - b.offset)),
    );
    // The consumer ends with the last one: behind it there is none.
    expect(await copied(topic)).toBe(acknowledged.length);
  });
});

interface ToolEvent {
  name: string;
  partition: number;
  offset: number;
  value: string;
}

/** The lines of one of Kafka's verifiable clients that have a name. */
function events(output: string, name: string): ToolEvent[] {
  return output
    .split('\n')
    .filter((line) => line.startsWith('{'))
    .map((line) => JSON.parse(line) as ToolEvent)
    .filter((event) => event.name === name);
}
