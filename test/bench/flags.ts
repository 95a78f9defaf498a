import { parseArgs } from 'node:util';
import type { ParseArgsConfig } from 'node:util';
import { messageOf } from '../../src/errors.js';

type Options = NonNullable<ParseArgsConfig['options']>;

/**
 * The flags of a benchmark. What is not one ends the program: one line that names it, exit code 2; `--help` says what there is.
 * @param works what `--only` takes
 */
export function benchFlags<T extends Options>(
  name: string,
  options: T,
  works: readonly string[] = [],
): ReturnType<typeof parseArgs<{ options: T }>>['values'] {
  const args = process.argv.slice(2);
  if (args.some((arg) => arg === '--help' || arg === '-h')) {
    process.stdout.write(usageOf(name, options, works));
    process.exit(0);
  }
  try {
    return parseArgs({ args, options }).values;
  } catch (error) {
    return refuse(messageOf(error).split('\n')[0]!);
  }
}

function usageOf(name: string, options: Options, works: readonly string[]): string {
  const flags = Object.entries(options).map(([flag, { type, default: value }]) => {
    if (type === 'boolean') return `  --${flag}`;
    return value === undefined || value === ''
      ? `  --${flag} ${flag === 'only' ? 'WORK' : 'VALUE'}`
      : `  --${flag} VALUE (${String(value)})`;
  });
  const list = works.length === 0 ? [] : ['works:', ...works.map((work) => `  ${work}`)];
  return [`usage: npm run bench -- ${name} [flags]`, 'flags:', ...flags, ...list, ''].join('\n');
}

/** A whole number above 0; anything else ends the program. */
export function positive(flag: string, text: string): number {
  const value = Number(text);
  if (Number.isInteger(value) && value > 0) return value;
  return refuse(`${flag}: ${JSON.stringify(text)}: expected a whole number above 0`);
}

/** Bad input: one line, exit code 2. */
export function refuse(message: string): never {
  process.stderr.write(`bench: ${message}\n`);
  process.exit(2);
}
