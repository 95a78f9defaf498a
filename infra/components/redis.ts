import type { Component } from './component.js';
import { onPath, versionOf } from './search-path.js';

/** redis-server 7 or later and its command line, from the distribution. */
export const redisComponent: Component<{ server: string; cli: string }> = {
  name: 'Redis 7',
  find: async () => {
    const server = onPath('redis-server');
    const cli = onPath('redis-cli');
    if (server === null || cli === null) return null;
    const major = Number(/ v=(\d+)\./.exec(await versionOf(server))?.[1] ?? 0);
    return major >= 7 ? { server, cli } : null;
  },
  packages: () => ['redis-server', 'redis-tools'],
  install: async () => undefined,
};
