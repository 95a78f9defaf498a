/**
 * `npm run soak -- mysql`: two servers, a link in each direction as a process of its own, load on both sides, and random faults: kills of links and
 * servers, paused ones, two processes of one link, reset and black-holed connections. Then both sides are compared in full. Exit code 1: they differ.
 *   --kills N (100)  --minutes N (as long as the kills take)  --seed N (random; printed)  --flavour mysql|mariadb (mysql)  --json
 */
import { randomInt } from 'node:crypto';
import { parseArgs } from 'node:util';
import { messageOf } from '../../src/errors.js';
import { runSoak } from './mysql/soak.js';

function refuse(message: string): never {
  process.stderr.write(`soak: ${message}\n`);
  process.exit(2);
}

function flags() {
  try {
    return parseArgs({
      options: {
        kills: { type: 'string' },
        minutes: { type: 'string' },
        seed: { type: 'string' },
        flavour: { type: 'string', default: 'mysql' },
        json: { type: 'boolean', default: false },
        help: { type: 'boolean', short: 'h', default: false },
      },
    }).values;
  } catch (error) {
    return refuse(messageOf(error).split('\n')[0]!);
  }
}

function whole(flag: string, text: string): number {
  const value = Number(text);
  if (text.trim() !== '' && Number.isSafeInteger(value) && value > 0 && value < 2 ** 31) return value;
  return refuse(`--${flag}: ${JSON.stringify(text)}: expected a whole number above 0`);
}

const { kills, minutes, seed: given, flavour, json, help } = flags();
if (help) {
  process.stdout.write(
    'usage: npm run soak -- mysql [--kills N] [--minutes N] [--seed N] [--flavour mysql|mariadb] [--json]\n',
  );
  process.exit(0);
}
if (flavour !== 'mysql' && flavour !== 'mariadb')
  refuse(`--flavour: ${JSON.stringify(flavour)}: expected mysql or mariadb`);
const seed = given === undefined ? randomInt(1, 2 ** 31) : whole('seed', given);
const say = (line: string): void => void process.stderr.write(`${line}\n`);
const until = {
  minutes: minutes === undefined ? 0 : whole('minutes', minutes),
  kills: kills === undefined ? (minutes === undefined ? 100 : 0) : whole('kills', kills),
};
say(`seed ${seed}`);
const report = await runSoak({ flavour, seed, ...until, say });
const out = json ? process.stderr : process.stdout;
out.write(
  `${report.kills} kills, ${JSON.stringify(report.faults)}\n${JSON.stringify(report.transactions)}; ${JSON.stringify(report.links)}\n${report.comparedRows} rows compared in ${report.seconds} s with seed ${seed}: ${report.findings.length === 0 ? 'equal' : `${report.findings.length} findings`}\n`,
);
for (const finding of report.findings) out.write(`  ${finding}\n`);
if (json) process.stdout.write(`${JSON.stringify(report)}\n`);
process.exit(report.findings.length === 0 ? 0 : 1);
