import type { Command, Redis } from 'ioredis';
import { InterlockError } from '../../errors.js';

interface CommandEntry {
  arity: number;
  flags: ReadonlySet<string>;
  /** By `container|subcommand`. */
  subcommands: ReadonlyMap<string, CommandEntry>;
}

/** How a command is treated: sent as it is, behind the check, or as a script behind the check. */
export type Treatment = 'pass' | 'fence' | 'script';

/** They run an application's code, which may write. */
const SCRIPTS = new Set(['eval', 'evalsha']);
const TRANSACTIONS = new Set(['multi', 'exec', 'discard']);

/** The server's own list of its commands: which of them write. */
export class CommandTable {
  private entries: ReadonlyMap<string, CommandEntry> | undefined;
  private loading: Promise<void> | undefined;

  constructor(private readonly client: Redis) {}

  get isKnown(): boolean {
    return this.entries !== undefined;
  }

  async load(): Promise<void> {
    this.loading ??= this.client
      .call('COMMAND')
      .then((reply) => void (this.entries = entriesOf(reply as unknown[])))
      .finally(() => (this.loading = undefined));
    return this.loading;
  }

  /** Known by the server when the list was read; a module may have been loaded since. */
  knows(command: Command): boolean {
    return this.entries?.has(command.name.toLowerCase()) === true;
  }

  /** @throws InterlockError StatementRefused: what cannot be fenced */
  treatmentOf(command: Command): Treatment {
    const name = command.name.toLowerCase();
    if (SCRIPTS.has(name)) return 'script';
    if (TRANSACTIONS.has(name)) throw refused(command, 'a transaction is made with `multi()…exec()`');
    if (name === 'fcall') throw refused(command, 'functions cannot be checked; use a script (eval)');
    const flags = this.entryOf(command)?.flags;
    if (flags?.has('write') !== true) return 'pass';
    const waits = flags.has('blocking') && (!name.startsWith('xread') || command.args.some(isBlock));
    if (waits)
      throw refused(
        command,
        'it waits, and what was checked before may not hold behind; use what does not wait',
      );
    if (flags.has('noscript')) throw refused(command, 'it cannot be sent together with the check');
    if (command.getKeys().length === 0)
      throw refused(command, 'it also writes what is not this data center’s');
    return 'fence';
  }

  /** What Redis itself would refuse while a transaction is queued; undefined: nothing. */
  queueProblem(command: Command): string | undefined {
    const entry = this.entryOf(command);
    if (entry === undefined) return `ERR unknown command '${command.name}'`;
    const given = command.args.length + 1;
    const fits = entry.arity >= 0 ? given === entry.arity : given >= -entry.arity;
    return fits ? undefined : `ERR wrong number of arguments for '${command.name}' command`;
  }

  private entryOf(command: Command): CommandEntry | undefined {
    const name = command.name.toLowerCase();
    const entry = this.entries?.get(name);
    const [subcommand] = command.args;
    if (entry === undefined || entry.subcommands.size === 0 || subcommand === undefined) return entry;
    return entry.subcommands.get(`${name}|${textOf(subcommand).toLowerCase()}`) ?? entry;
  }
}

function entriesOf(reply: readonly unknown[]): Map<string, CommandEntry> {
  const entries = new Map<string, CommandEntry>();
  for (const one of reply as [string, number, string[], ...unknown[]][]) {
    const [name, arity, flags] = one;
    const subcommands = entriesOf((one[9] as unknown[] | undefined) ?? []);
    entries.set(name.toLowerCase(), { arity, flags: new Set(flags), subcommands });
  }
  return entries;
}

function isBlock(argument: unknown): boolean {
  return textOf(argument).toLowerCase() === 'block';
}

function textOf(argument: unknown): string {
  return Buffer.isBuffer(argument) ? argument.toString() : String(argument);
}

export function refused({ name }: { name: string }, why: string): InterlockError {
  return new InterlockError('StatementRefused', `${name}: ${why}`, { details: { command: name } });
}
