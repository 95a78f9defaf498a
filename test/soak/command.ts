import { messageOf } from '../../src/errors.js';

/** What a soak's command line and its last lines have in common. */

export function refuse(message: string): never {
  process.stderr.write(`soak: ${message}\n`);
  process.exit(2);
}

/** A signal ends the process as any exit does, and its servers with it. */
for (const [signal, code] of [
  ['SIGINT', 130],
  ['SIGTERM', 143],
  ['SIGHUP', 129],
] as const)
  process.once(signal, () => process.exit(code));

/** @throws ends the process with 2 when `parse` does */
export function flagsOf<T>(parse: () => { values: T }): T {
  try {
    return parse().values;
  } catch (error) {
    return refuse(messageOf(error).split('\n')[0]!);
  }
}

export function whole(flag: string, text: string): number {
  const value = Number(text);
  if (text.trim() !== '' && Number.isSafeInteger(value) && value > 0 && value < 2 ** 31) return value;
  return refuse(`--${flag}: ${JSON.stringify(text)}: expected a whole number above 0`);
}

export function say(line: string): void {
  process.stderr.write(`${line}\n`);
}

interface SoakReport {
  kills: number;
  faults: unknown;
  transactions: unknown;
  links: unknown;
  seconds: number;
  findings: readonly string[];
}

/** Prints the report and ends the process: 1 when there are findings. @param compared `9251 rows` */
export function conclude(report: SoakReport, compared: string, seed: number, json: boolean): never {
  const { kills, faults, transactions, links, seconds, findings } = report;
  const out = json ? process.stderr : process.stdout;
  out.write(
    `${kills} kills, ${JSON.stringify(faults)}\n${JSON.stringify(transactions)}; ${JSON.stringify(links)}\n${compared} compared in ${seconds} s with seed ${seed}: ${findings.length === 0 ? 'equal' : `${findings.length} findings`}\n`,
  );
  for (const finding of findings) out.write(`  ${finding}\n`);
  if (json) process.stdout.write(`${JSON.stringify(report)}\n`);
  process.exit(findings.length === 0 ? 0 : 1);
}
