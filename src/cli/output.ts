import type { Command } from 'commander';
import { InterlockError, isInterlockError, messageOf } from '../errors.js';

/** Exit codes of every command: done, failed (and compensated), bad input, needs an operator. */
export const EXIT = { done: 0, failed: 1, badInput: 2, needsOperator: 3 } as const;
export type ExitCode = (typeof EXIT)[keyof typeof EXIT];

export function exitCodeOf(error: unknown): ExitCode {
  if (isInterlockError(error, 'BadInput')) return EXIT.badInput;
  if (isInterlockError(error, 'NeedsOperator')) return EXIT.needsOperator;
  return EXIT.failed;
}

/** One JSON document, last on stdout. */
export function printJson(document: unknown): void {
  process.stdout.write(`${JSON.stringify(document, null, 2)}\n`);
}

/** Text for people, on stdout. */
export function print(text: string): void {
  process.stdout.write(`${text}\n`);
}

/** Progress goes to stderr: stdout is the result. */
export function progress(text: string): void {
  process.stderr.write(`${text}\n`);
}

/** What is looked at again and again, on stderr: a terminal shows the last of it in the place of the one before. */
export class LiveText {
  private shown = 0;

  /** @returns false: there is no terminal, and nothing is shown */
  show(text: string): boolean {
    if (!process.stderr.isTTY) return false;
    process.stderr.write(`${this.shown > 0 ? `\u001b[${this.shown}A\u001b[J` : ''}${text}\n`);
    this.shown = text.split('\n').length;
    return true;
  }
}

/** An error as a JSON document: `{ error: { code, message, details } }`. */
export function errorDocument(error: unknown): {
  error: { code: string; message: string; details: unknown };
} {
  return {
    error: {
      code: error instanceof InterlockError ? error.code : 'Internal',
      message: messageOf(error),
      details: error instanceof InterlockError ? error.details : {},
    },
  };
}

/** Prints an error (as JSON, too, when the command line asks for JSON) and answers the exit code. */
export function printError(error: unknown, json: boolean): ExitCode {
  if (json) printJson(errorDocument(error));
  if (error instanceof InterlockError) process.stderr.write(`interlock: ${error.message}\n`);
  else
    process.stderr.write(
      `interlock: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`,
    );
  return exitCodeOf(error);
}

/** Adds `--topology FILE` to a command. */
export function topologyOption(command: Command): Command {
  return command.option(
    '--topology <file>',
    'topology file (default: $INTERLOCK_TOPOLOGY or ./topology.yaml)',
  );
}

/** The topology file of a command line: `--topology`, else $INTERLOCK_TOPOLOGY, else ./topology.yaml. */
export function topologyFile(options: { topology?: string }): string {
  return options.topology ?? (process.env['INTERLOCK_TOPOLOGY'] || 'topology.yaml');
}

/** Columns aligned by width; the header is the first row. */
export function table(rows: readonly (readonly string[])[]): string {
  const widths: number[] = [];
  for (const row of rows) row.forEach((cell, i) => (widths[i] = Math.max(widths[i] ?? 0, [...cell].length)));
  return rows
    .map((row) =>
      row
        .map((cell, i) => cell + ' '.repeat(widths[i]! - [...cell].length))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

/** A whole number of a flag. @throws InterlockError BadInput that names the flag. */
export function integerFlag(flag: string, min: number, max: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (!/^-?\d+$/.test(text) || !Number.isSafeInteger(value) || value < min || value > max) {
      throw new InterlockError(
        'BadInput',
        `${flag}: ${JSON.stringify(text)}: expected a whole number from ${min} to ${max}`,
        { details: { field: flag, value: text } },
      );
    }
    return value;
  };
}

/** A duration of a flag (`250ms`, `10s`, `5m`, `1h`) in ms. @throws InterlockError BadInput that names the flag. */
export function durationFlag(flag: string): (text: string) => number {
  const unitMs: Record<string, number> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 };
  return (text) => {
    const parts = /^(\d+(?:\.\d+)?)(ms|s|m|h)$/.exec(text);
    if (!parts) {
      throw new InterlockError(
        'BadInput',
        `${flag}: ${JSON.stringify(text)}: expected a duration such as 250ms, 10s, 5m or 1h`,
        { details: { field: flag, value: text } },
      );
    }
    return Math.round(Number(parts[1]) * unitMs[parts[2]!]!);
  };
}
