import { connect as connectTcp, isIP } from 'node:net';
import type { Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import type { ConnectionOptions } from 'node:tls';
import { setTimeout as sleep } from 'node:timers/promises';
import { InterlockError, messageOf } from '../../../src/errors.js';
import { Reader, Writer } from './bytes.js';
import { authenticate } from './sasl.js';
import type { SaslOptions } from './sasl.js';

/** How a cluster is reached. Plain data: it travels to the thread of a link. */
export interface KafkaAddress {
  /** `host:port`; any of them that answers names the others. */
  brokers: string[];
  /** PEM texts, as Node's `tls.connect` takes them; `{}` for the system's authorities. */
  tls?: Pick<ConnectionOptions, 'ca' | 'cert' | 'key' | 'passphrase' | 'servername' | 'rejectUnauthorized'>;
  sasl?: SaslOptions;
}

/** One call of the protocol. */
export interface Api<T> {
  key: number;
  version: number;
  /** The newer headers, with tagged fields. */
  flexible?: boolean;
  name: string;
  write: (writer: Writer) => void;
  read: (reader: Reader) => T;
}

interface Waiting {
  resolve: (reader: Reader) => void;
  reject: (error: InterlockError) => void;
  flexible: boolean;
  /** By the monotonic clock. */
  sentAt: number;
  timeoutMs: number;
}

const CONNECT_MS = 10_000;
const CLIENT_ID = 'interlock';
const LOOK_MS = 1_000;

/**
 * A connection to one broker. Answers come in the order of the requests. A request that is not answered in time ends the connection with
 * all that waits on it: after that, nobody knows what the broker has done.
 */
export class Connection {
  private readonly waiting: Waiting[] = [];
  private correlation = 0;
  private chunks: Buffer[] = [];
  private received = 0;
  private wanted = 4;
  private failure: InterlockError | undefined;
  /** By the monotonic clock: until then the broker reads nothing from here (a quota; KIP-219). */
  private mutedUntil = 0;
  private readonly timer: NodeJS.Timeout;

  private constructor(
    private readonly socket: Socket,
    readonly address: string,
  ) {
    socket.setNoDelay(true);
    socket.setKeepAlive(true, 10_000);
    socket.on('data', (chunk: Buffer) => this.receive(chunk));
    socket.on('error', (error) => this.end(`${address}: ${error.message}`));
    socket.on('close', () => this.end(`${address} has closed the connection`));
    this.timer = setInterval(() => {
      const first = this.waiting[0];
      if (first === undefined) return;
      // Hazard: a broker that throttles longer than a request may take would be left, and throttle the next connection as well.
      const from = Math.max(first.sentAt, this.mutedUntil);
      if (performance.now() > from + first.timeoutMs) this.end(`${address} does not answer`);
    }, LOOK_MS);
  }

  static async open(address: string, how: Omit<KafkaAddress, 'brokers'>): Promise<Connection> {
    const at = address.lastIndexOf(':');
    const [host, port] = [address.slice(0, at).replace(/^\[(.*)\]$/, '$1'), Number(address.slice(at + 1))];
    const socket =
      how.tls === undefined
        ? connectTcp({ host, port })
        : connectTls({ host, port, ...(isIP(host) === 0 && { servername: host }), ...how.tls });
    await new Promise<void>((resolve, reject) => {
      const fail = (why: string): void => {
        socket.destroy();
        reject(unavailable(`${address}: ${why}`));
      };
      const timer = setTimeout(() => fail(`no connection in ${CONNECT_MS} ms`), CONNECT_MS);
      const done = (): void => clearTimeout(timer);
      socket.once(how.tls === undefined ? 'connect' : 'secureConnect', () => (done(), resolve()));
      socket.once('error', (error) => (done(), fail(messageOf(error))));
      socket.once('close', () => (done(), fail('it has closed the connection')));
    });
    socket.removeAllListeners('close');
    const connection = new Connection(socket, address);
    try {
      if (how.sasl !== undefined) await authenticate(connection, how.sasl);
    } catch (error) {
      connection.close();
      throw error;
    }
    return connection;
  }

  get isOpen(): boolean {
    return this.failure === undefined;
  }

  /** Returns when a quota of the broker does not keep it from reading. */
  async unmuted(): Promise<void> {
    for (let left = this.mutedMs; left > 0 && this.isOpen; left = this.mutedMs)
      await sleep(Math.min(left, LOOK_MS));
  }

  private get mutedMs(): number {
    return this.mutedUntil - performance.now();
  }

  /** @param timeoutMs from now, with what waits before it; the time for which the broker reads nothing does not count */
  async call<T>(api: Api<T>, timeoutMs = 15_000): Promise<T> {
    if (this.failure !== undefined) throw this.failure;
    const writer = new Writer();
    const correlation = (this.correlation = (this.correlation + 1) | 0);
    writer.int32(0).int16(api.key).int16(api.version).int32(correlation).string(CLIENT_ID);
    const flexible = api.flexible === true;
    if (flexible) writer.tags();
    api.write(writer);
    const request = writer.done();
    request.writeInt32BE(request.length - 4, 0);
    const reader = await new Promise<Reader>((resolve, reject) => {
      this.waiting.push({ resolve, reject, flexible, sentAt: performance.now(), timeoutMs });
      this.socket.write(request);
    });
    try {
      const answer = api.read(reader);
      if (reader.throttleMs > 0)
        this.mutedUntil = Math.max(this.mutedUntil, performance.now() + reader.throttleMs);
      return answer;
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      throw new InterlockError('Internal', `${this.address}: the answer to ${api.name} cannot be read`, {
        cause: error,
      });
    }
  }

  private receive(chunk: Buffer): void {
    this.chunks.push(chunk);
    this.received += chunk.length;
    while (this.received >= this.wanted) {
      const bytes = this.chunks.length === 1 ? this.chunks[0]! : Buffer.concat(this.chunks, this.received);
      this.chunks = [bytes];
      const size = 4 + bytes.readInt32BE(0);
      if (bytes.length < size) {
        this.wanted = size;
        return;
      }
      this.wanted = 4;
      this.received = bytes.length - size;
      this.chunks = this.received === 0 ? [] : [bytes.subarray(size)];
      const reader = new Reader(bytes.subarray(4, size));
      reader.int32();
      const first = this.waiting.shift();
      if (first === undefined) return this.end(`${this.address}: an answer that nobody asked for`);
      if (first.flexible) reader.tags();
      first.resolve(reader);
    }
  }

  close(): void {
    this.end(`the connection to ${this.address} was closed`);
  }

  private end(why: string): void {
    if (this.failure !== undefined) return;
    this.failure = unavailable(why);
    clearInterval(this.timer);
    this.socket.destroy();
    this.chunks = [];
    for (const { reject } of this.waiting.splice(0)) reject(this.failure);
  }
}

export function unavailable(why: string): InterlockError {
  return new InterlockError('Unavailable', why, { retryable: true });
}
