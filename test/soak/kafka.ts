/**
 * `npm run soak -- kafka`: two brokers, a link in each direction as a process of its own, transactions on both sides, and random faults: kills
 * of links and brokers, two processes of one link, reset and black-holed connections. Then every copy is compared in full with its original.
 * Exit code 1: they differ.
 *   --kills N (100)  --seed N (random; printed)  --json
 */
import { randomInt } from 'node:crypto';
import { parseArgs } from 'node:util';
import { conclude, flagsOf, say, whole } from './command.js';
import { runKafkaSoak } from './kafka/soak.js';

const { kills, seed, json, help } = flagsOf(() =>
  parseArgs({
    options: {
      kills: { type: 'string', default: '100' },
      seed: { type: 'string', default: String(randomInt(1, 2 ** 31)) },
      json: { type: 'boolean', default: false },
      help: { type: 'boolean', short: 'h', default: false },
    },
  }),
);
if (help) {
  process.stdout.write('usage: npm run soak -- kafka [--kills N] [--seed N] [--json]\n');
  process.exit(0);
}
const options = { kills: whole('kills', kills), seed: whole('seed', seed) };
say(`seed ${seed}`);
const report = await runKafkaSoak({ ...options, say });
conclude(report, `${report.comparedRecords} records`, options.seed, json);
