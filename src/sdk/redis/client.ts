import { Pipeline } from 'ioredis';
import type { ChainableCommander, Command, Redis } from 'ioredis';
import { InterlockError } from '../../errors.js';
import { refused } from './command-table.js';
import type { FencedRedisStore } from './store.js';

type Commander = new () => { options: object };
/** The class whose methods are the commands; a pipeline is one. */
const CommanderClass = Object.getPrototypeOf(Pipeline) as Commander;
const COMMANDS = CommanderClass.prototype as Record<string, unknown>;

type Callback = (error: Error | null, results?: unknown) => void;

/** Collects commands as a pipeline of ioredis does, and sends them in one step. */
class FencedBatch extends CommanderClass {
  readonly isPipeline = true;
  private queue: Command[] = [];

  constructor(
    private readonly fenced: FencedRedisStore,
    private readonly transaction: boolean,
  ) {
    super();
    this.options = fenced.client.options;
  }

  get length(): number {
    return this.queue.length;
  }

  sendCommand(command: Command): this {
    // The answer of exec has them all.
    command.promise.catch(() => undefined);
    this.queue.push(command);
    return this;
  }

  addBatch(commands: readonly (readonly unknown[])[]): this {
    for (const [name, ...args] of commands) {
      const method = (this as unknown as Record<string, ((...given: unknown[]) => unknown) | undefined>)[
        String(name)
      ];
      if (method === undefined) throw new Error(`Unknown command ${String(name)}`);
      method.apply(this, args);
    }
    return this;
  }

  async exec(callback?: Callback): Promise<unknown> {
    const commands = this.queue;
    this.queue = [];
    try {
      const results = await this.fenced.batch(commands, this.transaction);
      callback?.(null, results);
      return results;
    } catch (error) {
      for (const command of commands) command.reject(error as Error);
      if (callback === undefined) throw error;
      callback(error as Error);
      return undefined;
    }
  }
}

/**
 * The client as it is, but for its writes, which go behind the fence. Hazard: a client that sends again what it has had no answer to would do a
 * write twice. Guard: such a client is refused.
 */
export function fencedClient(fenced: FencedRedisStore): Redis {
  const { client } = fenced;
  if (client.options.autoResendUnfulfilledCommands !== false) {
    throw new InterlockError(
      'BadInput',
      'redis: the client would send a write again whose answer was lost: create it with autoResendUnfulfilledCommands: false',
      { details: { field: 'autoResendUnfulfilledCommands' } },
    );
  }
  const batch = (transaction: boolean, commands: unknown): ChainableCommander => {
    const made = new FencedBatch(fenced, transaction);
    if (Array.isArray(commands)) made.addBatch(commands as unknown[][]);
    return made as unknown as ChainableCommander;
  };
  // Commands of one tick are packed by the application, not by the client, which would send them past the fence.
  const options: object = Object.create(client.options, { enableAutoPipelining: { value: false } }) as object;
  const own: Record<PropertyKey, unknown> = {
    options,
    sendCommand: (command: Command) => fenced.send(command),
    pipeline: (commands?: unknown) => batch(false, commands),
    multi: (...given: unknown[]) => {
      if (given.some((one) => (one as { pipeline?: boolean } | undefined)?.pipeline === false))
        throw refused({ name: 'multi' }, '{ pipeline: false } is not supported; use multi()…exec()');
      return batch(true, given[0]);
    },
    exec: async () => {
      throw refused({ name: 'exec' }, 'a transaction is made with `multi()…exec()`');
    },
    duplicate: () => {
      throw refused({ name: 'duplicate' }, 'duplicate the client itself, and call interlock.redis with it');
    },
  };
  const proxy: Redis = new Proxy(client, {
    get(target, name): unknown {
      if (Object.hasOwn(own, name)) return own[name];
      const value: unknown = Reflect.get(target, name, target);
      if (typeof value !== 'function') return value;
      // Commands, and scripts that were defined as one, send by way of `sendCommand` of what they are called on.
      const isCommand = value === COMMANDS[name as string] || Object.hasOwn(target, name);
      const call = value as (...given: unknown[]) => unknown;
      return (...given: unknown[]) => {
        const result = call.apply(isCommand ? proxy : target, given);
        // Hazard: `on` and its like answer the client that they were called on; that one's writes are not checked.
        return result === target ? proxy : result;
      };
    },
  });
  return proxy;
}
