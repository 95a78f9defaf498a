import type { Socket } from 'node:net';
import { InterlockError, messageOf } from '../../src/errors.js';
import { encodeCommand, loginOf, NO_ROOM, openSocket, unavailable } from './connection.js';
import { Intake } from './intake.js';
import type { RedisAddress } from '../../src/topology/redis-address.js';

const LF = 10;
const HANDSHAKE_MS = 60_000;
/** A source that makes its RDB says nothing but line ends meanwhile, one a second or so. */
const ACK_MS = 1000;
const EOF_MARK_BYTES = 40;

export interface Resync {
  kind: 'full' | 'partial';
  replid: string;
  /** Everything up to here is in what the replica has (partial), or in the RDB that comes (full). */
  offset: number;
}

/**
 * This side of a master's replication: a replica that keeps nothing. It announces no port: what asks the master for its replicas (Sentinel, FAILOVER)
 * finds port 0, where nobody can be promoted.
 */
export class Replica {
  readonly intake: Intake;
  /** So many bytes came; 0: the connection is gone. */
  onData: ((bytes: number) => void) | undefined;
  failure: InterlockError | undefined;
  lastHeardAt = Date.now();
  /** What is acknowledged to the source: counts for WAIT there. 0 while a full synchronisation is not applied. */
  acknowledged = 0;
  private line: Buffer = Buffer.alloc(0);
  private lineWanted: ((line: string) => void) | undefined;
  private reading: 'lines' | 'stream' = 'lines';
  private paused = false;
  private readonly timer: NodeJS.Timeout;
  private mayAck = false;

  private constructor(
    private readonly address: RedisAddress,
    private readonly socket: Socket,
    spoolBytes: number,
  ) {
    this.intake = new Intake(spoolBytes);
    socket.on('data', (chunk: Buffer) => this.took(chunk));
    socket.on('error', (error) => this.fail(error));
    socket.on('close', () => this.fail(new Error('the source has closed the replication')));
    this.timer = setInterval(() => this.acknowledge(), ACK_MS);
  }

  /** Logged in, nothing asked for yet. @throws InterlockError Unavailable, Refused */
  static async open(address: RedisAddress, spoolBytes: number): Promise<Replica> {
    const replica = new Replica(address, await openSocket(address), spoolBytes);
    try {
      const login = loginOf(address);
      if (login !== null) await replica.requireOk(login);
      // Without PING: a source that cannot save refuses it (MISCONF).
      await replica.requireOk(['REPLCONF', 'capa', 'eof', 'capa', 'psync2']);
      return replica;
    } catch (error) {
      replica.close();
      throw error;
    }
  }

