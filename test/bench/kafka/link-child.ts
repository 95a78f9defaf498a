import { readFileSync } from 'node:fs';
import { KafkaLink } from '../../../replicators/kafka/link.js';
import type { KafkaLinkConfig } from '../../../replicators/kafka/link-config.js';
import { messageOf } from '../../../src/errors.js';

/** A process with one Kafka link: `link-child CONFIG.json`, until SIGTERM. */
const config = JSON.parse(readFileSync(process.argv[2]!, 'utf8')) as KafkaLinkConfig;
const abort = new AbortController();
process.once('SIGTERM', () => abort.abort());
let state = '';
const link = new KafkaLink(
  config,
  {
    onStatus: (status) => {
      if (status.state !== state) console.log(`state ${(state = status.state)}`);
      if (status.lastError !== null) console.log(`error ${status.lastError.message}`);
    },
    onMarker: () => undefined,
  },
  () => undefined,
);
try {
  await link.run(abort.signal);
} catch (error) {
  console.log(`ended ${messageOf(error)}`);
  process.exitCode = 1;
}
