import net from 'node:net';
import tls from 'node:tls';
import { InterlockError, messageOf } from '../../src/errors.js';
import { certificatesOf } from '../../src/topology/certificates.js';
import type { RedisAddress } from '../../src/topology/redis-address.js';
import { ReplyError, ReplyReader } from './resp/reply-reader.js';
import type { Reply } from './resp/reply-reader.js';

const CONNECT_MS = 5_000;

/** Of a target as a whole, not of a command: they pass, or an operator ends them. */
export const PASSING: ReadonlySet<string> = new Set([
  'LOADING', 'BUSY', 'MISCONF', 'READONLY', 'MASTERDOWN', 'NOREPLICAS', 'OOM', 'CLUSTERDOWN', 'TRYAGAIN', 'NOAUTH', 'NOPERM',
]); // prettier-ignore

/** What a server says that has no connection left (`maxclients`), whatever it was asked: it has no code of its own. */
export const NO_ROOM = 'ERR max number of clients reached';

type Argument = string | Buffer | number;

/** A command as the bytes of a request. */
export function encodeCommand(args: readonly Argument[]): Buffer {
  const parts: Buffer[] = [Buffer.from(`*${args.length}\r\n`)];
  for (const arg of args) {
    const bytes = Buffer.isBuffer(arg) ? arg : Buffer.from(String(arg));
    parts.push(Buffer.from(`$${bytes.length}\r\n`), bytes, CRLF);
  }
  return Buffer.concat(parts);
}
const CRLF = Buffer.from('\r\n');

/** A reply that is one string or number, as text; '' for none. */
export function textOf(reply: Reply | undefined): string {
  if (Buffer.isBuffer(reply)) return reply.toString();
  if (reply instanceof ReplyError) return reply.message;
  return typeof reply === 'object' || reply === undefined ? '' : String(reply);
}

/** A plain socket to a Redis server, not logged in. @throws InterlockError Unavailable, retryable; BadInput: a certificate cannot be read */
export async function openSocket(address: RedisAddress): Promise<net.Socket> {
  const { host, port, tls: files } = address;
  const socket =
    files === undefined
      ? net.connect({ host, port, noDelay: true, keepAlive: true })
      : tls.connect({
          host,
          port,
          ...certificatesOf(files),
          servername: files.serverName ?? host,
          minVersion: 'TLSv1.2',
        });
  try {
    await new Promise<void>((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`no answer in ${CONNECT_MS} ms`)), CONNECT_MS);
      const end = (error?: Error): void => {
        clearTimeout(timer);
        if (error === undefined) resolve();
        else reject(error);
      };
      socket.once(files === undefined ? 'connect' : 'secureConnect', () => end());
      socket.once('error', end);
      socket.once('close', () => end(new Error('the connection was closed')));
    });
  } catch (error) {
    socket.destroy();
    throw unavailable(address, error);
  }
  socket.setNoDelay(true);
  // One that breaks between two commands must not end the process; the next command says so.
  socket.on('error', () => undefined);
  return socket;
}

export function unavailable({ host, port }: RedisAddress, error: unknown): InterlockError {
  return new InterlockError('Unavailable', `Redis at ${host}:${port}: ${messageOf(error)}`, {
    cause: error,
    retryable: true,
  });
}

/** The commands that log in; none without a password. */
export function loginOf({ user, password }: RedisAddress): string[] | null {
  if (password === undefined) return null;
  return user === undefined ? ['AUTH', password] : ['AUTH', user, password];
}

/** @throws InterlockError: Refused when the server does not take the password; retryable while it loads its data */
export function requireOk(address: RedisAddress, what: string, reply: Reply): void {
  if (!(reply instanceof ReplyError)) return;
  const passing =
    ['LOADING', 'BUSY', 'MASTERDOWN', 'NOMASTERLINK'].includes(reply.code) ||
    reply.message.startsWith(NO_ROOM);
  throw new InterlockError(
    passing ? 'Unavailable' : 'Refused',
    `Redis at ${address.host}:${address.port} refuses ${what}: ${reply.message}`,
    { retryable: passing },
  );
}

interface Waiter {
  left: number;
  /** Of what `left` counts, each; the last one ends it. */
  take: (reply: Reply) => void;
}

/** Commands and their replies over one connection, in order; many may be under way. */
export class RedisConnection {
  private readonly waiters: (Waiter | undefined)[] = [];
  private first = 0;
  private readonly reader: ReplyReader;
  private broken: Error | undefined;
  private readonly rejects = new Set<(error: Error) => void>();
  /** Since when an answer is due; undefined: none is. */
  dueSince: number | undefined;
  /** The connection is gone, by whoever. */
  onBroken: ((error: Error) => void) | undefined;