  /**
   * Asks for what comes behind a position, or for everything (null). After `full`, the intake holds first what `rdbLength` is for.
   * @throws InterlockError Unavailable, retryable; Refused
   */
  async psync(from: { replid: string; offset: number } | null, withinMs = HANDSHAKE_MS): Promise<Resync> {
    const args = from === null ? ['?', '-1'] : [from.replid, String(from.offset + 1)];
    const answer = await this.command(['PSYNC', ...args], Math.max(withinMs, HANDSHAKE_MS));
    const full = /^\+FULLRESYNC ([0-9a-f]{40}) (\d+)$/.exec(answer);
    if (full) return { kind: 'full', replid: full[1]!, offset: Number(full[2]) };
    const partial = /^\+CONTINUE(?: ([0-9a-f]{40}))?$/.exec(answer);
    if (partial && from !== null) {
      this.reading = 'stream';
      this.mayAck = true;
      this.acknowledged = from.offset;
      this.restOfLines();
      return { kind: 'partial', replid: partial[1] ?? from.replid, offset: from.offset };
    }
    const passing = /^-(LOADING|NOMASTERLINK|MASTERDOWN|BUSY|ERR Can't SYNC)/.test(answer);
    throw new InterlockError(
      passing ? 'Unavailable' : 'Refused',
      `Redis at ${this.address.host}:${this.address.port} refuses to replicate: ${answer}`,
      { retryable: passing },
    );
  }

  /** The form in which the RDB comes: its length, or the mark that ends it. */
  async rdbForm(withinMs = HANDSHAKE_MS): Promise<{ length: number } | { mark: Buffer }> {
    for (;;) {
      // While the source makes the RDB, it sends empty lines: no deadline but that they come.
      const line = await this.nextLine(withinMs);
      if (line === '') continue;
      const eof = /^\$EOF:(.{40})$/.exec(line);
      const length = /^\$(\d+)$/.exec(line);
      if (eof === null && length === null)
        throw unavailable(this.address, new Error(`it sent ${line.slice(0, 100)} instead of its data`));
      this.reading = 'stream';
      this.mayAck = true;
      this.restOfLines();
      return eof === null ? { length: Number(length![1]) } : { mark: Buffer.from(eof[1]!, 'latin1') };
    }
  }

  /** The RDB's bytes; what follows them stays in the intake. */
  async *rdb(form: { length: number } | { mark: Buffer }, wait: () => Promise<void>): AsyncGenerator<Buffer> {
    const { intake } = this;
    let left = 'length' in form ? form.length : Infinity;
    let tail: Buffer = Buffer.alloc(0);
    for (;;) {
      if ('length' in form && left === 0) return;
      const chunk = await this.nextChunk(wait);
      if ('length' in form) {
        const mine = chunk.subarray(0, left);
        left -= mine.length;
        if (mine.length < chunk.length) intake.unshift(chunk.subarray(mine.length));
        yield mine;
        continue;
      }
      // The mark may be split over chunks: what could be its beginning is kept back.
      const bytes = tail.length === 0 ? chunk : Buffer.concat([tail, chunk]);
      const found = bytes.indexOf(form.mark);
      if (found >= 0) {
        if (found + EOF_MARK_BYTES < bytes.length) intake.unshift(bytes.subarray(found + EOF_MARK_BYTES));
        if (found > 0) yield bytes.subarray(0, found);
        // The source sends its stream only to a replica that has said that it has the data.
        this.acknowledge();
        return;
      }
      const keep = Math.min(bytes.length, EOF_MARK_BYTES - 1);
      tail = Buffer.from(bytes.subarray(bytes.length - keep));
      if (bytes.length > keep) yield bytes.subarray(0, bytes.length - keep);
    }
  }

  private async nextChunk(wait: () => Promise<void>): Promise<Buffer> {
    for (;;) {
      const chunk = this.shift();
      if (chunk !== undefined) return chunk;
      if (this.intake.mustLoad) await this.intake.load();
      else if (this.failure !== undefined) throw this.failure;
      else await wait();
    }
  }

  /** What came next and is in memory. */
  shift(): Buffer | undefined {
    const chunk = this.intake.shift();
    if (this.paused && !this.intake.isFull) {
      this.paused = false;
      this.socket.resume();
    }
    return chunk;
  }

  acknowledge(): void {
    if (this.mayAck && this.failure === undefined)
      this.socket.write(encodeCommand(['REPLCONF', 'ACK', this.acknowledged]));
  }

  close(): void {
    clearInterval(this.timer);
    this.fail(new Error('the link has closed it'));
    this.intake.close();
  }

  private async requireOk(command: string[]): Promise<void> {
    const answer = await this.command(command, HANDSHAKE_MS);
    if (answer === '+OK') return;
    const passing = ['LOADING', 'MASTERDOWN', NO_ROOM].some((said) => answer.startsWith(`-${said}`));
    throw new InterlockError(
      passing ? 'Unavailable' : 'Refused',
      `Redis at ${this.address.host}:${this.address.port} refuses ${command[0]}: ${answer}`,
      { retryable: passing },
    );
  }

  private async command(args: string[], withinMs: number): Promise<string> {
    const answer = this.nextLine(withinMs, true);
    this.socket.write(encodeCommand(args));
    return answer;
  }

  private async nextLine(withinMs: number, skipEmpty = false): Promise<string> {
    if (this.failure !== undefined) throw this.failure;
    return new Promise<string>((resolve, reject) => {
      const timer = setTimeout(() => {
        this.fail(new Error(`no answer in ${withinMs} ms`));
      }, withinMs);
      this.lineWanted = (line) => {
        if (skipEmpty && line === '') return;
        clearTimeout(timer);
        this.lineWanted = undefined;
        this.lineFailed = undefined;
        resolve(line);
      };
      this.lineFailed = (error) => {
        clearTimeout(timer);
        reject(error);
      };
      this.takeLines();
    });
  }
  private lineFailed: ((error: InterlockError) => void) | undefined;

  private took(chunk: Buffer): void {
    this.lastHeardAt = Date.now();
    if (this.reading === 'lines') {
      this.line = this.line.length === 0 ? chunk : Buffer.concat([this.line, chunk]);
      this.takeLines();
      return;
    }
    this.keep(chunk);
  }

  private keep(chunk: Buffer): void {
    try {
      this.intake.push(chunk);
    } catch (error) {
      this.fail(error);
    }
    if (this.intake.isFull && !this.paused) {
      this.paused = true;
      this.socket.pause();
    }
    this.onData?.(chunk.length);
  }

  private takeLines(): void {
    while (this.lineWanted !== undefined && this.reading === 'lines') {
      const end = this.line.indexOf(LF);
      if (end < 0) return;
      const line = this.line.toString('latin1', 0, end).replace(/\r$/, '');
      this.line = this.line.subarray(end + 1);
      this.lineWanted(line);
    }
  }

  private restOfLines(): void {
    const rest = this.line;
    this.line = Buffer.alloc(0);
    if (rest.length > 0) this.keep(rest);
  }

  private fail(error: unknown): void {
    if (this.failure !== undefined) return;
    this.failure =
      error instanceof InterlockError
        ? error
        : unavailable(this.address, new Error(`replication: ${messageOf(error)}`));
    this.socket.destroy();
    this.lineFailed?.(this.failure);
    this.onData?.(0);
  }
}
