import { readFileSync } from 'node:fs';
import { LinkHost } from '../../replicators/host/link-host.js';
import type { LinkConfig } from '../../replicators/mysql/link-config.js';
import { InterlockError, messageOf } from '../../src/errors.js';

/**
 * Runs links in the threads of this process, as a worker does, until it is killed: `link-process CONFIG.json…`. Prints changes of state
 * (`state STATE LINK`), markers, errors that a link mends by itself (`error MESSAGE`), and how a link ended: `ended CODE retryable|final MESSAGE`.
 */
const host = new LinkHost();

async function run(file: string): Promise<void> {
  const config = JSON.parse(readFileSync(file, 'utf8')) as LinkConfig;
  let state = '';
  let lastError: string | undefined;
  const onStatus: Parameters<LinkHost['run']>[1]['onStatus'] = (status) => {
    if (status.state !== state) console.log(`state ${(state = status.state)} ${config.link}`);
    const error = status.lastError?.message;
    if (error !== lastError && error !== undefined) console.log(`error ${error.replaceAll('\n', ' ')}`);
    lastError = error;
  };
  const onMarker: Parameters<LinkHost['run']>[1]['onMarker'] = (baseline) =>
    console.log(`marker ${baseline.markerId}`);
  try {
    await host.run(config, { onStatus, onMarker }, new AbortController().signal);
  } catch (error) {
    const known = error instanceof InterlockError ? error : undefined;
    console.log(
      `ended ${known?.code ?? 'Internal'} ${known?.retryable === true ? 'retryable' : 'final'} ${messageOf(error).replaceAll('\n', ' ')}`,
    );
    process.exitCode = 1;
  }
}

await Promise.all(process.argv.slice(2).map(run));
