import { existsSync } from 'node:fs';
import path from 'node:path';
import { interlockHome } from '../mysql-server.js';
import type { Component } from './component.js';
import { onPath } from './search-path.js';

const VERSION = '1.5.1';

/** Temporal's CLI, which holds the dev server and its Web UI: on PATH, or our own copy. */
export const temporalComponent: Component<{ binary: string }> = {
  name: `Temporal ${VERSION}`,
  find: async () => {
    const found = onPath('temporal');
    if (found !== null) return { binary: found };
    const own = path.join(interlockHome(), `temporal-${VERSION}`, 'temporal');
    return existsSync(own) ? { binary: own } : null;
  },
  install: async () => undefined,
};
