import { Redis } from 'ioredis';
import { ensure } from '../../components/component.js';
import { redisComponent } from '../../components/redis.js';
import { REDIS_STORES } from '../options.js';
import type { LabDc } from '../options.js';
import { processPart } from '../part.js';
import type { LabContext, Part } from '../part.js';
import { writeAtomically } from '../state.js';

export function redisNames(lab: Pick<LabContext, 'state'>): string[] {
  return REDIS_STORES.slice(0, lab.state.shape.redis);
}

export function redisPort(dc: LabDc, store: string): string {
  return `${dc}.redis.${store}`;
}

/** The Redis server of one store. */
export function redisPart(lab: LabContext, dc: LabDc, store: string): Part {
  const name = `${dc}-redis-${store}`;
  const port = lab.port(redisPort(dc, store));
  const directory = lab.files.part(name);
  return processPart(lab, {
    name,
    kind: 'redis',
    dc,
    dependsOn: [],
    address: `127.0.0.1:${port}`,
    ports: [redisPort(dc, store)],
    command: async () => {
      const { server } = await ensure(redisComponent, lab.progress);
      const file = `${directory}/redis.conf`;
      await writeAtomically(file, configuration(lab, port, directory), 0o600);
      return { program: server, args: [file] };
    },
    probe: async () => answers(port, lab.secret('redis-interlock')),
  });
}

function configuration(lab: LabContext, port: number, directory: string): string {
  const { keys } = lab.state.workload;
  // An application writes its own keys, and may look at its units' states; nothing else of Interlock's.
  const patterns = keys.map(({ pattern }) => `~${pattern.replace(/\{(userId|region)\}/g, '*')}`);
  const own = keys.length === 0 ? ['~app:*'] : patterns;
  return [
    'bind 127.0.0.1',
    `port ${port}`,
    `dir "${directory}"`,
    'logfile ""',
    // What was acknowledged is there after a crash.
    'appendonly yes',
    'appendfsync always',
    'save ""',
    // A state that is evicted would fence its unit.
    'maxmemory-policy noeviction',
    // A link that was away for a while goes on from its checkpoint.
    'repl-backlog-size 64mb',
    'client-output-buffer-limit replica 512mb 256mb 60',
    'repl-diskless-sync yes',
    'repl-diskless-sync-delay 0',
    // Nobody logs in as it, and Redis 7.0 reads its own append-only file with its rights: without them, transactions would be lost.
    'user default off ~* &* +@all',
    `user interlock on >${lab.secret('redis-interlock')} ~* &* +@all`,
    `user app on >${lab.secret('redis-app')} %R~interlock:units ${own.join(' ')} &* +@all -@admin -flushall -flushdb -swapdb`,
    '',
  ].join('\n');
}

/** It has loaded its data. */
async function answers(port: number, password: string): Promise<boolean> {
  const client = new Redis({
    ...{ host: '127.0.0.1', port, username: 'interlock', password },
    ...{ lazyConnect: true, retryStrategy: () => null, maxRetriesPerRequest: 0 },
  });
  client.on('error', () => undefined);
  try {
    await client.connect();
    return (await client.ping()) === 'PONG';
  } finally {
    client.disconnect();
  }
}
