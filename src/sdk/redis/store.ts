import { ReplyError } from 'ioredis';
import type { Command, Redis } from 'ioredis';
import { InterlockError, isInterlockError, messageOf } from '../../errors.js';
import type { KeyPatterns } from '../../routing/redis-keys.js';
import type { Router } from '../../routing/rules.js';
import { afterEffects, assertNotRefused, contexts, Effects, REFUSALS } from '../context.js';
import { checkRows } from '../mysql/fence-check.js';
import type { RulesSource } from '../rules-source.js';
import { unitsOfTargets } from '../target.js';
import type { Target, WantedUnit } from '../target.js';
import { CommandTable, refused } from './command-table.js';
import { COMMANDS_SCRIPT, checkArguments, fencedScript, refusedRows, sha1 } from './scripts.js';
import type { Argument, FencedScript } from './scripts.js';

/** Lua takes no more arguments of one command. */
const MOST_ARGUMENTS = 7_000;

/** The replies of a script, one per command; null: a watched key has changed, and nothing was done. */
type Replies = unknown[] | null;

/** What is sent behind one check. */
interface Work {
  script: FencedScript;
  /** Behind those of the check. */
  given: readonly Argument[];
  /** In MULTI, so that WATCH counts. */
  transaction: boolean;
}

/**
 * One Redis store of this DC behind the fence: every write is a script that looks at the states of its units on the server first, in the same
 * atomic step. Reads are sent as they are.
 */
export class FencedRedisStore {
  readonly table: CommandTable;
  private db: number;
  private watching = false;
  /** Times that the client was connected. */
  private connections = 0;
  /** Scripts of the application, by their own sha. */
  private readonly scripts = new Map<string, string>();

  constructor(
    readonly client: Redis,
    readonly store: string,
    private readonly rules: RulesSource,
    private readonly keys: KeyPatterns,
  ) {
    this.table = new CommandTable(client);
    this.db = client.options.db ?? 0;
    client.on('ready', () => (this.connections += 1));
  }

  /** One command, as the client's own `sendCommand`: settles the command's promise and answers it. */
  send(command: Command): Promise<unknown> {
    if (this.table.knows(command)) return this.sendKnown(command);
    // In the order in which they came: commands that wait for the list are sent when it is there.
    this.table.load().then(
      () => void this.sendKnown(command),
      (error: unknown) => command.reject(this.failure(error)),
    );
    return command.promise;
  }

  private sendKnown(command: Command): Promise<unknown> {
    try {
      const treatment = this.table.treatmentOf(command);
      if (treatment === 'pass') return this.pass(command);
      const targets = this.targetsOf([command], contexts.getStore()?.target);
      if (treatment === 'fence' && targets.length === 0) return this.pass(command);
      const work = treatment === 'fence' ? commandsOf([command], false) : this.scriptOf(command);
      this.run(work, targets).then(
        (replies) => settle(command, replies![0]),
        (error: unknown) => command.reject(error as Error),
      );
    } catch (error) {
      command.reject(error as Error);
    }
    return command.promise;
  }

  /** What is no write of a unit goes to the server as it is. */
  private pass(command: Command): Promise<unknown> {
    const name = command.name.toLowerCase();
    if (name === 'watch') this.watching = true;
    else if (name === 'unwatch') this.watching = false;
    else if (name === 'select') {
      // What is sent behind it is sent to that database.
      const before = this.db;
      this.db = Number(command.args[0]);
      command.promise.catch(() => (this.db = before));
    } else if (name === 'script' && String(command.args[0]).toLowerCase() === 'load')
      this.remember(String(command.args[1]));
    return this.client.sendCommand(command) as Promise<unknown>;
  }

  /** Several commands in one atomic step. `null`: a watched key has changed. @throws InterlockError: nothing was done */
  async batch(commands: readonly Command[], transaction: boolean): Promise<[Error | null, unknown][] | null> {
    if (!commands.every((command) => this.table.knows(command))) await this.table.load();
    const problems = transaction ? commands.flatMap((one) => this.table.queueProblem(one) ?? []) : [];
    if (problems.length > 0)
      throw new (ReplyError as new (message: string) => Error)(
        `EXECABORT Transaction discarded because of previous errors: ${problems.join('; ')}`,
      );
    const writes = commands.filter((command) => this.writesInBatch(command));
    const targets = this.targetsOf(writes, contexts.getStore()?.target);
    if (targets.length === 0) return this.passAll(commands, transaction);
    const replies = await this.run(commandsOf(commands, transaction), targets);
    if (replies === null) {
      for (const command of commands) settle(command, null);
      return null;
    }
    const settled = commands.map((command, i) => {
      settle(command, replies[i]);
      return command.promise.then(
        (value): [Error | null, unknown] => [null, value],
        (error: Error): [Error | null, unknown] => [error, undefined],
      );
    });
    return Promise.all(settled);
  }

