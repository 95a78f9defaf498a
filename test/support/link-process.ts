import { readFileSync } from 'node:fs';
import { LinkHost } from '../../replicators/mysql/link-host.js';
import type { LinkConfig } from '../../replicators/mysql/link-config.js';

/** Runs one link in a thread of this process, until it is killed: `link-process CONFIG.json`. Prints status changes and markers. */
const config = JSON.parse(readFileSync(process.argv[2]!, 'utf8')) as LinkConfig;
let state = '';
await new LinkHost().run(
  config,
  {
    onStatus: (status) => {
      if (status.state !== state) console.log(`state ${(state = status.state)}`);
    },
    onMarker: (baseline) => console.log(`marker ${baseline.markerId}`),
  },
  new AbortController().signal,
);
