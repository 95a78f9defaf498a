#!/usr/bin/env node
import { readFileSync, realpathSync } from 'node:fs';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { Command, CommanderError } from 'commander';
import { projectRoot } from '../../infra/project.js';
import { InterlockError } from '../errors.js';
import { EXIT, printError, printJson } from './output.js';
import type { ExitCode } from './output.js';

interface CommandModule {
  /** Adds the command to the program. Its actions throw on failure; they may set process.exitCode. */
  register(program: Command): void;
}

/**
 * The commands, by their first word. Only the module of the command that was typed is loaded: `interlock switch status`
 * does not pay for a worker's native code.
 */
const COMMANDS: Record<string, () => Promise<CommandModule>> = {
  lab: () => import('./lab.js'),
  topology: () => import('./topology.js'),
  rules: () => import('./rules.js'),
  fence: () => import('./fence.js'),
  worker: () => import('./worker.js'),
  replicate: () => import('./replicate.js'),
  conflicts: () => import('./conflicts.js'),
  quarantine: () => import('./quarantine.js'),
  kafka: () => import('./kafka.js'),
  ddl: () => import('./ddl.js'),
  verify: () => import('./verify.js'),
  switch: () => import('./switch.js'),
  'rule-center': () => import('./rule-center.js'),
};

/** Runs a command line (without node and script) and answers its exit code. */
export async function main(argv: readonly string[]): Promise<ExitCode> {
  const json = argv.includes('--json');
  const program = new Command('interlock')
    .description('Moves live traffic between data centers that are all active, and loses nothing.')
    .version(version())
    .exitOverride()
    .showHelpAfterError('(interlock --help shows what there is)')
    .addHelpText(
      'after',
      '\nExit codes: 0 done, 1 failed (and compensated), 2 bad input, 3 needs an operator.',
    );
  const typed = argv.find((word) => !word.startsWith('-'));
  const words = [...argv];
  // `--json` belongs to the commands; people write it in front of them, too.
  if (typed !== undefined && words[0] === '--json') words.push(words.shift()!);
  const names = typed !== undefined && Object.hasOwn(COMMANDS, typed) ? [typed] : Object.keys(COMMANDS);
  try {
    for (const name of names) (await COMMANDS[name]!()).register(program);
    await program.parseAsync(words, { from: 'user' });
    return (process.exitCode as ExitCode | undefined) ?? EXIT.done;
  } catch (error) {
    if (error instanceof CommanderError) {
      if (error.exitCode === 0) return EXIT.done;
      // commander has already said on stderr what is wrong.
      if (json) {
        printJson({ error: { code: 'BadInput', message: error.message, details: detailsOf(error) } });
      }
      return EXIT.badInput;
    }
    return printError(error, json);
  }
}

/** What commander's message quotes: `unknown option '--soack'`, `unknown command 'nosuch'`, `missing required argument 'name'`. */
function detailsOf(error: CommanderError): Record<string, string> {
  const [, quoted = ''] = /'([^']*)'/.exec(error.message) ?? [];
  const flag = /(?:^|\s)(--?[a-z][a-z-]*)/i.exec(quoted)?.[1];
  if (flag !== undefined) return { flag: /--[a-z][a-z-]*/i.exec(quoted)?.[0] ?? flag };
  if (error.code === 'commander.missingArgument') return { argument: quoted };
  return { command: quoted };
}

function version(): string {
  const text = readFileSync(path.join(projectRoot, 'package.json'), 'utf8');
  return (JSON.parse(text) as { version: string }).version;
}

function isProgram(): boolean {
  const script = process.argv[1];
  return script !== undefined && import.meta.url === pathToFileURL(realpathSync(script)).href;
}

if (isProgram()) {
  // Hazard: a reader that has seen enough (`| head`) closes the pipe. Nobody reads on: there is nothing left to do.
  for (const stream of [process.stdout, process.stderr]) {
    stream.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code !== 'EPIPE') throw error;
      process.exit();
    });
  }
  process.exitCode = await main(process.argv.slice(2));
  // Hazard: a pool or socket that a command left open would keep the process for ever. A reader of the result
  // gets time to take it; nothing fires when nothing is left open.
  setTimeout(() => {
    printError(new InterlockError('Internal', 'a command left something open; ended by force'), false);
    process.exit();
  }, 5_000).unref();
}