  private writesInBatch(command: Command): boolean {
    const treatment = this.table.treatmentOf(command);
    if (treatment === 'fence') return true;
    const name = command.name.toLowerCase();
    if (treatment === 'script' || name === 'select' || name === 'watch')
      throw refused(command, 'not in a pipeline or transaction; send it by itself');
    return false;
  }

  private async passAll(
    commands: readonly Command[],
    transaction: boolean,
  ): Promise<[Error | null, unknown][] | null> {
    const pipeline = transaction ? this.client.multi() : this.client.pipeline();
    if (transaction) this.watching = false;
    const collect = pipeline as unknown as { sendCommand: (command: Command) => void };
    for (const command of commands) collect.sendCommand(command);
    return pipeline.exec();
  }

  private scriptOf(command: Command): Work {
    const [first, count, ...rest] = command.args as Argument[];
    // A script that was defined as a command has its text put in when it is written to a socket that has not had it.
    if (command.name.toLowerCase() === 'evalsha' && !this.scripts.has(String(first))) command.toWritable({});
    const [source] = command.args as Argument[];
    const text = command.name === 'evalsha' ? this.scripts.get(String(source)) : String(source);
    if (text === undefined)
      throw refused(
        command,
        'a script is checked with its text: use eval, defineCommand, or SCRIPT LOAD with this client',
      );
    if (text.startsWith('#!'))
      throw refused(command, 'a script with a shebang line cannot be checked; leave it out');
    this.remember(text);
    return { script: fencedScript(text), given: [count!, ...rest], transaction: false };
  }

  private remember(text: string): void {
    this.scripts.set(sha1(text), text);
  }

  /** Errors: WriteDisabled, NotOwner, StaleMapping, ServerIdentityChanged, CrossOwner: nothing was done. PartiallyExecuted, CommitUnknown … */
  private async run(work: Work, targets: readonly Target[]): Promise<Replies> {
    const ambient = contexts.getStore();
    const effects = new Effects(ambient?.effects);
    try {
      for (let refreshed = false; ; refreshed = true) {
        if (this.rules.current() === undefined && targets.some((target) => 'userId' in target))
          await this.rules.refresh();
        try {
          return await this.once(
            work,
            unitsOfTargets(targets, () => this.router()),
            effects,
          );
        } catch (error) {
          if (!isInterlockError(error, 'StaleMapping') || refreshed) throw error;
          await this.rules.refresh();
        }
      }
    } catch (error) {
      throw afterEffects(error, effects, REFUSALS);
    }
  }

  private async once(work: Work, wanted: readonly WantedUnit[], effects: Effects): Promise<Replies> {
    assertNotRefused(effects);
    effects.commitBegins();
    let kept = true;
    // Not connected: what is asked now waits for a connection.
    const sentIn = this.client.status === 'ready' ? undefined : this.connections;
    try {
      const given = [...checkArguments(this.db, wanted), ...work.given];
      const reply = work.transaction
        ? await this.inMulti(work.script, given)
        : await this.call(work.script, given);
      if (reply === null) {
        kept = false;
        return null;
      }
      if (Number(reply[0]) === 1) return reply.slice(1).length === 0 ? [null] : reply.slice(1);
      kept = false;
      const units = wanted.map(({ unit }) => unit);
      checkRows(refusedRows(reply, units), wanted);
      throw new InterlockError(
        'Internal',
        `${this.store}: the check has refused ${units.join(', ')}, which are open`,
      );
    } catch (error) {
      const failure = this.failure(error, sentIn === this.connections);
      // An error of the server is the script's own, before its first command; an application's script may have written before.
      const nothing = isInterlockError(failure, 'Unavailable') || failure instanceof ReplyError;
      if (nothing && work.script === COMMANDS_SCRIPT) kept = false;
      throw failure;
    } finally {
      effects.commitEnds(kept);
    }
  }

