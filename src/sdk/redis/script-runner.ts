import { Command, ReplyError } from 'ioredis';
import type { Redis } from 'ioredis';
import { InterlockError, messageOf } from '../../errors.js';
import type { Argument, FencedScript } from './scripts.js';

const PING = '*1\r\n$4\r\nPING\r\n';

/**
 * A command that knows whether it was written to a connection. Hazard: one whose time is over (commandTimeout) while it waits for a connection is
 * written when there is one. Guard: a PING goes in its place, and nobody waits for the answer.
 */
class ScriptCommand extends Command {
  written = false;

  override toWritable(socket: object): string | Buffer {
    if (this.isSettled) return PING;
    this.written = true;
    return super.toWritable(socket);
  }
}

/** Runs scripts over the application's client. */
export class ScriptRunner {
  /** There is a WATCH, or several; `on`: the connection that each was written to. */
  private watch: { count: number; on: unknown[] } | undefined;

  constructor(
    private readonly client: Redis,
    private readonly store: string,
  ) {}

  watches(command: Command): void {
    const watch = (this.watch ??= { count: 0, on: [] });
    watch.count += 1;
    const toWritable = command.toWritable.bind(command);
    command.toWritable = (socket) => {
      watch.on.push(socket);
      return toWritable(socket);
    };
  }

  unwatch(): void {
    this.watch = undefined;
  }

  /** The transaction that the WATCH was for is refused: as behind EXEC, the next one is without it. */
  giveUp(): void {
    if (!this.isWatching) return;
    this.unwatch();
    this.client.unwatch().catch(() => undefined);
  }

  get isWatching(): boolean {
    return this.watch !== undefined;
  }

  /** There was a WATCH, and its connection is gone: what it watched may have changed. */
  get hasLostWatch(): boolean {
    const { client, watch } = this;
    if (watch === undefined) return false;
    // What cannot be written at once would be written to the next connection.
    if (client.status !== 'ready' || !client.stream.writable || watch.on.length < watch.count) return true;
    return watch.on.some((stream) => stream !== client.stream);
  }

  /** @throws ReplyError; InterlockError Unavailable: it was not sent; CommitUnknown */
  async run({ text, sha }: FencedScript, given: readonly Argument[]): Promise<unknown[]> {
    try {
      return await this.send('evalsha', [sha, 0, ...given]);
    } catch (error) {
      if (!isNoScript(error)) throw error;
      return this.send('eval', [text, 0, ...given]);
    }
  }

  /** In MULTI, so that WATCH counts; ends the WATCH. @returns null: a watched key has changed, or may have */
  async runWatched({ text, sha }: FencedScript, given: readonly Argument[]): Promise<unknown[] | null> {
    const lost = this.hasLostWatch;
    this.unwatch();
    if (lost) return null;
    const transaction = this.client.multi().callBuffer('evalsha', sha, 0, ...given);
    const answers = await transaction.exec().catch((error: unknown) => {
      throw this.failure(error, true);
    });
    if (answers === null) return null;
    const [error, reply] = answers[0]!;
    if (error === null) return reply as unknown[];
    if (!isNoScript(error)) throw error;
    // EXEC has ended the watch: what was read before may have changed since. The caller reads again.
    await this.client.script('LOAD', text);
    return null;
  }

  private async send(name: string, args: Argument[]): Promise<unknown[]> {
    const command = new ScriptCommand(name, args, { replyEncoding: null });
    try {
      return (await this.client.sendCommand(command)) as unknown[];
    } catch (error) {
      throw this.failure(error, command.written);
    }
  }

  /** What an error of the client means; those of the server are passed through. @param written it may have been carried out */
  failure(error: unknown, written: boolean): Error {
    if (error instanceof InterlockError || error instanceof ReplyError) return error as Error;
    if (!written) {
      return new InterlockError('Unavailable', `redis/${this.store} does not answer: ${messageOf(error)}`, {
        ...{ cause: error, retryable: true, details: { what: `redis/${this.store}` } },
      });
    }
    return new InterlockError(
      'CommitUnknown',
      `redis/${this.store}: no answer came to what was sent: done or not, nobody knows (${messageOf(error)})`,
      { cause: error },
    );
  }
}

function isNoScript(error: unknown): boolean {
  return error instanceof ReplyError && messageOf(error).startsWith('NOSCRIPT');
}
