/**
 * `npm run soak -- kafka`: two brokers, a link in each direction as a process of its own, transactions on both sides, and random faults: kills
 * of links and brokers, two processes of one link, reset and black-holed connections. Then every copy is compared in full with its original.
 * Exit code 1: they differ.
 *   --kills N (100)  --seed N (random; printed)  --json
 */
import { randomInt } from 'node:crypto';
import { parseArgs } from 'node:util';
import { messageOf } from '../../src/errors.js';
import { runKafkaSoak } from './kafka/soak.js';

function refuse(message: string): never {
  process.stderr.write(`soak: ${message}\n`);
  process.exit(2);
}

function flags() {
  try {
    return parseArgs({
      options: {
        kills: { type: 'string', default: '100' },
        seed: { type: 'string', default: String(randomInt(1, 2 ** 31)) },
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

const { kills, seed, json, help } = flags();
if (help) {
  process.stdout.write('usage: npm run soak -- kafka [--kills N] [--seed N] [--json]\n');
  process.exit(0);
}
const options = { kills: whole('kills', kills), seed: whole('seed', seed) };
const say = (line: string): void => void process.stderr.write(`${line}\n`);
say(`seed ${seed}`);
const report = await runKafkaSoak({ ...options, say });
const out = json ? process.stderr : process.stdout;
out.write(
  `${report.kills} kills, ${JSON.stringify(report.faults)}\n${JSON.stringify(report.transactions)}; ${JSON.stringify(report.links)}\n${report.comparedRecords} records compared in ${report.seconds} s with seed ${seed}: ${report.findings.length === 0 ? 'equal' : `${report.findings.length} findings`}\n`,
);
for (const finding of report.findings) out.write(`  ${finding}\n`);
if (json) process.stdout.write(`${JSON.stringify(report)}\n`);
process.exit(report.findings.length === 0 ? 0 : 1);
