/**
 * `npm run soak -- mysql`: two servers, a link in each direction as a process of its own, load on both sides, and random faults: kills of links and
 * servers, paused ones, two processes of one link, reset and black-holed connections. Then both sides are compared in full. Exit code 1: they differ.
 *   --kills N (100)  --minutes N (as long as the kills take)  --seed N (random; printed)  --flavour mysql|mariadb (mysql)  --json
 */
import { randomInt } from 'node:crypto';
import { parseArgs } from 'node:util';
import { conclude, flagsOf, refuse, say, whole } from './command.js';
import { runSoak } from './mysql/soak.js';

const {
  kills,
  minutes,
  seed: given,
  flavour,
  json,
  help,
} = flagsOf(() =>
  parseArgs({
    options: {
      kills: { type: 'string' },
      minutes: { type: 'string' },
      seed: { type: 'string' },
      flavour: { type: 'string', default: 'mysql' },
      json: { type: 'boolean', default: false },
      help: { type: 'boolean', short: 'h', default: false },
    },
  }),
);
if (help) {
  process.stdout.write(
    'usage: npm run soak -- mysql [--kills N] [--minutes N] [--seed N] [--flavour mysql|mariadb] [--json]\n',
  );
  process.exit(0);
}
if (flavour !== 'mysql' && flavour !== 'mariadb')
  refuse(`--flavour: ${JSON.stringify(flavour)}: expected mysql or mariadb`);
const seed = given === undefined ? randomInt(1, 2 ** 31) : whole('seed', given);
const until = {
  minutes: minutes === undefined ? 0 : whole('minutes', minutes),
  kills: kills === undefined ? (minutes === undefined ? 100 : 0) : whole('kills', kills),
};
say(`seed ${seed}`);
const report = await runSoak({ flavour, seed, ...until, say });
conclude(report, `${report.comparedRows} rows`, seed, json);
