import { parseArgs } from 'node:util';
import type { ParseArgsConfig } from 'node:util';
import { messageOf } from '../../src/errors.js';

/** The flags of a benchmark. What is not one ends the program: one line that names it, exit code 2. */
export function benchFlags<T extends NonNullable<ParseArgsConfig['options']>>(
  options: T,
): ReturnType<typeof parseArgs<{ options: T }>>['values'] {
  try {
    return parseArgs({ args: process.argv.slice(2), options }).values;
  } catch (error) {
    return refuse(messageOf(error).split('\n')[0]!);
  }
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
