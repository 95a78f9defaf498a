import { readFileSync } from 'node:fs';
import { LinkHost } from '../../replicators/mysql/link-host.js';
import type { LinkConfig } from '../../replicators/mysql/link-config.js';
import { InterlockError, messageOf } from '../../src/errors.js';

/**
 * Runs one link in a thread of this process, until it is killed: `link-process CONFIG.json`. Prints status changes, markers, and how the
 * link ended: `ended CODE retryable|final MESSAGE`.
 */
const config = JSON.parse(readFileSync(process.argv[2]!, 'utf8')) as LinkConfig;
let state = '';
try {
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
} catch (error) {
  const known = error instanceof InterlockError ? error : undefined;
  console.log(
    `ended ${known?.code ?? 'Internal'} ${known?.retryable === true ? 'retryable' : 'final'} ${messageOf(error).replaceAll('\n', ' ')}`,
  );
  process.exitCode = 1;
}