  private async call({ text, sha }: FencedScript, given: readonly Argument[]): Promise<unknown[]> {
    try {
      return (await this.client.callBuffer('EVALSHA', sha, 0, ...given)) as unknown[];
    } catch (error) {
      if (!isNoScript(error)) throw error;
      return (await this.client.callBuffer('EVAL', text, 0, ...given)) as unknown[];
    }
  }

  /** @returns null: a watched key has changed */
  private async inMulti({ text, sha }: FencedScript, given: readonly Argument[]): Promise<unknown[] | null> {
    const { watching } = this;
    this.watching = false;
    const exec = async (command: string, script: string): Promise<unknown[] | null> => {
      const answers = await this.client
        .multi()
        .callBuffer(command, script, 0, ...given)
        .exec();
      if (answers === null) return null;
      const [error, reply] = answers[0]!;
      if (error !== null) throw error;
      return reply as unknown[];
    };
    try {
      return await exec('EVALSHA', sha);
    } catch (error) {
      if (!isNoScript(error)) throw error;
      if (!watching) return exec('EVAL', text);
      // EXEC has ended the watch: what was read before may have changed since. The caller reads again.
      await this.client.script('LOAD', text);
      return null;
    }
  }

  /** Whose data these writes are: by the keys' patterns, else the ambient routing key's. */
  private targetsOf(commands: readonly Command[], ambient: Target | readonly Target[] | undefined): Target[] {
    const units: Target[] = [];
    const users = new Map<string, Target>();
    let needsAmbient: string | undefined;
    for (const command of commands) {
      const keys = command.getKeys();
      for (const bytes of keys) {
        const key = String(bytes);
        if (key.startsWith('interlock:')) throw refused(command, `${key} is Interlock's own`);
        const owner = this.keys.ownerOf(key);
        if (owner.kind === 'user') users.set(`${owner.key.region ?? ''}\n${owner.key.userId}`, owner.key);
        else if (owner.kind === 'unit') units.push({ unit: owner.unit });
        else if (owner.kind === 'unmapped') needsAmbient ??= key;
      }
      if (keys.length === 0) needsAmbient ??= command.name;
    }
    const targets = [...units, ...users.values()];
    if (needsAmbient === undefined) return targets;
    if (ambient === undefined) {
      throw new InterlockError(
        'StatementRefused',
        `${needsAmbient}: nobody knows whose data this is: no pattern of the topology's keys matches, and there is no ambient routing key (interlock.run)`,
        { details: { key: needsAmbient } },
      );
    }
    return [...targets, ...(Array.isArray(ambient) ? (ambient as Target[]) : [ambient as Target])];
  }

  private router(): Router {
    const router = this.rules.current();
    if (router !== undefined) return router;
    throw new InterlockError('NoRules', 'no rules are known yet: the user cannot be mapped to a unit', {
      retryable: true,
    });
  }

  /** @param unsent there was no connection on which it could have been sent */
  private failure(error: unknown, unsent = true): Error {
    if (error instanceof InterlockError || error instanceof ReplyError) return error as Error;
    if (unsent) {
      return new InterlockError('Unavailable', `redis/${this.store} does not answer: ${messageOf(error)}`, {
        ...{ cause: error, retryable: true, details: { what: `redis/${this.store}` } },
      });
    }
    return new InterlockError(
      'CommitUnknown',
      `redis/${this.store}: the connection was lost before the answer came: done or not, nobody knows (${messageOf(error)})`,
      { cause: error },
    );
  }
}

function commandsOf(commands: readonly Command[], transaction: boolean): Work {
  const given: Argument[] = [commands.length];
  for (const command of commands) {
    const { name, args } = command;
    if (args.length > MOST_ARGUMENTS)
      throw refused(
        command,
        `${args.length} arguments; at most ${MOST_ARGUMENTS} can be checked at once, split it`,
      );
    given.push(args.length + 1, name);
    for (const argument of args) given.push(argument as Argument);
  }
  return { script: COMMANDS_SCRIPT, given, transaction };
}

function settle(command: Command, reply: unknown): void {
  if (reply instanceof Error) command.reject(reply);
  else command.resolve(reply);
}

function isNoScript(error: unknown): boolean {
  return error instanceof ReplyError && messageOf(error).startsWith('NOSCRIPT');
}
