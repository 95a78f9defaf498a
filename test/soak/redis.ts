/**
 * `npm run soak -- redis`: two servers, a link in each direction as a process of its own, commands that are not idempotent on both sides, and random
 * faults: kills of links and servers, paused ones, two processes of one link, reset and black-holed connections. Both sides are compared in full before
 * each kill of a server, and in the end. Exit code 1: they differ.
 *   --kills N (100)  --minutes N (as long as the kills take)  --seed N (random; printed)  --json
 */
import { randomInt } from 'node:crypto';
import { parseArgs } from 'node:util';
import { conclude, flagsOf, say, whole } from './command.js';
import { runRedisSoak } from './redis/soak.js';

const {
  kills,
  minutes,
  seed: given,
  json,
  help,
} = flagsOf(() =>
  parseArgs({
    options: {
      kills: { type: 'string' },
      minutes: { type: 'string' },
      seed: { type: 'string' },
      json: { type: 'boolean', default: false },
      help: { type: 'boolean', short: 'h', default: false },
    },
  }),
);
if (help) {
  process.stdout.write('usage: npm run soak -- redis [--kills N] [--minutes N] [--seed N] [--json]\n');
  process.exit(0);
}
const seed = given === undefined ? randomInt(1, 2 ** 31) : whole('seed', given);
const until = {
  minutes: minutes === undefined ? 0 : whole('minutes', minutes),
  kills: kills === undefined ? (minutes === undefined ? 100 : 0) : whole('kills', kills),
};
say(`seed ${seed}`);
const report = await runRedisSoak({ seed, ...until, say });
conclude(report, `${report.comparedKeys} keys, ${report.comparisons} times,`, seed, json);
