import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { kafkaLibs } from '../../infra/components/kafka.js';
import { kafkaCommand } from '../../infra/kafka-broker.js';
import { Cluster } from '../../replicators/kafka/client/cluster.js';
import type { KafkaAddress } from '../../replicators/kafka/client/connection.js';
import { startTestKafka } from '../support/kafka.js';
import {
  differences,
  kafkaLinkConfig,
  kafkaSettled,
  runKafkaLink,
  startKafkaPair,
} from '../support/kafka-replication.js';
import type { KafkaPair } from '../support/kafka-replication.js';
import { freePort } from '../support/mysql.js';

const run = promisify(execFile);
const PLAIN = 'org.apache.kafka.common.security.plain.PlainLoginModule required user_link="plain secret";';
const SCRAM = 'org.apache.kafka.common.security.scram.ScramLoginModule required;';

describe('a Kafka link over TLS', () => {
  let directory: string;
  let pair: KafkaPair;
  let ca: string;
  let secure: string;

  beforeAll(async () => {
    directory = await mkdtemp(path.join(tmpdir(), 'interlock-kafka-tls-'));
    const file = (name: string): string => path.join(directory, name);
    await writeFile(file('names'), 'subjectAltName=IP:127.0.0.1');
    const newKey = ['-newkey', 'rsa:2048', '-nodes', '-days', '2'];
    await run('openssl', [
      ...['req', '-x509', ...newKey, '-subj', '/CN=interlock test', '-addext', 'subjectAltName=IP:127.0.0.1'],
      ...['-keyout', file('key.pem'), '-out', file('cert.pem')],
    ]);
    ca = await readFile(file('cert.pem'), 'utf8');
    await writeFile(file('store.pem'), `${await readFile(file('key.pem'), 'utf8')}${ca}`);
    const [port, securePort, controllerPort] = [await freePort(), await freePort(), await freePort()];
    secure = `127.0.0.1:${securePort}`;
    const source = await startTestKafka({
      port,
      controllerPort,
      settings: {
        listeners: `CLIENT://127.0.0.1:${port},SECURE://${secure},CONTROLLER://127.0.0.1:${controllerPort}`,
        'advertised.listeners': `CLIENT://127.0.0.1:${port},SECURE://${secure}`,
        'listener.security.protocol.map': 'CLIENT:PLAINTEXT,SECURE:SASL_SSL,CONTROLLER:PLAINTEXT',
        'sasl.enabled.mechanisms': 'PLAIN,SCRAM-SHA-512',
        'listener.name.secure.plain.sasl.jaas.config': PLAIN,
        'listener.name.secure.scram-sha-512.sasl.jaas.config': SCRAM,
        'ssl.keystore.type': 'PEM',
        'ssl.keystore.location': file('store.pem'),
      },
    });
    pair = await startKafkaPair({}, [source, await startTestKafka()]);
    const args = ['--bootstrap-server', source.address, '--alter', '--entity-type', 'users'];
    const added = ['--entity-name', 'link', '--add-config', 'SCRAM-SHA-512=[password=scram-secret]'];
    await run('java', kafkaCommand(kafkaLibs(), 'kafka.admin.ConfigCommand', [...args, ...added]));
  });
  afterAll(async () => {
    await pair?.stop();
    await rm(directory, { recursive: true, force: true });
  });

  it.each([
    ['plain', 'plain secret'],
    ['scram-sha-512', 'scram-secret'],
  ] as const)('copies from a broker that asks for %s', async (mechanism, password) => {
    const topic = `t-${mechanism}`;
    await pair.a.admin.createTopics({ topics: [{ topic }] });
    await pair.a.producer.send({ topic, messages: [{ value: 'over TLS' }] });
    const source: KafkaAddress = {
      brokers: [secure],
      tls: { ca },
      sasl: { mechanism, username: 'link', password },
    };
    const link = await runKafkaLink(kafkaLinkConfig(pair, 'a', topic, { source }), 'earliest');
    await kafkaSettled(link);
    await link.stop();
    expect(await differences(pair, 'a', topic, 1)).toEqual({ records: 1, wrong: [] });
  });

  it('refuses a wrong password and a certificate that nobody vouches for', async () => {
    const ask = async (address: KafkaAddress): Promise<unknown> => {
      const cluster = new Cluster(address);
      return cluster.metadata([]).finally(() => cluster.close());
    };
    const sasl = { username: 'link', password: 'wrong' };
    for (const mechanism of ['plain', 'scram-sha-512'] as const) {
      await expect(
        ask({ brokers: [secure], tls: { ca }, sasl: { mechanism, ...sasl } }),
      ).rejects.toMatchObject({ code: 'Refused', message: /SASL_AUTHENTICATION_FAILED/ });
    }
    await expect(ask({ brokers: [secure], tls: {} })).rejects.toMatchObject({
      code: 'Unavailable',
      message: /certificate/,
    });
  });
});
