import { execFile } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { RedisConnection } from '../../replicators/redis/connection.js';
import { openRedis } from '../../src/fence/redis-client.js';
import type { Tls } from '../../src/topology/schema.js';
import { freePort } from '../support/mysql.js';
import { startRedis } from '../support/redis.js';
import type { TestRedis } from '../support/redis.js';
import { redisLinkConfig, startRedisLink, until } from '../support/redis-link.js';

const run = promisify(execFile);
const NAME = 'redis.interlock.test';

let directory: string;
let tls: Tls;
const servers: { server: TestRedis; tlsPort: number }[] = [];

beforeAll(async () => {
  directory = await mkdtemp(path.join(tmpdir(), 'interlock-redis-tls-'));
  const file = (name: string): string => path.join(directory, name);
  const key = ['-newkey', 'rsa:2048', '-nodes', '-days', '2'];
  await run('openssl', [
    ...['req', '-x509', ...key, '-subj', `/CN=${NAME}`, '-addext', `subjectAltName=DNS:${NAME}`],
    ...['-keyout', file('key.pem'), '-out', file('cert.pem')],
  ]);
  tls = { ca: file('cert.pem'), serverName: NAME };
  for (const db of ['a', 'b']) {
    const tlsPort = await freePort();
    const server = await startRedis({
      config: {
        ...{ 'tls-port': String(tlsPort), 'tls-auth-clients': 'no', 'repl-diskless-sync-delay': '0' },
        ...{ 'tls-cert-file': file('cert.pem'), 'tls-key-file': file('key.pem') },
        'tls-ca-cert-file': file('cert.pem'),
      },
    });
    servers.push({ server, tlsPort });
    await server.cli('SET', `of-${db}`, 'v');
  }
});
afterAll(async () => {
  for (const { server } of servers) await server.stop();
  await rm(directory, { recursive: true, force: true });
});

it('a link copies and follows over TLS, and an unknown certificate is refused', async () => {
  const [a, b] = servers;
  const address = (side: typeof a, over: Tls = tls): { host: string; port: number; tls: Tls } => ({
    ...{ host: '127.0.0.1', port: side!.tlsPort },
    tls: over,
  });
  const link = await startRedisLink(
    redisLinkConfig({ a: { server: a!.server }, b: { server: b!.server } }, 'a', {
      ...{ source: address(a), target: address(b) },
    }),
    { copy: true },
  );
  try {
    await until('streaming', () => link.status().state === 'streaming');
    await a!.server.cli('INCR', 'n');
    await until('applied', async () => (await b!.server.cli('GET', 'n')) === '1');
    expect(await b!.server.cli('GET', 'of-a')).toBe('v');
  } finally {
    await link.stop();
  }
  await expect(
    RedisConnection.open(address(a, { ...tls, serverName: 'other.interlock.test' }), 'test'),
  ).rejects.toMatchObject({ code: 'Unavailable' });
  const client = openRedis(address(a), 'test');
  expect(await client.get('n')).toBe('1');
  client.disconnect();
});
