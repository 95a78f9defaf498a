import { ReplyError } from 'ioredis';
import type { Command, Redis } from 'ioredis';
import { InterlockError, isInterlockError } from '../../errors.js';
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
import { ScriptRunner } from './script-runner.js';

/** Lua takes no more arguments of one command. */
const MOST_ARGUMENTS = 7_000;

/** The replies of a script, one per command; null: a watched key has changed, and nothing was done. */
type Replies = unknown[] | null;

/** What is sent behind one check. */
interface Work {
  script: FencedScript;
  /** Behind those of the check. */
  given: readonly Argument[];
}

/**
 * One Redis store of this DC behind the fence: every write is a script that looks at the states of its units on the server first, in the same
 * atomic step. Reads are sent as they are.
 */
export class FencedRedisStore {
  readonly table: CommandTable;
  private db: number;
  private readonly runner: ScriptRunner;
  /** Scripts of the application, by their own sha. */
  private readonly scripts = new Map<string, string>();

  constructor(
    readonly client: Redis,
    readonly store: string,
    private readonly rules: RulesSource,
    private readonly keys: KeyPatterns,
  ) {
    this.table = new CommandTable(client);
    this.runner = new ScriptRunner(client, store);
    this.db = client.options.db ?? 0;
  }

  /** One command, as the client's own `sendCommand`: settles the command's promise and answers it. */
  send(command: Command): Promise<unknown> {
    if (this.table.knows(command)) return this.sendKnown(command);
    // In the order in which they came: commands that wait for the list are sent when it is there.
    this.table.load().then(
      () => void this.sendKnown(command),
      (error: unknown) => command.reject(this.runner.failure(error, false)),
    );
    return command.promise;
  }

  private sendKnown(command: Command): Promise<unknown> {
    try {
      const treatment = this.table.treatmentOf(command);
      if (treatment === 'pass') return this.pass(command);
      const targets = this.targetsOf([command], contexts.getStore()?.target);
      // Of nobody: `unrouted` keys.
      if (targets.length === 0) return this.pass(command);
      const work = treatment === 'fence' ? commandsOf([command]) : this.scriptOf(command);
      this.run(work, targets, false).then(
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
    if (name === 'watch') this.runner.watches(command);
    else if (name === 'unwatch') this.runner.unwatch();
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
    try {
      return await this.sendBatch(commands, transaction);
    } catch (error) {
      if (transaction) this.runner.giveUp();
      throw error;
    }
  }

  private async sendBatch(
    commands: readonly Command[],
    transaction: boolean,
  ): Promise<[Error | null, unknown][] | null> {
    if (!commands.every((command) => this.table.knows(command))) await this.table.load();
    const problems = transaction ? commands.flatMap((one) => this.table.queueProblem(one) ?? []) : [];
    if (problems.length > 0)
      throw new (ReplyError as new (message: string) => Error)(
        `EXECABORT Transaction discarded because of previous errors: ${problems.join('; ')}`,
      );
    const writes = commands.filter((command) => this.writesInBatch(command));
    const targets = this.targetsOf(writes, contexts.getStore()?.target);
    if (targets.length === 0) return this.passAll(commands, transaction);
    const replies = await this.run(commandsOf(commands), targets, transaction && this.runner.isWatching);
    if (replies === null) return nothingDone(commands);
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
    if (transaction) {
      const lost = this.runner.hasLostWatch;
      this.runner.unwatch();
      if (lost) return nothingDone(commands);
    }
    const pipeline = transaction ? this.client.multi() : this.client.pipeline();
    const collect = pipeline as unknown as { sendCommand: (command: Command) => void };
    for (const command of commands) collect.sendCommand(command);
    return pipeline.exec();
  }

  private scriptOf(command: Command): Work {
    const [, count, ...rest] = command.args as Argument[];
    let text = this.textOf(command);
    if (text === undefined) {
      // A script that was defined as a command has its text put in when it is written to a socket that has not had it.
      command.toWritable({});
      text = this.textOf(command);
    }
    if (text === undefined)
      throw refused(
        command,
        'a script is checked with its text: use eval, defineCommand, or SCRIPT LOAD with this client',
      );
    if (text.startsWith('#!'))
      throw refused(command, 'a script with a shebang line cannot be checked; leave it out');
    this.remember(text);
    return { script: fencedScript(text), given: [count!, ...rest] };
  }

  private textOf({ name, args }: Command): string | undefined {
    const source = String(args[0] as Argument);
    return name.toLowerCase() === 'eval' ? source : this.scripts.get(source.toLowerCase());
  }

  private remember(text: string): void {
    this.scripts.set(sha1(text), text);
  }

  /**
   * Errors: WriteDisabled, NotOwner, StaleMapping, ServerIdentityChanged, CrossOwner: nothing was done. PartiallyExecuted, CommitUnknown …
   * @param watched behind a WATCH, which has to hold
   */
  private async run(work: Work, targets: readonly Target[], watched: boolean): Promise<Replies> {
    const ambient = contexts.getStore();
    const effects = new Effects(ambient?.effects);
    try {
      for (let refreshed = false; ; refreshed = true) {
        if (this.rules.current() === undefined && targets.some((target) => 'userId' in target))
          await this.rules.refresh();
        const used = this.rules.current();
        try {
          return await this.once(
            work,
            unitsOfTargets(targets, () => this.router()),
            effects,
            watched,
          );
        } catch (error) {
          if (!isInterlockError(error, 'StaleMapping') || refreshed) throw error;
          await this.rules.refresh();
          if (!watched) continue;
          // The EXEC that was refused has ended the WATCH. The caller reads again, and writes by the newer rules.
          if (this.rules.current() !== used) return null;
          throw error;
        }
      }
    } catch (error) {
      throw afterEffects(error, effects, REFUSALS);
    }
  }

  private async once(
    { script, given }: Work,
    wanted: readonly WantedUnit[],
    effects: Effects,
    watched: boolean,
  ): Promise<Replies> {
    assertNotRefused(effects);
    effects.commitBegins();
    let kept = true;
    try {
      const all = [...checkArguments(this.db, wanted), ...given];
      const reply = watched ? await this.runner.runWatched(script, all) : await this.runner.run(script, all);
      if (reply === null) {
        kept = false;
        return null;
      }
      if (Number(reply[0]) === 1) return reply.length === 1 ? [null] : reply.slice(1);
      kept = false;
      const units = wanted.map(({ unit }) => unit);
      checkRows(refusedRows(reply, units), wanted);
      throw new InterlockError(
        'Internal',
        `${this.store}: the check has refused ${units.join(', ')}, which are open`,
      );
    } catch (error) {
      // An error of the server is the script's own, before its first command; an application's script may have written before.
      const nothing = isInterlockError(error, 'Unavailable') || error instanceof ReplyError;
      if (nothing && script === COMMANDS_SCRIPT) kept = false;
      throw error;
    } finally {
      effects.commitEnds(kept);
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
}

function commandsOf(commands: readonly Command[]): Work {
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
  return { script: COMMANDS_SCRIPT, given };
}

function settle(command: Command, reply: unknown): void {
  if (reply instanceof Error) command.reject(reply);
  else command.resolve(reply);
}

/** A watched key has changed, or may have. */
function nothingDone(commands: readonly Command[]): null {
  for (const command of commands) settle(command, null);
  return null;
}