  private constructor(
    readonly address: RedisAddress,
    private readonly socket: net.Socket,
    skipsStrings: boolean,
  ) {
    this.reader = new ReplyReader(skipsStrings);
    socket.on('data', (chunk: Buffer) => {
      try {
        for (const reply of this.reader.push(chunk)) this.took(reply);
        if (this.dueSince !== undefined) this.dueSince = Date.now();
      } catch (error) {
        this.destroy(error as Error);
      }
    });
    socket.on('error', (error) => this.destroy(error));
    socket.on('close', () => this.destroy(new Error('the connection was closed')));
  }

  /** @param options.skipsStrings of ReplyReader */
  static async open(
    address: RedisAddress,
    name: string,
    { skipsStrings = false } = {},
  ): Promise<RedisConnection> {
    const connection = new RedisConnection(address, await openSocket(address), skipsStrings);
    try {
      const login = loginOf(address);
      if (login !== null) requireOk(address, 'the login', await connection.ask(...login));
      await connection.ask('CLIENT', 'SETNAME', name);
      return connection;
    } catch (error) {
      connection.destroy();
      throw error;
    }
  }

  /** @throws InterlockError Unavailable when the connection is lost; an error reply is returned, not thrown */
  async ask(...args: Argument[]): Promise<Reply> {
    const [reply] = await this.askAll([args]);
    return reply!;
  }

  /** As `ask`, and an error reply is thrown as Refused, or as Unavailable when it passes. */
  async call(...args: Argument[]): Promise<Reply> {
    const reply = await this.ask(...args);
    requireOk(this.address, String(args[0]), reply);
    return reply;
  }

  /** Pipelined. */
  async askAll(commands: readonly (readonly Argument[])[]): Promise<Reply[]> {
    const replies: Reply[] = [];
    return new Promise((resolve, reject) => {
      this.expect(commands.length, (reply) => {
        replies.push(reply);
        if (replies.length === commands.length) {
          this.rejects.delete(reject);
          resolve(replies);
        }
      });
      this.rejects.add(reject);
      if (this.broken !== undefined) {
        this.rejects.delete(reject);
        reject(unavailable(this.address, this.broken));
        return;
      }
      this.write(commands.map(encodeCommand));
    });
  }

  /** The next `count` replies are for `take`. Nothing comes when the connection is lost before: see `onBroken`. */
  expect(count: number, take: (reply: Reply) => void): void {
    this.waiters.push({ left: count, take });
    this.dueSince ??= Date.now();
  }

  /** @returns false: the server reads slower than this side writes */
  write(parts: readonly Buffer[]): boolean {
    const { socket } = this;
    if (parts.length === 1) return socket.write(parts[0]!);
    socket.cork();
    let room = true;
    for (const part of parts) room = socket.write(part);
    socket.uncork();
    return room;
  }

  /** Resolves when the server has read most of what was written. @throws InterlockError Unavailable when the connection is lost */
  async drained(): Promise<void> {
    if (this.broken !== undefined) throw unavailable(this.address, this.broken);
    if (this.socket.writableNeedDrain)
      await new Promise<void>((resolve, reject) => {
        this.rejects.add(reject);
        this.socket.once('drain', () => {
          this.rejects.delete(reject);
          resolve();
        });
      });
    // It answers when it has read the whole: what it reads says that it is there.
    if (this.dueSince !== undefined) this.dueSince = Date.now();
  }

  /** Ends what waits with an error. */
  destroy(error: Error = new Error('the link has closed it')): void {
    if (this.broken !== undefined) return;
    this.broken = error;
    this.socket.destroy();
    const why = unavailable(this.address, error);
    for (const reject of this.rejects) reject(why);
    this.rejects.clear();
    this.onBroken?.(why);
  }

  private took(reply: Reply): void {
    const waiter = this.waiters[this.first];
    if (waiter === undefined) return this.destroy(new Error('it answered what nobody has asked'));
    if (--waiter.left === 0) {
      // Hazard: what it closes over may be a block with megabytes of the source's stream.
      this.waiters[this.first] = undefined;
      this.first += 1;
      if (this.first > 1024) {
        this.waiters.splice(0, this.first);
        this.first = 0;
      }
      if (this.waiters[this.first] === undefined) this.dueSince = undefined;
    }
    waiter.take(reply);
  }
}
