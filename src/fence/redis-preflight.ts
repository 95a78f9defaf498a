import { infoField } from './redis-client.js';
import { Checks } from './preflight.js';
import type { Check, Seen } from './preflight.js';
import type { RedisFence } from './redis-fence.js';
import { REDIS_RIGHTS } from './redis-rights.js';

const MB = 1024 * 1024;
/** A link that is away for longer than this lasts has to copy everything again. */
const LEAST_BACKLOG_BYTES = 16 * MB;
/** Of what waits for a link that reads slowly, the server ends the connection above this. */
const LEAST_OUTPUT_BYTES = 64 * MB;

/** What a Redis store must be like to take part in a switchover; each looks, and changes nothing. */
export function redisChecks({ client }: RedisFence): { name: string; look: () => Promise<Seen> }[] {
  const setting = async (name: string): Promise<string> => (await client.config('GET', name))[1] ?? '';
  return [
    {
      name: 'version',
      look: async () => {
        const info = await client.info('server');
        const version = infoField(info, 'redis_version') ?? 'unknown';
        if (infoField(info, 'redis_mode') === 'cluster')
          return {
            wrong: `${version} in cluster mode, which is not supported: a fence and a link are of one server. Name a server that stands alone`,
          };
        return Number(version.split('.')[0]) >= 7
          ? version
          : { wrong: `${version}, expected Redis 7 or later` };
      },
    },
    {
      name: 'role',
      look: async () => {
        const role = infoField(await client.info('replication'), 'role');
        return role === 'master' ? 'master' : { wrong: `${role}: the topology must name the master` };
      },
    },
    {
      name: 'eviction',
      look: async () => {
        const [policy, maxmemory] = [await setting('maxmemory-policy'), Number(await setting('maxmemory'))];
        if (policy === 'noeviction') return policy;
        const mend = 'CONFIG SET maxmemory-policy noeviction';
        const effect = policy.startsWith('allkeys')
          ? 'it would evict the unit states, and every write would be refused; and keys that the other side keeps'
          : 'it would evict keys that the other side keeps';
        if (maxmemory === 0) return { wrong: `${policy}: with a maxmemory ${effect}. ${mend}` };
        return { wrong: `${policy} above ${Math.round(maxmemory / MB)} MB: ${effect}. ${mend}` };
      },
    },
    {
      name: 'backlog',
      look: async () => {
        const bytes = Number(await setting('repl-backlog-size'));
        if (bytes >= LEAST_BACKLOG_BYTES) return `${Math.round(bytes / MB)} MB`;
        return {
          wrong: `repl-backlog-size is ${bytes} bytes: a link that is away for a moment would have to copy everything again. CONFIG SET repl-backlog-size ${4 * LEAST_BACKLOG_BYTES}`,
        };
      },
    },
    {
      name: 'output buffer',
      look: async () => {
        const limits = await setting('client-output-buffer-limit');
        const [, hard, soft, seconds] = /(?:replica|slave) (\d+) (\d+) (\d+)/.exec(limits) ?? [];
        const tooSmall = (bytes: string | undefined): boolean =>
          Number(bytes) !== 0 && Number(bytes) < LEAST_OUTPUT_BYTES;
        const said = `replica: ${hard} bytes, ${soft} bytes for ${seconds} s`;
        if (hard === undefined || tooSmall(hard) || tooSmall(soft))
          return {
            wrong: `client-output-buffer-limit of a ${said}: the server would cut a busy link off. CONFIG SET client-output-buffer-limit "replica 512mb 256mb 60"`,
          };
        return said;
      },
    },
    {
      name: 'full copy',
      look: async () => {
        if ((await setting('repl-diskless-sync')) !== 'yes') return 'through a file on its disk';
        return `diskless, ${await setting('repl-diskless-sync-delay')} s after a link has asked`;
      },
    },
    {
      name: 'persistence',
      look: async () => {
        if ((await setting('appendonly')) !== 'yes')
          return (await setting('save')) === ''
            ? 'none: a restart loses the keys, and the unit states with them'
            : 'snapshots: a restart loses what came behind the last one';
        const replayed = String(await client.call('ACL', 'DRYRUN', 'default', 'SET', 'any', ''));
        if (replayed !== 'OK')
          return {
            wrong: `the user default may not write, and Redis reads its append-only file with its rights: a restart would lose every transaction. ACL SETUSER default off ~* &* +@all`,
          };
        return `appendonly, appendfsync ${await setting('appendfsync')}`;
      },
    },
    {
      name: 'rights',
      look: async () => {
        const user = String(await client.call('ACL', 'WHOAMI'));
        const lacking = new Map<string, string>();
        const asked = Object.entries(REDIS_RIGHTS).flatMap(([purpose, commands]) =>
          commands.map(async (command: readonly string[]) => {
            if (String(await client.call('ACL', 'DRYRUN', user, ...command)) !== 'OK')
              lacking.set(command[0]!, purpose);
          }),
        );
        await Promise.all(asked);
        if (lacking.size === 0) return `of user ${user}`;
        const list = [...lacking].map(([command, purpose]) => `${command} (${purpose})`).join(', ');
        return { wrong: `user ${user} may not ${list}: ACL SETUSER ${user} ~* &* +@all` };
      },
    },
  ];
}

/** The same with the unit states, as a list. Never rejects. */
export async function preflightRedis(fence: RedisFence): Promise<Check[]> {
  const checks = new Checks(fence.name);
  const [version, ...others] = redisChecks(fence);
  // A server that does not answer has nothing more to say than that.
  if (
    !(await checks.add(version!.name, version!.look)) &&
    !(await fence.identity().then(Boolean, () => false))
  )
    return checks.list;
  for (const { name, look } of others) await checks.add(name, look);
  await checks.add('unit states', async () => {
    const { server, asserted, rows } = await fence.summary();
    if (rows === 0) return { wrong: 'none yet: run `interlock rules init`' };
    if (asserted === server) return `${rows} units, asserted on this server`;
    return {
      wrong: `${rows} units were asserted on run ${asserted}, and ${server} answers (a restart?): its rule center asserts them again; else \`interlock rules reassert --dc ${fence.dc}\``,
    };
  });
  return checks.list;
}

/** Above these, a server closes the connection of a link. */
const SIZE_LIMITS = ['proto-max-bulk-len', 'client-query-buffer-limit'] as const;

/** What links between two stores need of both. Never rejects. */
export async function preflightRedisPair(a: RedisFence, b: RedisFence): Promise<Check[]> {
  const checks = new Checks(`redis/${a.store} ${a.dc} and ${b.dc}`);
  const sizes = async ({ client }: RedisFence, name: string): Promise<number> =>
    Number((await client.config('GET', name))[1]);
  for (const name of SIZE_LIMITS)
    await checks.add(name, async () => {
      const [one, other] = await Promise.all([sizes(a, name), sizes(b, name)]);
      const text = `${one} bytes in ${a.dc}, ${other} in ${b.dc}`;
      if (one === other) return text;
      const [smaller, most] = one < other ? [a, other] : [b, one];
      return {
        wrong: `${text}: ${smaller.dc} does not take all that the other may have. There: CONFIG SET ${name} ${most}`,
      };
    });
  return checks.list;
}
