import { readFileSync } from 'node:fs';
import { KafkaLink } from '../../replicators/kafka/link.js';
import type { KafkaLinkConfig } from '../../replicators/kafka/link-config.js';
import { stopPoints } from '../../replicators/core/stop-points.js';
import { InterlockError, messageOf } from '../../src/errors.js';

/** Runs a Kafka link until it is killed: `kafka-link-process CONFIG.json`. Prints what `link-process` prints. */
const config = JSON.parse(readFileSync(process.argv[2]!, 'utf8')) as KafkaLinkConfig;
let state = '';
let lastError: string | undefined;
const link = new KafkaLink(
  config,
  {
    onStatus: (status) => {
      if (status.state !== state) console.log(`state ${(state = status.state)} ${config.link}`);
      const error = status.lastError?.message;
      if (error !== lastError && error !== undefined) console.log(`error ${error.replaceAll('\n', ' ')}`);
      lastError = error;
    },
    onMarker: (baseline) => console.log(`marker ${baseline.markerId}`),
  },
  stopPoints(process.env['INTERLOCK_LINK_STOP_AT']),
);
try {
  await link.run(new AbortController().signal);
} catch (error) {
  const known = error instanceof InterlockError ? error : undefined;
  console.log(
    `ended ${known?.code ?? 'Internal'} ${known?.retryable === true ? 'retryable' : 'final'} ${messageOf(error).replaceAll('\n', ' ')}`,
  );
  process.exitCode = 1;
}
