import { readFileSync } from 'node:fs';
import { stopPoints } from '../../replicators/core/stop-points.js';
import { OutboxRelay } from '../../replicators/outbox/relay.js';
import type { RelayConfig } from '../../replicators/outbox/relay-config.js';
import { InterlockError, messageOf } from '../../src/errors.js';

/**
 * Runs a relay until it is killed: `outbox-process CONFIG.json`. Prints changes of state (`state STATE`), markers, and how it ended:
 * `ended CODE retryable|final MESSAGE`.
 */
const config = JSON.parse(readFileSync(process.argv[2]!, 'utf8')) as RelayConfig;
let state = '';
const relay = new OutboxRelay(
  config,
  {
    onStatus: (status) => {
      if (status.state !== state) console.log(`state ${(state = status.state)}`);
    },
    onMarker: ({ markerId }) => console.log(`marker ${markerId}`),
  },
  stopPoints(process.env['INTERLOCK_LINK_STOP_AT']),
);
try {
  await relay.run(new AbortController().signal);
} catch (error) {
  const known = error instanceof InterlockError ? error : undefined;
  const kind = known?.retryable === true ? 'retryable' : 'final';
  console.log(`ended ${known?.code ?? 'Internal'} ${kind} ${messageOf(error).replaceAll('\n', ' ')}`);
  process.exitCode = 1;
}
